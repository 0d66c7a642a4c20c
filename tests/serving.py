"""A real daemon's parts for tests: an engine and its API on a free port of this machine, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from headwater import launch, listening
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
    url, stop = started.result(240)
    try:
        yield url
    finally:
        stop()
        thread.join(240)
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


def answering(settings: Settings, process: subprocess.Popen[str] | None = None) -> launch.Runtime:
    """The daemon of a data directory once it answers. Fails with what the daemon's process said where that ends before."""
    found: list[launch.Runtime] = []

    def looked() -> bool:
        found.extend(filter(None, [launch.find(settings)]))
        return bool(found) or (process is not None and process.poll() is not None)

    eventually(looked)
    assert found, process and process.communicate()[1]
    return found[0]


def live_and_die(worker: Path, *arguments: str, steps: int, more_s: float) -> None:
    """Run a worker, which says when it is `ready` and then writes a byte for each step; kill it so long after so many steps."""
    with subprocess.Popen([sys.executable, str(worker), *arguments], stdout=subprocess.PIPE, cwd=worker.parent) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        assert len(victim.stdout.read(steps)) == steps, "the worker ended by itself"
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the worker ended by itself: {victim.wait(more_s)}")
        victim.kill()


def eventually(condition: Callable[[], bool], *, timeout_s: float = 240.0) -> None:
    """Wait until `condition` holds; AssertionError when it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s"
        time.sleep(0.01)
