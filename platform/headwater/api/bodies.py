"""What requests carry: bodies and parameters, checked before a verb is called. Unknown fields are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.types import Scope

from headwater import wire
from headwater.api.guard import CALLER, TOKENS
from headwater.api.metrics import Metrics
from headwater.config import INDEX_SETTINGS, IndexKind, Metric, TopicConfig
from headwater.errors import UsageError
from headwater.intake.doors import Doors
from headwater.records import TOPIC_NAME, Mode
from headwater.records.indexes import SwapStep
from headwater.scoped import scoped
from headwater.tokens import Token
from headwater.verbs import Verbs

MOST_OFFSET = (1 << 40) - 1
_ID = (1 << 63) - 1

TopicName = Annotated[str, Path(pattern=f"^{TOPIC_NAME.pattern}$", max_length=100)]
Partition = Annotated[int, Path(ge=0, le=1023)]
Offset = Annotated[int, Path(ge=0, le=MOST_OFFSET)]
LetterId = Annotated[int, Path(ge=0, le=_ID)]
Time = Annotated[str | None, Query(max_length=100, description="An age (2h), ISO 8601, or epoch seconds.")]
Words = Annotated[str, Query(max_length=4000, description="A query in the query language.")]
Names = Annotated[list[str] | None, Query(description="Topic names, repeated or with commas.")]
When = Annotated[str, Field(max_length=100)] | float | None


class Reply(Response):
    """A value type as JSON."""

    media_type = wire.JSON

    def render(self, content: Any) -> bytes:
        return wire.encode(content)


class State:
    """What the routes of one app share."""

    def __init__(
        self, verbs: Verbs, metrics: Metrics, closing: asyncio.Event, version: str, doors: Doors | None = None,
        door: str | None = None,
    ) -> None:  # fmt: skip
        self.verbs, self.metrics, self.closing, self.version = verbs, metrics, closing, version
        self.doors, self.door = doors, door

    def within(self, scope: Scope) -> State:
        """As whoever sent that request may use it: all of it, or within the scope of a token, and then without doors."""
        caller: Token | None = scope.get(CALLER)
        if caller is None:
            return self
        return State(scoped(self.verbs, caller, scope.get(TOKENS)), self.metrics, self.closing, self.version)


async def _state(request: Request) -> State:
    state: State = request.app.state.headwater
    return state.within(request.scope)


async def _verbs(request: Request) -> Verbs:
    return (await _state(request)).verbs


Shared = Annotated[State, Depends(_state)]
Engine = Annotated[Verbs, Depends(_verbs)]


def names(topics: Sequence[str] | None) -> list[str] | None:
    """Topic names of a query string, given once each or with commas; None for all."""
    return [n.strip() for part in topics for n in part.split(",") if n.strip()] or None if topics else None


class Body(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=False)


class _HitsBody(Body):
    """What every search for hits takes."""

    topics: list[str] | None = Field(None, max_length=1000)
    top_k: int = Field(10, ge=1, le=1000)
    since: When = None
    until: When = None
    filters: dict[str, Any] | None = None
    min_score: float | None = None
    explain: bool = False
    include: list[str] = Field(default_factory=list, max_length=10)
    cursor: str | None = Field(None, max_length=100)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class SearchBody(_HitsBody):
    q: str = Field(max_length=4000)
    mode: Mode | None = None
    as_of: When | dict[str, int] = None
    rerank: bool = False
    max_tokens: int | None = Field(None, ge=200, le=200_000, description="Of the reply: what does not fit is on the next page.")


class BatchBody(Body):
    queries: list[Any] = Field(max_length=100, description="Bodies of /v1/search.")


class VectorBody(_HitsBody):
    vector: list[float] = Field(max_length=100_000)
    model: str | None = Field(None, max_length=500)


class PurgeBody(Body):
    markers: list[str] = Field(default_factory=list, max_length=100)


class SimilarBody(Body):
    partition: int = Field(0, ge=0, le=1023)
    offset: int = Field(ge=0, le=MOST_OFFSET)
    top_k: int = Field(10, ge=1, le=1000)
    topics: list[str] | None = Field(None, max_length=1000)


class EmbedBody(Body):
    texts: list[str] = Field(max_length=1000)
    model: str | None = Field(None, max_length=500)


class AskBody(Body):
    question: str = Field(max_length=4000)
    topics: list[str] | None = Field(None, max_length=1000)
    since: When = None
    until: When = None
    top_k: int = Field(12, ge=1, le=100)
    conversation: str | None = Field(None, max_length=100)
    as_of: When | dict[str, int] = None
    model: str | None = Field(None, max_length=500)
    rerank: bool | None = None
    recency: When = None
    stream: bool = False

    def scope(self) -> dict[str, Any]:
        """What Verbs.ask takes besides the question."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("question", "stream")}


def _describe(schema: dict[str, Any]) -> None:
    """Give settings of a topic their documentation, where a schema has them."""
    for field in fields(TopicConfig):
        if field.name in schema["properties"]:
            schema["properties"][field.name]["description"] = field.metadata["doc"]


class IndexBody(Body):
    model_config = ConfigDict(json_schema_extra=_describe)
    model: str | None = Field(None, max_length=500)
    index_kind: IndexKind | None = None
    metric: Metric | None = None
    hnsw_m: int | None = Field(None, ge=2, le=512)
    hnsw_ef_construction: int | None = Field(None, ge=1, le=10_000)
    hnsw_ef_search: int | None = Field(None, ge=1, le=10_000)
    ivf_cells: int | None = Field(None, ge=0, le=1_000_000)
    ivf_n_probe: int | None = Field(None, ge=1, le=1_000_000)

    def settings(self) -> dict[str, Any]:
        """The settings of the index that were given."""
        return {name: value for name in INDEX_SETTINGS if (value := getattr(self, name)) is not None}


class RebuildBody(IndexBody):
    shadow: bool = False
    threshold: float | None = Field(None, ge=0, le=1)


class SwapBody(Body):
    step: SwapStep


def topic_schema(*, new: bool) -> dict[str, Any]:
    """What a topic's settings may be, as a JSON schema made of TopicConfig; of a `new` topic also its name."""
    schema = {"type": "object", "additionalProperties": False}
    made: dict[str, Any] = TypeAdapter(TopicConfig).json_schema()
    _describe(made)
    if new:
        name = {"type": "string", "pattern": f"^{TOPIC_NAME.pattern}$", "maxLength": 100}
        return schema | {"title": "NewTopic", "properties": {"name": name} | made["properties"], "required": ["name"]}
    for setting in made["properties"].values():
        del setting["default"]  # what is not given stays as it is
    return schema | {"title": "TopicSettings", "properties": made["properties"]}


async def object_of(request: Request) -> Mapping[str, Any]:
    """The JSON object a request carries; UsageError for anything else."""
    found = wire.parse_json(await request.body())
    if not isinstance(found, dict):
        raise UsageError("the body must be a JSON object")
    return found
