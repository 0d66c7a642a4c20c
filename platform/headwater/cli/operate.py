"""`headwater up`, `demo` and `status`: the daemon, a show of everything, one look at it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from headwater.cli import output
from headwater.cli.session import Config, Data, Json, Url, session

if TYPE_CHECKING:
    from headwater.config import Settings
    from headwater.records import Status
    from headwater.source_settings import Reading

_READINGS = ("log", "lines", "jsonl", "table", "document")


def add(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(demo)
    app.command()(status)


# ---------------------------------------------------------------------- up


def up(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...", help="Log files, tables, documents, exports, folders or globs to follow; - for stdin."
        ),
    ] = None,
    read_as: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KIND", help="What the files are: " + ", ".join(_READINGS) + "; told by name and content."
        ),
    ] = None,
    config: Config = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API, and no other; 0 takes a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind to; another than loopback needs an API key.")] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The data directory.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what happens.")] = False,
) -> None:
    """Run the daemon: follow files, serve the API.

    Logs, tables, documents, folders, stdin, and exports of Slack, Discord, GitHub, Jira, Zendesk, mail and databases are
    followed; the API is on 127.0.0.1:8787; Ctrl+C ends it.

    \b
    headwater up /var/log/app/*.log docs/
    headwater up logs/*.log tickets.csv slack-export.zip
    headwater up TODO.md --as lines
    journalctl -f | headwater up -
    HEADWATER_SERVER_API_KEY=... headwater up --host 0.0.0.0
    """
    from headwater import daemon
    from headwater.config import load
    from headwater.errors import OwnedError

    if read_as is not None and read_as not in _READINGS:
        raise typer.BadParameter(f"--as takes {', '.join(_READINGS)}, not {read_as!r}")
    arguments = {"data_dir": None if data is None else str(data), "server.port": port, "server.host": host}
    loaded = load(config, arguments)
    _log_to_stderr(verbose)
    firm = True if "server.port" in loaded.origins else None
    try:
        daemon.run(
            loaded.settings,
            paths or (),
            read_as=cast("Reading | None", read_as),
            port_is_firm=firm,
            ready=lambda url: _say_ready(url, loaded.settings, paths or [], data),
        )
    except OwnedError as error:
        where = f" at {error.url}" if error.url else ""
        raise OwnedError(
            f"{loaded.settings.path} is in use by another process{where}; `headwater status` shows what it does, "
            "`headwater up --data DIR` serves another directory",
            url=error.url,
        ) from error
    output.say("stopped; what was acknowledged is stored")


def _log_to_stderr(verbose: bool) -> None:
    import logging
    import sys

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("httpx", "httpx2", "watchfiles"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _say_ready(url: str, settings: Settings, paths: list[str], data: Path | None) -> None:
    from headwater.cli.mcp import agent_lines
    from headwater.source_settings import entry_name

    followed = ["standard input" if p == "-" else p for p in (*paths, *map(entry_name, settings.sources))]
    flag = f" --data {data}" if data is not None else ""
    claude, entry = agent_lines(None if data is None else data.absolute())
    output.say(f"Headwater is up at {url}")
    output.say(f"  data     {settings.path}")
    output.say(f"  follows  {', '.join(followed) if followed else 'nothing; records come over HTTP, `append` and `ingest`'}")
    output.say(f'  search   headwater search "what went wrong"{flag}')
    output.say(f"  agent    {claude}")
    output.say(f"           or {entry}")
    output.say("  stop     Ctrl+C")


# ---------------------------------------------------------------------- demo


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the daemon running, to try things yourself.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed makes other log lines of the same story.")] = 7,
    lines: Annotated[int, typer.Option(min=100, max=1_000_000, help="Log lines of the incident.")] = 6000,
) -> None:
    """See it all work on a self-made incident.

    Offline, on a temporary directory: an incident (logs, deploys, tickets, chat) and this machine's own logs are streamed
    in, then searched, compared and questioned. Exit 1 when something that must be found is not.

    \b
    headwater demo
    headwater demo --keep
    """
    from headwater.demo import show

    if not show.run(keep=keep, seed=seed, lines=lines):
        raise typer.Exit(1)


# ---------------------------------------------------------------------- status


def status(json: Json = False, data: Data = None, url: Url = None) -> None:
    """One look at the daemon: topics, sources, problems.

    It is not started when it does not run (exit 3).

    \b
    headwater status
    headwater status --json
    """
    from headwater import launch
    from headwater.config import load
    from headwater.errors import UnreachableError

    if url is None or data is not None:
        settings = load(None, {"data_dir": None if data is None else str(data)}).settings
        runtime = launch.find(settings)
        if runtime is None:
            raise UnreachableError(f"no daemon is running for {settings.path}; start one with `headwater up`")
    with session(data, url) as verbs:
        found = verbs.status()
    if json:
        output.show_json(found)
        return
    _show_status(found)


def _show_status(found: Status) -> None:
    from headwater.cli.sources import show_sources
    from headwater.cli.topics import show_topics

    facts: dict[str, Any] = {
        "version": found.version,
        "state": "ready" if found.ready else "not ready",
        "url": found.url or "-",
        "data": found.data_dir,
        "process": f"{found.pid}, up {output.duration(found.uptime_s)}",
        "model": found.model or "none: keyword search only",
        "answers": "extractive, without a chat model" if found.chat_model in (None, "extractive") else found.chat_model,
    }
    for name, value in facts.items():
        output.out(f"{name:<8} {value}")
    output.out()
    show_topics(list(found.topics))
    if found.sources:
        output.out()
        show_sources(list(found.sources))
    for problem in found.problems:
        output.out(output.style(f"problem: {output.line_of(problem)}", "yellow"))
