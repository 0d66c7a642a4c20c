"""`headwater mcp`: the MCP server, how an agent is told of it, and what agents did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Config, Csv, Data, Json, Jsonl, Url, session
from headwater.visible import visible

group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = ("n", "at", "who", "tool", "arguments", "size", "seconds", "failed")
DataOfDaemon = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Data directory whose daemon is found or started.")
]
AllowWrite = Annotated[bool, typer.Option("--allow-write", help="Also serve the tools that store records.")]


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="mcp")


@group.callback()
def mcp(
    context: typer.Context,
    data: DataOfDaemon = None,
    config: Config = None,
    url: Url = None,
    allow_write: AllowWrite = False,
    root: Annotated[
        list[Path] | None, typer.Option("--root", metavar="DIR", help="Folder whose files may be loaded, with --allow-write.")
    ] = None,
    http: Annotated[bool, typer.Option("--http", help="Print the URL at which the daemon serves agents over HTTP.")] = False,
) -> None:
    """Serve agents: the MCP server on stdin and stdout.

    An agent's settings name this command; it finds the running daemon, or starts one. The daemon also serves agents over
    HTTP, at /mcp.

    \b
    headwater mcp install --client claude
    headwater mcp --http
    claude mcp add headwater -- /path/to/headwater mcp
    """
    if context.invoked_subcommand is not None:
        return
    if http:
        _tell_url(data, config, url)
        return
    from headwater_mcp.__main__ import main

    arguments: list[str] = []
    for name, value in (("--data-dir", data), ("--config", config), ("--url", url)):
        if value is not None:
            arguments += [name, str(value)]
    for folder in root or ():
        arguments += ["--root", str(folder)]
    code = main([*arguments, *(["--allow-write"] if allow_write else [])])
    if code:
        raise typer.Exit(code)


def _tell_url(data: Path | None, config: Path | None, url: str | None) -> None:
    """Where agents are served over HTTP, by a daemon that is started where there is none."""
    from headwater.config import load
    from headwater.launch import find_or_start

    if url is None:
        settings = load(config, {"data_dir": None if data is None else str(data)}).settings
        url = find_or_start(settings, config=config).url
    output.out(f"{url.rstrip('/')}/mcp")
    output.say(
        "a token for an agent: headwater tokens create NAME --topics A,B (it goes into the header Authorization: Bearer)"
    )


@group.command()
def install(
    client: Annotated[str, typer.Option("--client", help="claude, claude-code, cursor, vscode, or print.")] = "print",
    name: Annotated[str, typer.Option("--name", help="What the server is called there.")] = "headwater",
    project: Annotated[
        Path | None, typer.Option("--project", metavar="DIR", help="For this project alone (not claude).")
    ] = None,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take the entry away again.")] = False,
    data: DataOfDaemon = None,
    config: Config = None,
    url: Url = None,
    allow_write: AllowWrite = False,
) -> None:
    """Tell an agent's program of this server: writes its settings file, and keeps everything else in it.

    Run again it changes nothing; what the file was before is kept beside it.

    \b
    headwater mcp install --client claude
    headwater mcp install --client claude-code --project . --allow-write
    headwater mcp install --client vscode --uninstall
    headwater mcp install --client print
    """
    import json

    from headwater_mcp import install as settings

    arguments = _arguments(data, config, url, allow_write)
    if client == "print":
        output.out(json.dumps({"mcpServers": {name: settings.entry(None, program(), arguments)}}, indent=2))
        return
    chosen = next((known for known in settings.CLIENTS if known == client), None)
    if chosen is None:
        raise typer.BadParameter(f"--client must be one of {', '.join(settings.CLIENTS)} or print")
    if uninstall:
        done = settings.uninstall(chosen, name=name, project=project)
    else:
        done = settings.install(chosen, program(), arguments, name=name, project=project)
    output.out(f"{done.state} {name!r} in {done.file}" if done.state != "absent" else f"no {name!r} in {done.file}")
    if done.backup is not None:
        output.say(f"as it was before: {done.backup}")
    if done.after:
        output.say(f"next: {done.after}")


def _arguments(data: Path | None, config: Path | None, url: str | None, allow_write: bool) -> list[str]:
    """What the command is called with; paths in full, because another program starts it elsewhere."""
    given: list[tuple[str, Any]] = [
        ("--data", data and data.absolute()),
        ("--config", config and config.absolute()),
        ("--url", url),
    ]
    options = [word for option, value in given if value is not None for word in (option, str(value))]
    return ["mcp", *options, *(["--allow-write"] if allow_write else [])]


@group.command()
def calls(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    before: Annotated[int | None, typer.Option("--before", metavar="N", help="Those older than this number.")] = None,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What agents called, newest first: who, which tool, how long it took. Nobody can change this log.

    \b
    headwater mcp calls --limit 20
    headwater mcp calls --csv > calls.csv
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as hw:
        found = hw.calls(limit=limit, before=before)
    if form is not output.Format.TEXT:
        output.show_all(form, found, _CSV, ([getattr(call, name) for name in _CSV] for call in found))
        return
    for call in found:
        failed = " FAILED" if call.failed else ""
        who, tool = (visible(text, newlines="mark") for text in (call.who, call.tool))
        output.out(f"{call.n} {output.when(call.at)} {who} {tool} {call.size} bytes {call.seconds:.3f} s{failed}")
    if len(found) == limit:
        output.note(f"older ones: --before {found[-1].n}")


def program() -> str:
    """The path of the `headwater` command that is running, as an agent's settings need it."""
    given = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("headwater")
    return str(given.absolute() if given.name == "headwater" and given.exists() else beside)


def agent_lines(data: Path | None) -> list[str]:
    """The ways to connect an agent to the data directory (the default one for None)."""
    import json
    import shlex

    arguments = ["mcp", *(["--data", str(data)] if data is not None else [])]
    command = program()
    entry = {"mcpServers": {"headwater": {"command": command, "args": arguments}}}
    return [f"claude mcp add headwater -- {shlex.join([command, *arguments])}", json.dumps(entry)]
