"""Watches: made, listed, removed, waited for (long poll), followed (server-sent events)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from headwater import wire
from headwater.api import sse
from headwater.api.bodies import Body, Engine, Reply, Shared, When
from headwater.api.problems import RESPONSES
from headwater.records import Mode
from headwater.records.watches import Watch, WatchHit, Woken

router = APIRouter(prefix="/v1/watches", responses=RESPONSES, tags=["watches"])
LONGEST_S = 25.0  # below what proxies allow a request
WatchId = Annotated[str, Path(max_length=100, description="Its id or its name.")]
Cursor = Annotated[str | None, Query(max_length=20, description="That of the last reply; without one all hits kept.")]
Duration = Annotated[str, Field(max_length=100)] | float | None


class WatchBody(Body):
    """What to watch for."""

    q: str = Field("", max_length=4000)
    name: str | None = Field(None, max_length=100)
    topics: list[str] | None = Field(None, max_length=1000)
    mode: Mode | None = None
    min_score: float | None = None
    like: str | None = Field(None, max_length=200)
    more_than: int | None = None
    within: Duration = None
    ttl: Duration = None
    since: When = None
    owner: str | None = Field(None, max_length=100)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


@router.get("", response_model=dict[str, list[Watch]])
async def watches(engine: Engine) -> Response:
    """Every watch, oldest first."""
    return Reply({"watches": await engine.watches()})


@router.post("", response_model=Watch, status_code=201)
async def add(engine: Engine, body: WatchBody) -> Response:
    """A standing query, from now on."""
    return Reply(await engine.add_watch(**body.arguments()), 201)


@router.get("/{id}", response_model=Watch)
async def watch(engine: Engine, id: WatchId) -> Response:
    """One watch: what it looks for, its state, how often it has fired."""
    return Reply(await engine.watch(id))


@router.delete("/{id}", status_code=204)
async def remove(engine: Engine, id: WatchId) -> Response:
    """Forget a watch and its hits."""
    await engine.remove_watch(id)
    return Response(status_code=204)


@router.get("/{id}/wait", response_model=Woken)
async def wait(
    shared: Shared,
    id: WatchId,
    cursor: Cursor = None,
    timeout: Annotated[float, Query(ge=0, le=LONGEST_S, description="Seconds.")] = LONGEST_S,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The hits behind the cursor as soon as there are any; none, and the same cursor, when the time is up."""
    waiting = asyncio.ensure_future(shared.verbs.wait(id, cursor=cursor, timeout=timeout, limit=limit))
    closing = asyncio.ensure_future(shared.closing.wait())
    try:
        await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return Reply(waiting.result())
    finally:
        waiting.cancel()
        closing.cancel()
    return Reply(Woken(id, (), cursor or "0", timed_out=True))  # the daemon ends: the hits are there when it is back


@router.get("/{id}/events", responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    shared: Shared,
    id: WatchId,
    cursor: Cursor = None,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """Its hits as server-sent events as they are fired; the id of each is that of the hit. `Last-Event-ID` resumes."""
    found = await shared.verbs.watch(id)  # what is wrong with the request is told before the stream begins
    after = last_event_id.rpartition("-")[2] if last_event_id else cursor
    await shared.verbs.wait(found.id, cursor=after, timeout=0, limit=1)
    return sse.stream(_streamed(shared.verbs.watch_events(found.id, cursor=after)), shared.closing)


async def _streamed(hits: AsyncIterator[WatchHit]) -> AsyncIterator[bytes]:
    try:
        async for hit in hits:
            yield sse.event(wire.encode(hit), id=hit.id)
    finally:
        await sse.let_go(hits)
