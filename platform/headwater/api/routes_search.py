"""Searching: by words and meaning, by a record, many at once; patterns and timelines."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from headwater.api import problems
from headwater.api.bodies import (
    BatchBody,
    EmbedBody,
    Engine,
    Names,
    Reply,
    SearchBody,
    Shared,
    SimilarBody,
    Time,
    TopicName,
    VectorBody,
    Words,
    names,
)
from headwater.api.problems import RESPONSES
from headwater.errors import HeadwaterError, UsageError
from headwater.records import Embedded, PatternsReply, SearchReply, Timeline
from headwater.records.drifts import Drift

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["search"])


@router.post("/search", response_model=SearchReply)
async def search(shared: Shared, body: SearchBody) -> Response:
    """The best passages for a query, each with its best record, and what was searched."""
    with shared.metrics.timed("search"):
        return Reply(await shared.verbs.search(**body.arguments()))


@router.post("/search/batch", response_model=dict[str, list[SearchReply | dict[str, Any]]])
async def batch(shared: Shared, body: BatchBody) -> Response:
    """A result for each query, in their order: a reply, or `{"error": problem}` for one that fails."""
    asked: list[dict[str, Any] | HeadwaterError] = []
    for query in body.queries:
        try:
            given = SearchBody.model_validate(query).arguments()
            reranked = given.pop("rerank", False)
            asked.append(UsageError("a batch is not reranked; send that search by itself") if reranked else given)
        except ValidationError as error:
            asked.append(problems.usage_of(error))
    with shared.metrics.timed("search"):
        replies = iter(await shared.verbs.search_batch([a for a in asked if isinstance(a, dict)]))
    results = [next(replies) if isinstance(a, dict) else a for a in asked]
    return Reply({"results": [{"error": problems.plain(r)} if isinstance(r, HeadwaterError) else r for r in results]})


@router.post("/search/vector", response_model=SearchReply)
async def by_vector(shared: Shared, body: VectorBody) -> Response:
    """The passages nearest to a vector of your own."""
    with shared.metrics.timed("search"):
        return Reply(await shared.verbs.search_vector(**body.arguments()))


@router.post("/topics/{topic}/similar", response_model=SearchReply)
async def similar(engine: Engine, topic: TopicName, body: SimilarBody) -> Response:
    """Passages nearest in meaning to those of one record."""
    return Reply(
        await engine.similar(topic, offset=body.offset, partition=body.partition, top_k=body.top_k, topics=body.topics)
    )


@router.get("/topics/{topic}/patterns", response_model=PatternsReply)
async def patterns(
    engine: Engine,
    topic: TopicName,
    q: Words = "",
    since: Time = None,
    until: Time = None,
    new_since: Time = None,
    gone_since: Time = None,
    changed_since: Time = None,
    fields: Annotated[bool, Query(description="What varying places and attributes hold.")] = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """The passages of a topic with their counts; with `new_since` only those first seen since then, with `gone_since` those
    that do not come any more, with `changed_since` those that come more or less often since then."""
    found = await engine.patterns(
        topic, q=q, since=since, until=until, new_since=new_since, gone_since=gone_since, changed_since=changed_since,
        fields=fields, limit=limit, cursor=cursor,
    )  # fmt: skip
    return Reply(found)


@router.get("/topics/{topic}/drift", response_model=Drift)
async def drift(
    engine: Engine,
    topic: TopicName,
    since: Annotated[str, Query(max_length=100, description="An age (2h), ISO 8601, or epoch seconds.")],
    until: Time = None,
    before: Time = None,
    q: Words = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Response:
    """Whether a topic says other things since a time than before it, and which patterns make the difference."""
    return Reply(await engine.drift(topic, since=since, until=until, before=before, q=q, limit=limit))


@router.get("/timeline", response_model=Timeline)
async def timeline(
    engine: Engine,
    q: Words = "",
    topics: Names = None,
    since: Time = None,
    until: Time = None,
    buckets: Annotated[int, Query(ge=1, le=1000)] = 60,
) -> Response:
    """How many records match, by time and level, with what stands out and hints what came first."""
    return Reply(await engine.timeline(q, topics=names(topics), since=since, until=until, buckets=buckets))


@router.post("/embed", response_model=Embedded)
async def embed(engine: Engine, body: EmbedBody) -> Response:
    """Unit vectors of texts."""
    return Reply(await engine.embed(body.texts, model=body.model))
