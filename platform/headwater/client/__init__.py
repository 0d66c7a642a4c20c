"""The verbs over HTTP: what `headwater.connect()` and every surface beside the daemon speak through.

    async with Client("http://127.0.0.1:8787") as hw:
        reply = await hw.search("payment failures", since="2h")

Errors come back as the errors the engine raised. A request that may be sent twice is sent again when the connection
breaks; an append carries an idempotency key, so that sending it again never stores it twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx

from headwater import wire
from headwater.batches import Delivered, Fault
from headwater.client.ask import AskCalls
from headwater.client.audit import AuditCalls
from headwater.client.detect import DetectCalls
from headwater.client.enrich import EnrichCalls
from headwater.client.investigate import InvestigateCalls
from headwater.client.models import ModelCalls
from headwater.client.sending import PATIENT_S, PAUSES_S, Sending, given, listed
from headwater.client.watches import WatchCalls
from headwater.client.webhooks import WebhookCalls
from headwater.composed import LiveEvent
from headwater.errors import HeadwaterError, UnreachableError, UsageError
from headwater.records import (
    Appended,
    DeadLetter,
    Draft,
    Embedded,
    IndexInfo,
    Mode,
    Page,
    PatternsReply,
    Record,
    RecordView,
    SearchReply,
    SourceInfo,
    Status,
    Timeline,
    Topic,
    parse_address,
)
from headwater.records.drifts import Drift
from headwater.records.indexes import Shadow, SwapStep
from headwater.records.removals import Deleted, Purged
from headwater.verbs import Entry, When
from headwater.verbs.given import entries
from headwater.verbs.words import worded

T = TypeVar("T")
_PURGE_S = 3600.0  # for files to be written anew
_DELETED_AT_ONCE = 20_000  # records, by one request


class Client:
    """Implements headwater.verbs.Verbs over the API at `url`. Raises what the engine raises; UnreachableError when
    nobody answers. `timeout_s` is the longest silence within one request; `transport` is httpx's, for tests."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sending = Sending(url, token, timeout_s=timeout_s, transport=transport, pause=pause)
        self.url, self._pause, self._timeout_s = self._sending.url, pause, timeout_s
        self._send, self._events = self._sending.send, self._sending.events
        self._get, self._ask = self._sending.get, self._sending.ask
        asking, watching = AskCalls(self._sending), WatchCalls(self._sending)
        self.ask, self.ask_events, self.rerun, self.summarize = asking.ask, asking.events, asking.rerun, asking.summarize
        self.answers, self.answer, self.messages = asking.answers, asking.answer, asking.messages
        self.create_conversation, self.conversations = asking.create_conversation, asking.conversations
        self.conversation, self.set_conversation = asking.conversation, asking.set_conversation
        self.remove_conversation = asking.remove_conversation
        looking = InvestigateCalls(self._sending)
        self.investigate, self.investigate_events = looking.investigate, looking.events
        self.add_watch, self.watches, self.watch, self.remove_watch = watching.add, watching.all, watching.one, watching.remove
        self.wait, self.watch_events = watching.wait, watching.events
        odd = DetectCalls(self._sending)
        self.anomalies, self.anomaly, self.anomaly_events = odd.anomalies, odd.one, odd.events
        self.detecting, self.set_detecting, self.judge_anomaly = odd.detecting, odd.set, odd.judge
        hooks = WebhookCalls(self._sending)
        self.add_webhook, self.webhooks, self.webhook, self.remove_webhook = hooks.add, hooks.all, hooks.one, hooks.remove
        self.pause_webhook, self.resume_webhook, self.test_webhook = hooks.pause, hooks.resume, hooks.test
        enriching = EnrichCalls(self._sending)
        self.classify, self.extract = enriching.classify, enriching.extract
        self.create_pipeline, self.pipelines, self.pipeline = enriching.create, enriching.all, enriching.one
        self.start_pipeline, self.stop_pipeline, self.delete_pipeline = enriching.start, enriching.stop, enriching.delete
        self.backtest_pipeline, self.run_pipeline, self.trace_pipeline = enriching.backtest, enriching.run, enriching.trace
        chat = ModelCalls(self._sending)
        self.models, self.complete, self.complete_stream = chat.models, chat.complete, chat.complete_stream
        audit = AuditCalls(self._sending)
        self.note_call, self.calls = audit.note, audit.all
        worded(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._sending.aclose()

    # ------------------------------------------------------------------ records

    async def append(
        self,
        topic: str,
        records: Sequence[Entry],
        *,
        idempotency_key: str | None = None,
        wait: Literal["stored", "searchable"] = "stored",
        timeout_s: float = 10.0,
    ) -> Appended:
        """As Verbs.append. `position` and `raw` of a Draft stay behind: they belong to sources inside the daemon."""
        body = wire.sent({"records": [wire.entry(r) for r in entries(records)]})
        reply = await self._send(
            "POST",
            f"{_topic(topic)}/records",
            body=body,
            query={} if wait == "stored" else {"wait": wait, "timeout_s": timeout_s},
            headers={"idempotency-key": idempotency_key or uuid.uuid4().hex},
            again=True,
            timeout_s=self._timeout_s + timeout_s,
        )
        return wire.decode_appended(topic, reply)

    async def deliver(
        self,
        topic: str,
        source: str,
        records: Sequence[Draft] = (),
        *,
        stream: str = "",
        state: Mapping[str, Any] | None = None,
        faults: Sequence[Fault] = (),
    ) -> Delivered:
        drafts = [wire.draft(record) for record in records]
        found = [asdict(fault) for fault in faults]
        body: dict[str, Any] = {"source": source, "stream": stream, "state": state, "records": drafts, "faults": found}
        return wire.decode(Delivered, await self._send("POST", f"{_topic(topic)}/deliveries", body=wire.sent(body), again=True))

    async def records(
        self,
        topic: str,
        *,
        partition: int | None = None,
        offset: int | None = None,
        limit: int = 100,
        since: When | None = None,
        until: When | None = None,
        cursor: str | None = None,
        versions: bool = False,
    ) -> Page:
        query = {"partition": partition, "offset": offset, "limit": limit, "since": since, "until": until, "cursor": cursor}
        return await self._get(Page, f"{_topic(topic)}/records", **query, versions=versions or None)

    async def read(self, address: str, *, context: int = 0, alike: int = 0) -> RecordView:
        topic, partition, offset = parse_address(address)
        beside = {"context": min(max(context, 0), 100), "alike": min(max(alike, 0), 100)}
        return await self._get(RecordView, f"{_topic(topic)}/records/{partition}/{offset}", **beside)

    async def tail(
        self, topic: str, q: str = "", *, after: str | None = None, from_start: bool = False
    ) -> AsyncIterator[Record]:
        """As Verbs.tail, over broken connections and restarts of the daemon: it goes on behind the last record seen."""
        query = {"q": q, "from_start": "true" if from_start else None}
        place, tries, pauses = None if after is None else wire.place_of(after), 0, PAUSES_S
        if after is not None and parse_address(after)[0] != topic:
            raise UsageError(f"{after} is not in topic {topic!r}")
        while True:
            try:
                async for event in self._events("GET", f"{_topic(topic)}/tail", query=query, place=place):
                    place, tries, pauses = event.id or place, 0, PATIENT_S
                    if event.data:
                        yield wire.decode(Record, event.data)
            except UnreachableError:
                if tries >= len(pauses):
                    raise
            await self._pause(pauses[min(tries, len(pauses) - 1)])
            tries += 1

    # ------------------------------------------------------------------ topics and indexes

    async def topics(self) -> list[Topic]:
        return (await self._get(dict[str, list[Topic]], "/v1/topics"))["topics"]

    async def topic(self, name: str) -> Topic:
        return await self._get(Topic, _topic(name))

    async def create_topic(self, name: str, **config: Any) -> Topic:
        return wire.decode(Topic, await self._send("POST", "/v1/topics", body=wire.sent({"name": name, **config})))

    async def set_topic(self, name: str, **config: Any) -> Topic:
        return wire.decode(Topic, await self._send("PATCH", _topic(name), body=wire.sent(config), again=True))

    async def delete_topic(self, name: str) -> None:
        await self._send("DELETE", _topic(name))

    async def purge_topic(self, name: str, *, markers: Sequence[str] = ()) -> Purged:
        body = wire.sent({"markers": list(markers)})
        return wire.decode(Purged, await self._send("POST", f"{_topic(name)}/purge", body=body, timeout_s=_PURGE_S))

    async def delete_records(
        self, topic: str, *, partition: int = 0, offset: int | None = None, key: str | None = None, q: str | None = None,
        dry_run: bool = False, limit: int | None = None,
    ) -> Deleted:  # fmt: skip
        """As Verbs.delete_records; many are deleted by several requests, none of which takes long."""
        path, most = f"{_topic(topic)}/records", limit
        if offset is not None:
            if key is not None or q is not None:
                raise UsageError("say which records: an address, a key or a query, one of them")
            path, by_address = f"{path}/{partition}/{offset}", True
        else:
            by_address, most = False, _DELETED_AT_ONCE if limit is None and not dry_run else limit
        number = 0
        while True:
            query = {"key": key, "q": q, "dry_run": "true" if dry_run else None, "limit": most}
            done = wire.decode(Deleted, await self._send("DELETE", path, query=query, again=not by_address))
            number += done.matched
            if limit is not None or dry_run or not done.more:
                return replace(done, matched=number, deleted=0 if dry_run else number)

    async def indexes(self) -> list[IndexInfo]:
        return (await self._get(dict[str, list[IndexInfo]], "/v1/indexes"))["indexes"]

    async def index(self, topic: str) -> IndexInfo:
        return await self._get(IndexInfo, f"{_topic(topic)}/index")

    async def create_index(self, topic: str, model: str | None = None, **settings: Any) -> IndexInfo:
        body = wire.sent({"model": model, **settings})
        return wire.decode(IndexInfo, await self._send("POST", f"{_topic(topic)}/index", body=body))

    async def rebuild_index(
        self, topic: str, model: str | None = None, *, shadow: bool = False, threshold: float | None = None, **settings: Any
    ) -> IndexInfo:
        body = wire.sent({"model": model, "shadow": shadow, "threshold": threshold, **settings})
        return wire.decode(IndexInfo, await self._send("POST", f"{_topic(topic)}/index/rebuild", body=body))

    async def swap_index(self, topic: str, step: SwapStep) -> IndexInfo:
        return wire.decode(IndexInfo, await self._send("POST", f"{_topic(topic)}/index/swap", body=wire.sent({"step": step})))

    async def shadow(self, topic: str) -> Shadow:
        return await self._get(Shadow, f"{_topic(topic)}/index/shadow")

    async def delete_index(self, topic: str) -> IndexInfo:
        return wire.decode(IndexInfo, await self._send("DELETE", f"{_topic(topic)}/index", again=True))

    # ------------------------------------------------------------------ searching and asking

    async def search(
        self,
        q: str,
        *,
        topics: Sequence[str] | None = None,
        top_k: int = 10,
        mode: Mode | None = None,
        since: When | None = None,
        until: When | None = None,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        explain: bool = False,
        include: Sequence[str] = (),
        cursor: str | None = None,
        as_of: When | Mapping[str, int] | None = None,
        rerank: bool = False,
        max_tokens: int | None = None,
    ) -> SearchReply:
        body = {
            "q": q, "topics": listed(topics), "top_k": top_k, "mode": mode, "since": since, "until": until, "filters": filters,
            "min_score": min_score, "explain": explain, "include": list(include), "cursor": cursor, "as_of": as_of,
            "rerank": rerank, "max_tokens": max_tokens,
        }  # fmt: skip
        return await self._ask(SearchReply, "/v1/search", body)

    async def search_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply | HeadwaterError]:
        plain = [given(q) if isinstance(q, Mapping) else q for q in queries]
        return wire.decode_batch(await self._send("POST", "/v1/search/batch", body=wire.sent({"queries": plain}), again=True))

    async def search_vector(self, vector: Sequence[float], **scope: Any) -> SearchReply:
        """As Verbs.search_vector."""
        return await self._ask(SearchReply, "/v1/search/vector", {"vector": [float(v) for v in vector], **scope})

    async def live(self, q: str, *, after: str | None = None, **scope: Any) -> AsyncIterator[LiveEvent]:
        """As Verbs.live, over broken connections and restarts of the daemon: it goes on behind the last event seen."""
        if (filters := scope.pop("filters", None)) is not None:
            scope["filters"] = wire.sent(filters).decode()
        place, tries, begun, pauses = after, 0, False, PAUSES_S
        while True:
            try:
                async for event in self._events("GET", "/v1/search/live", query={"q": q, **scope}, place=place):
                    place, tries, pauses = event.id or place, 0, PATIENT_S
                    if event.data and not (begun and event.name == "ready"):
                        begun = True
                        yield wire.decode_live(event.name, event.id or "", event.data)
            except UnreachableError:
                if tries >= len(pauses):
                    raise
            await self._pause(pauses[min(tries, len(pauses) - 1)])
            tries += 1

    async def similar(
        self, topic: str, *, offset: int, partition: int = 0, top_k: int = 10, topics: Sequence[str] | None = None
    ) -> SearchReply:
        body = {"partition": partition, "offset": offset, "top_k": top_k, "topics": listed(topics)}
        return await self._ask(SearchReply, f"{_topic(topic)}/similar", body)

    async def patterns(
        self,
        topic: str,
        *,
        q: str = "",
        since: When | None = None,
        until: When | None = None,
        new_since: When | None = None,
        gone_since: When | None = None,
        changed_since: When | None = None,
        fields: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> PatternsReply:
        query = {"q": q, "since": since, "until": until, "new_since": new_since, "limit": limit, "cursor": cursor}
        query |= {"gone_since": gone_since, "changed_since": changed_since, "fields": fields or None}
        return await self._get(PatternsReply, f"{_topic(topic)}/patterns", **query)

    async def drift(
        self, topic: str, *, since: When, until: When | None = None, before: When | None = None, q: str = "", limit: int = 10
    ) -> Drift:
        query = {"since": since, "until": until, "before": before, "q": q, "limit": limit}
        return await self._get(Drift, f"{_topic(topic)}/drift", **query)

    async def timeline(
        self,
        q: str = "",
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        buckets: int = 60,
    ) -> Timeline:
        return await self._get(Timeline, "/v1/timeline", q=q, topics=listed(topics), since=since, until=until, buckets=buckets)

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Embedded:
        return await self._ask(Embedded, "/v1/embed", {"texts": list(texts), "model": model})

    # ------------------------------------------------------------------ dead letters and status

    async def dead_letters(self, topic: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        limit = min(max(limit, 1), 10_000)
        return (await self._get(dict[str, list[DeadLetter]], "/v1/dead-letters", topic=topic, limit=limit))["dead_letters"]

    async def replay_dead_letter(self, id: int) -> None:
        await self._send("POST", f"/v1/dead-letters/{id:d}/replay")

    async def drop_dead_letter(self, id: int) -> None:
        await self._send("DELETE", f"/v1/dead-letters/{id:d}")

    async def sources(self) -> list[SourceInfo]:
        return (await self._get(dict[str, list[SourceInfo]], "/v1/sources"))["sources"]

    async def add_source(self, **settings: Any) -> list[SourceInfo]:
        made = await self._send("POST", "/v1/sources", body=wire.sent(given(settings)))
        return wire.decode(dict[str, list[SourceInfo]], made)["sources"]

    async def pause_source(self, name: str) -> list[SourceInfo]:
        return (await self._ask(dict[str, list[SourceInfo]], f"/v1/sources/{quote(name)}/pause", {}))["sources"]

    async def resume_source(self, name: str) -> list[SourceInfo]:
        return (await self._ask(dict[str, list[SourceInfo]], f"/v1/sources/{quote(name)}/resume", {}))["sources"]

    async def remove_source(self, name: str) -> None:
        await self._send("DELETE", f"/v1/sources/{quote(name)}")

    async def status(self) -> Status:
        return await self._get(Status, "/v1/status")


def _topic(name: str) -> str:
    return f"/v1/topics/{quote(name, safe='')}"
