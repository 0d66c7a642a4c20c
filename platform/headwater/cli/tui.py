"""`headwater tui`: the terminal UI, also in a browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.output import say
from headwater.cli.session import Config, Url


def add(app: typer.Typer) -> None:
    app.command()(tui)


def tui(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data directory whose daemon is found or started.")
    ] = None,
    config: Config = None,
    url: Url = None,
    theme: Annotated[
        str | None, typer.Option(metavar="NAME", help="A theme: textual-dark, textual-light, ansi-dark, ansi-light, nord ...")
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve it to a browser on this machine instead (extra `web`).")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of --web; 0 takes a free one.")] = 8788,
) -> None:
    """See topics, records, patterns, answers and watches in the terminal. `?` shows the keys of a view.

    \b
    headwater tui
    headwater tui --url http://127.0.0.1:8787 --theme textual-light
    headwater tui --web
    """
    given = (("--data-dir", data), ("--config", config), ("--url", url), ("--theme", theme))
    arguments = [text for name, value in given if value is not None for text in (name, str(value))]
    if web:
        _serve(arguments, port)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("this needs a terminal; `headwater search`, `tail` and `ask` work without one")
    from headwater_tui.__main__ import main

    if code := main(arguments):
        raise typer.Exit(code)


def _serve(arguments: list[str], port: int) -> None:
    from headwater.errors import UsageError

    try:
        from headwater_tui import web
    except ImportError as error:
        raise UsageError("--web needs textual-serve; `pip install 'headwater[web]'`") from error
    say("open this address in a browser of this machine; it has a token, so keep it to yourself (ctrl+c ends):")
    web.serve(arguments, port, lambda address: print(address, flush=True))
