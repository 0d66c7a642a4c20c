"""Whether one record matches a query, for live tails: the same filters as search; free words must all occur."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headwater.query import Filter, Query
from headwater.records import Record, to_ms

_WORD = re.compile(r"\w+")


def matches(query: Query, record: Record) -> bool:
    """True when the record is in the query's scope and has its words (any case, as whole words)."""
    time_ms = to_ms(record.timestamp)
    if (query.since_ms is not None and time_ms < query.since_ms) or (query.until_ms is not None and time_ms >= query.until_ms):
        return False
    if not all(_passes(f, record) for f in query.filters):
        return False
    if not (query.text or query.phrases or query.excluded):
        return True
    text = " ".join(_WORD.findall(record.value.lower()))
    needed = [*_WORD.findall(query.text.lower()), *(" ".join(_WORD.findall(p.lower())) for p in query.phrases)]
    unwanted = [" ".join(_WORD.findall(p.lower())) for p in query.excluded]
    return all(_occurs(w, text) for w in needed) and not any(w and _occurs(w, text) for w in unwanted)


def _occurs(words: str, text: str) -> bool:
    return f" {words} " in f" {text} "


def _passes(f: Filter, record: Record) -> bool:
    known: Mapping[str, Any] = {
        "key": record.key,
        "partition": record.partition,
        "offset": record.offset,
        "topic": record.topic,
    }
    return f.accepts(known[f.field] if f.field in known else record.attributes.get(f.field))
