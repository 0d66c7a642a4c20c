"""The verbs of detectors: switched on and off, asked what they found, told what was none."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import anyio.to_thread

from headwater.detect import store
from headwater.detect.detection import HISTORY, Append, Detection
from headwater.detect.explain import told
from headwater.detect.marking import markers
from headwater.detect.seen import Seen
from headwater.detect.store import AnomalyRow, Spec
from headwater.errors import NotFoundError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log.store import Log
from headwater.query import parse_time
from headwater.records import MAX_MS, MIN_MS, Coverage, Timeline, from_ms, to_ms
from headwater.records.anomalies import (
    KINDS,
    SEVERITIES,
    AnomaliesReply,
    Anomaly,
    Detecting,
    DetectorKind,
    DetectState,
    Sensitivity,
    Severity,
    Verdict,
)  # fmt: skip
from headwater.stock import Stock
from headwater.verbs.detect import When

T = TypeVar("T")
MOST = 1000  # anomalies of one reply
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/|per|a)?\s*(day|d|week|w|hour|h)?\s*", re.IGNORECASE)
_PER_DAY = {"d": 1.0, "w": 1 / 7, "h": 24.0}
_MOST_BUDGET = 1000.0


class Detectors:
    """Implements headwater.verbs.detect.DetectVerbs over those that run."""

    def __init__(self, log: Log, stock: Stock, indexer: Indexer, append: Append, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._stock, self._clock_ms = log, stock, clock_ms
        detection = self._detection = Detection(log, indexer, append, clock_ms=clock_ms)
        detection.load()
        self.run, self.close, self.settle = detection.run, detection.close, detection.settle

    def troubles(self) -> list[str]:
        """What holds all detectors up, in words."""
        return [] if self._detection.problem is None else [self._detection.problem]

    # ------------------------------------------------------------------ found

    async def anomalies(
        self, topics: Sequence[str] | None = None, *, since: When | None = None, until: When | None = None,
        kind: DetectorKind | None = None, severity: Severity | None = None, quiet: bool = False, dismissed: bool = False,
        limit: int = 50, cursor: str | None = None,
    ) -> AnomaliesReply:  # fmt: skip
        """As DetectVerbs.anomalies."""
        if not 1 <= limit <= MOST:
            raise UsageError(f"limit must be between 1 and {MOST}")
        if kind is not None and kind not in KINDS:
            raise UsageError(f"kind is one of {', '.join(KINDS)}, not {kind[:40]!r}")
        if severity is not None and severity not in SEVERITIES:
            raise UsageError(f"severity is one of {', '.join(SEVERITIES)}, not {severity[:40]!r}")
        now = self._clock_ms()
        bounds = (
            MIN_MS if since is None else parse_time(since, now_ms=now, begins=True),
            MAX_MS if until is None else parse_time(until, now_ms=now),
        )
        wanted = {
            "since_ms": bounds[0], "until_ms": bounds[1], "before": _place(cursor), "limit": limit + 1, "quiet": quiet,
            "kinds": KINDS if kind is None else (kind,), "dismissed": dismissed,
            "severities": SEVERITIES if severity is None else SEVERITIES[SEVERITIES.index(severity) :],
        }  # fmt: skip
        return await _thread(self._anomalies, topics, wanted, since is not None, until is not None)

    def _anomalies(self, names: Sequence[str] | None, wanted: dict[str, Any], since: bool, until: bool) -> AnomaliesReply:
        specs = store.specs(self._log)
        chosen = [t for t in self._stock.choose(names) if names is not None or t.row.id in specs]
        for topic in chosen:
            if topic.row.id not in specs:
                name = topic.row.name
                raise UsageError(f"detectors of {name!r} were never on; `headwater anomaly enable {name}` switches them on")
        by_id = {topic.row.id: topic for topic in chosen}
        rows = store.read(self._log, list(by_id), **wanted)
        limit = wanted["limit"] - 1
        more, rows = len(rows) > limit, rows[:limit]
        found = tuple(told(self._log, by_id[row.topic], row) for row in rows)
        last = f"{rows[-1].start_ms}.{rows[-1].topic}.{rows[-1].n}" if more else None
        notes = tuple(
            f"{by_id[id].row.name}: {note}" for id, spec in specs.items() if id in by_id and (note := self._note(id, spec))
        )
        coverage = Coverage(
            watermark={t.row.name: t.watermark() for t in chosen}, topics=tuple(t.row.name for t in chosen),
            since=from_ms(wanted["since_ms"]) if since else None, until=from_ms(wanted["until_ms"]) if until else None,
            truncated=more, next_cursor=last, notes=notes,
        )  # fmt: skip
        return AnomaliesReply(found, coverage)

    def _note(self, topic: int, spec: Spec) -> str | None:
        if not spec.enabled:
            return "its detectors are off now"
        running = self._detection.topics.get(topic)
        if running is not None and running.judge.budget.learning:
            return "its detectors are still learning what is normal"
        return None

    async def one(self, id: str) -> Anomaly:
        """As DetectVerbs.anomaly."""
        return await _thread(self._one, id)

    def _one(self, id: str) -> Anomaly:
        topic, row = self._find(id)
        return told(self._log, topic, row)

    def alert(self, topic: int, n: int) -> Anomaly | None:
        """The anomaly of that number in a topic; None where either is gone."""
        row = store.one(self._log, topic, n)
        held = next((t for t in self._stock.choose(None) if t.row.id == topic), None)
        return None if row is None or held is None else told(self._log, held, row)

    @property
    def bell(self) -> asyncio.Event:
        """Set when something alerts; whoever waits takes it before looking."""
        return self._detection.bell

    def _find(self, id: str) -> tuple[TopicIndex, AnomalyRow]:
        name, _, number = id.rpartition("-")
        if name and re.fullmatch(r"[0-9]{1,15}", number):
            topic = self._stock.find(name)
            row = store.one(self._log, topic.row.id, int(number))
            if row is not None:
                return topic, row
        raise NotFoundError(f"no anomaly {id[:100]!r}; `headwater anomaly list` shows them")

    async def judge(self, id: str, verdict: Verdict | None, *, note: str | None = None) -> Anomaly:
        """As DetectVerbs.judge_anomaly."""
        if verdict not in (None, "not an anomaly", "anomaly"):
            raise UsageError("a verdict is `not an anomaly` or `anomaly`")
        return await _thread(self._judge, id, verdict, note)

    def _judge(self, id: str, verdict: Verdict | None, note: str | None) -> Anomaly:
        with self._detection.lock:
            topic, row = self._find(id)
            running = self._detection.topics.get(topic.row.id)
            decades = {Seen(*values[:-1]).subject: float(values[-1]) for values in row.body["signals"]}
            if running is not None:
                if verdict == "not an anomaly":
                    running.judge.budget.dismiss(row.n, decades)
                else:
                    running.judge.budget.undo(list(decades))
                cursor, state = running.cursor, running.judge.state()

            def write(db: Any) -> None:
                store.judge(db, topic.row.id, row.n, verdict, note)
                if running is not None:
                    store.save(db, topic.row.id, cursor, state, list(running.found.values()))

            self._log.write(write)
            if running is not None:
                running.found.clear()
        return self._one(id)

    async def marked(self, timeline: Timeline, keyword: KeywordIndex) -> Timeline:
        """A timeline with what stands out in its topics meanwhile."""
        if not timeline.buckets:
            return timeline
        topics = self._stock.choose(timeline.coverage.topics)
        start_ms = to_ms(timeline.buckets[0].start)
        end_ms = to_ms(timeline.buckets[-1].start) + round(timeline.interval_s * 1000)
        start_ms -= (end_ms - start_ms) // 5  # what it came of was shortly before
        if timeline.coverage.since is not None:
            start_ms = to_ms(timeline.coverage.since)
        return replace(timeline, markers=await _thread(markers, self._log, keyword, topics, start_ms, end_ms))

    # ------------------------------------------------------------------ settings

    async def detecting(self, topic: str | None = None) -> list[Detecting]:
        """As DetectVerbs.detecting."""
        return await _thread(self._detecting, topic)

    def _detecting(self, name: str | None) -> list[Detecting]:
        specs = store.specs(self._log)
        if name is not None:
            topic = self._stock.find(name)
            return [self._view(topic, specs.get(topic.row.id, Spec(False, 3.0, "medium")))]
        return [
            self._view(t, specs[t.row.id]) for t in self._stock.choose(None) if t.row.id in specs and specs[t.row.id].enabled
        ]

    async def counts(self) -> dict[str, int]:
        """Topics whose detectors are on, what they found, and records that the one furthest behind has not judged."""
        seen = await self.detecting()
        sums = {name: sum(getattr(d, name) for d in seen) for name in ("found", "alerted", "dismissed")}
        return {"on": len(seen), **sums, "behind": max((d.behind for d in seen), default=0)}

    def _view(self, topic: TopicIndex, spec: Spec) -> Detecting:
        id = topic.row.id
        running = self._detection.topics.get(id) if spec.enabled else None
        found, alerted, dismissed = store.counts(self._log, id)
        now, problem = self._clock_ms(), self._detection.problem
        if running is None:
            return Detecting(topic.row.name, "off", spec.per_day, spec.sensitivity, spec.kinds, spec.fields, spec.session,
                             spec.alert_topic, 0, 0.0, found, alerted, 0, dismissed, 0.0)  # fmt: skip
        budget = running.judge.budget
        at_ms = now if running.judge.live or running.judge.minute is None else running.judge.minute * 60_000
        state: DetectState = "held up" if problem else "learning" if budget.learning else "watching"
        return Detecting(
            topic.row.name, state, spec.per_day, spec.sensitivity, spec.kinds, spec.fields,
            running.judge.sequences.name if spec.session is None else spec.session, spec.alert_topic,
            max(self._log.stored().get(id, 0) - running.cursor, 0), round(budget.minutes / 1440, 3), found, alerted,
            len(budget.spent(at_ms)), dismissed, round(budget.line_days(at_ms), 3), dict(running.judge.signals), problem,
        )  # fmt: skip

    async def set(
        self, topic: str, *, enabled: bool = True, budget: float | str | None = None, sensitivity: Sensitivity | None = None,
        detectors: Sequence[DetectorKind] | None = None, fields: Sequence[str] | None = None, session: str | None = None,
        alert_topic: str | None = None,
    ) -> Detecting:  # fmt: skip
        """As DetectVerbs.set_detecting."""
        changes: dict[str, Any] = {"enabled": enabled}
        if budget is not None:
            changes["per_day"] = per_day(budget)
        if sensitivity is not None:
            if sensitivity not in ("low", "medium", "high"):
                raise UsageError(f"sensitivity is low, medium or high, not {sensitivity[:40]!r}")
            changes["sensitivity"] = sensitivity
        if detectors is not None:
            if unknown := [kind for kind in detectors if kind not in KINDS]:
                raise UsageError(f"no detector {unknown[0][:40]!r}; there are {', '.join(KINDS)}")
            changes["kinds"] = tuple(kind for kind in KINDS if kind in detectors) or KINDS
        if fields is not None:
            changes["fields"] = tuple(fields) or None
        if session is not None:
            changes["session"] = session or None
        if alert_topic is not None:
            if alert_topic == topic:
                raise UsageError("alerts of a topic cannot go to the topic itself: they would be judged again")
            changes["alert_topic"] = alert_topic or None
        return await _thread(self._set, topic, changes)

    def _set(self, name: str, changes: dict[str, Any]) -> Detecting:
        topic = self._stock.find(name)
        id = topic.row.id
        with self._detection.lock:
            self._detection.save_all()
            before = store.specs(self._log).get(id)
            begin = self._log.stored().get(id, 0)
            cursor = max(self._log.topic(name).first_seq, begin - HISTORY) if before is None else None
            if before is not None and not before.enabled and changes["enabled"]:
                changes["begin"] = begin  # what came while they were off alerts nobody
            spec = replace(before or Spec(True, 3.0, "medium", begin=begin), **changes)
            self._log.write(lambda db: store.put(db, id, spec, cursor))
            self._detection.reload(id)
        return self._detecting(name)[0]

    # ------------------------------------------------------------------ alerts

    async def events(self, topics: Sequence[str] | None = None, *, cursor: str | None = None) -> AsyncIterator[Anomaly]:
        """As DetectVerbs.anomaly_events."""
        after = self._clock_ms() if cursor is None else (await _thread(self._find, cursor))[1].found_ms
        told_then = set[tuple[int, int]]()  # those found in the millisecond `after`
        while not self._detection.closed:
            bell = self._detection.bell
            chosen = {t.row.id: t for t in await _thread(self._stock.choose, topics)}
            rows = await _thread(store.alerts_since, self._log, list(chosen), after, MOST)
            fresh = [row for row in rows if (row.topic, row.n) not in told_then]
            for row in fresh:
                if row.found_ms > after:
                    after = row.found_ms
                    told_then.clear()
                told_then.add((row.topic, row.n))
                if f"{chosen[row.topic].row.name}-{row.n}" != cursor:
                    yield await _thread(told, self._log, chosen[row.topic], row)
            if not fresh:
                await bell.wait()


def per_day(budget: float | str) -> float:
    """Alerts a day of `3/day`, `1 per week` or a number; UsageError."""
    found = _BUDGET.fullmatch(budget) if isinstance(budget, str) else None
    value = float(budget) if not isinstance(budget, str) else math.nan
    if found is not None:
        value = float(found[1]) * _PER_DAY[(found[2] or "d")[0].lower()]
    if not 0.01 <= value <= _MOST_BUDGET:
        raise UsageError(
            f"a budget is a number of alerts such as 3/day (at most {_MOST_BUDGET:,.0f}), not {str(budget)[:40]!r}"
        )
    return value


def _place(cursor: str | None) -> tuple[int, int, int] | None:
    if cursor is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,16}\.[0-9]{1,9}\.[0-9]{1,15}", cursor):
        raise UsageError(f"{cursor[:40]!r} is not a cursor that a reply gave")
    start, topic, n = cursor.split(".")
    return int(start), int(topic), int(n)


async def _thread(work: Callable[..., T], *args: Any) -> T:
    return await anyio.to_thread.run_sync(lambda: work(*args))
