"""A real daemon's parts for tests: an engine and its API on a free port of this machine, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from headwater import listening
from headwater.api.app import create_app
from headwater.config import EmbeddingSettings, ServerSettings, Settings
from headwater.engine import Engine
from headwater.listening import listen
from headwater.tokens import tokens_of


def settings_in(path: Path, **server: object) -> Settings:
    """Settings of a small, fast engine."""
    plain = Settings(data_dir=str(path), embedding=EmbeddingSettings(model="hash"))
    return replace(plain, server=replace(ServerSettings(port=0), **server))  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of an API over an engine with those settings."""
    started: Future[tuple[str, Callable[[], object]]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(settings, started)))
    thread.start()
    url, stop = started.result(20)
    try:
        yield url
    finally:
        stop()
        thread.join(20)
        assert not thread.is_alive()


async def _serve(settings: Settings, started: Future[tuple[str, Callable[[], object]]]) -> None:
    loop, stop, closing = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    try:
        async with Engine(settings, version="test") as engine:
            tokens = tokens_of(settings.path, settings.server.tokens_file)
            app = create_app(engine, settings.server, closing=closing, version="test", doors=engine.doors, tokens=tokens)
            listener = listen(settings.server, firm=True)
            async with listening.serving(app, listener, stop):  # as the daemon serves it
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                started.set_result((url, lambda: loop.call_soon_threadsafe(stop.set)))
                await stop.wait()
                closing.set()
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


def eventually(condition: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    """Wait until `condition` holds; AssertionError when it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s"
        time.sleep(0.01)
