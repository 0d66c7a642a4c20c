"""The log: the SQLite database that is the only truth. Records, topics, groups' cursors, dead letters.

`submit` and `write` run a function of the connection inside the writer's next commit, `reading` gives a connection for
reads (headwater.log.database). An append assigns seq and offsets, and stores the source's resume state in the same transaction.
"""

from __future__ import annotations

import array
import hashlib
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import orjson

from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.log import gone
from headwater.log.database import Database, insert_many
from headwater.log.schema import SEQ_BITS, SEQ_MASK, migrate
from headwater.records import DeadLetter, Draft, Receipt, Record, address, from_ms

_COLUMNS = "id, partition, offset, time_ms, appended_ms, key, value, attributes, body"
_BLOCK = 500  # records read by one statement
_MOST_CHARS = 32_000_000  # of text in one call of `rows`, beyond which it gives fewer records


class Row(NamedTuple):
    """A stored record as read: `attributes` is JSON bytes or None, `body` where its message begins (None: not known)."""

    id: int
    partition: int
    offset: int
    time_ms: int
    appended_ms: int
    key: str | None
    value: str
    attributes: bytes | None
    body: int | None = None

    @property
    def seq(self) -> int:
        return self.id & SEQ_MASK

    def record(self, topic: str) -> Record:
        return Record(
            topic,
            self.partition,
            self.offset,
            self.id & SEQ_MASK,
            from_ms(self.time_ms),
            from_ms(self.appended_ms),
            self.key,
            self.value,
            orjson.loads(self.attributes) if self.attributes else {},
        )


@dataclass(frozen=True, slots=True)
class TopicRow:
    """A topic as stored. `passages` is what `auto` decided (None while undecided), `model` the embedder in use."""

    id: int
    name: str
    config: Mapping[str, Any]
    passages: str | None
    model: str | None
    generation: int
    next_seq: int
    first_seq: int
    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where drafts come from: `stream` names what their positions count in, `source` and `state` the resume point."""

    stream: str
    source: str | None = None
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A producer's idempotency key and the digest of the body it came with."""

    key: str
    digest: bytes

    @property
    def name(self) -> str:
        """What is kept of the key: it may name a person, and outlives the records that came with it."""
        return hashlib.blake2b(self.key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @classmethod
    def of(cls, key: str, body: Sequence[Any]) -> Delivery:
        """The delivery of these entries; the same entries give the same digest."""
        plain = [
            {**entry._asdict(), "attributes": dict(entry.attributes)} if isinstance(entry, Draft) else entry for entry in body
        ]
        try:
            text = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
        except TypeError:  # lone surrogates and integers beyond 64 bits, for which the intake has rules
            text = repr(plain).encode("utf-8", "surrogatepass")
        return cls(key, hashlib.blake2b(text, digest_size=16).digest())


class Log:
    """Open with `Log(directory)`; a context manager. `durable=False` trades safety at power loss for nothing but speed."""

    def __init__(
        self,
        directory: Path,
        *,
        clock_ms: Callable[[], int],
        durable: bool = True,
        vfs: str | None = None,
        most_waiting: int = 50_000,
    ) -> None:
        self._clock_ms = clock_ms
        self._listeners: list[Callable[[Collection[int]], None]] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = Database(
            directory / "log.db",
            migrate=migrate,
            durable=durable,
            vfs=vfs,
            committed=self._announce,
            most_waiting=most_waiting,
        )
        self.submit, self.write, self.reading = self._database.submit, self._database.write, self._database.reading
        self.check, self.close, self.compact = self._database.check, self._database.close, self._database.compact

    @property
    def crowded(self) -> bool:
        """Whether an append may have to wait for room."""
        return self._database.crowded

    def on_append(self, listener: Callable[[Collection[int]], None]) -> None:
        """Call `listener(topic ids)` from the writer thread after each commit that stored records."""
        self._listeners.append(listener)

    def _announce(self, topics: Collection[int]) -> None:
        for listener in self._listeners:
            listener(topics)

    # ------------------------------------------------------------------ appending

    def append(
        self,
        topic: int,
        drafts: Sequence[Draft],
        *,
        origin: Origin | None = None,
        delivery: Delivery | None = None,
        attributes: Sequence[bytes | None] | None = None,
    ) -> Future[list[Receipt]]:
        """Store drafts (times set, see intake) and the source's state in one transaction. The future has a receipt each,
        in order. A (stream, position) or a delivery key seen before is not stored again."""
        encoded = _encoded(drafts) if attributes is None else attributes
        return self.submit(
            lambda db: self._append(db, topic, drafts, encoded, origin, delivery), rows=len(drafts) or 1, announce=topic
        )

    def append_within(self, db: apsw.Connection, topic: int, drafts: Sequence[Draft]) -> list[Receipt]:
        """Store drafts (times set) inside a write of the caller's: with all else that it writes, or not at all."""
        return self._append(db, topic, drafts, _encoded(drafts), None, None)

    def _append(
        self,
        db: apsw.Connection,
        topic: int,
        drafts: Sequence[Draft],
        attributes: Sequence[bytes | None],
        origin: Origin | None,
        delivery: Delivery | None,
    ) -> list[Receipt]:
        row = db.execute("SELECT name, next_seq, config ->> 'partitions' FROM topic WHERE id = ?", (topic,)).get
        if row is None:
            raise NotFoundError("the topic was deleted while records were on their way")
        name, seq, partitions = row
        if delivery is not None and (earlier := self._delivered(db, topic, name, delivery)) is not None:
            return earlier
        stream, known = self._stream(db, topic, origin, drafts)
        heads: dict[int, int] = dict(db.execute("SELECT partition, next_offset FROM head WHERE topic = ?", (topic,)))
        now, base, size, first = self._clock_ms(), topic << SEQ_BITS, 0, seq
        rows: list[tuple[Any, ...]] = []
        receipts: list[Receipt] = []
        for draft, encoded in zip(drafts, attributes, strict=True):
            value, key, time_ms, _, partition, position, raw, numbers, body = draft
            if known is None:
                position = None
            elif position is not None and (at := known.get(position)) is not None:
                receipts.append(Receipt(name, *at, duplicate=True))
                continue
            partition = _partition(draft, seq, partitions) if partition is not None or partitions > 1 else 0
            offset = heads.get(partition, 0)
            heads[partition] = offset + 1
            if known is not None and position is not None:
                known[position] = (partition, offset, seq)
            size += len(value)
            vector = None if numbers is None else array.array("f", numbers).tobytes()
            time_ms = now if time_ms is None else time_ms
            place = (base | seq, partition, offset, time_ms, now)
            rows.append((*place, key, value, encoded, stream, position, raw, vector, body))
            receipts.append(Receipt(name, partition, offset, seq))
            seq += 1
        insert_many(db, "INSERT INTO record", rows)
        if partitions > 1:
            db.executemany("INSERT INTO spread VALUES(?,?,?,?)", [(topic, r[1], r[2], r[0] & SEQ_MASK) for r in rows])
        db.executemany("INSERT OR REPLACE INTO head VALUES(?,?,?)", [(topic, p, o) for p, o in heads.items()])
        grown = "UPDATE topic SET next_seq = ?, records = records + ?, bytes = bytes + ? WHERE id = ?"
        db.execute(grown, (seq, seq - first, size, topic))
        if stream is not None and rows:
            last = max((r[9] for r in rows if r[9] is not None), default=-1)
            db.execute("UPDATE stream SET last_position = max(last_position, ?) WHERE id = ?", (last, stream))
        if origin is not None and origin.source is not None:
            db.execute("INSERT OR REPLACE INTO source VALUES(?, ?)", (origin.source, orjson.dumps(dict(origin.state or {}))))
        if delivery is not None:
            kept = orjson.dumps([(r.partition, r.offset, r.seq) for r in receipts])
            db.execute("INSERT INTO delivery VALUES(?,?,?,?,?)", (topic, delivery.name, delivery.digest, kept, now))
        return receipts

    def _delivered(self, db: apsw.Connection, topic: int, name: str, delivery: Delivery) -> list[Receipt] | None:
        row = db.execute("SELECT digest, receipts FROM delivery WHERE topic = ? AND key = ?", (topic, delivery.name)).get
        if row is None:
            return None
        if row[0] != delivery.digest:
            raise ConflictError(f"idempotency key {delivery.key!r} came before with another body; new records need a new key")
        return [Receipt(name, p, o, s, duplicate=True) for p, o, s in orjson.loads(row[1])]

    def _stream(
        self, db: apsw.Connection, topic: int, origin: Origin | None, drafts: Sequence[Draft]
    ) -> tuple[int | None, dict[int, tuple[int, int, int]] | None]:
        """The stream's id and where those of its positions that are stored already lie."""
        if origin is None:
            return None, None
        db.execute("INSERT OR IGNORE INTO stream(topic, name) VALUES(?, ?)", (topic, origin.stream))
        stream, last = db.execute(
            "SELECT id, last_position FROM stream WHERE topic = ? AND name = ?", (topic, origin.stream)
        ).get
        positions = [d.position for d in drafts if d.position is not None]
        if not positions or min(positions) > last:
            return stream, {}
        places = "SELECT position, partition, offset, id FROM record WHERE stream = ? AND position IN"
        found = db.execute(f"{places} (SELECT value FROM json_each(?))", (stream, in_list(positions)))
        return stream, gone.positions(db, stream, positions) | {at: (p, o, id & SEQ_MASK) for at, p, o, id in found}

    # ------------------------------------------------------------------ topics

    def create_topic(self, name: str, config: Mapping[str, Any], model: str | None = None) -> TopicRow:
        """A new topic; ConflictError where the name is taken."""

        def write(db: apsw.Connection) -> None:
            if db.execute("SELECT 1 FROM topic WHERE name = ?", (name,)).get:
                raise ConflictError(f"topic {name!r} exists already; `headwater topics set {name}` changes its settings")
            values = (name, orjson.dumps(dict(config)).decode(), model, self._clock_ms())
            db.execute("INSERT INTO topic(name, config, model, created_ms) VALUES(?,?,?,?)", values)

        self.write(write)
        return self.topic(name)

    def topic(self, name: str) -> TopicRow:
        """The topic of that name; NotFoundError."""
        for row in self._topic_rows("WHERE name = ?", (name,)):
            return row
        raise NotFoundError(f"no topic {name!r}; `headwater topics` lists them")

    def topics(self) -> list[TopicRow]:
        return self._topic_rows("ORDER BY name", ())

    def _topic_rows(self, clause: str, values: tuple[Any, ...]) -> list[TopicRow]:
        columns = "id, name, config, passages, model, generation, next_seq, first_seq, records, bytes"
        with self.reading() as db:
            found = db.execute(f"SELECT {columns} FROM topic {clause}", values)
            return [TopicRow(r[0], r[1], orjson.loads(r[2]), *r[3:]) for r in found]

    def update_topic(self, id: int, **values: Any) -> None:
        """Set columns config (a mapping), passages, model or generation, all at once."""
        self.write(lambda db: set_columns(db, id, values))

    # ------------------------------------------------------------------ reading

    def rows(self, topic: int, start: int, limit: int, *, before: int | None = None) -> list[Row]:
        """At most `limit` records with seq >= `start` (and < `before`), in seq order; fewer where they are large."""
        first, end = topic << SEQ_BITS | start, (topic << SEQ_BITS) | (SEQ_MASK if before is None else max(before, 0))
        out: list[Row] = []
        size = 0
        with self.reading() as db:
            while len(out) < limit and size < _MOST_CHARS:
                part = _block(db, first, end, min(limit - len(out), _BLOCK))
                if not part:
                    break
                out += part
                size += sum(len(row.value) for row in part)
                first = part[-1].id + 1
        return out

    def heads(self, topic: int, partitions: int) -> tuple[int, ...]:
        """The next offset of each partition."""
        with self.reading() as db:
            known = dict(db.execute("SELECT partition, next_offset FROM head WHERE topic = ?", (topic,)))
        return tuple(known.get(partition, 0) for partition in range(partitions))

    def rows_before(self, topic: int, seq: int, limit: int) -> list[Row]:
        """The last `limit` records with seq < `seq`, in seq order."""
        low, high = topic << SEQ_BITS, topic << SEQ_BITS | seq
        query = f"SELECT {_COLUMNS} FROM record WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT ?"
        with self.reading() as db:
            return [Row._make(r) for r in reversed(list(db.execute(query, (low, high, limit))))]

    def rows_of(self, ids: Collection[int]) -> dict[int, Row]:
        """Records by id; those not retained are missing."""
        with self.reading() as db:
            found = db.execute(f"SELECT {_COLUMNS} FROM record WHERE id IN (SELECT value FROM json_each(?))", (in_list(ids),))
            return {r[0]: Row._make(r) for r in found}

    def vectors_of(self, ids: Collection[int]) -> dict[int, bytes]:
        """The vectors records brought along, as float32 bytes by record id."""
        with self.reading() as db:
            chosen = "vector IS NOT NULL AND id IN (SELECT value FROM json_each(?))"
            return dict(db.execute(f"SELECT id, vector FROM record WHERE {chosen}", (in_list(ids),)))

    def find(self, topic: TopicRow, partition: int, offset: int) -> Row:
        """The record at an address; NotFoundError says whether it never was or is no longer retained."""
        with self.reading() as db:
            seq: int | None = offset if partition == 0 else None
            if topic.config.get("partitions", 1) > 1:
                place = (topic.id, partition, offset)
                seq = db.execute("SELECT seq FROM spread WHERE topic = ? AND partition = ? AND offset = ?", place).get
            row = None
            if seq is not None and seq <= SEQ_MASK:
                row = db.execute(f"SELECT {_COLUMNS} FROM record WHERE id = ?", (topic.id << SEQ_BITS | seq,)).get
            if row is not None:
                return Row._make(row)
            head = db.execute("SELECT next_offset FROM head WHERE topic = ? AND partition = ?", (topic.id, partition)).get or 0
        gone = f"partition {partition} ends at offset {head - 1}" if head else f"partition {partition} has no records"
        if offset < head:
            gone = "it was deleted or is past its retention"
        raise NotFoundError(f"no record {address(topic.name, partition, offset)}: {gone}")

    def seq_at(self, topic: TopicRow, partition: int, offset: int) -> int:
        """The seq of the first record at or after an offset of a partition."""
        if topic.config.get("partitions", 1) == 1:
            return offset
        query = "SELECT seq FROM spread WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT 1"
        with self.reading() as db:
            found = db.execute(query, (topic.id, partition, offset)).get
        return topic.next_seq if found is None else int(found)

    def stored(self) -> dict[int, int]:
        """The next seq of every topic."""
        with self.reading() as db:
            return dict(db.execute("SELECT id, next_seq FROM topic"))

    def source_state(self, name: str) -> dict[str, Any] | None:
        """Where the source of that name resumes; None when it never ran."""
        with self.reading() as db:
            row = db.execute("SELECT state FROM source WHERE name = ?", (name,)).get
        return orjson.loads(row) if row is not None else None

    # ------------------------------------------------------------------ groups and dead letters

    def cursor(self, topic: int, group: str) -> int:
        """The next seq the group has to do; 0 for a new group."""
        with self.reading() as db:
            return int(db.execute("SELECT seq FROM cursor WHERE topic = ? AND name = ?", (topic, group)).get or 0)

    def cursors(self, topic: int) -> dict[str, int]:
        """Every group of a topic."""
        with self.reading() as db:
            return dict(db.execute("SELECT name, seq FROM cursor WHERE topic = ?", (topic,)))

    def dead_letters(self, topic: int | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """Newest first."""
        columns = "d.id, t.name, d.stage, d.reason, d.seq, d.source, d.payload, d.created_ms, r.partition, r.offset"
        with self.reading() as db:
            found = db.execute(
                f"SELECT {columns} FROM dead_letter d JOIN topic t ON t.id = d.topic"
                f" LEFT JOIN record r ON r.id = (d.topic << {SEQ_BITS}) + d.seq"
                " WHERE ?1 IS NULL OR d.topic = ?1 ORDER BY d.id DESC LIMIT ?2",
                (topic, limit),
            )
            return [
                DeadLetter(id, name, stage, reason, None if p is None else address(name, p, o), source, payload, from_ms(ms))
                for id, name, stage, reason, _, source, payload, ms, p, o in found
            ]

    def dead_letter(self, id: int) -> tuple[str, int | None]:
        """(topic name, seq) of a dead letter; NotFoundError."""
        with self.reading() as db:
            row = db.execute("SELECT t.name, d.seq FROM dead_letter d JOIN topic t ON t.id = d.topic WHERE d.id = ?", (id,)).get
        if row is None:
            raise NotFoundError(f"no dead letter {id}; `headwater dlq list` shows them")
        return row[0], row[1]

    def drop_dead_letter(self, id: int) -> None:
        """Forget a dead letter; NotFoundError."""
        self.dead_letter(id)
        self.write(lambda db: db.execute("DELETE FROM dead_letter WHERE id = ?", (id,)).get)

    def count_dead_letters(self) -> dict[int, int]:
        with self.reading() as db:
            return dict(db.execute("SELECT topic, count(*) FROM dead_letter GROUP BY topic"))

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _block(db: apsw.Connection, first: int, end: int, limit: int) -> list[Row]:
    """The next records as one JSON text: a statement lets go of the interpreter at every step, and with busy threads
    beside this one that costs more than the parsing."""
    chosen = f"SELECT {_COLUMNS} FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?"
    columns = _COLUMNS.replace("attributes", "CAST(attributes AS TEXT)")
    try:
        text = db.execute(f"SELECT json_group_array(json_array({columns})) FROM ({chosen})", (first, end, limit)).get
    except (apsw.TooBigError, apsw.NoMemError):
        return [Row._make(r) for r in db.execute(chosen, (first, end, 1))]
    rows = orjson.loads(text)
    for row in rows:
        if row[7] is not None:
            row[7] = row[7].encode()
    return list(map(Row._make, rows))


def in_list(values: Collection[int]) -> str:
    """Integers as JSON, for `IN (SELECT value FROM json_each(?))`: one statement whatever their number."""
    return orjson.dumps(list(values)).decode()


def set_cursor(db: apsw.Connection, topic: int, group: str, seq: int) -> None:
    """Move a group's cursor inside a write, so that it commits together with what the group has done."""
    db.execute("INSERT OR REPLACE INTO cursor VALUES(?,?,?)", (topic, group, seq))


def add_dead_letter(
    db: apsw.Connection,
    topic: int,
    stage: str,
    reason: str,
    payload: str,
    now_ms: int,
    *,
    seq: int | None = None,
    source: str | None = None,
) -> None:
    """Keep what could not be processed, inside a write."""
    columns = "topic, stage, reason, seq, source, payload, created_ms"
    db.execute(
        f"INSERT INTO dead_letter({columns}) VALUES(?,?,?,?,?,?,?)", (topic, stage, reason, seq, source, payload, now_ms)
    )


def set_columns(db: apsw.Connection, topic: int, values: Mapping[str, Any]) -> None:
    """Set columns of a topic inside a write: config (a mapping), passages, model, generation."""
    for column, value in values.items():
        if column not in ("config", "passages", "model", "generation"):
            raise UsageError(f"a topic has no column {column!r}")
        stored = orjson.dumps(dict(value)).decode() if column == "config" else value
        db.execute(f"UPDATE topic SET {column} = ? WHERE id = ?", (stored, topic))


def _encoded(drafts: Sequence[Draft]) -> list[bytes | None]:
    """The attributes of drafts as JSON. Most lines have a level and nothing else: each of those is encoded once."""
    levels: dict[Any, bytes] = {}
    out: list[bytes | None] = []
    for draft in drafts:
        attributes = draft[3]
        if not attributes:
            out.append(None)
        elif len(attributes) == 1 and type(level := attributes.get("level")) is str:
            if level not in levels:
                levels[level] = orjson.dumps({"level": level})
            out.append(levels[level])
        else:
            out.append(orjson.dumps(attributes))
    return out


def _partition(draft: Draft, seq: int, partitions: int) -> int:
    """The partition asked for, or by a stable hash of the key, or in turn where there is no key."""
    if draft.partition is not None:
        if not 0 <= draft.partition < partitions:
            raise UsageError(f"partition {draft.partition} does not exist; the topic has {partitions} (0 to {partitions - 1})")
        return draft.partition
    if partitions == 1:
        return 0
    return zlib.crc32(draft.key.encode("utf-8", "replace")) % partitions if draft.key is not None else seq % partitions
