"""Detectors across SIGKILL: what is found is found once, and the same as without any kill."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import headwater
from headwater.records.anomalies import Anomaly
from serving import eventually, live_and_die

WORKER = Path(__file__).parent / "detect_worker.py"
KILLS = 3


def _live(directory: Path) -> None:
    """One life of the worker, until all is judged."""
    with subprocess.Popen([sys.executable, str(WORKER), str(directory)], stdout=subprocess.PIPE, cwd=WORKER.parent) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        assert victim.stdout.readline().endswith(b"done\n")
        victim.kill()


def _found(directory: Path) -> list[Anomaly]:
    with headwater.open(directory, embedding={"model": "none"}) as hw:
        eventually(lambda: hw.detecting("logs")[0].behind == 0)
        return list(hw.anomalies(["logs"], quiet=True))


@pytest.mark.slow
def test_kills_lose_no_anomaly_find_none_twice_and_change_none(tmp_path: Path) -> None:
    rng = random.Random(11)
    for _ in range(KILLS):
        live_and_die(WORKER, str(tmp_path / "killed"), steps=rng.randrange(5, 60), more_s=rng.uniform(0.0, 0.05))
    _live(tmp_path / "killed")
    _live(tmp_path / "whole")
    killed, whole = _found(tmp_path / "killed"), _found(tmp_path / "whole")
    assert whole
    assert [(a.id, a.kind, a.severity, a.start, a.end, a.what, a.addresses) for a in killed] == [
        (a.id, a.kind, a.severity, a.start, a.end, a.what, a.addresses) for a in whole
    ]
