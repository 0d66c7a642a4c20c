"""The daemon itself: health, readiness, status, metrics, and what could not be processed."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Query, Response

from headwater.api import metrics
from headwater.api.bodies import Engine, LetterId, Reply, Shared
from headwater.api.problems import RESPONSES
from headwater.records import DeadLetter, Status

router = APIRouter(responses=RESPONSES, tags=["system"])


@router.get("/v1/health")
async def health(shared: Shared) -> Response:
    """Whether the process answers; it asks nothing of the engine."""
    return Reply({"status": "ok", "version": shared.version, "pid": os.getpid()})


@router.get("/v1/ready", responses={503: {"description": "Not ready yet"}})
async def ready(engine: Engine) -> Response:
    """200 when verbs can be called, else 503; with the problems there are."""
    status = await engine.status()
    return Reply({"ready": status.ready, "problems": status.problems}, 200 if status.ready else 503)


@router.get("/v1/status", response_model=Status)
async def status(engine: Engine) -> Response:
    """Topics, sources, watermarks and problems at a glance."""
    return Reply(await engine.status())


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
async def prometheus(shared: Shared) -> Response:
    """The numbers of this daemon, for Prometheus."""
    verbs = shared.verbs
    page = shared.metrics.page(await verbs.status(), await verbs.indexes(), await verbs.pipelines())
    return Response(page, media_type=metrics.CONTENT_TYPE)


@router.get("/v1/dead-letters", response_model=dict[str, list[DeadLetter]])
async def dead_letters(
    engine: Engine,
    topic: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Response:
    """What could not be processed, newest first."""
    return Reply({"dead_letters": await engine.dead_letters(topic, limit=limit)})


@router.post("/v1/dead-letters/{id}/replay", status_code=204)
async def replay(engine: Engine, id: LetterId) -> Response:
    """Try a dead letter again; it goes when that succeeds."""
    await engine.replay_dead_letter(id)
    return Response(status_code=204)


@router.delete("/v1/dead-letters/{id}", status_code=204)
async def drop(engine: Engine, id: LetterId) -> Response:
    """Forget a dead letter."""
    await engine.drop_dead_letter(id)
    return Response(status_code=204)
