"""`headwater health`: whether the daemon lives, or is ready, as an exit code. Made for health checks: it starts nothing and
loads next to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Config, Json, Url


def add(app: typer.Typer) -> None:
    app.command()(health)


def health(
    ready: Annotated[bool, typer.Option("--ready", help="Ask also whether verbs can be called, and for problems.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for the answer.")] = 3.0,
    json: Json = False,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The data directory of the daemon.")] = None,
    url: Url = None,
    config: Config = None,
) -> None:
    """Whether the daemon answers: exit 0, else 3. Starts none.

    For the health checks of containers and service managers: it needs no key where it runs as the daemon's user. A daemon that
    does not live is to be restarted; one that is not --ready (exit 1) only gets no requests meanwhile.

    \b
    headwater health
    headwater health --ready --json
    """
    from headwater import launch
    from headwater.config import load

    if url is not None and data is None:
        runtime = launch.named(url)
    else:
        runtime = launch.announced(load(config, {"data_dir": None if data is None else str(data)}).settings)
    found = launch.get(runtime, "/v1/ready" if ready else "/v1/health", timeout_s=timeout_s)
    well = found.get("ready", True) is True
    problems = [str(p) for p in found.get("problems") or ()]
    if json:
        output.show_json({"url": runtime.url, **found})
    else:
        output.out(f"{'ready' if ready and well else 'alive' if well else 'not ready'} at {runtime.url}")
        for problem in problems:
            output.out(f"problem: {output.line_of(problem)}")
    if not well:
        raise typer.Exit(1)
