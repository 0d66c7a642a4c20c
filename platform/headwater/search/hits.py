"""From a ranked passage to a hit: its best record, its place in it, its counts within the scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex, Scope
from headwater.log import former
from headwater.log.catalogue import PassageRow, Place
from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log, Row
from headwater.records import Hit, Passage, Span, from_ms


@dataclass(slots=True)
class Candidate:
    """A passage on its way to becoming a hit. `record` names its best record once known, `n` the occurrence in it where it
    was found by words, `count` its records in scope once counted. `given`: the vector of the record or of the query
    came from outside, so it stays in the list however far off it seems."""

    topic: TopicIndex
    passage: int
    keyword: float = 0.0
    vector: float = 0.0
    distance: float | None = None
    record: int | None = None
    n: int | None = None
    count: int | None = None
    score: float = 0.0
    given: bool = False


class Expansion:
    """Makes hits of candidates. Thread-safe; holds no state of its own."""

    def __init__(self, log: Log, keyword: KeywordIndex) -> None:
        self._log, self._keyword = log, keyword

    def locate(self, candidates: Sequence[Candidate], scope: Scope | None) -> None:
        """Find the newest record of each passage that has none yet; in a scope also count its records there."""
        for topic in dict.fromkeys(c.topic for c in candidates):
            mine = [
                c for c in candidates if c.topic is topic and c.passage and (c.record is None or (scope and c.count is None))
            ]
            if not mine:
                continue
            members = [m for c in mine for m in topic.family(c.passage)]
            if scope is None:
                newest = topic.catalogue.newest(members)
                for c in mine:
                    c.record = max((newest[m] for m in topic.family(c.passage) if m in newest), default=None)
                continue
            found = self._keyword.newest(replace(scope, topics=(topic.row.id,)), members)
            for c in mine:
                own = [found[m] for m in topic.family(c.passage) if m in found]
                c.count = sum(count for count, _ in own)
                if c.record is None and own:
                    c.record = topic.row.id << SEQ_BITS | max(seq for _, seq in own)

    def hits(self, page: Sequence[Candidate], scope: Scope | None, *, parts: Sequence[str], vectors: bool) -> tuple[Hit, ...]:
        """The page as hits, in order. `scope` is None where all records are in it; `parts` of the score are told. Records
        that have been deleted meanwhile are left out."""
        self.locate(page, scope)
        rows = self._log.rows_of([c.record for c in page if c.record is not None])
        if scope is None or not scope.before_seq:  # the keyword index may not know yet of those that were just replaced
            with self._log.reading() as db:
                rows = {id: rows[id] for id in rows.keys() - former.among(db, rows.keys()).keys()}
        passages: dict[int, PassageRow] = {}
        places: dict[int, list[Place]] = {}
        for topic in dict.fromkeys(c.topic for c in page):
            mine = [c for c in page if c.topic is topic]
            passages |= topic.catalogue.rows([c.passage for c in mine if c.passage])
            places |= topic.catalogue.places([c.record for c in mine if c.record is not None])
        return tuple(
            _hit(c, rows[c.record], passages.get(c.passage), places.get(c.record, ()), parts, _vector(c) if vectors else None)
            for c in page
            if c.record is not None and c.record in rows
        )


def _hit(
    c: Candidate,
    row: Row,
    passage: PassageRow | None,
    places: Sequence[Place],
    parts: Sequence[str],
    vector: tuple[float, ...] | None,
) -> Hit:
    record = row.record(c.topic.row.name)
    if passage is None:
        seen = Passage(0, "", 1, 1, record.timestamp, record.timestamp)
    else:
        count = passage.total if c.count is None else max(c.count, 1)
        seen = Passage(passage.id, passage.text, count, passage.total, from_ms(passage.first_ms), from_ms(passage.last_ms))
    scores: Mapping[str, float] = {name: round(getattr(c, name), 6) for name in parts}
    place = next((p for p in places if (c.topic.resolve(p.passage) == c.passage if c.n is None else p.n == c.n)), None)
    span = Span(place.start, place.stop) if place is not None and place.start is not None and place.stop is not None else None
    attributes = record.attributes
    if span is not None and "pages" in attributes and "page" not in attributes:
        attributes = {**attributes, "page": page_of(record.value, span.start)}
    return Hit(
        record.address, record.topic, record.partition, record.offset, record.timestamp, record.key, record.value,
        attributes, round(c.score, 6), scores, c.distance, seen, span, vector,
    )  # fmt: skip


def page_of(value: str, start: int) -> int:
    """The page (slide, sheet) of a document on which the place `start` of its text stands, from 1."""
    return 1 + value.count("\f", 0, start)


def _vector(c: Candidate) -> tuple[float, ...] | None:
    """The stored vector of a candidate's passage, by the topic's own model."""
    if c.topic.vectors is None or not c.passage:
        return None
    ids, found = c.topic.catalogue.vectors([c.passage])
    return tuple(found[0].tolist()) if len(ids) else None
