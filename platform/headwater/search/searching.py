"""Search: plan, match by words and by meaning, fuse, expand passages to their best records, say what was covered.

All of it is plain synchronous code over one candidate list for all topics. Fusion is per passage and on fixed scales,
so that a score means the same for every query:

    keyword  = 1 - exp(-BM25 / (1.2 * sqrt(attainable * rare)))   attainable: headwater.keyword.index.attainable of the words
    vector   = (cosine - floor) / (1 - floor), from 0 up          floor: what unrelated texts reach, Embedder.floor
    score    = w * vector + (1 - w) * keyword                     w: the topic's semantic_weight (hybrid mode)

`rare` is the BM25 of one word that a single text has. By `attainable` alone, one common word found would count as much as
six rare ones, and by `rare` alone a short query could never be sure: their geometric mean ranks as well as scaling each
query's list by its own best and worst does, while scores tell queries that have an answer from those that have none
(AUROC .81 on MTRAG, .75 by `attainable` alone; docs/benchmarks.md). It grows with neither the corpus nor its idf.

A request is answered from a pool of candidates: the best `pool` by words and the best `pool` by meaning, ranked together. When
a page reaches beyond it, the pool is widened and what is new is ranked behind what was there: a later page neither repeats nor
skips a hit of an earlier one, and its cursor carries the size of the first pool.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np

from headwater import telemetry
from headwater.embed import Embedder
from headwater.errors import UsageError, WaitTimeout
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex, Scope
from headwater.keyword.words import SATURATION
from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log
from headwater.query import Query
from headwater.records import Coverage, Mode, SearchReply, from_ms
from headwater.search.candidates import Nearness
from headwater.search.hits import Candidate, Expansion

_OVERFETCH = 4
_WIDER = 4  # times the pool before
_MOST_POOL = 4096
_BATCH = 50  # documents located at once while a page is cut
_EVIDENCE = 1.2  # geometric means of evidence that make a keyword score of 1 - 1/e
_ROUNDS = 8  # of fetching keyword hits while a few passages fill the list
_MOST_MATCHES = 4000  # keyword hits in one of them; beyond, up to _ENOUGH, where they are likely to do
_ENOUGH = 12_000
_SAMPLED = 200  # newest records of a topic whose field names are proposed for a mistyped one
_CURSOR = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,4}))?", re.ASCII)


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
    first_pool: int | None = None
    max_tokens: int | None = None  # of the reply
    by_vector: bool = False  # the caller gave a vector of its own: every neighbour counts, however far

    @property
    def words(self) -> str:
        """What is scored and embedded: the free words and the phrases as typed."""
        return self.query.text

    @property
    def pool(self) -> int:
        """How many candidates are ranked at first, of each kind: that of the first page on every page. By meaning alone
        the order does not change with it, unless several passages are one hit."""
        plain = self.mode == "semantic" and all(t.kind != "chunks" for t in self.topics)
        return self.first_pool or (self.top_k + 1 if plain else self.top_k * _OVERFETCH + 20)


@dataclass(slots=True)
class _Trace:
    """Timings in ms and numbers of candidates, for `explain`."""

    steps: dict[str, Any] = field(default_factory=dict)
    plans: list[dict[str, Any]] = field(default_factory=list)
    _at: float = field(default_factory=time.perf_counter)

    def lap(self, name: str, **numbers: Any) -> None:
        now = time.perf_counter()
        self.steps[name] = {"ms": round((now - self._at) * 1000, 3), **numbers}
        telemetry.stage(f"headwater.search.{name.split()[0]}", self._at, **numbers)
        self._at = now


class Searcher:
    """Searches the topics an indexer keeps. Thread-safe; holds no state of its own."""

    def __init__(self, log: Log, keyword: KeywordIndex) -> None:
        self._log, self._keyword = log, keyword
        self._nearness, self._expansion = Nearness(keyword), Expansion(log, keyword)

    def search(self, plan: Plan, vectors: Mapping[str, np.ndarray]) -> SearchReply:
        """The best passages of the plan. `vectors` has the query's `(d,)` unit vector for each embedding model in use."""
        trace = _Trace()
        for topic in plan.topics:
            topic.asked = time.monotonic()
        in_scope = self._keyword.count(plan.scope)
        trace.lap("scope", records=in_scope)
        if plan.words or vectors:
            page, more = self._best(plan, vectors, trace)
        else:
            page, more = self._newest(plan), max(in_scope - plan.skip - plan.top_k, 0)
        scope, parts = (plan.scope if is_narrow(plan) else None), _PARTS[plan.mode] if plan.words or vectors else ()
        hits = self._expansion.hits(page, scope, parts=parts, vectors=plan.include_vector)
        trace.lap("expand", hits=len(hits))
        if not hits:
            plan = replace(plan, notes=(*plan.notes, *self._why_empty(plan, in_scope)))
        told = {"mode": plan.mode, "pool": plan.pool, "steps": trace.steps, "plans": trace.plans} if plan.explain else None
        return SearchReply(hits, self.coverage(plan, in_scope, more), told)

    def _newest(self, plan: Plan) -> list[Candidate]:
        """Without words there is nothing to score: the newest records in scope, each a full match of what was asked."""
        by_id = {t.row.id: t for t in plan.topics}
        found = []
        for match in self._keyword.latest(plan.scope, limit=plan.skip + plan.top_k)[plan.skip :]:
            topic = by_id[match.topic]
            record = match.topic << SEQ_BITS | match.seq
            found.append(Candidate(topic, topic.resolve(match.passage), record=record, n=match.n, score=1.0))
        return found

    def _best(self, plan: Plan, vectors: Mapping[str, np.ndarray], trace: _Trace) -> tuple[list[Candidate], int]:
        """The wanted stretch of the ranking and how many more are known to match."""
        ranking = _Ranking(plan, self._keyword, self._nearness, vectors, trace)
        size, passed, end = plan.pool, -1, plan.skip + plan.top_k
        while True:
            complete = ranking.widen(size)
            passing = self._passing(plan, ranking.ranked)
            before, passed = passed, len(passing)
            if complete or passed > end or passed == before or size >= _MOST_POOL:
                return list(passing[plan.skip : end]), max(passed - end, 0)
            size = min(size * _WIDER, _MOST_POOL)

    def _passing(self, plan: Plan, ranked: Sequence[Candidate]) -> Sequence[Candidate]:
        """The ranking without what is below the floor asked for. Documents count as records: one hit each."""
        if plan.min_score is not None:
            ranked = [c for c in ranked if round(c.score, 6) >= plan.min_score]  # as hits show it
        return self._distinct(plan, ranked) if any(t.kind == "chunks" for t in plan.topics) else ranked

    def _distinct(self, plan: Plan, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best passage of each document."""
        scope = plan.scope if is_narrow(plan) else None
        seen: set[int] = set()
        distinct: list[Candidate] = []
        for start in range(0, len(ranked), _BATCH):
            part = ranked[start : start + _BATCH]
            self._expansion.locate([c for c in part if c.topic.kind == "chunks" and c.record is None], scope)
            for c in part:
                if c.topic.kind == "chunks":
                    if c.record is None or c.record in seen:
                        continue
                    seen.add(c.record)
                distinct.append(c)
        return distinct

    # ------------------------------------------------------------------ what is said

    def _why_empty(self, plan: Plan, in_scope: int) -> list[str]:
        """Notes on what may be the cause that nothing was found."""
        if not in_scope:
            return self._unknown_fields(plan)
        if plan.mode != "semantic":
            return []
        blind = [
            t.row.name for t in plan.topics if t.embedder is not None and not any(i.counts.vectors for _, i in t.shelves())
        ]
        return (
            [
                f"no passage of {', '.join(blind)} has a vector yet, so nothing can be found there by meaning alone; "
                "mode hybrid or keyword finds words"
            ]
            if blind
            else []
        )

    def _unknown_fields(self, plan: Plan) -> list[str]:
        """Names of fields that no record of the searched topics has, with the nearest that one has."""
        asked = dict.fromkeys(f.field for f in plan.scope.filters if f.op not in ("!=", "!prefix"))
        names = {"key", "level"}
        for topic in plan.topics:
            row = topic.row
            for record in self._log.rows_before(row.id, topic.stored, _SAMPLED):
                names.update(record.record(row.name).attributes)
        notes = []
        for name in asked:
            if name in ("partition", "offset", "topic") or self._keyword.has_field(Scope(plan.scope.topics), name):
                continue
            near = get_close_matches(name, names - {name}, 1)
            notes.append(f"no record has a field {name!r}" + (f"; nearest: {near[0]}" if near else ""))
        return notes

    def coverage(self, plan: Plan, in_scope: int, more: int) -> Coverage:
        """What this request covered, as of now. `more`: how many match, or at least so many, that are not in the reply."""
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
            if plain := ", ".join(t.row.name for t in plan.topics if t.embedder is None):
                told = "nothing is found by meaning" if plan.mode == "semantic" else "keyword search only"
                notes.append(f"{told} in {plain}: no embedding model")
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
            cursor_of(plan.skip + plan.top_k, plan.pool) if more else None,
            tuple(notes),
        )


_PARTS: Mapping[str, tuple[str, ...]] = {"keyword": ("keyword",), "semantic": ("vector",), "hybrid": ("keyword", "vector")}


class _Ranking:
    """The candidates of one search, ranked pool by pool."""

    def __init__(
        self, plan: Plan, keyword: KeywordIndex, nearness: Nearness, vectors: Mapping[str, np.ndarray], trace: _Trace
    ) -> None:
        self._plan, self._keyword, self._nearness, self._trace = plan, keyword, nearness, trace
        self._words = plan.words if plan.mode != "semantic" else ""
        self._vectors = vectors if plan.mode != "keyword" else {}
        self._narrow = is_narrow(plan)
        self._unit = self._evidence() if self._words else 0.0
        self._by_id = {t.row.id: t for t in plan.topics}
        self._sighted = {t.row.id for t in plan.topics if any(e.name in self._vectors for e, _ in t.shelves())}
        self._found: dict[tuple[int, int], Candidate] = {}
        self._all_words = False  # whether every passage with one of the words is found
        self.ranked: list[Candidate] = []

    def widen(self, size: int) -> bool:
        """Rank what the best `size` of each kind add, behind what is ranked already; True when there is nothing beyond."""
        before, complete = len(self._found), True
        again = "" if not before else f" {size}"
        if self._words:
            complete = self._all_words = self._by_words(size)
            self._trace.lap("keyword" + again, candidates=len(self._found))
        if self._vectors:
            complete = self._by_meaning(size) and complete
            self._trace.lap("semantic" + again, candidates=len(self._found))
        fresh = self._scored(list(self._found.values())[before:])
        if self._words and self._vectors:
            if not self._all_words:
                self._complete_keyword(fresh)
            self._complete_vectors(fresh)
            fresh = self._scored(fresh)
        self.ranked += sorted(fresh, key=_order)
        self._trace.lap("fuse" + again, passages=len(self.ranked))
        return complete

    # ------------------------------------------------------------------ candidates

    def _by_words(self, wanted: int) -> bool:
        """Keyword hits, collapsed to passages; passages that fill the list are shut out and the rest fetched again. True
        when no passage beyond has one of the words."""
        seen: set[tuple[int, int]] = set()
        full: list[int] = []
        limit = wanted * 2
        for _ in range(_ROUNDS):
            matches, more = self._keyword.best(self._words, self._plan.scope, limit=limit, exclude_passages=full)
            known = len(seen)
            for match in matches:
                topic = self._by_id[match.topic]
                passage = topic.resolve(match.passage)
                key = (match.topic, passage or -match.seq - 1)
                seen.add(key)
                if key not in self._found:
                    record = match.topic << SEQ_BITS | match.seq
                    self._found[key] = Candidate(topic, passage, self._keyword_score(match.score), record=record, n=match.n)
            if not more:
                return True
            if len(seen) >= wanted or len(seen) == known:
                return False
            full = [m for topic, passage in seen if passage > 0 for m in self._by_id[topic].family(passage)]
            likely = limit * (wanted - len(seen)) // (len(seen) - known)  # as many for each as those took
            limit = likely if limit < likely <= _ENOUGH else min(limit * 2, max(_MOST_MATCHES, wanted))
        return False

    def _by_meaning(self, wanted: int) -> bool:
        """The nearest passages of each topic that have a record in scope. True when there are no others."""
        complete, mode = True, self._plan.mode
        for topic in self._plan.topics:
            for embedder, index in topic.shelves():
                if (vector := self._vectors.get(embedder.name)) is None:
                    continue
                near = self._nearness.nearest(
                    topic, embedder.name, index, vector, wanted, self._plan.scope, narrow=self._narrow
                )  # fmt: skip
                complete = complete and near.complete
                self._trace.plans.append(near.told.as_dict())
                for passage, similarity, distance in near.found:
                    candidate = self._found.setdefault((topic.row.id, passage), Candidate(topic, passage))
                    if candidate.distance is None:
                        candidate.vector, candidate.distance = unit_score(topic, embedder, similarity), distance
                        candidate.given = self._plan.by_vector or (mode == "semantic" and embedder.name == "external")
        return complete

    # ------------------------------------------------------------------ fusion

    def _scored(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Candidates with their score, without those no better than unrelated texts are. A topic that is not `sighted`, for
        which no vector of the query could be had, is judged by words alone."""
        mode, kept = self._plan.mode, []
        for c in candidates:
            weight = {"keyword": 0.0, "semantic": 1.0}.get(mode, c.topic.config.semantic_weight)
            if mode == "hybrid" and c.topic.row.id not in self._sighted:
                weight = 0.0
            c.score = weight * c.vector + (1 - weight) * c.keyword
            if c.score > 0 or c.given:
                kept.append(c)
        return kept

    def _evidence(self) -> float:
        """The BM25 that makes a keyword score of 1 - 1/e for the words; 0 where none is known."""
        rare = SATURATION * math.log(1 + (self._keyword.documents + 0.5) / 1.5)  # the idf of a word in one document
        return _EVIDENCE * math.sqrt(self._keyword.attainable(self._words) * rare)

    def _keyword_score(self, bm25: float) -> float:
        return 1 - math.exp(-bm25 / self._unit) if self._unit > 0 else 0.0

    def _complete_keyword(self, ranked: Sequence[Candidate]) -> None:
        """Give passages found by meaning the keyword score of their best record."""
        missing = {(c.topic.row.id, c.passage): c for c in ranked if c.record is None}
        for _ in range(_ROUNDS):  # equal lines of a few passages may fill the list
            members = [m for c in missing.values() for m in c.topic.family(c.passage)]
            limit = len(members) * 4
            if not members:
                return
            matches, more = self._keyword.best(self._words, self._plan.scope, limit=limit, passages=members)
            for match in matches:
                candidate = missing.pop((match.topic, self._by_id[match.topic].resolve(match.passage)), None)
                if candidate is not None:
                    candidate.record, candidate.n = match.topic << SEQ_BITS | match.seq, match.n
                    candidate.keyword = self._keyword_score(match.score)
            if not more:
                return

    def _complete_vectors(self, ranked: Sequence[Candidate]) -> None:
        """Give passages found by words their similarity."""
        for topic in self._plan.topics:
            for embedder, index in topic.shelves():
                missing = {c.passage: c for c in ranked if c.topic is topic and c.distance is None and c.passage}
                if not missing or (vector := self._vectors.get(embedder.name)) is None:
                    continue
                members = sorted(m for passage in missing for m in topic.family(passage))
                near = index.search(vector, len(members), among=np.asarray(members, np.int64))
                for id, score, distance in zip(near.ids.tolist(), near.scores.tolist(), near.distances.tolist(), strict=True):
                    c = missing[topic.resolve(id)]
                    if c.distance is None:  # its nearest alias comes first
                        c.vector, c.distance = unit_score(topic, embedder, score), distance


def _order(c: Candidate) -> tuple[float, float, str, int]:
    """Best first; those given from outside by distance, else by name."""
    return -c.score, (c.distance or 0.0) if c.given else 0.0, c.topic.row.name, c.passage


def unit_score(topic: TopicIndex, embedder: Embedder, similarity: float) -> float:
    """A similarity on the 0-1 scale of scores: cosine above the model's floor. Vectors of models have length 1, so that the
    other metrics say what the cosine says and a score means the same in all; those of records (`external`) are squashed."""
    metric = topic.config.metric
    if embedder.name == "external" and metric != "cosine":
        return float(1 / (1 + np.exp(-similarity))) if metric == "dot" else min(max(similarity, 0.0), 1.0)
    if metric == "euclidean":  # the similarity is 1 / (1 + L2), and L2 squared is 2 - 2 cos
        similarity = 1 - (1 / max(similarity, 1e-6) - 1) ** 2 / 2
    return min(max((similarity - embedder.floor) / (1 - embedder.floor), 0.0), 1.0)


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


def cursor_of(passed: int, pool: int) -> str:
    """What leads behind the first `passed` hits of a ranking that began with a pool of that size."""
    return f"{passed}.{pool}"


def position_of(cursor: str | None) -> tuple[int, int | None]:
    """The number of hits before the page a cursor names, and the size of the first pool where it was made by a search."""
    if cursor is None:
        return 0, None
    parts = _CURSOR.fullmatch(cursor)
    pool = int(parts[2]) if parts is not None and parts[2] else None
    if parts is None or (pool is not None and not 0 < pool <= _MOST_POOL):
        raise UsageError("this cursor was not made by a search; leave it out to start over")
    return int(parts[1]), pool
