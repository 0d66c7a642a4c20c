"""A process that appends and enriches until it is killed: the victim of tests/test_enrich_kill.py.

python enrich_worker.py DIRECTORY SEED
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from headwater.config import load
from headwater.engine import Engine

PIPELINE = """
topics: [t]
output: t.out
steps:
  - classify:
      labels: {alarm: alarm in hall, calm: all is calm}
  - extract:
      schema: {type: object, properties: {hall: {type: integer}}}
      patterns: {hall: 'hall (\\d+)'}
      by: regex
  - route:
      to: [{topic: alarms, when: alarm}]
"""
EVERY = 3


def value(number: int) -> str:
    return f"alarm in hall {number}" if number % EVERY == 0 else f"all is calm in hall {number}"


async def work(directory: Path, seed: int) -> None:
    rng = random.Random(seed)
    arguments = {
        "data_dir": str(directory), "embedding.model": "hash", "embedding.cache_enabled": False,
        "index.commit_interval_s": 0.01, "topics": {"t": {"passages": "exact"}},
    }  # fmt: skip
    async with Engine(load(arguments=arguments, environment={}).settings) as engine:
        if not await engine.pipelines():
            await engine.create_pipeline("p", PIPELINE)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        at = (await engine.topic("t")).records
        while True:
            size = rng.choice((1, 5, 20))
            await engine.append("t", [value(n) for n in range(at, at + size)], idempotency_key=f"from-{at}-{size}")
            at += size
            sys.stdout.write(".")
            sys.stdout.flush()
            await asyncio.sleep(rng.choice((0.0, 0.005, 0.02)))


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
