"""What the log keeps of detectors: their settings, what they have learned, and what they found.

The state, the cursor it belongs to and the anomalies found on the way are written in one transaction: a crash leaves all of a
step or nothing of it, and the same records judged again from the same state find the same. An anomaly keeps addresses and
numbers, no text of a record: its words are made when it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from headwater.log.store import Log, set_cursor
from headwater.records.anomalies import KINDS, DetectorKind, Sensitivity, Severity, Verdict

if TYPE_CHECKING:
    import apsw

GROUP = "detect"
_COLUMNS = "topic, n, kind, severity, start_ms, end_ms, found_ms, alerted, quiet, feedback, note, body, told"


@dataclass(frozen=True, slots=True)
class Spec:
    """The settings of one topic's detectors. Records below seq `begin` were there before: what they show alerts nobody. Those
    below `judged` were judged by an earlier version, which told what they show."""

    enabled: bool
    per_day: float
    sensitivity: Sensitivity
    kinds: tuple[DetectorKind, ...] = KINDS
    fields: tuple[str, ...] | None = None
    session: str | None = None
    alert_topic: str | None = None
    begin: int = 0
    judged: int = 0

    @classmethod
    def of(cls, text: str) -> Spec:
        plain = orjson.loads(text)
        fields = plain["fields"]
        return cls(**{**plain, "kinds": tuple(plain["kinds"]), "fields": None if fields is None else tuple(fields)})


class AnomalyRow(NamedTuple):
    """An anomaly as stored: its number in its topic, and in `body` its signals, normal examples and measures."""

    topic: int
    n: int
    kind: DetectorKind
    severity: Severity
    start_ms: int
    end_ms: int
    found_ms: int
    alerted: bool
    quiet: str | None
    feedback: Verdict | None
    note: str | None
    body: Mapping[str, Any]
    told: bool


def specs(log: Log) -> dict[int, Spec]:
    """The settings of every topic that has any."""
    with log.reading() as db:
        return {topic: Spec.of(spec) for topic, spec in db.execute("SELECT topic, spec FROM detector")}


def put(db: apsw.Connection, topic: int, spec: Spec, cursor: int | None) -> None:
    """Keep settings; with a cursor detectors begin anew there."""
    db.execute("INSERT OR REPLACE INTO detector VALUES(?, ?)", (topic, orjson.dumps(spec).decode()))
    if cursor is not None:
        set_cursor(db, topic, GROUP, cursor)
        db.execute("DELETE FROM detector_state WHERE topic = ?", (topic,))


def state(log: Log, topic: int) -> bytes | None:
    """What was learned, as it was at the cursor."""
    with log.reading() as db:
        found = db.execute("SELECT state FROM detector_state WHERE topic = ?", (topic,)).get
    return None if found is None else zlib.decompress(found)


def save(db: apsw.Connection, topic: int, cursor: int, learned: bytes, found: Sequence[AnomalyRow]) -> None:
    """One step: how far it came, what was learned, what was found. A topic that is gone stays so."""
    if db.execute("SELECT 1 FROM detector WHERE topic = ?", (topic,)).get is None:
        return
    set_cursor(db, topic, GROUP, cursor)
    db.execute("INSERT OR REPLACE INTO detector_state VALUES(?, ?)", (topic, zlib.compress(learned, 1)))
    for row in found:
        values = (*row[:7], int(row.alerted), row.quiet, row.feedback, row.note, orjson.dumps(row.body), 0)
        kept = "severity = ?4, end_ms = ?6, body = ?12"  # the rest stays as it was first told
        insert = f"INSERT INTO anomaly({_COLUMNS}) VALUES({','.join(f'?{i}' for i in range(1, 14))})"
        db.execute(f"{insert} ON CONFLICT(topic, n) DO UPDATE SET {kept}", values)


def read(log: Log, topics: Sequence[int], *, since_ms: int, until_ms: int, before: tuple[int, int, int] | None, limit: int,
         kinds: Sequence[str], severities: Sequence[str], quiet: bool, dismissed: bool) -> list[AnomalyRow]:  # fmt: skip
    """Anomalies by their start, newest first, behind the place `before` (start, topic, n)."""
    place = before or (1 << 62, 1 << 62, 1 << 62)
    chosen = "topic IN (SELECT value FROM json_each(?1)) AND start_ms >= ?2 AND start_ms < ?3"
    chosen += " AND (start_ms, topic, n) < (?4, ?5, ?6)"
    chosen += " AND kind IN (SELECT value FROM json_each(?7)) AND severity IN (SELECT value FROM json_each(?8))"
    chosen += "" if quiet else " AND alerted"
    chosen += "" if dismissed else " AND feedback IS NOT 'not an anomaly'"
    lists = [orjson.dumps(list(values)).decode() for values in (topics, kinds, severities)]
    values = (lists[0], since_ms, until_ms, *place, lists[1], lists[2], limit)
    with log.reading() as db:
        found = db.execute(
            f"SELECT {_COLUMNS} FROM anomaly WHERE {chosen} ORDER BY start_ms DESC, topic DESC, n DESC LIMIT ?9", values
        )
        return [_row(r) for r in found]


def one(log: Log, topic: int, n: int) -> AnomalyRow | None:
    """An anomaly by its number."""
    with log.reading() as db:
        found = db.execute(f"SELECT {_COLUMNS} FROM anomaly WHERE topic = ? AND n = ?", (topic, n)).fetchone()
    return None if found is None else _row(found)


def newest(log: Log, topic: int) -> int:
    """The number of the newest anomaly of a topic; 0 where it has none."""
    with log.reading() as db:
        return int(db.execute("SELECT coalesce(max(n), 0) FROM anomaly WHERE topic = ?", (topic,)).get)


def alerts_since(log: Log, topics: Sequence[int], found_ms: int, limit: int) -> list[AnomalyRow]:
    """Alerts found then or later, oldest first."""
    query = f"SELECT {_COLUMNS} FROM anomaly WHERE topic IN (SELECT value FROM json_each(?)) AND alerted AND found_ms >= ?"
    with log.reading() as db:
        values = (orjson.dumps(list(topics)).decode(), found_ms, limit)
        return [_row(r) for r in db.execute(f"{query} ORDER BY found_ms, topic, n LIMIT ?", values)]


def untold(log: Log) -> list[AnomalyRow]:
    """Alerts that have not been passed on, oldest first."""
    with log.reading() as db:
        query = f"SELECT {_COLUMNS} FROM anomaly WHERE alerted AND NOT told ORDER BY found_ms LIMIT 100"
        return [_row(r) for r in db.execute(query)]


def tell(db: apsw.Connection, topic: int, n: int) -> None:
    """An alert has been passed on."""
    db.execute("UPDATE anomaly SET told = 1 WHERE topic = ? AND n = ?", (topic, n))


def judge(db: apsw.Connection, topic: int, n: int, verdict: Verdict | None, note: str | None) -> None:
    """Keep a person's verdict."""
    db.execute("UPDATE anomaly SET feedback = ?, note = ? WHERE topic = ? AND n = ?", (verdict, note, topic, n))


def counts(log: Log, topic: int) -> tuple[int, int, int]:
    """How many were found, how many alerted, how many dismissed."""
    summed = "coalesce(sum(alerted), 0), coalesce(sum(feedback IS 'not an anomaly'), 0)"
    query = f"SELECT count(*), {summed} FROM anomaly WHERE topic = ?"
    with log.reading() as db:
        ((found, alerted, dismissed),) = db.execute(query, (topic,))
    return int(found), int(alerted), int(dismissed)


def _row(values: Any) -> AnomalyRow:
    row = AnomalyRow._make(values)
    return row._replace(alerted=bool(row.alerted), body=orjson.loads(values[11]), told=bool(row.told))
