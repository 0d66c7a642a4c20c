"""The detectors of an engine as they run: a group that follows the indexer, topic by topic, and rings for what it finds.

What was learned, the cursor and the anomalies found on the way are saved together, at once where something was found, else
every few seconds: after a crash the records since are judged again, and find the same. Minutes without records pass by the
clock, in topics whose newest records are of now.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio.to_thread
import orjson

from headwater.detect import store
from headwater.detect.budget import Incident
from headwater.detect.explain import body_of, told
from headwater.detect.judging import TopicJudge
from headwater.detect.near import nearest_before
from headwater.detect.seen import MINUTE_MS, Item
from headwater.detect.store import GROUP, AnomalyRow, Spec
from headwater.errors import HeadwaterError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.log.store import Log, Row
from headwater.records import Appended
from headwater.records.levels import is_bad
from headwater.verbs import Entry

logger = logging.getLogger(__name__)
_BLOCK = 1000  # records judged in one step
_SAVE_S = 5.0
_RETRY_S = 1.0
_TICK_S = 5.0
_GRACE_MS = 20_000  # a minute is over by the clock when that has passed too
_AWAY_MS = 120_000  # between two looks: nobody looked meanwhile
_SETTLES_MS = 60_000  # after that, until minutes pass by the clock: what came meanwhile is read first
_NEAR = 5000  # records behind, up to which a topic is followed; else it is read from its history
_LIVE_MS = 600_000  # records stored within that of their own time are of now
_AT_ONCE = 200  # vectors judged in one step
_SAME = 0.85  # of meaning, from which two passages say the same
HISTORY = 500_000  # records of before that detectors learn from


class Append(Protocol):
    """The engine's append."""

    def __call__(
        self, topic: str, records: Sequence[Entry], *, idempotency_key: str | None = None
    ) -> Coroutine[Any, Any, Appended]: ...


@dataclass(slots=True, eq=False)
class Running:
    """The detectors of one topic as they run. `cursor` is the next seq to judge."""

    spec: Spec
    judge: TopicJudge
    cursor: int
    aliases: int = 0
    back_ms: int = 0
    moved: bool = False
    saved: float = 0.0
    found: dict[int, AnomalyRow] = field(default_factory=dict)
    error: str | None = None


class Detection:
    """`load()`, then `run()` on the engine's loop."""

    def __init__(self, log: Log, indexer: Indexer, append: Append, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._indexer, self._append, self._clock_ms = log, indexer, append, clock_ms
        self.lock = threading.Lock()  # held while topics are judged, and while settings change
        self.topics: dict[int, Running] = {}
        self.bell = asyncio.Event()  # set, and replaced, when something alerts
        self.problem: str | None = None
        self._looked_ms = self._back_ms = 0  # when it last looked, and since when it does so without a gap
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    def load(self) -> None:
        """Read settings and what was learned from the log."""
        self.topics = {topic: self._opened(topic, spec) for topic, spec in store.specs(self._log).items() if spec.enabled}

    def reload(self, topic: int) -> None:
        """Read one topic anew (any thread); `lock` is held."""
        spec = store.specs(self._log).get(topic)
        if spec is None or not spec.enabled:
            self.topics.pop(topic, None)
        else:
            self.topics[topic] = self._opened(topic, spec)
        self._call(self._ring_wake)

    def _opened(self, topic: int, spec: Spec) -> Running:
        judge = TopicJudge(
            per_day=spec.per_day, sensitivity=spec.sensitivity, kinds=spec.kinds, fields=spec.fields, session=spec.session
        )
        cursor, learned = self._log.cursor(topic, GROUP), store.state(self._log, topic)
        if learned is not None and not judge.load(learned):  # another version wrote it: learn again, and tell nothing twice
            spec, cursor = replace(spec, begin=max(spec.begin, cursor), judged=cursor), max(cursor - HISTORY, 0)
            self._log.write(lambda db: store.put(db, topic, spec, cursor))
        judge.budget.n = max(judge.budget.n, store.newest(self._log, topic))
        return Running(spec, judge, cursor, saved=time.monotonic())

    def save_all(self) -> None:
        """Write what is known, at the end or before settings change; `lock` is held."""
        for topic, running in self.topics.items():
            self._save(topic, running)

    def settle(self) -> None:
        """Write what is known, at the end."""
        with self.lock:
            self.save_all()

    # ------------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Judge records as they are indexed, until cancelled."""
        self._loop, first = asyncio.get_running_loop(), True
        while True:
            progress, wake = self._indexer.progress, self._wake
            try:
                more, alerted = await anyio.to_thread.run_sync(self._step)
                if alerted or first:
                    await self._pass_on()
                first = False
            except Exception as error:  # the top of a loop that nothing may end
                problem = f"detectors are held up: {error or type(error).__name__}"
                if problem != self.problem:
                    logger.warning("%s", problem, exc_info=None if isinstance(error, HeadwaterError) else error)
                self.problem = problem
                await asyncio.sleep(_RETRY_S)
                continue
            self.problem = None
            if alerted:
                self.ring()
            if not more:
                await self._rest(progress, wake)

    async def _rest(self, progress: asyncio.Event, wake: asyncio.Event) -> None:
        events = [progress, wake] if self.topics else [wake]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, timeout=_TICK_S if self.topics else None, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _call(self, work: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)

    def _ring_wake(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits for alerts. On the loop."""
        self.bell.set()
        self.bell = asyncio.Event()

    async def _pass_on(self) -> None:
        """Append alerts to the topic that is to get them, each once: its id is the idempotency key."""
        for row in await anyio.to_thread.run_sync(store.untold, self._log):
            topic, running = self._indexer.topics.get(row.topic), self.topics.get(row.topic)
            if topic is not None and running is not None and running.spec.alert_topic is not None:
                anomaly = await anyio.to_thread.run_sync(told, self._log, topic, row)
                attributes = {"anomaly": anomaly.id, "topic": anomaly.topic, "kind": anomaly.kind, "severity": anomaly.severity,
                              "addresses": ", ".join(anomaly.addresses)}  # fmt: skip
                alert = {"value": anomaly.what, "key": anomaly.topic, "timestamp": anomaly.found, "attributes": attributes}
                await self._append(running.spec.alert_topic, [alert], idempotency_key=f"anomaly:{anomaly.id}")
            await anyio.to_thread.run_sync(self._tell, row.topic, row.n)

    def _tell(self, topic: int, n: int) -> None:
        self._log.write(lambda db: store.tell(db, topic, n))

    def close(self) -> None:
        """Let every waiter go. On the loop."""
        self.closed = True
        self.ring()

    # ------------------------------------------------------------------ judging, in a thread

    def _step(self) -> tuple[bool, bool]:
        """One block of every topic: whether there is more, and whether something alerted."""
        with self.lock:
            more = alerted = False
            now = self._clock_ms()
            if now - self._looked_ms > _AWAY_MS:
                self._back_ms = now
            self._looked_ms = now
            try:
                for topic in list(self._indexer.topics.values()) if self.topics else ():
                    running = self.topics.get(topic.row.id)
                    if running is None or topic.closed:
                        continue
                    more |= self._advance(topic, running)
                    alerted |= any(row.alerted for row in running.found.values())
                    if running.found or (running.moved and time.monotonic() - running.saved >= _SAVE_S):
                        self._save(topic.row.id, running)
                return more, alerted
            except BaseException:
                self.load()  # nothing may be known here that the log does not know
                raise

    def _save(self, topic: int, running: Running) -> None:
        if not running.moved and not running.found:
            return
        cursor, state, found = running.cursor, running.judge.state(), list(running.found.values())
        self._log.write(lambda db: store.save(db, topic, cursor, state, found), rows=len(found) + 1)
        running.found.clear()
        running.moved, running.saved = False, time.monotonic()

    def _advance(self, topic: TopicIndex, running: Running) -> bool:
        judge = running.judge
        if running.back_ms != self._back_ms:
            running.back_ms = self._back_ms
            if judge.live and topic.mapped - running.cursor <= _NEAR:
                judge.away(self._back_ms)
        if len(topic.aliases) != running.aliases:
            judge.rename(topic.aliases)
            running.aliases = len(topic.aliases)
        end = topic.mapped
        rows: list[Row] = []
        if running.cursor < end:
            rows = self._log.rows(topic.row.id, running.cursor, _BLOCK, before=end)
            for row, item in zip(rows, self._items(topic, rows), strict=True):
                quiet = None if row.seq >= running.spec.begin else "found in history"
                for incident in judge.feed((item,), quiet=quiet):
                    if row.seq >= running.spec.judged:
                        self._found(topic, running, incident)
            running.cursor = rows[-1].seq + 1 if rows else end
            running.moved = True
            if rows:
                judge.live = rows[-1].appended_ms - rows[-1].time_ms < _LIVE_MS
        self._meanings(topic, judge)
        if running.cursor >= topic.mapped and judge.live and judge.minute is not None:
            now = self._clock_ms() - _GRACE_MS
            if now // MINUTE_MS > judge.minute and now + _GRACE_MS >= self._back_ms + _SETTLES_MS:
                for incident in judge.tick(now):
                    self._found(topic, running, incident)
                running.moved = True
        return running.cursor < topic.mapped

    def _items(self, topic: TopicIndex, rows: Sequence[Row]) -> list[Item]:
        """Records as detectors see them."""
        places = topic.catalogue.places([row.id for row in rows])
        levels: dict[bytes | None, bool] = {None: False}
        items = []
        for row in rows:
            if row.attributes not in levels:
                level = orjson.loads(row.attributes or b"{}").get("level")
                levels[row.attributes] = isinstance(level, str) and is_bad(level)
            passages = tuple(dict.fromkeys(topic.resolve(p.passage) for p in places.get(row.id, ()) if p.passage))
            at = min(row.time_ms, row.appended_ms)  # a clock ahead of ours would close minutes that are still to come
            items.append(Item(row.seq, at, row.key, passages, levels[row.attributes], row.attributes))
        return items

    def _meanings(self, topic: TopicIndex, judge: TopicJudge) -> None:
        """Judge new passages whose vectors have come by their distance to those before them."""
        pending = judge.drift.pending
        if not pending:
            return
        if topic.embedder is None or topic.vectors is None:
            pending.clear()
            return
        chosen = list(pending)[:_AT_ONCE]
        ids, vectors = topic.catalogue.vectors(chosen)
        floor = topic.embedder.floor
        for id, vector in zip(ids.tolist(), vectors, strict=True):
            near = nearest_before(topic, id, vector)
            same = near[0][0] if near and (near[0][1] - floor) / (1 - floor) >= _SAME else None
            judge.meant(id, [score for _, score in near], None if same is None else topic.resolve(same))
        known = topic.catalogue.rows(chosen)
        for gone in [id for id in chosen if id not in known]:
            pending.pop(gone, None)

    def _found(self, topic: TopicIndex, running: Running, incident: Incident) -> None:
        row = self._row(topic, incident)
        before = running.found.get(incident.n)
        if before is not None:  # as it was first seen, whether that has been written meanwhile or not
            row = row._replace(found_ms=before.found_ms, start_ms=before.start_ms, kind=before.kind)
        running.found[incident.n] = row

    def _row(self, topic: TopicIndex, incident: Incident) -> AnomalyRow:
        kind, severity, start_ms, body = body_of(topic, incident)
        return AnomalyRow(topic.row.id, incident.n, kind, severity, start_ms, incident.last_ms, self._clock_ms(),
                          incident.alerted, incident.why_quiet, None, None, body, False)  # fmt: skip
