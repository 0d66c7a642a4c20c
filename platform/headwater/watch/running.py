"""Watches: standing queries that wake whoever waits for them. "Wake me if it recurs", and it does.

All watches are judged together, in two groups of each topic: by words as soon as a record is mapped, by meaning once its
passages are embedded; while a model is down words judge alone, and meaning catches up later. A record fires a watch once.
Cursors, windows and hits are written in one transaction: whatever happens in between, no hit is lost and none is fired
twice. A wait reads the hits behind its cursor from the log: whoever comes late, or again, is told all that is kept.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import anyio.to_thread
import numpy as np

from headwater.errors import EmbedError, HeadwaterError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.log import watches as watch_store
from headwater.log.store import Log
from headwater.log.watches import KEPT, MEANING, WORDS, HitRow, WatchRow
from headwater.query import parse
from headwater.records import address
from headwater.search.finding import embed
from headwater.watch.counting import crosses
from headwater.watch.judging import Judge, Match, Standing

logger = logging.getLogger(__name__)
_BLOCK = 1000  # records of one topic judged in one step
_FLUSH_S = 1.0  # most time between two saved cursors while nothing fires
_RETRY_S = 1.0
_TEXTS = 256  # of watches that are embedded at once
Missing = tuple[TopicIndex, dict[int, Standing]]  # a topic of a model, and watches that this is to embed
_FORGET_MS = 24 * 3_600_000  # after its end a watch is forgotten with its hits


class Watching:
    """The watches of an engine as they are judged: `load()`, then `run()` on the engine's loop."""

    def __init__(self, log: Log, indexer: Indexer, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._indexer, self._clock_ms = log, indexer, clock_ms
        self.lock = threading.Lock()  # held while watches are judged, made or removed
        self.watches: dict[int, Standing] = {}
        self.problems: dict[str, str] = {}  # model -> why watches are not embedded by it
        self._vectors: dict[tuple[str, int], np.ndarray] = {}
        self._judges: dict[int, Judge] = {}
        self._marks: dict[tuple[int, str], int] = {}
        self._changed: dict[int, Standing] = {}  # what the log does not know yet
        self._moved: set[tuple[int, str]] = set()
        self._hits: dict[int, deque[HitRow]] = {}
        self._flushed, self._retry_at = time.monotonic(), 0.0
        self._bell = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bells: dict[int, asyncio.Event] = {}
        self.any_bell = asyncio.Event()  # set, and replaced, when any watch fires
        self.problem: str | None = None
        self.closed = False

    def load(self) -> None:
        """Read everything from the log; what was judged since it was last written is judged again."""
        earlier = self.watches
        self.watches = {row.id: standing(row) for row in watch_store.read(self._log)}
        for id, watch in self.watches.items():
            if id in earlier:
                watch.deaf, watch.joined = earlier[id].deaf, earlier[id].joined
        self._marks.clear()
        self._changed.clear()
        self._moved.clear()
        self._hits.clear()
        self._judges.clear()

    def enter(self, watch: Standing) -> None:
        """Judge one more watch (any thread). `lock` is held."""
        self.watches[watch.id] = watch
        self._judges.clear()
        self.wake()

    def leave(self, ids: Iterable[int]) -> None:
        """Judge some watches no more (any thread), and let their waiters go. `lock` is held."""
        for id in ids:
            self.watches.pop(id, None)
            self._changed.pop(id, None)
            self._hits.pop(id, None)
            for key in [key for key in list(self._vectors) if key[1] == id]:
                del self._vectors[key]
        self._judges.clear()
        self._call(self._ring, list(ids))

    def wake(self) -> None:
        """Look for work now (any thread)."""
        self._call(self._wake)

    def bell(self, id: int) -> asyncio.Event:
        """Set when a watch fires, or goes; whoever waits takes it before looking."""
        return self._bells.setdefault(id, asyncio.Event())

    def behind(self, watch: Standing, stored: Mapping[int, int]) -> int:
        """Records that a watch has not judged yet, by words or by meaning. `stored` is the next seq of each topic."""
        most = 0
        for topic in self._topics(watch):
            id = topic.row.id
            start, own = watch.state.starts.get(id, 0), watch.state.own.get(id, (None, None))
            words = self._mark(id, WORDS) if own[0] is None else own[0]
            meaning = self._mark(id, MEANING) if own[1] is None else own[1]
            most += max(stored.get(id, 0) - max(min(words, meaning) if watch.by_meaning else words, start), 0)
        return most

    # ------------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Judge records as they are indexed, until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            progress, bell = self._indexer.progress, self._bell
            try:
                more, fired, missing = await anyio.to_thread.run_sync(self._step)
                self._ring(fired)
                if fired:
                    self.any_bell.set()
                    self.any_bell = asyncio.Event()
                more |= await self._learn(missing)
            except Exception as error:  # the top of a loop that nothing may end
                await self._hold_up(error)
                continue
            self.problem = None
            if not more:
                await self._rest(progress, bell)

    async def _rest(self, progress: asyncio.Event, bell: asyncio.Event) -> None:
        """Sleep until the indexes have come further, watches have changed, or something is due."""
        due = [_FLUSH_S] if self._moved or self._changed else []
        due += [max(self._retry_at - time.monotonic(), 0.05)] if self.problems else []
        ends = [w.expires_ms for w in list(self.watches.values()) if w.expires_ms is not None]
        due += [max((min(ends) - self._clock_ms()) / 1000, 1.0)] if ends else []
        waiting = [asyncio.ensure_future(event.wait()) for event in ([progress, bell] if self.watches else [bell])]
        try:
            await asyncio.wait(waiting, timeout=min(due, default=None), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _hold_up(self, error: Exception) -> None:
        problem = f"watches are held up: {error or type(error).__name__}"
        if problem != self.problem:
            logger.warning("%s", problem, exc_info=None if isinstance(error, HeadwaterError) else error)
        self.problem = problem
        await asyncio.sleep(_RETRY_S)

    def _call(self, work: Callable[..., None], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work, *args)

    def _wake(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    def _ring(self, ids: Iterable[int]) -> None:
        for id in ids:
            if (bell := self._bells.pop(id, None)) is not None:
                bell.set()

    def close(self) -> None:
        """Let every waiter go. On the loop."""
        self.closed = True
        self._ring(list(self._bells))

    # ------------------------------------------------------------------ what watches mean

    async def _learn(self, missing: Mapping[str, Missing]) -> bool:
        """Embed what watches look for, by the model of each topic they concern: whether any was. One that a model refuses is
        judged by words alone; while a model is down, its topics wait."""
        if not missing:
            self.problems = {}
        if not missing or (self.problems and time.monotonic() < self._retry_at):
            return False
        self.problems = {}
        for model, (topic, watches) in missing.items():
            for liked in (False, True):
                chosen = [w for w in watches.values() if (w.spec.like is not None) == liked]
                for at in range(0, len(chosen), _TEXTS):
                    await self._embed(model, topic, chosen[at : at + _TEXTS], liked)
        return not self.problems

    async def _embed(self, model: str, topic: TopicIndex, watches: Sequence[Standing], liked: bool) -> None:
        assert topic.embedder is not None
        try:
            rows = await embed([topic], topic.embedder, [w.text or "" for w in watches], "passage" if liked else "query")
        except EmbedError as error:
            self.problems[model] = str(error)
            self._retry_at = time.monotonic() + min(max(error.retry_after_s or 1.0, 0.2), 60.0)
        except UsageError as error:
            if len(watches) == 1:
                watches[0].deaf = f"{model}: {error}"
                return
            for watch in watches:
                await self._embed(model, topic, [watch], liked)
        else:
            self._vectors.update(((model, w.id), row) for w, row in zip(watches, rows, strict=True))

    # ------------------------------------------------------------------ judging, in a thread

    def _step(self) -> tuple[bool, set[int], dict[str, Missing]]:
        """Judge the next records of every topic: whether there are more, which watches have fired, and by model those that
        are to be embedded first."""
        with self.lock:
            self._forget_expired()
            missing: dict[str, Missing] = {}
            more = False
            try:
                for topic in list(self._indexer.topics.values()) if self.watches else ():
                    if topic.closed:
                        continue
                    more |= self._advance(topic)
                    if wanted := self._judge(topic).waits_for():
                        assert topic.embedder is not None
                        known = missing.setdefault(topic.embedder.name, (topic, {}))[1]
                        known.update((w.id, w) for w in wanted)
                return more, self._flush(), missing
            except BaseException:
                self.load()  # nothing may be known here that the log does not know
                raise

    def _advance(self, topic: TopicIndex) -> bool:
        """One block of a topic, by words and by meaning; True when there is more."""
        judge, id = self._judge(topic), topic.row.id
        if not judge.watches or not (judge.behind or self._is_due(topic, judge)):
            return False
        now = self._clock_ms()
        watches = [w for w in judge.watches if w.expires_ms is None or w.expires_ms > now]
        words = self._advance_group(judge, watches, WORDS, topic.mapped)
        if judge.waits_for():
            return words
        upto = min(topic.semantic, self._mark(id, WORDS)) if judge.measures else self._mark(id, WORDS)
        return self._advance_group(judge, watches, MEANING, upto) or words

    def _is_due(self, topic: TopicIndex, judge: Judge) -> bool:
        """Whether a topic has records that no group has judged."""
        words = self._mark(topic.row.id, WORDS)
        meaning = min(topic.semantic, words) if judge.measures else words
        return words < topic.mapped or self._mark(topic.row.id, MEANING) < meaning

    def _advance_group(self, judge: Judge, watches: Sequence[Standing], group: str, upto: int) -> bool:
        """One block of one group, then of each watch that is behind it; True when there is more."""
        id, side = judge.topic.row.id, (WORDS, MEANING).index(group)
        own = {w for w in watches if w in judge.behind and w.state.own[id][side] is not None}
        joined = [w for w in watches if w not in own]
        mark = self._mark(id, group)
        least = min((w.state.starts.get(id, 0) for w in joined), default=upto)
        at = min(max(mark, least), max(upto, mark))  # nobody asks for what lies before
        end = min(at + _BLOCK, upto)
        if at < end:
            self._fire(judge, joined, group, at, end)
        if (end := max(at, end)) > mark:
            self._marks[id, group] = end
            self._moved.add((id, group))
        more = end < upto
        for watch in sorted(own, key=lambda w: w.id):
            more |= self._catch_up(judge, watch, group, side)
        return more

    def _catch_up(self, judge: Judge, watch: Standing, group: str, side: int) -> bool:
        """One block for a watch that looks back; where it has come as far as the others it joins them."""
        id = judge.topic.row.id
        place = watch.state.own[id]
        at, mark = place[side], self._mark(id, group)
        assert at is not None
        end = min(at + _BLOCK, mark) if side == 0 or place[0] is None else min(at + _BLOCK, mark, place[0])
        if at < end:
            self._fire(judge, [watch], group, at, end)
        at = max(at, end)
        place[side] = None if at >= mark else at
        if place == [None, None]:
            del watch.state.own[id]
            judge.behind.discard(watch)
        self._changed[watch.id] = watch
        return at < mark

    def _fire(self, judge: Judge, watches: Sequence[Standing], group: str, start: int, end: int) -> None:
        find = judge.by_words if group == WORDS else judge.by_meaning
        name, now = judge.topic.row.name, self._clock_ms()
        for match in find(watches, start, end):
            counted = _counted(match)
            watch, row = match.watch, match.row
            self._changed[watch.id] = watch
            if counted == 0:
                continue
            watch.state.fired += 1
            watch.state.last_ms = now
            place = address(name, row.partition, row.offset)
            hit = HitRow(watch.id, watch.state.fired, row.id, place, match.why, match.score, counted, now)
            self._hits.setdefault(watch.id, deque(maxlen=KEPT)).append(hit)

    def _flush(self, *, now: bool = False) -> set[int]:
        """Write what has changed, at once where something has fired: the watches that have."""
        now = now or bool(self._hits) or time.monotonic() - self._flushed >= _FLUSH_S
        if not now or not (self._moved or self._changed):
            return set()
        marks = [(topic, group, self._marks[topic, group]) for topic, group in self._moved]
        states = {id: watch.state for id, watch in self._changed.items()}
        hits = [hit for found in self._hits.values() for hit in found]
        self._log.write(lambda db: watch_store.store(db, marks, states, hits), rows=len(hits) + 1)
        fired = set(self._hits)
        self._moved.clear()
        self._changed.clear()
        self._hits.clear()
        self._flushed = time.monotonic()
        return fired

    def troubles(self) -> list[str]:
        """What holds all watches up, in words."""
        return [self.problem] if self.problem is not None else []

    def settle(self) -> None:
        """Write what is known, at the end."""
        with self.lock:
            self._call(self._ring, self._flush(now=True))

    def reread(self) -> None:
        """Forget what the log has forgotten of watches (any thread)."""
        with self.lock:
            self._call(self._ring, self._flush(now=True))
            self.load()
            for model, id in list(self._vectors):
                if id not in self.watches or self.watches[id].text is None:
                    del self._vectors[model, id]

    # ------------------------------------------------------------------ which watches, how far

    def _judge(self, topic: TopicIndex) -> Judge:
        judge = self._judges.get(topic.row.id)
        if judge is None or judge.topic is not topic:
            watches = [w for w in list(self.watches.values()) if w.concerns(topic.row.name)]
            judge = self._judges[topic.row.id] = Judge(self._log, topic, watches, self._vectors)
        return judge

    def _topics(self, watch: Standing) -> Iterator[TopicIndex]:
        return (t for t in list(self._indexer.topics.values()) if watch.concerns(t.row.name))

    def _mark(self, topic: int, group: str) -> int:
        if (topic, group) not in self._marks:
            self._marks[topic, group] = self._log.cursor(topic, group)
        return self._marks[topic, group]

    def _forget_expired(self) -> None:
        now = self._clock_ms()
        past = [w.id for w in self.watches.values() if w.expires_ms is not None and w.expires_ms + _FORGET_MS <= now]
        if past:
            self._log.write(lambda db: watch_store.drop(db, past))
            self.leave(past)


def standing(row: WatchRow) -> Standing:
    """A stored watch, ready to be judged. Ages in its query count back from when it was made."""
    query = parse(row.spec.q, now_ms=row.created_ms)
    return Standing(row.id, row.name, row.spec, query, row.state, row.created_ms, row.expires_ms, row.owner)


def _counted(match: Match) -> int | None:
    """None for a watch without a window: each match fires. Else how many records are in the window where this one crosses
    the line, and 0 where it does not."""
    spec, state = match.watch.spec, match.watch.state
    if spec.more_than is None or spec.within_ms is None:
        return None
    return spec.more_than + 1 if crosses(state, match.row.time_ms, spec.more_than, spec.within_ms) else 0


def why_held_up(watching: Watching, watch: Standing, present: Mapping[str, TopicIndex]) -> str | None:
    """What keeps a watch from being judged as it was meant; None when all is well."""
    if watching.problem is not None:
        return watching.problem
    gone = [name for name in watch.spec.topics or () if name not in present]
    if gone:
        return f"no topic {gone[0]!r} now"
    if watch.deaf is not None:
        return watch.deaf
    if watch.text is None:
        return "the record it is like was purged; equal patterns still fire it"
    topics = [t for t in present.values() if watch.concerns(t.row.name)] if watch.by_meaning else []
    for topic in topics:
        if topic.embedder is not None and (error := watching.problems.get(topic.embedder.name) or topic.error) is not None:
            return f"meaning is not judged in {topic.row.name}: {error}"
    if watch.spec.mode == "semantic" and topics and all(t.embedder is None for t in topics):
        return f"{topics[0].row.name} is keyword-only; `headwater index create {topics[0].row.name}` adds meaning search"
    return None
