"""The synchronous SDK: every verb of an engine or a client, called from plain code, a notebook, or inside a running loop.

One thread runs one event loop for as long as a `Headwater` lives; each method hands its verb to that loop and waits.
No verb is written again here: the methods are made from those of headwater.verbs.Verbs.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, overload

from headwater.composed import AskEvent, LiveEvent
from headwater.errors import UsageError
from headwater.records import Answer, IndexInfo, Mode, Record, SourceInfo, Topic
from headwater.records.anomalies import Anomaly
from headwater.records.answers import Conversation
from headwater.records.investigations import InvestigateEvent
from headwater.records.labels import RunEvent
from headwater.records.models import Completion, Message, Piece
from headwater.records.watches import WatchHit
from headwater.verbs import Verbs, When

if TYPE_CHECKING:
    from headwater.loading import Loading

P = ParamSpec("P")
T = TypeVar("T")
_LOOK_S = 0.2  # how often the loop looks whether the program has ended


def _blocking(verb: Callable[Concatenate[Verbs, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Headwater, P], T]:
    """A method that runs `verb` on the loop and waits for its result."""

    def method(self: Headwater, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound: Callable[P, Coroutine[Any, Any, T]] = getattr(self._loop.verbs, verb.__name__)
        return self._loop.run(bound(*args, **kwargs))

    functools.update_wrapper(method, verb)
    return method


class Headwater:
    """Every verb, synchronously. A context manager; `close()` or the end of the program lets go of everything."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Verbs]]) -> None:
        self._loop = LoopThread(opening)
        self._end = weakref.finalize(self, self._loop.stop)
        self._end.atexit = False  # by then it is too late to close a database; the loop looks for itself

    append = _blocking(Verbs.append)
    deliver = _blocking(Verbs.deliver)
    topics = _blocking(Verbs.topics)
    topic = _blocking(Verbs.topic)
    delete_topic = _blocking(Verbs.delete_topic)
    purge_topic = _blocking(Verbs.purge_topic)
    delete_records = _blocking(Verbs.delete_records)
    records = _blocking(Verbs.records)
    read = _blocking(Verbs.read)
    search = _blocking(Verbs.search)
    search_batch = _blocking(Verbs.search_batch)
    search_vector = _blocking(Verbs.search_vector)
    similar = _blocking(Verbs.similar)
    patterns = _blocking(Verbs.patterns)
    timeline = _blocking(Verbs.timeline)
    add_watch = _blocking(Verbs.add_watch)
    watches = _blocking(Verbs.watches)
    watch = _blocking(Verbs.watch)
    remove_watch = _blocking(Verbs.remove_watch)
    wait = _blocking(Verbs.wait)
    anomalies = _blocking(Verbs.anomalies)
    anomaly = _blocking(Verbs.anomaly)
    detecting = _blocking(Verbs.detecting)
    set_detecting = _blocking(Verbs.set_detecting)
    judge_anomaly = _blocking(Verbs.judge_anomaly)
    classify = _blocking(Verbs.classify)
    extract = _blocking(Verbs.extract)
    create_pipeline = _blocking(Verbs.create_pipeline)
    pipelines = _blocking(Verbs.pipelines)
    pipeline = _blocking(Verbs.pipeline)
    start_pipeline = _blocking(Verbs.start_pipeline)
    stop_pipeline = _blocking(Verbs.stop_pipeline)
    delete_pipeline = _blocking(Verbs.delete_pipeline)
    backtest_pipeline = _blocking(Verbs.backtest_pipeline)
    trace_pipeline = _blocking(Verbs.trace_pipeline)
    models = _blocking(Verbs.models)
    complete = _blocking(Verbs.complete)
    indexes = _blocking(Verbs.indexes)
    index = _blocking(Verbs.index)
    swap_index = _blocking(Verbs.swap_index)
    shadow = _blocking(Verbs.shadow)
    delete_index = _blocking(Verbs.delete_index)
    embed = _blocking(Verbs.embed)
    drift = _blocking(Verbs.drift)
    dead_letters = _blocking(Verbs.dead_letters)
    replay_dead_letter = _blocking(Verbs.replay_dead_letter)
    drop_dead_letter = _blocking(Verbs.drop_dead_letter)
    add_webhook = _blocking(Verbs.add_webhook)
    webhooks = _blocking(Verbs.webhooks)
    webhook = _blocking(Verbs.webhook)
    pause_webhook = _blocking(Verbs.pause_webhook)
    resume_webhook = _blocking(Verbs.resume_webhook)
    test_webhook = _blocking(Verbs.test_webhook)
    remove_webhook = _blocking(Verbs.remove_webhook)
    sources = _blocking(Verbs.sources)
    pause_source = _blocking(Verbs.pause_source)
    resume_source = _blocking(Verbs.resume_source)
    remove_source = _blocking(Verbs.remove_source)
    status = _blocking(Verbs.status)
    note_call = _blocking(Verbs.note_call)
    calls = _blocking(Verbs.calls)
    _ask = _blocking(Verbs.ask)
    investigate = _blocking(Verbs.investigate)
    answers = _blocking(Verbs.answers)
    answer = _blocking(Verbs.answer)
    rerun = _blocking(Verbs.rerun)
    summarize = _blocking(Verbs.summarize)
    create_conversation = _blocking(Verbs.create_conversation)
    conversations = _blocking(Verbs.conversations)
    conversation = _blocking(Verbs.conversation)
    remove_conversation = _blocking(Verbs.remove_conversation)
    messages = _blocking(Verbs.messages)

    def create_topic(self, name: str, **config: Any) -> Topic:
        """A new topic with settings of TopicConfig; ConflictError where it exists with others."""
        return self._loop.run(self._loop.verbs.create_topic(name, **config))

    def set_topic(self, name: str, **config: Any) -> Topic:
        """Change settings; UsageError for those that are fixed once records exist."""
        return self._loop.run(self._loop.verbs.set_topic(name, **config))

    def add_source(self, **settings: Any) -> list[SourceInfo]:
        """Add a source; as Verbs.add_source."""
        return self._loop.run(self._loop.verbs.add_source(**settings))

    def create_index(self, topic: str, model: str | None = None, **settings: Any) -> IndexInfo:
        """Give a topic a vector index, or change its settings; as Verbs.create_index."""
        return self._loop.run(self._loop.verbs.create_index(topic, model, **settings))

    def rebuild_index(
        self, topic: str, model: str | None = None, *, shadow: bool = False, threshold: float | None = None, **settings: Any
    ) -> IndexInfo:
        """Build the index of a topic anew, or that of another model beside it; as Verbs.rebuild_index."""
        rebuild = self._loop.verbs.rebuild_index
        return self._loop.run(rebuild(topic, model, shadow=shadow, threshold=threshold, **settings))

    def set_conversation(self, id: str, **changes: Any) -> Conversation:
        """Change the title, system, model, max_context_tokens or ttl of a conversation."""
        return self._loop.run(self._loop.verbs.set_conversation(id, **changes))

    def tail(self, topic: str, q: str = "", *, after: str | None = None, from_start: bool = False) -> Iterator[Record]:
        """Records as they are stored, filtered by `q`, endlessly: new ones only, all with `from_start`, or those behind
        the address `after`."""
        yield from self._loop.iterate(lambda verbs: verbs.tail(topic, q, after=after, from_start=from_start))

    def live(
        self, q: str, *, topics: Sequence[str] | None = None, mode: Mode | None = None,
        filters: Mapping[str, Any] | None = None, min_score: float | None = None, after: str | None = None,
    ) -> Iterator[LiveEvent]:  # fmt: skip
        """Records that match `q` as they arrive, endlessly, each once: by words where all occur, by meaning where the passage
        scores `min_score`. `after`, the cursor of an earlier event, goes on behind it."""
        scope: dict[str, Any] = {"topics": topics, "mode": mode, "filters": filters, "min_score": min_score, "after": after}
        yield from self._loop.iterate(lambda verbs: verbs.live(q, **scope))

    def run_pipeline(
        self, name: str, records: Sequence[Any], *, spec: str | Mapping[str, Any] | None = None
    ) -> Iterator[RunEvent]:
        """Run records through a pipeline (or `spec`): an event behind each step, then each result. Nothing is written."""
        yield from self._loop.iterate(lambda verbs: verbs.run_pipeline(name, records, spec=spec))

    def watch_events(self, id: int | str, *, cursor: str | None = None) -> Iterator[WatchHit]:
        """The hits of a watch behind `cursor` as they are fired, until it expires or goes."""
        yield from self._loop.iterate(lambda verbs: verbs.watch_events(id, cursor=cursor))

    def anomaly_events(self, topics: Sequence[str] | None = None, *, cursor: str | None = None) -> Iterator[Anomaly]:
        """Alerts as they are raised, endlessly; with `cursor`, an anomaly's id, those raised behind it first."""
        yield from self._loop.iterate(lambda verbs: verbs.anomaly_events(topics, cursor=cursor))

    def complete_stream(
        self, prompt: str | Sequence[Message], *, system: str | None = None, model: str | None = None,
        temperature: float | None = None, max_tokens: int | None = None, cache: bool = True,
    ) -> Iterator[Piece | Completion]:  # fmt: skip
        """What a chat model answers, in pieces as they are made, the Completion last; as Verbs.complete_stream."""
        options: dict[str, Any] = {"system": system, "model": model, "temperature": temperature, "max_tokens": max_tokens}
        yield from self._loop.iterate(lambda verbs: verbs.complete_stream(prompt, cache=cache, **options))

    @overload
    def ask(
        self, question: str, *, conversation: str | None = None, topics: Sequence[str] | None = None,
        since: When | None = None, until: When | None = None, top_k: int = 12, as_of: When | Mapping[str, int] | None = None,
        model: str | None = None, rerank: bool | None = None, recency: float | str | None = None,
        stream: Literal[False] = False,
    ) -> Answer: ...  # fmt: skip

    @overload
    def ask(
        self, question: str, *, conversation: str | None = None, topics: Sequence[str] | None = None,
        since: When | None = None, until: When | None = None, top_k: int = 12, as_of: When | Mapping[str, int] | None = None,
        model: str | None = None, rerank: bool | None = None, recency: float | str | None = None,
        stream: Literal[True],
    ) -> Iterator[AskEvent]: ...  # fmt: skip

    def ask(self, question: str, *, stream: bool = False, **scope: Any) -> Answer | Iterator[AskEvent]:
        """An answer whose every sentence cites records; abstains where support is weak. With `stream` its events as they
        come: retrieval, token, citation, done. The rest is as Verbs.ask."""
        return self.ask_events(question, **scope) if stream else self._ask(question, **scope)

    def investigate_events(self, question: str, **scope: Any) -> Iterator[InvestigateEvent]:
        """The steps of an investigation as they are taken, and the whole last; leaving the loop ends it."""
        yield from self._loop.iterate(lambda verbs: verbs.investigate_events(question, **scope))

    def ask_events(self, question: str, *, place: str | None = None, **scope: Any) -> Iterator[AskEvent]:
        """The answer as it is made, as Verbs.ask_events; leaving the loop ends the model's call."""
        yield from self._loop.iterate(lambda verbs: verbs.ask_events(question, place=place, **scope))

    def map(self, topic: str, *, limit: int = 300, since: When | None = None) -> Any:
        """An altair.Chart of a topic's most frequent patterns as points, near each other where they mean alike; it can be
        zoomed, and a point says its pattern. UsageError where altair is not installed, or there are fewer than three."""
        from headwater.records import plots

        patterns = self.patterns(topic, since=since, limit=limit).patterns
        vectors = self.embed([p.passage.text for p in patterns]).vectors if patterns else ()
        return plots.embedding_map(patterns, vectors)

    def load(
        self, topic: str, table: Any, *, value: str | None = None, key: str | None = None, timestamp: str | None = None,
        name: str | None = None, batch: int = 1000,
    ) -> Loading:  # fmt: skip
        """Store the rows of a DataFrame (pandas, polars), an Arrow table or mappings in the background. `value`, `key` and
        `timestamp` name their columns, the others become attributes. With a `name` the same load again stores nothing twice.
        `wait()` of what is returned blocks until all is stored, with a bar; UsageError for what is no table."""
        from headwater.loading import load

        return load(self.append, topic, table, value=value, key=key, timestamp=timestamp, name=name, batch=batch)

    def close(self) -> None:
        """Let go of everything; safe to call twice."""
        self._end.detach()
        self._loop.stop()
        self._loop.join()

    def __repr__(self) -> str:
        verbs: Any = self._loop.verbs
        where = getattr(verbs, "url", None) or getattr(getattr(verbs, "settings", None), "path", "")
        return f"<Headwater {where}{'' if self._loop.is_open else ', closed'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LoopThread:
    """A thread whose loop holds verbs open. Not a daemon thread: a program that ends waits until they are closed."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Verbs]]) -> None:
        opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Verbs]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(_hold(opening, opened)), name="headwater")
        self._thread.start()
        self._loop, self._ended, self.verbs = opened.result()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine run on the loop. An interrupt of the caller cancels it."""
        if not self.is_open:
            work.close()
            raise UsageError("this Headwater is closed; open or connect again")
        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError("this would wait for itself; use the asynchronous verbs here")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, start: Callable[[Verbs], AsyncIterator[T]]) -> Iterator[T]:
        """The items of an async iterator of the loop. Giving it up closes the other end."""
        pull = _Pull(start(self.verbs))
        try:
            while True:
                try:
                    item = self.run(pull.next())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if self.is_open:
                self.run(pull.stop())

    @property
    def is_open(self) -> bool:
        """Whether verbs can be called."""
        return self._thread.is_alive() and not self._ended.is_set()

    def stop(self) -> None:
        """Ask the loop to end; returns at once."""
        if self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._ended.set)
            except RuntimeError:  # it has just ended by itself
                return

    def join(self) -> None:
        """Wait until everything is closed."""
        if threading.current_thread() is not self._thread:
            self._thread.join()


class _Pull(Generic[T]):
    """An async iterator taken item by item from another thread, which may give up in the middle of an item."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self._step: asyncio.Task[T] | None = None

    async def next(self) -> T:
        async def step() -> T:
            return await anext(self._items)

        self._step = asyncio.create_task(step())
        return await self._step

    async def stop(self) -> None:
        """End the item under way, then the iterator."""
        if self._step is not None and not self._step.done():
            self._step.cancel()
            await asyncio.wait({self._step})
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


async def _hold(
    opening: Callable[[], AbstractAsyncContextManager[Verbs]],
    opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, Verbs]],
) -> None:
    """Open, say so, and stay until told to end or the program's main thread has ended."""
    ended = asyncio.Event()
    try:
        async with opening() as verbs:
            opened.set_result((asyncio.get_running_loop(), ended, verbs))
            while not ended.is_set() and threading.main_thread().is_alive():
                try:
                    await asyncio.wait_for(ended.wait(), _LOOK_S)
                except TimeoutError:
                    continue
            ended.set()
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)
