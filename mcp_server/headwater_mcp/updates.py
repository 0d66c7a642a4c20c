"""Tells clients what has changed: resources they subscribed to, and the list of resources.

The 2026-07-28 revision listens (`subscriptions/listen`) to a bus; the 2025-11-25 revision subscribes by URI and hears of list
changes unasked, on the session's own channel. One look at the verbs every second serves both, and only while somebody listens.
What changed while the daemon was away is told at the first look after it: a subscriber reads again and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
)
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from headwater.errors import HeadwaterError
from headwater.verbs import Verbs
from headwater_mcp.resources import TOPICS, anomalies_uri, topic_uri, watch_uri

MOST_SUBSCRIPTIONS = 200  # of a session, and listeners of a server
_MOST_URI = 400


@dataclass(frozen=True, slots=True)
class _Client:
    """A session of the 2025-11-25 revision and what it subscribed to."""

    session: ServerSession
    uris: set[str] = field(default_factory=set)


class Updates:
    """Follows what changes behind `verbs` while somebody listens. `every_s` between two looks for subscribers, `idle_s` where
    sessions only wait to hear of the list; `scheme` is that of the resources served."""

    def __init__(
        self, verbs: Verbs, *, every_s: float = 1.0, idle_s: float = 5.0, scheme: str = "headwater://",
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._verbs, self._every_s, self._idle_s, self._scheme, self._pause = verbs, every_s, idle_s, scheme, pause
        self.bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self.bus, max_subscriptions=MOST_SUBSCRIPTIONS)
        self._listeners = 0
        self._clients: dict[int, _Client] = {}
        self._wanted = asyncio.Event()
        self._seen: Mapping[str, Hashable] | None = None
        self._looking = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Look for changes until left."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._listen.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # ------------------------------------------------------------------ who listens

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """`subscriptions/listen` (2026-07-28): changes from now on, until the client goes."""
        await self._baseline()
        self._listeners += 1
        self._wanted.set()
        try:
            return await self._listen(ctx, params)
        finally:
            self._listeners -= 1

    async def subscribe(self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        """`resources/subscribe` (2025-11-25)."""
        uris, uri = self._client(ctx.session).uris, str(params.uri)
        if len(uri) > _MOST_URI or not uri.startswith(self._scheme):
            raise MCPError(INVALID_PARAMS, "uri is not a resource of this server; resources/list has them")
        if len(uris) >= MOST_SUBSCRIPTIONS:
            raise MCPError(INVALID_PARAMS, f"this session has {MOST_SUBSCRIPTIONS} subscriptions, the most it may have")
        await self._baseline()
        uris.add(uri)
        self._wanted.set()
        return EmptyResult()

    async def unsubscribe(self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        """`resources/unsubscribe` (2025-11-25); what was not subscribed to is no error."""
        self._client(ctx.session).uris.discard(str(params.uri))
        return EmptyResult()

    async def noting(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Middleware: says in the handshake of 2025-11-25 that list changes are told, and remembers who is to be told."""
        result = await call_next(ctx)
        if ctx.method == "initialize" and isinstance(result, dict):
            resources = result.get("capabilities", {}).get("resources")
            if isinstance(resources, dict):
                resources["listChanged"] = True
        elif ctx.method == "notifications/initialized" and self._has_channel(ctx.session):
            self._client(ctx.session)
            self._wanted.set()
        return result

    @staticmethod
    def _has_channel(session: ServerSession) -> bool:
        return session._connection.has_standalone_channel

    def _client(self, session: ServerSession) -> _Client:
        connection = session._connection  # a session object is made anew for every request, its connection is not
        key = id(connection)
        if key not in self._clients:
            self._clients[key] = _Client(session)
            connection.exit_stack.callback(self._clients.pop, key, None)
        return self._clients[key]

    # ------------------------------------------------------------------ what changes

    async def _run(self) -> None:
        while True:
            subscribed = bool(self._listeners) or any(client.uris for client in self._clients.values())
            if not subscribed and not self._clients:
                self._wanted.clear()
                self._seen = None
                await self._wanted.wait()
            await self._look()
            self._wanted.clear()
            subscribed = bool(self._listeners) or any(client.uris for client in self._clients.values())
            with contextlib.suppress(TimeoutError):
                if subscribed:
                    await self._pause(self._every_s)
                else:  # somebody who subscribes meanwhile is not to wait for the slow pace
                    async with asyncio.timeout(self._idle_s):
                        await self._wanted.wait()

    async def _baseline(self) -> None:
        """Have looked once before anybody is told that it is subscribed: what changes from here on is told."""
        if self._seen is None:
            await self._look()

    async def _look(self) -> None:
        async with self._looking:
            try:
                now = await _state(self._verbs)
            except HeadwaterError:
                return  # the daemon is away; the next look tells what changed
            before, self._seen = self._seen, now
            if before is None or before == now:
                return
            if before.keys() != now.keys():
                await self._tell(ResourcesListChanged())
            for uri in sorted({*before, *now}):
                if before.get(uri) != now.get(uri):
                    await self._tell(ResourceUpdated(uri=uri))

    async def _tell(self, event: ServerEvent) -> None:
        await self.bus.publish(event)
        for key, client in list(self._clients.items()):
            try:
                if isinstance(event, ResourcesListChanged):
                    await client.session.send_resource_list_changed()
                elif isinstance(event, ResourceUpdated) and event.uri in client.uris:
                    await client.session.send_resource_updated(event.uri)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                self._clients.pop(key, None)


async def _state(verbs: Verbs) -> Mapping[str, Hashable]:
    """By URI, what changes when that resource does. Raises HeadwaterError."""
    topics, watches, detecting = await verbs.topics(), await verbs.watches(), await verbs.detecting()
    state: dict[str, Hashable] = {topic_uri(t.name): (t.records, t.watermark.stored, t.passages) for t in topics}
    state[TOPICS] = tuple(state.items())
    state |= {anomalies_uri(d.topic): (d.found, d.alerted, d.dismissed, d.state) for d in detecting}
    return state | {watch_uri(w.id): (w.fired, w.state) for w in watches}
