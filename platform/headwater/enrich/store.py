"""What the log keeps of enrichment: pipelines, how far each is, and the decisions that steps have made.

A block of a pipeline is one transaction: the records it writes, the decisions behind them, its dead letters and its cursor.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from headwater.log.store import Log, add_dead_letter, in_list, set_cursor

if TYPE_CHECKING:
    import apsw

    from headwater.records import Draft
    from headwater.records.models import Usage

_COLUMNS = (
    "id, name, spec, version, state, created_ms, changed_ms, starts, records, written, passages, failed, input_tokens,"
    " output_tokens, cost"
)


class PipelineRow(NamedTuple):
    """A pipeline as stored. `starts` has the first seq it reads of each topic there was when it was made (0 of others)."""

    id: int
    name: str
    spec: str
    version: int
    state: str
    created_ms: int
    changed_ms: int
    starts: Mapping[int, int]
    records: int
    written: int
    passages: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    @property
    def group(self) -> str:
        return group_of(self.id)


class DecisionRow(NamedTuple):
    """A decision: what was decided (a passage, or below 0 what stands for a text), by which version of a step, and how."""

    item: int
    version: str
    topic: str
    outcome: bytes


class LetterRow(NamedTuple):
    """A record that a step failed on."""

    topic: int
    seq: int
    reason: str
    payload: str
    source: str  # `PIPELINE until SEQ`: further records of its passage, below that seq, failed with it


class Done(NamedTuple):
    """What one block of a pipeline came to."""

    pipeline: int
    topic: int
    upto: int | None  # None: its place stays
    drafts: Mapping[int, Sequence[Draft]]  # by topic they are written to
    decisions: Sequence[DecisionRow]
    letters: Sequence[LetterRow]
    records: int
    passages: int


def group_of(pipeline: int) -> str:
    """The name of a pipeline's cursors."""
    return f"pipeline.{pipeline}"


def pipelines(log: Log) -> list[PipelineRow]:
    """All, by name."""
    with log.reading() as db:
        return [_row(*r) for r in db.execute(f"SELECT {_COLUMNS} FROM pipeline ORDER BY name")]


def _row(
    id: int, name: str, spec: str, version: int, state: str, created: int, changed: int, starts: str, *rest: Any
) -> PipelineRow:
    places = {int(topic): seq for topic, seq in orjson.loads(starts).items()}
    return PipelineRow(id, name, spec, version, state, created, changed, places, *rest)


def create(db: apsw.Connection, name: str, spec: str, state: str, now_ms: int, starts: Mapping[int, int]) -> None:
    """Keep a new pipeline."""
    columns = "name, spec, version, state, created_ms, changed_ms, starts"
    db.execute(f"INSERT INTO pipeline({columns}) VALUES(?,?,1,?,?,?,?)", (name, spec, state, now_ms, now_ms, _json(starts)))


def change(db: apsw.Connection, id: int, spec: str, now_ms: int, *, again: bool, starts: Mapping[int, int]) -> None:
    """Give a pipeline another specification; with `again` it reads from `starts` on once more."""
    db.execute("UPDATE pipeline SET spec = ?, version = version + 1, changed_ms = ? WHERE id = ?", (spec, now_ms, id))
    if again:
        db.execute("UPDATE pipeline SET starts = ? WHERE id = ?", (_json(starts), id))
        db.execute("DELETE FROM cursor WHERE name = ?", (group_of(id),))


def set_state(db: apsw.Connection, id: int, state: str) -> None:
    db.execute("UPDATE pipeline SET state = ? WHERE id = ?", (state, id))


def drop(db: apsw.Connection, id: int) -> None:
    """Forget a pipeline and where it was; what it wrote stays, and so do decisions, which others may share."""
    db.execute("DELETE FROM pipeline WHERE id = ?", (id,))
    db.execute("DELETE FROM cursor WHERE name = ?", (group_of(id),))


def decisions(log: Log, wanted: Mapping[tuple[int, str], Sequence[int]]) -> dict[tuple[int, str], bytes]:
    """Those of some (item, version) that were made, of the item itself or else of one of its others."""
    by_version: dict[str, dict[int, tuple[int, str]]] = {}
    for key, others in wanted.items():
        places = by_version.setdefault(key[1], {})
        for other in others:
            places.setdefault(other, key)
    for key in wanted:
        by_version[key[1]][key[0]] = key
    found: dict[tuple[int, str], bytes] = {}
    query = "SELECT d.item, d.outcome FROM json_each(?2) j JOIN decision d ON d.item = j.value AND d.version = ?1"
    with log.reading() as db:
        for version, places in by_version.items():
            for item, outcome in db.execute(query, (version, in_list(list(places)))):
                key = places[item]
                if item == key[0] or key not in found:
                    found[key] = outcome
    return found


def keep_decisions(db: apsw.Connection, rows: Iterable[DecisionRow]) -> None:
    """Keep decisions; of a passage only while there is one of that id."""
    there = (
        "SELECT ?1,?2,(SELECT id FROM topic WHERE name = ?3),?4,?5 WHERE ?1 < 0 OR EXISTS (SELECT 1 FROM passage WHERE id = ?1)"
    )
    now = time.time_ns() // 1_000_000
    db.executemany(f"INSERT OR REPLACE INTO decision {there}", [(*row, now) for row in rows])


def store(db: apsw.Connection, log: Log, done: Done, now_ms: int) -> int:
    """Everything of one block: how many records were written. A pipeline or topic that is gone meanwhile stays so."""
    if db.execute("SELECT 1 FROM pipeline WHERE id = ?", (done.pipeline,)).get is None:
        return 0
    written = 0
    for topic, drafts in done.drafts.items():
        written += len(log.append_within(db, topic, drafts))
    keep_decisions(db, done.decisions)
    for topic, seq, reason, text, source in done.letters:
        add_dead_letter(db, topic, "pipeline", reason, text, now_ms, seq=seq, source=source)
    if done.upto is not None and db.execute("SELECT 1 FROM topic WHERE id = ?", (done.topic,)).get is not None:
        set_cursor(db, done.topic, group_of(done.pipeline), done.upto)
    db.execute(
        "UPDATE pipeline SET records = records + ?, written = written + ?, passages = passages + ?, failed = failed + ?"
        " WHERE id = ?",
        (done.records, written, done.passages, len(done.letters), done.pipeline),
    )
    return written


def book(db: apsw.Connection, pipeline: int, usage: Usage) -> None:
    """Add to what the models of a pipeline have taken; its cost is unknown from the first on whose cost is."""
    grown = "input_tokens = input_tokens + ?, output_tokens = output_tokens + ?, cost = cost + ?"
    db.execute(f"UPDATE pipeline SET {grown} WHERE id = ?", (usage.input_tokens, usage.output_tokens, usage.cost, pipeline))


def letter(log: Log, id: int) -> LetterRow | None:
    """A dead letter that a pipeline has left; None where there is none of that id."""
    query = "SELECT topic, seq, reason, payload, source FROM dead_letter WHERE id = ? AND stage = 'pipeline'"
    with log.reading() as db:
        found = db.execute(query, (id,)).get
    return None if found is None else LetterRow._make(found)


def drop_letter(db: apsw.Connection, id: int) -> None:
    db.execute("DELETE FROM dead_letter WHERE id = ?", (id,))


def _json(starts: Mapping[int, int]) -> str:
    return orjson.dumps(dict(starts), option=orjson.OPT_NON_STR_KEYS).decode()
