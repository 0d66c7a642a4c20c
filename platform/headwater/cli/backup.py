"""`headwater backup` and `headwater restore`: the log as of one moment, and a data directory made of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.session import Json
from headwater.errors import UsageError

if TYPE_CHECKING:
    from headwater.log.backups import Backup


def add(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    into: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for the backup.")],
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory; its daemon may go on.")] = None,
    json: Json = False,
) -> None:
    """Back up a data directory while its daemon works: everything stored by now.

    Records, vectors, settings of topics, watches and answers are in it. Indexes are not: a restored directory builds them
    at its first start, without embedding anything anew.

    \b
    headwater backup /backups/headwater-$(date +%F)
    """
    from headwater.cli import output
    from headwater.cli.progress import bar
    from headwater.config import load
    from headwater.log import backups

    if data is None and os.environ.get("HEADWATER_URL"):
        raise UsageError("HEADWATER_URL names a daemon, a backup reads a directory: run it where that lies, or give --data DIR")
    directory = load(None, {"data_dir": None if data is None else str(data)}).settings.path
    with bar(1.0, "backing up", unit_bytes=False) as step:
        about = backups.backup(directory, into, progress=lambda done, total: step(done / total, 0, "backing up"))
    _tell(about, f"{into}: {about.records:,} records of {about.topics} topics, {about.bytes:,} bytes, checked", json)
    output.say(f"`headwater restore {into} --data NEW_DIR` makes a data directory of it")


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A backup.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The new data directory.")],
    json: Json = False,
) -> None:
    """Make a data directory of a backup, which is checked first.

    \b
    headwater restore /backups/headwater-2026-11-21 --data ~/headwater-restored
    headwater up --data ~/headwater-restored
    """
    from headwater.cli import output
    from headwater.cli.progress import bar
    from headwater.log import backups

    with bar(1.0, "restoring", unit_bytes=False) as step:
        about = backups.restore(source, data, progress=lambda done, total: step(done / max(total, 1), 0, "restoring"))
    _tell(about, f"{data}: {about.records:,} records of {about.topics} topics, as of {about.created}", json)
    output.say(f"`headwater up --data {data}` starts it, and builds its indexes from what is stored")


def _tell(about: Backup, said: str, as_json: bool) -> None:
    from headwater.cli import output

    if as_json:
        output.show_json(about)
    else:
        output.say(said)
