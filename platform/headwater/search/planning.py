"""From a request to a Plan: the query parsed, the topics chosen, the scope that every hit must lie in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.errors import NotFoundError, UsageError
from headwater.index.topic import TopicIndex
from headwater.keyword.index import Scope
from headwater.log.schema import SEQ_BITS
from headwater.query import as_filters, parse, parse_time, topics_of
from headwater.records import Mode
from headwater.search.searching import Plan, position_of
from headwater.search.shortening import LEAST, MOST
from headwater.stock import Stock
from headwater.verbs import When

MOST_HITS = 1000
PROSE_WORDS = 8  # free words beyond which a query is a question in prose, whose quotes are emphasis
_MODES = ("hybrid", "keyword", "semantic")


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def window(since: When | None, until: When | None) -> tuple[int | None, int | None]:
    """`(since_ms, until_ms)`; UsageError for what is not a time."""
    now = now_ms()
    return (None if since is None else parse_time(since, now_ms=now, begins=True)), (
        None if until is None else parse_time(until, now_ms=now)
    )


def seqs_of(stock: Stock, topics: Sequence[TopicIndex], as_of: When | Mapping[str, int]) -> dict[str, int]:
    """The sequence number of each topic before which its records are looked at; none for a topic that had no append since the
    time. UsageError."""
    if isinstance(as_of, Mapping):
        if unknown := sorted(set(as_of) - {t.row.name for t in topics}):
            raise UsageError(f"as_of names {unknown[0]!r}, which is not among the topics asked")
        if not all(isinstance(seq, int) and 0 <= seq < 1 << SEQ_BITS for seq in as_of.values()):
            raise UsageError("as_of maps topics to sequence numbers, as coverage.watermark has them in stored")
        return {t.row.name: as_of.get(t.row.name, t.stored) for t in topics}
    at_ms = window(as_of, None)[0] or 0
    found = {t.row.name: (stock.seq_at(t, at_ms), t.stored) for t in topics}
    return {name: seq for name, (seq, stored) in found.items() if seq < stored}


def plan(
    stock: Stock,
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
    max_tokens: int | None = None,
) -> Plan:
    """What a search for `q` will do. An argument wins over the same thing said in the query; filters of both hold.

    Raises UsageError, QueryError, NotFoundError."""
    if not 1 <= top_k <= MOST_HITS:
        raise UsageError(f"top_k must be between 1 and {MOST_HITS}")
    if unknown := sorted(set(include) - {"vector"}):
        raise UsageError(f"include takes 'vector', not {unknown[0]!r}")
    if max_tokens is not None and not LEAST <= max_tokens <= MOST:
        raise UsageError(f"max_tokens must be between {LEAST} and {MOST:,}")
    query = parse(q, now_ms=now_ms())
    of_topics = [f for f in query.filters if f.field == "topic"]
    chosen = tuple(t for t in stock.choose(topics_of(query, topics)) if all(f.accepts(t.row.name) for f in of_topics))
    if of_topics and not chosen:
        raise NotFoundError("the query leaves no topic to look in; `headwater topics` lists them")
    mode = mode or query.mode or "hybrid"
    if mode not in _MODES:
        raise UsageError(f"mode must be one of {', '.join(_MODES)}, not {mode!r}")
    since_ms, until_ms = window(since, until)
    rest = tuple(f for f in query.filters if f.field != "topic")
    prose = len(query.text.split()) > PROSE_WORDS
    seqs = {} if as_of is None else seqs_of(stock, chosen, as_of)
    notes: tuple[str, ...] = ()
    if prose and query.phrases:
        notes = (f"quotes in a question of more than {PROSE_WORDS} words are emphasis; in a shorter query a phrase must occur",)
    scope = Scope(
        tuple(t.row.id for t in chosen),
        filters=rest + as_filters(filters or {}),
        phrases=() if prose else query.phrases,
        excluded=query.excluded,
        since_ms=query.since_ms if since_ms is None else since_ms,
        until_ms=query.until_ms if until_ms is None else until_ms,
        before_seq={t.row.id: seqs[t.row.name] for t in chosen if t.row.name in seqs} or None,
    )
    skip, pool = position_of(cursor)
    return Plan(query, chosen, scope, mode, top_k, skip, min_score, "vector" in include, explain, notes, pool, max_tokens)
