"""Topics and their indexes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from headwater.api.bodies import Engine, IndexBody, Names, NewTopicBody, Reply, TopicName, names, object_of
from headwater.api.problems import RESPONSES
from headwater.errors import UsageError
from headwater.records import IndexInfo, Topic

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["topics"])
_NEW = {"requestBody": {"content": {"application/json": {"schema": NewTopicBody.model_json_schema()}}, "required": True}}
_CHANGE = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}}


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
    """Switch meaning search on; what is stored is embedded in the background."""
    return Reply(await engine.create_index(topic, body.model if body else None), 201)


@router.delete("/topics/{topic}/index", response_model=IndexInfo)
async def delete_index(engine: Engine, topic: TopicName) -> Response:
    """Switch meaning search off and drop the vectors; keyword search stays."""
    return Reply(await engine.delete_index(topic))


@router.post("/topics/{topic}/index/rebuild", response_model=IndexInfo, status_code=202)
async def rebuild_index(engine: Engine, topic: TopicName) -> Response:
    """Build the topic's indexes anew from the log, in the background."""
    return Reply(await engine.rebuild_index(topic), 202)


def _plain(settings: Any) -> dict[str, Any]:
    """Settings that can be passed by name; those of the verb itself cannot be settings."""
    if "name" in settings:
        raise UsageError("a topic cannot be renamed; make a new one")
    return dict(settings)
