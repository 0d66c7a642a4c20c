"""How long starting takes: the command line's help, the import, opening a data directory, a daemon until it answers.

The floor is a Python that does nothing, measured in the same run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import headwater
from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.config import load

SECOND = 1000.0


def times_ms(command: Sequence[str], runs: int) -> list[float]:
    """Wall time of a command that must succeed, run after run; the first, with cold files, is left out."""
    took = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        took.append((time.perf_counter() - started) * SECOND)
    return took[1:]


def opening_s(directory: str, records: int) -> tuple[float, float]:
    """Seconds to open an empty directory, and one that holds records and their index."""
    started = time.perf_counter()
    with headwater.open(directory, embedding={"model": "hash"}) as hw:
        hw.topics()
        empty = time.perf_counter() - started
        lines = [f"2026-01-01T00:00:{i % 60:02d}Z INFO part{i % 50} did thing {i} of {i * 7}" for i in range(records)]
        for at in range(0, records, 2000):
            hw.append("logs", lines[at : at + 2000])
        while (mark := hw.topic("logs").watermark).semantic < mark.stored:
            time.sleep(0.05)
    started = time.perf_counter()
    with headwater.open(directory, embedding={"model": "hash"}) as hw:
        assert hw.topic("logs").records == records
        return empty, time.perf_counter() - started


def daemon_s(directory: str) -> float:
    """Seconds from nothing until a daemon answers."""
    settings = load(None, {"data_dir": directory, "server.port": 0}).settings
    started = time.perf_counter()
    runtime = launch.find_or_start(settings)
    took = time.perf_counter() - started
    os.kill(runtime.pid, signal.SIGTERM)
    while launch.find(settings) is not None:
        time.sleep(0.02)
    return took


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=15, help="of each command; the median counts")
    parser.add_argument("--records", type=int, default=100_000, help="in the directory that is opened")
    args = parser.parse_args(argv)
    runs, records = (2, 1000) if args.small else (args.runs, args.records)
    before, metrics = machine(), dict[str, Any]()
    script = Path(sys.executable).parent / "headwater"
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import headwater"],
        "cli_help": [str(script), "--help"] if script.exists() else [sys.executable, "-m", "headwater.cli", "--help"],
    }
    for name, command in commands.items():
        took = times_ms(command, runs)
        metrics[f"{name}_s"], metrics[f"{name}_ms"] = round(median(took) / SECOND, 3), percentiles(took, 1)
        say(f"{name}: {metrics[f'{name}_ms']} ms")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        empty, full = opening_s(f"{directory}/data", records)
        metrics |= {"open_empty_s": round(empty, 3), "open_s": round(full, 3), "open_records": records}
        metrics["daemon_ready_s"] = round(daemon_s(f"{directory}/daemon"), 3)
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
