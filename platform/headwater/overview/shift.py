"""Whether a topic says other things since a time than it did before, how unusual that is, and which patterns make it so.

Passages that mean nearly the same count as one. The distance of two mixes (`detect.mix`) has no fixed size from which it
matters: stretches of the time before, as long as the one after, are compared with the rest of that time, and what they show is
usual. The chance is the rank among them (a conformal p-value: Vovk et al. 2005). All are thinned to the same number of records,
for few records are far from anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio.to_thread
import numpy as np

from headwater.detect.mix import divergence, rising
from headwater.errors import UsageError
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log.store import Log
from headwater.overview.patterns import counted, pattern_of, requiring_words
from headwater.query import parse_time
from headwater.records import Pattern, from_ms
from headwater.records.changes import Windows, compare
from headwater.records.drifts import Drift
from headwater.search.planning import now_ms, plan
from headwater.search.searching import Plan, Searcher
from headwater.stock import Stock
from headwater.verbs import When

SAME = 0.85  # of meaning, from which two passages say the same
MOST = 100  # patterns of a reply
_LEAST = 30  # records of a stretch
_STRETCHES = 24
_ENOUGH = 5  # stretches, before one may be called unusual
_COMPARED = 2000  # passages whose meanings are compared, the most frequent
_TIMES = 4  # as long is the time before, where it is not given
_HOUR_MS = 3_600_000
Counts = Mapping[int, int]  # records by passage


class Shifts:
    """`drift` is the verb."""

    def __init__(self, log: Log, keyword: KeywordIndex, stock: Stock, searcher: Searcher) -> None:
        self._log, self._keyword, self._stock, self._searcher = log, keyword, stock, searcher

    async def drift(
        self, topic: str, *, since: When, until: When | None = None, before: When | None = None, q: str = "", limit: int = 10
    ) -> Drift:
        """As Verbs.drift."""
        if not 1 <= limit <= MOST:
            raise UsageError(f"limit must be between 1 and {MOST}")
        wanted = requiring_words(plan(self._stock, q, topics=[topic], since=before, until=until, mode="keyword"))
        mark_ms = parse_time(since, now_ms=now_ms(), begins=True)
        return await anyio.to_thread.run_sync(self._drift, wanted, mark_ms, limit)

    def _drift(self, wanted: Plan, mark_ms: int, limit: int) -> Drift:
        (topic,) = wanted.topics
        windows = self._windows(wanted, mark_ms)
        counts = [self._counts(wanted, topic, *stretch) for stretch in self._stretches(windows)]
        old, new = self._counts(wanted, topic, windows.begin_ms, mark_ms), self._counts(wanted, topic, mark_ms, windows.end_ms)
        homes = _homes(topic, old, new)
        before, after = _moved(old, homes), _moved(new, homes)
        size = sum(after.values())
        if size < _LEAST or sum(before.values()) < _LEAST:
            raise UsageError(
                f"too few records to compare: {sum(before.values())} before and {size} since; at least {_LEAST} of each"
            )
        usual = [
            divergence(_without(before, held), _thinned(held, size))
            for held in (_moved(one, homes) for one in counts)
            if sum(held.values()) >= _LEAST
        ]
        distance = divergence(before, after)
        chance = (1 + sum(one >= distance for one in usual)) / (len(usual) + 1)
        drifted = len(usual) >= _ENOUGH and chance == 1 / (len(usual) + 1)
        coverage = self._searcher.coverage(_between(wanted, windows.begin_ms, windows.end_ms), sum(old.values()) + size, 0)
        rose = self._told(topic, rising(before, after), before, after, windows, limit)
        fell = self._told(topic, rising(after, before), before, after, windows, limit)
        return Drift(
            topic.row.name, from_ms(windows.begin_ms), from_ms(mark_ms), from_ms(windows.end_ms), round(distance, 4),
            round(statistics.median(usual), 4) if usual else None, round(max(usual), 4) if usual else None, round(chance, 4),
            drifted, _said(distance, usual, drifted), len({*before, *after}), sum(before.values()), size,
            tuple(p for p in rose if p.change is not None and p.change.times > 1),
            tuple(p for p in fell if p.change is not None and p.change.times < 1), coverage,
        )  # fmt: skip

    def _windows(self, wanted: Plan, mark_ms: int) -> Windows:
        span = self._keyword.time_range(replace(wanted.scope, since_ms=None))
        first, last = span if span is not None else (mark_ms, mark_ms)
        end_ms = wanted.scope.until_ms if wanted.scope.until_ms is not None else max(last + 1, mark_ms + 1)
        earlier = max(mark_ms - max(_TIMES * (end_ms - mark_ms), _HOUR_MS), min(first, mark_ms - 1))
        begin_ms = wanted.scope.since_ms if wanted.scope.since_ms is not None else earlier
        if not begin_ms < mark_ms < end_ms:
            raise UsageError("`since` lies outside the time that is compared; check before and until")
        return Windows(begin_ms, mark_ms, end_ms)

    @staticmethod
    def _stretches(windows: Windows) -> list[tuple[int, int]]:
        """Stretches of the time before, as long as the one after, or shorter where it would not hold enough of them."""
        whole = windows.mark_ms - windows.begin_ms
        length = max(min(windows.end_ms - windows.mark_ms, whole // _ENOUGH), 1)
        number = min(whole // length, _STRETCHES)
        return [(windows.mark_ms - (i + 1) * length, windows.mark_ms - i * length) for i in range(number)]

    def _counts(self, wanted: Plan, topic: TopicIndex, low_ms: int, high_ms: int) -> dict[int, int]:
        return counted(self._keyword, _between(wanted, low_ms, high_ms), topic)

    def _told(
        self, topic: TopicIndex, ids: Sequence[int], before: Counts, after: Counts, windows: Windows, limit: int
    ) -> tuple[Pattern, ...]:
        """The patterns of some meanings, each with its change."""
        changes = compare([(before.get(id, 0), after.get(id, 0)) for id in ids], windows)
        rows = topic.catalogue.rows(ids[: 2 * limit])
        found: list[Pattern] = []
        for id, change in zip(ids, changes, strict=True):
            if id in rows and len(found) < limit:
                pattern = pattern_of(self._log, topic, rows[id], change.before + change.after, windows.mark_ms)
                found.append(replace(pattern, change=change))
        return tuple(found)


def _between(wanted: Plan, low_ms: int, high_ms: int) -> Plan:
    return replace(wanted, scope=replace(wanted.scope, since_ms=low_ms, until_ms=high_ms))


def _homes(topic: TopicIndex, *counts: Counts) -> dict[int, int]:
    """passage -> the earlier one that it means the same as; those alone in their meaning are left out."""
    if topic.embedder is None or topic.vectors is None:
        return {}
    total: dict[int, int] = {}
    for held in counts:
        for id, count in held.items():
            total[id] = total.get(id, 0) + count
    frequent = sorted(sorted(total, key=lambda id: (-total[id], id))[:_COMPARED])
    ids, vectors = topic.catalogue.vectors(frequent)
    order = np.argsort(ids)
    ids, vectors = ids[order], np.asarray(vectors[order], np.float32)
    floor = topic.embedder.floor
    least = SAME * (1 - floor) + floor
    homes: dict[int, int] = {}
    for at in range(1, len(ids)):
        near = vectors[:at] @ vectors[at]
        best = int(near.argmax())
        if near[best] >= least:
            homes[int(ids[at])] = homes.get(int(ids[best]), int(ids[best]))
    return homes


def _moved(counts: Counts, homes: Mapping[int, int]) -> dict[int, int]:
    """Counts by meaning."""
    found: dict[int, int] = {}
    for id, count in counts.items():
        home = homes.get(id, id)
        found[home] = found.get(home, 0) + count
    return found


def _without(whole: Counts, part: Counts) -> dict[int, int]:
    return {id: left for id, count in whole.items() if (left := count - part.get(id, 0)) > 0}


def _thinned(counts: Counts, size: int) -> dict[int, int]:
    """At most so many records of some counts, drawn without replacement; the same for the same counts."""
    ids = sorted(counts)
    held = np.asarray([counts[id] for id in ids])
    if held.sum() <= size:
        return dict(counts)
    drawn = np.random.default_rng(0).multivariate_hypergeometric(held, size, method="marginals")
    return {id: int(count) for id, count in zip(ids, drawn, strict=True) if count}


def _said(distance: float, usual: Sequence[float], drifted: bool) -> str:
    if not usual:
        return f"the mixes are {distance:.2f} apart (0 to 1); there is too little before to say what is usual"
    stretches = f"{len(usual)} stretches as long before it were {min(usual):.2f} to {max(usual):.2f} apart from the rest"
    if len(usual) < _ENOUGH:
        return f"the mixes are {distance:.2f} apart (0 to 1); too few stretches to judge by: {stretches}"
    return f"{'it has drifted' if drifted else 'it has not drifted'}: the mixes are {distance:.2f} apart (0 to 1), {stretches}"
