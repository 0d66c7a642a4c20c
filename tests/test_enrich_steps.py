"""Steps one by one and together: what fails, what costs, what leaves the machine."""

from __future__ import annotations

import asyncio
import http.server
import importlib.metadata
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

import headwater
from headwater.blocking import Headwater
from headwater.enrich.graph import combined
from headwater.enrich.items import Item, Outcome, Unit, digest_id, flat
from headwater.enrich.steps_local import Redact, Route
from headwater.enrich.steps_outside import Http
from headwater.errors import UnreachableError, UsageError
from headwater.records.labels import Ran
from serving import eventually


@pytest.fixture
def hw(tmp_path: Path) -> Iterator[Headwater]:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
        yield opened


def rehearsing(path: Path, *lines: Mapping[str, Any]) -> Any:
    """An engine whose chat model answers by a script."""
    file = path / "script.json"
    file.write_bytes(orjson.dumps(list(lines)))
    return headwater.open(
        path / "data", embedding={"model": "hash"}, llm={"provider": "rehearsal", "model": str(file), "retries": 0}
    )


def ran(hw: Headwater, steps: list[Any], text: str, **top: Any) -> Ran:
    events = list(hw.run_pipeline("x", [text], spec={"steps": steps, **top}))
    found = events[-1].ran
    assert found is not None
    return found


def fill(hw: Headwater, values: list[str], kind: str = "exact") -> None:
    if "t" not in [t.name for t in hw.topics()]:
        hw.create_topic("t", passages=kind)
    hw.append("t", values, wait="searchable", timeout_s=60)


# ---------------------------------------------------------------------- together


def test_steps_beside_each_other_see_the_same_and_add_up(hw: Headwater) -> None:
    steps = [
        {"parallel": [{"classify": {"labels": ["disk", "login"]}}, {"score": {"like": "disk full"}, "field": "disky"}]},
        {"route": {"to": [{"topic": "a", "when": "label:disk disky:>0.9"}]}},
    ]
    found = ran(hw, steps, "disk full")
    assert found.fields["label"] == "disk"
    assert found.fields["disky"] == 1.0
    assert found.topics == ("a",)


def test_the_first_step_that_is_sure_enough_counts(hw: Headwater) -> None:
    schema = {"type": "object", "properties": {"label": {"type": "string", "pattern": r"as (\w+)"}}}
    ways = [
        {"classify": {"labels": ["disk", "login"]}, "min_confidence": 1.0, "name": "sure"},
        {"extract": {"schema": schema, "by": "regex"}},
        {"classify": {"labels": ["this", "that"]}},
    ]
    steps = [{"fallback": ways}]
    assert ran(hw, steps, "known as other").fields["label"] == "other"
    assert ran(hw, steps, "this").fields["label"] == "this"


def test_a_fallback_passes_over_a_model_that_is_out_of_reach(tmp_path: Path) -> None:
    steps = [{"fallback": [{"classify": {"labels": ["a", "b"], "method": "llm"}}, {"classify": {"labels": ["disk", "login"]}}]}]
    with rehearsing(tmp_path, {"fault": 503}) as hw:
        assert ran(hw, steps, "disk").fields["label"] == "disk"


def test_an_ensemble_votes(hw: Headwater) -> None:
    members = [{"classify": {"labels": labels}} for labels in (["disk", "login"], ["disk", "other"], ["login", "net"])]
    found = ran(hw, [{"ensemble": members, "field": "agreed"}], "disk")
    assert found.fields["agreed"] == "disk"
    assert found.fields["agreed_confidence"] == pytest.approx(2 / 3, abs=1e-3)


def test_votes_means_and_weights_are_combined_as_they_are_named() -> None:
    a = Outcome("x", 0.6, {"x": 0.6, "y": 0.4})
    b = Outcome("y", 0.9, {"y": 0.9, "x": 0.1})
    assert combined([(a, 1), (a, 1), (b, 1)], "vote") == ("x", 0.6667)
    assert combined([(a, 1), (b, 1)], "mean") == ("y", 0.65)
    assert combined([(a, 9), (b, 1)], "weighted") == ("x", 0.55)
    assert combined([(Outcome(0.2), 1), (Outcome(0.6), 3)], "weighted") == (0.5, 0.5)
    assert combined([(Outcome(), 1)], "vote") == (None, 0.0)


def test_a_record_that_stops_gets_no_more_and_one_that_is_dropped_is_not_written(hw: Headwater) -> None:
    fill(hw, ["spam here", "ham there", "secret thing"])
    steps = ["redact", {"drop": "secret"}, {"stop": "spam"}, {"classify": {"labels": ["a", "b"]}}]
    hw.create_pipeline("p", {"topics": ["t"], "output": "o", "steps": steps})
    eventually(lambda: hw.pipeline("p").records == 3)
    found = {r.value: r.attributes for r in hw.records("o").records}
    assert set(found) == {"spam here", "ham there"}
    assert "label" not in found["spam here"]
    assert "label" in found["ham there"]


def test_of_several_passages_a_record_takes_the_surest_value_and_every_route(hw: Headwater) -> None:
    hw.create_topic("t", passages="chunks", chunk_chars=60, chunk_overlap=0)
    hw.append(
        "t",
        ["The disk is full and broken beyond any repair now.\n\nThe login of a user failed three times in a row."],
        wait="searchable",
    )
    spec = {
        "topics": ["t"], "output": "o",
        "steps": [
            {"classify": {"labels": {"disk": "the disk is full and broken", "login": "login of a user failed"}}},
            {"route": {"to": [{"topic": "r.disk", "label": "disk"}, {"topic": "r.login", "label": "login"}]}},
        ],
    }  # fmt: skip
    hw.create_pipeline("p", spec)
    eventually(lambda: hw.pipeline("p").records == 1)
    assert (hw.topic("r.disk").records, hw.topic("r.login").records, hw.topic("o").records) == (1, 1, 1)


# ---------------------------------------------------------------------- models


def test_models_are_asked_once_for_each_passage(tmp_path: Path) -> None:
    with rehearsing(tmp_path, {"if": "", "say": '{"label": "b", "confidence": 1}'}) as hw:
        fill(hw, [f"disk sd{n} is full now" for n in range(150)] + [f"user {n} came in" for n in range(150)], "template")
        hw.create_pipeline(
            "p", {"topics": ["t"], "output": "o", "steps": [{"classify": {"labels": ["a", "b"], "method": "llm"}}]}
        )
        eventually(lambda: hw.pipeline("p").records == 300)
        step = hw.pipeline("p").steps[0]
        assert step.decided <= hw.topic("t").passages + 5
        assert step.cost == "llm"
        assert hw.pipeline("p").usage.tokens == step.usage.tokens > 0
        assert {r.attributes["label"] for r in hw.records("o", limit=300).records} == {"b"}


def test_a_limit_of_tokens_holds_and_holds_the_pipeline_up(tmp_path: Path) -> None:
    with rehearsing(tmp_path, {"if": "", "say": '{"label": "b", "confidence": 1}'}) as hw:
        fill(hw, [f"text {chr(97 + n % 26)}{chr(97 + n // 26)} of its own" for n in range(100)])
        steps = [{"classify": {"labels": ["a", "b"], "method": "llm"}}]
        tried = hw.backtest_pipeline("p", {"topics": ["t"], "steps": steps}, records=100, max_tokens=9000)
        assert tried.stopped is not None
        assert 0 < tried.usage.tokens <= 9000
        hw.create_pipeline("p", {"topics": ["t"], "output": "o", "limits": {"tokens": 5000}, "steps": steps})
        eventually(lambda: hw.pipeline("p").state == "held up")
        assert "5,000 tokens" in (hw.pipeline("p").error or "")
        assert hw.pipeline("p").usage.tokens <= 5000


def test_a_model_that_is_out_of_reach_holds_the_pipeline_up_and_loses_nothing(tmp_path: Path) -> None:
    with rehearsing(tmp_path, {"if": "", "fault": 503}) as hw:
        fill(hw, ["a", "b"])
        hw.create_pipeline("p", {"topics": ["t"], "output": "o", "steps": [{"summarize": {}}]})
        eventually(lambda: hw.pipeline("p").state == "held up")
        assert (hw.pipeline("p").records, hw.pipeline("p").behind, hw.dead_letters()) == (0, 2, [])
        assert hw.pipeline("p").steps[0].usage.tokens == 0  # a model that refuses to work takes nothing of a limit


def test_an_answer_of_no_use_makes_one_dead_letter_for_a_passage(tmp_path: Path) -> None:
    with rehearsing(
        tmp_path, {"if": "bad|cannot be used", "say": "no JSON"}, {"if": "", "say": '{"label": "a", "confidence": 1}'}
    ) as hw:
        fill(hw, ["bad text", "good text", "bad text"])
        hw.create_pipeline(
            "p", {"topics": ["t"], "output": "o", "steps": [{"classify": {"labels": ["a", "b"], "method": "llm"}}]}
        )
        eventually(lambda: hw.pipeline("p").records == 3)
        (letter,) = hw.dead_letters("t")
        assert (letter.stage, letter.address) == ("pipeline", "t/0/0")
        assert "1 more records of the same passage" in letter.reason
        assert [r.value for r in hw.records("o").records] == ["good text"]
        with pytest.raises(UsageError, match="fails again"):
            hw.replay_dead_letter(letter.id)
        hw.create_pipeline("p", {"topics": ["t"], "output": "o", "steps": [{"classify": {"labels": ["a", "b"]}}]})
        hw.replay_dead_letter(letter.id)
        assert [r.attributes["source"] for r in hw.records("o").records] == ["t/0/1", "t/0/0", "t/0/2"]
        assert hw.dead_letters() == []


def test_summaries_and_scores_come_from_a_model(tmp_path: Path) -> None:
    lines = [{"if": "Score|text", "say": '{"score": 0.8}'}]
    with rehearsing(tmp_path, *lines) as hw:
        assert ran(hw, [{"score": {"ask": "is it urgent?"}, "field": "urgent"}], "text").fields["urgent"] == 0.8
        assert ran(hw, [{"summarize": {}}], "text").fields["summary"] == '{"score": 0.8}'


def test_secrets_are_gone_before_a_model_is_asked(tmp_path: Path) -> None:
    with rehearsing(
        tmp_path,
        {"if": "hunter2", "say": '{"label": "leak", "confidence": 1}'},
        {"if": "", "say": '{"label": "safe", "confidence": 1}'},
    ) as hw:
        steps = [{"classify": {"labels": ["leak", "safe"], "method": "llm"}}]
        assert ran(hw, steps, "password=hunter2").fields["label"] == "leak"
        found = ran(hw, ["redact", *steps], "password=hunter2")
        assert (found.fields["label"], found.text) == ("safe", "password=[password]")


# ---------------------------------------------------------------------- outside


class _Service(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        given = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        if "refuse" in given["text"]:
            self.send_response(400)
            self.end_headers()
            return
        said = orjson.dumps({"length": len(given["text"]), "key": self.headers.get("x-key")})
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_is_asked_and_its_answer_becomes_fields(hw: Headwater, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_KEY", "open sesame")
    step = {"http": {"url": service, "headers": {"x-key": "${PIPELINE_KEY}"}}, "field": "seen"}
    assert ran(hw, [step], "four").fields["seen"] == {"length": 4, "key": "open sesame"}
    refused = ran(hw, [step], "refuse me")
    assert "answered 400" in (refused.error or "")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://169.254.169.254/latest", "link-local or cloud-metadata"),
        ("http://metadata.google.internal/", "link-local or cloud-metadata"),
        ("http://2852039166/", "link-local or cloud-metadata"),
        ("file:///etc/passwd", "http or https"),
        ("http://user:pass@host/", "without a name and password"),
    ],
)
def test_a_service_may_not_be_where_secrets_are_kept(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Http({"url": url}, {}, 1.0)


def test_headers_may_name_only_variables_meant_for_pipelines() -> None:
    with pytest.raises(UsageError, match="PIPELINE_"):
        Http({"url": "http://localhost/", "headers": {"x": "${OPENAI_API_KEY}"}}, {"OPENAI_API_KEY": "k"}, 1.0)
    with pytest.raises(UsageError, match="not set"):
        Http({"url": "http://localhost/", "headers": {"x": "${PIPELINE_X}"}}, {}, 1.0)


def test_a_service_that_is_not_there_is_out_of_reach() -> None:
    async def ask() -> None:
        step = Http({"url": "http://127.0.0.1:9/"}, {}, 1.0)
        try:
            await step.decide([Unit("x", None, Item("x", "t"))], None)
        finally:
            await step.aclose()

    with pytest.raises(UnreachableError):
        asyncio.run(ask())


def shout(text: str, fields: dict[str, Any], mark: str = "!") -> Any:
    if "boom" in text:
        raise ValueError("it blew up")
    if "many" in text:
        return iter([{"a": 1}, {"b": 2}])
    if "slow" in text:
        time.sleep(0.5)  # longer than the step's timeout
    return {"loud": text.upper() + mark}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("shout", "test_enrich_steps:shout", "headwater.steps")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == "headwater.steps" else [])


@pytest.mark.usefixtures("plugin")
def test_a_function_of_a_package_gives_fields_and_its_failures_are_those_of_the_record(hw: Headwater) -> None:
    step = {"python": {"call": "shout", "with": {"mark": "?"}}}
    assert ran(hw, [step], "hey").fields == {"loud": "HEY?"}
    assert ran(hw, [step], "many").fields == {"a": 1, "b": 2}
    assert "it blew up" in (ran(hw, [step], "boom").error or "")
    assert ran(hw, [{**step, "on_error": "skip"}, {"classify": {"labels": ["a", "b"]}}], "boom").error is None
    assert "longer than 0.05 s" in (ran(hw, [{**step, "timeout": 0.05}], "slow").error or "")
    with pytest.raises(UsageError, match="no entry point 'os:system'"):
        ran(hw, [{"python": {"call": "os:system"}}], "x")


# ---------------------------------------------------------------------- small parts


def test_routes_fan_out_to_the_likest_first_and_fall_back() -> None:
    step = Route({"to": [{"topic": "a", "when": "x"}, {"topic": "b", "when": "level:error"}], "most": 1, "otherwise": "rest"})
    units = [Unit(text, None, Item(text, "t", level=level)) for text, level in (("x", "error"), ("y", None), ("y", "error"))]
    found = [one.topics for one in asyncio.run(step.decide(units, None)) if isinstance(one, Outcome)]
    assert [list(topics) for topics in found] == [["a"], ["rest"], ["b"]]
    with pytest.raises(UsageError, match="says nothing of what takes it"):
        Route({"to": [{"topic": "a"}]})


def test_redaction_tells_which_kinds_it_found() -> None:
    (found,) = asyncio.run(Redact({}).decide([Unit("a@b.com password=hunter2", None, Item("", "t"))], None))
    assert isinstance(found, Outcome)
    assert found.value == ["email", "password"]
    assert found.text == "[email] password=[password]"


def test_fields_become_attributes() -> None:
    assert flat({"a": {"b": 1, "c": None}, "d": ["x", 2], "e": [{"f": 1}], "g": True}) == {
        "a.b": 1, "d": "x, 2", "e": '[{"f":1}]', "g": True,
    }  # fmt: skip


def test_what_stands_for_a_text_is_never_a_passage() -> None:
    assert all(digest_id(f"text {n}") < 0 for n in range(1000))
