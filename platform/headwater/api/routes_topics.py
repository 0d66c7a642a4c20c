"""Topics and their indexes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from headwater.api.bodies import (
    Engine,
    IndexBody,
    Names,
    PurgeBody,
    RebuildBody,
    Reply,
    SwapBody,
    TopicName,
    names,
    object_of,
    topic_schema,
)
from headwater.api.problems import RESPONSES
from headwater.errors import UsageError
from headwater.records import IndexInfo, Topic
from headwater.records.indexes import Shadow
from headwater.records.removals import Purged

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["topics"])
_NEW = {"requestBody": {"content": {"application/json": {"schema": topic_schema(new=True)}}, "required": True}}
_CHANGE = {"requestBody": {"content": {"application/json": {"schema": topic_schema(new=False)}}, "required": True}}


@router.get("/topics", response_model=dict[str, list[Topic]])
async def list_topics(engine: Engine) -> Response:
    """All topics, by name."""
    return Reply({"topics": await engine.topics()})


@router.post("/topics", response_model=Topic, status_code=201, openapi_extra=_NEW)
async def create_topic(engine: Engine, request: Request) -> Response:
    """A new topic: its `name` and any settings of a topic, all in one object."""
    settings = dict(await object_of(request))
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise UsageError("a new topic needs a 'name'")
    return Reply(await engine.create_topic(name, **_plain(settings)), 201)


@router.get("/topics/{topic}", response_model=Topic)
async def describe_topic(engine: Engine, topic: TopicName) -> Response:
    """One topic with its settings and counts."""
    return Reply(await engine.topic(topic))


@router.patch("/topics/{topic}", response_model=Topic, openapi_extra=_CHANGE)
async def set_topic(engine: Engine, topic: TopicName, request: Request) -> Response:
    """Change settings of a topic."""
    return Reply(await engine.set_topic(topic, **_plain(await object_of(request))))


@router.delete("/topics/{topic}", status_code=204)
async def delete_topic(engine: Engine, topic: TopicName) -> Response:
    """Delete a topic with all its records and indexes."""
    await engine.delete_topic(topic)
    return Response(status_code=204)


@router.post("/topics/{topic}/purge", response_model=Purged)
async def purge_topic(engine: Engine, topic: TopicName, body: PurgeBody | None = None) -> Response:
    """Remove from the disk what deleted records left there, and look for texts that should be gone in every file."""
    return Reply(await engine.purge_topic(topic, markers=body.markers if body else ()))


@router.get("/indexes", response_model=dict[str, list[IndexInfo]])
async def list_indexes(engine: Engine, topics: Names = None) -> Response:
    """The index of every topic, or of those named."""
    wanted = names(topics)
    return Reply({"indexes": [i for i in await engine.indexes() if wanted is None or i.topic in wanted]})


@router.get("/topics/{topic}/index", response_model=IndexInfo)
async def describe_index(engine: Engine, topic: TopicName) -> Response:
    """The index of one topic."""
    return Reply(await engine.index(topic))


@router.post("/topics/{topic}/index", response_model=IndexInfo, status_code=201)
async def create_index(engine: Engine, topic: TopicName, body: IndexBody | None = None) -> Response:
    """Give a topic a vector index, or change its settings; what is stored is embedded in the background."""
    body = body or IndexBody.model_validate({})
    return Reply(await engine.create_index(topic, body.model, **body.settings()), 201)


@router.delete("/topics/{topic}/index", response_model=IndexInfo)
async def delete_index(engine: Engine, topic: TopicName) -> Response:
    """Switch meaning search off and drop the vectors; keyword search stays."""
    return Reply(await engine.delete_index(topic))


@router.post("/topics/{topic}/index/rebuild", response_model=IndexInfo, status_code=202)
async def rebuild_index(engine: Engine, topic: TopicName, body: RebuildBody | None = None) -> Response:
    """Build the topic's indexes anew from the log, in the background; with another model, beside the live one."""
    body = body or RebuildBody.model_validate({})
    done = engine.rebuild_index(topic, body.model, shadow=body.shadow, threshold=body.threshold, **body.settings())
    return Reply(await done, 202)


@router.post("/topics/{topic}/index/swap", response_model=IndexInfo)
async def swap_index(engine: Engine, topic: TopicName, body: SwapBody) -> Response:
    """Cut over to the second model, roll back, drop the second model's vectors, or cancel what is being built."""
    return Reply(await engine.swap_index(topic, body.step))


@router.get("/topics/{topic}/index/shadow", response_model=Shadow)
async def shadow(engine: Engine, topic: TopicName) -> Response:
    """The second model of a topic: how far its index is, and how it compares with the live one."""
    return Reply(await engine.shadow(topic))


def _plain(settings: Any) -> dict[str, Any]:
    """Settings that can be passed by name; those of the verb itself cannot be settings."""
    if "name" in settings:
        raise UsageError("a topic cannot be renamed; make a new one")
    return dict(settings)
