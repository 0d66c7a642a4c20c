"""A process that appends an incident, in whose topic detectors are on, until it is killed: of tests/test_detect_kill.py.

    python detect_worker.py DIRECTORY

Every batch carries an idempotency key, so that each line is stored once however often this process dies in the middle.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from headwater.config import load
from headwater.demo.incident import incident
from headwater.detect_records import DetectorKind
from headwater.engine import Engine
from headwater.records import Draft

START = datetime(2026, 3, 2, 12, 55, tzinfo=UTC)
LINES, BATCH = 2500, 25
DETECTORS: tuple[DetectorKind, ...] = ("rate", "new", "numeric", "silence", "sequence")  # when a meaning is known depends on the moment


def batches() -> Iterator[list[Draft]]:
    lines = [draft for topic, draft in incident(START, lines=LINES) if topic == "logs"]
    yield from (lines[at : at + BATCH] for at in range(0, len(lines), BATCH))


async def work(directory: Path) -> None:
    arguments = {
        "data_dir": str(directory), "embedding.model": "none", "index.commit_interval_s": 0.01,
        "topics": {"logs": {"passages": "template"}},
    }  # fmt: skip
    async with Engine(load(arguments=arguments, environment={}).settings) as engine:
        await engine.set_detecting("logs", detectors=DETECTORS)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for n, batch in enumerate(batches()):
            await engine.append("logs", batch, idempotency_key=f"batch-{n}")
            await asyncio.sleep(0.002)
        while (await engine.detecting("logs"))[0].behind:
            await asyncio.sleep(0.01)
        sys.stdout.write("done\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1])))
