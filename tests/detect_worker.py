"""A process that appends what a service says, with a trouble in it, to a topic whose detectors are on, until it is killed.

    python detect_worker.py DIRECTORY

It is the victim of tests/test_detect_kill.py. Every batch carries an idempotency key, so that each line is stored once however
often this process dies in the middle. Lines are passages as they stand: nothing depends on the moment they are judged at.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headwater.config import load
from headwater.engine import Engine

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
MINUTES, TROUBLE, BATCH = 240, 150, 20


def batches() -> Iterator[list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []
    for minute in range(MINUTES):
        at = START + timedelta(minutes=minute)
        texts = ["order was placed", "order was paid", "cart was priced"] * 2 + ["cache was refreshed"] * (minute % 3 == 0)
        lines += [{"value": text, "key": "shop", "timestamp": at} for text in texts]
        if TROUBLE <= minute < TROUBLE + 12:
            bad = {"value": "the ledger refused a booking", "timestamp": at, "attributes": {"level": "error"}}
            lines += [bad] * 6
    yield from (lines[at : at + BATCH] for at in range(0, len(lines), BATCH))


async def work(directory: Path) -> None:
    arguments = {
        "data_dir": str(directory), "embedding.model": "none", "index.commit_interval_s": 0.01,
        "topics": {"logs": {"passages": "exact"}},
    }  # fmt: skip
    async with Engine(load(arguments=arguments, environment={}).settings) as engine:
        await engine.set_detecting("logs")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for n, batch in enumerate(batches()):
            await engine.append("logs", batch, idempotency_key=f"batch-{n}")
            sys.stdout.write(".")
            sys.stdout.flush()
            await asyncio.sleep(0.005)
        while True:
            if not (await engine.detecting("logs"))[0].behind:
                break
            await asyncio.sleep(0.01)
        sys.stdout.write("done\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
