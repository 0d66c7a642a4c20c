"""While a remote embedding model is down a local one stands in; vectors of the two never mix."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from fake_openai import FakeOpenAI
from headwater.config import Settings, load
from headwater.engine import Engine

REMOTE = "openai:small"


def settings(tmp_path: Path, url: str, fallback: str | None) -> Settings:
    return load(
        arguments={
            "data_dir": str(tmp_path / "data"),
            "embedding.model": REMOTE,
            "embedding.base_url": url,
            "embedding.api_key": "k",
            "embedding.retries": 0,
            "embedding.fallback": fallback,
            "embedding.cache_enabled": False,
        },
        environment={},
    ).settings


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(240):
        while not await holds():
            await asyncio.sleep(0.01)


def test_while_the_provider_is_down_a_local_model_answers_and_on_recovery_everything_is_embedded_again(tmp_path: Path) -> None:
    down = True

    async def scenario() -> None:
        nonlocal down
        async with (
            FakeOpenAI(lambda: "503" if down else "ok", retry_after="0") as server,
            Engine(settings(tmp_path, server.url, "bge-small")) as engine,
        ):
            await engine.append("tickets", ["my card was charged twice", "the lift is out of order"])
            topic = engine.stock.find("tickets")
            await until(lambda: _true(topic.standby is not None and topic.standby.vectors.counts.vectors == 2))
            reply = await engine.search("duplicate payment", mode="semantic", top_k=1)
            assert reply[0].value == "my card was charged twice"
            assert any(REMOTE in note for note in reply.coverage.notes)
            assert reply.coverage.watermark["tickets"].semantic == 0  # of the topic's own model there is nothing yet
            assert (await engine.index("tickets")).state == "stalled"
            down = False
            topic.standby.fallback._probe_at = 0.0  # the next probe is due
            topic.retry_at = 0.0
            engine.indexer.wake()
            await until(lambda: _true(topic.semantic == 2 and not topic.standby.vectors.counts.vectors))
            assert topic.vectors is not None
            assert topic.vectors.counts.vectors == 2
            with engine.log.reading() as db:
                models = [m for (m,) in db.execute("SELECT DISTINCT m.name FROM vector v JOIN model m ON m.id = v.model")]
            assert models == [REMOTE]

    asyncio.run(scenario())


async def _true(value: bool) -> bool:
    return value


def test_without_a_fallback_a_provider_that_is_down_stalls_meaning_search_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            FakeOpenAI(lambda: "500") as server,
            Engine(settings(tmp_path, server.url, None)) as engine,
        ):
            await engine.append("tickets", ["my card was charged twice"])
            await until(lambda: _found(engine, "card"))
            info = await engine.index("tickets")
            assert info.state in ("stalled", "building")
            await until(lambda: _stalled(engine))
            assert any("tickets" in problem for problem in (await engine.status()).problems)

    asyncio.run(scenario())


async def _found(engine: Engine, word: str) -> bool:
    return len(await engine.search(word, mode="keyword")) == 1


async def _stalled(engine: Engine) -> bool:
    return (await engine.index("tickets")).state == "stalled"


def test_the_vectors_of_a_remote_model_are_searchable_again_after_a_restart_without_a_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeOpenAI() as server:
            chosen = settings(tmp_path, server.url, None)
            async with Engine(chosen) as engine:
                await engine.append("tickets", ["alpha", "beta"], wait="searchable", timeout_s=240)
            calls = len(server.requests)
            async with Engine(chosen) as engine:
                assert (await engine.index("tickets")).count_vectors == 2
                assert len(server.requests) == calls
                assert len(await engine.search("alpha", mode="semantic")) >= 1

    asyncio.run(scenario())
