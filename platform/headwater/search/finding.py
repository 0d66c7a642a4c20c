"""Searches from question to reply: what must be embedded is embedded, once for many queries, then the plan is searched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio.to_thread
import numpy as np

from headwater import telemetry
from headwater.embed import Embedder
from headwater.embed.embedder import Kind
from headwater.errors import EmbedError, HeadwaterError, UsageError
from headwater.index.topic import TopicIndex
from headwater.log import browse
from headwater.log.shadows import Asked
from headwater.log.store import Log
from headwater.records import Record, RecordView, SearchReply, parse_address
from headwater.search.planning import MOST_HITS, now_ms, plan
from headwater.search.searching import Plan, Searcher, cursor_of, meaning_of
from headwater.search.shortening import within
from headwater.stock import Stock

MOST_QUERIES = 100
_PARAMETERS = ("topics", "top_k", "mode", "since", "until", "filters", "min_score", "explain", "include", "cursor", "as_of",
               "max_tokens")  # fmt: skip
_MOST_ALIKE = 100
_AT_ONCE = 8  # searches of a batch that run beside each other
_CONSTANT_FROM = 16  # components from which equal ones mean a failed model, as for stored vectors


class Finding:
    """Searches over all topics of an engine."""

    def __init__(self, log: Log, stock: Stock, searcher: Searcher, asked: Asked) -> None:
        self._log, self._stock, self._searcher, self._asked = log, stock, searcher, asked
        self._beside = anyio.CapacityLimiter(max(2, os.cpu_count() or 1))  # more would take turns, and hold the loop up

    @telemetry.traced("headwater.search")
    async def run(self, wanted: Plan) -> SearchReply:
        """Embed the plan's words where meaning counts, then search."""
        telemetry.note(mode=wanted.mode, topics=len(wanted.topics), top_k=wanted.top_k)
        vectors, failed = await self.meanings(wanted.words, wanted.topics) if _asks_meaning(wanted) else ({}, {})
        return await self._search(wanted, vectors, failed)

    async def _search(
        self, wanted: Plan, vectors: Mapping[str, np.ndarray], failed: Mapping[str, EmbedError | UsageError]
    ) -> SearchReply:
        if not wanted.topics:
            return SearchReply((), self._searcher.coverage(wanted, 0, 0))
        if failed and not vectors and wanted.mode == "semantic":
            raise next(iter(failed.values()))
        if _asks_meaning(wanted):
            self._asked.note([t.row.id for t in wanted.topics], hidden(wanted.words, wanted.topics), now_ms())
        notes = [*wanted.notes, *(f"meaning not searched with {name}: {error}" for name, error in failed.items())]
        wanted = replace(wanted, notes=tuple(notes))
        return await anyio.to_thread.run_sync(self._found, wanted, vectors, limiter=self._beside)

    def _found(self, wanted: Plan, vectors: Mapping[str, np.ndarray]) -> SearchReply:
        reply = self._searcher.search(wanted, vectors)
        if wanted.max_tokens is None:
            return reply
        return within(reply, wanted.max_tokens, lambda passed: cursor_of(wanted.skip + passed, wanted.pool))

    async def meanings(
        self, words: str, topics: Collection[TopicIndex]
    ) -> tuple[dict[str, np.ndarray], dict[str, EmbedError | UsageError]]:
        """`(d,)` by the name of each model that has something of these topics, and why there is none of others."""
        vectors: dict[str, np.ndarray] = {}
        failed: dict[str, EmbedError | UsageError] = {}
        for embedder in _models(topics):
            try:
                vectors[embedder.name] = (await embed(topics, embedder, [words]))[0]
            except (EmbedError, UsageError) as error:
                failed[embedder.name] = error
        return vectors, failed

    # ------------------------------------------------------------------ many at once

    async def batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply | HeadwaterError]:
        """A reply for each query, or the error that it alone would have raised, in their order. The texts of all are embedded
        together."""
        if len(queries) > MOST_QUERIES:
            raise UsageError(f"at most {MOST_QUERIES} queries in one batch")
        plans = [self._planned(query) for query in queries]
        asking = [p for p in plans if isinstance(p, Plan) and _asks_meaning(p)]
        topics = tuple({t.row.id: t for p in asking for t in p.topics}.values())
        known: dict[tuple[str, str], np.ndarray] = {}
        for embedder in _models(topics):
            words = list(dict.fromkeys(p.words for p in asking if embedder in _models(p.topics)))
            try:
                known |= {(embedder.name, w): v for w, v in zip(words, await embed(topics, embedder, words), strict=True)}
            except (EmbedError, UsageError):
                continue  # each query is then asked for itself, and says what is wrong with it
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(wanted: Plan | HeadwaterError) -> SearchReply | HeadwaterError:
            if isinstance(wanted, HeadwaterError):
                return wanted
            async with gate:
                try:
                    names = {e.name for e in _models(wanted.topics)} if _asks_meaning(wanted) else set()
                    if all((name, wanted.words) in known for name in names):
                        return await self._search(wanted, {name: known[name, wanted.words] for name in names}, {})
                    return await self.run(wanted)
                except HeadwaterError as error:
                    return error

        return list(await asyncio.gather(*map(one, plans)))

    def _planned(self, query: Mapping[str, Any]) -> Plan | HeadwaterError:
        try:
            if not isinstance(query, Mapping) or not isinstance(query.get("q"), str):
                raise UsageError("each query of a batch is an object with 'q'")
            if query.get("rerank"):
                raise UsageError("the searches of a batch are not reranked; search for each by itself")
            query = {name: value for name, value in query.items() if name != "rerank"}
            if unknown := sorted(query.keys() - {"q", *_PARAMETERS}):
                raise UsageError(f"unknown parameter {unknown[0]!r}; a query has q, {', '.join(_PARAMETERS)}")
            return plan(self._stock, **query)
        except HeadwaterError as error:
            return error

    # ------------------------------------------------------------------ by vectors

    async def by_vector(self, vector: Sequence[float], *, model: str | None = None, **scope: Any) -> SearchReply:
        """The passages nearest to `(d,)` in the topics of the scope whose vectors have that length, of `model` alone where it
        is given. UsageError for a vector that cannot be compared, or where a topic that is named has others."""
        query = checked(vector)
        wanted = plan(self._stock, "", mode="semantic", **scope)
        named, fitting, unfit, notes = scope.get("topics") is not None, list[TopicIndex](), list[str](), list[str]()
        for topic in wanted.topics:
            lengths = {e.name: index.space.dimension for e, index in topic.shelves()}
            if any(d == len(query) and model in (None, name) for name, d in lengths.items()):
                fitting.append(topic)
                continue
            has = ", ".join(f"{d} components of {name}" for name, d in lengths.items()) or "no vectors"
            unfit.append(f"{topic.row.name!r} has {has}, not {len(query)}{f' of {model}' if model else ''}")
        if named and unfit:
            raise UsageError(f"the vector does not fit: {'; '.join(unfit)}")
        notes.extend(f"left out: {topic}" for topic in unfit)
        models = {e.name: index for t in fitting for e, index in t.shelves() if index.space.dimension == len(query)}
        models = {name: index for name, index in models.items() if model in (None, name)}
        if len(models) > 1:
            notes.append(f"the vector was compared with those of {', '.join(sorted(models))}; `model` chooses one")
        vectors = {name: index.space.queries(query[None, :])[0] for name, index in models.items()}
        scoped = replace(wanted.scope, topics=tuple(t.row.id for t in fitting))
        wanted = replace(wanted, topics=tuple(fitting), scope=scoped, notes=(*wanted.notes, *notes), by_vector=True)
        return await self._search(wanted, vectors, {})

    async def read(self, address: str, context: int, alike: int) -> RecordView:
        """A record with those around it, and the newest others in which a passage of it occurs."""
        view = await anyio.to_thread.run_sync(browse.view, self._log, address, context)
        if alike <= 0:
            return view
        return replace(view, alike=await anyio.to_thread.run_sync(self._alike, address, min(alike, _MOST_ALIKE)))

    def _alike(self, address: str, limit: int) -> tuple[Record, ...]:
        topic, partition, offset = parse_address(address)
        home = self._stock.find(topic)
        row = self._log.find(self._log.topic(topic), partition, offset)
        own = {home.resolve(p.passage) for p in home.catalogue.places([row.id]).get(row.id, ())}
        members = {m for p in own for m in home.family(p)}
        found = home.catalogue.latest(members, limit + 1 + len(own)) if members else []
        ids = [id for id in dict.fromkeys(place.record for place in found) if id != row.id][:limit]
        rows = self._log.rows_of(ids)
        return tuple(rows[id].record(topic) for id in ids if id in rows)

    async def similar(self, topic: str, partition: int, offset: int, top_k: int, topics: Sequence[str] | None) -> SearchReply:
        """Passages nearest in meaning to those of one record, itself left out."""
        if not 1 <= top_k <= MOST_HITS:
            raise UsageError(f"top_k must be between 1 and {MOST_HITS}")
        home = self._stock.find(topic)
        if home.embedder is None:
            raise UsageError(f"{topic!r} is keyword-only; `headwater index create {topic}` adds meaning search")
        name, chosen = home.embedder.name, self._stock.choose(topics or [topic])
        vector, own = await anyio.to_thread.run_sync(meaning_of, self._log, home, partition, offset)
        others = tuple(t for t in chosen if t.embedder and t.embedder.name == name)
        names = [t.row.name for t in others]
        wanted = plan(self._stock, "", topics=names, top_k=min(top_k + len(own), MOST_HITS), mode="semantic")
        wanted = replace(wanted, topics=others)  # as they were when the vector was read: their model may change
        reply = await anyio.to_thread.run_sync(self._searcher.search, wanted, {name: vector}, limiter=self._beside)
        hits = [h for h in reply if h.passage.id not in own and (h.topic, h.partition, h.offset) != (topic, partition, offset)]
        return replace(reply, hits=tuple(hits[:top_k]))


def checked(vector: Sequence[float]) -> np.ndarray:
    """`(d,)` float32 of what a caller gave; UsageError for anything that cannot be compared."""
    try:
        with np.errstate(over="ignore"):  # it is infinite then, and refused below
            query = np.asarray(vector, np.float64).astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError("a vector is a list of numbers") from error
    if query.ndim != 1 or not len(query):
        raise UsageError("a vector is a list of numbers, at least one")
    if not np.isfinite(query).all():
        raise UsageError("the vector has a component that is not a finite number")
    if not query.any():
        raise UsageError("the vector is all zeros, which points nowhere")
    if len(query) >= _CONSTANT_FROM and (query == query[0]).all():
        raise UsageError("all components of the vector are equal; a model that answers so has failed")
    return query


def _asks_meaning(wanted: Plan) -> bool:
    return wanted.mode != "keyword" and bool(wanted.words)


def _models(topics: Collection[TopicIndex]) -> list[Embedder]:
    """The models that have something of these topics, each once."""
    return list({e.name: e for t in topics for e, _ in t.shelves()}.values())


def hidden(text: str, topics: Collection[TopicIndex]) -> str:
    """A text without what any of these topics takes out of its records: so it is compared with them, and shown to no model."""
    for topic in topics:
        text = text if topic.redacting is None else topic.redacting.text(text)
    return text


@telemetry.traced("headwater.embed")
async def embed(topics: Collection[TopicIndex], embedder: Embedder, texts: Sequence[str], kind: Kind = "query") -> np.ndarray:
    """`(n, d)`; a model known to be down fails at once instead of holding the search up."""
    telemetry.note(model=embedder.name, texts=len(texts))
    texts = [hidden(text, topics) for text in texts]
    for topic in topics:
        if topic.standby is not None and embedder.name in topic.standby.fallback.names:
            return await topic.standby.fallback.embed_as(embedder.name, texts, kind)
    return await embedder.embed(texts, kind)
