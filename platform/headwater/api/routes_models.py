"""Chat models: which there are, and what one answers without retrieval, in one piece or as events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, model_validator

from headwater.api import sse
from headwater.api.bodies import Body, Engine, Reply, Shared
from headwater.api.problems import RESPONSES
from headwater.errors import ModelError
from headwater.records.models import Completion, Message, ModelInfo, Piece, Role

T = TypeVar("T")
router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["models"])
_GONE = 499  # the client closed the request; nobody reads it


class Turn(Body):
    """One message of a conversation."""

    role: Role
    text: str = Field(max_length=2_000_000)


class CompleteBody(Body):
    """A prompt, or the messages of a conversation of which the last is the user's."""

    prompt: str | None = Field(None, max_length=2_000_000)
    messages: list[Turn] | None = Field(None, max_length=1000)
    system: str | None = Field(None, max_length=200_000)
    model: str | None = Field(None, max_length=300, description="PROVIDER:MODEL; the configured one by default.")
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    cache: bool = True
    stream: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> CompleteBody:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages, one of them")
        return self

    def asked(self) -> str | list[Message]:
        return [Message(m.role, m.text) for m in self.messages] if self.messages is not None else self.prompt or ""

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("system", "model", "temperature", "max_tokens", "cache")}


@router.get("/models", response_model=dict[str, list[ModelInfo]])
async def models(
    engine: Engine, check: Annotated[bool, Query(description="Ask each whether it is there.")] = False
) -> Response:
    """The configured chat model, its fallbacks, and what else there could be: address, key, reachability, what mends it."""
    return Reply({"models": await engine.models(check=check)})


@router.post("/complete", response_model=Completion, responses={200: {"content": {"text/event-stream": {}}}})
async def complete(shared: Shared, body: CompleteBody, request: Request) -> Response:
    """What a chat model answers to a prompt, without retrieval. With `stream` true: server-sent events token and done; an
    answer that is cut ends with the event error and has no done. A client that goes away ends the call."""
    if body.stream:
        parts = shared.verbs.complete_stream(body.asked(), **body.options())
        first = await _while_there(request, _next(parts))
        return Response(status_code=_GONE) if first is None else sse.stream(_events(first, parts), shared.closing)
    with shared.metrics.timed("complete"):
        answer = await _while_there(request, shared.verbs.complete(body.asked(), **body.options()))
    return Response(status_code=_GONE) if answer is None else Reply(answer)


async def _next(parts: AsyncIterator[Piece | Completion]) -> Piece | Completion:
    """The first part: what goes wrong before it is still a status of its own."""
    async for part in parts:
        return part
    raise ModelError("the model gave no answer")


async def _events(first: Piece | Completion, parts: AsyncIterator[Piece | Completion]) -> AsyncGenerator[bytes, None]:
    try:
        yield _event(first)
        async for part in parts:
            yield _event(part)
    finally:
        await sse.let_go(parts)


def _event(part: Piece | Completion) -> bytes:
    return sse.json_event(part.text, name="token") if isinstance(part, Piece) else sse.json_event(part, name="done")


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` gives; None, and it is cancelled, where the client goes away meanwhile."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                if not one.done():
                    await one


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
