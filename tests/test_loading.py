"""Tables on their way into a topic: rows of every library become records, in the background, once."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

import headwater
from headwater.loading import Loading, load
from headwater.records import Appended
from serving import eventually

ROWS = [
    {"message": "payment 1 accepted", "user": "u1", "at": "2026-03-01T14:05:00Z", "ms": 12, "ok": True, "note": None},
    {"message": "payment 2 declined", "user": "u2", "at": "2026-03-01T14:06:00Z", "ms": 7.5, "ok": False, "note": float("nan")},
    {"message": "payment 3 <b>accepted</b>", "user": "u3", "at": "2026-03-01T14:07:00Z", "ms": 9, "ok": True, "note": "late"},
]


@pytest.fixture
def hw() -> Iterator[headwater.Headwater]:
    with headwater.open(headwater.MEMORY, embedding={"model": "none"}) as hw:
        yield hw


def _table(library: str) -> Any:
    if library == "mappings":
        return ROWS
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    clean = [{name: None if cell != cell else cell for name, cell in row.items()} for row in ROWS]
    if library == "pandas":
        return importlib.import_module("pandas").DataFrame(ROWS)
    if library == "polars":
        return importlib.import_module("polars").DataFrame(clean, strict=False)
    return importlib.import_module("pyarrow").Table.from_pylist([{**row, "ms": float(str(row["ms"]))} for row in clean])


@pytest.mark.parametrize("library", ["mappings", "pandas", "polars", "pyarrow"])
def test_rows_become_records_with_key_time_and_attributes(hw: headwater.Headwater, library: str) -> None:
    loading = hw.load("t", _table(library), key="user", timestamp="at", batch=2).wait(240)
    assert (loading.stored, loading.total, loading.done, loading.error) == (3, 3, True, None)
    first, second, third = hw.records("t").records
    assert (first.value, first.key, first.timestamp) == ("payment 1 accepted", "u1", datetime(2026, 3, 1, 14, 5, tzinfo=UTC))
    assert second.attributes["ms"] == 7.5
    assert "note" not in second.attributes
    assert third.attributes["note"] == "late"


def test_the_same_load_again_stores_nothing_twice(hw: headwater.Headwater) -> None:
    for _ in range(2):
        hw.load("t", ROWS, name="tickets of March", batch=2).wait(240)
    assert len(hw.records("t").records) == 3


def test_a_row_without_a_column_of_text_is_kept_as_json(hw: headwater.Headwater) -> None:
    hw.load("t", [{"order": 7, "state": "paid"}]).wait(240)
    assert json.loads(hw.records("t").records[0].value) == {"order": 7, "state": "paid"}


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("text", {}, "a str is no table"),
        ([1, 2], {}, "a list is no table"),
        (ROWS, {"value": "massage"}, "no column 'massage'; there are message"),
        (ROWS, {"batch": 0}, "batch must be at least 1"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(hw: headwater.Headwater, table: Any, options: Any, said: str) -> None:
    with pytest.raises(headwater.UsageError, match=said):
        hw.load("t", table, **options)


class Beyond:
    """A cell that cannot be read, as a time outside of what its library knows."""

    def to_pydatetime(self) -> datetime:
        raise OverflowError("date value out of range")


def test_a_cell_that_cannot_be_read_ends_the_load_with_its_reason(hw: headwater.Headwater) -> None:
    rows = [{"message": "fine", "at": None}, {"message": "odd", "at": Beyond()}]
    loading = hw.load("t", rows, batch=1)
    with pytest.raises(OverflowError, match="out of range"):
        loading.wait(240)
    assert (loading.stored, loading.done) == (1, True)
    assert "failed: date value out of range" in repr(loading)


def test_a_cell_may_hold_an_array(hw: headwater.Headwater) -> None:
    hw.load("t", [{"message": "sizes", "sizes": np.array([1, 2])}]).wait(240)
    assert hw.records("t").records[0].attributes["sizes"] == "[1, 2]"


class Slow:
    """An append that waits to be let go on, and fails when told."""

    def __init__(self) -> None:
        self.go, self.calls, self.fail, self.patience_s = threading.Semaphore(0), 0, False, 240.0

    def __call__(self, topic: str, records: list[Any], **_: Any) -> Appended:
        assert self.go.acquire(timeout=self.patience_s)
        self.calls += 1
        if self.fail:
            raise headwater.StorageError("the disk is full")
        return Appended(())


def test_it_goes_on_in_the_background_and_shows_how_far_it_is() -> None:
    slow = Slow()
    loading = load(slow, "<b>t</b>", ROWS, batch=1)
    slow.go.release()
    eventually(lambda: loading.stored == 1)
    assert not loading.done
    assert "1 of 3 rows into <b>t</b>" in repr(loading)
    shown = loading._repr_html_()
    assert "value='1' max='3'" in shown
    assert "<b>" not in shown
    with pytest.raises(headwater.WaitTimeout, match="1 of 3 rows"):
        loading.wait(0)
    slow.go.release(2)
    assert loading.wait(240).done


def test_what_fails_is_raised_where_it_is_waited_for_and_stopping_stores_no_more() -> None:
    slow = Slow()
    slow.fail = True
    failing = load(slow, "t", ROWS)
    slow.go.release()
    with pytest.raises(headwater.StorageError):
        failing.wait(240)
    assert "failed" in repr(failing)

    slow = Slow()
    slow.patience_s = 5.0  # the second row may be on its way when the load is stopped, and nothing lets it go
    stopped = load(slow, "t", ROWS, batch=1)
    threading.Thread(target=slow.go.release).start()
    stopped.stop()
    assert stopped.done
    assert stopped.stored <= 1


def test_a_load_as_a_context_waits_at_its_end(hw: headwater.Headwater) -> None:
    with hw.load("t", ROWS) as loading:
        assert isinstance(loading, Loading)
    assert loading.stored == 3
