"""A file that is followed across SIGKILL and rotation: every line is in the log once, and in its order."""

from __future__ import annotations

import asyncio
import gzip
import random
from pathlib import Path

import pytest

from broker_worker import source_of
from brokers import KILLS, Victims, count_of, following, records_of, settings_for, soon
from headwater.engine import Engine


@pytest.mark.slow
def test_followers_of_a_file_that_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    """Every third time the file is rotated away while a follower reads it, and every other of these is packed later."""
    path, rng, written, rotations = tmp_path / "app.log", random.Random(KILLS), 0, 0

    def write(lines: int, rest: str = "") -> None:
        nonlocal written
        with path.open("a") as file:
            file.write("".join(f"event {n} of a file that is followed\n" for n in range(written, written + lines)) + rest)
        written += lines

    def rotate() -> None:
        nonlocal rotations
        for n in range(rotations, 0, -1):
            for name in (f"app.log.{n}", f"app.log.{n}.gz"):
                if (tmp_path / name).exists():
                    (tmp_path / name).rename(tmp_path / name.replace(f".{n}", f".{n + 1}"))
        path.rename(tmp_path / "app.log.1")
        rotations += 1
        write(50)
        third = tmp_path / "app.log.3"
        if third.exists() and rotations % 2:
            third.with_name("app.log.3.gz").write_bytes(gzip.compress(third.read_bytes()))
            third.unlink()

    victims = Victims("file", tmp_path / "data", str(path), "-")
    try:
        for i in range(KILLS):
            write(200)
            victims.run(batches=rng.randrange(2, 9), meanwhile=rotate if i % 3 == 1 else None)
    finally:
        victims.close()
    write(50, rest="a line that has no end")

    async def rest() -> list[str]:
        source = source_of("file", str(path), "-", "")
        async with Engine(settings_for(tmp_path / "data")) as engine:
            async with following(engine, source):
                await soon(lambda: count_of(engine) >= written, lambda: (count_of(engine), written, source.condition), 240)
            assert source.condition.counts.get("gaps", 0) == 0
            return [record.value for record in records_of(engine)]

    assert asyncio.run(rest()) == [f"event {n} of a file that is followed" for n in range(written)]
    assert rotations > KILLS // 4
