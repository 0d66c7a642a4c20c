"""The log of calls that agents made: added to and read, never changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from headwater.api.bodies import Body, Engine, Reply
from headwater.api.problems import RESPONSES
from headwater.records.calls import ToolCall

router = APIRouter(prefix="/v1/calls", responses=RESPONSES, tags=["agents"])


class CallBody(Body):
    """A call of an agent."""

    who: str = Field(max_length=1000)
    tool: str = Field(min_length=1, max_length=1000)
    arguments: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the arguments.")
    size: int = Field(0, ge=0, le=(1 << 62))
    seconds: float = Field(0.0, ge=0, lt=1e9, allow_inf_nan=False)
    failed: bool = False


@router.get("", response_model=dict[str, list[ToolCall]])
async def calls(
    engine: Engine,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, le=(1 << 62), description="Those older than this number.")] = None,
) -> Response:
    """Calls of agents, newest first."""
    return Reply({"calls": await engine.calls(limit=limit, before=before)})


@router.post("", status_code=204)
async def note_call(engine: Engine, body: CallBody) -> Response:
    """Keep that a call was made."""
    await engine.note_call(
        body.who, body.tool, arguments=body.arguments, size=body.size, seconds=body.seconds, failed=body.failed
    )
    return Response(status_code=204)
