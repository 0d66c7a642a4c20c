"""The daemon: one process that owns a data directory, follows sources into it, and serves it over HTTP.

    python -m headwater.daemon --data-dir DIR [--config FILE] [PATH...]

It says where it listens in `runtime.json` once it is ready. SIGTERM or SIGINT ends it in good order within seconds:
sources stop, streams end, requests under way finish, the log closes; a second signal ends it at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import functools
import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from headwater import launch, supervisor
from headwater.errors import HeadwaterError, OwnedError
from headwater.listening import check_address, listen, serving
from headwater.log.ownership import Ownership
from headwater.tokens import Access, tokens_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from headwater.config import Settings
    from headwater.engine import Engine
    from headwater.source_settings import Reading

logger = logging.getLogger(__name__)
_SWITCH_S = 0.003  # between two looks whether another thread waits: answers stream while others are searched for
_GIVE_BACK_S = 60.0


def run(
    settings: Settings,
    paths: Sequence[str] = (),
    *,
    read_as: Reading | None = None,
    port_is_firm: bool | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or SIGINT. `ready(url)` is called once requests are answered. `read_as` says what the files of
    `paths` are.

    Where the port is taken a free one is used, unless it `port_is_firm` (by default: any but the default port).
    Raises OwnedError when another process owns the data directory, ConfigError for an address that cannot be used."""
    check_address(settings.server)
    with _alone(settings.path) as held:
        import uvicorn

        def tell(url: str) -> None:
            held.announce(url)
            ready(url)

        loop = uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()
        firm = settings.server.port != type(settings.server)().port if port_is_firm is None else port_is_firm
        sys.setswitchinterval(_SWITCH_S)
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve(settings, paths, read_as=read_as, firm=firm, ready=tell))


async def serve(
    settings: Settings,
    paths: Sequence[str] = (),
    *,
    read_as: Reading | None = None,
    firm: bool = True,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """As `run`, on the running loop of the main thread."""
    from headwater import exporting
    from headwater.api.app import create_app, create_otlp_app
    from headwater.api.metrics import Metrics
    from headwater.engine import Engine
    from headwater.feed import Feed
    from headwater.source_settings import SourceSettings
    from headwater.sourcing import Sourcing, check_paths

    stop, closing, version = asyncio.Event(), asyncio.Event(), _version()
    given = [SourceSettings(path=path, read_as=read_as) for path in paths]
    check_paths([*given, *settings.sources])
    with _signals(stop):
        async with exporting.traces(settings.telemetry, version) as tracer, Engine(settings, version=version) as engine:
            metrics = Metrics()

            async def families() -> Iterable[Metric]:
                return metrics.families(await engine.status(), await engine.indexes(), await engine.pipelines())

            listener = listen(settings.server, firm=firm)
            key = settings.server.api_key.get_secret_value() if settings.server.api_key else secrets.token_urlsafe(32)
            access: Access = {"tokens": tokens_of(settings.path, settings.server.tokens_file), "local_key": key}
            app = create_app(
                engine, settings.server, closing=closing, version=version, doors=engine.doors, metrics=metrics, **access
            )
            app = exporting.requests(app, tracer)
            engine.roster.given(given)
            otlp = functools.partial(create_otlp_app, engine, **access)
            find = Sourcing(settings.server, lambda server, door: otlp(server, engine.doors, door))
            async with (
                exporting.metrics(settings.telemetry, version, families),
                serving(app, listener, stop) as server,
                _published(engine, settings, listener, key, version) as url,
            ):
                feed = asyncio.create_task(Feed(engine, find).run())
                feed.add_done_callback(lambda _: stop.set())
                calling = asyncio.create_task(engine.hooks.run())
                calling.add_done_callback(lambda _: stop.set())
                trimming = asyncio.create_task(give_back())
                ready(url)
                logger.info("ready at %s", url)
                async with supervisor.served(url):
                    await stop.wait()
                feed.cancel()
                closing.set()
                server.should_exit = True
                calling.cancel()
                trimming.cancel()
                for task in (feed, calling, trimming):
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


async def give_back(every_s: float = _GIVE_BACK_S) -> None:
    """Hand freed memory back to the system, for ever. glibc keeps what lies between pieces in use: for each thread as much as
    merging the keyword index or listing a long result ever took. Other C libraries have no such call, and end this at once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(every_s)
        await anyio.to_thread.run_sync(trim, 0)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[Ownership]:
    """Be the one daemon of a directory, from before anything heavy is loaded: the losers of a race leave at once. Raises
    OwnedError. The directory's own lock is the engine's to take; an engine inside another program holds it too."""
    try:
        held = Ownership(directory / "daemon")
    except OwnedError as error:
        told = str(error).replace(str(directory / "daemon"), str(directory), 1)
        raise OwnedError(told, url=error.url) from None
    try:
        yield held
    finally:
        held.release()


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets `stop`, the second ends the process: the log survives that too."""
    loop = asyncio.get_running_loop()

    def caught(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, caught, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _published(engine: Engine, settings: Settings, listener: socket.socket, key: str, version: str) -> AsyncIterator[str]:
    """The URL and the key, told to other programs of this user while requests are answered."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    runtime = launch.Runtime(url, os.getpid(), key, version)
    engine.announce(url)
    launch.publish(settings.path, runtime)
    try:
        yield url
    finally:
        launch.withdraw(settings.path, runtime.pid)


def _version() -> str:
    import headwater

    return headwater.__version__


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m headwater.daemon`: 0 after a signal, 1 for an error, 75 when another process owns the data directory."""
    parser = argparse.ArgumentParser(prog="python -m headwater.daemon", description="Serve one data directory over HTTP.")
    parser.add_argument("paths", nargs="*", help="log files, folders of documents, or - for standard input, to follow")
    parser.add_argument("--data-dir", help="the data directory")
    parser.add_argument("--config", help="a TOML file of settings")
    parser.add_argument("--port", type=int, help="the port, and no other")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("httpx", "httpx2", "watchfiles"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        from headwater.config import load

        settings = load(given.config, {"data_dir": given.data_dir, "server.port": given.port}).settings
        run(settings, given.paths, port_is_firm=None if given.port is None else True)
    except OwnedError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return launch.OWNED_EXIT
    except HeadwaterError as error:
        print(f"headwater: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
