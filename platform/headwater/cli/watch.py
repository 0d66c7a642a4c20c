"""`headwater watch`: standing queries, and waiting for what they fire."""

from __future__ import annotations

import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.errors import TIMED_OUT
from headwater.cli.session import Csv, Data, Json, Jsonl, Topics, Url, names_of, session
from headwater.cli.words import QueryCommand

if TYPE_CHECKING:
    from headwater.records import Mode
    from headwater.records.watches import Watch, WatchHit

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id or its name.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = (
    "id",
    "name",
    "q",
    "topics",
    "like",
    "more_than",
    "within_s",
    "expires",
    "state",
    "error",
    "fired",
    "last_fired",
    "behind",
)
_HIT_CSV = ("id", "watch", "address", "why", "score", "count", "fired", "value")
_MODES = ("hybrid", "keyword", "semantic")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="watch")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """Watches: standing queries that wake whoever waits for them.

    \b
    headwater watch add "card payments declined" --topics logs --name declined
    headwater watch add --like logs/0/4711 --name recurs
    headwater watch add 'timeout level:error' --more-than 5 --within 10m
    headwater watch wait recurs --timeout 1h
    """
    if context.invoked_subcommand is None:
        list_watches(json, jsonl, csv, data, url)


@group.command("add", cls=QueryCommand)
def add_watch(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help='Words, "phrase", -not, field:value.')] = "",
    topics: Topics = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="ADDRESS", help="Records of this one's pattern, or near to it in meaning.")
    ] = None,
    more_than: Annotated[
        int | None, typer.Option("--more-than", min=1, metavar="N", help="Fire when more than N match within --within.")
    ] = None,
    within: Annotated[str | None, typer.Option("--within", metavar="TIME", help="Such as 10m.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="To wait for it by.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="hybrid (the default), keyword or semantic.")] = None,
    min_score: Annotated[float | None, typer.Option("--min-score", min=0, max=1, help="Of meaning, to fire.")] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", metavar="TIME", help="It ends after so long, such as 7d.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Also for records stored since then.")] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Watch for something from now on.

    \b
    headwater watch add "card payments declined" --topics logs --name declined
    headwater watch add --like logs/0/4711 --name recurs
    headwater watch add 'timeout level:error' --more-than 5 --within 10m
    """
    if mode is not None and mode not in _MODES:
        raise typer.BadParameter(f"--mode is one of {', '.join(_MODES)}")
    wanted: Mode | None = mode  # type: ignore[assignment]  # checked above
    with session(data, url) as verbs:
        watch = verbs.add_watch(
            query, name=name, topics=names_of(topics), mode=wanted, min_score=min_score, like=like, more_than=more_than,
            within=within, ttl=ttl, since=since,
        )  # fmt: skip
    if json:
        output.show_json(watch)
        return
    output.out(watch.name)
    output.say(f"watching for {_told(watch)}; `headwater watch wait {watch.name}` waits for it")


@group.command("list")
def list_watches(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """Every watch, oldest first.

    \b
    headwater watch list --json
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.watches()
    if form is not output.Format.TEXT:
        output.show_all(form, found, _CSV, ([getattr(w, name) for name in _CSV] for w in found))
    elif not found:
        output.say('no watches; `headwater watch add "QUERY"` makes one')
    else:
        lines = (
            (str(w.id), w.name, (w.error and f"{w.state}: {output.line_of(w.error)}") or w.state, f"{w.fired:,}",
             output.when(w.last_fired), "-" if w.expires is None else output.when(w.expires), output.line_of(_told(w)))
            for w in found
        )  # fmt: skip
        output.show_table(("ID", "NAME", "STATE", "FIRED", "LAST", "ENDS", "FOR"), lines, right=(0, 3))


@group.command("wait")
def wait(
    id: Id,
    timeout: Annotated[str | None, typer.Option("--timeout", metavar="TIME", help="Wait at most so long: 30s, 1h.")] = None,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Go on behind an earlier reply; else all hits kept.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Only what it fires from now on.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl+C, or the time is up.")] = False,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", help="Run this for each hit, which it gets as JSON on stdin; no shell."),
    ] = None,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Wait until a watch fires, and print what it fired; exit code 4 when the time, or the
    watch's own, is up.

    \b
    headwater watch wait recurs --timeout 1h
    """
    from headwater.config import duration_s

    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    if new and cursor is not None:
        raise typer.BadParameter("--new and --cursor contradict each other; choose one")
    seconds = None if timeout is None else duration_s(timeout)
    if form is output.Format.CSV:
        output.show_csv(_HIT_CSV, ())
    with session(data, url) as verbs:
        if new:
            cursor = verbs.watch(id).cursor
        while True:
            reply = verbs.wait(id, cursor=cursor, timeout=seconds)
            if reply.missed:
                output.say(f"{reply.missed:,} older hits are no longer kept")
            for hit in reply.hits:
                if command is not None:
                    _run(command, hit)
                _show(hit, form)
            sys.stdout.flush()
            cursor = reply.cursor
            if form is not output.Format.JSON or not reply.hits:
                output.say(f"cursor {cursor}" + ("; more follow" if reply.more else ""))
            if reply.timed_out:
                output.say("the time is up")
                raise typer.Exit(TIMED_OUT)
            if reply.state == "expired" and not reply.more:
                output.say("the watch has expired")
                if not reply.hits and not follow:
                    raise typer.Exit(TIMED_OUT)  # `watch wait X && act` acts on a hit only
                return
            if not follow:
                return


@group.command("rm")
def remove(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids or names.")], data: Data = None, url: Url = None
) -> None:
    """Forget watches, with what they fired.

    \b
    headwater watch rm declined
    """
    with session(data, url) as verbs:
        for id in ids:
            verbs.remove_watch(id)
    output.say(f"removed {output.plural(len(ids), 'watch') if len(ids) == 1 else f'{len(ids):,} watches'}")


def _told(watch: Watch) -> str:
    """What a watch looks for, in one line."""
    parts = [f"like {watch.like}"] if watch.like else []
    parts += [watch.q] if watch.q else []
    if watch.more_than is not None and watch.within_s is not None:
        parts.append(f"more than {watch.more_than} within {output.duration(watch.within_s)}")
    parts += [f"in {', '.join(watch.topics)}"] if watch.topics else []
    return " ".join(parts)


def _show(hit: WatchHit, form: output.Format) -> None:
    value = None if hit.record is None else hit.record.value
    if form is output.Format.CSV:
        output.append_csv((hit.id, hit.watch, hit.address, hit.why, hit.score, hit.count, hit.fired, value))
    elif form is not output.Format.TEXT:
        output.show_json(hit)
    else:
        why = f"{hit.why} {hit.score:.2f}" if hit.why == "meaning" else hit.why
        counted = f"  {hit.count} within the window" if hit.count is not None else ""
        when = output.when(hit.fired if hit.record is None else hit.record.timestamp)
        output.out(f"{output.style(hit.address, 'bold')}  {when}  {why}{counted}")
        output.out("  " + ("(the record is gone)" if value is None else output.line_of(value)))


def _run(command: str, hit: WatchHit) -> None:
    """Run a command with a hit on its stdin. Nothing of a record is ever part of a command line."""
    words = shlex.split(command)
    if not words:
        raise typer.BadParameter("--exec names a command")
    try:
        done = subprocess.run(words, input=output.json_text(hit).encode(), check=False)
    except OSError as error:
        raise typer.BadParameter(f"--exec: {words[0]}: {error.strerror}") from error
    if done.returncode:
        output.say(f"{words[0]} ended with {done.returncode}")
