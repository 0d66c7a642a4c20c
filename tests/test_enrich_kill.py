"""Pipelines across SIGKILL: every record's result is in the log exactly once, whenever the process dies."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import headwater
from enrich_worker import EVERY, value
from headwater.blocking import Headwater
from headwater.records import Record
from serving import eventually, live_and_die

KILLS = 5
WORKER = Path(__file__).parent / "enrich_worker.py"


def _all(hw: Headwater, topic: str) -> list[Record]:
    total = hw.topic(topic).records
    return [r for at in range(0, total, 1000) for r in hw.records(topic, offset=at, limit=1000).records]


@pytest.mark.slow
def test_five_kills_lose_no_result_and_write_none_twice(tmp_path: Path) -> None:
    rng = random.Random(11)
    for seed in range(KILLS):
        live_and_die(WORKER, str(tmp_path), str(seed), steps=rng.randrange(3, 15), more_s=rng.uniform(0.0, 0.05))
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        eventually(lambda: hw.pipeline("p").behind == 0)
        total = hw.topic("t").records
        assert total > 30
        out = _all(hw, "t.out")
        assert [r.attributes["source"] for r in out] == [f"t/0/{n}" for n in range(total)]
        assert [r.value for r in out] == [value(n) for n in range(total)]
        assert [r.attributes["hall"] for r in out] == list(range(total))
        assert {r.attributes["label"] for r in out if r.value.startswith("alarm")} == {"alarm"}
        routed = [r.attributes["source"] for r in _all(hw, "alarms")]
        assert routed == [f"t/0/{n}" for n in range(0, total, EVERY)]
        seen = hw.pipeline("p")
        assert (seen.records, seen.written, seen.dead_letters) == (total, total + len(routed), 0)
