"""How far a load has come: a bar with rate and time left on a terminal, elsewhere a line every so often."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from headwater.cli import output

Step = Callable[[float, int, str], None]  # done, records, what is read
_SAY_S = 10.0  # between two lines where stderr is no terminal


@contextlib.contextmanager
def bar(total: float, what: str, *, unit_bytes: bool = True) -> Iterator[Step]:
    """`step(done, records, label)` moves the bar of a work of `total` (bytes, or other steps)."""
    if not sys.stderr.isatty():
        yield _spoken(total, unit_bytes)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    amount: tuple[ProgressColumn, ...] = (DownloadColumn(),) if unit_bytes else ()
    console = Console(stderr=True, no_color=not output.coloured(sys.stderr))
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amount,
        TextColumn("{task.fields[records]} records"),
        TextColumn("{task.fields[rate]}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, records="0", rate="0")

        def step(done: float, records: int, label: str) -> None:
            elapsed = progress.tasks[0].elapsed or 0.001
            progress.update(task, completed=done, description=label, records=f"{records:,}", rate=f"{records / elapsed:,.0f}")

        yield step


def _spoken(total: float, unit_bytes: bool, *, every_s: float = _SAY_S, clock: Callable[[], float] = time.monotonic) -> Step:
    """Lines of how far it is: `120,000 records, 12.0 MB of 44.5 MB, 11,000/s, 30 s left`."""
    begun = said = clock()
    first: float | None = None

    def step(done: float, records: int, label: str) -> None:
        nonlocal said, first
        first = done if first is None else first
        now = clock()
        if now - said < every_s:
            return
        said = now
        parts = [f"{label}: {output.plural(records, 'record')}"]
        if unit_bytes and total:
            parts.append(f"{output.size(done)} of {output.size(total)}")
        parts.append(f"{records / max(now - begun, 1e-3):,.0f}/s")
        if total > done > first:
            parts.append(f"{output.duration((now - begun) * (total - done) / (done - first))} left")
        output.say(", ".join(parts))

    return step
