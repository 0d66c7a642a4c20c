"""What is pushed to sources: logs over OTLP, and webhooks. Webhooks show who they are by their signature, not by the token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from headwater.api.bodies import Reply, Shared
from headwater.api.problems import RESPONSES
from headwater.errors import NotFoundError
from headwater.intake.doors import Doors

otlp = APIRouter(tags=["sources"])
router = APIRouter(responses=RESPONSES, tags=["sources"])
_ANY: dict[str, Any] = {"schema": {}}
_EXPORT = {"requestBody": {"required": True, "content": {"application/x-protobuf": _ANY, "application/json": _ANY}}}
_HOOK = {"requestBody": {"required": True, "content": {"application/json": _ANY}}}


@otlp.post("/v1/logs", openapi_extra=_EXPORT)
async def logs(request: Request, shared: Shared) -> Response:
    """Logs over OTLP/HTTP, as protobuf or JSON, plain or gzip. 200 once they are committed."""
    sent = request.headers
    answer = await _doors(shared.doors).logs(
        await request.body(), sent.get("content-type", ""), sent.get("content-encoding", ""), door=shared.door
    )
    headers = {} if answer.retry_after_s is None else {"retry-after": f"{answer.retry_after_s:.0f}"}
    return Response(answer.body, answer.status, headers, answer.kind)


router.include_router(otlp)


@router.post("/v1/hooks/{name}", openapi_extra=_HOOK)
async def hook(request: Request, shared: Shared, name: Annotated[str, Path(max_length=100)]) -> Response:
    """What a webhook delivers, each delivery once. 200 once it is committed, 401 for a wrong signature."""
    headers = {key.lower(): value for key, value in request.headers.items()}
    return Reply(await _doors(shared.doors).hook(name, headers, await request.body()))


def _doors(doors: Doors | None) -> Doors:
    if doors is None:
        raise NotFoundError("no sources are served here")
    return doors
