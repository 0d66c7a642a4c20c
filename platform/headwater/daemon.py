"""The daemon: one process that owns a data directory, follows sources into it, and serves it over HTTP.

    python -m headwater.daemon --data-dir DIR [--config FILE] [PATH...]

It says where it listens in `runtime.json` once it is ready. SIGTERM or SIGINT ends it in good order within seconds:
sources stop, streams end, requests under way finish, the log closes; a second signal ends it at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import glob
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headwater import launch
from headwater.errors import ConfigError, HeadwaterError, OwnedError
from headwater.ownership import Ownership

if TYPE_CHECKING:
    import uvicorn

    from headwater.config import ServerSettings, Settings, SourceSettings
    from headwater.engine import Engine
    from headwater.sources import Source

logger = logging.getLogger(__name__)
_DRAIN_S = 3  # for requests under way when the daemon ends
_BACKLOG = 2048


def run(
    settings: Settings,
    paths: Sequence[str] = (),
    *,
    port_is_firm: bool | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM or SIGINT. `ready(url)` is called once requests are answered.

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
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(serve(settings, paths, firm=firm, ready=tell))


async def serve(
    settings: Settings, paths: Sequence[str] = (), *, firm: bool = True, ready: Callable[[str], None] = lambda url: None
) -> None:
    """As `run`, on the running loop of the main thread."""
    from headwater.api.app import create_app
    from headwater.engine import Engine
    from headwater.feed import Feed

    stop, closing, version = asyncio.Event(), asyncio.Event(), _version()
    find = sources_of(settings.sources, paths)
    find({})  # a path that is not there is told now
    with _signals(stop):
        async with Engine(settings, version=version) as engine:
            listener = listen(settings.server, firm=firm)
            app = create_app(engine, settings.server, closing=closing, version=version)
            async with _serving(app, listener, stop) as server, _published(engine, settings, listener, version) as url:
                feed = asyncio.create_task(Feed(engine, find).run())
                feed.add_done_callback(lambda _: stop.set())
                ready(url)
                logger.info("ready at %s", url)
                await stop.wait()
                feed.cancel()
                closing.set()
                server.should_exit = True
                with contextlib.suppress(asyncio.CancelledError):
                    await feed


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


def check_address(server: ServerSettings) -> None:
    """ConfigError for an address that others can reach without a key."""
    if server.api_key is None and not _is_loopback(server.host):
        raise ConfigError(
            f"server.host {server.host!r} can be reached from other machines, so server.api_key must be set; "
            "set HEADWATER_SERVER_API_KEY, or bind to 127.0.0.1"
        )
    if server.api_key is not None and not server.api_key.get_secret_value().strip():
        raise ConfigError("server.api_key is empty; give it a value or leave it out")


def listen(server: ServerSettings, *, firm: bool) -> socket.socket:
    """A listening socket at the configured address; on a free port where that is taken and not `firm`. ConfigError."""
    for port in (server.port, 0):
        try:
            family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
            listener = socket.create_server((server.host, port), family=family, backlog=_BACKLOG)
            # inherited by its connections; asyncio would leave a reply's head and body 40 ms apart (delayed ACK)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
        except OSError as error:
            if error.errno == errno.EADDRINUSE and not firm and port:
                continue
            reason = error.strerror or error
            raise ConfigError(f"cannot listen on {server.host} port {port}: {reason}; choose another server.port") from error
    raise AssertionError("port 0 is listened on or refused")


def sources_of(configured: Sequence[SourceSettings], paths: Sequence[str]) -> Callable[[Mapping[str, str]], list[Source]]:
    """What finds the sources of the paths given and of the settings, of which `known` (path -> topic) does not tell."""

    def find(known: Mapping[str, str]) -> list[Source]:
        from headwater.config import SourceSettings
        from headwater.sources.directory import plan

        taken = dict(known)
        found: list[Source] = []
        for entry in (*(SourceSettings(path=p) for p in paths), *configured):
            for path in _expanded(entry.path):
                if known and path != "-" and not os.path.exists(path):
                    continue  # it was there at the start; it may come again
                for source in plan([path], known=taken):
                    source = _as_configured(source, entry)
                    taken[str(getattr(source, "path", "-"))] = source.topic
                    found.append(source)
        return found

    return find


def _as_configured(source: Source, entry: SourceSettings) -> Source:
    """The planned source with the topic and the start that its entry asks for."""
    from headwater.sources.directory import DirectoryFollow
    from headwater.sources.stdin import Stdin
    from headwater.sources.tail import FileTail

    topic = entry.topic or source.topic
    if isinstance(source, FileTail) and (topic != source.topic or not entry.from_start):
        return FileTail(source.path, topic, from_start=entry.from_start)
    if isinstance(source, DirectoryFollow) and topic != source.topic:
        return DirectoryFollow(source.path, topic)
    return Stdin(topic) if isinstance(source, Stdin) and topic != source.topic else source


def _expanded(path: str) -> list[str]:
    """The paths a glob stands for; any other path itself."""
    return sorted(glob.glob(os.path.expanduser(path), recursive=True)) if glob.has_magic(path) else [path]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


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
async def _serving(app: object, listener: socket.socket, stop: asyncio.Event) -> AsyncIterator[uvicorn.Server]:
    """uvicorn over a socket, without its own signal handlers; left when every connection is closed."""
    import uvicorn

    up = asyncio.Event()

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            up.set()

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # any ASGI app
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        ws="none",
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))

    def ended(_: object) -> None:
        """A server that fails ends the daemon."""
        up.set()
        stop.set()

    task.add_done_callback(ended)
    try:
        await up.wait()
        yield server
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def _published(engine: Engine, settings: Settings, listener: socket.socket, version: str) -> AsyncIterator[str]:
    """The URL, told to other programs while requests are answered."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    key = settings.server.api_key
    runtime = launch.Runtime(url, os.getpid(), key.get_secret_value() if key else None, version)
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
    logging.getLogger("httpx").setLevel(logging.WARNING)
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
