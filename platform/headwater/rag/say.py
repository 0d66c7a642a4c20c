"""How an answer is written: record text only as code spans, with the marks of its citations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from headwater.rag.citations import Checked, Claim, Quotable, check
from headwater.records import Hit, from_ms, to_ms
from headwater.visible import visible


class Seen(Protocol):
    """How often something was seen, and from when to when."""

    @property
    def count(self) -> int: ...
    @property
    def first_seen(self) -> datetime: ...
    @property
    def last_seen(self) -> datetime: ...


@dataclass(slots=True)
class Page:
    """An answer as it is written: lines, what their marks claim, and the records claimed of."""

    lines: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    records: dict[str, Quotable] = field(default_factory=dict)

    def cite(self, record: Quotable, start: int, end: int) -> str:
        """The mark `[n]` of a quote."""
        claim = Claim(len(self.claims) + 1, record.address, record.value[start:end], start)
        self.claims.append(claim)
        self.records.setdefault(record.address, record)
        return f"[{claim.n}]"

    def checked(self) -> Checked:
        """The text with every citation checked against its record; each sentence of it IS its quotes."""
        records: Sequence[Quotable] = list(self.records.values())
        return check("\n".join(self.lines), self.claims, records, supports=lambda _sentence, _quote: True)


def quote(value: str, start: int, end: int) -> str:
    """Record text as a code span, control and hidden characters visible."""
    return code_span(visible(value[start:end], newlines="mark"))


def code_span(text: str) -> str:
    """`text` between back-ticks that nothing in it can close (CommonMark)."""
    longest = run = 0
    for char in text:
        run = run + 1 if char == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def stretch(first: datetime, last: datetime) -> str:
    """From when to when, to the second."""
    begin, end = f"{first:%Y-%m-%d %H:%M:%S}", f"{last:%Y-%m-%d %H:%M:%S}"
    if begin == end:
        return f"{begin} UTC"
    return f"{begin} to {end if begin[:10] != end[:10] else end[11:]} UTC"


def how_often(seen: Seen, at: datetime, since_ms: int | None = None, until_ms: int | None = None) -> str:
    """`1,204 times, from ... to ...`; for what was seen once its time `at`. The count is that within the bounds; where some
    were seen outside of them, the times of all would mislead and `at` is said alone."""
    if seen.count <= 1:
        return stretch(at, at)
    inside = (since_ms is None or to_ms(seen.first_seen) >= since_ms) and (until_ms is None or to_ms(seen.last_seen) < until_ms)
    when = stretch(seen.first_seen, seen.last_seen) if inside else f"this one {stretch(at, at)}"
    return f"{seen.count:,} times, {when}"


_NAME = re.compile(r"[\w.:-]{1,40}")


def whose(hit: Hit) -> str:
    """A record's topic, and its key where that is a name."""
    return f"{hit.topic} {hit.key}" if hit.key and _NAME.fullmatch(hit.key) else hit.topic


def bounds(since_ms: int | None, until_ms: int | None) -> str:
    """A range in words: whole days without their midnights."""
    low, high = (None if ms is None else _instant(ms) for ms in (since_ms, until_ms))
    if low and high:
        return f"{low} to {high} UTC"
    return f"since {low} UTC" if low else f"until {high} UTC" if high else "any time"


def _instant(ms: int) -> str:
    when = from_ms(ms)
    return f"{when:%Y-%m-%d}" if ms % 86_400_000 == 0 else f"{when:%Y-%m-%d %H:%M:%S}"
