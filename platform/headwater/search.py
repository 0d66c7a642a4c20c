"""Search: plan, match by words and by meaning, fuse, expand passages to their best records, say what was covered.

All of it is plain synchronous code over one candidate list for all topics. Fusion is per passage and on fixed scales,
so that a score means the same for every query:

    keyword  = 1 - exp(-BM25 / (1.2 * sqrt(attainable * rare)))   attainable: headwater.keyword.attainable of the words
    vector   = (cosine - floor) / (1 - floor), from 0 up          floor: what unrelated texts reach, Embedder.floor
    score    = w * vector + (1 - w) * keyword                     w: the topic's semantic_weight (hybrid mode)

`rare` is the BM25 of one word that a single text has. By `attainable` alone, one common word found would count as much as
six rare ones, and by `rare` alone a short query could never be sure: their geometric mean ranks as well as scaling each
query's list by its own best and worst does, while scores tell queries that have an answer from those that have none
(AUROC .81 on MTRAG, .75 by `attainable` alone; docs/benchmarks.md). It grows with neither the corpus nor its idf.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headwater.catalogue import PassageRow, Place
from headwater.embed import Embedder
from headwater.errors import UsageError, WaitTimeout
from headwater.keyword import KeywordIndex, Scope
from headwater.keyword_words import SATURATION
from headwater.log import Log, Row
from headwater.query import Query
from headwater.records import Coverage, Hit, Mode, Passage, SearchReply, Span, from_ms
from headwater.schema import SEQ_BITS
from headwater.topicindex import TopicIndex
from headwater.vectors import VectorIndex

SELECTIVE_RECORDS = 20_000  # fewer records in scope than this: their passages are scanned exactly
_OVERFETCH = 4
_EVIDENCE = 1.2  # geometric means of evidence that make a keyword score of 1 - 1/e
_ROUNDS = 8  # of fetching keyword hits while a few passages fill the list
_MOST_MATCHES = 4000  # keyword hits in one of them


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search does: the parsed query, the topics, the scope every hit must be in, and how many hits are wanted."""

    query: Query
    topics: tuple[TopicIndex, ...]
    scope: Scope
    mode: Mode
    top_k: int
    skip: int = 0
    min_score: float | None = None
    include_vector: bool = False
    explain: bool = False
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What is scored and embedded: the free words and the phrases as typed."""
        return self.query.text


@dataclass(slots=True)
class _Candidate:
    """A passage on its way to becoming a hit. `record` and `n` name its best record once known."""

    topic: TopicIndex
    passage: int
    keyword: float = 0.0
    vector: float = 0.0
    distance: float | None = None
    record: int | None = None
    n: int = 0
    score: float = 0.0


@dataclass(slots=True)
class _Trace:
    """Timings in ms and numbers of candidates, for `explain`."""

    steps: dict[str, Any] = field(default_factory=dict)
    _at: float = field(default_factory=time.perf_counter)

    def lap(self, name: str, **numbers: Any) -> None:
        now = time.perf_counter()
        self.steps[name] = {"ms": round((now - self._at) * 1000, 3), **numbers}
        self._at = now


class Searcher:
    """Searches the topics an indexer keeps. Thread-safe; holds no state of its own."""

    def __init__(self, log: Log, keyword: KeywordIndex) -> None:
        self._log, self._keyword = log, keyword

    def search(self, plan: Plan, vectors: Mapping[str, np.ndarray]) -> SearchReply:
        """The best passages of the plan. `vectors` has the query's `(d,)` unit vector for each embedding model in use."""
        trace = _Trace()
        in_scope = self._keyword.count(plan.scope)
        trace.lap("scope", records=in_scope)
        found: dict[tuple[int, int], _Candidate] = {}
        wanted = (plan.top_k + plan.skip) * _OVERFETCH + 20
        words = plan.words
        if plan.mode != "semantic" and words:
            self._by_words(plan, words, wanted, found)
            trace.lap("keyword", candidates=len(found))
        if plan.mode != "keyword" and vectors:
            self._by_meaning(plan, vectors, wanted, in_scope, found)
            trace.lap("semantic", candidates=len(found))
        if not words and not vectors:
            self._by_time(plan, wanted, found)
        sighted = {t.row.id for t in plan.topics if any(e.name in vectors for e, _ in t.shelves())}
        ranked = self._rank(plan, found.values(), sighted=sighted, by_time=not words and not vectors)
        if vectors and plan.mode != "keyword" and words and plan.mode != "semantic":
            self._complete_keyword(plan, words, ranked)
            self._complete_vectors(plan, vectors, ranked)
            ranked = self._rank(plan, ranked, sighted=sighted, by_time=False)
        trace.lap("fuse", passages=len(ranked))
        page, more = self._page(plan, ranked)
        if not words and not vectors:
            more = max(in_scope - plan.skip - len(page), 0)  # every record in scope matches
        hits = self._expand(plan, page)
        trace.lap("expand", hits=len(hits))
        return SearchReply(
            hits, self.coverage(plan, in_scope, more), {"mode": plan.mode, "steps": trace.steps} if plan.explain else None
        )

    # ------------------------------------------------------------------ candidates

    def _by_words(self, plan: Plan, words: str, wanted: int, found: dict[tuple[int, int], _Candidate]) -> None:
        """Keyword hits, collapsed to passages; passages that fill the list are shut out and the rest fetched again."""
        unit = self._evidence(words)
        by_id = {t.row.id: t for t in plan.topics}
        full: list[int] = []
        for round in range(_ROUNDS):
            limit = min(wanted * 2 << round, _MOST_MATCHES)
            matches = self._keyword.match(words, plan.scope, limit=limit, exclude_passages=full)
            fresh = False
            for match in matches:
                topic = by_id[match.topic]
                passage = topic.resolve(match.passage)
                key = (match.topic, passage or -match.seq - 1)
                candidate = found.get(key)
                if candidate is None:
                    fresh = True
                    score = 1 - math.exp(-match.score / unit) if unit > 0 else 0.0
                    found[key] = _Candidate(topic, passage, score, record=match.topic << SEQ_BITS | match.seq, n=match.n)
            if len(matches) < limit or len(found) >= wanted or not fresh:
                return
            full = [id for c in found.values() if c.passage for id in c.topic.family(c.passage)]

    def _by_meaning(
        self,
        plan: Plan,
        vectors: Mapping[str, np.ndarray],
        wanted: int,
        in_scope: int,
        found: dict[tuple[int, int], _Candidate],
    ) -> None:
        """Nearest passages of each topic that have a record in scope."""
        narrow = is_narrow(plan)
        for topic in plan.topics:
            for embedder, index in topic.shelves():
                if (vector := vectors.get(embedder.name)) is None:
                    continue
                for passage, score, distance in self._nearest(plan, topic, index, vector, wanted, in_scope if narrow else None):
                    key = (topic.row.id, passage)
                    if key not in found:
                        found[key] = _Candidate(topic, passage)
                    if found[key].distance is None:
                        found[key].vector, found[key].distance = unit_score(topic, embedder, score), distance

    def _nearest(
        self, plan: Plan, topic: TopicIndex, index: VectorIndex, vector: np.ndarray, wanted: int, in_scope: int | None
    ) -> list[tuple[int, float, float]]:
        """(passage, similarity, distance), best first. `in_scope` None: every live passage of the topic is in scope."""
        scope = replace(plan.scope, topics=(topic.row.id,))
        if in_scope is not None and in_scope <= SELECTIVE_RECORDS:
            among = {topic.resolve(p) for p in self._keyword.passages(scope, limit=SELECTIVE_RECORDS) if p}
            ids = np.fromiter({m for p in among for m in topic.family(p)}, np.int64)
            if not len(ids):
                return []
            near = index.search(vector, wanted, among=np.sort(ids))
            return self._live(topic, near.ids, near.scores, near.distances, wanted)
        size = wanted
        while True:
            near = index.search(vector, size)
            live = self._live(topic, near.ids, near.scores, near.distances, size)
            if in_scope is not None and live:
                members = [m for p, _, _ in live for m in topic.family(p)]
                inside = {topic.resolve(p) for p in self._keyword.passages(scope, limit=len(members), passages=members)}
                live = [item for item in live if item[0] in inside]
            if len(live) >= wanted or len(near.ids) < size:
                return live[:wanted]
            size *= 4

    def _live(
        self, topic: TopicIndex, ids: np.ndarray, scores: np.ndarray, distances: np.ndarray, limit: int
    ) -> list[tuple[int, float, float]]:
        """Surviving passages that still have records, each once with its best score."""
        best: dict[int, tuple[int, float, float]] = {}
        for id, score, distance in zip(ids.tolist(), scores.tolist(), distances.tolist(), strict=True):
            passage = topic.resolve(id)
            if passage not in best:
                best[passage] = (passage, score, distance)
        rows = topic.catalogue.rows(best)
        return [item for p, item in best.items() if p in rows and rows[p].total > 0][:limit]

    def _by_time(self, plan: Plan, wanted: int, found: dict[tuple[int, int], _Candidate]) -> None:
        """Without words there is nothing to score: the newest records in scope."""
        by_id = {t.row.id: t for t in plan.topics}
        for match in self._keyword.latest(plan.scope, limit=wanted):
            topic = by_id[match.topic]
            record = match.topic << SEQ_BITS | match.seq
            found[(match.topic, -match.seq - 1)] = _Candidate(topic, topic.resolve(match.passage), record=record, n=match.n)

    # ------------------------------------------------------------------ fusion

    def _rank(
        self, plan: Plan, candidates: Iterable[_Candidate], *, sighted: Collection[int], by_time: bool
    ) -> list[_Candidate]:
        """Candidates by score, best first. A topic that is not `sighted`, for which no vector of the query could be had,
        is judged by words alone."""
        ranked = list(candidates)
        for c in ranked:
            weight = {"keyword": 0.0, "semantic": 1.0}.get(plan.mode, c.topic.config.semantic_weight)
            if plan.mode == "hybrid" and c.topic.row.id not in sighted:
                weight = 0.0
            c.score = weight * c.vector + (1 - weight) * c.keyword
        if by_time:
            return ranked
        ranked = [c for c in ranked if c.score > 0]  # no better than unrelated texts are
        return sorted(ranked, key=lambda c: (-c.score, c.topic.row.name, c.passage))

    def _complete_keyword(self, plan: Plan, words: str, ranked: Sequence[_Candidate]) -> None:
        """Give passages found by meaning the keyword score of their best record."""
        missing = {(c.topic.row.id, c.passage): c for c in ranked if c.record is None}
        if not missing:
            return
        unit = self._evidence(words)
        members = [m for c in missing.values() for m in c.topic.family(c.passage)]
        by_id = {t.row.id: t for t in plan.topics}
        for match in self._keyword.match(words, plan.scope, limit=len(members) * 4, passages=members):
            candidate = missing.get((match.topic, by_id[match.topic].resolve(match.passage)))
            if candidate is not None and candidate.record is None:
                candidate.record, candidate.n = match.topic << SEQ_BITS | match.seq, match.n
                candidate.keyword = 1 - math.exp(-match.score / unit) if unit > 0 else 0.0

    def _evidence(self, words: str) -> float:
        """The BM25 that makes a keyword score of 1 - 1/e for these words; 0 where none is known."""
        rare = SATURATION * math.log(1 + (self._keyword.documents + 0.5) / 1.5)  # the idf of a word in one document
        return _EVIDENCE * math.sqrt(self._keyword.attainable(words) * rare)

    def _complete_vectors(self, plan: Plan, vectors: Mapping[str, np.ndarray], ranked: Sequence[_Candidate]) -> None:
        """Give passages found by words their similarity."""
        for topic in plan.topics:
            for embedder, index in topic.shelves():
                missing = {c.passage: c for c in ranked if c.topic is topic and c.distance is None and c.passage}
                if not missing or (vector := vectors.get(embedder.name)) is None:
                    continue
                near = index.search(vector, len(missing), among=np.asarray(sorted(missing), np.int64))
                for id, score, distance in zip(near.ids.tolist(), near.scores.tolist(), near.distances.tolist(), strict=True):
                    missing[id].vector, missing[id].distance = unit_score(topic, embedder, score), distance

    def _page(self, plan: Plan, ranked: list[_Candidate]) -> tuple[list[_Candidate], int]:
        """The wanted stretch of the ranking and how many lie behind it. Documents count as records: one hit each."""
        if plan.min_score is not None:
            ranked = [c for c in ranked if round(c.score, 6) >= plan.min_score]  # as hits show it
        seen: set[int] = set()
        distinct: list[_Candidate] = []
        for c in ranked:
            if c.topic.kind == "chunks":
                self._locate(plan, [c])
                if c.record is None or c.record in seen:
                    continue
                seen.add(c.record)
            distinct.append(c)
            if len(distinct) > plan.skip + plan.top_k + 200:
                break
        end = plan.skip + plan.top_k
        return distinct[plan.skip : end], max(len(distinct) - end, 0)

    # ------------------------------------------------------------------ expansion

    def _locate(self, plan: Plan, candidates: Sequence[_Candidate]) -> None:
        """Find the newest record in scope of each passage that has none yet."""
        narrow = is_narrow(plan)
        for c in candidates:
            if c.record is not None:
                continue
            if not narrow:
                for place in c.topic.catalogue.latest(c.topic.family(c.passage)):
                    c.record, c.n = place.record, place.n
                continue
            scope = replace(plan.scope, topics=(c.topic.row.id,))
            for match in self._keyword.latest(scope, limit=1, passages=c.topic.family(c.passage)):
                c.record, c.n = c.topic.row.id << SEQ_BITS | match.seq, match.n

    def _expand(self, plan: Plan, page: Sequence[_Candidate]) -> tuple[Hit, ...]:
        self._locate(plan, page)
        rows = self._log.rows_of([c.record for c in page if c.record is not None])
        hits = []
        for topic in dict.fromkeys(c.topic for c in page):
            mine = [c for c in page if c.topic is topic]
            passages = topic.catalogue.rows([c.passage for c in mine])
            places = topic.catalogue.places([c.record for c in mine if c.record is not None])
            counts = self._counts(plan, topic, [c.passage for c in mine if c.passage])
            for c in mine:
                if c.record is not None and (row := rows.get(c.record)) is not None:
                    hits.append(
                        (page.index(c), self._hit(plan, c, row, passages.get(c.passage), places.get(c.record, ()), counts))
                    )
        return tuple(hit for _, hit in sorted(hits, key=lambda item: item[0]))

    def _counts(self, plan: Plan, topic: TopicIndex, passages: Sequence[int]) -> dict[int, int] | None:
        """Records in scope of each passage; None where every record of the topic is in scope."""
        if not is_narrow(plan) or not passages:
            return None
        members = [m for p in passages for m in topic.family(p)]
        counts: dict[int, int] = {}
        scope = replace(plan.scope, topics=(topic.row.id,))
        for member, count in self._keyword.passages(scope, limit=len(members), passages=members).items():
            counts[topic.resolve(member)] = counts.get(topic.resolve(member), 0) + count
        return counts

    def _hit(
        self,
        plan: Plan,
        c: _Candidate,
        row: Row,
        passage: PassageRow | None,
        places: Sequence[Place],
        counts: Mapping[int, int] | None,
    ) -> Hit:
        record = row.record(c.topic.row.name)
        place = next((p for p in places if p.n == c.n), None)
        if passage is None:
            seen = Passage(0, "", 1, 1, record.timestamp, record.timestamp)
        else:
            count = passage.total if counts is None else counts.get(c.passage, 1)
            seen = Passage(passage.id, passage.text, count, passage.total, from_ms(passage.first_ms), from_ms(passage.last_ms))
        scores = {
            name: round(v, 6)
            for name, v in (("keyword", c.keyword), ("vector", c.vector))
            if plan.mode in ("hybrid", _MODE_OF[name])
        }
        vector = None
        if plan.include_vector and c.topic.vectors is not None and c.passage:
            ids, found = c.topic.catalogue.vectors([c.passage])
            vector = tuple(found[0].tolist()) if len(ids) else None
        return Hit(
            record.address,
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.attributes,
            round(c.score, 6),
            scores,
            c.distance,
            seen,
            Span(place.start, place.stop) if place is not None and place.start is not None and place.stop is not None else None,
            vector,
        )

    def coverage(self, plan: Plan, in_scope: int, more: int) -> Coverage:
        """What this request covered, as of now."""
        watermark = {t.row.name: t.watermark() for t in plan.topics}
        backlog = sum(max(w.stored - w.semantic, 0) for w in watermark.values())
        notes = [*plan.query.notes, *plan.notes]
        unread = sum(max(w.stored - w.keyword, 0) for w in watermark.values())
        if unread:
            notes.append(f"{unread} records are stored but not yet searchable")
        if backlog > unread and plan.mode != "keyword":
            notes.append(f"{backlog - unread} records are found by their words only, their meaning is still being read")
        if plan.mode != "keyword":
            notes.extend(f"meaning search of {t.row.name} is held up: {t.error}" for t in plan.topics if t.error)
        if plan.mode != "keyword" and (plain := [t.row.name for t in plan.topics if t.embedder is None]):
            notes.append(f"keyword search only in {', '.join(plain)}: no embedding model")
        since, until = plan.scope.since_ms, plan.scope.until_ms
        return Coverage(
            watermark,
            backlog,
            tuple(watermark),
            None if since is None else from_ms(since),
            None if until is None else from_ms(until),
            in_scope,
            more,
            more > 0,
            str(plan.skip + plan.top_k) if more else None,
            tuple(notes),
        )


_MODE_OF = {"keyword": "keyword", "vector": "semantic"}


def unit_score(topic: TopicIndex, embedder: Embedder, similarity: float) -> float:
    """A similarity on the 0-1 scale of scores: cosine above the model's floor; other metrics squashed to it."""
    if topic.config.metric == "cosine":
        floor = embedder.floor
        return min(max((similarity - floor) / (1 - floor), 0.0), 1.0)
    if topic.config.metric == "dot":
        return float(1 / (1 + np.exp(-similarity)))
    return float(1 / (1 + max(-similarity, 0.0)))


def meaning_of(log: Log, topic: TopicIndex, partition: int, offset: int) -> tuple[np.ndarray, set[int]]:
    """A record's mean vector `(d,)` and its passages; WaitTimeout while none of them is embedded."""
    row = log.find(log.topic(topic.row.name), partition, offset)
    own = {topic.resolve(p.passage) for p in topic.catalogue.places([row.id]).get(row.id, ())}
    ids, found = topic.catalogue.vectors([m for p in own for m in topic.family(p)])
    if not len(ids):
        raise WaitTimeout(f"{topic.row.name}/{partition}/{offset} is not embedded yet; try again in a moment")
    vector = found.mean(axis=0)
    return vector / (np.linalg.norm(vector) or 1.0), own


def is_narrow(plan: Plan) -> bool:
    """Whether the scope leaves out some records of its topics."""
    s = plan.scope
    return bool(s.filters or s.phrases or s.excluded or s.since_ms is not None or s.until_ms is not None or s.before_seq)


def skip_of(cursor: str | None) -> int:
    """The number of hits before the page a cursor names."""
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 6:
        raise UsageError("this cursor was not made by a search; leave it out to start over")
    return int(cursor)
