"""Questions, answered in one piece or as events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Response

from headwater.api import sse
from headwater.api.bodies import AskBody, Reply, Shared
from headwater.api.problems import RESPONSES
from headwater.composed import AskEvent, ask_events
from headwater.records import Answer

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["ask"])


@router.post("/ask", response_model=Answer, responses={200: {"content": {"text/event-stream": {}}}})
async def ask(shared: Shared, body: AskBody) -> Response:
    """An answer whose every sentence cites records. With `stream` true: server-sent events retrieval, token, citation, done."""
    if body.stream:
        return sse.stream(_events(ask_events(shared.verbs, body.question, **body.scope())), shared.closing)
    with shared.metrics.timed("ask"):
        return Reply(await shared.verbs.ask(body.question, **body.scope()))


async def _events(events: AsyncIterator[AskEvent]) -> AsyncIterator[bytes]:
    async for step in events:
        yield sse.json_event(step.data, name=step.event)
