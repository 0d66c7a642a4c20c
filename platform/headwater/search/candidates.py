"""Which passages of a topic may be hits, and which of them lie nearest to a query: the plan of one search by meaning.

A filter is about records, the vector index knows passages. There are three ways to bring them together, and the cheapest by
the counts is taken (`Costs`):

    all         every record of the topic is in scope: the nearest passages are the answer
    exact       the passages in scope are listed from the keyword index, and only those compared (of tens of thousands, those
                that are foremost in a narrow copy of the vectors)
    overfetch   more of the nearest are fetched than wanted, and looked up in order whether they are in scope

When the values asked for shun the meaning asked for, over-fetching finds nothing however much it fetches. So what is found is
held against what was expected after every step, and once `exact` is the cheaper way from here, it is gone (`overfetch->exact`).
Passages are in scope by their records: a template is in a time range if one of its records is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex, Scope
from headwater.keyword.scope import reads_text
from headwater.vectors import Neighbours, VectorIndex
from headwater.vectors.narrow import NARROWED_FROM

Ints = npt.NDArray[np.int64]
MOST_FETCHED = 4096  # nearest passages asked of a vector index at once
SCAN_US = 0.25
_NARROW = 0.35  # part of a scan's cost that is left where a narrow copy chooses among many
_WIDENINGS = 2
_SPARE = 1.3  # more than expected to be needed is fetched
_LEAST = 32
_LEANS = 2  # times as many in scope as expected: filter and meaning go together
_RISK = 2  # a further look may find as little as the last: it has to cost so much less than comparing exactly


class Near(NamedTuple):
    """A surviving passage with its similarity to the query (larger is nearer) and its distance."""

    passage: int
    similarity: float
    distance: float


@dataclass(slots=True)
class Told:
    """How the nearest passages of one topic were found, for `explain`. Times in ms."""

    topic: str
    model: str
    plan: str
    why: str
    records: int
    passages: int
    widenings: int = 0
    steps: list[dict[str, Any]] = field(default_factory=list)
    _at: float = field(default_factory=time.perf_counter)

    def step(self, name: str, **numbers: int) -> None:
        """One step has been done, since the last one."""
        now = time.perf_counter()
        self.steps.append({"step": name, **numbers, "ms": round((now - self._at) * 1000, 3)})
        self._at = now

    def as_dict(self) -> dict[str, Any]:
        return {
            "topic": self.topic, "model": self.model, "plan": self.plan, "why": self.why, "records_in_scope": self.records,
            "passages": self.passages, "widenings": self.widenings, "steps": self.steps,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Costs:
    """What each way costs, in microseconds, by the counts; measured at 1,000,000 documents and 384 dimensions on 2 cores.
    Only their ratios matter.

    `records` of the topic's `documents` are in scope; it has `passages`. A search without candidates compares `scanned` of them
    one after the other and asks `graphs` graphs. `listed`: the passages in scope are known already. `narrow`: the part of the
    passages that has a narrow copy. `scan_us`: comparing one passage of 384 components that is not beside the one before.
    """

    records: int
    documents: int
    passages: int
    scanned: int
    graphs: int
    dimension: int
    listed: bool
    narrow: float = 0.0
    scan_us: float = SCAN_US

    @property
    def share(self) -> float:
        """The part of the passages expected in scope if filter and meaning have nothing to do with each other: the chance
        that one of a passage's records is."""
        each = max(self.documents / max(self.passages, 1), 1.0)
        part = min(self.records / max(self.documents, 1), 1.0)
        return float(max(1 - (1 - part) ** each, 1 / max(self.passages, 1)))

    @property
    def matches(self) -> float:
        """Occurrences in scope; a document counts once for each of its passages."""
        return self.records * max(self.passages / max(self.documents, 1), 1.0)

    @property
    def exact(self) -> float:
        """Listing the passages in scope and comparing them."""
        number = self.share * self.passages
        listing = 0.0 if self.listed else min(0.28 * self.matches, 0.03 * self.matches + 0.9 * self.passages)
        saved = self.narrow * (1 - _NARROW) if number >= NARROWED_FROM else 0.0
        return 500 + listing + self.scan_us * self.dimension / 384 * number * (1 - saved)

    def fetch(self, size: float) -> float:
        """Getting the `size` nearest of all passages."""
        return 200 + 0.08 * self.dimension / 384 * self.scanned + self.graphs * (1500 + 9 * size)

    def verify(self, number: float) -> float:
        """Looking up whether `number` passages are in scope."""
        return 50 if self.listed else 450 + number * (13 + 0.03 * self.matches / max(self.passages, 1))


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest passages of one topic, best first; `complete`: no further one of its passages is in scope."""

    found: list[Near]
    complete: bool
    told: Told


class Nearness:
    """Finds the nearest passages in scope. Thread-safe; holds no state of its own."""

    def __init__(self, keyword: KeywordIndex, *, scan_us: float = SCAN_US) -> None:
        """`scan_us`: see Costs."""
        self._keyword, self._scan_us = keyword, scan_us

    def nearest(
        self, topic: TopicIndex, model: str, index: VectorIndex, vector: np.ndarray, wanted: int, scope: Scope, *, narrow: bool
    ) -> Nearest:
        """The `wanted` nearest of the topic's passages that have a record in scope, which may hold other topics too. `narrow`:
        the scope has conditions."""
        documents = self._keyword.counts(Scope(scope.topics)).get(topic.row.id, 0)
        records = self._keyword.counts(scope).get(topic.row.id, 0) if narrow else documents
        scope = replace(scope, topics=(topic.row.id,))
        counts = index.counts
        told = Told(topic.row.name, model, "all", "every record is in scope", records, counts.vectors)
        search = _Search(topic, index, vector, wanted, told)
        if not counts.vectors or (narrow and not records):
            told.why = "no record is in scope" if counts.vectors else "no passage has a vector"
            return Nearest([], True, told)
        if not narrow or (records >= documents and not reads_text(scope) and not scope.before_seq):
            return search.all()
        graphs = [s for s in counts.segments if s.kind == "hnsw" and s.ready]
        scanned = counts.vectors - sum(s.living for s in graphs)
        listed = self._keyword.holds_passage_ids(scope)
        narrowed = sum(s.living for s in counts.segments if s.narrow) / counts.vectors
        costs = Costs(
            records, documents, counts.vectors, scanned, len(graphs), index.space.dimension, listed, narrowed, self._scan_us
        )
        size = min(_needed(wanted, costs.share), counts.vectors, MOST_FETCHED)
        over = costs.fetch(size) + costs.verify(wanted / costs.share)
        told.why = (
            f"{records:,} of {documents:,} records are in scope, about {costs.share:.2%} of the passages: "
            f"exact {costs.exact / 1000:.1f} ms, overfetch {over / 1000:.1f} ms expected"
        )
        if costs.exact > over:
            told.plan = "overfetch"
            reply = search.overfetch(size, costs, lambda ids: self._in_scope(topic, scope, ids, costs))
            if reply is not None:
                if not listed and search.rate > _LEANS * costs.share:  # the next may shun it
                    self._keyword.list_soon(scope, distinct=counts.vectors)
                return reply
            told.plan = "overfetch->exact"
        else:
            told.plan = "exact"
        ids = self._keyword.passage_ids(scope, distinct=counts.vectors)
        told.step("list", passages=len(ids))
        return search.exact(_families(topic, ids))

    def _in_scope(self, topic: TopicIndex, scope: Scope, passages: Collection[int], costs: Costs) -> set[int]:
        """Those of some surviving passages that have a record in scope."""
        members = [m for p in passages for m in topic.family(p)] if topic.aliases else list(passages)
        if costs.listed:
            inside = _among(np.asarray(members, np.int64), self._keyword.passage_ids(scope, distinct=costs.passages))
        else:
            inside = list(self._keyword.passages(scope, limit=len(members), passages=members))
        return {topic.resolve(p) for p in inside}


@dataclass(slots=True)
class _Search:
    """One search of one index."""

    topic: TopicIndex
    index: VectorIndex
    vector: np.ndarray
    wanted: int
    told: Told
    rate: float = 0.0  # of those that over-fetching looked up, the part in scope

    def all(self) -> Nearest:
        """The nearest passages that still have records."""
        size = self.wanted
        while True:
            near = self.index.search(self.vector, size)
            ranked = self._survivors(near)
            living = self.topic.catalogue.living(ranked)
            self.told.step("search", fetched=len(near.ids), in_scope=len(living))
            if len(living) >= self.wanted or len(near.ids) < size:
                return self._reply(near, ranked, living, len(near.ids) < size)
            size *= 4
            self.told.widenings += 1

    def exact(self, ids: Ints) -> Nearest:
        """The nearest of these passages."""
        size = self.wanted
        while len(ids):
            near = self.index.search(self.vector, size, among=ids)
            ranked = self._survivors(near)
            self.told.step("scan", compared=len(ids), in_scope=len(ranked))
            if len(ranked) >= self.wanted or len(near.ids) < size:
                return self._reply(near, ranked, ranked, len(near.ids) < size)
            size *= 2  # several of them were aliases of one passage
        return Nearest([], True, self.told)

    def overfetch(self, size: int, costs: Costs, in_scope: Callable[[Collection[int]], set[int]]) -> Nearest | None:
        """The nearest that are in scope, of more and more that are fetched; None once comparing exactly costs less."""
        looked: set[int] = set()
        inside: set[int] = set()

        def too_dear(cost: float) -> bool:
            return costs.exact < _RISK * cost

        def needed() -> int:
            # what was expected counts like one more look, so that no rate is nought or sure
            rate = (len(inside) + 1) / (len(looked) + 1 / costs.share)
            return _needed(self.wanted - len(inside), rate)

        while True:
            near = self.index.search(self.vector, size)
            ranked = self._survivors(near)
            rest = [passage for passage in ranked if passage not in looked]
            self.told.step("search", fetched=len(near.ids))
            while rest and len(inside) < self.wanted:
                more = needed()
                further = costs.fetch(len(looked) + more) if more > len(rest) else 0.0
                if looked and too_dear(costs.verify(more) + further):
                    return None
                part, rest = rest[:more], rest[more:]
                found = in_scope(part)
                looked.update(part)
                inside |= found
                self.told.step("look up", passages=len(part), in_scope=len(found))
            self.rate = len(inside) / max(len(looked), 1)
            complete = len(near.ids) < size or size >= costs.passages
            if len(inside) >= self.wanted or complete:
                return self._reply(near, ranked, inside, complete and not rest)
            if self.told.widenings == _WIDENINGS or size >= MOST_FETCHED:
                return None
            size = min(max(2 * size, len(looked) + needed()), MOST_FETCHED)
            if too_dear(costs.fetch(size) + costs.verify(size - len(looked))):
                return None
            self.told.widenings += 1

    def _survivors(self, near: Neighbours) -> dict[int, int]:
        """Surviving passage -> where its nearest vector stands in the reply, nearest first."""
        if not self.topic.aliases:
            return {passage: at for at, passage in enumerate(near.ids.tolist())}
        first: dict[int, int] = {}
        for at, passage in enumerate(near.ids.tolist()):
            first.setdefault(self.topic.resolve(passage), at)
        return first

    def _reply(self, near: Neighbours, ranked: dict[int, int], chosen: Collection[int], complete: bool) -> Nearest:
        """The first `wanted` of the chosen passages."""
        found = []
        for passage, at in ranked.items():
            if passage in chosen:
                found.append(Near(passage, float(near.scores[at]), float(near.distances[at])))
                if len(found) == self.wanted:
                    break
        return Nearest(found, complete and len(found) == len(chosen), self.told)


def _needed(wanted: float, rate: float) -> int:
    """How many to look at for `wanted` that are in scope."""
    return int(wanted / rate * _SPARE) + _LEAST


def _among(members: Ints, ids: Ints) -> list[int]:
    """Which of `members` are in the ascending `ids`."""
    if not len(ids):
        return []
    at = np.searchsorted(ids, members)
    at[at == len(ids)] = 0
    found: list[int] = members[ids[at] == members].tolist()
    return found


def _families(topic: TopicIndex, ids: Ints) -> Ints:
    """`ids` with all that are aliases of the same passages, ascending."""
    if not topic.aliases:
        return ids
    related = np.fromiter({*topic.aliases, *topic.families}, np.int64)
    touched = related[np.isin(related, ids, assume_unique=True)].tolist()
    members = {m for p in touched for m in topic.family(topic.resolve(p))}
    return np.union1d(ids, np.fromiter(members, np.int64, len(members)))
