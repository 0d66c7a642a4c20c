"""The commands put together, with what they share: help, version, debugging."""

from __future__ import annotations

from typing import Annotated

import typer

from headwater.cli import (
    anomaly,
    ask,
    backup,
    chat,
    config,
    doctor,
    documents,
    enrich,
    health,
    index,
    investigate,
    letters,
    mcp,
    models,
    operate,
    records,
    removing,
    search,
    sources,
    timeline,
    tokens,
    topics,
    tui,
    watch,
    webhook,
)
from headwater.cli.errors import Commands

_HELP = """Search, question and watch your streams by meaning.

Start a daemon with `headwater up FILE...`, or see it all with `headwater demo`. A command that needs a daemon starts one
in the background when none is running. Data goes to stdout, everything else to stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found or not reachable, 4 timed out, 130 interrupted.
"""

app = typer.Typer(
    name="headwater",
    cls=Commands,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        import headwater

        typer.echo(f"headwater {headwater.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="HEADWATER_DEBUG", show_envvar=True, help="Show the traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.obj = debug


for subject in (
    operate,
    records,
    removing,
    search,
    ask,
    investigate,
    chat,
    topics,
    documents,
    sources,
    index,
    letters,
    config,
    backup,
    doctor,
    health,
    mcp,
    tokens,
    models,
    timeline,
    tui,
    watch,
    anomaly,
    webhook,
    enrich,
):
    subject.add(app)
