"""`headwater tokens`: who else may use the daemon, for which topics."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Config, Json, Topics, names_of

if TYPE_CHECKING:
    from headwater.tokens import Token, Tokens

group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called, for the log of calls.")]
DataOfTokens = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The data directory of the daemon.")]


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="tokens")


@group.callback()
def _list_by_default(context: typer.Context, json: Json = False, data: DataOfTokens = None, config: Config = None) -> None:
    """Access tokens: each for some topics, to read or also to write. They hold at once, for the whole API and for agents.

    As soon as there is one, every request needs one, or the API key; programs of the daemon's own user find that by
    themselves.

    \b
    headwater tokens create ci --topics logs,team-* --ttl 90d
    headwater tokens create importer --topics tickets --write
    headwater tokens list
    headwater tokens revoke ci
    """
    if context.invoked_subcommand is None:
        list_tokens(json, data, config)


@group.command()
def create(
    name: Name,
    topics: Topics = None,
    write: Annotated[bool, typer.Option("--write", help="It may also store records, in these topics.")] = False,
    ttl: Annotated[str | None, typer.Option("--ttl", metavar="TIME", help="It ends after so long: 90d, 12h.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Most requests a second.")] = None,
    max_body: Annotated[int | None, typer.Option("--max-body", metavar="BYTES", help="Largest body of a request.")] = None,
    json: Json = False,
    data: DataOfTokens = None,
    config: Config = None,
) -> None:
    """Make a token and print it, this once: only its hash is kept. --topics takes names, or their start with * behind it.

    \b
    headwater tokens create ci --topics logs,team-* --ttl 90d
    headwater tokens create importer --topics tickets --write --rate 20
    """
    from headwater.config import duration_s

    ttl_s = None if ttl is None else duration_s(ttl)
    made, secret = _tokens(data, config).create(
        name, names_of(topics) or (), write=write, ttl_s=ttl_s, requests_per_s=rate, max_body_bytes=max_body
    )
    if json:
        output.show_json({**_shown(made), "token": secret})
        return
    output.out(secret)
    output.say(f"{_line(made)}. It is shown this once; it goes into the header Authorization: Bearer TOKEN")


@group.command("list")
def list_tokens(json: Json = False, data: DataOfTokens = None, config: Config = None) -> None:
    """The tokens there are, without their secrets.

    \b
    headwater tokens list --json
    """
    found = _tokens(data, config).all()
    if json:
        output.show_json([_shown(token) for token in found])
        return
    for token in found:
        output.out(_line(token))
    if not found:
        output.say("no tokens; `headwater tokens create NAME --topics A,B` makes one")


@group.command()
def revoke(name: Name, data: DataOfTokens = None, config: Config = None) -> None:
    """Forget a token: whoever shows it is refused from now on.

    \b
    headwater tokens revoke ci
    """
    _tokens(data, config).revoke(name)
    output.say(f"revoked {name}")


def _tokens(data: Path | None, config: Path | None) -> Tokens:
    from headwater.config import load
    from headwater.tokens import tokens_of

    settings = load(config, {"data_dir": None if data is None else str(data)}).settings
    return tokens_of(settings.path, settings.server.tokens_file)


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


def _shown(token: Token) -> dict[str, object]:
    return {
        "name": token.name, "topics": list(token.topics), "write": token.write, "created": _time(token.created_ms),
        "expires": _time(token.expires_ms), "requests_per_s": token.requests_per_s, "max_body_bytes": token.max_body_bytes,
    }  # fmt: skip


def _line(token: Token) -> str:
    parts = [f"{token.name}: {'reads and writes' if token.write else 'reads'} {', '.join(token.topics)}"]
    parts += [f"until {output.when(_time(token.expires_ms))}"] if token.expires_ms else []
    parts += [f"{token.requests_per_s:g} requests/s"] if token.requests_per_s else []
    parts += [f"bodies of {token.max_body_bytes} bytes"] if token.max_body_bytes else []
    return ", ".join(parts)
