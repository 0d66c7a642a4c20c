"""A pipeline at work: block after block of each topic, as the indexer gets through it.

What a block came to, the records it writes, the decisions behind them, its dead letters and its cursor, is one transaction: a
crash leaves all of it or nothing. Each passage is decided once; what its records inherit is kept in memory and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from headwater.enrich import store
from headwater.enrich.graph import Graph
from headwater.enrich.items import Item, Space, flat
from headwater.enrich.spec import Spec
from headwater.enrich.texts import texts_of
from headwater.errors import ConflictError, HeadwaterError, LimitError, NotFoundError, UsageError
from headwater.index.topic import Pace
from headwater.records import Draft

if TYPE_CHECKING:
    from collections.abc import Mapping

    import apsw

    from headwater.enrich.building import Builder
    from headwater.enrich.purse import Purse
    from headwater.index.indexer import Indexer
    from headwater.index.topic import TopicIndex
    from headwater.log.catalogue import Place
    from headwater.log.store import Log, Row
    from headwater.records.models import Usage
    from headwater.stock import Stock

logger = logging.getLogger(__name__)
BLOCK = 2000  # records of one transaction
_NEW_ASKED = 64  # passages new to a block whose steps ask models or services: so much work a crash can cost
_HELD = 50_000  # passages whose results are held
_SLOWEST_S = 60.0


class Running:
    """One pipeline: `run()` on the engine's loop until cancelled."""

    def __init__(
        self, row: store.PipelineRow, spec: Spec, graph: Graph, purse: Purse, builder: Builder, log: Log, indexer: Indexer,
        stock: Stock, *, clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self.row, self.spec, self.graph, self.purse = row, spec, graph, purse
        self._builder, self._log, self._indexer, self._stock, self._clock_ms = builder, log, indexer, stock, clock_ms
        self._finals: OrderedDict[int, Item] = OrderedDict()
        self._marks: dict[int, int] = {}
        self._booked = purse.spent  # what the log knows of it
        self.asks = any(step.cost in ("llm", "network") for step in graph.steps.values())
        self.error: str | None = None
        self.pace = Pace()

    async def run(self, topics: Callable[[], Iterable[TopicIndex]]) -> None:
        """Read what the pipeline is to read, as it is indexed. What fails for all records holds it up, and is tried again."""
        fails = 0
        self.pace.step(0)
        while True:
            progress = self._indexer.progress
            try:
                more = False
                for topic in topics():
                    if not topic.closed and self.spec.reads(topic.row.name):
                        more |= await self._advance(topic)
                self.error, fails = None, 0
            except Exception as error:  # the top of a loop that nothing may end
                fails = await self._hold_up(error, fails)
                continue
            if not more:
                await progress.wait()

    async def _hold_up(self, error: Exception, fails: int) -> int:
        problem = f"{error or type(error).__name__}"
        if problem != self.error:
            quiet = isinstance(error, HeadwaterError)
            logger.warning("pipeline %s is held up: %s", self.row.name, problem, exc_info=None if quiet else error)
        self.error = problem
        with contextlib.suppress(HeadwaterError):
            await self.save()  # what was decided, and paid for, before it failed
        wait_s = getattr(error, "retry_after_s", None) or (
            _SLOWEST_S if isinstance(error, LimitError) else 0.5 * 2 ** min(fails, 8)
        )
        await asyncio.sleep(min(wait_s, _SLOWEST_S))
        return fails + 1

    async def save(self) -> None:
        """Keep the decisions made so far, and what they cost, whatever becomes of the records they were made for."""
        rows = self.graph.fresh()
        with self._booking() as usage:
            if rows or usage.tokens:

                def write(db: apsw.Connection) -> None:
                    store.keep_decisions(db, rows)
                    store.book(db, self.row.id, usage)

                await anyio.to_thread.run_sync(self._log.write, write)
        self.graph.written(rows)

    @contextlib.contextmanager
    def _booking(self) -> Iterator[Usage]:
        """What models have taken and the log does not know, to be written inside. It is booked once, whoever comes first."""
        usage = self.purse.spent - self._booked
        self._booked += usage
        try:
            yield usage
        except BaseException:
            self._booked -= usage
            raise

    # ------------------------------------------------------------------ how far

    def mark(self, topic: TopicIndex) -> int:
        """The next seq of a topic that it has to read."""
        id = topic.row.id
        if id not in self._marks:
            self._marks[id] = max(self._log.cursor(id, self.row.group), self.row.starts.get(id, 0))
        return max(self._marks[id], 0)

    def upto(self, topic: TopicIndex) -> int:
        """The seq it can read to: what is embedded, where it compares by the topic's own vectors, else what is mapped."""
        own = topic.embedder is not None and topic.embedder.name != "external" and self.spec.embedding is None
        return min(topic.semantic, topic.mapped) if self.graph.compares and own else topic.mapped

    def behind(self, topic: TopicIndex) -> int:
        return max(topic.stored - max(self.mark(topic), topic.row.first_seq), 0)

    # ------------------------------------------------------------------ one block

    async def _advance(self, topic: TopicIndex) -> bool:
        """One block of a topic; True when there is more."""
        at, upto = await anyio.to_thread.run_sync(self.mark, topic), self.upto(topic)
        if at >= upto:
            return False
        rows, places = await anyio.to_thread.run_sync(self._block, topic, at, upto)
        end = rows[-1].seq + 1 if rows else upto
        items = await self.decide(topic, rows, places)
        written = await anyio.to_thread.run_sync(self._targets, items)
        done = store.Done(
            self.row.id, topic.row.id, end, self._drafts(topic, rows, items, written), self.graph.fresh(),
            self._letters(topic, rows, items, end), len(rows), len({p.passage for r in places.values() for p in r}),
        )  # fmt: skip
        await self._write(done)
        self.graph.written(done.decisions)
        self._marks[topic.row.id] = end
        self.pace.step(len(rows))
        return end < self.upto(topic)

    async def again(self, topic: TopicIndex, letter: int, seq: int, end: int) -> None:
        """Do the records of a dead letter once more: those from `seq` to `end` of the passages of the first. They are written,
        and the letter goes, in one transaction; UsageError where one fails again, and then nothing is."""
        rows = await anyio.to_thread.run_sync(lambda: self._log.rows(topic.row.id, seq, end - seq, before=end))
        places = await anyio.to_thread.run_sync(topic.catalogue.places, [row.id for row in rows])
        of = {row.id: _distinct(topic, places.get(row.id, ())) for row in rows}
        alike = [row for row in rows if row.seq == seq or (of[row.id] and of[row.id] == of[rows[0].id])]
        items = await self.decide(topic, alike, places)
        if failed := next((item for item in items if item.ended == "failed"), None):
            raise UsageError(f"it fails again: step {failed.failed_at}: {failed.error}")
        ids = await anyio.to_thread.run_sync(self._targets, items)
        done = store.Done(self.row.id, topic.row.id, None, self._drafts(topic, alike, items, ids), self.graph.fresh(), (), 0, 0)
        await self._write(done, letter)
        self.graph.written(done.decisions)

    async def _write(self, done: store.Done, letter: int | None = None) -> None:
        """Commit a block, or the records of a dead letter, which goes with it, and what models took meanwhile."""
        drafts = sum(map(len, done.drafts.values()))

        def write(usage: Usage) -> None:
            announce = next(iter(done.drafts), None)
            now = self._clock_ms()

            def work(db: apsw.Connection) -> None:
                store.store(db, self._log, done, now)
                store.book(db, self.row.id, usage)
                if letter is not None:
                    store.drop_letter(db, letter)

            self._log.submit(work, rows=drafts + 1, announce=announce).result()

        with self._booking() as usage:
            await anyio.to_thread.run_sync(write, usage)

    def _block(self, topic: TopicIndex, at: int, upto: int) -> tuple[list[Row], dict[int, list[Place]]]:
        """The next records with their passages; few where each new passage is asked about somewhere."""
        rows = self._log.rows(topic.row.id, at, BLOCK, before=upto)
        places = topic.catalogue.places([row.id for row in rows])
        if not self.asks:
            return rows, places
        new: set[int] = set()
        for n, row in enumerate(rows):
            new |= {p for place in places.get(row.id, ()) if (p := topic.resolve(place.passage)) not in self._finals}
            if len(new) + (n if self.graph.by_record else 0) > _NEW_ASKED and n:
                return rows[:n], {r.id: places[r.id] for r in rows[:n] if r.id in places}
        return rows, places

    async def decide(
        self, topic: TopicIndex, rows: Sequence[Row], places: Mapping[int, Sequence[Place]], *, traces: bool = False
    ) -> list[Item]:
        """What the pipeline makes of each record, in their order."""
        space = self._builder.space(self.spec, topic) if self.graph.compares else None
        of = {row.id: _distinct(topic, places.get(row.id, ())) for row in rows}
        wanted = list(dict.fromkeys(p for passages in of.values() for p in passages))
        finals = {} if traces else {p: self._finals[p] for p in wanted if p in self._finals}
        missing = [p for p in wanted if p not in finals]
        if missing:
            items = await anyio.to_thread.run_sync(self._passages, topic, missing, space, traces)
            await self.graph.passages(items, space, topic.family)
            finals.update(zip(missing, items, strict=True))
            if not traces:
                self._hold(zip(missing, items, strict=True))
        if not self.graph.by_record and not traces:
            return [self._inherited(topic, [finals[p] for p in of[row.id]]) for row in rows]
        kept = [self._of_record(topic, row, [finals[p] for p in of[row.id]], traces) for row in rows]
        await self.graph.records(kept, space, topic.family)
        return kept

    def _hold(self, items: Iterable[tuple[int, Item]]) -> None:
        for passage, item in items:
            if item.ended == "failed":
                continue  # it may succeed the next time
            if not self.graph.by_record:
                item.vector = None
            self._finals[passage] = item
        while len(self._finals) > _HELD:
            self._finals.popitem(last=False)

    def _passages(self, topic: TopicIndex, ids: Sequence[int], space: Space | None, traces: bool) -> list[Item]:
        texts = texts_of(topic, ids)
        rows = topic.catalogue.rows(ids)
        vectors: dict[int, Any] = {}
        if space is not None and topic.embedder is not None and topic.embedder.name == space.name:
            found, data = topic.catalogue.vectors(ids)
            vectors = dict(zip(found.tolist(), data, strict=True))
        name = topic.row.name
        return [
            Item(texts[p], name, p, vectors.get(p), rows[p].level if p in rows else None, traces=[] if traces else None)
            for p in ids
        ]

    def _inherited(self, topic: TopicIndex, finals: Sequence[Item]) -> Item:
        """What a record gets from its passages: of several, each field from the one that is surest of it, all topics."""
        if len(finals) == 1:
            return finals[0]
        item = Item("", topic.row.name)
        for final in finals:
            for name, value in final.fields.items():
                if name not in item.fields or final.confidence.get(name, 0.0) > item.confidence.get(name, 0.0):
                    item.fields[name] = value
                    if name in final.confidence:
                        item.confidence[name] = final.confidence[name]
            for place, score in final.topics.items():
                item.topics[place] = max(score, item.topics.get(place, 0.0))
            item.redactors = tuple(dict.fromkeys((*item.redactors, *final.redactors)))
        ended = [final for final in finals if final.ended is not None]
        if ended and (len(ended) == len(finals) or ended[0].ended == "failed"):
            item.ended, item.error, item.failed_at = ended[0].ended, ended[0].error, ended[0].failed_at
        return item

    def _of_record(self, topic: TopicIndex, row: Row, finals: Sequence[Item], traces: bool) -> Item:
        """A record as the steps that read records are given it, with what it inherits."""
        base = self._inherited(topic, finals)
        item = base.copy()
        item.record, item.own = row.record(topic.row.name), row.value
        for redactor in base.redactors:
            item.own = redactor.redact(item.own).text
        if finals:
            item.text, item.passage, item.vector = finals[0].text, finals[0].passage, finals[0].vector
            item.changed, item.level = finals[0].changed, finals[0].level
        else:
            item.text = item.own
        item.traces = [t for f in finals[:1] for t in f.traces or ()] if traces else None
        return item

    # ------------------------------------------------------------------ what is written

    def _targets(self, items: Sequence[Item]) -> dict[str, int]:
        """The ids of the topics that some items go to, made where there is none."""
        names = {name for item in items for name in self.topics_of(item)}
        return {name: home(self._stock, name).row.id for name in names}

    def topics_of(self, item: Item) -> tuple[str, ...]:
        """Where an item goes."""
        if item.ended in ("dropped", "failed"):
            return ()
        return tuple(dict.fromkeys((*([self.spec.output] if self.spec.output else []), *item.topics)))

    def _drafts(
        self, topic: TopicIndex, rows: Sequence[Row], items: Sequence[Item], ids: Mapping[str, int]
    ) -> dict[int, list[Draft]]:
        drafts: dict[int, list[Draft]] = {}
        for row, item in zip(rows, items, strict=True):
            if targets := self.topics_of(item):
                draft = self._draft(topic, row, item)
                for name in targets:
                    drafts.setdefault(ids[name], []).append(draft)
        for id, held in drafts.items():  # a topic that redacts does so whoever writes to it
            target = self._indexer.topics.get(id)
            if target is not None and (redacting := target.redacting) is not None:
                drafts[id] = [redacting.draft(draft) for draft in held]
        return drafts

    def _draft(self, topic: TopicIndex, row: Row, item: Item) -> Draft:
        """A record as it is written: its text, time and key, its attributes with the fields it got, and where it came from."""
        value, key, attributes = row.value, row.key, orjson.loads(row.attributes) if row.attributes else {}
        for redactor in item.redactors:
            value, attributes = redactor.text(value), redactor.redact_all(attributes)
            key = None if key is None else redactor.redact(key).text
        attributes.update(outputs(item))
        attributes["source"] = f"{topic.row.name}/{row.partition}/{row.offset}"
        attributes["pipeline"], attributes["pipeline_version"] = self.row.name, self.row.version
        return Draft(value, key, row.time_ms, attributes, body=row.body if value is row.value else None)

    def _letters(self, topic: TopicIndex, rows: Sequence[Row], items: Sequence[Item], end: int) -> list[store.LetterRow]:
        """One dead letter for each distinct failure of the block: what many records share is said once."""
        first: dict[tuple[int | None, str | None], tuple[Row, Item, int]] = {}
        for row, item in zip(rows, items, strict=True):
            if item.ended == "failed":
                key = (item.passage, item.error) if item.passage is not None else (row.seq, item.error)
                known = first.get(key)
                first[key] = (row, item, 1) if known is None else (known[0], known[1], known[2] + 1)
        return [
            store.LetterRow(
                topic.row.id, row.seq,
                f"pipeline {self.row.name}, step {item.failed_at}: {item.error}"
                + (f" (and {count - 1:,} more records of the same passage)" if count > 1 else ""),
                row.value[:4096], f"{self.row.name} until {end}",
            )
            for row, item, count in first.values()
        ]  # fmt: skip


def outputs(item: Item) -> dict[str, str | int | float | bool]:
    """The fields of an item as attributes, each with how sure it is as `NAME_confidence`. Its fields are final by then."""
    if item.attributes is not None:
        return item.attributes
    item.attributes = {**flat(item.fields), **item.sure()}
    return item.attributes


def home(stock: Stock, name: str) -> TopicIndex:
    """The topic of that name, made when there is none."""
    try:
        return stock.find(name)
    except NotFoundError:
        with contextlib.suppress(ConflictError):  # somebody else made it meanwhile
            stock.create(name, {})
        return stock.find(name)


def _distinct(topic: TopicIndex, places: Iterable[Place]) -> list[int]:
    return list(dict.fromkeys(topic.resolve(place.passage) for place in places if place.passage))
