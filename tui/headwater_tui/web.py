"""The terminal UI in a browser of this machine: each page runs one in a process of its own.

What a page can do is what its daemon's token allows, so a page is given only to who knows the address that was printed,
and never to another site's script: the name asked for must be this machine's own, and so must the page that asks.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

from headwater.errors import UsageError

HOST = "127.0.0.1"
_LOCKED = "Open the address that `headwater tui --web` printed; its token is part of it.\n"
_CLOSING_S = 2.0  # that open pages have to close when the server ends
_HEADERS = {
    # The page of textual-serve names a font of another site; nothing outside this machine is asked for anything.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data:; connect-src 'self' ws://{at}; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Pages(Server):  # type: ignore[misc]  # textual-serve has no types
    """Serves `command` at `address`, which has the token in it; a cookie takes the token's place from then on."""

    def __init__(self, command: str, port: int, token: str) -> None:
        super().__init__(command, host=HOST, port=port, title="Headwater", public_url=f"http://{HOST}:{port}")
        self._at, self._token, self._cookie = f"{HOST}:{port}", token, f"headwater-{port}"
        self.address = f"http://{self._at}/?token={token}"

    def run(self, listening: socket.socket) -> None:
        """Serve until interrupted."""
        web.run_app(self._make_app(), sock=listening, print=None, shutdown_timeout=_CLOSING_S)

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._guarded)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """Nothing: the address is told by who starts the server, not textual-serve's banner."""

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host != self._at:
            return web.Response(status=421, text=f"This is http://{self._at} and goes by no other name.\n")
        if request.headers.get("Origin", f"http://{self._at}") != f"http://{self._at}":
            return web.Response(status=403, text="Pages of other sites may not use this one.\n")
        given = request.query.get("token")
        if given is not None and self._right(given):
            reply = web.Response(status=303, headers={"Location": "/", "Referrer-Policy": "no-referrer"})
            reply.set_cookie(self._cookie, self._token, httponly=True, samesite="Strict")
            return reply
        if not self._right(request.cookies.get(self._cookie, "")):
            return web.Response(status=401, text=_LOCKED)
        response = await handler(request)
        if not response.prepared:
            response.headers.update({name: value.format(at=self._at) for name, value in _HEADERS.items()})
        return response

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def serve(arguments: Sequence[str], port: int, tell: Callable[[str], None]) -> None:
    """Serve the terminal UI, started with these arguments, on a port of this machine (0: a free one) until interrupted;
    its address is told. UsageError where the port is taken."""
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(f"port {port} cannot be listened on: {error.strerror}; choose another with --port") from error
    with listening:
        command = shlex.join([sys.executable, "-m", "headwater_tui", *arguments])
        pages = Pages(command, listening.getsockname()[1], secrets.token_urlsafe(24))
        tell(pages.address)
        pages.run(listening)
