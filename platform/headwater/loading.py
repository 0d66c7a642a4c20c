"""A table on its way into a topic, in the background: `hw.load("logs", frame)` in a notebook or a script.

The table is a DataFrame (pandas, polars), an Arrow table, or mappings; none of these libraries is needed. Rows go in batches,
each with an idempotency key where the load has a name, so that running the same cell again stores nothing twice.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Self

from headwater.errors import UsageError, WaitTimeout
from headwater.records import Appended, from_ms
from headwater.records.moments import parse_time
from headwater.records.naming import roles
from headwater.records.tabular import Shown

_LOOK_S = 0.2
Append = Callable[..., Appended]


class Loading(Shown):
    """Rows being stored by a thread of their own. `stored` of `total` are; `wait()` blocks until all are, showing a bar. In a
    notebook the value itself is a bar, which moves while the next cells run. A context manager: its end waits."""

    def __init__(
        self, append: Append, topic: str, batches: Iterable[list[dict[str, Any]]], total: int, name: str | None
    ) -> None:
        self.topic: str = topic
        self.total: int = total
        self.stored: int = 0
        self.seconds: float = 0.0
        self.error: Exception | None = None
        self._append, self._batches, self._name = append, batches, name
        self._ended = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"loading {topic}", daemon=True)
        self._begun = time.monotonic()
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether nothing more will be stored: all rows are, or it was stopped, or failed."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None, *, progress: bool = True) -> Self:
        """Block until all rows are stored durably, showing a bar where somebody can see one. Raises what failed;
        WaitTimeout when `timeout_s` are up (it goes on)."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with _bar(self, progress) as show:
            while not self._ended.wait(_LOOK_S):
                show()
                if end is not None and time.monotonic() > end:
                    raise WaitTimeout(f"{self.stored:,} of {self.total:,} rows are stored; wait() again for the rest")
            show()
        if self.error is not None:
            raise self.error
        return self

    def stop(self) -> None:
        """Store no more than what is under way; returns when that is done."""
        self._stop = True
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.wait()
        else:
            self.stop()

    def __repr__(self) -> str:
        rate = self.stored / self.seconds if self.seconds else 0.0
        state = f"failed: {self.error}" if self.error else "done" if self.done else "loading"
        return f"{self.stored:,} of {self.total:,} rows into {self.topic}, {rate:,.0f}/s, {state}"

    def _repr_html_(self) -> str:
        return f"<progress value='{self.stored}' max='{max(self.total, 1)}'></progress> {html.escape(repr(self))}"

    def _ipython_display_(self) -> None:
        """A bar that moves by itself until all is stored."""
        from IPython.display import display

        shown = display(_Html(self._repr_html_(), repr(self)), display_id=True)

        def move() -> None:
            while not self._ended.wait(_LOOK_S):
                shown.update(_Html(self._repr_html_(), repr(self)))
            shown.update(_Html(self._repr_html_(), repr(self)))

        threading.Thread(target=move, name="bar", daemon=True).start()

    def _run(self) -> None:
        try:
            for number, batch in enumerate(self._batches):
                if self._stop:
                    break
                key = None if self._name is None else f"{self._name}-{number}"
                self._append(self.topic, batch, idempotency_key=key)
                self.stored += len(batch)
                self.seconds = time.monotonic() - self._begun
        except Exception as error:  # the top of a thread: whoever waits is told, and not that all is stored
            self.error = error
        finally:
            self._ended.set()


class _Html:
    """What a notebook shows as it stands."""

    def __init__(self, html: str, text: str) -> None:
        self._html, self._text = html, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


@contextlib.contextmanager
def _bar(loading: Loading, progress: bool) -> Iterator[Callable[[], None]]:
    """A bar in the terminal; none where nobody sees one (a pipe), and in notebooks, where the value itself is one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    hidden = not progress or not console.is_terminal or console.is_jupyter
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=hidden) as bar:
        task = bar.add_task(loading.topic, total=loading.total)
        yield lambda: bar.update(task, completed=loading.stored)


# ---------------------------------------------------------------------- rows


def load(
    append: Append,
    topic: str,
    table: Any,
    *,
    value: str | None = None,
    key: str | None = None,
    timestamp: str | None = None,
    name: str | None = None,
    batch: int = 1000,
) -> Loading:
    """Begin to store the rows of a table. `value`, `key` and `timestamp` name the columns of the text, the key and the time;
    those not given are known by their names, as in a file (headwater.records.naming). Without a text a row is stored as JSON.
    The other columns become attributes, empty cells none. UsageError for what is no table, and for a column that is not
    there."""
    if batch < 1:
        raise UsageError("batch must be at least 1")
    pieces, total, columns = _pieces(table, batch)
    for column in (value, key, timestamp):
        if column is not None and columns and column not in columns:
            raise UsageError(f"there is no column {column!r}; there are {', '.join(map(str, columns))}")
    known = roles([name for name in columns if isinstance(name, str) and name not in (value, key, timestamp)])
    chosen = _Columns(
        known.values if value is None else [value],
        known.keys if key is None else [key],
        known.times if timestamp is None else [timestamp],
        "" if value is not None else None,
        timestamp is not None,
    )
    batches = ([_record(row, chosen) for row in rows] for rows in pieces)
    return Loading(append, topic, batches, total, name)


def _pieces(table: Any, size: int) -> tuple[Iterator[list[Mapping[str, Any]]], int, Sequence[str]]:
    """The rows in lists of at most `size`, how many there are, and the names of the columns."""
    if hasattr(table, "iter_rows") and hasattr(table, "height"):  # polars
        return (
            (list(table.slice(at, size).iter_rows(named=True)) for at in range(0, table.height, size)),
            table.height,
            table.columns,
        )
    if hasattr(table, "iloc"):  # pandas
        count = len(table)
        return (table.iloc[at : at + size].to_dict("records") for at in range(0, count, size)), count, list(table.columns)
    if hasattr(table, "to_pylist") and hasattr(table, "num_rows"):  # Arrow
        count = table.num_rows
        return (table.slice(at, size).to_pylist() for at in range(0, count, size)), count, table.column_names
    if isinstance(table, Sequence) and not isinstance(table, str | bytes) and all(isinstance(row, Mapping) for row in table):
        columns = list(dict.fromkeys(column for row in table for column in row))
        return (list(table[at : at + size]) for at in range(0, len(table), size)), len(table), columns
    raise UsageError(f"a {type(table).__name__} is no table: give a DataFrame of pandas or polars, an Arrow table, or mappings")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns may be the text, the key, the time, in the order to try them. `blank` is the text of a row that has none;
    None: the whole row. `timed`: somebody named the column of the time, whose cells must then be times."""

    values: Sequence[str]
    keys: Sequence[str]
    times: Sequence[str]
    blank: str | None
    timed: bool


def _record(row: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
    cells = {str(name): plain for name, cell in row.items() if (plain := _plain(cell)) is not None}
    rest = dict(cells)
    text = next((str(rest.pop(name)) for name in columns.values if name in cells), columns.blank)
    record: dict[str, Any] = {"value": json.dumps(cells, default=str, ensure_ascii=False) if text is None else text}
    if (key := next((name for name in columns.keys if name in rest), None)) is not None:
        record["key"] = str(rest.pop(key))
    for name in columns.times:
        if name in rest and (when := _moment(rest[name], columns.timed)) is not None:
            record["timestamp"] = when
            del rest[name]
            break
    rest = {} if text is None else rest
    return record | {"attributes": {n: v if isinstance(v, str | int | float | bool) else str(v) for n, v in rest.items()}}


def _moment(cell: Any, named: bool) -> Any:
    """A cell as a time; as it stands where it is none and somebody said it were: then the append says what is wrong."""
    if isinstance(cell, datetime):
        return cell
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day, tzinfo=UTC)
    ms = parse_time(cell)
    return from_ms(ms) if ms is not None else cell if named else None


def _plain(cell: Any) -> Any:
    """A cell as Python has it; None where it is empty."""
    if getattr(cell, "ndim", 0):  # a cell that holds an array
        return cell.tolist()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or cell != cell:  # NaT is unlike itself
        return None
    if hasattr(cell, "to_pydatetime"):
        return cell.to_pydatetime()
    if hasattr(cell, "item") and not isinstance(cell, str | int | float | bool | date | datetime):
        return cell.item()
    return cell
