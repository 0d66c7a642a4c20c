"""Patterns of a topic with their counts: all, new ones, those that are gone or come at another rate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from headwater.errors import UsageError
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log.catalogue import PassageRow
from headwater.log.store import Log
from headwater.overview.values import with_values
from headwater.query import parse_time
from headwater.records import Passage, Pattern, PatternsReply, address, from_ms
from headwater.records.changes import Windows, compare, matters
from headwater.search.searching import Plan, Searcher, is_narrow
from headwater.verbs import When

MOST_PASSAGES = 200_000  # distinct passages a narrowed patterns request may count
MOST, MOST_WITH_FIELDS = 1000, 100  # patterns of one reply


class Marks(NamedTuple):
    """At most one of three: since when patterns are new, gone, or come at another rate, as asked at `now_ms` (ms)."""

    now_ms: int
    new: int | None = None
    gone: int | None = None
    changed: int | None = None

    @classmethod
    def of(cls, new: When | None, gone: When | None, changed: When | None, now_ms: int) -> Marks:
        """UsageError where more than one is given."""
        given = (new, gone, changed)
        if sum(one is not None for one in given) > 1:
            raise UsageError("new_since, gone_since and changed_since contradict each other; choose one")
        return cls(now_ms, *(None if one is None else parse_time(one, now_ms=now_ms, begins=True) for one in given))


def listed(
    log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, marks: Marks, limit: int, *, fields: bool = False
) -> PatternsReply:
    """Patterns with their counts; only new ones, gone ones or changed ones where there is a mark; with `fields` what their
    places hold."""
    most = MOST_WITH_FIELDS if fields else MOST
    if not 1 <= limit <= most:
        raise UsageError(f"limit must be between 1 and {most}" + (" with fields" if fields else ""))
    mark = marks.gone if marks.gone is not None else marks.changed
    if mark is None:
        found = patterns(log, keyword, searcher, plan, new_since_ms=marks.new, limit=limit)
    else:
        gone = marks.gone is not None
        found = changed(log, keyword, searcher, plan, mark_ms=mark, gone=gone, now_ms=marks.now_ms, limit=limit)
    if not fields:
        return found
    return replace(found, patterns=with_values(log, keyword, requiring_words(plan), plan.topics[0], found.patterns))


def patterns(
    log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, *, new_since_ms: int | None, limit: int
) -> PatternsReply:
    """The passages of the plan's one topic with their counts in scope, most frequent first. Words must occur."""
    (topic,) = plan.topics
    plan = requiring_words(plan)
    end = plan.skip + limit
    if is_narrow(plan):
        counts = counted(keyword, plan, topic)
        rows = [r for r in topic.catalogue.rows(counts).values() if new_since_ms is None or r.first_ms >= new_since_ms]
        ranked = sorted(rows, key=lambda r: (-counts[r.id], r.id))
    else:
        ranked = topic.catalogue.frequent(end + 1_000, new_since_ms=new_since_ms)
        counts = {r.id: r.total for r in ranked}
    more = max(len(ranked) - end, 0)
    coverage = searcher.coverage(plan, sum(counts[r.id] for r in ranked), more)
    coverage = replace(coverage, next_cursor=str(end) if more else None)
    return PatternsReply(
        tuple(pattern_of(log, topic, r, counts[r.id], new_since_ms) for r in ranked[plan.skip : end]), coverage
    )


def changed(
    log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, *, mark_ms: int, gone: bool, now_ms: int, limit: int
) -> PatternsReply:
    """The passages of the plan's one topic whose rate differs before and after a mark, the most certain first; with `gone`
    those that do not come any more. The time before is as long as the plan says, else four times that after, at least an
    hour; the time after ends with the newest record, or now where none came since the mark."""
    (topic,) = plan.topics
    plan = requiring_words(plan)
    until_ms = plan.scope.until_ms
    known_ms = until_ms if until_ms is not None or mark_ms > now_ms else now_ms + 1  # a wrong clock makes no long window
    span = keyword.time_range(replace(plan.scope, since_ms=None, until_ms=known_ms))
    if span is None:
        return PatternsReply((), searcher.coverage(plan, 0, 0))
    newest_ms = span[1] if span[1] >= mark_ms else max(now_ms, mark_ms)
    end_ms = newest_ms + 1 if until_ms is None else until_ms
    earlier = mark_ms - max(4 * (end_ms - mark_ms), 3_600_000)
    begin_ms = plan.scope.since_ms if plan.scope.since_ms is not None else max(earlier, min(span[0], mark_ms - 1))
    if not begin_ms < mark_ms < end_ms:
        raise UsageError("the mark lies outside the time that is compared; check since and until")
    windows = Windows(begin_ms, mark_ms, end_ms)
    sides = [
        counted(keyword, replace(plan, scope=replace(plan.scope, since_ms=low, until_ms=high)), topic)
        for low, high in ((begin_ms, mark_ms), (mark_ms, end_ms))
    ]
    ids = sorted({*sides[0], *sides[1]})
    found = compare([(sides[0].get(id, 0), sides[1].get(id, 0)) for id in ids], windows)
    told = {id: change for id, change in zip(ids, found, strict=True) if matters(change) and not (gone and change.after)}
    ranked = sorted(told, key=lambda id: (told[id].chance, -abs(math.log(told[id].times)), id))
    page, end = ranked[plan.skip : plan.skip + limit], plan.skip + limit
    rows = topic.catalogue.rows(page)
    more = max(len(ranked) - end, 0)
    plan = replace(plan, scope=replace(plan.scope, since_ms=begin_ms, until_ms=end_ms))
    coverage = searcher.coverage(plan, sum(told[id].before + told[id].after for id in page), more)
    shown = (
        replace(pattern_of(log, topic, rows[id], told[id].before + told[id].after, mark_ms), change=told[id])
        for id in page
        if id in rows
    )
    return PatternsReply(tuple(shown), replace(coverage, next_cursor=str(end) if more else None))


def requiring_words(plan: Plan) -> Plan:
    """The plan with its free words as conditions: where nothing is ranked, a word that need not occur says nothing."""
    return replace(plan, scope=replace(plan.scope, phrases=plan.scope.phrases + tuple(plan.query.text.split())))


def counted(keyword: KeywordIndex, plan: Plan, topic: TopicIndex) -> dict[int, int]:
    """Records in scope of each surviving passage."""
    found = keyword.passages(plan.scope, limit=MOST_PASSAGES)
    counts: dict[int, int] = {}
    for passage, number in found.items():
        if passage:
            survivor = topic.resolve(passage)
            counts[survivor] = counts.get(survivor, 0) + number
    return counts


def pattern_of(log: Log, topic: TopicIndex, row: PassageRow, count: int, new_since_ms: int | None) -> Pattern:
    example = ""
    for place in topic.catalogue.latest(topic.family(row.id)):
        for record in log.rows_of([place.record]).values():
            example = address(topic.row.name, record.partition, record.offset)
    passage = Passage(row.id, row.text, count, row.total, from_ms(row.first_ms), from_ms(row.last_ms))
    return Pattern(
        passage, topic.row.name, count, new_since_ms is not None and row.first_ms >= new_since_ms, row.level, example
    )
