"""Which verbs a command calls: those of the daemon at a URL, of the running daemon of a data directory, of the directory
itself in this process, or of a daemon started for it; and the options that every command shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.output import say

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.verbs import Verbs

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data directory: its running daemon, or when there is none the directory itself, opened here.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", envvar="HEADWATER_URL", show_envvar=True, help="The daemon at this address."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings (TOML).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="Print one JSON value a line.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Topics = Annotated[
    list[str] | None, typer.Option("--topics", "-t", metavar="A,B", help="Only these topics (comma-separated, or given again).")
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From this time on: 2h, 14:05, 2026-11-21, 2026-11-21T14:05:00Z.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def opening(data: Path | None, url: str | None) -> Callable[[], AbstractAsyncContextManager[Verbs]]:
    """What opens the verbs that `--data` and `--url` name; a daemon is started, and that is said, where none runs."""
    import headwater
    from headwater import launch
    from headwater.client import Client
    from headwater.config import load

    if url is not None and data is None:
        return lambda: headwater.aconnect(url)
    settings = load(None, {"data_dir": None if data is None else str(data)}).settings
    runtime = launch.find(settings)
    if runtime is None and data is not None:
        return lambda: headwater.aopen(data)
    if runtime is None:
        say(f"no daemon is running for {settings.path}; starting one in the background")
        runtime = launch.find_or_start(settings)
        say(f"started at {runtime.url} (process {runtime.pid}; `kill {runtime.pid}` ends it)")
    found = runtime
    return lambda: Client(found.url, found.token)


@contextmanager
def session(data: Path | None, url: str | None) -> Iterator[Headwater]:
    """The verbs, synchronously, for as long as a command runs."""
    from headwater.blocking import Headwater

    with Headwater(opening(data, url)) as verbs:
        yield verbs


def names_of(topics: list[str] | None) -> list[str] | None:
    """The topics of `--topics a,b --topics c`; None for all."""
    names = [name.strip() for given in topics or () for name in given.split(",") if name.strip()]
    return names or None


def pairs_of(given: list[str] | None, what: str) -> dict[str, str]:
    """`{name: value}` of options such as `--filter host=web-1`."""
    pairs: dict[str, str] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{what} {pair!r} is not NAME=VALUE")
        pairs[name.strip()] = value
    return pairs


def confirmed(question: str, yes: bool) -> None:
    """Ask on a terminal before something is lost; without one only `--yes` will do."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Say --yes where nobody can be asked.")
    typer.confirm(question, abort=True, err=True)
