"""Watches across SIGKILL: every hit is in the log exactly once, whenever the process dies."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import headwater
from headwater.blocking import Headwater
from headwater.records.watches import WatchHit
from serving import eventually, live_and_die

KILLS = 10
WORKER = Path(__file__).parent / "watch_worker.py"


def _every_hit(hw: Headwater, name: str) -> list[WatchHit]:
    hits: list[WatchHit] = []
    cursor: str | None = None
    while True:
        reply = hw.wait(name, cursor=cursor, timeout=0, limit=7)
        assert reply.missed == 0
        if not reply.hits:
            return hits
        hits += reply.hits
        cursor = reply.cursor


@pytest.mark.slow
def test_ten_kills_lose_no_hit_and_fire_none_twice(tmp_path: Path) -> None:
    rng = random.Random(7)
    for seed in range(KILLS):
        live_and_die(WORKER, str(tmp_path), str(seed), steps=rng.randrange(1, 9), more_s=rng.uniform(0.0, 0.05))
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.add_watch("alarm hall", name="again", topics=["t"], mode="semantic", min_score=0.45, since=0)
        for watch in hw.watches():
            eventually(lambda id=watch.id: hw.watch(id).behind == 0)  # type: ignore[misc]  # a lambda's default
        total = hw.topic("t").records
        values = [r.value for at in range(0, total, 1000) for r in hw.records("t", offset=at, limit=1000).records]
        alarms = [f"t/0/{n}" for n, value in enumerate(values) if value.startswith("alarm")]
        assert len(values) == total > 50
        worded, meant = _every_hit(hw, "worded"), _every_hit(hw, "meant")
        assert [hit.address for hit in worded] == alarms
        assert {hit.address for hit in meant} == {hit.address for hit in _every_hit(hw, "again")} != set()
        assert len(meant) == len({hit.address for hit in meant})
        assert [hit.id.rpartition("-")[2] for hit in meant] == [str(n + 1) for n in range(len(meant))]
        (counted,) = _every_hit(hw, "counted")  # it crosses once and stays above
        assert counted.address == alarms[4]
