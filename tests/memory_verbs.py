"""A small true implementation of the verbs the MCP server calls, kept in dicts: patterns are texts with their digits folded,
search counts shared words. It stores what it is given and makes nothing up."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from headwater.composed import AskEvent, events_of
from headwater.config import LlmSettings
from headwater.enrich.labels import task
from headwater.enrich.patterns import Patterns
from headwater.enrich.spec import spec_of
from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.llm.models import Models
from headwater.query import as_filters, parse, parse_time
from headwater.rag.changes import compared
from headwater.records import (
    Answer,
    Appended,
    Bucket,
    Citation,
    Coverage,
    Draft,
    Hit,
    Passage,
    Pattern,
    PatternsReply,
    Receipt,
    Record,
    RecordView,
    SearchReply,
    SourceInfo,
    Status,
    Timeline,
    Topic,
    Watermark,
    from_ms,
    parse_address,
    to_ms,
)
from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting
from headwater.records.answers import Conversation, Read, Rerun, StoredAnswer
from headwater.records.answers import Message as Said
from headwater.records.calls import ToolCall
from headwater.records.investigations import InvestigateEvent, Investigation, Step
from headwater.records.labels import Classified, ClassifyReply, Extracted, ExtractReply, LabelCount, Pipeline, StepStatus
from headwater.records.levels import canonical_level
from headwater.records.models import Completion, Message, ModelInfo, Piece, Usage
from headwater.records.watches import Watch, WatchHit, Woken

NOW = datetime(2026, 11, 21, 16, 0, tzinfo=UTC)


class MemoryVerbs:
    """Records by topic, one partition each. `notes` goes into every coverage, `sources` and `problems` into the status."""

    def __init__(
        self, notes: tuple[str, ...] = (), sources: tuple[SourceInfo, ...] = (), problems: tuple[str, ...] = ()
    ) -> None:
        self.by_topic: dict[str, list[Record]] = {}
        self.notes, self.sources, self.problems = notes, sources, problems
        self._passages: dict[str, int] = {}
        self.made: list[Watch] = []
        self.piped: dict[str, Pipeline] = {}
        self.kept: list[StoredAnswer] = []
        self.talks: dict[str, tuple[Conversation, list[Said]]] = {}
        self.noted: list[ToolCall] = []

    async def append(
        self,
        topic: str,
        records: Sequence[Any],
        *,
        idempotency_key: str | None = None,
        wait: Any = "stored",
        timeout_s: float = 10,
    ) -> Appended:
        stored = self.by_topic.setdefault(topic, [])
        receipts = []
        for entry in records:
            draft = _draft(entry)
            when = from_ms(draft.time_ms) if draft.time_ms is not None else NOW
            n = len(stored)
            stored.append(Record(topic, 0, n, n, when, NOW, draft.key, draft.value, dict(draft.attributes)))
            receipts.append(Receipt(topic, 0, n, n))
        return Appended(tuple(receipts), wait)

    async def models(self, *, check: bool = False) -> list[ModelInfo]:
        return await Models(LlmSettings(provider="rehearsal"), env={}).models()

    async def complete(self, prompt: str | Sequence[Message], **options: Any) -> Completion:
        return await Models(LlmSettings(provider="rehearsal"), env={}).complete(prompt, **options)

    async def complete_stream(self, prompt: str | Sequence[Message], **options: Any) -> AsyncIterator[Piece | Completion]:
        async for part in Models(LlmSettings(provider="rehearsal"), env={}).complete_stream(prompt, **options):
            yield part

    async def classify(
        self, texts: Sequence[str] | None = None, *, labels: Any = None, topics: Sequence[str] | None = None, **_: Any
    ) -> ClassifyReply:
        found = task(labels).labels
        given = list(texts) if texts is not None else [r.value for t in topics or () for r in self._records(t)]
        scored = [
            (max((len(_words(f"{label.name} {label.description}") & _words(text)), -n) for n, label in enumerate(found)))
            for text in given
        ]
        names = [found[-n].name if shared else None for shared, n in scored]
        counts = tuple(LabelCount(name, names.count(name), names.count(name)) for name in dict.fromkeys(names))
        results = tuple(Classified(name, float(name is not None), {}, "words") for name in names)
        return ClassifyReply(results if texts is not None else (), counts, "zero-shot", None, len(given), len(given))

    async def extract(
        self, texts: Sequence[str], *, schema: Any, patterns: Mapping[str, str] | None = None, **_: Any
    ) -> ExtractReply:
        found = [Patterns(schema, patterns).find(text) for text in texts]
        return ExtractReply(tuple(Extracted(value, dict.fromkeys(value, "regex")) for value in found))

    async def create_pipeline(self, name: str, spec: Any, *, start: bool = True, rerun: bool = False) -> Pipeline:
        read = spec_of(spec, f"pipeline {name}")
        version = self.piped[name].version + 1 if name in self.piped else 1
        steps = tuple(StepStatus(leaf.name, leaf.kind, "free") for leaf in read.leaves())
        state: Any = "running" if start else "stopped"
        self.piped[name] = Pipeline(name, state, version, read.topics, read.output, steps, read.plain, NOW, NOW)
        return self.piped[name]

    async def pipelines(self) -> list[Pipeline]:
        return [self.piped[name] for name in sorted(self.piped)]

    async def pipeline(self, name: str) -> Pipeline:
        if name not in self.piped:
            raise NotFoundError(f"no pipeline {name}")
        return self.piped[name]

    async def start_pipeline(self, name: str) -> Pipeline:
        self.piped[name] = replace(await self.pipeline(name), state="running")
        return self.piped[name]

    async def stop_pipeline(self, name: str) -> Pipeline:
        self.piped[name] = replace(await self.pipeline(name), state="stopped")
        return self.piped[name]

    async def delete_pipeline(self, name: str) -> None:
        await self.pipeline(name)
        del self.piped[name]

    async def topics(self) -> list[Topic]:
        return [self._topic(name) for name in sorted(self.by_topic)]

    async def topic(self, name: str) -> Topic:
        self._records(name)
        return self._topic(name)

    async def read(self, address: str, *, context: int = 0, alike: int = 0) -> RecordView:
        topic, partition, offset = parse_address(address)
        records = self._records(topic)
        if partition or offset >= len(records):
            raise NotFoundError(f"no record {address}")
        before = records[max(0, offset - context) : offset]
        text = _shape(records[offset].value)
        same = [r for r in reversed(records) if r.offset != offset and _shape(r.value) == text][:alike]
        return RecordView(records[offset], tuple(before), tuple(records[offset + 1 : offset + 1 + context]), tuple(same))

    async def search(
        self,
        q: str,
        *,
        topics: Sequence[str] | None = None,
        top_k: int = 10,
        mode: str | None = None,
        since: Any = None,
        until: Any = None,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        explain: bool = False,
        include: Sequence[str] = (),
        cursor: str | None = None,
        as_of: Any = None,
        rerank: bool = False,
        max_tokens: int | None = None,
    ) -> SearchReply:
        query = parse(q, now_ms=to_ms(NOW))
        conditions = (*query.filters, *as_filters(filters or {}))
        names = list(topics) if topics is not None else sorted(self.by_topic)
        scope = [r for name in names for r in self._records(name) if _within(r, since, until)]
        scope = [r for r in scope if all(c.accepts(_value(r, c.field)) for c in conditions)]
        words = _words(query.text)
        scored = [(len(words & _words(r.value)) / max(1, len(words)), r) for r in scope]
        scored = [(s, r) for s, r in scored if s > (min_score or 0) or not words]
        return self._page_of(sorted(scored, key=lambda pair: (-pair[0], pair[1].address)), scope, names, top_k, cursor)

    async def similar(
        self, topic: str, *, offset: int, partition: int = 0, top_k: int = 10, topics: Sequence[str] | None = None
    ) -> SearchReply:
        record = (await self.read(f"{topic}/{partition}/{offset}")).record
        others = [r for name in topics or sorted(self.by_topic) for r in self._records(name) if r is not record]
        words = _words(record.value)
        scored = [(len(words & _words(r.value)) / max(1, len(words | _words(r.value))), r) for r in others]
        scored = [(s, r) for s, r in scored if s > 0]
        names = list(topics or sorted(self.by_topic))
        return self._page_of(sorted(scored, key=lambda pair: (-pair[0], pair[1].address)), others, names, top_k, None)

    async def patterns(
        self,
        topic: str,
        *,
        q: str = "",
        since: Any = None,
        until: Any = None,
        new_since: Any = None,
        gone_since: Any = None,
        changed_since: Any = None,
        fields: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> PatternsReply:
        by_shape: dict[str, list[Record]] = {}
        for record in self._records(topic):
            by_shape.setdefault(_shape(record.value), []).append(record)
        mark = from_ms(parse_time(new_since, now_ms=to_ms(NOW))) if new_since is not None else None
        found = []
        for records in by_shape.values():
            counted = [r for r in records if _within(r, since, until)]
            passage = self._passage(records[0], records)
            new = mark is not None and passage.first_seen >= mark
            if counted and (new or mark is None):
                level = records[-1].attributes.get("level")
                found.append(Pattern(passage, topic, len(counted), new, level, records[-1].address))
        found.sort(key=lambda pattern: -pattern.count)
        start = int(cursor or 0)
        page = found[start : start + limit]
        more = str(start + limit) if start + limit < len(found) else None
        coverage = self._coverage([topic], len(self._records(topic)), len(found) - start - len(page), more)
        return PatternsReply(tuple(page), coverage)

    async def timeline(
        self, q: str = "", *, topics: Sequence[str] | None = None, since: Any = None, until: Any = None, buckets: int = 60
    ) -> Timeline:
        found = (await self.search(q, topics=topics, since=since, until=until, top_k=10_000)).hits
        times = sorted(to_ms(hit.timestamp) for hit in found)
        names = list(topics if topics is not None else sorted(self.by_topic))
        if not times:
            return Timeline((), 60.0, self._coverage(names, 0, 0, None))
        width = max((times[-1] - times[0]) // buckets + 1, 1000)
        counts = [sum((t - times[0]) // width == n for t in times) for n in range((times[-1] - times[0]) // width + 1)]
        bars = tuple(Bucket(from_ms(times[0] + n * width), count, {}) for n, count in enumerate(counts))
        return Timeline(bars, width / 1000, self._coverage(names, len(times), 0, None))

    async def add_watch(self, q: str = "", *, like: str | None = None, **scope: Any) -> Watch:
        if like is not None:
            await self.read(like)
        id, scope = len(self.made) + 1, {"more_than": None, "topics": None, "owner": None, **scope}
        watch = Watch(
            id, f"w{id}", q, scope["topics"], "hybrid", 0.35, like, scope["more_than"], None, NOW, NOW, scope["owner"],
            "watching", None, 0, None, 0, "0",
        )  # fmt: skip
        self.made.append(watch)
        return watch

    async def watches(self) -> list[Watch]:
        return self.made

    async def watch(self, id: int | str) -> Watch:
        found = next((w for w in self.made if str(id) in (str(w.id), w.name)), None)
        if found is None:
            raise NotFoundError(f"no watch {str(id)[:40]!r}; `headwater watch list` shows them")
        return found

    async def wait(self, id: int | str, *, cursor: str | None = None, timeout: float | None = 25, limit: int = 100) -> Woken:
        """Every record that shares a word with the watch has fired it; nobody is waited for."""
        watch = await self.watch(id)
        found = (await self.search(watch.q, topics=watch.topics, top_k=10_000)).hits
        records = [(await self.read(hit.address)).record for hit in found]
        at = int(cursor or 0)
        hits = [
            WatchHit(f"{watch.id}-{n + 1}", watch.name, r.address, r, "words", 1.0, None, NOW) for n, r in enumerate(records)
        ][at : at + limit]
        return Woken(watch.name, tuple(hits), str(at + len(hits)), not hits, 0, at + len(hits) < len(records))

    async def ask(
        self,
        question: str,
        *,
        conversation: str | None = None,
        topics: Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        top_k: int = 12,
        as_of: Any = None,
        model: str | None = None,
        rerank: bool | None = None,
        recency: Any = None,
    ) -> Answer:
        if conversation is not None and conversation not in self.talks:
            await self.create_conversation(conversation, model=model)
        reply = await self.search(" ".join(_words(question)), topics=topics, since=since, until=until, top_k=top_k)
        good = [hit for hit in reply.hits if hit.score >= 0.2]
        citations = tuple(
            Citation(i + 1, h.address, h.value, 0, len(h.value), True, True, h.timestamp) for i, h in enumerate(good)
        )
        text = " ".join(f"{c.quote} [{c.n}]" for c in citations)
        confidence = good[0].score if good else 0.0
        id = f"a{len(self.kept) + 1}"
        answer = Answer(id, question, text, citations, (), not good, confidence, reply.coverage, "extractive", {}, {})
        arguments = {"topics": topics, "since": since, "until": until, "top_k": top_k, "conversation": conversation}
        self.kept.append(StoredAnswer(answer, NOW, arguments, question, tuple(Read(c.address, 1.0) for c in citations)))
        if conversation is not None:
            said = self.talks[conversation][1]
            said.append(Said(len(said) + 1, "user", question, NOW))
            said.append(Said(len(said) + 1, "assistant", text, NOW, id, "extractive"))
        return answer

    async def investigate(self, question: str, *, topics: Sequence[str] | None = None, **scope: Any) -> Investigation:
        """One look: a question."""
        report = await self.ask(question, topics=topics, since=scope.get("since"))
        found = f"{len(report.citations)} citations"
        step = Step(1, "search", {"q": question}, "", found, len(report.citations), 0, 0.0)
        return Investigation("i1", question, report, (step,), "done", Usage())

    async def investigate_events(self, question: str, **scope: Any) -> AsyncIterator[InvestigateEvent]:
        found = await self.investigate(question, **scope)
        yield InvestigateEvent("step", found.steps[0])
        yield InvestigateEvent("done", found)

    async def ask_events(self, question: str, *, place: str | None = None, **scope: Any) -> AsyncIterator[AskEvent]:
        for event in events_of(await self.ask(question, **scope)):
            yield event

    async def answers(self, *, conversation: str | None = None, limit: int = 50) -> list[StoredAnswer]:
        kept = [a for a in reversed(self.kept) if conversation in (None, a.arguments["conversation"])]
        return kept[:limit]

    async def answer(self, id: str) -> StoredAnswer:
        for kept in self.kept:
            if kept.answer.id == id:
                return kept
        raise NotFoundError(f"no answer {id!r}")

    async def rerun(self, id: str, *, model: str | None = None) -> Rerun:
        before = await self.answer(id)
        arguments = {name: value for name, value in before.arguments.items() if name != "conversation"}
        after = await self.ask(before.standalone, **arguments)
        return compared(before, await self.answer(after.id))

    async def create_conversation(self, id: str | None = None, **settings: Any) -> Conversation:
        id = id or f"c{len(self.talks) + 1}"
        if id in self.talks:
            raise ConflictError(f"there is a conversation {id!r} already")
        model, size = settings.get("model"), settings.get("max_context_tokens") or 2000
        title, system = settings.get("title") or "", settings.get("system", "")
        made = Conversation(id, title, system, model, size, False, NOW, NOW, None, None, 0)
        self.talks[id] = (made, [])
        return made

    async def conversations(self) -> list[Conversation]:
        return [await self.conversation(id) for id in self.talks]

    async def conversation(self, id: str) -> Conversation:
        if id not in self.talks:
            raise NotFoundError(f"no conversation {id!r}")
        made, said = self.talks[id]
        return replace(made, messages=len(said))

    async def set_conversation(self, id: str, **changes: Any) -> Conversation:
        made, said = await self.conversation(id), self.talks[id][1]
        self.talks[id] = (replace(made, **changes), said)
        return await self.conversation(id)

    async def remove_conversation(self, id: str) -> None:
        await self.conversation(id)
        del self.talks[id]

    async def messages(self, id: str, *, limit: int = 100, before: int | None = None) -> list[Said]:
        await self.conversation(id)
        return [m for m in self.talks[id][1] if before is None or m.n < before][-limit:]

    async def summarize(
        self,
        *,
        topics: Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        q: str = "",
        thread: str | None = None,
        max_tokens: int = 400,
        model: str | None = None,
    ) -> Answer:
        reply = await self.search(q, topics=topics, since=since, until=until, top_k=3)
        cited = tuple(
            Citation(n, h.address, h.value, 0, len(h.value), True, True, h.timestamp) for n, h in enumerate(reply.hits, 1)
        )
        text = " ".join(f"{c.quote} [{c.n}]" for c in cited)
        return Answer("s1", "summary", text, cited, (), not cited, 1.0, reply.coverage, "extractive", {}, {})

    async def note_call(
        self, who: str, tool: str, *, arguments: str, size: int = 0, seconds: float = 0.0, failed: bool = False
    ) -> None:
        self.noted.append(ToolCall(len(self.noted) + 1, NOW, who, tool, arguments, size, seconds, failed))

    async def calls(self, *, limit: int = 100, before: int | None = None) -> list[ToolCall]:
        return [call for call in reversed(self.noted) if before is None or call.n < before][:limit]

    async def detecting(self, topic: str | None = None) -> list[Detecting]:
        return []

    async def anomalies(self, topics: Sequence[str] | None = None, *, limit: int = 50, **_: Any) -> AnomaliesReply:
        """Every error is odd."""
        names = list(topics if topics is not None else sorted(self.by_topic))
        odd = [r for name in names for r in self._records(name) if r.attributes.get("level") == "error"][:limit]
        found = tuple(
            Anomaly(f"{n}", r.topic, "new", "high", f"never seen before: {r.value}", r.timestamp, r.timestamp, NOW, 30.0, 5.0,
                    1.0, "a minute", None, r.value, None, None, (r.address,), (), (), True)
            for n, r in enumerate(odd)
        )  # fmt: skip
        return AnomaliesReply(found, self._coverage(names, len(odd), 0, None))

    async def status(self) -> Status:
        topics = tuple(await self.topics())
        return Status("0.1.0", True, "", None, 1, 60.0, "none", topics, self.sources, self.problems)

    async def aclose(self) -> None:
        return None

    def _records(self, topic: str) -> list[Record]:
        if topic not in self.by_topic:
            raise NotFoundError(f"no topic {topic!r}")
        return self.by_topic[topic]

    def _topic(self, name: str) -> Topic:
        records = self.by_topic[name]
        shapes = len({_shape(r.value) for r in records})
        times = sorted(r.timestamp for r in records)
        mark = Watermark(len(records), len(records), len(records))
        size = sum(len(r.value) for r in records)
        return Topic(name, 1, {"passages": "template"}, len(records), shapes, len(records) / max(1, shapes), size, 0.0,
                     times[0] if times else None, times[-1] if times else None, mark, 0)  # fmt: skip

    def _page_of(
        self, scored: list[tuple[float, Record]], scope: list[Record], names: list[str], top_k: int, cursor: str | None
    ) -> SearchReply:
        start = int(cursor or 0)
        page = scored[start : start + top_k]
        hits = []
        for score, record in page:
            same = [r for r in scope if r.topic == record.topic and _shape(r.value) == _shape(record.value)]
            hits.append(Hit(record.address, record.topic, 0, record.offset, record.timestamp, record.key, record.value,
                            record.attributes, score, {"keyword": score}, None, self._passage(record, same)))  # fmt: skip
        more = str(start + top_k) if start + top_k < len(scored) else None
        return SearchReply(tuple(hits), self._coverage(names, len(scope), len(scored) - start - len(page), more))

    def _passage(self, record: Record, same: list[Record]) -> Passage:
        shape = record.topic + _shape(record.value)
        times = [r.timestamp for r in same]
        number = self._passages.setdefault(shape, len(self._passages))
        return Passage(number, _shape(record.value), len(same), len(same), min(times), max(times))

    def _coverage(self, names: list[str], searched: int, omitted: int, cursor: str | None) -> Coverage:
        return Coverage(topics=tuple(names), searched=searched, omitted=omitted, next_cursor=cursor, notes=self.notes)


def _draft(entry: Any) -> Draft:
    if isinstance(entry, Draft):
        return entry
    if isinstance(entry, str):
        return Draft(entry)
    if not isinstance(entry.get("value"), str):
        raise UsageError("a record needs a value, a text")
    return Draft(entry["value"], entry.get("key"), None, entry.get("attributes") or {})


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]{2,}", text.lower()))


def _shape(text: str) -> str:
    return re.sub(r"\d+", "<*>", text)


def _within(record: Record, since: Any, until: Any) -> bool:
    now = to_ms(NOW)
    ms = to_ms(record.timestamp)
    return (since is None or ms >= parse_time(since, now_ms=now)) and (until is None or ms < parse_time(until, now_ms=now))


def _value(record: Record, field: str) -> Any:
    if field == "level":
        level = record.attributes.get("level")
        return canonical_level(str(level)) if level is not None else None
    return {"key": record.key, "topic": record.topic, "offset": record.offset}.get(field, record.attributes.get(field))
