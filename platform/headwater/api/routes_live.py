"""Live search: hits as they arrive, as server-sent events or over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Response, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from headwater import wire
from headwater.api import problems, sse
from headwater.api.bodies import Body, Names, Shared, State, Words, names
from headwater.composed import LiveEvent
from headwater.errors import HeadwaterError, UsageError
from headwater.records import Mode

router = APIRouter(prefix="/v1", responses=problems.RESPONSES, tags=["search"])
_ASKED_S = 10.0  # how long a WebSocket may take to say what it looks for
_PLACE_CHARS = 100_000


class LiveBody(Body):
    """What a live search looks for."""

    q: str = Field(max_length=4000)
    topics: list[str] | None = Field(None, max_length=1000)
    mode: Mode | None = None
    filters: dict[str, Any] | None = None
    min_score: float | None = None
    after: str | None = Field(None, max_length=_PLACE_CHARS)


@router.get("/search/live", responses={200: {"content": {"text/event-stream": {}}}})
async def live(
    shared: Shared,
    q: Words = "",
    topics: Names = None,
    mode: Mode | None = None,
    filters: Annotated[str | None, Query(max_length=10_000, description="A JSON object, as in a search.")] = None,
    min_score: float | None = None,
    after: Annotated[str | None, Query(max_length=_PLACE_CHARS, description="Go on behind this cursor.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=_PLACE_CHARS)] = None,
) -> Response:
    """New hits of a query, as server-sent events: each hit as it arrives, its id the cursor behind it. `ready`, `skipped` and
    `progress` are events of those names. `Last-Event-ID` resumes."""
    events = shared.verbs.live(
        q, topics=names(topics), mode=mode, filters=_object(filters), min_score=min_score, after=last_event_id or after
    )
    first = await anext(events)  # what is wrong with the request is told before the stream begins
    return sse.stream(_streamed(first, events), shared.closing)


async def _streamed(first: LiveEvent, events: AsyncIterator[LiveEvent]) -> AsyncIterator[bytes]:
    try:
        yield _event(first)
        async for event in events:
            yield _event(event)
    finally:
        await sse.let_go(events)


def _event(event: LiveEvent) -> bytes:
    if event.hit is not None:
        return sse.event(wire.encode(event.hit), id=event.cursor)
    data = {"skipped": event.skipped, "topic": event.topic} if event.event == "skipped" else {}
    return sse.event(orjson.dumps(data), event=event.event, id=event.cursor)


def _object(filters: str | None) -> dict[str, Any] | None:
    if filters is None:
        return None
    found = wire.parse_json(filters.encode("utf-8", "surrogatepass"))
    if not isinstance(found, dict):
        raise UsageError("filters must be a JSON object")
    return found


# ---------------------------------------------------------------------- WebSocket


@router.websocket("/search/live")
async def live_socket(socket: WebSocket) -> None:
    """The same over a WebSocket. What is looked for comes in the query string, or as the first message; every message back is
    `{event, cursor, hit?, skipped?, topic?}`, `heartbeat` in silence, `error` with a problem before it is closed."""
    state: State = socket.app.state.headwater
    shared = state.within(socket.scope)
    await socket.accept()
    events: AsyncIterator[LiveEvent] | None = None
    try:
        async with asyncio.timeout(_ASKED_S):
            asked = await _asked(socket)
        scope = asked.model_dump(exclude={"q"})
        events = shared.verbs.live(asked.q, **scope)
        await _send_all(socket, events, shared.closing)
        await socket.close(1001)
    except HeadwaterError as error:
        await _refuse(socket, error)
    except TimeoutError:
        await _refuse(socket, UsageError(f"say within {_ASKED_S:.0f} s what to look for, as a JSON object with 'q'"))
    except (WebSocketDisconnect, RuntimeError):  # the other end has gone; nobody is left to be told
        return
    finally:
        if events is not None:
            await sse.let_go(events)


async def _asked(socket: WebSocket) -> LiveBody:
    """The request of a WebSocket; UsageError for one that is not as it must be."""
    given: Any = dict(socket.query_params)
    if "q" in given:
        given["topics"] = names(socket.query_params.getlist("topics"))
        given["filters"] = _object(given.get("filters"))
    else:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        given = wire.parse_json(message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass"))
    try:
        return LiveBody.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc'])) or 'the request'}: {first['msg']}") from None


async def _send_all(socket: WebSocket, events: AsyncIterator[LiveEvent], closing: asyncio.Event) -> None:
    """Send events until they end, the other end goes, or the daemon closes. One is read when the one before is sent: a reader
    that is slow holds back the search, which reads on from the log later."""
    gone, end = asyncio.create_task(_departure(socket)), asyncio.create_task(closing.wait())
    step = asyncio.ensure_future(anext(events, None))
    cursor = ""
    try:
        while True:
            await asyncio.wait({step, gone, end}, timeout=sse.HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or end.done():
                return
            if not step.done():
                await socket.send_text(orjson.dumps({"event": "heartbeat", "cursor": cursor}).decode())
                continue
            event = step.result()
            if event is None:
                return
            cursor = event.cursor
            await socket.send_text(_message(event))
            step = asyncio.ensure_future(anext(events, None))
    finally:
        for task in (step, gone, end):
            task.cancel()
        await asyncio.gather(step, gone, end, return_exceptions=True)


def _message(event: LiveEvent) -> str:
    plain: dict[str, Any] = {"event": event.event, "cursor": event.cursor}
    if event.hit is not None:
        plain["hit"] = event.hit
    if event.event == "skipped":
        plain |= {"skipped": event.skipped, "topic": event.topic}
    return wire.encode(plain).decode()


async def _departure(socket: WebSocket) -> None:
    """Return when the other end has gone; what it says meanwhile is not listened to."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        continue


async def _refuse(socket: WebSocket, error: HeadwaterError) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        problem = orjson.loads(bytes(problems.of(error).body))
        await socket.send_text(orjson.dumps({"event": "error", "problem": problem}).decode())
        await socket.close(1008, "refused")
