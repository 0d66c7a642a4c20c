"""Whether records are what watches wait for, judged for all watches together.

By words: an index of the word of each watch that the fewest others need, or else of the value of a field, says which few
watches a record is compared with. By meaning: the vectors of watches are compared with a passage once, when its first
record is judged; passages near to no watch cost their records nothing more. Scores do not depend on batches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import orjson

from headwater.embed import Embedder
from headwater.index.topic import TopicIndex
from headwater.log import watches as watch_store
from headwater.log.store import Log, Row
from headwater.log.watches import Spec, State
from headwater.matching import Words, folded, in_scope, matches
from headwater.query import Query, text_of
from headwater.records.levels import canonical_level
from headwater.records.watches import Why

_WORD = re.compile(r"\w+")
_JUDGED = 50_000  # passages whose near watches are remembered, for each topic


@dataclass(slots=True, eq=False)
class Standing:
    """A watch as it is judged. `scope` is its query without the free words that meaning stands for; `deaf` says why it cannot
    be compared by meaning."""

    id: int
    name: str
    spec: Spec
    query: Query
    state: State
    created_ms: int
    expires_ms: int | None
    owner: str | None
    deaf: str | None = None
    scope: Query = field(init=False)
    words: Words = field(init=False)
    joined: dict[int, int] = field(default_factory=dict)  # passage like its record's -> seq from which it was known as such

    def __post_init__(self) -> None:
        self.scope = replace(self.query, text="", mode=None)
        self.words = Words.of(self.query)

    @property
    def by_words(self) -> bool:
        """Whether a record may match by its words and fields alone."""
        return self.spec.like is None and (self.spec.mode != "semantic" or not self.query.text)

    @property
    def by_meaning(self) -> bool:
        return self.spec.like is not None or (self.spec.mode != "keyword" and bool(self.query.text))

    def concerns(self, topic: str) -> bool:
        return self.spec.topics is None or topic in self.spec.topics

    @property
    def text(self) -> str | None:
        """What is embedded of it; None once that was purged."""
        return self.query.text if self.spec.like is None else self.spec.like.text


class Match(NamedTuple):
    """A record that a watch waits for."""

    watch: Standing
    row: Row
    why: Why
    score: float


class WordIndex:
    """Which of some watches a record may match by words and fields."""

    def __init__(self, watches: Sequence[Standing]) -> None:
        self._by_word: dict[str, list[Standing]] = {}
        self._by_field: dict[str, dict[str, list[Standing]]] = {}
        self._others: list[Standing] = []
        needed = {watch: {word for text in watch.words.needed for word in text.split()} for watch in watches}
        used = Counter(word for words in needed.values() for word in words)
        for watch, words in needed.items():
            self._enter(watch, words, used)
        self._words = frozenset(self._by_word)

    def _enter(self, watch: Standing, words: Collection[str], used: Mapping[str, int]) -> None:
        if words:
            rarest = min(words, key=lambda word: (used[word], -len(word), word))
            self._by_word.setdefault(rarest, []).append(watch)
            return
        for condition in watch.query.filters:
            if condition.op == "=":
                values = self._by_field.setdefault(condition.field, {})
                for text in condition.texts():
                    values.setdefault(text, []).append(watch)
                return
        self._others.append(watch)

    def matching(self, rows: Sequence[Row], topic: str) -> Iterator[tuple[Standing, Row]]:
        """Every watch with each record that it matches, record by record."""
        decoded: dict[bytes | None, Mapping[str, Any]] = {None: {}}
        for row in rows:
            words = _WORD.findall(row.value.lower()) if self._words else []
            found = [watch for word in self._words.intersection(words) for watch in self._by_word[word]]
            if self._by_field:
                found += self._by_fields(row, topic, decoded)
            if found or self._others:
                yield from self._checked([*found, *self._others], row, topic)

    def _by_fields(self, row: Row, topic: str, decoded: dict[bytes | None, Mapping[str, Any]]) -> Iterator[Standing]:
        if (attributes := decoded.get(row.attributes)) is None:
            assert row.attributes is not None
            attributes = decoded[row.attributes] = orjson.loads(row.attributes)
        for name, watches in self._by_field.items():
            known: Mapping[str, Any] = {"key": row.key, "partition": row.partition, "offset": row.offset, "topic": topic}
            value = known[name] if name in known else attributes.get(name)
            if value is not None:
                text = text_of(canonical_level(str(value)) if name == "level" else value)
                yield from watches.get(text, ())

    @staticmethod
    def _checked(found: Collection[Standing], row: Row, topic: str) -> Iterator[tuple[Standing, Row]]:
        text = folded(row.value)
        worded = [watch for watch in dict.fromkeys(found) if watch.words.occur_in(text)]
        if worded:
            record = row.record(topic)
            yield from ((watch, row) for watch in worded if in_scope(watch.query, record))


class Judge:
    """Judges the records of one topic for the watches that concern it. Plain synchronous code. `vectors` are those of
    watches, `(d,)` by (model, watch id)."""

    def __init__(
        self, log: Log, topic: TopicIndex, watches: Sequence[Standing], vectors: Mapping[tuple[str, int], np.ndarray]
    ) -> None:
        self._log, self.topic, self.watches, self._vectors = log, topic, watches, vectors
        self._words: dict[frozenset[int], WordIndex] = {}
        self._near: dict[int, tuple[tuple[Standing, float], ...]] = {}
        self.behind = {w for w in watches if topic.row.id in w.state.own}  # those with places of their own
        self._ready = False
        self._matrix: tuple[list[Standing], np.ndarray, np.ndarray] | None = None

    @property
    def measures(self) -> bool:
        """Whether passages of this topic are compared by meaning."""
        return self.topic.embedder is not None and self.topic.embedder.name != "external"

    def waits_for(self) -> list[Standing]:
        """Watches whose vector by the topic's model is still to come: nothing is judged by meaning before."""
        if self._ready or not self.measures:
            return []
        assert self.topic.embedder is not None
        name = self.topic.embedder.name
        wanted = (w for w in self.watches if w.by_meaning and w.deaf is None and w.text is not None)
        missing = [w for w in wanted if (name, w.id) not in self._vectors]
        self._ready = not missing
        return missing

    # ------------------------------------------------------------------ by words

    def by_words(self, watches: Sequence[Standing], start: int, end: int) -> Iterator[Match]:
        """Records with seq in `[start, end)` that match by words and fields, or have the pattern a watch looks for."""
        id, name = self.topic.row.id, self.topic.row.name
        like = [w for w in watches if w.spec.like is not None and w.spec.like.topic == id]
        if like:
            yield from self._by_pattern(like, start, end)
        worded = [w for w in watches if w.by_words]
        if not worded:
            return
        key = frozenset(w.id for w in worded)
        if key not in self._words:
            if len(self._words) > 8:
                self._words.clear()
            self._words[key] = WordIndex(worded)
        rows = self._log.rows(id, start, max(end - start, 1), before=end)
        while rows:
            for watch, row in self._words[key].matching(rows, name):
                if row.seq >= watch.state.starts.get(id, 0):
                    yield Match(watch, row, "words" if watch.query.text else "filters", 1.0)
            rows = self._log.rows(id, rows[-1].seq + 1, end - start, before=end) if rows[-1].seq + 1 < end else []

    def _by_pattern(self, watches: Sequence[Standing], start: int, end: int) -> Iterator[Match]:
        wanted: dict[int, list[Standing]] = {}
        for watch in watches:
            assert watch.spec.like is not None
            since = start if watch.joined else 0  # those known at first have always been compared
            for passage in {m for p in watch.spec.like.passages for m in self.topic.family(self.topic.resolve(p))}:
                watch.joined.setdefault(passage, since)
                wanted.setdefault(passage, []).append(watch)
        found = watch_store.records_with(self._log, self.topic.row.id, start, end, wanted)
        rows = self._log.rows_of(found.keys())
        for record in sorted(rows):
            for watch in dict.fromkeys(w for p in found[record] for w in wanted[p]):
                if self._is_meant(watch, rows[record]):
                    yield Match(watch, rows[record], "pattern", 1.0)

    def _is_meant(self, watch: Standing, row: Row) -> bool:
        """Whether a record lies in a watch's scope, and is not the one that it looks for the like of."""
        own = watch.spec.like is not None and watch.spec.like.record == row.id
        early = row.seq < watch.state.starts.get(self.topic.row.id, 0)
        return not own and not early and matches(watch.scope, row.record(self.topic.row.name))

    # ------------------------------------------------------------------ by meaning

    def by_meaning(self, watches: Sequence[Standing], start: int, end: int) -> Iterator[Match]:
        """Records with seq in `[start, end)` whose passage is near enough to a watch, and which did not match by words. All
        their passages are embedded, and all watches' vectors known."""
        wanted = {w for w in watches if w.by_meaning and w.deaf is None}
        if not self.measures or not wanted:
            return
        id = self.topic.row.id
        passages = watch_store.passages_in(self._log, id, start, end)
        self._measure({self.topic.resolve(p) for p in passages})
        hot = [p for p in passages if any(w in wanted for w, _ in self._near[self.topic.resolve(p)])]
        if not hot:
            return
        found = watch_store.records_with(self._log, id, start, end, hot)
        rows = self._log.rows_of(found.keys())
        for record in sorted(rows):
            best: dict[Standing, float] = {}
            for passage in found[record]:
                for watch, score in self._near[self.topic.resolve(passage)]:
                    if watch in wanted:
                        best[watch] = max(best.get(watch, 0.0), score)
            for watch in sorted(best, key=lambda w: w.id):
                if not self._matched_before(watch, rows[record], found[record]) and self._is_meant(watch, rows[record]):
                    yield Match(watch, rows[record], "meaning", round(best[watch], 6))

    def _matched_before(self, watch: Standing, row: Row, passages: Iterable[int]) -> bool:
        """Whether `by_words` has found a record for a watch."""
        if watch.spec.like is not None:
            return any(watch.joined.get(p, row.seq + 1) <= row.seq for p in passages)
        return watch.spec.mode != "semantic" and watch.words.occur_in(folded(row.value))

    def _measure(self, passages: Collection[int]) -> None:
        """Compare passages (surviving ones) that are new here with every watch: a template that generalised has what those it
        replaced are near to."""
        if len(self._near) > _JUDGED:
            self._near.clear()
        new = [p for p in passages if p not in self._near]
        if not new:
            return
        members = {m: p for p in new for m in self.topic.family(p)}
        ids, rows = self.topic.catalogue.vectors(list(members))
        near: dict[int, dict[Standing, float]] = {p: {} for p in new}
        for id, row in zip(ids.tolist(), rows, strict=True):
            of = near[members[id]]
            for watch, score in self._watches_near(row):
                of[watch] = max(of.get(watch, 0.0), score)
        self._near.update((p, tuple(of.items())) for p, of in near.items())

    def _watches_near(self, vector: np.ndarray) -> Iterator[tuple[Standing, float]]:
        assert self.topic.embedder is not None
        watches, matrix, least = self._watch_vectors(self.topic.embedder)
        if not watches:
            return
        floor = self.topic.embedder.floor
        scores = np.clip((np.vecdot(matrix, vector) - floor) / (1 - floor), 0.0, 1.0)
        for at in np.flatnonzero(scores >= least).tolist():
            yield watches[at], float(scores[at])

    def _watch_vectors(self, embedder: Embedder) -> tuple[list[Standing], np.ndarray, np.ndarray]:
        """Watches with their vectors `(n, d)` and the least scores they ask for `(n,)`."""
        if self._matrix is None:
            watches = [w for w in self.watches if w.by_meaning and (embedder.name, w.id) in self._vectors]
            rows = [self._vectors[embedder.name, w.id] for w in watches]
            matrix = np.stack(rows) if rows else np.empty((0, 0), np.float32)
            self._matrix = watches, matrix, np.asarray([w.spec.min_score for w in watches], np.float32)
        return self._matrix
