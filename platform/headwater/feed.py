"""From sources to the log: each source's batches are appended with its resume state, in one transaction, one at a time.

A store that is slow holds its source back; one that fails is tried again with the same batch, so nothing that a source
has handed out is lost while the process lives, and nothing is stored twice after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

import anyio.to_thread

from headwater import telemetry
from headwater.engine import Engine
from headwater.errors import HeadwaterError, StorageError
from headwater.intake.deliveries import deliver
from headwater.intake.roster import Entry, Tally
from headwater.log.store import Origin
from headwater.records import Appended, Draft
from headwater.source_settings import SourceSettings
from headwater.sources import Batch, Draining, Source
from headwater.versions import settle

logger = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # between tries; the last for all further ones
_LOOK_S = 0.5  # how often the status of sources is brought up to date
_SEARCH_S = 5.0  # how often new sources are looked for
_DRAIN_S = 3.0  # for a source that is stopped to hand out what it holds
Find = Callable[[Entry, Mapping[str, str]], Sequence[Source]]


class Feed:
    """Runs the sources of the engine's roster. `find(entry, known)` makes those of an entry that `known`, which maps a path to
    its topic, does not tell of; it is asked again and again, as files come. Paused sources stop between two batches."""

    def __init__(self, engine: Engine, find: Find, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._engine, self._find, self._pause = engine, find, pause
        self._roster = engine.roster
        self._sources: dict[str, tuple[Source, Entry]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._known: dict[str, str] = {}
        self._failing: dict[str, str] = {}
        self._told: dict[str, str | None] = {}

    async def run(self) -> None:
        """Follow until cancelled; then every source has stopped between two batches."""
        changed = asyncio.Event()
        self._roster.on_change(changed.set)
        try:
            while True:
                changed.clear()
                await self._stop_what_is_not_wanted()
                await self._start_what_is()
                for _ in range(round(_SEARCH_S / _LOOK_S)):
                    self._report()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):  # wait_for would lose a cancellation that comes with the event
                            await changed.wait()
                        break
        finally:
            await asyncio.gather(*(self._stop(name) for name in list(self._tasks)), return_exceptions=True)
            self._report()

    async def _stop_what_is_not_wanted(self) -> None:
        entries = {entry.name: entry for entry in self._roster.entries()}
        for name, (source, made_of) in list(self._sources.items()):
            entry = entries.get(made_of.name)
            gone = entry is None or entry.settings is not made_of.settings
            if gone or (entry is not None and entry.paused):
                await self._stop(name)
            if gone:
                del self._sources[name]
                self._known.pop(_path_of(source), None)
                self._told.pop(name, None)

    async def _start_what_is(self) -> None:
        for entry in self._roster.entries():
            if entry.paused or entry.settings is None:
                continue
            mine = [name for name, (_, made_of) in self._sources.items() if made_of.name == entry.name]
            for name in mine:
                self._start(name)
            if not mine or isinstance(entry.settings, SourceSettings):  # files may come any time
                await self._look_for_more(entry)

    async def _look_for_more(self, entry: Entry) -> None:
        try:
            found = await anyio.to_thread.run_sync(self._find, entry, dict(self._known))
        except (HeadwaterError, OSError) as error:
            if self._roster.note(entry.name, str(error)):
                logger.warning("looking for sources of %s: %s", entry.name, error)
            return
        self._roster.note(entry.name, None)
        for source in found:
            if isinstance(entry.settings, SourceSettings):
                self._known[_path_of(source)] = source.topic
            if source.name not in self._sources:
                logger.info("following %s into %s", source.name, source.topic)
                self._sources[source.name] = (source, entry)
                self._start(source.name)

    def _start(self, name: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._follow(self._sources[name][0]))

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is None:
            return
        source = self._sources[name][0]
        if isinstance(source, Draining) and name not in self._failing:
            source.stop()
            await asyncio.wait({task}, timeout=_DRAIN_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _tally(self, source: Source) -> Tally:
        return self._roster.tally(source.name, self._sources[source.name][1], topic=source.topic, kind=source.kind)

    def _report(self) -> None:
        for name, (source, _) in self._sources.items():
            tally, condition, task = self._tally(source), source.condition, self._tasks.get(name)
            error = self._failing.get(name) or condition.error
            if error != self._told.get(name):  # others may have told of another one
                self._told[name] = tally.error = error
            ended = task is not None and task.done()
            tally.state = "failing" if name in self._failing else "ended" if ended else condition.state
            tally.counts.update(condition.counts)
        self._roster.look()

    async def _follow(self, source: Source) -> None:
        """One source to its end. What fails inside it is tried again from the last stored state."""
        tries, said = 0, ""
        while True:
            self._failing.pop(source.name, None)
            try:
                state = await anyio.to_thread.run_sync(self._engine.log.source_state, source.name)
                async with aclosing(source.batches(state)) as batches:  # type: ignore[type-var]  # the protocol promises aclose
                    async for batch in batches:
                        await self._store(source, batch)
                        tries, said = 0, ""
                return
            except Exception as error:  # the top of a source's loop: it must not take the daemon down
                self._failing[source.name] = words = str(error) or type(error).__name__
                known, said = words == said, words
                logger.log(
                    logging.DEBUG if known else logging.WARNING, "source %s: %s; trying again", source.name, error,
                    exc_info=not isinstance(error, HeadwaterError),
                )  # fmt: skip
            await self._pause(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    async def _store(self, source: Source, batch: Batch) -> None:
        """Store a batch, however long the log cannot be written."""
        tries = 0
        while True:
            try:
                await self._append(source, batch)
                break
            except StorageError as error:
                self._failing[source.name] = str(error)
                logger.warning("source %s waits: %s", source.name, error)
            await self._pause(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1
        self._failing.pop(source.name, None)
        tally = self._tally(source)
        tally.lag, tally.stored = batch.lag_bytes, tally.stored + len(batch.drafts)

    @telemetry.traced("headwater.source")
    async def _append(self, source: Source, batch: Batch) -> None:
        telemetry.note(kind=source.kind, topic=source.topic, records=len(batch.drafts), faults=len(batch.faults))
        engine, topic = self._engine, source.topic

        async def append(drafts: Sequence[Draft], origin: Origin) -> Appended:
            return await engine.append(topic, drafts, origin=origin)

        home = await engine.home(topic)
        origin = Origin(batch.stream, source.name, batch.state)
        await deliver(append, engine.log, home, batch.drafts, origin, batch.faults, source.name)
        await settle(engine.stock.deletion, engine.indexer, engine.log, home, source.name, batch.state)


def _path_of(source: Source) -> str:
    return str(getattr(source, "path", "-"))
