"""`/mcp`: agents over streamable HTTP, served by what the entry point `headwater.mcp` builds.

Every caller (a token, or whoever shows the API key) has an MCP server of its own over the verbs in its scope, with its own
sessions: nothing of one can be reached through another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from headwater.api import problems
from headwater.api.guard import CALLER, TOKENS
from headwater.config import ServerSettings
from headwater.errors import NotFoundError
from headwater.scoped import scoped
from headwater.tokens import Token, Tokens
from headwater.verbs import Verbs

PATH = "/mcp"
_MOST_CALLERS = 100


class Server(Protocol):
    """What `build(verbs)` returns, as far as it is needed here."""

    def http_app(self, *, path: str, stateless: bool, max_sessions: int, max_body_bytes: int) -> Starlette:
        """It over streamable HTTP; to be called while the app's lifespan is entered."""


class Build(Protocol):
    """The entry point."""

    def __call__(self, verbs: Verbs, *, allow_write: bool = False, who: str = "", roots: Sequence[Path] = ()) -> Server: ...


@dataclass(frozen=True, slots=True)
class _Served:
    """The server of one caller, and the task that its sessions live in."""

    app: Starlette
    task: asyncio.Task[None]
    end: asyncio.Event


class Agents:
    """An ASGI app for `/mcp`. It ends with `closing`; `find` gives the entry point, None where none is installed."""

    def __init__(
        self, verbs: Verbs, settings: ServerSettings, closing: asyncio.Event, *, find: Callable[[], Build | None] | None = None
    ) -> None:
        self._verbs, self._settings, self._closing, self._find = verbs, settings, closing, find or found
        self._served: OrderedDict[Token | None, _Served] = OrderedDict()
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served = await self._of(scope.get(CALLER), scope.get(TOKENS))
        if served is None:
            await problems.of(NotFoundError("no MCP server is installed here"))(scope, receive, send)
        else:
            trimmed = [(name, value.strip(b" \t")) for name, value in scope["headers"]]  # as RFC 9110 has it; servers differ
            await served.app({**scope, "headers": trimmed}, receive, send)

    async def _of(self, caller: Token | None, tokens: Tokens | None = None) -> _Served | None:
        async with self._lock:
            known = self._served.get(caller)
            if known is not None and not known.task.done():
                self._served.move_to_end(caller)
                return known
            build = await anyio.to_thread.run_sync(self._find)  # imports for about a second, the first time
            if build is None:
                return None
            self._served[caller] = served = await self._start(build, caller, tokens)
            while len(self._served) > _MOST_CALLERS:
                self._served.popitem(last=False)[1].end.set()
            return served

    async def _start(self, build: Build, caller: Token | None, tokens: Tokens | None) -> _Served:
        settings = self._settings
        server = build(
            scoped(self._verbs, caller, tokens), allow_write=settings.mcp_write if caller is None else caller.write,
            who="" if caller is None else f"token:{caller.name}",
            roots=[Path(root) for root in settings.live_paths] if caller is None else [],
        )  # fmt: skip
        app = server.http_app(
            path=PATH, stateless=settings.mcp_stateless, max_sessions=settings.mcp_sessions,
            max_body_bytes=settings.max_body_bytes,
        )  # fmt: skip
        up, end = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(self._live(app, up, end))
        await _first(up.wait(), task)
        return _Served(app, task, end)

    async def _live(self, app: Starlette, up: asyncio.Event, end: asyncio.Event) -> None:
        """Keep an app's lifespan, which must be entered and left by one task, until the daemon closes or `end` is set."""
        async with app.router.lifespan_context(app):
            up.set()
            await _first(self._closing.wait(), end.wait())


async def _first(*waits: Any) -> None:
    """Return when one of them is done; a task that was given is left to run."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def found() -> Build | None:
    """What the entry point `server` of the group `headwater.mcp` loads; None where there is none."""
    for entry in entry_points(group="headwater.mcp", name="server"):
        build: Build = entry.load()
        return build
    return None
