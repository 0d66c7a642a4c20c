"""Questions, answered in one piece or as events; answers that are kept; summaries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from headwater.api import sse
from headwater.api.bodies import AskBody, Body, Engine, Reply, Shared, When
from headwater.api.problems import RESPONSES
from headwater.records import Answer
from headwater.records.answers import Rerun, StoredAnswer

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["ask"])
AnswerId = Annotated[str, Path(max_length=100)]


class RerunBody(Body):
    model: str | None = Field(None, max_length=500)


class SummarizeBody(Body):
    topics: list[str] | None = Field(None, max_length=1000)
    since: When = None
    until: When = None
    q: str = Field("", max_length=4000)
    thread: str | None = Field(None, max_length=200, description="Address of one of its records.")
    max_tokens: int = Field(400, ge=20, le=8000)
    model: str | None = Field(None, max_length=500)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


@router.post("/ask", response_model=Answer, responses={200: {"content": {"text/event-stream": {}}}})
async def ask(shared: Shared, body: AskBody, last_event_id: Annotated[str | None, Header(max_length=200)] = None) -> Response:
    """An answer whose every sentence cites records. With `stream` true: server-sent events retrieval, token, citation, done;
    `Last-Event-ID` gives what came behind that event of an answer that was completed. A client that leaves ends the model's
    call."""
    if body.stream:
        events = shared.verbs.ask_events(body.question, place=last_event_id, **body.scope())
        return sse.stream(sse.told(await sse.begun(events)), shared.closing)
    with shared.metrics.timed("ask"):
        return Reply(await shared.verbs.ask(body.question, **body.scope()))


@router.get("/answers", response_model=dict[str, list[StoredAnswer]])
async def answers(
    engine: Engine,
    conversation: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    """The answers that are kept, newest first."""
    return Reply({"answers": await engine.answers(conversation=conversation, limit=limit)})


@router.get("/answers/{id}", response_model=StoredAnswer)
async def answer(engine: Engine, id: AnswerId) -> Response:
    """An answer with what it was made of."""
    return Reply(await engine.answer(id))


@router.post("/answers/{id}/rerun", response_model=Rerun)
async def rerun(engine: Engine, id: AnswerId, body: RerunBody | None = None) -> Response:
    """The same question now, and what changed."""
    return Reply(await engine.rerun(id, model=None if body is None else body.model))


@router.post("/summarize", response_model=Answer)
async def summarize(engine: Engine, body: SummarizeBody) -> Response:
    """What the records of topics, a time or a thread say, each sentence cited."""
    return Reply(await engine.summarize(**body.arguments()))
