"""Rows of a list of records: of a partition, read page by page as it is looked at, or of a stream, the newest kept.

Nothing here knows the terminal. However long a topic is, what is held is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from headwater.records import Hit, Record
from headwater.verbs import Verbs

PAGE = 200  # records read by one request
PAGES_KEPT = 50
KEPT = 10_000  # records of a stream
_SLACK = 1000  # beyond that before the oldest go: not one by one


@dataclass(frozen=True, slots=True)
class Gap:
    """A row without a record: not read yet, or deleted or past its retention."""

    gone: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A hit as a row."""

    hit: Hit


Row = Record | Found | Gap
PENDING, GONE = Gap(False), Gap(True)


class Rows(Protocol):
    """A list that may grow."""

    @property
    def count(self) -> int:
        """How many rows there are."""

    def row(self, index: int) -> Row:
        """One of them; `PENDING` where it must be read first."""


@dataclass(slots=True)
class _Held:
    """A page of a partition as it was when the partition ended at `head`."""

    records: dict[int, Record]
    head: int


class PartitionRows:
    """The records of a partition; the row number is the offset."""

    def __init__(self, topic: str, partition: int = 0) -> None:
        self.topic, self.partition, self.count = topic, partition, 0
        self._pages: OrderedDict[int, _Held] = OrderedDict()
        self._reading: set[int] = set()

    def row(self, index: int) -> Row:
        held = self._pages.get(index // PAGE)
        if held is None or index >= held.head:
            return PENDING
        return held.records.get(index, GONE)

    def lacking(self, first: int, last: int) -> list[int]:
        """The pages that rows `first` to `last` need, that are not held as they are now and that nobody reads."""
        wanted = range(max(first, 0) // PAGE, max(min(last, self.count - 1), 0) // PAGE + 1) if self.count else ()
        return [page for page in wanted if page not in self._reading and not self._complete(page)]

    def _complete(self, page: int) -> bool:
        held = self._pages.get(page)
        return held is not None and held.head >= min(self.count, (page + 1) * PAGE)

    async def load(self, verbs: Verbs, page: int) -> Sequence[Record]:
        """Read a page; the ones looked at longest ago go."""
        return await self._load(verbs, page, self.count)

    async def _load(self, verbs: Verbs, page: int, head: int) -> Sequence[Record]:
        self._reading.add(page)
        try:
            found = await verbs.records(self.topic, partition=self.partition, offset=page * PAGE, limit=PAGE)
        finally:
            self._reading.discard(page)
        records = {r.offset: r for r in found.records if r.offset < (page + 1) * PAGE}
        self._pages[page] = _Held(records, max(head, max(records, default=-1) + 1))
        self._pages.move_to_end(page)
        while len(self._pages) > PAGES_KEPT:
            self._pages.popitem(last=False)
        return found.records

    async def grow(self, verbs: Verbs, ahead: int = 0) -> bool:
        """Look how long the partition is now; whether it changed. The last `ahead` rows of it are read before they count:
        who follows a busy topic sees no row that is still to be read."""
        heads = (await verbs.topic(self.topic)).heads
        head = heads[self.partition] if self.partition < len(heads) else 0
        if head == self.count:
            return False
        for page in range(max(head - ahead, 0) // PAGE, (head - 1) // PAGE + 1) if ahead and head else ():
            await self._load(verbs, page, head)
        self.count = head
        return True

    async def at(self, verbs: Verbs, moment: datetime) -> int:
        """The row of the first record at or after a time, the end where there is none. Records that came late are not
        looked for: times are taken to rise with the offset. Pages are guessed by the times at both ends, and halved every
        other time, so that even records come at once and uneven ones in a dozen readings."""
        low, high = 0, self.count  # the row is in [low, high]
        began: Record | None = None
        ended: Record | None = None
        halve = False
        while low < high:
            guess = (low + high) // 2 if halve else _between(low, high, began, ended, moment)
            halve = not halve
            first, last = await self._ends(verbs, guess // PAGE)
            if first is None or last is None:  # nothing of it is kept: what is, comes later
                low = min((guess // PAGE + 1) * PAGE, high)
            elif last.timestamp < moment:
                low, began = last.offset + 1, last
            elif first.timestamp >= moment:
                high, ended = min(first.offset, high - 1), first
            else:
                held = self._pages[guess // PAGE].records
                return min(offset for offset, record in held.items() if record.timestamp >= moment)
        return min(low, self.count)

    async def _ends(self, verbs: Verbs, page: int) -> tuple[Record | None, Record | None]:
        """The first and the last record of a page, read where it is not held."""
        if not self._complete(page):
            await self.load(verbs, page)
        held = self._pages[page].records
        return (held[min(held)], held[max(held)]) if held else (None, None)


def _between(low: int, high: int, began: Record | None, ended: Record | None, moment: datetime) -> int:
    """The row at which a time would be if records came evenly; the last row where nothing is known of the end."""
    if began is None or ended is None or ended.timestamp <= began.timestamp:
        return low if began is None else high - 1
    share = (moment - began.timestamp) / (ended.timestamp - began.timestamp)
    return min(max(low + int((high - low) * share), low), high - 1)


@dataclass(slots=True)
class StreamRows:
    """The newest records of a stream, in the order they came, or `by_time` where several topics read as one. `dropped`
    counts those that had to go."""

    held: deque[Record] = field(default_factory=deque)
    dropped: int = 0
    by_time: bool = False

    @property
    def count(self) -> int:
        return len(self.held)

    def row(self, index: int) -> Row:
        return self.held[index]

    def add(self, records: Iterable[Record]) -> int:
        """Take records in; how many of the oldest went."""
        self.held.extend(records)
        if self.by_time:
            self.held = deque(sorted(self.held, key=lambda r: r.timestamp))  # nearly sorted as it is: one pass
        gone = 0
        if len(self.held) > KEPT + _SLACK:
            gone = len(self.held) - KEPT
            for _ in range(gone):
                self.held.popleft()
        self.dropped += gone
        return gone


@dataclass(frozen=True, slots=True)
class FixedRows:
    """A list that is whole."""

    rows: Sequence[Row] = ()

    @property
    def count(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        return self.rows[index]


def address_of(row: Row) -> str | None:
    """The address of the record a row shows."""
    if isinstance(row, Found):
        return row.hit.address
    return row.address if isinstance(row, Record) else None


def level_of(row: Row) -> str:
    """The severity of the record a row shows, `` where it has none."""
    about = row.hit.attributes if isinstance(row, Found) else row.attributes if isinstance(row, Record) else {}
    return str(about.get("level", ""))


def text_of(row: Row) -> str:
    """The value of the record a row shows."""
    return row.hit.value if isinstance(row, Found) else row.value if isinstance(row, Record) else ""
