"""The pipelines of an engine: made, changed, started, stopped, tried, and seen. The verbs of headwater.verbs.enrich."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from headwater.enrich import store
from headwater.enrich.backtest import backtest, ran
from headwater.enrich.building import Builder
from headwater.enrich.decisions import Decisions
from headwater.enrich.graph import Graph
from headwater.enrich.items import Item, Space
from headwater.enrich.running import Running, home
from headwater.enrich.spec import NAME, Spec, spec_of
from headwater.errors import HeadwaterError, NotFoundError, UsageError
from headwater.log.watches import seq_since
from headwater.query import parse_time
from headwater.records import Draft, Record, from_ms, parse_address
from headwater.records.labels import Backtest, Pipeline, PipelineState, Ran, RunEvent, StepStatus, StepTrace
from headwater.records.models import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.enrich.texts import Texts
    from headwater.index.indexer import Indexer
    from headwater.index.topic import TopicIndex
    from headwater.log.store import Log
    from headwater.stock import Stock
    from headwater.verbs import Entry

MOST_RECORDS = 1000  # in one run
_STATES: tuple[PipelineState, ...] = ("running", "stopped", "held up")
MOST_TRIED = 100_000


class Pipelines:
    """`load()`, then `run()` on the engine's loop; the verbs at any time. `environment` is what headers may name."""

    def __init__(
        self, log: Log, stock: Stock, indexer: Indexer, texts: Texts, *, clock_ms: Callable[[], int],
        environment: Mapping[str, str], price: float = 0.0,
    ) -> None:  # fmt: skip
        self._log, self._stock, self._indexer, self._clock_ms = log, stock, indexer, clock_ms
        self._builder = Builder(texts, environment, price)
        self._held: dict[str, Running] = {}
        self._broken: dict[str, tuple[store.PipelineRow, str]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()

    def load(self) -> None:
        """Read the pipelines from the log. One that cannot be made now (a model is gone) says so and stands still."""
        for row in store.pipelines(self._log):
            self._enter(row)

    def _enter(self, row: store.PipelineRow) -> None:
        self._broken.pop(row.name, None)
        try:
            self._held[row.name] = self._made(row, spec_of(orjson.loads(row.spec), f"pipeline {row.name}"))
        except HeadwaterError as error:
            self._held.pop(row.name, None)
            self._broken[row.name] = (row, str(error))

    def _made(
        self, row: store.PipelineRow, spec: Spec, *, tokens: int | None = None, cost: float | None = None, tried: bool = False
    ) -> Running:
        """A pipeline ready to run; what it spent before counts towards its limits."""
        if not tried:
            tokens = None if spec.tokens is None else max(spec.tokens - row.input_tokens - row.output_tokens, 0)
            cost = None if spec.cost is None else max(spec.cost - (row.cost or 0.0), 0.0)
        steps, purse = self._builder.steps(spec, tokens, cost)
        graph = Graph(spec, steps, Decisions(self._log))
        return Running(row, spec, graph, purse, self._builder, self._log, self._indexer, self._stock, clock_ms=self._clock_ms)

    async def run(self) -> None:
        """Run those that are started, until cancelled."""
        for name, held in self._held.items():
            if held.row.state == "running":
                self._launch(name)
        try:
            await asyncio.Event().wait()
        finally:
            for name in list(self._tasks):
                await self._halt(name)
            for held in self._held.values():
                await held.graph.aclose()

    def _launch(self, name: str) -> None:
        held = self._held[name]
        self._tasks[name] = asyncio.create_task(held.run(lambda: self._read_by(held.spec)))

    async def _halt(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            with contextlib.suppress(HeadwaterError):
                await self._held[name].save()  # what was decided, and paid for, of the block it was at

    def _read_by(self, spec: Spec) -> Iterator[TopicIndex]:
        """The topics a pipeline reads: without any named, all that no pipeline writes to."""
        written = {name for held in self._held.values() for name in held.spec.targets()} if spec.topics is None else set()
        return (t for t in list(self._indexer.topics.values()) if spec.reads(t.row.name) and t.row.name not in written)

    # ------------------------------------------------------------------ made and changed

    async def create(self, name: str, spec: str | Mapping[str, Any], *, start: bool = True, rerun: bool = False) -> Pipeline:
        """As Verbs.create_pipeline."""
        if not NAME.fullmatch(name):
            raise UsageError(f"{name[:40]!r} is no name of a pipeline: letters, digits and ._- (at most 100)")
        read = spec_of(spec, f"pipeline {name}")
        async with self._changing:
            await anyio.to_thread.run_sync(self._check, name, read)
            self._circle(name, read)
            await self._halt(name)
            await anyio.to_thread.run_sync(self._write, name, read, "running" if start else "stopped", rerun)
            if name in self._held and start:
                self._launch(name)
        return await self.one(name)

    def _check(self, name: str, spec: Spec) -> None:
        """Make every step once, before anything is written, and the topics it writes to."""
        self._builder.steps(spec, spec.tokens, spec.cost)
        if any(leaf.kind == "route" for leaf in spec.leaves()) or spec.output:
            for topic in spec.targets():
                home(self._stock, topic)

    def _circle(self, name: str, spec: Spec) -> None:
        """UsageError where records would go round through several pipelines."""
        specs = {**{n: held.spec for n, held in self._held.items()}, name: spec}
        to: dict[str, set[str]] = {}
        for one in specs.values():
            for topic in one.topics or ():
                to.setdefault(topic, set()).update(one.targets())
        for start in spec.targets():
            seen, waiting = set[str](), [start]
            while waiting:
                at = waiting.pop()
                if at in (spec.topics or ()):
                    raise UsageError(f"records would go in a circle: {start!r} leads back to {at!r} through other pipelines")
                if at not in seen:
                    seen.add(at)
                    waiting += to.get(at, ())

    def _write(self, name: str, spec: Spec, state: str, rerun: bool) -> None:
        now, starts = self._clock_ms(), self._starts(spec)
        text = orjson.dumps(spec.plain).decode()
        known = next((row for row in store.pipelines(self._log) if row.name == name), None)

        def write(db: Any) -> None:
            if known is None:
                store.create(db, name, text, state, now, starts)
            elif known.spec != text or rerun:
                store.change(db, known.id, text, now, again=rerun, starts=starts)
            if known is not None:
                store.set_state(db, known.id, state)

        self._log.write(write)
        self._enter(next(row for row in store.pipelines(self._log) if row.name == name))

    def _starts(self, spec: Spec) -> dict[int, int]:
        """The first seq of each topic there is, by `since`."""
        if spec.since == "all":
            return {}
        ends = self._log.stored()
        if spec.since == "now":
            return ends
        since_ms = parse_time(spec.since, now_ms=self._clock_ms())
        return {
            row.id: seq_since(self._log, row.id, row.first_seq, ends.get(row.id, 0), since_ms) for row in self._log.topics()
        }

    async def start(self, name: str) -> Pipeline:
        """As Verbs.start_pipeline."""
        async with self._changing:
            row = self._row(name)
            await self._halt(name)
            await anyio.to_thread.run_sync(self._set, row, "running")
            if name in self._held:
                self._launch(name)
        return await self.one(name)

    async def stop(self, name: str) -> Pipeline:
        """As Verbs.stop_pipeline."""
        async with self._changing:
            row = self._row(name)
            await self._halt(name)
            await anyio.to_thread.run_sync(self._set, row, "stopped")
        return await self.one(name)

    def _set(self, row: store.PipelineRow, state: str) -> None:
        self._log.write(lambda db: store.set_state(db, row.id, state))
        self._enter(next(one for one in store.pipelines(self._log) if one.id == row.id))

    async def delete(self, name: str) -> None:
        """As Verbs.delete_pipeline."""
        async with self._changing:
            row = self._row(name)
            await self._halt(name)
            if (held := self._held.pop(name, None)) is not None:
                await held.graph.aclose()
            self._broken.pop(name, None)
            await anyio.to_thread.run_sync(self._log.write, lambda db: store.drop(db, row.id))

    # ------------------------------------------------------------------ seen

    async def counts(self) -> dict[str, int]:
        """How many are in which state, and how far the one furthest behind is."""
        found = await self.all()
        counts = Counter(one.state for one in found)
        return {**{state: counts[state] for state in _STATES}, "behind": max((one.behind for one in found), default=0)}

    def troubles(self) -> list[str]:
        """What holds pipelines up."""
        held = [(name, one.error) for name, one in self._held.items() if one.row.state == "running" and one.error]
        broken = [(name, error) for name, (row, error) in self._broken.items() if row.state == "running"]
        return [f"pipeline {name} is held up: {error}" for name, error in (*held, *broken)]

    async def all(self) -> list[Pipeline]:
        """As Verbs.pipelines."""
        return await anyio.to_thread.run_sync(self._all)

    async def one(self, name: str) -> Pipeline:
        """As Verbs.pipeline."""
        self._row(name)
        return next(found for found in await self.all() if found.name == name)

    def _all(self) -> list[Pipeline]:
        return [self._view(row) for row in store.pipelines(self._log)]

    def _row(self, name: str) -> store.PipelineRow:
        if name in self._held:
            return self._held[name].row
        if name in self._broken:
            return self._broken[name][0]
        raise NotFoundError(f"no pipeline {name[:100]!r}; `headwater enrich status` lists them")

    def _view(self, row: store.PipelineRow) -> Pipeline:
        held = self._held.get(row.name)
        error = self._broken[row.name][1] if row.name in self._broken else None if held is None else held.error
        plain = orjson.loads(row.spec)
        usage = Usage(row.input_tokens, row.output_tokens, row.cost)
        running = row.state == "running"
        state: PipelineState = "held up" if running and error else "running" if running else "stopped"
        behind = 0 if held is None else sum(held.behind(topic) for topic in self._read_by(held.spec))
        return Pipeline(
            row.name, state, row.version, None if held is None else held.spec.topics, plain.get("output"),
            () if held is None else _steps(held), plain, from_ms(row.created_ms), from_ms(row.changed_ms), error, row.records,
            row.written, row.passages, row.failed, behind, 0.0 if held is None or not running else held.pace.rate, usage,
        )  # fmt: skip

    # ------------------------------------------------------------------ tried

    async def backtest(
        self, name: str, spec: str | Mapping[str, Any] | None = None, *, records: int = 1000, samples: int = 5,
        max_tokens: int | None = None, max_cost: float | None = None,
    ) -> Backtest:  # fmt: skip
        """As Verbs.backtest_pipeline."""
        if not 1 <= records <= MOST_TRIED or not 0 <= samples <= 100:
            raise UsageError(f"records must be between 1 and {MOST_TRIED:,}, samples between 0 and 100")
        former = self._held.get(name)
        if spec is None and former is None:
            self._row(name)
            raise UsageError(self._broken[name][1])
        read = spec_of(spec, f"pipeline {name}") if spec is not None else former.spec if former is not None else None
        assert read is not None
        row = former.row if former is not None else store.PipelineRow(0, name, "", 0, "", 0, 0, {}, 0, 0, 0, 0, 0, 0, 0.0)
        tried = await anyio.to_thread.run_sync(lambda: self._made(row, read, tokens=max_tokens, cost=max_cost, tried=True))
        topics = list(self._read_by(read))
        try:
            beside = former if spec is not None else None
            return await backtest(name, tried, beside, topics, self._log, records=records, samples=samples)
        finally:
            await tried.graph.aclose()

    async def run_on(
        self, name: str, records: Sequence[Entry], *, spec: str | Mapping[str, Any] | None = None
    ) -> AsyncIterator[RunEvent]:
        """As Verbs.run_pipeline."""
        if not records or len(records) > MOST_RECORDS:
            raise UsageError(f"between 1 and {MOST_RECORDS:,} records are run at once")
        given = [_record(entry) for entry in records]
        if spec is None:
            row = self._row(name)
            read = spec_of(orjson.loads(row.spec), f"pipeline {name}")
        else:
            read = spec_of(spec, f"pipeline {name}")
            row = store.PipelineRow(0, name, "", 0, "", 0, 0, {}, 0, 0, 0, 0, 0, 0, 0.0)
        running = await anyio.to_thread.run_sync(lambda: self._made(row, read, tokens=read.tokens, cost=read.cost, tried=True))
        try:
            space = self._builder.space(read) if running.graph.compares else None
            for n, record in enumerate(given):
                level = record.attributes.get("level")
                item = Item(
                    record.value, record.topic, level=None if level is None else str(level), record=record, own=record.value,
                    traces=[],
                )  # fmt: skip
                async with contextlib.aclosing(_walked(running, item, space, n)) as events:
                    async for event in events:
                        yield event
                yield RunEvent("done", n, ran=ran(running, item, record.value, None))
        finally:
            await running.graph.aclose()

    async def replay(self, id: int) -> bool:
        """Do the records of a dead letter once more, where a pipeline has left it: whether one has."""
        letter = await anyio.to_thread.run_sync(store.letter, self._log, id)
        if letter is None:
            return False
        name, _, end = letter.source.rpartition(" until ")
        topic = self._indexer.topics.get(letter.topic)
        if name not in self._held or topic is None:
            raise UsageError(f"there is no pipeline {name!r} now that could do it again; `headwater dlq drop {id}` forgets it")
        await self._held[name].again(topic, id, letter.seq, int(end))
        return True

    async def trace(self, name: str, place: str) -> Ran:
        """As Verbs.trace_pipeline."""
        self._row(name)
        if name not in self._held:
            raise UsageError(self._broken[name][1])
        held = self._held[name]
        topic_name, partition, offset = parse_address(place)
        topic = self._stock.find(topic_name)
        row = await anyio.to_thread.run_sync(self._log.find, topic.row, partition, offset)
        places = await anyio.to_thread.run_sync(topic.catalogue.places, [row.id])
        if not places.get(row.id):
            raise UsageError(f"{place} is not indexed yet, or has no text; try again in a moment")
        (item,) = await held.decide(topic, [row], places, traces=True)
        await held.save()
        return ran(held, item, row.value, place)


async def _walked(running: Running, item: Item, space: Space | None, n: int) -> AsyncGenerator[RunEvent, None]:
    """What becomes of an item, step by step; what a step yields is told while it is at work."""
    loop, told = asyncio.get_running_loop(), asyncio.Queue[RunEvent | None]()

    def hears(step: str, part: Mapping[str, Any]) -> None:
        event = RunEvent("part", n, StepTrace(step, "python", {}, dict(part)))
        loop.call_soon_threadsafe(told.put_nowait, event)

    async def walk() -> None:
        known = 0
        try:
            async for _ in running.graph.walk(item, space):
                for trace in (item.traces or ())[known:]:
                    told.put_nowait(RunEvent("step", n, trace))
                known = len(item.traces or ())
        finally:
            told.put_nowait(None)

    item.hears = hears
    walking = asyncio.create_task(walk())
    try:
        while (event := await told.get()) is not None:
            yield event
        await walking
    finally:
        walking.cancel()
        await asyncio.gather(walking, return_exceptions=True)


def _steps(held: Running) -> tuple[StepStatus, ...]:
    out = []
    for leaf in held.spec.leaves():
        step, tally = held.graph.steps.get(leaf.name), held.graph.tallies[leaf.name]
        cost = "free" if step is None else step.cost
        usage = Usage() if step is None else step.used()
        status = StepStatus(leaf.name, leaf.kind, cost, tally.decided, tally.hits, tally.failed, usage, round(tally.seconds, 3))
        out.append(status)
    return tuple(out)


def _record(entry: Entry) -> Record:
    """A record that is run without being stored."""
    plain: Any = {"value": entry} if isinstance(entry, str) else entry._asdict() if isinstance(entry, Draft) else entry
    if not isinstance(plain, Mapping) or not isinstance(plain.get("value"), str):
        raise UsageError("a record to run is text, or an object with 'value' as text")
    attributes = plain.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise UsageError("attributes must be an object")
    key = plain.get("key")
    return Record("run", 0, 0, 0, from_ms(0), from_ms(0), None if key is None else str(key), plain["value"], dict(attributes))
