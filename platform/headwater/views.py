"""Replies that are neither search nor storage: topics with their numbers, patterns, timelines, index descriptions."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from headwater.config import IndexSettings, TopicConfig
from headwater.errors import NotFoundError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import Pace, TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log import shadows
from headwater.log.catalogue import PassageRow
from headwater.log.store import Log, TopicRow
from headwater.query import parse_time
from headwater.records import (
    Bucket,
    IndexInfo,
    Passage,
    Pattern,
    PatternsReply,
    Timeline,
    Topic,
    address,
    from_ms,
)
from headwater.records.changes import Windows, compare, matters
from headwater.records.indexes import Comparison, Found, Progress, Shadow, SideBySide
from headwater.search.searching import Plan, Searcher, is_narrow
from headwater.verbs import When

MOST_PASSAGES = 200_000  # distinct passages a narrowed patterns request may count


class Rates:
    """Records per second of each topic over the last minute, from how far it had come at earlier looks."""

    def __init__(self) -> None:
        self._looks: dict[int, deque[tuple[float, int]]] = {}

    def look(self, topic: int, seq: int) -> float:
        now = time.monotonic()
        looks = self._looks.setdefault(topic, deque(maxlen=600))
        while looks and now - looks[0][0] > 60:
            looks.popleft()
        rate = (seq - looks[0][1]) / max(now - looks[0][0], 1e-3) if looks else 0.0
        if not looks or now - looks[-1][0] >= 0.1:
            looks.append((now, seq))
        return round(max(rate, 0.0), 3)


def problems(stock: Iterable[str], indexer: Indexer) -> tuple[str, ...]:
    """What is wrong now, in words: of the stock, of the indexer as a whole, of each topic."""
    topics = (f"{topic.row.name}: {topic.error}" for topic in indexer.topics.values() if topic.error)
    return (*stock, *filter(None, [indexer.problem]), *topics)


def topic_view(log: Log, row: TopicRow, topic: TopicIndex, rates: Rates, dead: int) -> Topic:
    """One topic with its numbers."""
    config = topic.config
    passages = topic.catalogue.count()
    oldest, newest = log.rows(row.id, row.first_seq, 1), log.rows_before(row.id, row.next_seq, 1)
    settings = {name: getattr(config, name) for name in TopicConfig.__dataclass_fields__}
    settings["passages_in_use"], settings["model_in_use"] = row.passages, row.model
    return Topic(
        row.name,
        config.partitions,
        settings,
        row.records,
        passages,
        round(row.records / passages, 2) if passages else 0.0,
        row.bytes,
        rates.look(row.id, row.next_seq),
        from_ms(oldest[0].time_ms) if oldest else None,
        from_ms(newest[-1].time_ms) if newest else None,
        replace(topic.watermark(), stored=row.next_seq),
        dead,
        log.heads(row.id, config.partitions),
    )


def index_view(log: Log, topic: TopicIndex, settings: IndexSettings, rebuild: Progress | None = None) -> IndexInfo:
    """The index of one topic, with how far a rebuild of it has come; its second model without samples."""
    mark, config, embedder = topic.watermark(), topic.config, topic.embedder
    counts = topic.vectors.counts if topic.vectors is not None else None
    problems = () if counts is None else counts.problems
    behind = mark.semantic < mark.stored
    state = "off" if embedder is None else "stalled" if topic.error else "building" if behind else "ready"
    if state == "ready" and problems:
        state = "damaged"
    progress = _embedding_progress(log, topic.row.id, topic.next_passage, topic.pace) if state in _GROWING else rebuild
    if state == "ready" and (progress := rebuild or _segments_progress(topic)) is not None:
        state = "building"
    return IndexInfo(
        topic=topic.row.name,
        model=None if embedder is None else embedder.name,
        dimension=None if embedder is None else embedder.dimension,
        metric=config.metric,
        passages=topic.kind,
        hnsw={"m": config.hnsw_m, "ef_construction": config.hnsw_ef_construction, "ef_search": config.hnsw_ef_search},
        count_passages=topic.catalogue.count(),
        count_vectors=0 if counts is None else counts.vectors,
        tail=0 if counts is None else counts.tail,
        segments=()
        if counts is None
        else tuple(
            {
                "name": s.name,
                "kind": s.kind,
                "count": s.living,
                "dead": s.dead,
                "bytes": s.bytes,
                "recall": s.recall,
                "ready": s.ready,
            }
            for s in counts.segments
        ),
        state=state,
        error=topic.error or "; ".join(problems) or None,
        kind=config.index_kind,
        ivf={"cells": config.ivf_cells, "n_probe": config.ivf_n_probe},
        dead=0 if counts is None else counts.dead,
        progress=progress,
        problems=problems,
        rebuilt=0 if counts is None else counts.rebuilt,
        damaged=0 if counts is None else counts.damaged,
        shadow=None if topic.shadow is None else shadow_view(log, topic, settings, samples=False),
    )


_GROWING = ("building", "stalled")


def _segments_progress(topic: TopicIndex) -> Progress | None:
    """Segments that are to be built for changed settings; None where all are as they should be."""
    segments = () if topic.vectors is None else topic.vectors.counts.segments
    if not any(one.due == "settings" for one in segments):
        return None
    return Progress("segments", sum(one.due is None for one in segments), len(segments), 0.0, None)


def _embedding_progress(log: Log, topic: int, start: int, pace: Pace) -> Progress:
    waiting, total = shadows.counted(log, topic, start)
    rate = pace.rate
    return Progress("embedding", total - waiting, total, rate, round(waiting / rate, 1) if rate else None)


def shadow_view(log: Log, topic: TopicIndex, settings: IndexSettings, *, samples: bool) -> Shadow:
    """The second model of a topic; NotFoundError where it has none. With `samples` answers of both side by side."""
    shadow, name = topic.shadow, topic.row.name
    if shadow is None:
        raise NotFoundError(f"{name!r} has no second model; `headwater index rebuild {name} --model X --shadow` builds one")
    row = shadow.row
    former = row.state == "former"
    error = shadow.error
    if error is None and shadow.refused:
        error = f"{shadow.refused} texts were refused by {row.name}; they are found by words alone with it"
    return Shadow(
        topic=name,
        model=row.name,
        live=topic.row.model or "none",
        state="former" if former else "ready" if row.state == "ready" else "building",
        threshold=row.threshold,
        progress=_embedding_progress(log, topic.row.id, shadow.next_passage, shadow.pace),
        comparison=None if row.report is None else _comparison(topic, row.report, samples=samples),
        started=from_ms(row.started_ms),
        changed=from_ms(row.changed_ms),
        kept_until=from_ms(row.changed_ms + int(settings.keep_former_s * 1000)) if former else None,
        error=error,
    )


def _comparison(topic: TopicIndex, report: Mapping[str, Any], *, samples: bool) -> Comparison:
    """As it was stored; the texts of its passages are looked up, those that are gone stay empty."""
    chosen = report["samples"] if samples else ()
    ids = {found["passage"] for one in chosen for side in ("live", "shadow") for found in one[side]}
    rows = topic.catalogue.rows(ids)

    def side(found: Sequence[Mapping[str, Any]]) -> tuple[Found, ...]:
        texts = (rows[f["passage"]].text if f["passage"] in rows else "" for f in found)
        return tuple(Found(f["passage"], text, f["score"], f["other_rank"]) for f, text in zip(found, texts, strict=True))

    shown = tuple(SideBySide(one["query"], one["overlap"], side(one["live"]), side(one["shadow"])) for one in chosen)
    measured = datetime.fromisoformat(report["measured"])
    numbers = {name: report[name] for name in ("overlap", "overlap_low", "queries", "source", "latency_ms")}
    return Comparison(**numbers, measured=measured, samples=shown)


class Marks(NamedTuple):
    """At most one of three: since when patterns are new, gone, or come at another rate (ms)."""

    new: int | None = None
    gone: int | None = None
    changed: int | None = None

    @classmethod
    def of(cls, new: When | None, gone: When | None, changed: When | None, now_ms: int) -> Marks:
        """UsageError where more than one is given."""
        given = (new, gone, changed)
        if sum(one is not None for one in given) > 1:
            raise UsageError("new_since, gone_since and changed_since contradict each other; choose one")
        return cls(*(None if one is None else parse_time(one, now_ms=now_ms) for one in given))


def patterns_since(log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, marks: Marks, limit: int) -> PatternsReply:
    """Patterns with their counts; only new ones, gone ones or changed ones where there is a mark."""
    mark = marks.gone if marks.gone is not None else marks.changed
    if mark is None:
        return patterns(log, keyword, searcher, plan, new_since_ms=marks.new, limit=limit)
    return changed(log, keyword, searcher, plan, mark_ms=mark, gone=marks.gone is not None, limit=limit)


def patterns(
    log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, *, new_since_ms: int | None, limit: int
) -> PatternsReply:
    """The passages of the plan's one topic with their counts in scope, most frequent first. Words must occur."""
    (topic,) = plan.topics
    plan = _requiring_words(plan)
    end = plan.skip + limit
    if is_narrow(plan):
        counts = _counts(keyword, plan, topic)
        rows = [r for r in topic.catalogue.rows(counts).values() if new_since_ms is None or r.first_ms >= new_since_ms]
        ranked = sorted(rows, key=lambda r: (-counts[r.id], r.id))
    else:
        ranked = topic.catalogue.frequent(end + 1_000, new_since_ms=new_since_ms)
        counts = {r.id: r.total for r in ranked}
    more = max(len(ranked) - end, 0)
    coverage = searcher.coverage(plan, sum(counts[r.id] for r in ranked), more)
    coverage = replace(coverage, next_cursor=str(end) if more else None)
    return PatternsReply(tuple(_pattern(log, topic, r, counts[r.id], new_since_ms) for r in ranked[plan.skip : end]), coverage)


def changed(
    log: Log, keyword: KeywordIndex, searcher: Searcher, plan: Plan, *, mark_ms: int, gone: bool, limit: int
) -> PatternsReply:
    """The passages of the plan's one topic whose rate differs before and after a mark, the most certain first; with `gone`
    those that do not come any more. The time before is as long as the plan says, else four times that after, at least an
    hour."""
    (topic,) = plan.topics
    plan = _requiring_words(plan)
    span = keyword.time_range(replace(plan.scope, since_ms=None))
    if span is None or (span[1] < mark_ms and not gone):
        return PatternsReply((), searcher.coverage(plan, 0, 0))
    end_ms = plan.scope.until_ms if plan.scope.until_ms is not None else max(span[1] + 1, mark_ms + 1)
    earlier = mark_ms - max(4 * (end_ms - mark_ms), 3_600_000)
    begin_ms = plan.scope.since_ms if plan.scope.since_ms is not None else max(earlier, min(span[0], mark_ms - 1))
    if not begin_ms < mark_ms < end_ms:
        raise UsageError("the mark lies outside the time that is compared; check since and until")
    windows = Windows(begin_ms, mark_ms, end_ms)
    sides = [
        _counts(keyword, replace(plan, scope=replace(plan.scope, since_ms=low, until_ms=high)), topic)
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
        replace(_pattern(log, topic, rows[id], told[id].before + told[id].after, mark_ms), change=told[id])
        for id in page
        if id in rows
    )
    return PatternsReply(tuple(shown), replace(coverage, next_cursor=str(end) if more else None))


def _requiring_words(plan: Plan) -> Plan:
    """The plan with its free words as conditions: where nothing is ranked, a word that need not occur says nothing."""
    return replace(plan, scope=replace(plan.scope, phrases=plan.scope.phrases + tuple(plan.query.text.split())))


def _counts(keyword: KeywordIndex, plan: Plan, topic: TopicIndex) -> dict[int, int]:
    """Records in scope of each surviving passage."""
    found = keyword.passages(plan.scope, limit=MOST_PASSAGES)
    counts: dict[int, int] = {}
    for passage, number in found.items():
        if passage:
            survivor = topic.resolve(passage)
            counts[survivor] = counts.get(survivor, 0) + number
    return counts


def _pattern(log: Log, topic: TopicIndex, row: PassageRow, count: int, new_since_ms: int | None) -> Pattern:
    example = ""
    for place in topic.catalogue.latest(topic.family(row.id)):
        for record in log.rows_of([place.record]).values():
            example = address(topic.row.name, record.partition, record.offset)
    passage = Passage(row.id, row.text, count, row.total, from_ms(row.first_ms), from_ms(row.last_ms))
    return Pattern(
        passage, topic.row.name, count, new_since_ms is not None and row.first_ms >= new_since_ms, row.level, example
    )


def timeline(keyword: KeywordIndex, searcher: Searcher, plan: Plan, buckets: int) -> Timeline:
    """Records in scope by time, in at most `buckets` equal steps of a round length. Words of the query must occur."""
    plan = _requiring_words(plan)
    coverage = searcher.coverage(plan, 0, 0)
    span = keyword.time_range(plan.scope)
    if span is None:
        return Timeline((), 0.0, coverage)
    start_ms = span[0] if plan.scope.since_ms is None else plan.scope.since_ms
    end_ms = span[1] + 1 if plan.scope.until_ms is None else plan.scope.until_ms
    if end_ms <= start_ms:
        raise UsageError("the timeline ends before it begins; check since and until")
    interval = _round_interval((end_ms - start_ms) / buckets)
    while (end_ms - 1) // interval - start_ms // interval >= buckets and interval < 2 * (end_ms - start_ms):
        interval = _round_interval(interval + 1)  # one that begins at a round time may need one bar more
    base = start_ms // interval * interval
    if (end_ms - 1 - base) // interval >= buckets:  # no round step will do
        interval, base = -(-(end_ms - start_ms) // buckets), start_ms
    names = {t.row.id: t.row.name for t in plan.topics}
    counts: dict[int, dict[str, int]] = {}
    for at, topic, number in keyword.histogram(plan.scope, interval_ms=interval, start_ms=base, end_ms=end_ms):
        counts.setdefault(at, {})[names[topic]] = number
    first, last = base, base + (end_ms - 1 - base) // interval * interval
    if counts:
        first, last = max(first, min(counts)), min(last, max(counts))
    bars = [_bucket(at, counts.get(at, {})) for at in range(first, last + 1, interval)]
    total = sum(b.count for b in bars)
    return Timeline(tuple(bars), interval / 1000, replace(coverage, searched=total))


def _bucket(at_ms: int, topics: Mapping[str, int]) -> Bucket:
    return Bucket(from_ms(at_ms), sum(topics.values()), topics)


_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def _round_interval(ms: float, steps: Sequence[int] = _STEPS_S) -> int:
    """The smallest round step not below `ms`; whole days beyond a day."""
    for step in steps:
        if step * 1000 >= ms:
            return step * 1000
    return (int(ms) // 86_400_000 + 1) * 86_400_000
