"""Sources: listed, added, paused, resumed, removed, while the daemon runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from headwater.api.bodies import Engine, Reply, object_of
from headwater.api.problems import RESPONSES
from headwater.records import SourceInfo

router = APIRouter(prefix="/v1/sources", responses=RESPONSES, tags=["sources"])
SourceName = Annotated[str, Path(max_length=4096)]
_ENTRY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in ("type", "name", "topic", "path")},
                    "additionalProperties": True,
                }
            }
        },
    }
}


@router.get("", response_model=dict[str, list[SourceInfo]])
async def list_sources(engine: Engine) -> Response:
    """Every source, with what it has stored, its lag, its errors and its state."""
    return Reply({"sources": await engine.sources()})


@router.post("", status_code=201, openapi_extra=_ENTRY, response_model=dict[str, list[SourceInfo]])
async def add_source(engine: Engine, request: Request) -> Response:
    """Add a source: the settings of one `[[sources]]` entry. It starts at once, and again after a restart."""
    return Reply({"sources": await engine.add_source(**await object_of(request))}, 201)


@router.post("/{name:path}/pause", response_model=dict[str, list[SourceInfo]])
async def pause_source(engine: Engine, name: SourceName) -> Response:
    """Stop a source until it is resumed."""
    return Reply({"sources": await engine.pause_source(name)})


@router.post("/{name:path}/resume", response_model=dict[str, list[SourceInfo]])
async def resume_source(engine: Engine, name: SourceName) -> Response:
    """Let a paused source go on."""
    return Reply({"sources": await engine.resume_source(name)})


@router.delete("/{name:path}", status_code=204)
async def remove_source(engine: Engine, name: SourceName) -> Response:
    """Forget a source that was added; its records stay."""
    await engine.remove_source(name)
    return Response(status_code=204)
