"""Records by address and in arrival order, straight from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headwater.errors import NotFoundError, UsageError
from headwater.log import former
from headwater.log.schema import SEQ_MASK
from headwater.log.store import Log, Row
from headwater.records import Page, Record, RecordView, parse_address

MOST_RECORDS = 1000
_MOST_CONTEXT = 100


def page(
    log: Log, topic: str, *, partition: int | None, offset: int | None, limit: int, since_ms: int | None, until_ms: int | None,
    cursor: str | None, versions: bool = False,
) -> Page:  # fmt: skip
    """At most `limit` records of a topic in arrival order, from a cursor, an offset, or the first retained one; with `versions`
    also former ones, which have an attribute `replaced`: the seq from which on they are."""
    if not 1 <= limit <= MOST_RECORDS:
        raise UsageError(f"limit must be between 1 and {MOST_RECORDS}")
    if offset is not None and not 0 <= offset <= SEQ_MASK:
        raise UsageError(f"offset must be between 0 and {SEQ_MASK}")
    row = log.topic(topic)
    start = row.first_seq
    if cursor is not None:
        if not cursor.isdecimal() or len(cursor) > 12:
            raise UsageError("this cursor was not made by a list of records; leave it out to start over")
        start = int(cursor)
    elif offset is not None:
        start = log.seq_at(row, partition or 0, offset)
    out: list[Record] = []
    while found := log.rows(row.id, start, MOST_RECORDS):
        old = _former(log, found)
        for record in found:
            start = record.seq + 1
            if record.id in old and not versions:
                continue
            if partition is not None and record.partition != partition:
                continue
            if (since_ms is not None and record.time_ms < since_ms) or (until_ms is not None and record.time_ms >= until_ms):
                continue
            out.append(_told(record.record(topic), old.get(record.id)))
            if len(out) == limit:
                return Page(tuple(out), str(start) if log.rows(row.id, start, 1) else None)
    return Page(tuple(out))


def view(log: Log, address: str, context: int) -> RecordView:
    """The record at an address with up to `context` neighbours either side; NotFoundError."""
    topic, partition, offset = parse_address(address)
    row = log.topic(topic)
    record = log.find(row, partition, offset)
    around = min(max(context, 0), _MOST_CONTEXT)
    before = log.rows_before(row.id, record.seq, around) if around else []
    after = log.rows(row.id, record.seq + 1, around) if around else []
    old = _former(log, [*before, record, *after])
    sides = [tuple(r.record(topic) for r in side if r.id not in old) for side in (before, after)]
    return RecordView(_told(record.record(topic), old.get(record.id)), *sides)


def present(log: Log, rows: Sequence[Row]) -> list[Row]:
    """Those records that are no former versions."""
    old = _former(log, rows)
    return [row for row in rows if row.id not in old] if old else list(rows)


def _former(log: Log, rows: Sequence[Row]) -> dict[int, int]:
    with log.reading() as db:
        return former.among(db, {row.id for row in rows})


def _told(record: Record, until: int | None) -> Record:
    return record if until is None else replace(record, attributes={**record.attributes, "replaced": until})


def seq_after(log: Log, topic: str, address: str) -> int:
    """The seq behind the record at an address of this topic; UsageError for another topic's."""
    name, partition, offset = parse_address(address)
    if name != topic:
        raise UsageError(f"{address} is not in topic {topic!r}")
    row = log.topic(topic)
    try:
        return log.find(row, partition, offset).seq + 1
    except NotFoundError:  # no longer retained, or not there yet
        return min(log.seq_at(row, partition, offset), row.next_seq)
