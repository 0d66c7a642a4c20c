"""Rows of the terminal UI's lists: read page by page, bounded, found by time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.records import Page, Record
from headwater.verbs import Verbs
from headwater_tui.rows import KEPT, PAGE, PAGES_KEPT, PENDING, PartitionRows, StreamRows

START = datetime(2026, 11, 21, tzinfo=UTC)


class Partition:
    """Records at these seconds, of which the first `gone` are past their retention."""

    def __init__(self, seconds: Sequence[int], gone: int = 0) -> None:
        self.seconds, self.gone, self.asked = seconds, gone, 0
        self.held_up: asyncio.Event | None = None

    async def records(self, topic: str, *, partition: int, offset: int, limit: int) -> Page:
        self.asked += 1
        if self.held_up is not None:
            await self.held_up.wait()
        begin = max(offset, self.gone)
        return Page(tuple(record(n, s) for n, s in enumerate(self.seconds[begin : begin + limit], begin)))


def record(n: int, seconds: int) -> Record:
    at = START + timedelta(seconds=seconds)
    return Record("t", 0, n, n, at, at, None, f"record {n}", {})


def found(there: Partition, seconds: int) -> int:
    rows = PartitionRows("t")
    rows.count = len(there.seconds)
    return asyncio.run(rows.at(cast(Verbs, there), START + timedelta(seconds=seconds)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=1500).map(sorted), st.integers(-10, 5010), st.integers(0, 500))
def test_the_first_record_at_or_after_a_time_is_found_whatever_the_times(seconds: list[int], wanted: int, gone: int) -> None:
    there = Partition(seconds, gone)
    kept = [n for n, s in enumerate(seconds) if s >= wanted and n >= gone]
    assert found(there, wanted) == (kept[0] if kept else len(seconds))


def test_a_time_among_even_records_is_found_in_a_few_readings_and_among_uneven_ones_in_some_more() -> None:
    even = Partition(range(1_000_000))
    assert found(even, 765_432) == 765_432
    assert even.asked <= 6
    uneven = Partition([0] * 900_000 + list(range(1, 100_001)))
    assert found(uneven, 54_321) == 954_320
    assert uneven.asked <= 26


def test_however_long_a_partition_is_what_is_held_of_it_is_bounded() -> None:
    there: Any = Partition(range(200_000))
    rows = PartitionRows("t")
    rows.count = 200_000

    async def main() -> None:
        for page in range(200_000 // PAGE):
            await rows.load(there, page)

    asyncio.run(main())
    held = [n for n in range(rows.count) if rows.row(n) is not PENDING]
    assert held == list(range(200_000 - PAGES_KEPT * PAGE, 200_000))


def test_a_stream_keeps_its_newest_and_counts_what_went() -> None:
    rows = StreamRows()
    gone = sum(rows.add([record(n, n) for n in range(begin, begin + 700)]) for begin in range(0, 70_000, 700))
    assert gone == rows.dropped == 70_000 - rows.count
    assert KEPT <= rows.count <= KEPT + 1000
    last = rows.row(rows.count - 1)
    assert isinstance(last, Record)
    assert last.offset == 69_999


class Growing(Partition):
    """A partition that is longer at each look."""

    async def topic(self, name: str) -> Any:
        self.seconds = [*self.seconds, *range(len(self.seconds), len(self.seconds) + 450)]
        return type("Told", (), {"heads": (len(self.seconds),)})


def test_who_follows_sees_no_row_that_is_still_to_be_read_and_no_page_is_read_twice_at_once() -> None:
    there: Any = Growing(())
    rows = PartitionRows("t")

    async def main() -> None:
        for looks in range(1, 8):
            assert await rows.grow(there, 80)
            assert rows.count == looks * 450
            assert PENDING not in [rows.row(n) for n in range(rows.count - 80, rows.count)]
        assert rows.lacking(0, 10) == [0]
        there.held_up = asyncio.Event()
        reading = asyncio.create_task(rows.load(there, 0))
        await asyncio.sleep(0)
        assert rows.lacking(0, 10) == []
        there.held_up.set()
        await reading
        assert rows.lacking(0, 10) == []

    asyncio.run(main())
