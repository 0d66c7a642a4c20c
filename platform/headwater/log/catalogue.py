"""What the log knows of passages: their texts, occurrences, aliases, templates and vectors, and which segments hold them.

The functions that take a connection run inside a write of the log, so that a batch's occurrences, new passages, the
miner's state and the indexer's cursor commit together or not at all. `Catalogue` is the reading side of one topic.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apsw
import numpy as np
import orjson

from headwater.log import former, gone
from headwater.log.database import insert_many
from headwater.log.schema import SEQ_BITS, SEQ_MASK
from headwater.log.store import Log, in_list, set_cursor
from headwater.vectors import SegmentRow

MAPPED, KEYWORD, SEMANTIC = "index.mapped", "index.keyword", "index.semantic"  # SEMANTIC holds a passage id, the others a seq
_BLOCK = 4096
_COUNTED = 65_536  # ids looked up by one statement
LAST_ID = 1 << 62


class Piece(NamedTuple):
    """One occurrence before it is stored: passage `text` at `[start, stop)` of the record's value (None: all of it)."""

    record: int
    n: int
    text: str
    time_ms: int
    level: str | None
    start: int | None = None
    stop: int | None = None
    context: str | None = None
    vector: bytes | None = None


class PassageRow(NamedTuple):
    id: int
    text: str
    context: str | None
    level: str | None
    total: int
    first_seq: int
    last_seq: int
    first_ms: int
    last_ms: int


class Place(NamedTuple):
    """Where a passage occurs."""

    record: int
    n: int
    passage: int
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one mapped batch came to: passage ids in the order of its pieces, and the aliases it made (old -> new)."""

    passages: list[int]
    aliases: dict[int, int]


def digest(text: str, vector: bytes | None = None) -> bytes:
    """What makes a passage distinct within its topic: its text, and its vector where records bring their own."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass") + (b"\0" + vector if vector else b""), digest_size=16).digest()


def store_pieces(
    db: apsw.Connection,
    topic: int,
    pieces: Sequence[Piece],
    known: Mapping[str, int],
    *,
    generalised: Iterable[tuple[str, str]] = (),
    templates: Iterable[tuple[str, str]] = (),
    upto: int,
) -> Mapped:
    """Store a batch's occurrences and move the mapped cursor to `upto`. `known` maps passage texts to ids already
    committed; it may be incomplete."""
    ids: dict[str | tuple[str, bytes], int] = {}
    tallies: dict[int, list[int]] = {}
    passages: list[int] = []
    occurrences: list[tuple[int, int, int, int | None, int | None]] = []
    for piece in pieces:
        record, n, text, time_ms, _, start, stop, _, vector = piece
        name = text if vector is None else (text, vector)
        passage = ids.get(name)
        if passage is None:
            passage = known.get(text) if vector is None else None
            if passage is None:
                passage = _passage(db, topic, piece)
            ids[name] = passage
        seq = record & SEQ_MASK
        if (tally := tallies.get(passage)) is None:
            tallies[passage] = [1, seq, seq, time_ms, time_ms]
        else:
            tally[0] += 1
            tally[2] = seq
            if time_ms < tally[3]:
                tally[3] = time_ms
            elif time_ms > tally[4]:
                tally[4] = time_ms
        passages.append(passage)
        occurrences.append((record, n, passage, start, stop))
    insert_many(db, "INSERT OR IGNORE INTO occurrence", occurrences)
    db.executemany(
        "UPDATE passage SET first_seq = iif(count, min(first_seq, ?2), ?2), last_seq = iif(count, max(last_seq, ?3), ?3),"
        " first_ms = iif(count, min(first_ms, ?4), ?4), last_ms = iif(count, max(last_ms, ?5), ?5), count = count + ?1"
        " WHERE id = ?6",
        [(*tally, passage) for passage, tally in tallies.items()],
    )
    aliases = _store_aliases(db, topic, generalised)
    db.executemany("INSERT OR REPLACE INTO template VALUES(?,?,?)", [(topic, text, state) for text, state in templates])
    set_cursor(db, topic, MAPPED, upto)
    return Mapped(passages, aliases)


def _passage(db: apsw.Connection, topic: int, piece: Piece) -> int:
    """The id of the piece's passage, made when it is new; an alias is followed to the surviving passage."""
    mark = digest(piece.text, piece.vector)
    found = db.execute("SELECT id FROM passage WHERE topic = ? AND digest = ?", (topic, mark)).get
    if found is not None:
        survivor = db.execute("SELECT new FROM alias WHERE old = ?", (found,)).get
        return int(found if survivor is None else survivor)
    seq = piece.record & SEQ_MASK
    row = (topic, mark, piece.text, piece.context, piece.level, 0, seq, seq, piece.time_ms, piece.time_ms)
    columns = "topic, digest, text, context, level, count, first_seq, last_seq, first_ms, last_ms"
    db.execute(f"INSERT INTO passage({columns}) VALUES(?,?,?,?,?,?,?,?,?,?)", row)
    return db.last_insert_rowid()


def _store_aliases(db: apsw.Connection, topic: int, generalised: Iterable[tuple[str, str]]) -> dict[int, int]:
    """Make each old template's passage an alias of the new one's and hand over its counts."""
    aliases: dict[int, int] = {}
    find = "SELECT id FROM passage WHERE topic = ? AND digest = ?"
    for old_text, new_text in generalised:
        old = db.execute(find, (topic, digest(old_text))).get
        if old is None or old_text == new_text:
            continue
        new = db.execute(find, (topic, digest(new_text))).get
        if new is None:
            seq, ms, level = db.execute("SELECT first_seq, first_ms, level FROM passage WHERE id = ?", (old,)).get
            new = _passage(db, topic, Piece(topic << SEQ_BITS | seq, 0, new_text, ms, level))
        new = db.execute("SELECT new FROM alias WHERE old = ?", (new,)).get or new
        if new == old:
            continue
        db.execute(
            "UPDATE passage SET (count, first_seq, last_seq, first_ms, last_ms) = (SELECT"
            " passage.count + o.count, min(passage.first_seq, o.first_seq), max(passage.last_seq, o.last_seq),"
            " min(passage.first_ms, o.first_ms), max(passage.last_ms, o.last_ms) FROM passage o WHERE o.id = ?1) WHERE id = ?2",
            (old, new),
        )
        db.execute("UPDATE passage SET count = 0 WHERE id = ?", (old,))
        db.execute("UPDATE alias SET new = ? WHERE new = ?", (new, old))
        db.execute("INSERT OR REPLACE INTO alias VALUES(?, ?)", (old, new))
        aliases = {o: new if n == old else n for o, n in aliases.items()} | {old: new}
    return aliases


def model_id(db: apsw.Connection, name: str) -> int:
    """The number of a model's name, made when it is new."""
    db.execute("INSERT OR IGNORE INTO model(name) VALUES(?)", (name,))
    return int(db.execute("SELECT id FROM model WHERE name = ?", (name,)).get)


def store_vectors(
    db: apsw.Connection, topic: int, model: int, ids: Sequence[int], vectors: np.ndarray, upto: int | None
) -> None:
    """Keep vectors `(n, d)` of passages and move the semantic cursor to passage id `upto`, when it is given. A passage that
    was forgotten while the model was at work gets none."""
    rows = [(topic, model, id, row.tobytes(), id) for id, row in zip(ids, vectors.astype(np.float16), strict=True)]
    there = "SELECT ?,?,?,? WHERE EXISTS (SELECT 1 FROM passage WHERE id = ?)"
    db.executemany(f"INSERT OR IGNORE INTO vector {there}", rows)
    if upto is not None:
        set_cursor(db, topic, SEMANTIC, upto)


def drop_vectors(db: apsw.Connection, topic: int, model: int | None, *, limit: int = -1) -> bool:
    """Delete a topic's vectors of one model, or of all, at most `limit`; False when there were none."""
    some = "SELECT model, passage FROM vector WHERE topic = ?1 AND (?2 IS NULL OR model = ?2) LIMIT ?3"
    db.execute(f"DELETE FROM vector WHERE topic = ?1 AND (model, passage) IN ({some})", (topic, model, limit))
    return bool(db.changes())


def release(db: apsw.Connection, topic: int, records: Collection[int], *, on_request: bool = False) -> tuple[int, list[int]]:
    """Delete records (by id) with their occurrences; gives how many there were, and the passages that no retained record
    refers to any more. What they leave in the keyword index is noted (headwater.log.gone)."""
    chosen = in_list(records)
    gone.remember(db, topic, records, one_by_one=on_request)
    among = "(SELECT value FROM json_each(?1))"
    before = former.among(db, records)
    lost = _count_out(db, topic, [record for record in records if record not in before])
    lost += [(p, 0) for p, _ in _referred(db, before)]
    number = int(db.execute(f"SELECT count(*) FROM record WHERE id IN {among}", (chosen,)).get)
    former.forget(db, before)
    db.execute(f"DELETE FROM occurrence WHERE record IN {among}", (chosen,))
    db.execute(
        f"DELETE FROM spread WHERE topic = {int(topic)} AND seq IN (SELECT value & {SEQ_MASK} FROM json_each(?1))", (chosen,)
    )
    db.execute(
        f"DELETE FROM dead_letter WHERE topic = {int(topic)} AND seq IN (SELECT value & {SEQ_MASK} FROM json_each(?1))",
        (chosen,),
    )
    db.execute(f"DELETE FROM record WHERE id IN {among}", (chosen,))
    first = db.execute("SELECT min(id) FROM record WHERE id >= ? AND id < ?", (topic << SEQ_BITS, (topic + 1) << SEQ_BITS)).get
    if first is not None:
        db.execute("UPDATE topic SET first_seq = ? WHERE id = ?", (first & SEQ_MASK, topic))
    else:
        db.execute("UPDATE topic SET first_seq = next_seq WHERE id = ?", (topic,))
    unused = "count = 0 AND NOT EXISTS (SELECT 1 FROM occurrence o WHERE o.passage = passage.id)"
    dead = f"SELECT id FROM passage WHERE {unused} AND id IN (SELECT value FROM json_each(?))"
    return number, [id for (id,) in db.execute(dead, (in_list([p for p, _ in lost]),))]


def retire(db: apsw.Connection, topic: int, records: Mapping[int, int]) -> int:
    """Make records (by id, with the seq from which on) former versions: kept, and counted no more; how many were not yet. The
    keyword index is to be told (headwater.log.gone.unindexed)."""
    fresh = former.add(db, records)
    _count_out(db, topic, fresh)
    gone.note(db, topic, fresh)
    return len(fresh)


def uncount(db: apsw.Connection, records: Collection[int]) -> dict[int, int]:
    """Records (by id) are mapped: take those that were replaced before out of the counts of their passages; gives them with
    the seq from which on they are former versions."""
    before = former.among(db, records)
    db.executemany("UPDATE passage SET count = max(count - ?2, 0) WHERE id = ?1", _referred(db, before))
    return before


def _count_out(db: apsw.Connection, topic: int, records: Collection[int]) -> list[tuple[int, int]]:
    """Take records (by id) out of the counts of their passages and of the topic; gives (passage, how often)."""
    lost = _referred(db, records)
    db.executemany("UPDATE passage SET count = max(count - ?2, 0) WHERE id = ?1", lost)
    values = db.execute("SELECT value FROM record WHERE id IN (SELECT value FROM json_each(?))", (in_list(records),))
    lengths = [len(value) for (value,) in values]  # SQL stops at NUL
    db.execute(
        "UPDATE topic SET records = records - ?, bytes = max(bytes - ?, 0) WHERE id = ?", (len(lengths), sum(lengths), topic)
    )
    return lost


def _referred(db: apsw.Connection, records: Collection[int]) -> list[tuple[int, int]]:
    """(passage, how often) of all that occurs in records (by id); aliases followed."""
    query = (
        "SELECT coalesce(a.new, o.passage), count(*) FROM occurrence o LEFT JOIN alias a ON a.old = o.passage"
        " WHERE o.record IN (SELECT value FROM json_each(?)) GROUP BY 1"
    )
    return list(db.execute(query, (in_list(records),))) if records else []


def forget_passages(db: apsw.Connection, ids: Collection[int]) -> None:
    """Delete dead passages with their vectors."""
    chosen = (in_list(ids),)
    db.execute(
        "DELETE FROM vector WHERE (topic, passage) IN (SELECT p.topic, p.id FROM passage p WHERE p.id IN"
        " (SELECT value FROM json_each(?)))",
        chosen,
    )
    db.execute("DELETE FROM passage WHERE id IN (SELECT value FROM json_each(?))", chosen)


class Catalogue:
    """The passages of one topic under one model, read from the log; also the vector index's way to its truth."""

    def __init__(self, log: Log, topic: int, model: int | None, generation: int) -> None:
        self._log, self.topic, self.model, self._generation = log, topic, model, generation

    # ---- passages

    def aliases(self) -> dict[int, int]:
        """Every alias of the topic, old -> surviving passage."""
        with self._log.reading() as db:
            return dict(
                db.execute("SELECT a.old, a.new FROM alias a JOIN passage p ON p.id = a.old WHERE p.topic = ?", (self.topic,))
            )

    def templates(self) -> list[tuple[str, str]]:
        """The miner's state: (template text, state)."""
        with self._log.reading() as db:
            return list(db.execute("SELECT text, state FROM template WHERE topic = ?", (self.topic,)))

    def rows(self, ids: Collection[int]) -> dict[int, PassageRow]:
        """Passages by id."""
        with self._log.reading() as db:
            found = db.execute(f"SELECT {_PASSAGE} FROM passage WHERE id IN (SELECT value FROM json_each(?))", (in_list(ids),))
            return {r[0]: PassageRow._make(r) for r in found}

    def living(self, ids: Collection[int]) -> set[int]:
        """Those of some passages that have records."""
        query = "SELECT id FROM passage WHERE id IN (SELECT value FROM json_each(?)) AND count > 0"
        with self._log.reading() as db:
            return {id for (id,) in db.execute(query, (in_list(ids),))}

    def frequent(self, limit: int, *, new_since_ms: int | None = None) -> list[PassageRow]:
        """Live passages, most frequent first; with `new_since_ms` only those first seen then or later."""
        query = (
            f"SELECT {_PASSAGE} FROM passage WHERE topic = ? AND count > 0 AND first_ms >= ? ORDER BY count DESC, id LIMIT ?"
        )
        with self._log.reading() as db:
            found = db.execute(query, (self.topic, -(1 << 62) if new_since_ms is None else new_since_ms, limit))
            return [PassageRow._make(r) for r in found]

    def count(self) -> int:
        """Live passages."""
        with self._log.reading() as db:
            return int(db.execute("SELECT count(*) FROM passage WHERE topic = ? AND count > 0", (self.topic,)).get)

    def span(self) -> tuple[int, int | None, int | None]:
        """Live passages, and the first and last time any of them came; None where there is none."""
        with self._log.reading() as db:
            query = "SELECT count(*), min(first_ms), max(last_ms) FROM passage WHERE topic = ? AND count > 0"
            count, first, last = db.execute(query, (self.topic,)).get
        return int(count), first, last

    def pending(self, start: int, limit: int) -> list[PassageRow]:
        """Passages with id >= `start` that have no vector and are no alias, in order of id. Those without records
        are among them: a template may come back."""
        query = (
            f"SELECT {_PASSAGE} FROM passage p WHERE topic = ?1 AND id >= ?2 AND NOT EXISTS"
            " (SELECT 1 FROM vector v WHERE v.topic = ?1 AND v.model = ?3 AND v.passage = p.id) AND NOT EXISTS"
            " (SELECT 1 FROM alias a WHERE a.old = p.id) ORDER BY id LIMIT ?4"
        )
        with self._log.reading() as db:
            return [PassageRow._make(r) for r in db.execute(query, (self.topic, start, self.model, limit))]

    # ---- occurrences

    def places(self, records: Collection[int]) -> dict[int, list[Place]]:
        """The occurrences in records (by id), in order of n; passages as stored, aliases not followed."""
        out: dict[int, list[Place]] = {}
        with self._log.reading() as db:
            chosen = "record IN (SELECT value FROM json_each(?)) ORDER BY record, n"
            for row in db.execute(
                f"SELECT record, n, passage, start, stop FROM occurrence WHERE {chosen}", (in_list(records),)
            ):
                out.setdefault(row[0], []).append(Place._make(row))
        return out

    def latest(self, family: Collection[int], limit: int = 1) -> list[Place]:
        """The newest occurrences of a passage and its aliases, but for those in former versions."""
        query = (
            "SELECT record, n, passage, start, stop FROM occurrence o WHERE passage IN (SELECT value FROM json_each(?))"
            f" AND {_PRESENT} ORDER BY record DESC, n LIMIT ?"
        )
        with self._log.reading() as db:
            if len(family) == 1:
                query = query.replace("IN (SELECT value FROM json_each(?))", "= ?")
                return [Place._make(r) for r in db.execute(query, (next(iter(family)), limit))]
            return [Place._make(r) for r in db.execute(query, (in_list(family), limit))]

    def newest(self, passages: Collection[int]) -> dict[int, int]:
        """passage -> its newest record (by id) that is no former version, for those that have one; aliases not followed."""
        newest = f"SELECT record FROM occurrence o WHERE passage = p.value AND {_PRESENT} ORDER BY record DESC LIMIT 1"
        query = f"SELECT p.value, ({newest}) AS last FROM json_each(?) p WHERE last IS NOT NULL"
        with self._log.reading() as db:
            return dict(db.execute(query, (in_list(passages),)))

    # ---- vectors and segments (headwater.vectors.Catalogue)

    def segments(self) -> list[SegmentRow]:
        with self._log.reading() as db:
            query = "SELECT name, count, min_id, max_id, manifest FROM segment WHERE topic = ? AND model = ? ORDER BY name"
            return [SegmentRow(*r) for r in db.execute(query, (self.topic, self.model))]

    def tail(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._between(self._gaps())

    def members(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        with self._log.reading() as db:
            runs = db.execute("SELECT runs FROM segment WHERE name = ?", (name,)).get
        return self._between(_unpacked(runs or b""))

    def gone(self, ids: np.ndarray) -> np.ndarray:
        """Counted by the index of passages, of which a vector is only let go with its passage; no vector is read."""
        within = "FROM json_each(?1) r CROSS JOIN passage p ON p.topic = ?2 AND p.id BETWEEN r.value ->> 0 AND r.value ->> 1"
        lost = [np.empty(0, np.int64)]
        for start in range(0, len(ids), _COUNTED):
            part = ids[start : start + _COUNTED]
            given = (orjson.dumps(_runs(part).tolist()).decode(), self.topic)
            with self._log.reading() as db:
                if db.execute(f"SELECT count(*) {within}", given).get != len(part):
                    there = orjson.loads(db.execute(f"SELECT json_group_array(p.id) {within}", given).get)
                    lost.append(np.setdiff1d(part, np.array(there, np.int64), assume_unique=True))
        return np.concatenate(lost)

    def _gaps(self) -> np.ndarray:
        """The runs of ids that no segment has."""
        with self._log.reading() as db:
            query = "SELECT runs FROM segment WHERE topic = ? AND model = ?"
            held = [_unpacked(runs) for (runs,) in db.execute(query, (self.topic, self.model))]
        runs = np.concatenate([np.array([[-1, -1]]), *held, np.array([[LAST_ID, LAST_ID]])])
        runs = runs[np.argsort(runs[:, 0], kind="stable")]
        reached = np.maximum.accumulate(runs[:-1, 1])
        gaps = np.stack([reached + 1, runs[1:, 0] - 1], axis=1)
        return gaps[gaps[:, 0] <= gaps[:, 1]]

    def vectors(self, ids: Collection[int]) -> tuple[np.ndarray, np.ndarray]:
        """`(ids, vectors)` of those passages that have one."""
        wanted = np.unique(np.fromiter(ids, np.int64, len(ids)))
        found = list(self._between(_runs(wanted)))
        if not found:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        return np.concatenate([b[0] for b in found]), np.concatenate([b[1] for b in found])

    def count_vectors(self) -> int:
        with self._log.reading() as db:
            return int(db.execute("SELECT count(*) FROM vector WHERE topic = ? AND model = ?", (self.topic, self.model)).get)

    def dimension(self) -> int | None:
        """The length of the stored vectors; None where there are none."""
        with self._log.reading() as db:
            query = "SELECT length(data) FROM vector WHERE topic = ? AND model = ? LIMIT 1"
            size = db.execute(query, (self.topic, self.model)).get
        return None if size is None else int(size) // 2

    def commit_segment(self, row: SegmentRow, ids: np.ndarray, replaces: Sequence[str]) -> bool:
        def write(db: apsw.Connection) -> bool:
            if db.execute("SELECT generation FROM topic WHERE id = ?", (self.topic,)).get != self._generation:
                return False
            _drop(db, replaces)
            values = (row.name, self.topic, self.model, row.count, row.min_id, row.max_id, row.manifest, runs)
            db.execute("INSERT INTO segment VALUES(?,?,?,?,?,?,?,?)", values)
            return True

        runs = _packed(_runs(np.sort(ids)))
        return self._log.write(write)

    def drop_segments(self, names: Sequence[str]) -> None:
        self._log.write(lambda db: _drop(db, names))

    def _between(self, runs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The vectors whose ids lie in ascending runs `(n, 2)`, in blocks of about as many, by ascending id."""
        query = (  # the join is made in the order it is written: by run, within a run by id
            "SELECT v.passage, v.data FROM json_each(?) r CROSS JOIN vector v ON v.topic = ? AND v.model = ?"
            f" AND v.passage BETWEEN r.value ->> 0 AND r.value ->> 1 LIMIT {_BLOCK}"
        )
        at = 0
        while at < len(runs):
            part = runs[at : at + _BLOCK]
            with self._log.reading() as db:
                rows = list(db.execute(query, (orjson.dumps(part.tolist()).decode(), self.topic, self.model)))
            if len(rows) < _BLOCK:
                at += len(part)
            else:  # go on behind the last one read
                at += int(np.searchsorted(part[:, 1], rows[-1][0], side="right"))
                if at < len(runs) and runs[at, 0] <= rows[-1][0]:
                    runs = np.concatenate([[[rows[-1][0] + 1, runs[at, 1]]], runs[at + 1 :]])
                    at = 0
            if rows:
                matrix = np.frombuffer(b"".join(r[1] for r in rows), np.float16).reshape(len(rows), -1).astype(np.float32)
                yield np.fromiter((r[0] for r in rows), np.int64, len(rows)), matrix


def _runs(ids: np.ndarray) -> np.ndarray:
    """Ascending ids as runs of neighbours `(n, 2)` int64, both ends included."""
    if not len(ids):
        return np.empty((0, 2), np.int64)
    breaks = np.flatnonzero(np.diff(ids) > 1)
    return np.stack([ids[np.concatenate([[0], breaks + 1])], ids[np.concatenate([breaks, [len(ids) - 1]])]], axis=1)


def _packed(runs: np.ndarray) -> bytes:
    """Runs as a segment's row keeps them: a million scattered ids are some megabytes, neighbours a few bytes."""
    return zlib.compress(np.diff(runs.astype("<i8").ravel(), prepend=0).tobytes(), 1)


def _unpacked(packed: bytes) -> np.ndarray:
    return np.cumsum(np.frombuffer(zlib.decompress(packed), "<i8")).reshape(-1, 2) if packed else np.empty((0, 2), np.int64)


_PRESENT = "NOT EXISTS (SELECT 1 FROM former f WHERE f.record = o.record)"
_PASSAGE = "id, text, context, level, count, first_seq, last_seq, first_ms, last_ms"


def _drop(db: apsw.Connection, names: Sequence[str]) -> None:
    db.executemany("DELETE FROM segment WHERE name = ?", [(name,) for name in names])
