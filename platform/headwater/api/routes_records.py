"""Records: pushed, listed, read, followed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from headwater import wire
from headwater.api import problems, sse
from headwater.api.bodies import MOST_OFFSET, Engine, Offset, Partition, Reply, Shared, Time, TopicName, Words
from headwater.errors import ConflictError, UsageError
from headwater.intake.drafts import drafted
from headwater.query import parse
from headwater.records import Page, Record, RecordView
from headwater.records.removals import Deleted
from headwater.sources.lines import decode
from headwater.verbs import Entry, Verbs

router = APIRouter(prefix="/v1/topics/{topic}", responses=problems.RESPONSES, tags=["records"])

_LINES = {"type": "string", "description": "One record a line."}
_RECORD = {
    "type": "object",
    "required": ["value"],
    "properties": {
        "value": {"description": "Text; any other JSON is kept as its text."},
        "key": {"type": ["string", "null"]},
        "timestamp": {"description": "ISO 8601 or epoch seconds; by default the time found in the text."},
        "attributes": {"type": ["object", "null"]},
        "partition": {"type": ["integer", "null"]},
        "vector": {"type": ["array", "null"], "items": {"type": "number"}, "description": "For topics of model `external`."},
    },
}
_PUSH = {
    "requestBody": {
        "required": True,
        "content": {
            wire.JSON: {
                "schema": {
                    "type": "object",
                    "required": ["records"],
                    "properties": {"records": {"type": "array", "items": _RECORD}},
                }
            },
            wire.NDJSON: {"schema": _LINES},
        },
    }
}


@router.post("/records", status_code=201, openapi_extra=_PUSH)
async def append(
    request: Request,
    shared: Shared,
    topic: TopicName,
    wait: Literal["stored", "searchable"] = "stored",
    timeout_s: Annotated[float, Query(ge=0, le=300)] = 10.0,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Response:
    """Store records durably, all or none. 201 stored, 200 when all had been stored before, 202 when `wait=searchable`
    ran out of time (they are stored)."""
    kind = request.headers.get("content-type", wire.JSON).partition(";")[0].strip().lower()
    entries = await _lines(request) if kind in _NDJSON_TYPES else await _listed(request, kind)
    with shared.metrics.timed("append"):
        try:
            done = await shared.verbs.append(topic, entries, idempotency_key=idempotency_key, wait=wait, timeout_s=timeout_s)
        except ConflictError as error:
            return problems.of(error, 422)
    again = bool(done.records) and all(r.duplicate for r in done.records)
    return Reply(done, 202 if done.timed_out else 200 if again else 201)


_NDJSON_TYPES = frozenset({wire.NDJSON, "application/jsonl", "application/x-jsonlines", "application/ndjson"})


async def _listed(request: Request, kind: str) -> list[Entry]:
    """The records of a JSON body."""
    if kind != wire.JSON:
        raise UsageError(f"send {wire.JSON} or {wire.NDJSON}; lines of plain text need a record around each")
    body = wire.parse_json(await request.body())
    if not isinstance(body, dict) or not isinstance(body.get("records"), list):
        raise UsageError('the body must be an object with "records", a list')
    if unknown := sorted(body.keys() - {"records"}):
        raise UsageError(f"unknown field {unknown[0]!r} beside records")
    entries: list[Entry] = body["records"]
    return entries


async def _lines(request: Request) -> list[Entry]:
    """The records of an NDJSON body, each line read as it arrives. A bad line refuses all, and is named; bytes in it that are
    no UTF-8 are replaced, and the line is kept beside the record."""
    entries: list[Entry] = []
    rest, number = b"", 0
    async for chunk in request.stream():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            _take(line, number, entries)
    _take(rest, number + 1, entries)
    return entries


def _take(line: bytes, number: int, entries: list[Entry]) -> None:
    if not line or line.isspace():
        return
    text, raw = decode(line, "utf-8")
    try:
        entry: Any = wire.parse_json(line if raw is None else text.encode())
    except UsageError as error:
        raise UsageError(f"line {number}: {error}") from error
    if not isinstance(entry, dict):
        raise UsageError(f"line {number}: each line must be an object with 'value'")
    entries.append(entry if raw is None else drafted(entry, time.time_ns() // 1_000_000)._replace(raw=raw))


@router.get("/records", response_model=Page)
async def list_records(
    engine: Engine,
    topic: TopicName,
    partition: Annotated[int | None, Query(ge=0, le=1023)] = None,
    offset: Annotated[int | None, Query(ge=0, le=MOST_OFFSET)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    since: Time = None,
    until: Time = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    versions: Annotated[bool, Query(description="Former versions of documents too.")] = False,
) -> Response:
    """Records in arrival order."""
    page = await engine.records(
        topic, partition=partition, offset=offset, limit=limit, since=since, until=until, cursor=cursor, versions=versions
    )
    return Reply(page)


@router.get("/records/{partition}/{offset}", response_model=RecordView)
async def read_record(
    engine: Engine,
    topic: TopicName,
    partition: Partition,
    offset: Offset,
    context: Annotated[int, Query(ge=0, le=100)] = 0,
    alike: Annotated[int, Query(ge=0, le=100)] = 0,
) -> Response:
    """One record, with `context` records either side and `alike` others in which a passage of it occurs."""
    return Reply(await engine.read(f"{topic}/{partition}/{offset}", context=context, alike=alike))


@router.delete("/records/{partition}/{offset}", response_model=Deleted)
async def delete_record(
    engine: Engine, topic: TopicName, partition: Partition, offset: Offset, dry_run: bool = False
) -> Response:
    """Delete one record, for every reader at once."""
    return Reply(await engine.delete_records(topic, partition=partition, offset=offset, dry_run=dry_run))


@router.delete("/records", response_model=Deleted)
async def delete_records(
    engine: Engine,
    topic: TopicName,
    key: Annotated[str | None, Query(description="Delete the records of this key.")] = None,
    q: Annotated[str | None, Query(max_length=4000, description="Delete what matches; all words must occur.")] = None,
    dry_run: bool = False,
    limit: Annotated[int | None, Query(ge=1, description="End after so many; `more` says whether there may be others.")] = None,
) -> Response:
    """Delete the records of a key, or those that match a query; with `dry_run` they are counted."""
    return Reply(await engine.delete_records(topic, key=key, q=q, dry_run=dry_run, limit=limit))


@router.get("/tail", responses={200: {"content": {"text/event-stream": {}}}})
async def tail(
    shared: Shared,
    topic: TopicName,
    q: Words = "",
    after: Annotated[str | None, Query(max_length=40, description="Resume behind partition:offset.")] = None,
    from_start: bool = False,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """Records as they are stored, as server-sent events with id `partition:offset`. `Last-Event-ID` resumes behind one."""
    parse(q, now_ms=time.time_ns() // 1_000_000)  # a bad query is told before the stream begins
    place = last_event_id or after
    address = wire.address_at(topic, place) if place else None
    start = None
    if address is None and not from_start:
        address, from_start = await _present(shared.verbs, topic)
        start = address and wire.place_of(address)
    else:
        await shared.verbs.topic(topic)
    records = shared.verbs.tail(topic, q, after=address, from_start=from_start)
    return sse.stream(_events(records, start), shared.closing)


async def _present(verbs: Verbs, topic: str) -> tuple[str | None, bool]:
    """(address of the newest record, whether to begin at the start): "from now on" as a place that can be resumed from.

    With several partitions the newest record cannot be told from counts; `(None, False)` then leaves it to the engine."""
    found = await verbs.topic(topic)
    if found.watermark.stored == 0:
        return None, True
    return (f"{topic}/0/{found.watermark.stored - 1}", False) if found.partitions == 1 else (None, False)


async def _events(records: AsyncIterator[Record], start: str | None) -> AsyncIterator[bytes]:
    if start is not None:
        yield f"id: {start}\n\n".encode()  # sets where a reader resumes, and is not an event
    async for record in records:
        yield sse.event(wire.encode(record), id=f"{record.partition}:{record.offset}")
