"""The engine: every verb of Headwater over one data directory, in this process.

    append -> intake (clean, read time and level) -> log (committed) -> indexer (passages, keywords, vectors) -> search

Verbs are coroutines on one loop; what blocks (SQLite, tantivy, numpy) is taken to threads here and in the indexer.
`headwater.open()` wraps an engine for synchronous use, the daemon serves one over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

import anyio.to_thread

from headwater import telemetry, versions, views
from headwater.audit import Audit
from headwater.batches import Delivered, Fault
from headwater.composed import LiveEvent
from headwater.config import Settings, TopicConfig
from headwater.deletion import delete
from headwater.detect.detectors import Detectors
from headwater.embed.cache import VectorCache
from headwater.embed.rerank import CrossEncoder
from headwater.enrich.pipelines import Pipelines
from headwater.enrich.texts import Texts
from headwater.errors import ConflictError, HeadwaterError, NotFoundError, StorageError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.rebuilding import Rebuilding
from headwater.index.topic import TopicIndex
from headwater.intake import deliveries
from headwater.intake.doors import Doors
from headwater.intake.drafts import drafts as intake
from headwater.intake.roster import Roster
from headwater.investigation.investigating import Investigating
from headwater.lines.reading import LineReader
from headwater.llm.models import Models
from headwater.log import browse
from headwater.log.ownership import Ownership
from headwater.log.shadows import Asked
from headwater.log.store import Delivery, Log, Origin
from headwater.overview import patterns, timeline
from headwater.overview.shift import Shifts
from headwater.purging import Purge
from headwater.rag.asking import Asking
from headwater.rag.conversations import Conversations
from headwater.rag.past import Past
from headwater.rag.rereading import search_again
from headwater.records import (
    Appended,
    DeadLetter,
    Draft,
    Embedded,
    IndexInfo,
    Mode,
    Page,
    PatternsReply,
    Receipt,
    Record,
    RecordView,
    SearchReply,
    Status,
    Timeline,
    Topic,
)
from headwater.records.indexes import Shadow, SwapStep
from headwater.records.removals import Deleted, Purged
from headwater.search.finding import Finding
from headwater.search.planning import now_ms, plan, window
from headwater.search.searching import Searcher
from headwater.stock import Embedders, Stock, open_keyword
from headwater.swap import Swaps
from headwater.verbs import Entry, Verbs, When, given, words
from headwater.watch.live import Live, tail, wish
from headwater.watch.running import Watching
from headwater.watch.verbs import Watches
from headwater.webhooks.verbs import Webhooks

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_COLLECT = 50_000  # allocations between two looks for cycles: records come by the thousand and have none (a fifth of the time)
_FEW = 32  # records of an append that is prepared on the loop itself
_MOST_TEXTS = 1000


async def _thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs))


class Engine:
    """Implements headwater.verbs.Verbs. `async with Engine(settings) as engine:`; raises OwnedError, StorageError."""

    def __init__(self, settings: Settings, *, durable: bool = True, version: str = "") -> None:
        self.settings, self._durable, self._version = settings, durable, version
        self.directory = settings.path
        self.url: str | None = None
        self._started = time.monotonic()
        self._rates = views.Rates()
        self._reader = LineReader(now_ms, max_attributes=settings.ingest.max_attributes)
        self._closed = True

    async def __aenter__(self) -> Engine:
        self._collecting = gc.get_threshold()
        gc.set_threshold(max(_COLLECT, self._collecting[0]), *self._collecting[1:])
        await _thread(self._open)
        self._closed = False
        self._appended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        self.log.on_append(self._notify)
        try:
            for name, config in self.settings.topics.items():
                await _thread(self.stock.declare, name, config)
        except BaseException:
            await self.aclose()
            raise
        self._tasks += [asyncio.create_task(self.indexer.run()), asyncio.create_task(self._housekeeping())]
        background = (
            self.swaps.run(), self.rebuilding.run(), self._watching.run(), self._pipelines.run(), self._detectors.run(),
            self.stock.embedders.warm(self.settings.embedding.model), self._models.warm(),
        )  # fmt: skip
        self._tasks += [asyncio.create_task(work) for work in background]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _open(self) -> None:
        settings = self.settings.embedding
        with contextlib.ExitStack() as opened:
            self._ownership = Ownership(self.directory)
            opened.callback(self._ownership.release)
            most_waiting = self.settings.ingest.queue_records
            self.log = Log(self.directory, clock_ms=now_ms, durable=self._durable, most_waiting=most_waiting)
            opened.callback(self.log.close)
            self.keyword = open_keyword(self.log, self.directory / "keyword", self.settings.index.keyword_memory_bytes)
            opened.callback(self.keyword.close)
            directory = Path(settings.cache_dir).expanduser() if settings.cache_dir else self.directory
            kept = settings.cache_enabled or self.settings.llm.cache_enabled
            self._cache = VectorCache(directory / "cache.db", max_bytes=settings.cache_max_bytes) if kept else None
            if self._cache is not None:
                opened.callback(self._cache.close)
            embedders, vectors = Embedders(settings, self._cache), self.directory / "vectors"
            self.indexer = Indexer(
                self.log, self.keyword, self.settings, vectors,
                embedder_of=embedders.get, fallback_of=embedders.fallback, clock_ms=now_ms,
            )  # fmt: skip
            self.roster = Roster(self.log, self.settings)
            self.doors = Doors(self.roster, self.log, self.append, self.home)
            self.sources, self.add_source, self.remove_source = self.roster.sources, self.roster.add, self.roster.remove
            self.pause_source, self.resume_source = self.roster.pause, self.roster.resume
            self.searcher = Searcher(self.log, self.keyword)
            self.stock = Stock(self.log, self.keyword, self.indexer, self.settings, vectors, embedders)
            asked = self._asked = Asked(self.log, self.settings.search.record_queries)
            self.finding = Finding(self.log, self.stock, self.searcher, asked)
            self.drift = Shifts(self.log, self.keyword, self.stock, self.searcher).drift
            self.rebuilding = Rebuilding(self.log, self.keyword, self.indexer, self.settings.ingest.batch_records)
            given = (self.log, self.indexer, self.stock, self.rebuilding, asked, self.settings, vectors)
            self.swaps = Swaps(*given, clock_ms=now_ms)
            self.stock.open_all()
            self.rebuilding.resume()
            self._watching = Watching(self.log, self.indexer, clock_ms=now_ms)
            self._watching.load()
            watches = self._watches = Watches(self.log, self.stock, self._watching, clock_ms=now_ms)
            self.add_watch, self.watches, self.watch, self.remove_watch = watches.add, watches.all, watches.one, watches.remove
            self.wait, self.watch_events = watches.wait, watches.events
            chat = self._models = Models(self.settings.llm, log=self.log, cache=self._cache)
            self.models, self.complete, self.complete_stream = chat.models, chat.complete, chat.complete_stream
            self._conversations = talk = Conversations(self.log, self.settings.ask, clock_ms=now_ms)
            self._reranker = CrossEncoder(settings)
            past = functools.partial(Past, self, self.log, self.keyword, self.stock, self.searcher, self.finding)
            asking = Asking(
                self, past, self.log, self.stock, chat, self.settings, talk, rerank=self._reranker.scores,
                secret=os.urandom(32),
            )  # fmt: skip
            self.ask, self.ask_events, self.rerun = asking.ask, asking.events, asking.rerun
            self.answers, self.answer, self.summarize = asking.answers, asking.answer, asking.summarize
            self.create_conversation, self.conversations, self.conversation = talk.create, talk.all, talk.one
            self.set_conversation, self.remove_conversation, self.messages = talk.change, talk.remove, talk.messages
            audit = Audit(self.log, clock_ms=now_ms)
            self.note_call, self.calls = audit.note, audit.all
            texts = Texts(self.log, self.keyword, self.stock, self._models, self.settings)
            self.classify, self.extract = texts.classify, texts.extract
            pipes = self._pipelines = Pipelines(
                self.log, self.stock, self.indexer, texts, clock_ms=now_ms, environment=os.environ,
                price=max(self.settings.llm.price_input or 0.0, self.settings.llm.price_output or 0.0) / 1e6,
            )  # fmt: skip
            pipes.load()
            odd = self._detectors = Detectors(self.log, self.stock, self.indexer, self.append, clock_ms=now_ms)
            self.anomalies, self.anomaly, self.anomaly_events = odd.anomalies, odd.one, odd.events
            self.detecting, self.set_detecting, self.judge_anomaly = odd.detecting, odd.set, odd.judge
            hooks = self.hooks = Webhooks(self.log, self.stock, self._watching, watches, odd, clock_ms=now_ms)
            self.add_webhook, self.webhooks, self.webhook, self.remove_webhook = hooks.add, hooks.all, hooks.one, hooks.remove
            self.pause_webhook, self.resume_webhook, self.test_webhook = hooks.pause, hooks.resume, hooks.test
            self.create_pipeline, self.pipelines, self.pipeline = pipes.create, pipes.all, pipes.one
            self.start_pipeline, self.stop_pipeline, self.delete_pipeline = pipes.start, pipes.stop, pipes.delete
            self.backtest_pipeline, self.run_pipeline, self.trace_pipeline = pipes.backtest, pipes.run_on, pipes.trace
            looking = Investigating(cast("Verbs", self), chat, self.settings.ask, self.stock, asking.reading)
            self.investigate, self.investigate_events = looking.investigate, looking.events
            words.worded(self)
            self._opened = opened.pop_all()

    def _notify(self, _: Collection[int]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended; so have its readers
            self._loop.call_soon_threadsafe(self._wake_readers)

    def _stored(self) -> asyncio.Event | None:
        return None if self._closed else self._appended

    def _wake_readers(self) -> None:
        self._appended.set()
        self._appended = asyncio.Event()

    # ------------------------------------------------------------------ append

    @telemetry.traced("headwater.append")
    async def append(
        self,
        topic: str,
        records: Sequence[Entry],
        *,
        idempotency_key: str | None = None,
        wait: Literal["stored", "searchable"] = "stored",
        timeout_s: float = 10.0,
        origin: Origin | None = None,
    ) -> Appended:
        if wait not in ("stored", "searchable"):
            raise UsageError(f"wait must be stored or searchable, not {wait!r}")
        telemetry.note(topic=topic, records=len(records := given.entries(records)))
        index = await self.home(topic)
        # a few records take less time to prepare than the way to a thread and back does
        if len(records) <= _FEW and index.config.oversize == "keep" and not self.log.crowded:
            receipts = await asyncio.wrap_future(self._append(index, records, idempotency_key, origin))
        else:
            receipts = await _thread(lambda: self._append(index, records, idempotency_key, origin).result())
        if wait == "stored" or not receipts:
            return Appended(tuple(receipts))
        try:
            async with asyncio.timeout(timeout_s):
                await self.indexer.wait(index, max(r.seq for r in receipts) + 1)
        except TimeoutError:
            return Appended(tuple(receipts), "stored", timed_out=True)
        return Appended(tuple(receipts), "searchable")

    async def home(self, name: str) -> TopicIndex:
        """The topic of that name, made when there is none."""
        try:
            return self.stock.find(name)
        except NotFoundError:
            with contextlib.suppress(ConflictError):  # somebody else made it meanwhile
                await _thread(self.stock.create, name, {})
            return self.stock.find(name)

    def _append(
        self, index: TopicIndex, records: Sequence[Entry], key: str | None, origin: Origin | None
    ) -> Future[list[Receipt]]:
        own = (index.config, self._reader, self.settings.ingest)
        ready = intake(records, *own, now_ms=now_ms(), redacting=index.redacting)
        delivery = Delivery.of(key, records) if key else None
        if index.config.oversize == "dead-letter":
            most = self.settings.ingest.max_value_bytes
            for draft in (d for d in ready if len(d.value) > most):
                reason = f"the value has {len(draft.value)} characters, more than max_value_bytes ({most})"
                self.stock.set_aside(index, "intake", reason, draft.value)
            ready = [d for d in ready if len(d.value) <= most]
        return self.log.append(index.row.id, ready, origin=origin, delivery=delivery)

    async def deliver(
        self, topic: str, source: str, records: Sequence[Draft] = (), *, stream: str = "",
        state: Mapping[str, Any] | None = None, faults: Sequence[Fault] = (),
    ) -> Delivered:  # fmt: skip
        index = await self.home(topic)
        done = await deliveries.receive(
            lambda drafts, origin: self.append(topic, drafts, origin=origin),
            self.log, index, source, records, stream, state, faults,
        )  # fmt: skip
        await versions.settle(self.stock.deletion, self.indexer, self.log, index, source, state)
        return done

    # ------------------------------------------------------------------ topics

    async def topics(self) -> list[Topic]:
        return await _thread(self._views)

    def _views(self) -> list[Topic]:
        dead = self.log.count_dead_letters()
        held = [(row, self.indexer.topics.get(row.id)) for row in self.log.topics()]
        return [views.topic_view(self.log, row, t, self._rates, dead.get(row.id, 0)) for row, t in held if t is not None]

    async def topic(self, name: str) -> Topic:
        self.stock.find(name)
        return next(t for t in await self.topics() if t.name == name)

    async def create_topic(self, name: str, **config: Any) -> Topic:
        await _thread(self.stock.create, name, config)
        return await self.topic(name)

    async def set_topic(self, name: str, **config: Any) -> Topic:
        await _thread(self.stock.change, name, config)
        return await self.topic(name)

    async def delete_topic(self, name: str) -> None:
        await _thread(self.stock.delete, name)
        self._wake_readers()

    async def purge_topic(self, name: str, *, markers: Sequence[str] = ()) -> Purged:
        purge = Purge(self.log, self.keyword, self.indexer, self.stock, self._cache, self._asked, self.directory)
        purged = await _thread(purge.topic, name, markers)
        await _thread(self._watching.reread)
        return purged

    async def delete_records(
        self, topic: str, *, partition: int = 0, offset: int | None = None, key: str | None = None, q: str | None = None,
        dry_run: bool = False, limit: int | None = None,
    ) -> Deleted:  # fmt: skip
        return await delete(
            self.stock.deletion, self.indexer, self.log, self.stock.find(topic), partition=partition, offset=offset, key=key,
            q=q, dry_run=dry_run, limit=limit, now_ms=now_ms(),
        )  # fmt: skip

    # ------------------------------------------------------------------ records

    async def records(
        self, topic: str, *, partition: int | None = None, offset: int | None = None, limit: int = 100,
        since: When | None = None, until: When | None = None, cursor: str | None = None, versions: bool = False,
    ) -> Page:  # fmt: skip
        since_ms, until_ms = window(since, until)
        return await _thread(
            browse.page, self.log, topic, partition=partition, offset=offset, limit=limit, since_ms=since_ms, until_ms=until_ms,
            cursor=cursor, versions=versions,
        )  # fmt: skip

    async def read(self, address: str, *, context: int = 0, alike: int = 0) -> RecordView:
        return await self.finding.read(address, context, alike)

    async def tail(
        self, topic: str, q: str = "", *, after: str | None = None, from_start: bool = False
    ) -> AsyncIterator[Record]:
        async for record in tail(self.log, self.stock, self._stored, topic, q, after=after, from_start=from_start):
            yield record

    # ------------------------------------------------------------------ searching

    async def search(
        self, q: str, *, topics: Sequence[str] | None = None, top_k: int = 10, mode: Mode | None = None,
        since: When | None = None, until: When | None = None, filters: Mapping[str, Any] | None = None,
        min_score: float | None = None, explain: bool = False, include: Sequence[str] = (), cursor: str | None = None,
        as_of: When | Mapping[str, int] | None = None, rerank: bool = False, max_tokens: int | None = None,
    ) -> SearchReply:  # fmt: skip
        wanted = plan(
            self.stock, q, topics=topics, top_k=top_k, mode=mode, since=since, until=until, filters=filters,
            min_score=min_score, explain=explain, include=include, cursor=cursor, as_of=as_of, max_tokens=max_tokens,
        )  # fmt: skip
        return await (search_again(self.finding, wanted, self._reranker.scores) if rerank else self.finding.run(wanted))

    async def search_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply | HeadwaterError]:
        return await self.finding.batch(queries)

    async def search_vector(self, vector: Sequence[float], *, model: str | None = None, **scope: Any) -> SearchReply:
        return await self.finding.by_vector(vector, model=model, **scope)

    async def live(self, q: str, **scope: Any) -> AsyncIterator[LiveEvent]:
        wanted = wish(q, now_ms=now_ms(), **scope)
        live = Live(self.log, self.stock, self.indexer, self.finding, self._stored)
        async for event in live.events(wanted):
            yield event

    async def similar(
        self, topic: str, *, offset: int, partition: int = 0, top_k: int = 10, topics: Sequence[str] | None = None
    ) -> SearchReply:
        return await self.finding.similar(topic, partition, offset, top_k, topics)

    async def patterns(
        self, topic: str, *, q: str = "", since: When | None = None, until: When | None = None,
        new_since: When | None = None, gone_since: When | None = None, changed_since: When | None = None, fields: bool = False,
        limit: int = 50, cursor: str | None = None,
    ) -> PatternsReply:  # fmt: skip
        wanted = plan(self.stock, q, topics=[topic], since=since, until=until, mode="keyword", cursor=cursor)
        marks = patterns.Marks.of(new_since, gone_since, changed_since, now_ms())
        return await _thread(patterns.listed, self.log, self.keyword, self.searcher, wanted, marks, limit, fields=fields)

    async def timeline(
        self, q: str = "", *, topics: Sequence[str] | None = None, since: When | None = None, until: When | None = None,
        buckets: int = 60,
    ) -> Timeline:  # fmt: skip
        wanted = plan(self.stock, q, topics=topics, since=since, until=until, mode="keyword")
        found = await _thread(timeline.timeline, self.keyword, self.searcher, wanted, buckets)
        return await self._detectors.marked(found, self.keyword)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Embedded:
        if len(texts) > _MOST_TEXTS:
            raise UsageError(f"at most {_MOST_TEXTS} texts in one call")
        embedder = self.stock.embedders.get(model or self.settings.embedding.model, TopicConfig())
        vectors = await embedder.embed(list(texts), "passage")
        return Embedded(embedder.name, embedder.dimension or 0, tuple(map(tuple, vectors.tolist())))

    # ------------------------------------------------------------------ indexes

    async def indexes(self) -> list[IndexInfo]:
        return [await self._index(topic) for topic in self.stock.choose(None)]

    async def index(self, topic: str) -> IndexInfo:
        return await self._index(self.stock.find(topic))

    async def _index(self, found: TopicIndex) -> IndexInfo:
        return await _thread(views.index_view, self.log, found, self.settings.index, self.rebuilding.progress(found))

    async def create_index(self, topic: str, model: str | None = None, **settings: Any) -> IndexInfo:
        await _thread(self.swaps.create, topic, model, settings)
        return await self.index(topic)

    async def rebuild_index(
        self, topic: str, model: str | None = None, *, shadow: bool = False, threshold: float | None = None, **settings: Any
    ) -> IndexInfo:
        await _thread(self.swaps.rebuild, topic, model, shadow, threshold, settings)
        return await self.index(topic)

    async def swap_index(self, topic: str, step: SwapStep) -> IndexInfo:
        await _thread(self.swaps.step, topic, step)
        return await self.index(topic)

    async def shadow(self, topic: str) -> Shadow:
        return await _thread(views.shadow_view, self.log, self.stock.find(topic), self.settings.index, samples=True)

    async def delete_index(self, topic: str) -> IndexInfo:
        await _thread(self.stock.set_model, topic, None)
        return await self.index(topic)

    # ------------------------------------------------------------------ dead letters, status, life

    async def dead_letters(self, topic: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        id = None if topic is None else self.stock.find(topic).row.id
        return await _thread(self.log.dead_letters, id, limit=min(max(limit, 1), 10_000))

    async def replay_dead_letter(self, id: int) -> None:
        if not await self._pipelines.replay(id):
            await _thread(self.stock.replay, id)

    async def drop_dead_letter(self, id: int) -> None:
        await _thread(self.log.drop_dead_letter, id)

    async def status(self) -> Status:
        own = (
            *self._watching.troubles(), *self._models.problems(), *self._detectors.troubles(), *self._pipelines.troubles(),
        )  # fmt: skip
        problems = views.problems((*self.stock.problems.values(), *own, *await _thread(self.hooks.troubles)), self.indexer)
        uptime_s, model = round(time.monotonic() - self._started, 1), self.settings.embedding.model
        return Status(
            self._version, True, str(self.directory), self.url, os.getpid(), uptime_s, model, tuple(await self.topics()),
            tuple(await self.sources()), problems, await self._watches.counts(), await self._detectors.counts(),
            await self._pipelines.counts(), self._models.default or "extractive", await _thread(self.hooks.counts),
        )  # fmt: skip

    def announce(self, url: str) -> None:
        """Say in the data directory's lock where this engine is served."""
        self.url = url
        self._ownership.announce(url)

    async def _housekeeping(self) -> None:
        """Retention, and the end of idempotency keys, once a minute."""
        while True:
            await asyncio.sleep(60)
            try:
                await _thread(self.stock.expire)
                await self._conversations.expire()
            except HeadwaterError as error:
                logger.warning("retention waits: %s", error)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._watching.close()
        self._detectors.close()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                logger.error("a background task had failed", exc_info=outcome)
        self._wake_readers()
        with contextlib.suppress(StorageError):  # what cannot be written now is done again at the next start
            await _thread(self._watching.settle)
            await _thread(self._detectors.settle)
            await _thread(self.indexer.settle)
        await self._models.aclose()
        await self._reranker.aclose()
        self._conversations.close()
        await self.stock.aclose()
        await _thread(self._opened.close)
        gc.set_threshold(*self._collecting)
