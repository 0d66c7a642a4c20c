"""Hits as a model is shown them: numbered, with what is known of each, within a budget of tokens.

A pattern is one entry with its count and its times, however many lines it stands for; of a document the passage that was
found is shown, not the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from headwater.rag.say import how_often, stretch
from headwater.records import Hit, PassageForm
from headwater.visible import visible

BYTES_A_TOKEN = 3.2  # of UTF-8; English prose has 4 to 5, log lines 2.5 to 3.5
LARGEST = 0.4  # of the budget that one entry may take
_LEAST = 40  # tokens left that are worth another entry


class Shown(Protocol):
    """A record that may be shown: a hit, a record, a piece of evidence."""

    @property
    def address(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def key(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as shown, under number `n`: `value[start:end]`, and the `facts` that are said of it."""

    n: int
    hit: Shown
    kind: PassageForm
    facts: str
    start: int
    end: int

    @property
    def address(self) -> str:
        return self.hit.address

    @property
    def shown(self) -> str:
        """What the model reads of it."""
        return f"[{self.n}] {self.facts}\n{visible(self.hit.value[self.start : self.end])}"


def tokens(text: str) -> int:
    """About how many tokens a model takes a text for, rather too many than too few."""
    return -(-len(text.encode("utf-8", "replace")) * 10 // round(BYTES_A_TOKEN * 10))


def pack(
    hits: Sequence[Hit],
    kind_of: Callable[[str], PassageForm],
    budget_tokens: int,
    *,
    first: Sequence[Entry] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> tuple[Entry, ...]:
    """The best hits (best first) that fit behind the `first` entries, each record once; the last may be cut. Counts are those
    within the bounds."""
    entries = list(first)
    seen = {(entry.address, entry.start, entry.end) for entry in first}
    left = budget_tokens - sum(tokens(entry.shown) + 1 for entry in first)
    for hit in hits:
        kind = kind_of(hit.topic)
        start, end = _stretch(hit, kind)
        if any(address == hit.address and start < to and low < end for address, low, to in seen):
            continue
        facts = _facts(hit, kind, since_ms, until_ms)
        room = min(left, round(budget_tokens * LARGEST)) - tokens(facts) - 4
        if room < _LEAST // 2:
            break
        end = cut(hit.value, start, end, room)
        entry = Entry(len(entries) + 1, hit, kind, facts, start, end)
        left -= tokens(entry.shown) + 1
        entries.append(entry)
        seen.add((hit.address, start, end))
        if left < _LEAST:
            break
    return tuple(entries)


def told(records: Iterable[tuple[Shown, PassageForm]], budget_tokens: int) -> tuple[Entry, ...]:
    """Records that something was told of already, as entries."""
    entries: list[Entry] = []
    left = budget_tokens
    for record, kind in records:
        facts = f"{record.address} | {stretch(record.timestamp, record.timestamp)}"
        end = cut(record.value, 0, len(record.value), min(left, round(budget_tokens * LARGEST)) - tokens(facts) - 4)
        entries.append(Entry(len(entries) + 1, record, kind, facts, 0, end))
        left -= tokens(entries[-1].shown) + 1
        if left < _LEAST:
            break
    return tuple(entries)


def _stretch(hit: Hit, kind: PassageForm) -> tuple[int, int]:
    """The part of a record that is shown: the passage found of a document, with the sentence it begins in; else all of it."""
    if kind != "chunks" or hit.span is None:
        return 0, len(hit.value)
    return hit.span.start, hit.span.end


def _facts(hit: Hit, kind: PassageForm, since_ms: int | None, until_ms: int | None) -> str:
    """What is known of a record besides its text: its address, its key, when and how often it was seen."""
    said = [hit.address]
    if hit.key:
        said.append(visible(" ".join(hit.key.split())[:60]))
    level = hit.attributes.get("level")
    if isinstance(level, str):
        said.append(visible(level[:12]))
    if kind == "chunks":
        return " | ".join([*said, stretch(hit.timestamp, hit.timestamp)])
    return " | ".join([*said, how_often(hit.passage, hit.timestamp, since_ms, until_ms)])


def cut(value: str, start: int, end: int, room: int) -> int:
    """Where a text ends so that it fits, behind a sentence or a word."""
    if tokens(value[start:end]) <= room:
        return end
    most = start + max(1, int(room * BYTES_A_TOKEN))
    while most > start + 1 and tokens(value[start:most]) > room:
        most = start + (most - start) * 9 // 10
    at = max(value.rfind(". ", start, most), value.rfind("\n", start, most))
    if at > start + (most - start) // 2:
        return at + 1
    blank = value.rfind(" ", start, most)
    return blank if blank > start + (most - start) // 2 else most
