"""Live search: the records that match a query, as they arrive. Watches stand on it.

Everything is read from the log in the order of seq, so nothing is missed between two deliveries and nothing is buffered: a
reader that is slow reads later. The cursor says for each topic which seq is to be judged next; from it another connection
goes on where this one ended.

A record is judged once. By words: its filters hold and all its words occur. By meaning: the passage it belongs to is at
least as near to the query as `min_score` asks, which is found out once for each passage; a template that generalises
inherits what was found of those it replaces. Judging by meaning waits until the record's passages are embedded.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio.to_thread
import numpy as np

from headwater.composed import LiveEvent
from headwater.embed import Embedder
from headwater.errors import NotFoundError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.log import browse
from headwater.log.store import Log, Row
from headwater.matching import matches
from headwater.query import Query, as_filters, parse, topics_of
from headwater.records import Hit, Mode, Passage, Record, from_ms
from headwater.search.finding import Finding
from headwater.search.planning import now_ms
from headwater.search.searching import unit_score
from headwater.stock import Stock
from headwater.vectors import VectorIndex

MIN_SCORE = 0.35  # of meaning, where the caller names none: paraphrases reach it with the default model, other subjects do not
_BLOCK = 500  # records judged at once
_JUDGED = 50_000  # passages whose nearness is remembered, for each topic
_QUIET_S = 5.0  # between two events that only move the cursor
_MODES = ("hybrid", "keyword", "semantic")
_PLACE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99}):(\d{1,15})")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is looked for: `topics` None are all, also those made later; `after` is the cursor of an earlier event."""

    query: Query
    mode: Mode
    topics: tuple[str, ...] | None
    min_score: float
    after: Mapping[str, int]

    @property
    def by_meaning(self) -> bool:
        return self.mode != "keyword" and bool(self.query.text)


@dataclass(slots=True)
class _Reading:
    """How far one topic has been judged, and what is known of its passages."""

    topic: TopicIndex
    at: int
    scores: dict[int, float] = field(default_factory=dict)


def wish(
    q: str,
    *,
    now_ms: int,
    topics: Sequence[str] | None = None,
    mode: Mode | None = None,
    filters: Mapping[str, object] | None = None,
    min_score: float | None = None,
    after: str | None = None,
) -> Wish:
    """Raises UsageError and QueryError."""
    query = parse(q, now_ms=now_ms)
    chosen = topics_of(query, topics)
    query = replace(query, filters=(*query.filters, *as_filters(filters or {})))
    mode = mode or query.mode or "hybrid"
    if mode not in _MODES:
        raise UsageError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
    if min_score is not None and not 0 <= min_score <= 1:
        raise UsageError("min_score must be between 0 and 1")
    least = MIN_SCORE if min_score is None else min_score
    return Wish(query, mode, None if chosen is None else tuple(dict.fromkeys(chosen)), least, _places(after))


def _places(cursor: str | None) -> dict[str, int]:
    """The seqs of a cursor `topic:seq,topic:seq`."""
    places: dict[str, int] = {}
    for part in (cursor or "").split(",") if cursor else ():
        if (found := _PLACE.fullmatch(part.strip())) is None:
            raise UsageError(f"{part[:40]!r} is not a place of a live search; a cursor is topic:seq, as in logs:42")
        places[found[1]] = int(found[2])
    return places


class Live:
    """Live searches over an engine's topics. `stored` and `indexed` give an event that is set at the next append and at the
    next progress of the indexer; whoever waits for one takes it before looking."""

    def __init__(
        self, log: Log, stock: Stock, indexer: Indexer, finding: Finding, stored: Callable[[], asyncio.Event | None]
    ) -> None:
        self._log, self._stock, self._indexer, self._finding, self._stored = log, stock, indexer, finding, stored

    async def events(self, wanted: Wish) -> AsyncIterator[LiveEvent]:
        """`ready` first, then each `hit`, `skipped` where records went before they could be judged, and `progress` now and
        then; ends when the engine closes. NotFoundError where a topic that was named is deleted."""
        vectors: dict[str, np.ndarray] = {}
        readings = await self._begin(wanted)
        if wanted.by_meaning:
            vectors, failed = await self._finding.meanings(wanted.query.text, [r.topic for r in readings.values()])
            if failed and not vectors and wanted.mode == "semantic":
                raise next(iter(failed.values()))
        told, told_at = _cursor(readings), time.monotonic()
        learn_at = told_at + _QUIET_S
        yield LiveEvent("ready", told)
        while (stored := self._stored()) is not None:
            indexed, moved = self._indexer.progress, False
            self._follow(wanted, readings)
            if time.monotonic() >= learn_at:
                learn_at = time.monotonic() + _QUIET_S
                await self._learn(wanted, readings, vectors)
            for name, reading in list(readings.items()):
                before = reading.at
                lost, found = await anyio.to_thread.run_sync(self._judge, wanted, reading, vectors)
                end = reading.at
                moved |= end > before
                if lost:
                    reading.at = before + lost
                    told = _cursor(readings)
                    yield LiveEvent("skipped", told, skipped=lost, topic=name)
                for seq, hit in found:
                    reading.at = seq + 1
                    told, told_at = _cursor(readings), time.monotonic()
                    yield LiveEvent("hit", told, hit)
                reading.at = end
            if (now := _cursor(readings)) != told and time.monotonic() - told_at > _QUIET_S:
                told, told_at = now, time.monotonic()
                yield LiveEvent("progress", told)
            if not moved:
                await _first_of(stored, indexed, None if now == told else _QUIET_S)

    async def _begin(self, wanted: Wish) -> dict[str, _Reading]:
        rows = {row.name: row for row in await anyio.to_thread.run_sync(self._log.topics)}
        readings = {}
        for topic in self._stock.choose(wanted.topics):
            start = wanted.after.get(topic.row.name)
            now = rows[topic.row.name].next_seq if topic.row.name in rows else 0
            if start is None and wanted.after:
                start = 0  # it was made after that cursor
            readings[topic.row.name] = _Reading(topic, now if start is None else min(start, now))
        return readings

    def _follow(self, wanted: Wish, readings: dict[str, _Reading]) -> None:
        """Topics come, go, and are opened anew."""
        present = {t.row.name: t for t in self._stock.choose(None)}
        for name, reading in list(readings.items()):
            now = present.get(name)
            if now is None or now.row.id != reading.topic.row.id:
                if wanted.topics is not None:
                    raise NotFoundError(f"topic {name!r} was deleted; its live search ends")
                del readings[name]
            elif now is not reading.topic:
                reading.topic, reading.scores = now, {}
        if wanted.topics is None:
            for name, topic in present.items():
                readings.setdefault(name, _Reading(topic, 0))

    async def _learn(self, wanted: Wish, readings: Mapping[str, _Reading], vectors: dict[str, np.ndarray]) -> None:
        """Embed the query for models that have come, or come back, since."""
        if wanted.by_meaning:
            topics = [r.topic for r in readings.values() if r.topic.error is None]
            new = [t for t in topics if any(e.name not in vectors for e, _ in t.shelves())]
            vectors |= (await self._finding.meanings(wanted.query.text, new))[0]

    # ------------------------------------------------------------------ judging, in a thread

    def _judge(self, wanted: Wish, reading: _Reading, vectors: Mapping[str, np.ndarray]) -> tuple[int, list[tuple[int, Hit]]]:
        """Judge the next records: how many went before they could be read, and (seq, hit) of those that match."""
        topic, row = reading.topic, self._log.topic(reading.topic.row.name)
        lost = max(row.first_seq - reading.at, 0)
        reading.at += lost
        upto = row.next_seq if not self._waits(wanted, topic) else min(topic.semantic, row.next_seq)
        if reading.at >= upto:
            return lost, []
        rows = self._log.rows(row.id, reading.at, _BLOCK, before=upto)
        reading.at = rows[-1].seq + 1 if rows else upto
        filters = replace(wanted.query, text="", mode=None) if wanted.by_meaning else wanted.query
        records = [(r, record) for r in browse.present(self._log, rows) if matches(filters, record := r.record(row.name))]
        if not records:
            return lost, []
        nearness = self._nearness(wanted, reading, [r for r, _ in records], vectors) if wanted.by_meaning else {}
        found = []
        for r, record in records:
            score, passage = nearness.get(r.id, (0.0, 0))
            worded = bool(wanted.query.text) and wanted.mode != "semantic" and matches(wanted.query, record)
            if worded or score >= wanted.min_score or not wanted.query.text:
                found.append((r.seq, _hit(topic, record, score, worded or not wanted.query.text, passage)))
        return lost, found

    @staticmethod
    def _waits(wanted: Wish, topic: TopicIndex) -> bool:
        """Whether records are judged only when their passages are embedded. While meaning is held up, words judge alone."""
        return wanted.by_meaning and topic.embedder is not None and (wanted.mode == "semantic" or topic.error is None)

    def _nearness(
        self, wanted: Wish, reading: _Reading, rows: Sequence[Row], vectors: Mapping[str, np.ndarray]
    ) -> dict[int, tuple[float, int]]:
        """(score, passage) of each record's nearest passage."""
        topic = reading.topic
        places = topic.catalogue.places([r.id for r in rows])
        passages = {topic.resolve(p.passage) for found in places.values() for p in found if p.passage}
        if len(reading.scores) > _JUDGED:
            reading.scores.clear()
        unknown = []
        for passage in passages - reading.scores.keys():
            earlier = [reading.scores[m] for m in topic.family(passage) if m in reading.scores]
            if earlier:
                reading.scores[passage] = max(earlier)
            else:
                unknown.append(passage)
        for embedder, index in topic.shelves():
            if unknown and (vector := vectors.get(embedder.name)) is not None:
                reading.scores |= self._measure(topic, embedder, index, vector, unknown)
        of = {id: [topic.resolve(p.passage) for p in found if p.passage] for id, found in places.items()}
        return {id: max((reading.scores.get(p, 0.0), p) for p in found) for id, found in of.items() if found}

    @staticmethod
    def _measure(
        topic: TopicIndex, embedder: Embedder, index: VectorIndex, vector: np.ndarray, passages: Sequence[int]
    ) -> dict[int, float]:
        members = {m: p for p in passages for m in topic.family(p)}
        near = index.search(vector, len(members), among=np.asarray(sorted(members), np.int64))
        scores: dict[int, float] = {}
        for id, similarity in zip(near.ids.tolist(), near.scores.tolist(), strict=True):
            passage = members[id]
            scores[passage] = max(scores.get(passage, 0.0), unit_score(topic, embedder, similarity))
        return scores


async def tail(
    log: Log, stock: Stock, stored: Callable[[], asyncio.Event | None], topic: str, q: str, *, after: str | None,
    from_start: bool,
) -> AsyncIterator[Record]:  # fmt: skip
    """As `Verbs.tail`; `stored` as for Live."""
    index, query = stock.find(topic), parse(q, now_ms=now_ms())
    start = 0 if from_start else (await anyio.to_thread.run_sync(log.topic, topic)).next_seq
    if after is not None:
        start = await anyio.to_thread.run_sync(browse.seq_after, log, topic, after)
    while (appended := stored()) is not None:
        if stock.find(topic).row.id != index.row.id:
            raise NotFoundError(f"topic {topic!r} was deleted, and another has its name now; follow that one")
        rows = await anyio.to_thread.run_sync(log.rows, index.row.id, start, browse.MOST_RECORDS)
        for row in await anyio.to_thread.run_sync(browse.present, log, rows) if rows else ():
            record = row.record(topic)
            if matches(query, record):
                yield record
        start = rows[-1].seq + 1 if rows else start
        if not rows:
            await appended.wait()


def _cursor(readings: Mapping[str, _Reading]) -> str:
    return ",".join(f"{name}:{reading.at}" for name, reading in sorted(readings.items()))


def _hit(topic: TopicIndex, record: Record, score: float, worded: bool, passage: int) -> Hit:
    """A record that matched. Its keyword score is 1 where all words occur, else 0."""
    row = topic.catalogue.rows([passage]).get(passage) if passage else None
    seen = Passage(0, "", 1, 1, record.timestamp, record.timestamp)
    if row is not None:
        seen = Passage(row.id, row.text, row.total, row.total, from_ms(row.first_ms), from_ms(row.last_ms))
    scores = {"keyword": 1.0 if worded else 0.0, "vector": round(score, 6)}
    return Hit(
        record.address, record.topic, record.partition, record.offset, record.timestamp, record.key, record.value,
        record.attributes, 1.0 if worded else round(score, 6), scores, None, seen,
    )  # fmt: skip


async def _first_of(stored: asyncio.Event, indexed: asyncio.Event, timeout_s: float | None) -> None:
    """Return when either event comes, or the time is up."""
    waiting = {asyncio.ensure_future(stored.wait()), asyncio.ensure_future(indexed.wait())}
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
