"""`headwater sources`: what flows in, added, paused, resumed and removed while the daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, pairs_of, session
from headwater.errors import NotFoundError

if TYPE_CHECKING:
    from headwater.records import SourceInfo

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `headwater sources` lists it.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = ("name", "kind", "topic", "state", "records", "rate", "lag", "error", "entry", "origin", "paused")
_KINDS = ("syslog", "otlp", "webhook", "kafka", "nats")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="sources")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """Sources: files, folders, syslog, OTLP, webhooks, Kafka and NATS that flow into topics.

    Without a command all of them. Those added here are kept and come back after a restart; those of the settings file can be
    paused, and are removed there.

    \b
    headwater sources
    headwater sources add app.log --topic logs
    headwater sources add TODO.md --set read_as=lines
    headwater sources add syslog --set port=5514
    headwater sources add webhook --name deploys --set kind=github --set secret='${SOURCE_DEPLOYS}'
    headwater sources pause syslog
    """
    if context.invoked_subcommand is None:
        list_sources(json, jsonl, csv, data, url)


@group.command("list")
def list_sources(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """Every source with its state, what it has stored, how far behind it is, and its last error.

    \b
    headwater sources list
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.sources()
    if form is not output.Format.TEXT:
        rows = ([getattr(source, name) for name in _CSV] for source in found)
        output.show_all(form, found, _CSV, rows)
    elif not found:
        output.say("no sources; `headwater sources add PATH` follows a file, `headwater up PATH` begins with one")
    else:
        show_sources(found)


@group.command("add")
def add_source(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A path or glob, or one of: " + ", ".join(_KINDS) + ".")],
    name: Annotated[str | None, typer.Option("--name", help="Name it is managed by.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", "-t", help="Topic the records go to.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of such a source (see `headwater config show`)."),
    ] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Add a source; it starts at once.

    WHAT is a file, a folder or a glob, or a kind of source. A secret is given as a reference to a variable of the daemon's
    environment whose name begins with SOURCE_.

    \b
    headwater sources add '/var/log/app/*.log' --topic logs
    headwater sources add otlp --set port=4318
    """
    import os

    given = {"type": what} if what in _KINDS else {"path": os.path.abspath(os.path.expanduser(what))}
    given.update(pairs_of(setting, "--set"))
    with session(data, url) as verbs:
        _show(verbs.add_source(**given, name=name, topic=topic), json)


@group.command()
def pause(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Stop a source until it is resumed, also over restarts; what is pushed meanwhile is put off.

    \b
    headwater sources pause syslog
    """
    with session(data, url) as verbs:
        _show(verbs.pause_source(name), json)


@group.command()
def resume(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Let a paused source go on where it was.

    \b
    headwater sources resume app-log
    """
    with session(data, url) as verbs:
        _show(verbs.resume_source(name), json)


@group.command()
def remove(name: Name, data: Data = None, url: Url = None) -> None:
    """Forget a source that was added. Its records stay; added again it goes on where it was.

    \b
    headwater sources remove app-log
    """
    with session(data, url) as verbs:
        verbs.remove_source(name)
    output.say(f"removed {output.line_of(name)}; its records stay")


@group.command()
def show(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One source with all that is known of it.

    \b
    headwater sources show app-log
    """
    with session(data, url) as verbs:
        found = [source for source in verbs.sources() if name in (source.name, source.entry)]
    if not found:
        raise NotFoundError(f"no source {name!r}; `headwater sources` lists them")
    if json:
        output.show_json(found)
        return
    for source in found:
        facts = {
            "name": output.line_of(source.name), "kind": source.kind, "topic": source.topic or "-", "state": source.state,
            "from": source.origin, "entry": output.line_of(source.entry), "records": output.number(source.records),
            "rate": f"{output.number(source.rate)} records/s", "behind": _behind(source),
            "error": output.line_of(source.error or "-"),
        } | {what.replace("_", " "): output.number(count) for what, count in source.counts.items()}  # fmt: skip
        for fact, value in facts.items():
            output.out(f"{fact:<13}  {value}")


def show_sources(found: list[SourceInfo]) -> None:
    """A table of sources."""
    rows = (
        [output.line_of(s.name), s.topic or "-", output.line_of(s.state), output.number(s.records), output.number(s.rate),
         _behind(s), ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in s.counts.items() if count),
         output.line_of(s.error or "")]
        for s in found
    )  # fmt: skip
    output.show_table(
        ("SOURCE", "TOPIC", "STATE", "RECORDS", "PER S", "BEHIND", "COUNTS", "ERROR"), rows, right=(3, 4, 5), wide=0
    )


def _behind(source: SourceInfo) -> str:
    if source.lag is None:
        return "-"
    return output.size(source.lag) if source.kind in ("file", "directory", "document") else output.number(source.lag)


def _show(found: list[SourceInfo], json: bool) -> None:
    if json:
        output.show_json(found)
    else:
        show_sources(found)
