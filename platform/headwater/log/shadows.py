"""What the log keeps of a topic's second model: which it is, how far its vectors have come, how it compared; and what people
asked, to compare two models by. Functions that take a connection run inside a write of the log.

The live model and the shadow are both in the log whole: topic row and shadow row change places in one transaction
(`exchange`), so that a crash leaves the one or the other, and going back is the same step again.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import apsw
import numpy as np
import orjson

from headwater.log.catalogue import SEMANTIC, model_id, store_vectors
from headwater.log.store import Log, set_columns, set_cursor

State = Literal["building", "ready", "former", "dropping"]
_STEP = 5000  # vectors deleted in one write
_MOST_CHARS = 1000  # of a query that is kept


class ShadowRow(NamedTuple):
    """One topic's second model. `config` has the settings that belong to it (embedding_model, dimension)."""

    topic: int
    model: int
    name: str
    state: State
    config: Mapping[str, Any]
    threshold: float | None
    next_passage: int
    started_ms: int
    changed_ms: int
    report: Mapping[str, Any] | None


def read(log: Log, topic: int) -> ShadowRow | None:
    """The topic's second model, None where it has none."""
    columns = "s.topic, s.model, m.name, s.state, s.config, s.threshold, s.next_passage, s.started_ms, s.changed_ms, s.report"
    with log.reading() as db:
        for row in db.execute(f"SELECT {columns} FROM shadow s JOIN model m ON m.id = s.model WHERE s.topic = ?", (topic,)):
            report = None if row[9] is None else orjson.loads(row[9])
            return ShadowRow._make((*row[:4], orjson.loads(row[4]), *row[5:9], report))
    return None


def begin(db: apsw.Connection, topic: int, name: str, config: Mapping[str, Any], threshold: float | None, now_ms: int) -> None:
    """Give a topic a second model whose vectors are to be made."""
    values = (topic, model_id(db, name), "building", orjson.dumps(dict(config)).decode(), threshold, now_ms, now_ms)
    db.execute(
        "INSERT INTO shadow(topic, model, state, config, threshold, started_ms, changed_ms) VALUES(?,?,?,?,?,?,?)", values
    )


def store(db: apsw.Connection, topic: int, model: int, ids: Sequence[int], vectors: np.ndarray, upto: int) -> None:
    """Keep vectors `(n, d)` of the second model and how far it has come."""
    store_vectors(db, topic, model, ids, vectors, None)
    db.execute("UPDATE shadow SET next_passage = ? WHERE topic = ? AND model = ?", (upto, topic, model))


def judge(db: apsw.Connection, topic: int, model: int, report: Mapping[str, Any], now_ms: int) -> None:
    """Keep how the second model compared; one that was being built is ready with it."""
    db.execute(
        "UPDATE shadow SET report = ?1, changed_ms = iif(state = 'building', ?2, changed_ms),"
        " state = iif(state = 'building', 'ready', state) WHERE topic = ?3 AND model = ?4",
        (orjson.dumps(report).decode(), now_ms, topic, model),
    )


def exchange(
    db: apsw.Connection, shadow: ShadowRow, live: str, config: Mapping[str, Any], former: Mapping[str, Any], now_ms: int
) -> None:
    """Let the second model answer and the live one be the second. `config` becomes the topic's, `former` goes with the old."""
    topic = shadow.topic
    reached = db.execute("SELECT next_passage FROM shadow WHERE topic = ? AND model = ?", (topic, shadow.model)).get
    cursor = db.execute("SELECT seq FROM cursor WHERE topic = ? AND name = ?", (topic, SEMANTIC)).get or 0
    set_columns(db, topic, {"config": config, "model": shadow.name})
    set_cursor(db, topic, SEMANTIC, int(reached or 0))
    state = "ready" if shadow.state == "former" else "former"
    columns = "model = ?, state = ?, config = ?, threshold = NULL, next_passage = ?, changed_ms = ?"
    values = (model_id(db, live), state, orjson.dumps(dict(former)).decode(), cursor, now_ms, topic)
    db.execute(f"UPDATE shadow SET {columns} WHERE topic = ?", values)


def expect(db: apsw.Connection, topic: int, threshold: float | None) -> None:
    """Set the overlap from which on the second model takes over by itself; None: only when told."""
    db.execute("UPDATE shadow SET threshold = ? WHERE topic = ?", (threshold, topic))


def let_go(db: apsw.Connection, topic: int) -> None:
    """Begin to forget the second model; `drop_step` removes its vectors."""
    db.execute("UPDATE shadow SET state = 'dropping', report = NULL WHERE topic = ?", (topic,))
    db.execute("DELETE FROM segment WHERE (topic, model) IN (SELECT topic, model FROM shadow WHERE topic = ?)", (topic,))


def drop_step(db: apsw.Connection, topic: int) -> bool:
    """One bounded step of removing the vectors of a model that is forgotten; False when that is done."""
    model = db.execute("SELECT model FROM shadow WHERE topic = ? AND state = 'dropping'", (topic,)).get
    if model is None:
        return False
    some = "SELECT passage FROM vector WHERE topic = ?1 AND model = ?2 LIMIT ?3"
    db.execute(f"DELETE FROM vector WHERE topic = ?1 AND model = ?2 AND passage IN ({some})", (topic, model, _STEP))
    if db.changes():
        return True
    db.execute("DELETE FROM shadow WHERE topic = ?", (topic,))
    return False


def homes(log: Log) -> set[tuple[int, int, int]]:
    """(topic, generation, model) of every vector index there is or may be again."""
    with log.reading() as db:
        return set(
            db.execute(
                "SELECT t.id, t.generation, m.id FROM topic t JOIN model m ON m.name = t.model"
                " UNION SELECT t.id, t.generation, s.model FROM topic t JOIN shadow s ON s.topic = t.id"
            )
        )


def counted(log: Log, topic: int, start: int) -> tuple[int, int]:
    """(passages with id >= `start`, all passages) of a topic, aliases left out: how much there is to embed."""
    passages = "SELECT count(*) FROM passage WHERE topic = ?1 AND id >= ?2"
    aliases = "SELECT count(*) FROM alias a JOIN passage p ON p.id = a.old WHERE p.topic = ?1 AND a.old >= ?2"
    with log.reading() as db:
        waiting, total = (int(db.execute(f"SELECT ({passages}) - ({aliases})", (topic, at)).get) for at in (start, 0))
    return waiting, total


def spread(log: Log, topic: int, limit: int) -> list[str]:
    """Texts of living passages, evenly spread over the time of their first coming."""
    found: dict[int, str] = {}
    with log.reading() as db:
        first, last = db.execute("SELECT min(id), max(id) FROM passage WHERE topic = ?", (topic,)).get
        if first is None:
            return []
        query = "SELECT id, text FROM passage WHERE topic = ? AND id >= ? AND count > 0 ORDER BY id LIMIT 1"
        for at in range(limit):
            for id, text in db.execute(query, (topic, first + (last - first) * at // limit)):
                found[id] = text
    return list(found.values())


class Asked:
    """The latest distinct query texts of each topic. Noted in memory, written now and then: a search never waits for it."""

    def __init__(self, log: Log, keep: int) -> None:
        self._log, self._keep = log, keep
        self._lock = threading.Lock()
        self._waiting: dict[tuple[int, str], int] = {}
        if not keep:
            log.write(lambda db: db.execute("DELETE FROM asked").get)

    def note(self, topics: Collection[int], text: str, now_ms: int) -> None:
        """Remember that these words were asked of these topics."""
        if self._keep and 0 < len(text) <= _MOST_CHARS:
            with self._lock:
                for topic in topics:
                    self._waiting.pop((topic, text), None)
                    self._waiting[topic, text] = now_ms
                while len(self._waiting) > self._keep * max(len(topics), 1) * 4:
                    self._waiting.pop(next(iter(self._waiting)))

    def flush(self) -> None:
        """Write down what was noted; the oldest beyond what is kept go."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return

        def write(db: apsw.Connection) -> None:
            rows = [(topic, text.encode("utf-8", "replace").decode(), at) for (topic, text), at in waiting.items()]
            db.executemany("INSERT OR REPLACE INTO asked SELECT ?1, ?2, ?3 WHERE ?1 IN (SELECT id FROM topic)", rows)
            for topic in {topic for topic, _, _ in rows}:
                newest = "SELECT text FROM asked WHERE topic = ?1 ORDER BY at_ms DESC, text LIMIT ?2"
                db.execute(f"DELETE FROM asked WHERE topic = ?1 AND text NOT IN ({newest})", (topic, self._keep))

        self._log.write(write)

    def latest(self, topic: int, limit: int) -> list[str]:
        """The newest queries of a topic, newest first."""
        self.flush()
        with self._log.reading() as db:
            query = "SELECT text FROM asked WHERE topic = ? ORDER BY at_ms DESC, text LIMIT ?"
            return [text for (text,) in db.execute(query, (topic, limit))]
