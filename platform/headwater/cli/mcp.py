"""`headwater mcp`: the MCP server, and how an agent is told of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.session import Config, Url


def add(app: typer.Typer) -> None:
    app.command()(mcp)


def mcp(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Data directory whose daemon is found or started.")
    ] = None,
    config: Config = None,
    url: Url = None,
    allow_write: Annotated[bool, typer.Option("--allow-write", help="Also serve the tools that store records.")] = False,
) -> None:
    """Serve agents: the MCP server on stdin and stdout.

    An agent's settings name this command; it finds the running daemon, or starts one.

    \b
    claude mcp add headwater -- /path/to/headwater mcp
    {"mcpServers": {"headwater": {"command": "/path/to/headwater", "args": ["mcp"]}}}
    """
    from headwater_mcp.__main__ import main

    arguments: list[str] = []
    for name, value in (("--data-dir", data), ("--config", config), ("--url", url)):
        if value is not None:
            arguments += [name, str(value)]
    code = main([*arguments, *(["--allow-write"] if allow_write else [])])
    if code:
        raise typer.Exit(code)


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
