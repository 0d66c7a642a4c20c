"""The indexer: the group that makes stored records findable, topic by topic.

    records -> passages -> (SQLite: occurrences, new passages, miner's state, cursor)   `mapped`
            -> keyword index -> commit -> cursor                                         `keyword`
    passages never embedded -> embedder -> (SQLite: vectors, cursor) -> vector index     `semantic`

Each arrow may be cut by a crash: the cursor behind it tells where to take up again, ids are the same the second time,
and the keyword index forgets what lies past its cursor before it is fed again. A provider that is down holds up
`semantic` alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio.to_thread
import apsw
import orjson

from headwater import telemetry
from headwater.config import Settings, TopicConfig
from headwater.embed import Embedder, Fallback
from headwater.errors import HeadwaterError, StorageError
from headwater.index.embedding import Embedding
from headwater.index.topic import Shadow, TopicIndex
from headwater.keyword.index import Doc, KeywordIndex
from headwater.log import former
from headwater.log.catalogue import (
    KEYWORD,
    MAPPED,
    SEMANTIC,
    Catalogue,
    Mapped,
    Piece,
    Place,
    model_id,
    store_pieces,
    uncount,
)
from headwater.log.schema import SEQ_BITS, SEQ_MASK
from headwater.log.store import Log, Row, TopicRow, add_dead_letter, set_cursor
from headwater.passages import Batch, Mapper, choose

logger = logging.getLogger(__name__)
_KNOWN_TEXTS = 200_000  # passage texts whose ids are remembered, per topic
_NONE: Mapping[str, Any] = MappingProxyType({})
_RETRY_S = 1.0  # between two tries while the disk refuses
_MARK_S = 10.0  # most time between two saved keyword cursors while work goes on
_PACE_S = 0.025  # shortest time between two steps that do not find the indexer behind
_BEHIND_S = 2.0  # between two keyword commits while there is more to map: few large commits cost less than many small
_BATCHES = 4  # of one topic before the others have their turn
_SETTLE_S = 0.6  # how long `auto` waits for more than a handful of records before it decides


class Indexer:
    """Runs over all topics of an engine: `open(row)` for each, then `run()` on the engine's loop."""

    def __init__(
        self,
        log: Log,
        keyword: KeywordIndex,
        settings: Settings,
        directory: Path,
        *,
        embedder_of: Callable[[str, TopicConfig], Embedder],
        fallback_of: Callable[[Embedder], Fallback | None],
        clock_ms: Callable[[], int],
    ) -> None:
        self._log, self._keyword, self._settings = log, keyword, settings
        self._embedder_of, self._clock_ms = embedder_of, clock_ms
        self.topics: dict[int, TopicIndex] = {}
        self.embedding = Embedding(log, settings, directory, fallback_of=fallback_of, clock_ms=clock_ms)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake_map, self._wake_embed, self._progress = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._committed, self._unmarked = 0.0, False
        self._marked = time.monotonic()
        self._uncommitted: dict[int, int] = {}
        self._settled = False
        self._lost: set[int] = set()  # topics whose keyword documents went with a failed commit
        self.problem: str | None = None
        self.busy = threading.Lock()  # held while a topic's indexes are fed; taken by whoever replaces them

    # ------------------------------------------------------------------ topics

    def open(self, row: TopicRow, config: TopicConfig) -> TopicIndex:
        """Bring a topic's indexes to where their cursors say, and put it under the indexer's care."""
        embedder = None if row.model is None else self._embedder_of(row.model, config)
        name = row.model
        model = None if name is None else self._log.write(lambda db: model_id(db, name))
        catalogue = Catalogue(self._log, row.id, model, row.generation)
        cursors = self._log.cursors(row.id)
        topic = TopicIndex(row, config, catalogue, embedder, stored=row.next_seq, mapped=cursors.get(MAPPED, 0))
        topic.next_passage = cursors.get(SEMANTIC, 0)
        topic.learn_aliases(catalogue.aliases())
        topic.configure(config, self._log)
        if row.passages is not None:
            topic.mapper = self._mapper(topic, row.passages)
        topic.keyword = max(cursors.get(KEYWORD, 0), row.first_seq)
        self._keyword.delete_before(row.id, row.first_seq)  # what a crash left of records past their retention
        self._feed_again(topic)
        try:
            self.commit_keyword()
        except StorageError as error:
            logger.warning("topic %s: %s", row.name, error)  # it is served as it is, and fed again
        else:
            topic.keyword = max(topic.keyword, topic.mapped)
            self._uncommitted.pop(row.id)
        if embedder is not None:
            self.embedding.open(topic)
        self.embedding.open_shadow(topic, self._embedder_of)
        self.embedding.measure(topic)
        earlier, self.topics[row.id] = self.topics.get(row.id), topic
        if earlier is not None:
            earlier.close()
        return topic

    def rest(self, id: int) -> None:
        """Feed a topic no more. It is served from what it holds until it is opened anew or closed."""
        with self.embedding.storing:
            if (topic := self.topics.get(id)) is not None:
                topic.closed = True
        if topic is not None:
            topic.close()

    def exchange(self, topic: TopicIndex, heir: TopicIndex, write: Callable[[apsw.Connection], None]) -> None:
        """Commit `write` and let `heir` take the place of `topic`, with which it shares what it holds: searches under way
        end on what they began with. `busy` is held."""
        with self.embedding.storing:
            self._log.write(write)
            topic.closed = True
            self.topics[topic.row.id] = heir
        self.embedding.measure(heir)
        self.wake()

    def close_topic(self, id: int) -> None:
        """Take a topic out of care and let go of its vectors."""
        self.rest(id)
        self.topics.pop(id, None)

    def _mapper(self, topic: TopicIndex, kind: str) -> Mapper:
        templates = topic.catalogue.templates() if kind == "template" else ()
        return Mapper(kind, topic.config, self._settings.ingest, clock_ms=self._clock_ms, templates=templates)

    def _feed_again(self, topic: TopicIndex) -> None:
        """Hand the keyword index what is mapped but lies past its cursor; it counts from the next commit on."""
        at = topic.keyword
        self._keyword.delete_from(topic.row.id, at)
        while at < topic.mapped:
            rows = self._log.rows(topic.row.id, at, self._settings.ingest.batch_records, before=topic.mapped)
            if not rows:
                break
            self.feed(topic, rows)
            at = rows[-1].seq + 1
        self._uncommitted[topic.row.id] = topic.mapped

    def feed(self, topic: TopicIndex, rows: Sequence[Row]) -> None:
        """Hand the keyword index records that are mapped already."""
        places = topic.catalogue.places([r.id for r in rows])
        bare = Place(0, 0, 0, None, None)
        spans = [(r, p) for r in rows for p in places.get(r.id, [bare])]
        seen: dict[bytes | None, Mapping[str, Any]] = {None: _NONE}
        docs = [_doc(topic.row.id, r, p.n, topic.resolve(p.passage), p.start, p.stop, seen) for r, p in spans]
        with self._log.reading() as db:
            if old := former.among(db, {r.id for r in rows}):
                docs = [d._replace(until=old.get(r.id)) for d, (r, _) in zip(docs, spans, strict=True)]
        self._keyword.add(docs)

    # ------------------------------------------------------------------ the loops

    async def run(self) -> None:
        """Map, embed and maintain until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._log.on_append(self._appended)
        self._wake_map.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._map_loop())
            group.create_task(self._embed_loop())
            group.create_task(self._maintain_loop())

    def wake(self) -> None:
        """Look for work now (any thread)."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_map.set)
            self._loop.call_soon_threadsafe(self._wake_embedders)

    async def wait(self, topic: TopicIndex, seq: int, *, semantic: bool = True) -> None:
        """Return once records below `seq` are searchable; the caller sets the time limit."""
        while topic.keyword < seq or (semantic and topic.embedder is not None and topic.semantic < seq):
            await self._progress.wait()
            topic = self.topics.get(topic.row.id, topic)  # reopened with other settings meanwhile

    @property
    def progress(self) -> asyncio.Event:
        """Set when the indexes have come further than they are now; whoever waits takes it before looking."""
        return self._progress

    def relearn(self, topic: TopicIndex) -> None:
        """Read aliases and the miner's state anew from the log, which has lost some. `busy` is held."""
        topic.known.clear()
        topic.aliases.clear()
        topic.families.clear()
        topic.learn_aliases(topic.catalogue.aliases())
        if topic.mapper is not None:
            topic.mapper = self._mapper(topic, topic.mapper.kind)

    def _appended(self, ids: Collection[int]) -> None:
        self.wake()

    async def moved(self) -> None:
        """Return when some index has come further."""
        await self._progress.wait()

    def _wake_embedders(self) -> None:
        self._wake_embed.set()
        self._wake_embed = asyncio.Event()

    def _report_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def _map_loop(self) -> None:
        while True:
            self._wake_map.clear()
            began = time.monotonic()
            try:
                more = await anyio.to_thread.run_sync(self._map_all)
            except Exception as error:  # the top of a loop that nothing may end
                await self._hold_up(error)
                continue
            self.problem = None
            self._wake_embedders()
            self._report_progress()
            if more:
                continue
            await asyncio.sleep(max(began + _PACE_S - time.monotonic(), 0.0))  # small appends are mapped together
            waits = [
                t.waiting_since + _SETTLE_S - time.monotonic() for t in self.topics.values() if t.waiting_since is not None
            ]
            if self._uncommitted:
                waits.append(self._committed + self._settings.index.commit_interval_s - time.monotonic())
            elif self._unmarked:
                waits.append(1.0)
            if not await _wait(self._wake_map, max(min(waits), 0.0) if waits else None) and self._unmarked:
                self.save_marks()

    async def _hold_up(self, error: Exception) -> None:
        """Say what keeps records from being indexed, and wait a moment. Nothing is lost: the cursors have not moved."""
        problem = f"indexing is held up: {error or type(error).__name__}"
        if problem != self.problem:
            logger.warning("%s", problem, exc_info=None if isinstance(error, HeadwaterError) else error)
        self.problem = problem
        await asyncio.sleep(_RETRY_S)

    async def _embed_loop(self) -> None:
        """A worker for each model in use: a provider that is slow holds up the topics of its own model alone."""
        workers: dict[Embedder, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                bell = self._wake_embed
                for embedder in [one for topic in list(self.topics.values()) for one in topic.embedders()]:
                    if embedder not in workers:
                        workers[embedder] = group.create_task(self._embed_with(embedder))
                await bell.wait()

    async def _embed_with(self, embedder: Embedder) -> None:
        """Embed what waits for one model, topic by topic."""
        while True:
            bell, worked = self._wake_embed, False
            waits: list[float] = []
            for topic in list(self.topics.values()):
                if topic.embedder is embedder and topic.wants_vectors and time.monotonic() >= topic.retry_at:
                    worked |= await self._embed_step(topic, topic, self.embedding.step)
                shadow = topic.shadow
                if shadow is not None and shadow.embedder is embedder and topic.shadow_wants:
                    if time.monotonic() >= shadow.retry_at:
                        worked |= await self._embed_step(topic, shadow, self.embedding.step_shadow)
                    waits.append(shadow.retry_at)
                waits += [topic.retry_at] if topic.error is not None and topic.embedder is embedder else []
            if worked:
                self._report_progress()
            else:
                await _wait(bell, max(min(waits) - time.monotonic(), 0.05) if waits else None)

    async def _embed_step(
        self, topic: TopicIndex, shelf: TopicIndex | Shadow, step: Callable[[TopicIndex], Awaitable[bool]]
    ) -> bool:
        try:
            return await step(topic)
        except Exception as error:  # the top of a loop that nothing may end
            logger.warning("topic %s: its vectors are held up", topic.row.name, exc_info=error)
            shelf.error, shelf.retry_at = str(error) or type(error).__name__, time.monotonic() + _RETRY_S
            return False

    async def _maintain_loop(self) -> None:
        while True:
            pause_s = 2.0
            for topic, vectors in [(of, one) for of in list(self.topics.values()) for one in of.indexes()]:
                try:
                    # closing the index stops a build that is under way; nobody waits for its end
                    await anyio.to_thread.run_sync(vectors.maintain, abandon_on_cancel=True)
                except Exception as error:  # the top of a loop that nothing may end
                    cause = None if isinstance(error, HeadwaterError) else error
                    logger.warning("topic %s: no segment was built: %s", topic.row.name, error, exc_info=cause)
                    pause_s = 60.0
            await asyncio.sleep(pause_s)

    # ------------------------------------------------------------------ mapping

    def _map_all(self) -> bool:
        """One step of every topic, and a keyword commit when one is due; True when a topic has more waiting."""
        stored = self._log.stored()
        more = False
        with self.busy:
            if self._settled:
                return False
            for id in self._lost & self.topics.keys():
                self._feed_again(self.topics[id])
            self._lost.clear()
            for topic in list(self.topics.values()):
                topic.stored = stored.get(topic.row.id, topic.stored)
                if topic.mapped >= topic.stored:
                    continue
                with telemetry.span("headwater.index", topic=topic.row.name, waiting=topic.stored - topic.mapped):
                    more |= self._map_some(topic) and topic.mapped < topic.stored
            pause_s = _BEHIND_S if more else self._settings.index.commit_interval_s
            if self._uncommitted and time.monotonic() - self._committed >= pause_s:
                self._commit_keyword()
        if self._unmarked and time.monotonic() - self._marked > _MARK_S:
            self.save_marks()
        return more

    def _map_some(self, topic: TopicIndex) -> bool:
        """Map a few batches, each cut while the one before is on its way to the disk; False when there was nothing."""
        stored: Callable[[], None] | None = None
        at = began = topic.mapped
        try:
            for _ in range(_BATCHES):
                try:
                    cut = self._cut(topic, at) if at < topic.stored else None
                finally:
                    if stored is not None:
                        stored()
                        stored = None
                if cut is None:
                    break
                rows, batch = cut
                at = rows[-1].seq + 1
                stored = self.store(topic, rows, batch, upto=at)
            if stored is not None:
                stored()
        except HeadwaterError:
            if topic.mapper is not None:
                topic.mapper = self._mapper(topic, topic.mapper.kind)  # its miner must not know more than the log
            raise
        return at > began

    def _cut(self, topic: TopicIndex, at: int) -> tuple[Sequence[Row], Batch] | None:
        """The next records from seq `at` on with their pieces; None when there are none, or too few yet to decide how."""
        rows = self._log.rows(topic.row.id, at, self._settings.ingest.batch_records, before=topic.stored)
        if not rows:
            if at == topic.mapped:
                topic.mapped = self._uncommitted[topic.row.id] = topic.stored  # the rest was deleted before it was mapped
            return None
        if topic.mapper is None and not self._decide(topic, rows):
            return None
        assert topic.mapper is not None
        external = topic.embedder is not None and topic.embedder.name == "external"
        return rows, topic.mapper.batch(rows, self._log.vectors_of([r.id for r in rows]) if external else None)

    def store(self, topic: TopicIndex, rows: Sequence[Row], batch: Batch, *, upto: int) -> Callable[[], None]:
        """Send what `rows` were cut into to the disk with the mapped cursor. The result is to be called before the next
        `store`: it waits for the commit and hands the rows to the keyword index. `busy` is held."""
        now, id = self._clock_ms(), topic.row.id

        def write(db: apsw.Connection) -> tuple[Mapped, dict[int, int]]:
            for bad in batch.poison:
                add_dead_letter(db, id, "passages", bad.reason, bad.row.value[:4096], now, seq=bad.row.seq)
            mapped = store_pieces(
                db, id, batch.pieces, topic.known, generalised=batch.generalised, templates=batch.templates, upto=upto
            )
            return mapped, uncount(db, {r.id for r in rows})

        done = self._log.submit(write, rows=len(rows))

        def stored() -> None:
            mapped, replaced = done.result()
            topic.learn_aliases(mapped.aliases)
            if len(topic.known) > _KNOWN_TEXTS:
                topic.known.clear()
            if not (batch.pieces and batch.pieces[0].vector):
                topic.known.update(zip((p.text for p in batch.pieces), map(topic.resolve, mapped.passages), strict=True))
            docs = _docs(topic, rows, batch.pieces, mapped.passages)
            self._keyword.add([d._replace(until=replaced.get(id << SEQ_BITS | d.seq)) for d in docs] if replaced else docs)
            topic.mapped = upto
            self._uncommitted[id] = upto

        return stored

    def _decide(self, topic: TopicIndex, rows: Sequence[Row]) -> bool:
        """Settle what `auto` means; with few records wait a moment for more, they decide better."""
        if topic.config.passages == "auto" and len(rows) < 20:
            topic.waiting_since = topic.waiting_since or time.monotonic()
            if time.monotonic() - topic.waiting_since < _SETTLE_S:
                return False
        topic.waiting_since = None
        kind = choose(rows, topic.config)
        self._log.update_topic(topic.row.id, passages=kind)
        topic.mapper = self._mapper(topic, kind)
        return True

    def commit_keyword(self) -> None:
        """Commit the keyword index. What a failed commit forgets is fed to it again. `busy` is held."""
        try:
            self._keyword.commit()
        except StorageError:
            self._lost.update(self._uncommitted)
            raise

    def _commit_keyword(self) -> None:
        self.commit_keyword()
        self._committed = time.monotonic()
        for id, upto in self._uncommitted.items():
            if (topic := self.topics.get(id)) is not None:
                topic.keyword = upto
                if topic.embedder is None:
                    topic.semantic = upto
        self._uncommitted.clear()
        self._unmarked = True

    def settle(self) -> None:
        """Map no more, commit what was handed to the keyword index and write its cursors: nothing is fed again at the next
        start. A step that is still on its way in a thread, its task cancelled, finds the door closed."""
        with self.busy:
            self._settled = True
            if self._uncommitted:
                self._commit_keyword()
            self.save_marks().result()

    def save_marks(self) -> Future[None]:
        """Write the keyword cursors to the log. They rest in memory while work goes on: they only save replaying. Whoever
        closes topics next waits for the result: those closed meanwhile are left out."""
        self._unmarked, self._marked = False, time.monotonic()

        def write(db: apsw.Connection) -> None:
            for topic in list(self.topics.values()):
                if not topic.closed:  # whoever takes its indexes away has set the cursor
                    set_cursor(db, topic.row.id, KEYWORD, topic.keyword)

        return self._log.submit(write)


def _docs(topic: TopicIndex, rows: Sequence[Row], pieces: Sequence[Piece], passages: Sequence[int]) -> list[Doc]:
    """Keyword documents of mapped records, whose pieces come in the records' order; a record without passages has one that
    names none (0)."""
    id = topic.row.id
    seen: dict[bytes | None, Mapping[str, Any]] = {None: _NONE}
    docs: list[Doc] = []
    waiting, row = iter(rows), None
    for (record, n, _, _, _, start, stop, _, _), passage in zip(pieces, passages, strict=True):
        while row is None or row[0] != record:
            row = next(waiting)
            if row[0] != record:
                docs.append(_doc(id, row, 0, 0, None, None, seen))
        docs.append(_doc(id, row, n, passage, start, stop, seen))
    docs.extend(_doc(id, row, 0, 0, None, None, seen) for row in waiting)
    return docs


def _doc(
    topic: int, row: Row, n: int, passage: int, start: int | None, stop: int | None, seen: dict[bytes | None, Mapping[str, Any]]
) -> Doc:
    """One occurrence as the keyword index takes it: its own stretch of the text, the record's fields. `seen` are attributes
    that were decoded before: most lines have a level and nothing else."""
    id, partition, offset, time_ms, _, key, value, encoded, _ = row
    attributes = seen.get(encoded)
    if attributes is None:
        attributes = orjson.loads(encoded) if encoded else _NONE
        if len(attributes) == 1:
            seen[encoded] = attributes
    text = value if start is None else value[start:stop]
    level = attributes.get("level")
    return Doc._make((topic, id & SEQ_MASK, n, passage, partition, offset, time_ms, key, level, text, attributes, None))


async def _wait(event: asyncio.Event, timeout_s: float | None) -> bool:
    """True when the event came, False when the time was up."""
    try:
        async with asyncio.timeout(timeout_s):  # wait_for loses a cancellation that comes with the event
            await event.wait()
    except TimeoutError:
        return False
    return True
