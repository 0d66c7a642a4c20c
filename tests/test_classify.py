"""Labels: the classifiers over vectors, tasks as people write them, and the verbs over texts and topics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

import headwater
from headwater.blocking import Headwater
from headwater.enrich.calibration import scaled, temperature
from headwater.enrich.examples import Examples
from headwater.enrich.labelling import Labeller
from headwater.enrich.labels import task
from headwater.enrich.linear import Linear
from headwater.enrich.neighbours import Neighbours
from headwater.enrich.patterns import Patterns
from headwater.enrich.purse import Purse, most_tokens
from headwater.enrich.scores import Floats, unit
from headwater.enrich.zero_shot import ZeroShot, label_text
from headwater.errors import LimitError, UsageError
from headwater.records.labels import Classified
from headwater.records.models import Message, Usage
from serving import serving, settings_in

NAMES = ("a", "b", "c", "d")


def made(count: int, *, noise: float = 0.25, seed: int = 1) -> tuple[Floats, np.ndarray, Floats]:
    """Vectors around one direction for each label, their labels, and the directions."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(len(NAMES), 32)).astype(np.float32))
    truth = np.arange(count) % len(NAMES)
    rows = centres[truth] + noise * rng.normal(size=(count, 32)).astype(np.float32)
    return unit(rows.astype(np.float32)), truth, centres


@pytest.mark.parametrize("head", [Linear, Neighbours])
def test_a_head_learns_from_examples(head: type[Linear] | type[Neighbours]) -> None:
    rows, truth, _ = made(200)
    found = head(NAMES, rows[:100], truth[:100]).predict(rows[100:])
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == truth[100:]).mean() > 0.85


def test_labels_alone_tell_texts_apart() -> None:
    rows, truth, centres = made(100)
    assert (ZeroShot(NAMES, centres).predict(rows).argmax(axis=1) == truth).mean() > 0.85


def test_linear_and_neighbours_together_are_no_worse_than_either() -> None:
    rows, truth, centres = made(1000, noise=0.4)
    shots, rest = slice(0, 40), slice(40, 1000)
    both = (Examples(NAMES, rows[shots], truth[shots], centres).predict(rows[rest]).argmax(axis=1) == truth[rest]).mean()
    alone = [
        (h(NAMES, rows[shots], truth[shots]).predict(rows[rest]).argmax(axis=1) == truth[rest]).mean()
        for h in (Linear, Neighbours)
    ]
    assert both >= min(alone)


def test_a_vector_is_judged_the_same_in_whatever_batch_it_comes() -> None:
    rows, truth, centres = made(120)
    for head in (Examples(NAMES, rows[:80], truth[:80], centres), ZeroShot(NAMES, centres)):
        together = head.predict(rows[80:])
        apart = np.concatenate([head.predict(rows[n : n + 1]) for n in range(80, 120)])
        assert np.allclose(together, apart, atol=1e-5)


def test_confidence_means_what_it_says() -> None:
    rows, truth, centres = made(4000, noise=0.5)
    found = Examples(NAMES, rows[:400], truth[:400], centres).predict(rows[400:])
    right = (found.argmax(axis=1) == truth[400:]).mean()
    assert abs(found.max(axis=1).mean() - right) < 0.06


def test_a_temperature_mends_confidence_and_changes_no_label() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 2000)
    found = np.full((2000, 4), 0.01, np.float32)
    said = np.where(rng.random(2000) < 0.7, truth, (truth + 1) % 4)
    found[np.arange(2000), said] = 0.97  # too sure: it is right in 70 of 100
    degrees = temperature(found, truth)
    mended = scaled(found, degrees)
    assert degrees > 1.5
    assert abs(mended.max(axis=1).mean() - 0.7) < 0.05
    assert (mended.argmax(axis=1) == found.argmax(axis=1)).all()


def test_many_examples_are_drawn_together() -> None:
    rows, truth, _ = made(20_000)
    head = Neighbours(NAMES, rows, truth)
    assert len(head._vectors) <= 2048
    assert (head.predict(rows[:500]).argmax(axis=1) == truth[:500]).mean() > 0.9


def test_a_labels_name_is_read_as_words() -> None:
    assert label_text("card_arrival", "") == "card arrival"
    assert label_text("net/io", "the network") == "net io: the network"


def test_labels_are_written_in_many_ways() -> None:
    assert task(["x", "y"]).names == ("x", "y")
    assert task({"x": "what", "y": ["one", "two"]}).labels[1].examples == ("one", "two")
    assert task([{"name": "x", "examples": ["a"]}, "y"]).has_examples
    assert task(None, [{"text": "t", "label": "x"}, {"text": "u", "label": "y"}]).names == ("x", "y")
    assert task(["x", "y"], {"x": ["t"]}).labels[0].examples == ("t",)


@pytest.mark.parametrize(
    ("labels", "examples", "said"),
    [
        (["x"], None, "at least two"),
        (["x", "x"], None, "twice"),
        (["x", "y"], {"z": ["t"]}, "none of the labels"),
        ("x,y", None, "list of names"),
        ([{"title": "x"}, "y"], None, "has name, description and examples"),
        (["x", "y"], [{"text": 1, "label": "x"}], "'text' and 'label'"),
    ],
)
def test_a_task_that_makes_no_sense_says_why(labels: object, examples: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        task(labels, examples)


async def letters(texts: Sequence[str]) -> Floats:
    """A vector of which letters a text has."""
    rows = np.asarray([[t.lower().count(chr(97 + n)) for n in range(26)] for t in texts], np.float32)
    return unit(rows + 0.01)


def test_labels_are_told_with_how_sure_they_are() -> None:
    found = asyncio.run(Labeller(task(["aaa", "bbb"]), letters, None).label(["aab", "bbbb"]))
    first = found[0]
    assert isinstance(first, Classified)
    assert (first.label, first.by) == ("aaa", "zero-shot")
    assert list(first.scores) == ["aaa", "bbb"]
    assert 0.5 < first.confidence < 1


def test_below_the_threshold_there_is_no_label() -> None:
    (found,) = asyncio.run(Labeller(task(["aaa", "bbb"], min_confidence=0.9), letters, None).label(["ab"]))
    assert isinstance(found, Classified)
    assert found.label is None


def test_what_a_call_can_take_is_set_aside_before_it() -> None:
    purse = Purse(tokens=1000)
    with purse.paying(600) as bill:
        with pytest.raises(LimitError), purse.paying(600):
            pass
        bill.paid(Usage(100, 20))
    with purse.paying(600) as bill:
        bill.paid(Usage(100, 20))
    assert purse.spent.tokens <= 1000
    dear = Purse(cost=1.0)
    with dear.paying(10) as bill:
        bill.paid(Usage(5, 5, None))
    with pytest.raises(LimitError, match="costs is not known"), dear.paying(10):
        pass
    priced = Purse(cost=1.0, price=0.01)
    with pytest.raises(LimitError, match="US dollars"), priced.paying(101):
        pass
    assert most_tokens([Message("user", "x" * 100)], 10) > 110


def test_values_are_found_by_pattern_and_typed_as_the_schema_says() -> None:
    schema = {
        "properties": {
            "port": {"type": "integer", "pattern": r"port (\d+)"}, "ip": {"type": "string", "format": "ipv4"},
            "ids": {"type": "array", "items": {"type": "string", "pattern": r"blk_-?\d+"}, "uniqueItems": True},
            "level": {"enum": ["WARN", "INFO"], "pattern": r"\b(warn|info)\b"},
            "ratio": {"type": "number", "pattern": r"=([\d.]+)%"},
        }
    }  # fmt: skip
    text = "warn from 10.0.0.7 port 22 blk_1 blk_-2 blk_1 used=99.5%"
    assert Patterns(schema).find(text) == {
        "port": 22, "ip": "10.0.0.7", "ids": ["blk_1", "blk_-2"], "level": "WARN", "ratio": 99.5,
    }  # fmt: skip
    assert Patterns(schema, {"port": r"used=(\d+)"}).find("used=7") == {"port": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12,50", 12.5), ("1.234,50", 1234.5), ("1,234.50", 1234.5), ("1,234", 1234), ("12,34,567", 1234567), ("0,125", 0.125),
        ("-3,5", -3.5), ("1.5", 1.5), ("1,2,3", None),
    ],
)  # fmt: skip
def test_numbers_are_read_as_people_write_them_and_a_decimal_comma_is_no_grouping(text: str, value: float | None) -> None:
    schema = {"properties": {"paid": {"type": "number", "pattern": r"paid (\S+)"}}}
    assert Patterns(schema).find(f"paid {text} EUR").get("paid") == value
    whole = {"properties": {"paid": {"type": "integer", "pattern": r"paid (\S+)"}}}
    expected = int(value) if value is not None and value == int(value) and not text.endswith("0") else None
    assert Patterns(whole).find(f"paid {text} EUR").get("paid") == expected


def test_a_pattern_that_could_run_for_ever_is_refused() -> None:
    for pattern in ("(a+)+$", "(", r"([a-z]*)*x"):
        with pytest.raises(UsageError, match="pattern of 'x'"):
            Patterns({"properties": {"x": {"type": "string"}}}, {"x": pattern})


# ---------------------------------------------------------------------- the verbs


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def test_texts_are_labelled_by_names_and_by_examples(hw: Headwater) -> None:
    reply = hw.classify(["the disk is full", "login failed"], labels={"disk": "disk full", "login": "login failed"})
    assert [r.label for r in reply.results] == ["disk", "login"]
    assert (reply.method, reply.model, reply.llm_calls) == ("zero-shot", "hash", 0)
    shots = {"x": ["the disk is full", "disk broken"], "y": ["login failed", "login refused"]}
    assert [r.label for r in hw.classify(["disk full", "login"], examples=shots).results] == ["x", "y"]
    with pytest.raises(UsageError, match="texts, or topics"):
        hw.classify(labels=["a", "b"])
    with pytest.raises(UsageError, match="chat model"):
        hw.classify(["x"], labels=["a", "b"], method="llm")


def test_records_of_a_topic_inherit_the_label_of_their_passage(hw: Headwater) -> None:
    lines = [f"disk sd{n} is full now {n}" for n in range(60)] + [f"login of user {n} failed" for n in range(40)]
    hw.create_topic("logs", passages="template")
    hw.append("logs", lines, wait="searchable", timeout_s=240)
    reply = hw.classify(topics=["logs"], labels={"disk": "disk is full", "login": "login failed"})
    assert {c.label: c.records for c in reply.labels} == {"disk": 60, "login": 40}
    assert reply.passages < 10
    assert reply.records == 100
    example = next(c.example for c in reply.labels if c.label == "login")
    assert example is not None
    assert "login" in hw.read(example).record.value
    some = hw.classify(topics=["logs"], q="login", labels={"disk": "disk is full", "login": "login failed"})
    assert {c.label: c.records for c in some.labels} == {"login": 40}


def test_values_are_taken_out_of_texts(hw: Headwater) -> None:
    schema = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    reply = hw.extract(["order 4711 came", "nothing"], schema=schema, by="regex", patterns={"order": r"order (\d+)"})
    assert reply.results[0].value == {"order": 4711}
    assert reply.results[0].by == {"order": "regex"}
    assert reply.results[1].problem is not None
    with pytest.raises(UsageError, match="no property has a pattern"):
        hw.extract(["x"], schema={"type": "object", "properties": {"a": {"type": "string"}}})
    with pytest.raises(UsageError, match="not a JSON schema"):
        hw.extract(["x"], schema={"type": "objekt", "properties": {"a": {}}})


def _rehearsal(tmp_path: Path, *lines: dict[str, object]) -> str:
    file = tmp_path / "script.json"
    file.write_bytes(orjson.dumps(list(lines)))
    return str(file)


def test_a_chat_model_is_asked_only_where_the_head_hesitates(tmp_path: Path) -> None:
    model = _rehearsal(tmp_path, {"if": "", "say": '{"label": "y", "confidence": 0.9}'})
    with headwater.open(tmp_path / "data", embedding={"model": "hash"}, llm={"provider": "rehearsal", "model": model}) as hw:
        reply = hw.classify(
            ["alpha alpha", "nothing of the kind"],
            labels={"x": "alpha", "y": "beta"},
            method="cascade",
            model=model,
            margin=0.3,
        )
        assert [(r.label, r.by) for r in reply.results] == [("x", "zero-shot"), ("y", "llm")]
        assert reply.llm_calls == 1
        assert reply.usage.tokens > 0


def test_a_chat_model_fills_in_what_no_pattern_found(tmp_path: Path) -> None:
    model = _rehearsal(tmp_path, {"if": "", "say": '{"who": "Ada"}'})
    schema = {"type": "object", "properties": {"n": {"type": "integer", "pattern": r"\d+"}, "who": {"type": "string"}}}
    with headwater.open(tmp_path / "data", embedding={"model": "hash"}, llm={"provider": "rehearsal", "model": model}) as hw:
        reply = hw.extract(["7 letters for Ada"], schema=schema, model=f"rehearsal:{model}")
        assert reply.results[0].value == {"n": 7, "who": "Ada"}
        assert reply.results[0].by == {"n": "regex", "who": "llm"}
        assert (reply.llm_calls, reply.llm) == (1, f"rehearsal:{model}")
