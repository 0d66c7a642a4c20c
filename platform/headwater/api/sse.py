"""Server-sent events: any async iterator of events as a stream with heartbeats, which ends when the daemon does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

import orjson
from starlette.responses import StreamingResponse

from headwater import wire
from headwater.api import problems
from headwater.errors import HeadwaterError

T = TypeVar("T")
HEARTBEAT_S = 15.0
_AT_ONCE = 500  # events joined into one write when many wait


class Named(Protocol):
    """A step of a reply that comes as events: what it is called, and its data."""

    @property
    def event(self) -> str: ...

    @property
    def data(self) -> object: ...


def event(data: bytes, *, event: str | None = None, id: str | None = None) -> bytes:
    """One event; `data` is JSON, which has no line breaks of its own."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return head.encode() + b"data: " + data + b"\n\n"


def stream(events: AsyncIterator[bytes], closing: asyncio.Event, *, heartbeat_s: float = HEARTBEAT_S) -> StreamingResponse:
    """A response of `events`, with a comment whenever nothing came for `heartbeat_s`."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_paced(events, closing, heartbeat_s), headers=headers, media_type="text/event-stream")


async def _paced(events: AsyncIterator[bytes], closing: asyncio.Event, heartbeat_s: float) -> AsyncIterator[bytes]:
    """`events` joined, until they end, fail (the last event is then `error`) or `closing` is set.

    They are read by a task of their own through a short queue: an iterator must not be cancelled to send a heartbeat.
    """
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_AT_ONCE)
    reader = asyncio.create_task(_read(events, queue))
    end = asyncio.create_task(closing.wait())

    def stop(_: object) -> None:
        reader.cancel()
        while queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    end.add_done_callback(stop)
    try:
        yield b": welcome\n\n"
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    batch = [await queue.get()]
            except TimeoutError:
                yield b": heartbeat\n\n"
                continue
            while not queue.empty():
                batch.append(queue.get_nowait())
            yield b"".join(e for e in batch if e is not None)
            if batch[-1] is None:
                return
    finally:
        end.cancel()
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def _read(events: AsyncIterator[bytes], queue: asyncio.Queue[bytes | None]) -> None:
    """Move events into the queue, None at their end."""
    try:
        async for one in events:
            await queue.put(one)
    except HeadwaterError as error:
        await queue.put(event(bytes(problems.of(error).body), event="error"))
    finally:
        await let_go(events)
    await queue.put(None)


async def begun(events: AsyncIterator[T]) -> AsyncIterator[T]:
    """The same events, the first of them waited for: what is wrong with the request is told before the stream begins."""
    first = await anext(aiter(events), None)

    async def rest() -> AsyncIterator[T]:
        try:
            if first is not None:
                yield first
            async for one in events:
                yield one
        finally:
            await let_go(events)

    return rest()


async def told(events: AsyncIterator[Named]) -> AsyncIterator[bytes]:
    """Steps as they are sent, each with the place behind which it resumes, where it has one."""
    try:
        async for step in events:
            yield json_event(step.data, name=step.event, id=getattr(step, "place", None))
    finally:
        await let_go(events)


async def let_go(events: AsyncIterator[object]) -> None:
    """Close an iterator of events that is not read to its end, so that what makes them ends too."""
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()


def json_event(value: object, *, name: str | None = None, id: str | None = None) -> bytes:
    """An event of a value type; text is a JSON string."""
    return event(orjson.dumps({"text": value}) if isinstance(value, str) else wire.encode(value), event=name, id=id)
