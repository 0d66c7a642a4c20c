"""A process that ingests until it is killed: the victim of tests/test_durability.py.

    python crash_worker.py < orders        each order: DIRECTORY ACKS SEED SEAL_AT

It imports what it needs; each order is carried out by a process forked for it, of which it tells when it is ready and what
ended it. Every acknowledged record becomes a line `address position` in the file ACKS, written after the acknowledgement.
The source resumes from the state the log holds, and delivers some of what lies before it again, as a source that crashed
before saving would.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from headwater.config import Settings, load
from headwater.engine import Engine
from headwater.log.store import Origin
from headwater.records import Draft

STREAM, SOURCE = "numbers", "file:numbers"


def settings_for(directory: Path, seal_at: int) -> Settings:
    arguments = {
        "data_dir": str(directory),
        "embedding.model": "hash",
        "embedding.cache_enabled": False,
        "index.seal_at": seal_at,
        "index.commit_interval_s": 0.01,
        "topics": {"events": {"passages": "exact", "partitions": 3}, "lines": {"passages": "template"}},
    }
    return load(arguments=arguments, environment={}).settings


def draft(topic: str, position: int) -> Draft:
    """The record at a position: its text tells which."""
    if topic == "lines":
        word = ("opened", "closed", "refused", "reset", "timed", "dropped", "kept")[position % 7]
        return Draft(f"2026-03-01 14:05:{position % 60:02d} INFO connection {word} by peer id={position}", position=position)
    return Draft(f"event number {position} of kind {position % 11}", key=f"k{position % 17}", position=position)


async def ingest(directory: Path, acks: Path, seed: int, seal_at: int) -> None:
    rng = random.Random(seed)
    out = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with Engine(settings_for(directory, seal_at)) as engine:

        async def feed(topic: str) -> None:
            state = engine.log.source_state(f"{SOURCE}.{topic}") or {"next": 0}
            at = max(state["next"] - rng.randrange(30), 0)
            while True:
                size = rng.choice((1, 3, 20, 60))
                drafts = [draft(topic, p) for p in range(at, at + size)]
                at += size
                origin = Origin(STREAM, f"{SOURCE}.{topic}", {"next": at})
                done = await engine.append(topic, drafts, origin=origin)
                lines = [f"{r.address} {d.position}\n" for r, d in zip(done.records, drafts, strict=True)]
                os.write(out, "".join(lines).encode())
                await asyncio.sleep(0.002)

        os.write(1, b"ready %d\n" % os.getpid())
        await asyncio.gather(feed("events"), feed("lines"))


if __name__ == "__main__":
    import headwater.embed.hash
    import headwater.keyword.index  # noqa: F401  # warm before the order comes

    os.write(1, b"warm\n")
    for order in sys.stdin:
        victim = os.fork()
        if victim == 0:
            directory, acks, seed, seal_at = order.split("\t")
            asyncio.run(ingest(Path(directory), Path(acks), int(seed), int(seal_at)))
            os._exit(0)
        os.write(1, b"ended by signal %d\n" % os.WTERMSIG(os.waitpid(victim, 0)[1]))
