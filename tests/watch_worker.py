"""A process that appends and watches until it is killed: the victim of tests/test_watch_kill.py.

    python watch_worker.py DIRECTORY SEED

Every append carries an idempotency key, so that each number is stored once however often this process dies in the middle.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from headwater.config import load
from headwater.engine import Engine

EVERY = 3  # of the numbers, one in so many is what the watch waits for
ONE_LIFE = 60  # records after which a life appends no more: ten lives together stay below the hits that a watch keeps


def value(number: int) -> str:
    return f"alarm in hall {number}" if number % EVERY == 0 else f"all is calm in hall {number}"


async def work(directory: Path, seed: int) -> None:
    rng = random.Random(seed)
    arguments = {
        "data_dir": str(directory), "embedding.model": "hash", "embedding.cache_enabled": False,
        "index.commit_interval_s": 0.01, "topics": {"t": {"passages": "exact"}},
    }  # fmt: skip
    async with Engine(load(arguments=arguments, environment={}).settings) as engine:
        if not await engine.watches():
            await engine.add_watch("alarm in hall", name="worded", topics=["t"], mode="keyword")
            await engine.add_watch("alarm hall", name="meant", topics=["t"], mode="semantic", min_score=0.45)
            await engine.add_watch("alarm", name="counted", topics=["t"], mode="keyword", more_than=4, within="100d")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        at = (await engine.topic("t")).records
        last = at + ONE_LIFE
        while True:
            sys.stdout.write(".")
            sys.stdout.flush()
            if at >= last:
                await asyncio.sleep(0.05)
                continue
            size = rng.choice((1, 5, 20))
            await engine.append("t", [value(n) for n in range(at, at + size)], idempotency_key=f"from-{at}-{size}")
            at += size
            await asyncio.sleep(rng.choice((0.0, 0.005, 0.02)))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
