"""Whether one record matches a query, for live tails: the same filters as search; free words must all occur."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.query import Filter, Query
from headwater.records import Record, to_ms

_WORD = re.compile(r"\w+")


def matches(query: Query, record: Record) -> bool:
    """True when the record is in the query's scope and has its words (any case, as whole words)."""
    if not in_scope(query, record):
        return False
    return not (query.text or query.phrases or query.excluded) or Words.of(query).occur_in(folded(record.value))


def in_scope(query: Query, record: Record) -> bool:
    """True when the query's filters and times hold, whatever its words."""
    time_ms = to_ms(record.timestamp)
    if (query.since_ms is not None and time_ms < query.since_ms) or (query.until_ms is not None and time_ms >= query.until_ms):
        return False
    return all(_passes(f, record) for f in query.filters)


def folded(value: str) -> str:
    """The words of a text, in small letters, each between two blanks."""
    return f" {' '.join(_WORD.findall(value.lower()))} "


@dataclass(frozen=True, slots=True)
class Words:
    """The words and phrases that a folded text must have, and those it must not have."""

    needed: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def of(cls, query: Query) -> Words:
        needed = (*_WORD.findall(query.text.lower()), *map(_phrase, query.phrases))
        return cls(needed, tuple(filter(None, map(_phrase, query.excluded))))

    def occur_in(self, text: str) -> bool:
        return all(f" {w} " in text for w in self.needed) and not any(f" {w} " in text for w in self.unwanted)


def _phrase(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _passes(f: Filter, record: Record) -> bool:
    known: Mapping[str, Any] = {
        "key": record.key,
        "partition": record.partition,
        "offset": record.offset,
        "topic": record.topic,
    }
    return f.accepts(known[f.field] if f.field in known else record.attributes.get(f.field))
