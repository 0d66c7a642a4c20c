"""A process that swaps models is killed at any moment: what answers is of one model, whole, and goes on where it was."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater.engine import Engine
from swap_worker import MODELS, settings_for

KILLS = 4
BYTES = {"hash": 512, "hash:64": 128}  # of a stored vector


def start() -> subprocess.Popen[bytes]:
    worker = Path(__file__).with_name("swap_worker.py")
    return subprocess.Popen(
        [sys.executable, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def order_and_kill(victim: subprocess.Popen[bytes], directory: Path, seed: int, after_s: float) -> str:
    """What it said on stderr, killed `after_s` after it was ready."""
    assert victim.stdin is not None
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"warm\n"
    victim.stdin.write(f"{directory}\t{seed}\n".encode())
    victim.stdin.flush()
    assert victim.stdout.readline() == b"ready\n"
    end = time.monotonic() + after_s
    while time.monotonic() < end and victim.poll() is None:
        victim.stdout.read(1)  # each step of a swap is a byte: wait on work, not on the clock alone
    victim.kill()
    _, said = victim.communicate()
    return said.decode()


async def check(directory: Path) -> None:
    async with Engine(settings_for(str(directory))) as engine:
        with engine.log.reading() as db:
            models = dict(db.execute("SELECT id, name FROM model"))
            held = list(db.execute("SELECT DISTINCT model, length(data) FROM vector"))
            shadows = [models[m] for (m,) in db.execute("SELECT model FROM shadow")]
        live = engine.stock.find("t").row.model
        assert live in MODELS
        assert all(BYTES[models[model]] == size for model, size in held)
        assert {models[model] for model, _ in held} <= {live, *shadows}
        assert live not in shadows
        async with asyncio.timeout(240):
            while (await engine.index("t")).state != "ready":
                await asyncio.sleep(0.02)
            while (info := await engine.index("t")).shadow is not None and info.shadow.state == "building":
                await asyncio.sleep(0.02)
        info = await engine.index("t")
        assert info.model is not None
        assert info.count_vectors == info.count_passages
        assert info.dimension == BYTES[info.model] // 2
        if info.shadow is not None:
            assert (info.shadow.live, info.shadow.error) == (info.model, None)
        newest = (await engine.topic("t")).records - 1
        view = await engine.read(f"t/0/{newest}")
        assert (await engine.search(view.record.value, mode="semantic"))[0].offset == newest


@pytest.mark.slow
def test_killed_at_any_moment_of_a_swap_one_model_answers_whole_and_the_swap_goes_on(tmp_path: Path) -> None:
    rng = random.Random(7)
    victims = [start()]
    try:
        for kill in range(KILLS):
            if kill + 1 < KILLS:
                victims.append(start())
            said = order_and_kill(victims[kill], tmp_path, kill, rng.uniform(0.05, 0.7))
            assert "Traceback" not in said, said
            asyncio.run(check(tmp_path))
    finally:
        for victim in victims:
            victim.kill()
            victim.communicate()
