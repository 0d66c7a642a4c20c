"""Detectors across SIGKILL: what is found is found once, and the same as without any kill."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import headwater
from headwater.records.anomalies import Anomaly
from serving import eventually

WORKER = Path(__file__).parent / "detect_worker.py"
KILLS = 3


def _live(directory: Path, lives_s: float | None) -> None:
    """One life of the worker: for so long, or until all is judged."""
    with subprocess.Popen([sys.executable, str(WORKER), str(directory)], stdout=subprocess.PIPE, cwd=WORKER.parent) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        if lives_s is None:
            assert victim.stdout.readline() == b"done\n"
        else:
            end = time.monotonic() + lives_s
            eventually(lambda: time.monotonic() >= end)
        victim.kill()


def _found(directory: Path) -> list[Anomaly]:
    with headwater.open(directory, embedding={"model": "none"}) as hw:
        eventually(lambda: hw.detecting("logs")[0].behind == 0, timeout_s=20)
        return list(hw.anomalies(["logs"], quiet=True))


@pytest.mark.slow
def test_kills_lose_no_anomaly_find_none_twice_and_change_none(tmp_path: Path) -> None:
    rng = random.Random(11)
    for _ in range(KILLS):
        _live(tmp_path / "killed", rng.uniform(0.05, 0.5))
    _live(tmp_path / "killed", None)
    _live(tmp_path / "whole", None)
    killed, whole = _found(tmp_path / "killed"), _found(tmp_path / "whole")
    assert whole
    assert [(a.id, a.kind, a.severity, a.start, a.end, a.what, a.addresses) for a in killed] == [
        (a.id, a.kind, a.severity, a.start, a.end, a.what, a.addresses) for a in whole
    ]
