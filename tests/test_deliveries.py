"""Batches of sources: stored once each, with the state that resumes behind them, over the engine and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import headwater
from headwater.batches import Delivered, Fault
from headwater.blocking import Headwater
from headwater.errors import UsageError
from headwater.records import Draft
from serving import serving, settings_in


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def drafts(first: int, count: int) -> list[Draft]:
    return [Draft(f"line {n}", position=n) for n in range(first, first + count)]


def test_a_place_of_a_stream_is_stored_once_and_the_state_is_kept(hw: Headwater) -> None:
    assert hw.deliver("t", "file:a") == Delivered()
    assert hw.deliver("t", "file:a", drafts(0, 5), stream="a#1", state={"offset": 5}) == Delivered(5, 0, 0, {"offset": 5})
    again = hw.deliver("t", "file:a", drafts(3, 5), stream="a#1", state={"offset": 8})
    assert (again.stored, again.duplicates) == (3, 2)
    assert [r.value for r in hw.records("t").records] == [f"line {n}" for n in range(8)]
    assert hw.deliver("t", "file:a").state == {"offset": 8}
    assert hw.deliver("t", "file:b").state is None


def test_another_stream_of_the_same_positions_is_other_input(hw: Headwater) -> None:
    hw.deliver("t", "file:a", drafts(0, 2), stream="a#1")
    assert hw.deliver("t", "file:a", drafts(0, 2), stream="a#2").stored == 2


def test_faults_become_dead_letters_that_say_where_they_stood_and_none_is_kept_twice(hw: Headwater) -> None:
    faults = [Fault(18, "not JSON", '{"broken'), Fault(40, "not JSON", "\ud800 worse")]
    for _ in range(2):
        done = hw.deliver("t", "ingest:some.jsonl", drafts(0, 1), stream="s", faults=faults)
        assert done.dead_letters == 2
    letters = hw.dead_letters("t")
    assert sorted((d.stage, d.source, d.reason, d.payload) for d in letters) == [
        ("source", "ingest:some.jsonl at 18", "not JSON", '{"broken'),
        ("source", "ingest:some.jsonl at 40", "not JSON", "? worse"),
    ]


def test_a_record_that_cannot_be_stored_is_set_aside_and_the_others_and_the_state_are_not_held_up(hw: Headwater) -> None:
    bad = Draft("for a partition that is not there", partition=9, position=100)
    done = hw.deliver("t", "s", [*drafts(0, 3), bad, *drafts(200, 3)], stream="s", state={"at": 203})
    assert (done.stored, done.dead_letters, done.state) == (6, 1, {"at": 203})
    letter = hw.dead_letters("t")[0]
    assert (letter.stage, letter.source, letter.payload) == ("intake", "s at 100", bad.value)
    assert "partition 9" in letter.reason
    assert hw.deliver("t", "s").state == {"at": 203}


def test_everything_a_draft_has_arrives(hw: Headwater) -> None:
    whole = Draft("caf\ufffd", "k", 1_000, {"a": 1, "b.c": True}, 0, 7, b"caf\xe9")
    hw.deliver("t", "s", [whole], stream="s")
    record = hw.records("t").records[0]
    assert (record.value, record.key, record.timestamp.timestamp(), record.attributes) == (
        "caf\ufffd",
        "k",
        1.0,
        {"a": 1, "b.c": True, "invalid_utf8": True},
    )


def test_a_topic_made_anew_has_had_nothing_from_the_source(hw: Headwater) -> None:
    hw.deliver("t", "s", drafts(0, 2), stream="s", state={"at": 2})
    hw.delete_topic("t")
    assert hw.deliver("t", "s").state is None
    assert hw.deliver("t", "s", drafts(0, 2), stream="s").stored == 2


def test_a_record_without_a_place_is_refused(hw: Headwater) -> None:
    with pytest.raises(UsageError, match="position"):
        hw.deliver("t", "s", [Draft("where from?")], stream="s")


@pytest.mark.parametrize(
    "record",
    [
        7, {}, {"value": 7}, {"value": "x", "position": "1"}, {"value": "x", "position": True}, {"value": "x", "else": 1},
        {"value": "x", "position": 1, "raw": "not base64!"}, {"value": "x", "position": 1, "vector": ["a"]},
        {"value": "x", "position": 1 << 70}, {"value": "x", "position": -1}, {"value": "x", "position": 1, "time_ms": 1 << 80},
    ],
)  # fmt: skip
def test_an_entry_that_is_no_record_of_a_source_is_refused_or_set_aside(tmp_path: Path, record: object) -> None:
    with serving(settings_in(tmp_path)) as url:
        body = json.dumps({"source": "s", "stream": "s", "records": [record]})
        reply = httpx.post(f"{url}/v1/topics/t/deliveries", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 422 or reply.json()["dead_letters"] == 1 or reply.json()["stored"] == 1, reply.text
