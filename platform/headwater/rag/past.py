"""The verbs of looking as of an earlier time: records stored since then are not there yet. Records deleted since are gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio.to_thread

from headwater.errors import NotFoundError
from headwater.keyword.index import KeywordIndex
from headwater.log.store import Log
from headwater.overview.patterns import patterns
from headwater.query import parse_time
from headwater.rag.place import Look
from headwater.records import PatternsReply, RecordView, SearchReply, parse_address
from headwater.search.finding import Finding
from headwater.search.planning import now_ms, plan
from headwater.search.searching import Plan, Searcher
from headwater.stock import Stock


class Past:
    """Implements headwater.rag.place.Look over the records of each topic before a sequence number (`seqs`, by name)."""

    def __init__(
        self, look: Look, log: Log, keyword: KeywordIndex, stock: Stock, searcher: Searcher, finding: Finding,
        seqs: Mapping[str, int],
    ) -> None:  # fmt: skip
        self._look, self._log, self._keyword, self._stock = look, log, keyword, stock
        self._searcher, self._finding, self._seqs = searcher, finding, seqs

    async def search(self, q: str, *, topics: Sequence[str] | None = None, top_k: int = 10, **scope: Any) -> SearchReply:
        """As Verbs.search."""
        before = {name: seq for name, seq in self._seqs.items() if topics is None or name in topics}
        reply = await self._finding.run(plan(self._stock, q, topics=topics, top_k=top_k, as_of=before, **scope))
        mark = {
            name: replace(w, stored=at, keyword=min(w.keyword, at), semantic=min(w.semantic, at))
            for name, w in reply.coverage.watermark.items()
            if (at := min(w.stored, self._seqs.get(name, w.stored))) is not None
        }
        return replace(reply, coverage=replace(reply.coverage, watermark=mark))

    async def patterns(
        self, topic: str, *, q: str = "", since: Any = None, until: Any = None, new_since: Any = None, limit: int = 50
    ) -> PatternsReply:
        """As Verbs.patterns."""
        wanted = self._bounded(plan(self._stock, q, topics=[topic], since=since, until=until, mode="keyword"))
        mark = None if new_since is None else parse_time(new_since, now_ms=now_ms(), begins=True)
        return await anyio.to_thread.run_sync(
            lambda: patterns(self._log, self._keyword, self._searcher, wanted, new_since_ms=mark, limit=limit)
        )

    async def read(self, address: str, *, context: int = 0) -> RecordView:
        """As Verbs.read; NotFoundError for a record that was not there yet."""
        view = await self._look.read(address, context=context)
        topic = parse_address(address)[0]
        end = self._seqs.get(topic, view.record.seq + 1)
        if view.record.seq >= end:
            raise NotFoundError(f"{address} was stored later")
        return replace(view, after=tuple(r for r in view.after if r.seq < end))

    def _bounded(self, wanted: Plan) -> Plan:
        before = {t.row.id: self._seqs[t.row.name] for t in wanted.topics if t.row.name in self._seqs}
        return replace(wanted, scope=replace(wanted.scope, before_seq=before or None))
