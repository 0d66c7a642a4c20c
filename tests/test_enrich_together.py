"""Steps together, as their strictest reader takes them: who has a say, what conditions see, what is told when, who pays."""

from __future__ import annotations

import asyncio
import importlib.metadata
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pydantic
import pytest

import headwater
from headwater.blocking import Headwater
from headwater.enrich.purse import Purse
from headwater.enrich.spec import spec_of
from headwater.errors import LimitError, UsageError
from headwater.records.labels import Ran, RunEvent
from headwater.records.models import Usage
from serving import eventually, serving, settings_in

GATE = threading.Event()
SAYS = {"if": "", "say": '{"label": "b", "confidence": 1}'}


@pytest.fixture
def hw(tmp_path: Path) -> Iterator[Headwater]:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
        yield opened


@pytest.fixture(params=["open", "connect"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def rehearsing(path: Path, *lines: Mapping[str, Any]) -> Any:
    """An engine whose chat model answers by a script."""
    file = path / "script.json"
    file.write_bytes(orjson.dumps(list(lines)))
    llm = {"provider": "rehearsal", "model": str(file), "retries": 0, "price_input": 1.0, "price_output": 1.0}
    return headwater.open(path / "data", embedding={"model": "hash"}, llm=llm)


def events(hw: Headwater, steps: list[Any], text: str) -> list[RunEvent]:
    return list(hw.run_pipeline("x", [text], spec={"steps": steps}))


def ran(hw: Headwater, steps: list[Any], text: str) -> Ran:
    found = events(hw, steps, text)[-1].ran
    assert found is not None
    return found


# ---------------------------------------------------------------------- ensembles and conditions


def test_a_step_of_an_ensemble_has_no_say_where_it_is_not_meant_or_not_sure(hw: Headwater) -> None:
    members = [
        {"classify": {"labels": ["disk", "login"]}, "name": "sees"},
        {"classify": {"labels": ["red", "blue"]}, "name": "elsewhere", "when": "nothing-of-the-kind"},
        {"classify": {"labels": ["red", "blue"]}, "name": "unsure", "min_confidence": 1.0},
    ]
    found = ran(hw, [{"ensemble": {"by": "mean", "steps": members}, "field": "kind"}], "disk")
    assert found.fields["kind"] == "disk"
    assert {t.step: t.skipped for t in found.steps} == {
        "sees": None, "elsewhere": "its condition does not hold", "unsure": "less sure than 1", "ensemble": None,
    }  # fmt: skip
    assert found.steps[-1].output == {"kind": "disk"}


def test_an_ensemble_of_which_nobody_has_a_say_gives_nothing_and_fails_nothing(hw: Headwater) -> None:
    members = [{"classify": {"labels": ["a", "b"]}, "when": "nothing-of-the-kind"}] * 2
    found = ran(hw, [{"ensemble": members}], "disk")
    assert (found.fields, found.error) == ({}, None)
    assert found.steps[-1].skipped == "no step has a say"


def test_an_ensemble_that_is_not_sure_enough_gives_nothing(hw: Headwater) -> None:
    members = [{"classify": {"labels": ["disk", "login"]}}, {"classify": {"labels": ["login", "blue"]}}]
    steps = [{"ensemble": {"by": "vote", "steps": members}, "min_confidence": 0.6}]
    found = ran(hw, steps, "disk")
    assert found.fields == {}
    assert found.steps[-1].skipped == "less sure than 0.6"


def test_conditions_can_ask_how_sure_a_field_is(hw: Headwater) -> None:
    steps = [
        {"classify": {"labels": ["disk", "login"]}},
        {"if": "label_confidence:>0.4", "then": [{"route": {"to": [{"topic": "sure", "when": "label:disk"}]}}],
         "else": [{"route": {"to": [{"topic": "people", "when": "label:*"}]}}]},
    ]  # fmt: skip
    assert ran(hw, steps, "disk").topics == ("sure",)
    steps[1]["if"] = "label_confidence:>1.1"
    assert ran(hw, steps, "disk").topics == ("people",)


@pytest.mark.parametrize("kind", ["parallel", "fallback"])
def test_what_a_step_made_of_steps_does_not_have_is_refused(kind: str) -> None:
    with pytest.raises(UsageError, match="unknown 'min_confidence'"):
        spec_of({"steps": [{kind: [{"stop": "x"}], "min_confidence": 0.5}]})


# ---------------------------------------------------------------------- functions


def tells(text: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Its second part waits until the test has seen the first."""
    yield {"first": len(text)}
    assert GATE.wait(240)
    yield {"second": True}


async def tells_async(text: str, fields: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield {"first": len(text)}
    while not GATE.is_set():
        await asyncio.sleep(0)
    yield {"second": True}


class Crowd:
    """How many calls were under way at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock, self._met = threading.Lock(), threading.Barrier(3)

    def __call__(self, text: str, fields: dict[str, Any], together: bool = False) -> dict[str, Any]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        if together:
            self._met.wait(240)
        with self._lock:
            self.now -= 1
        return {"seen": text}


CROWD = Crowd()


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    GATE.clear()
    names = {"tells": "tells", "tells-async": "tells_async", "crowd": "CROWD"}
    points = [importlib.metadata.EntryPoint(n, f"test_enrich_together:{at}", "headwater.steps") for n, at in names.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == "headwater.steps" else [])


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("call", ["tells", "tells-async"])
def test_what_a_function_yields_is_told_while_it_is_at_work(both: Headwater, call: str) -> None:
    seen = []
    for event in both.run_pipeline("x", ["abc"], spec={"steps": [{"python": {"call": call}, "name": "mine"}]}):
        seen.append(event)
        if event.event == "part":
            GATE.set()  # only now can it go on: the first part has come before its end
    assert [event.event for event in seen] == ["part", "part", "step", "done"]
    assert seen[0].step is not None
    assert (seen[0].step.step, dict(seen[0].step.output)) == ("mine", {"first": 3})
    assert seen[-1].ran is not None
    assert seen[-1].ran.fields == {"first": 3, "second": True}


@pytest.mark.usefixtures("plugins")
def test_as_many_calls_are_under_way_as_a_step_says(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", ["a", "b", "c"], wait="searchable", timeout_s=60)
    hw.create_pipeline("one", {"topics": ["t"], "output": "o1", "steps": [{"python": {"call": "crowd"}}]})
    eventually(lambda: hw.pipeline("one").records == 3)
    assert CROWD.most == 1  # a function need not be made for several threads
    step = {"python": {"call": "crowd", "with": {"together": True}}, "concurrency": 3}
    hw.create_pipeline("three", {"topics": ["t"], "output": "o3", "steps": [step]})
    eventually(lambda: hw.pipeline("three").records == 3)  # each waits for the two others
    assert CROWD.most == 3


# ---------------------------------------------------------------------- as it is written


class Order(pydantic.BaseModel):
    """What an order says."""

    number: int = pydantic.Field(json_schema_extra={"pattern": r"order (\d+)"})


def test_a_pydantic_model_is_a_schema(both: Headwater) -> None:
    assert ran(both, [{"extract": {"schema": Order, "by": "regex"}}], "order 4711").fields == {"number": 4711}


def test_aliases_are_allowed_and_a_few_bytes_that_stand_for_millions_are_refused() -> None:
    text = "steps:\n- classify: {labels: &l {disk: a, login: b}}\n- classify: {labels: *l, method: zero-shot}\n"
    assert [leaf.config["labels"] for leaf in spec_of(text).leaves()] == [{"disk": "a", "login": "b"}] * 2
    bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(UsageError, match="aliases written out"):
        spec_of(bomb)


# ---------------------------------------------------------------------- what it takes


def test_parts_of_a_purse_count_their_own_and_keep_to_the_limit_of_the_whole() -> None:
    purse = Purse(100)
    one, other = purse.part(), purse.part()
    with one.paying(60) as bill:
        bill.paid(Usage(40, 10, 0.5))
    with other.paying(50) as bill:
        bill.paid(Usage(20, 0, 0.25))
    with pytest.raises(LimitError), other.paying(31):
        pass
    assert (one.spent.tokens, other.spent.tokens, purse.spent.tokens) == (50, 20, 70)
    assert (one.calls, other.calls, purse.calls) == (1, 1, 2)
    assert purse.spent.cost == 0.75


def test_each_step_is_told_with_what_it_took_itself(tmp_path: Path) -> None:
    with rehearsing(tmp_path, SAYS) as hw:
        hw.create_topic("t", passages="exact")
        hw.append("t", ["one"], wait="searchable", timeout_s=60)
        steps = [{"classify": {"labels": ["a", "b"], "method": "llm"}}, {"summarize": {}}, {"stop": "nothing"}]
        hw.create_pipeline("p", {"topics": ["t"], "output": "out", "steps": steps})
        eventually(lambda: hw.pipeline("p").records == 1)
        seen = hw.pipeline("p")
        took = [step.usage.tokens for step in seen.steps]
        assert min(took[:2]) > 0
        assert took[2] == 0
        assert sum(took) == seen.usage.tokens


def test_what_was_paid_before_a_model_failed_is_not_forgotten(tmp_path: Path) -> None:
    with rehearsing(tmp_path, {"if": r"\[word\]", "fault": 503}, SAYS) as hw:
        hw.create_topic("t", passages="exact")
        hw.append("t", ["one"], wait="searchable", timeout_s=60)
        hidden = {"redact": {"patterns": {"word": "one"}}}
        steps = [{"classify": {"labels": ["a", "b"], "method": "llm"}}, hidden, {"summarize": {}}]
        hw.create_pipeline("p", {"topics": ["t"], "output": "out", "steps": steps})
        eventually(lambda: hw.pipeline("p").state == "held up")
        eventually(lambda: hw.pipeline("p").usage.tokens > 0)
        assert any("pipeline p is held up" in problem for problem in hw.status().problems)
        assert hw.status().pipelines["held up"] == 1
        paid = hw.pipeline("p").usage.tokens
        hw.stop_pipeline("p")
        assert hw.status().pipelines == {"running": 0, "stopped": 1, "held up": 0, "behind": 1}
    with rehearsing(tmp_path, SAYS) as hw:
        assert hw.pipeline("p").usage.tokens == paid


def test_pipelines_and_their_steps_are_in_the_metrics(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url, headwater.connect(url) as hw:
        hw.create_topic("t", passages="exact")
        hw.append("t", ["disk full", "disk full", "login"], wait="searchable", timeout_s=60)
        steps = [{"classify": {"labels": ["disk", "login"]}}]
        hw.create_pipeline("p", {"topics": ["t"], "output": "out", "steps": steps})
        eventually(lambda: hw.pipeline("p").records == 3)
        page = httpx.get(f"{url}/metrics").text
        for line in (
            'headwater_pipelines{state="running"} 1.0', 'headwater_pipeline_records_total{pipeline="p"} 3.0',
            'headwater_pipeline_written_total{pipeline="p"} 3.0', 'headwater_pipeline_behind_records{pipeline="p"} 0.0',
            'headwater_step_decided_total{kind="classify",pipeline="p",step="classify"} 2.0',
            'headwater_pipeline_held_up{pipeline="p"} 0.0',
        ):  # fmt: skip
            assert line in page


def test_a_kept_reply_of_no_use_is_asked_for_anew_and_what_useless_ones_took_is_told(tmp_path: Path) -> None:
    steps = [{"classify": {"labels": ["a", "b"], "method": "llm"}}]
    with rehearsing(tmp_path, {"if": "", "say": "no JSON at all"}) as hw:
        first = ran(hw, steps, "text")
        assert "no usable reply" in (first.error or "")
        assert 0 < first.steps[0].usage.tokens < 1000  # what the replies took, not the most they could have
        script = tmp_path / "script.json"
        script.write_bytes(orjson.dumps([SAYS]))
    with rehearsing(tmp_path, SAYS) as hw:
        assert ran(hw, steps, "text").fields["label"] == "b"


def test_a_backtest_counts_near_numbers_together(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", ["disk", "disk disk", "login"], wait="searchable", timeout_s=60)
    tried = hw.backtest_pipeline("p", {"topics": ["t"], "steps": [{"score": {"like": "disk"}}]})
    assert sum(tried.fields["score"].values()) == 3
    assert all(len(value) <= 4 for value in tried.fields["score"])


def test_what_nothing_could_find_is_said_before_anything_runs(hw: Headwater) -> None:
    schema = {
        "type": "object",
        "properties": {"order": {"type": "integer", "pattern": r"order (\d+)"}, "mood": {"type": "string"}},
    }
    with pytest.raises(UsageError, match="'mood' has no pattern: give `model`"):
        ran(hw, [{"extract": {"schema": schema}}], "order 1")
    assert ran(hw, [{"extract": {"schema": schema, "by": "regex"}}], "order 1").fields == {"order": 1}


def test_a_step_that_cannot_be_made_is_told_with_its_line(hw: Headwater) -> None:
    text = "steps:\n  - redact: {}\n  - classify:\n      labels: [only]\n"
    with pytest.raises(UsageError, match="line 3, step 'classify': say at least two labels"):
        hw.create_pipeline("p", text)
