"""Batches of sources outside the daemon, such as the files of `headwater ingest`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from headwater import wire
from headwater.api import problems
from headwater.api.bodies import Body, Reply, Shared, TopicName, object_of
from headwater.batches import Delivered, Fault
from headwater.errors import UsageError
from headwater.records import Draft

router = APIRouter(prefix="/v1/topics/{topic}", responses=problems.RESPONSES, tags=["records"])
_LONGEST = 4096  # characters of a name
_TEXT, _WHOLE = {"type": "string"}, {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
_OPTIONAL_OBJECT = {"type": ["object", "null"]}
_RECORD = {
    "type": "object",
    "required": ["value", "position"],
    "properties": {
        "value": _TEXT, "position": _WHOLE, "key": _TEXT, "time_ms": {"type": "integer"}, "attributes": {"type": "object"},
        "partition": _WHOLE, "vector": {"type": "array", "items": {"type": "number"}},
        "raw": {"type": "string", "description": "base64 of the bytes of which `value` is not the exact text"},
    },
}  # fmt: skip
_FAULT = {
    "type": "object",
    "required": ["position", "reason"],
    "properties": {"position": _WHOLE, "reason": _TEXT, "payload": _TEXT},
}
_SCHEMA = {
    "type": "object",
    "required": ["source"],
    "properties": {
        "source": {**_TEXT, "minLength": 1, "maxLength": _LONGEST}, "stream": {**_TEXT, "maxLength": _LONGEST},
        "state": _OPTIONAL_OBJECT, "records": {"type": "array", "items": _RECORD}, "faults": {"type": "array", "items": _FAULT},
    },
}  # fmt: skip
_EXTRA = {"requestBody": {"required": True, "content": {wire.JSON: {"schema": _SCHEMA}}}}


class FaultBody(Body):
    position: int = Field(ge=0, lt=1 << 63)
    reason: str
    payload: str = ""


class DeliveryBody(Body):
    source: str = Field(min_length=1, max_length=_LONGEST)
    stream: str = Field("", max_length=_LONGEST)
    state: dict[str, Any] | None = None
    records: list[Any] = Field(default_factory=list)
    faults: Annotated[list[FaultBody], Field(max_length=100_000)] = Field(default_factory=list)


@router.post("/deliveries", response_model=Delivered, openapi_extra=_EXTRA)
async def deliver(request: Request, shared: Shared, topic: TopicName) -> Response:
    """Store a batch of a source with the state that resumes behind it; with nothing to deliver, give the state kept last.
    A record of a (stream, position) seen before is not stored again; what cannot be stored becomes a dead letter."""
    found = await object_of(request)
    try:
        body = DeliveryBody.model_validate(found)
    except ValidationError as error:
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]) from error
    faults = [Fault(f.position, f.reason, f.payload) for f in body.faults]
    with shared.metrics.timed("append"):
        drafts = _drafts(body.records)
        done = await shared.verbs.deliver(topic, body.source, drafts, stream=body.stream, state=body.state, faults=faults)
    return Reply(done)


def _drafts(records: list[Any]) -> list[Draft]:
    drafts = []
    for record in records:
        try:
            drafts.append(wire.draft_of(record))
        except UsageError as error:
            raise UsageError(f"record {len(drafts)}: {error}") from error
    return drafts
