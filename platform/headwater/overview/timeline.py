"""Records by time, and by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from headwater.errors import UsageError
from headwater.keyword.index import KeywordIndex
from headwater.overview.leads import leads
from headwater.overview.patterns import requiring_words
from headwater.query import Filter
from headwater.records import Bucket, Timeline, from_ms
from headwater.records.levels import LEVELS
from headwater.search.searching import Plan, Searcher

MOST = 1000  # buckets


def timeline(keyword: KeywordIndex, searcher: Searcher, plan: Plan, buckets: int) -> Timeline:
    """Records in scope by time, in at most `buckets` equal steps of a round length. Words of the query must occur."""
    if not 1 <= buckets <= MOST:
        raise UsageError(f"buckets must be between 1 and {MOST}")
    plan = requiring_words(plan)
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
    levels = _levels(keyword, plan, interval, base, end_ms)
    bars = [_bucket(at, counts.get(at, {}), levels.get(at, {})) for at in range(first, last + 1, interval)]
    total = sum(b.count for b in bars)
    hints = leads({name: [b.topics.get(name, 0) for b in bars] for name in names.values()}, interval / 1000)
    return Timeline(tuple(bars), interval / 1000, replace(coverage, searched=total), leads=hints)


def _levels(keyword: KeywordIndex, plan: Plan, interval: int, base: int, end_ms: int) -> dict[int, dict[str, int]]:
    """start (ms) -> records of each level that is known, the least severe first."""
    found: dict[int, dict[str, int]] = {}
    present = keyword.field_values(plan.scope, "level", limit=100)
    for level in (level for level in LEVELS if level in present):
        scope = replace(plan.scope, filters=(*plan.scope.filters, Filter("level", "=", (level,))))
        for at, _, number in keyword.histogram(scope, interval_ms=interval, start_ms=base, end_ms=end_ms):
            held = found.setdefault(at, {})
            held[level] = held.get(level, 0) + number
    return found


def _bucket(at_ms: int, topics: Mapping[str, int], levels: Mapping[str, int]) -> Bucket:
    return Bucket(from_ms(at_ms), sum(topics.values()), topics, levels)


_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def _round_interval(ms: float, steps: Sequence[int] = _STEPS_S) -> int:
    """The smallest round step not below `ms`; whole days beyond a day."""
    for step in steps:
        if step * 1000 >= ms:
            return step * 1000
    return (int(ms) // 86_400_000 + 1) * 86_400_000
