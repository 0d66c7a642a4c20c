"""What the log keeps of watches: each with what it looks for and how far it alone is, and the hits it has fired.

How far all watches together are is a group's cursor of each topic (`WORDS`, `MEANING`). Hits, cursors and the windows of
watches that count are written in one transaction (`store`), so that a crash leaves all of a step or nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log, in_list
from headwater.records import Mode
from headwater.records.watches import Why

if TYPE_CHECKING:
    import apsw

WORDS, MEANING = "watch.words", "watch.meaning"  # seqs below which every record was judged by words / by meaning
KEPT = 1000  # hits of one watch; older ones go
_COLUMNS = "id, name, spec, starts, own, times, armed, fired, last_ms, created_ms, expires_ms, owner"


@dataclass(frozen=True, slots=True)
class Like:
    """The record a watch looks for the like of: its address, its id, its passages, and their text as it is embedded (None
    once that was purged)."""

    address: str
    topic: int
    record: int
    passages: tuple[int, ...]
    text: str | None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a watch looks for, as it was asked for."""

    q: str
    topics: tuple[str, ...] | None
    mode: Mode
    min_score: float
    like: Like | None = None
    more_than: int | None = None
    within_ms: int | None = None

    @classmethod
    def of(cls, text: str) -> Spec:
        plain = orjson.loads(text)
        topics, like = plain["topics"], plain["like"]
        plain["topics"] = None if topics is None else tuple(topics)
        plain["like"] = None if like is None else Like(**{**like, "passages": tuple(like["passages"])})
        return cls(**plain)


@dataclass(slots=True)
class State:
    """How far one watch is. `starts` has the first seq it judges of each topic there was when it was made (0 of others), `own`
    its own (words, meaning) places in topics where it is behind the other watches, `window` the times of the last records of
    a watch that counts, in the order they came; `crossed`: from when to when there are too many. `fired` is also the number
    of its newest hit."""

    starts: dict[int, int] = field(default_factory=dict)
    own: dict[int, list[int | None]] = field(default_factory=dict)
    window: list[int] = field(default_factory=list)
    crossed: list[list[int]] = field(default_factory=list)
    fired: int = 0
    last_ms: int | None = None


class WatchRow(NamedTuple):
    """A watch as stored."""

    id: int
    name: str
    spec: Spec
    state: State
    created_ms: int
    expires_ms: int | None
    owner: str | None


class HitRow(NamedTuple):
    """A hit as stored; `record` is the record's id."""

    watch: int
    n: int
    record: int
    address: str
    why: Why
    score: float
    counted: int | None
    fired_ms: int


def read(log: Log) -> list[WatchRow]:
    """Every watch, oldest first."""
    with log.reading() as db:
        return [_row(*r) for r in db.execute(f"SELECT {_COLUMNS} FROM watch ORDER BY id")]


def _row(
    id: int, name: str, spec: str, starts: str, own: str, window: str, armed: int, fired: int, last_ms: int | None,
    created_ms: int, expires_ms: int | None, owner: str | None,
) -> WatchRow:  # fmt: skip
    held = orjson.loads(window)
    if isinstance(held, list):  # as it was kept before times came in any order: the newest is the last
        held = {"times": held, "crossed": [[held[0], held[-1]]] if held and not armed else []}
    state = State(_places(starts), _places(own), held["times"], held["crossed"], fired, last_ms)
    return WatchRow(id, name, Spec.of(spec), state, created_ms, expires_ms, owner)


def _window(state: State) -> str:
    return orjson.dumps({"times": state.window, "crossed": state.crossed}).decode()


def create(
    db: apsw.Connection, name: str | None, spec: Spec, created_ms: int, expires_ms: int | None, owner: str | None
) -> tuple[int, str, dict[int, int]]:
    """Keep a new watch: its id, its name (made of the id where none is given), and the next seq of each topic, from which on
    it judges: read in the same transaction, so that no record comes in between."""
    starts = dict(db.execute("SELECT id, next_seq FROM topic"))
    values = (name or "", orjson.dumps(spec).decode(), _json(starts), created_ms, expires_ms, owner)
    columns = "name, spec, starts, own, times, armed, fired, created_ms, expires_ms, owner"
    db.execute(f"INSERT INTO watch({columns}) VALUES(?,?,?,'{{}}','[]',1,0,?,?,?)", values)
    id = db.last_insert_rowid()
    if name is None:
        name = f"w{id}"
        db.execute("UPDATE watch SET name = ? WHERE id = ?", (name, id))
    return id, name, starts


def move_back(db: apsw.Connection, id: int, state: State) -> None:
    """Let a new watch judge from earlier places on."""
    db.execute("UPDATE watch SET starts = ?, own = ? WHERE id = ?", (_json(state.starts), _json(state.own), id))


def drop(db: apsw.Connection, ids: Sequence[int]) -> None:
    """Forget watches with their hits."""
    chosen = (in_list(ids),)
    db.execute("DELETE FROM watch WHERE id IN (SELECT value FROM json_each(?))", chosen)
    db.execute("DELETE FROM watch_hit WHERE watch IN (SELECT value FROM json_each(?))", chosen)


def store(
    db: apsw.Connection,
    marks: Iterable[tuple[int, str, int]],
    states: Mapping[int, State],
    hits: Iterable[HitRow],
) -> None:
    """One step of all watches: cursors `(topic, group, seq)`, the states that changed, the hits fired. Watches and topics that
    are gone meanwhile stay so."""
    moved = "INSERT OR REPLACE INTO cursor SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM topic WHERE id = ?1)"
    db.executemany(moved, marks)
    fired = "INSERT INTO watch_hit SELECT ?1,?2,?3,?4,?5,?6,?7,?8 WHERE EXISTS (SELECT 1 FROM watch WHERE id = ?1)"
    db.executemany(fired, hits)
    db.executemany(
        "UPDATE watch SET own = ?2, times = ?3, armed = ?4, fired = ?5, last_ms = ?6 WHERE id = ?1",
        [(id, _json(s.own), _window(s), not s.crossed, s.fired, s.last_ms) for id, s in states.items()],
    )
    db.executemany(
        "DELETE FROM watch_hit WHERE watch = ? AND n <= ?", [(id, s.fired - KEPT) for id, s in states.items() if s.fired > KEPT]
    )


def hits(log: Log, watch: int, after: int, limit: int) -> list[HitRow]:
    """The oldest hits of a watch that are kept, with n > `after`."""
    with log.reading() as db:
        chosen = "SELECT * FROM watch_hit WHERE watch = ? AND n > ? ORDER BY n LIMIT ?"
        return [HitRow._make(r) for r in db.execute(chosen, (watch, after, limit))]


def seq_since(log: Log, topic: int, first: int, end: int, since_ms: int) -> int:
    """The first seq in `[first, end)` whose record was stored at `since_ms` or later (records lie in that order); `end` where
    none was."""
    before = "SELECT appended_ms FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT 1"
    with log.reading() as db:
        while first < end:
            middle = (first + end) // 2
            found = db.execute(before, (record_id(topic, middle), record_id(topic, end))).get
            if found is None or found >= since_ms:
                end = middle
            else:
                first = middle + 1
    return first


def passages_in(log: Log, topic: int, start: int, end: int) -> list[int]:
    """The distinct passages (as stored) of the records with seq in `[start, end)`."""
    chosen = "SELECT json_group_array(DISTINCT passage) FROM occurrence WHERE record >= ? AND record < ?"
    with log.reading() as db:
        return [p for p in orjson.loads(db.execute(chosen, (record_id(topic, start), record_id(topic, end))).get) if p]


def records_with(log: Log, topic: int, start: int, end: int, passages: Iterable[int]) -> dict[int, list[int]]:
    """record id -> those of some passages (as stored) that it has, for records with seq in `[start, end)`, in order."""
    chosen = "record >= ? AND record < ? AND passage IN (SELECT value FROM json_each(?)) ORDER BY record, n"
    found: dict[int, list[int]] = {}
    with log.reading() as db:
        values = (record_id(topic, start), record_id(topic, end), in_list(list(passages)))
        for record, passage in db.execute(f"SELECT record, passage FROM occurrence WHERE {chosen}", values):
            found.setdefault(record, []).append(passage)
    return found


def purge(db: apsw.Connection, topic: int) -> int:
    """Forget the texts that watches keep of records of a topic that are gone: how many there were."""
    gone = "spec ->> '$.like.topic' = ? AND spec ->> '$.like.text' IS NOT NULL AND NOT EXISTS"
    gone += " (SELECT 1 FROM record r WHERE r.id = watch.spec ->> '$.like.record')"
    db.execute(f"UPDATE watch SET spec = json_set(spec, '$.like.text', NULL) WHERE {gone}", (topic,))
    return int(db.changes())


def record_id(topic: int, seq: int) -> int:
    """A record's id."""
    return topic << SEQ_BITS | seq


def _places(text: str) -> dict[int, Any]:
    return {int(topic): place for topic, place in orjson.loads(text).items()}


def _json(places: Mapping[int, object]) -> str:
    return orjson.dumps(dict(places), option=orjson.OPT_NON_STR_KEYS).decode()
