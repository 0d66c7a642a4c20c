"""A process that ingests and swaps models until it is killed: the victim of tests/test_swap_kill.py.

    python swap_worker.py < orders        each order: DIRECTORY SEED

It imports what it needs, then waits for its order, so that a test can have the next victim warm.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from headwater.config import Settings, load
from headwater.engine import Engine
from headwater.errors import HeadwaterError

MODELS = ("hash", "hash:64")


def settings_for(directory: str) -> Settings:
    arguments = {
        "data_dir": directory,
        "embedding.model": "hash",
        "embedding.cache_enabled": False,
        "index.commit_interval_s": 0.01,
        "topics": {"t": {"passages": "exact"}},
    }
    return load(arguments=arguments, environment={}).settings


async def work(directory: str, seed: int) -> None:
    rng = random.Random(seed)
    async with Engine(settings_for(directory)) as engine:

        async def feed() -> None:
            number = (await engine.topic("t")).records
            while True:
                size = rng.choice((1, 5, 40))
                await engine.append(
                    "t", [f"event {n} of kind {n % 11} in place {n * 7919 % 10007}" for n in range(number, number + size)]
                )
                number += size
                await asyncio.sleep(0.005)

        async def swap() -> None:
            while True:
                shadow = (await engine.index("t")).shadow
                try:
                    if shadow is None:
                        other = next(m for m in MODELS if m != engine.stock.find("t").row.model)
                        await engine.rebuild_index("t", other, shadow=rng.random() < 0.7)
                    elif shadow.state == "ready":
                        await engine.swap_index("t", rng.choice(("cut-over", "cut-over", "cancel")))
                    elif shadow.state == "former":
                        await engine.swap_index("t", rng.choice(("roll-back", "drop")))
                    os.write(1, b".")
                except HeadwaterError as error:  # it has just cut over by itself
                    os.write(2, f"{error}\n".encode())
                await asyncio.sleep(0.01)

        os.write(1, b"ready\n")
        await asyncio.gather(feed(), swap())


if __name__ == "__main__":
    import headwater.embed.hash
    import headwater.keyword.index  # noqa: F401  # warm before the order comes

    os.write(1, b"warm\n")
    directory, seed = sys.stdin.readline().split("\t")
    asyncio.run(work(directory, int(seed)))
