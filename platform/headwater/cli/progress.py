"""How far a load has come: a bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from headwater.cli.output import coloured

Step = Callable[[float, int, str], None]  # done, records, what is read


@contextlib.contextmanager
def bar(total: float, what: str, *, unit_bytes: bool = True) -> Iterator[Step]:
    """`step(done, records, label)` moves the bar of a work of `total` (bytes, or other steps)."""
    if not sys.stderr.isatty():
        yield lambda done, records, label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    amount: tuple[ProgressColumn, ...] = (DownloadColumn(),) if unit_bytes else ()
    console = Console(stderr=True, no_color=not coloured(sys.stderr))
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
