"""From sources to the log: each source's batches are appended with its resume state, in one transaction, one at a time.

A store that is slow holds its source back; one that fails is tried again with the same batch, so nothing that a source
has handed out is lost while the process lives, and nothing is stored twice after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

import anyio.to_thread

from headwater.deliveries import deliver
from headwater.engine import Engine
from headwater.errors import HeadwaterError, StorageError
from headwater.log import Origin
from headwater.records import Appended, Draft, SourceInfo
from headwater.sources import Batch, Source

logger = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # between tries; the last for all further ones
_LOOK_S = 0.5  # how often the status of sources is brought up to date
_SEARCH_S = 5.0  # how often new sources are looked for
Find = Callable[[Mapping[str, str]], Sequence[Source]]


class Feed:
    """Runs the sources that `find(known)` names, and those it names later. `known` maps a path to its topic."""

    def __init__(self, engine: Engine, find: Find, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._engine, self._find, self._pause = engine, find, pause
        self._running: dict[str, tuple[Source, asyncio.Task[None]]] = {}
        self._known: dict[str, str] = {}
        self._stored: dict[str, int] = {}
        self._lag: dict[str, int | None] = {}
        self._failing: dict[str, str] = {}

    async def run(self) -> None:
        """Follow until cancelled; then every source has stopped between two batches."""
        try:
            while True:
                await self._look_for_more()
                for _ in range(round(_SEARCH_S / _LOOK_S)):
                    self._report()
                    await asyncio.sleep(_LOOK_S)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._report()

    async def _look_for_more(self) -> None:
        try:
            found = await anyio.to_thread.run_sync(self._find, dict(self._known))
        except (HeadwaterError, OSError) as error:
            logger.warning("looking for sources: %s", error)
            return
        for source in found:
            self._known[str(getattr(source, "path", "-"))] = source.topic
            if source.name not in self._running:
                logger.info("following %s into %s", source.name, source.topic)
                self._running[source.name] = (source, asyncio.create_task(self._follow(source)))

    def _report(self) -> None:
        for name, (source, task) in self._running.items():
            condition = source.condition
            error = self._failing.get(name) or condition.error
            state = "failing" if name in self._failing else "ended" if task.done() else condition.state
            stored, lag = self._stored.get(name, 0), self._lag.get(name)
            self._engine.sources[name] = SourceInfo(name, source.kind, source.topic, state, stored, lag, error)

    async def _follow(self, source: Source) -> None:
        """One source to its end. What fails inside it is tried again from the last stored state."""
        tries = 0
        while True:
            try:
                state = await anyio.to_thread.run_sync(self._engine.log.source_state, source.name)
                async with aclosing(source.batches(state)) as batches:  # type: ignore[type-var]  # the protocol promises aclose
                    async for batch in batches:
                        await self._store(source, batch)
                        tries = 0
                return
            except Exception as error:  # the top of a source's loop: it must not take the daemon down
                self._failing[source.name] = str(error) or type(error).__name__
                logger.warning(
                    "source %s: %s; trying again", source.name, error, exc_info=not isinstance(error, HeadwaterError)
                )
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
        self._lag[source.name] = batch.lag_bytes
        self._stored[source.name] = self._stored.get(source.name, 0) + len(batch.drafts)

    async def _append(self, source: Source, batch: Batch) -> None:
        engine, topic = self._engine, source.topic

        async def append(drafts: Sequence[Draft], origin: Origin) -> Appended:
            return await engine.append(topic, drafts, origin=origin)

        home = await engine.home(topic)
        origin = Origin(batch.stream, source.name, batch.state)
        await deliver(append, engine.log, home.row.id, batch.drafts, origin, batch.faults, source.name)
