"""An engine with its sources and its API in this process, for tests of what is pushed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from headwater.api.app import create_app, create_otlp_app
from headwater.config import EmbeddingSettings, ServerSettings, Settings
from headwater.engine import Engine
from headwater.feed import Feed
from headwater.source_settings import AnySource
from headwater.sourcing import Sourcing


@asynccontextmanager
async def running(
    path: Path, *sources: AnySource, server: ServerSettings | None = None
) -> AsyncIterator[tuple[Engine, httpx.AsyncClient]]:
    """An engine whose sources run, and a client of its API."""
    server = server or ServerSettings()
    settings = Settings(data_dir=str(path), embedding=EmbeddingSettings(model="hash"), sources=sources, server=server)
    async with Engine(settings, version="test") as engine:
        app = create_app(engine, server, doors=engine.doors)
        find = Sourcing(server, lambda own, door: create_otlp_app(engine, own, engine.doors, door))
        feed = asyncio.create_task(Feed(engine, find).run())
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787") as http:
            yield engine, http
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)


async def until(condition: object, timeout_s: float = 240.0) -> None:
    """Wait until `await condition()` holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)
