"""A topic's indexes built anew in place, step by step, while they answer.

The keyword index is fed again a batch of records at a time: what it holds of them goes and comes back in one commit, so that
no search misses anything. Then every segment of the vector index is built anew from the vectors in the log; the one before
answers until its successor is in place. How far it has come is in the log: after a crash it goes on there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import anyio
import anyio.to_thread
import apsw

from headwater.errors import HeadwaterError, NotFoundError
from headwater.index.indexer import Indexer
from headwater.index.topic import Pace, TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log.store import Log, set_cursor
from headwater.records.indexes import Progress

logger = logging.getLogger(__name__)
REBUILD = "index.rebuild"  # a cursor: the next seq to feed again; _SEGMENTS once all are, and segments are built anew
_SEGMENTS = 1 << 50
_LOOK_S = 1.0


class Rebuilding:
    """The rebuilds under way. Methods are plain synchronous code, but for `run`."""

    def __init__(self, log: Log, keyword: KeywordIndex, indexer: Indexer, batch_records: int) -> None:
        self._log, self._keyword, self._indexer, self._batch = log, keyword, indexer, batch_records
        self._lock = threading.Lock()
        self._at: dict[int, int] = {}
        self._paces: dict[int, Pace] = {}
        self._renewed: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = asyncio.Event()

    def resume(self) -> None:
        """Take up what a crash or an end has cut short."""
        with self._log.reading() as db:
            self._at = dict(db.execute("SELECT topic, seq FROM cursor WHERE name = ?", (REBUILD,)))

    def begin(self, topic: TopicIndex) -> None:
        """Build a topic's indexes anew, from the start where that is under way."""
        self._move(topic.row.id, 0)

    def cancel(self, topic: TopicIndex) -> None:
        """Leave a topic's indexes as they are now: each part is either as it was or new. NotFoundError where none is built."""
        with self._lock:
            if self._at.pop(topic.row.id, None) is None:
                raise NotFoundError(f"nothing is being built for {topic.row.name!r}")
            self._end(topic.row.id)

    def progress(self, topic: TopicIndex) -> Progress | None:
        """How far a topic's rebuild has come, None where there is none."""
        at = self._at.get(topic.row.id)
        if at is None:
            return None
        if at >= _SEGMENTS:
            segments = [one for index in topic.indexes() for one in index.counts.segments]
            return Progress("segments", sum(one.due is None for one in segments), len(segments), 0.0, None)
        rate = self._paces.setdefault(topic.row.id, Pace()).rate
        left = max(topic.keyword - at, 0)
        return Progress("keywords", at, max(topic.keyword, at), rate, round(left / rate, 1) if rate else None)

    async def run(self) -> None:
        """Step through all rebuilds until cancelled. Half of the time is left to others."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._begun.clear()
            if not self._at:
                await self._begun.wait()
            for id in list(self._at):
                began = time.monotonic()
                try:
                    await anyio.to_thread.run_sync(self.step, id)
                except Exception as error:  # the top of a loop that nothing may end
                    logger.warning("a rebuild waits: %s", error, exc_info=None if isinstance(error, HeadwaterError) else error)
                    await anyio.sleep(_LOOK_S)
                await anyio.sleep(min(time.monotonic() - began, _LOOK_S))
            if all(at >= _SEGMENTS for at in self._at.values()):
                await anyio.sleep(_LOOK_S / 4)

    def step(self, id: int) -> None:
        """One batch of records, or a look whether all segments are new."""
        with self._indexer.busy:
            topic, at = self._indexer.topics.get(id), self._at.get(id)
            if topic is None:  # deleted, and its cursor with it; or the engine is closing, and the cursor stays
                with self._lock:
                    self._forget(id)
                return
            if at is None or topic.closed:
                return
            if at < _SEGMENTS:
                rows = self._log.rows(id, at, self._batch, before=topic.keyword)
                end = rows[-1].seq + 1 if rows else topic.keyword
                if end > at:
                    self._keyword.delete_between(id, at, end)
                    self._indexer.feed(topic, rows)
                    self._indexer.commit_keyword()
                    self._paces.setdefault(id, Pace()).step(end - at)
                with self._lock:
                    if self._at.get(id) == at:  # else it was cancelled, or begun anew
                        self._keep(id, end if rows else _SEGMENTS)
                return
        self._renew(topic)

    def _renew(self, topic: TopicIndex) -> None:
        id = topic.row.id
        if id not in self._renewed:
            self._renewed.add(id)
            for index in topic.indexes():
                index.renew()
        if all(one.due is None for index in topic.indexes() for one in index.counts.segments):
            with self._lock:
                if self._at.pop(id, None) is not None:
                    self._end(id)

    def _move(self, id: int, at: int) -> None:
        with self._lock:
            self._renewed.discard(id)
            self._paces[id] = Pace()
            self._paces[id].step(0)
            self._keep(id, at)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begun.set)

    def _keep(self, id: int, at: int) -> None:
        self._log.write(lambda db: set_cursor(db, id, REBUILD, at))
        self._at[id] = at

    def _end(self, id: int) -> None:
        def write(db: apsw.Connection) -> None:
            db.execute("DELETE FROM cursor WHERE topic = ? AND name = ?", (id, REBUILD))

        self._log.write(write)
        self._forget(id)

    def _forget(self, id: int) -> None:
        self._at.pop(id, None)
        self._renewed.discard(id)
        self._paces.pop(id, None)
