"""Sockets that HTTP is served on: who may be listened to, and uvicorn over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from headwater.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from headwater.config import ServerSettings

_DRAIN_S = 3  # for requests under way when serving ends
_BACKLOG = 2048
_MESSAGE_BYTES = 1 << 20  # of a WebSocket: what is looked for, and a cursor


def check_address(server: ServerSettings) -> None:
    """ConfigError for an address that others can reach without a key."""
    if server.api_key is None and not _is_loopback(server.host):
        raise ConfigError(
            f"server.host {server.host!r} can be reached from other machines, so server.api_key must be set; "
            "set HEADWATER_SERVER_API_KEY (`openssl rand -hex 32` makes one) or, with a file that holds it, "
            "HEADWATER_SERVER_API_KEY_FILE; or bind to 127.0.0.1"
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@contextlib.asynccontextmanager
async def serving(app: object, listener: socket.socket, stop: asyncio.Event) -> AsyncIterator[uvicorn.Server]:
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
        ws="websockets-sansio",
        ws_max_size=_MESSAGE_BYTES,
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
