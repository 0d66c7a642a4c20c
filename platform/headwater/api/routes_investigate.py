"""Investigations, in one piece or as the events of their steps."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from headwater.api import sse
from headwater.api.bodies import Body, Reply, Shared, When
from headwater.api.problems import RESPONSES
from headwater.records.investigations import Investigation

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["ask"])


class InvestigateBody(Body):
    """What to look into, where, and what that may take."""

    question: str = Field(max_length=4000)
    topics: list[str] | None = Field(None, max_length=1000)
    since: When = None
    until: When = None
    model: str | None = Field(None, max_length=500)
    steps: int | None = Field(None, ge=1, le=100)
    max_tokens: int | None = Field(None, ge=0)
    max_cost: float | None = Field(None, ge=0)
    timeout_s: float | None = Field(None, gt=0, le=86_400)
    stream: bool = False

    def scope(self) -> dict[str, Any]:
        """What Verbs.investigate takes besides the question."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("question", "stream")}


@router.post("/investigate", response_model=Investigation, responses={200: {"content": {"text/event-stream": {}}}})
async def investigate(shared: Shared, body: InvestigateBody) -> Response:
    """A question looked into step by step, with a report whose every sentence cites records. With `stream` true: server-sent
    events, a `step` when it was taken, `done` last. A client that leaves ends it."""
    if body.stream:
        return sse.stream(
            sse.told(await sse.begun(shared.verbs.investigate_events(body.question, **body.scope()))), shared.closing
        )
    return Reply(await shared.verbs.investigate(body.question, **body.scope()))
