"""`headwater dlq`: dead letters, the input that could not be processed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, Yes, confirmed, session
from headwater.errors import HeadwaterError, NotFoundError, UnreachableError

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records import DeadLetter

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter, or every one of --topic.")]
TopicOption = Annotated[str | None, typer.Option("--topic", "-t", help="Only of this topic.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = ("id", "topic", "stage", "reason", "address", "source", "payload", "created")
_MOST = 10_000


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="dlq")


@group.callback()
def _list_by_default(
    context: typer.Context,
    topic: TopicOption = None,
    limit: Limit = 100,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Dead letters: what could not be processed.

    Without a command the newest. Nothing else waits for a dead letter.

    \b
    headwater dlq
    headwater dlq show 12
    headwater dlq replay --all --topic logs
    headwater dlq drop 12 13
    """
    if context.invoked_subcommand is None:
        list_letters(topic, limit, json, jsonl, csv, data, url)


@group.command("list")
def list_letters(
    topic: TopicOption = None,
    limit: Limit = 100,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Dead letters, newest first.

    \b
    headwater dlq list --topic logs
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.dead_letters(topic, limit=limit)
    if form is not output.Format.TEXT:
        rows = ([d.id, d.topic, d.stage, d.reason, d.address, d.source, d.payload, d.created] for d in found)
        output.show_all(form, found, _CSV, rows)
    elif not found:
        output.say("no dead letters")
    else:
        lines = (
            [str(d.id), output.when(d.created), d.topic, d.stage, output.line_of(d.reason), output.line_of(d.payload[:120])]
            for d in found
        )
        output.show_table(("ID", "SINCE", "TOPIC", "STAGE", "REASON", "INPUT"), lines, right=(0,))
        if len(found) == limit:
            output.say(f"the newest {limit:,}; there may be more (--limit)")


@group.command()
def show(id: Annotated[int, typer.Argument(metavar="ID")], json: Json = False, data: Data = None, url: Url = None) -> None:
    """One dead letter with its whole input.

    \b
    headwater dlq show 12
    """
    with session(data, url) as verbs:
        letter = next((d for d in verbs.dead_letters(None, limit=_MOST) if d.id == id), None)
    if letter is None:
        raise NotFoundError(f"there is no dead letter {id}; `headwater dlq` lists them")
    if json:
        output.show_json(letter)
        return
    facts = {
        "id": str(letter.id),
        "topic": letter.topic,
        "stage": letter.stage,
        "reason": output.line_of(letter.reason),
        "address": letter.address or "- (it never became a record)",
        "source": letter.source or "-",
        "since": output.when(letter.created),
    }
    for name, value in facts.items():
        output.out(f"{name:<7}  {value}")
    output.out("input")
    for line in letter.payload.splitlines():
        output.out(f"  {output.line_of(line)}")


@group.command()
def replay(ids: Ids = None, every: All = False, topic: TopicOption = None, data: Data = None, url: Url = None) -> None:
    """Try dead letters again; those that succeed are removed.

    \b
    headwater dlq replay --all --topic logs
    """
    with session(data, url) as verbs:
        chosen = _chosen(verbs, ids, every, topic)
        failed: list[HeadwaterError] = []
        for id in chosen:
            try:
                verbs.replay_dead_letter(id)
            except UnreachableError:
                raise
            except HeadwaterError as error:
                failed.append(error)
                output.say(f"{id}: {output.line_of(str(error))}")
    output.say(f"{len(chosen) - len(failed):,} of {len(chosen):,} succeeded")
    if failed:
        raise failed[0] if len(chosen) == 1 else typer.Exit(1)


@group.command()
def drop(
    ids: Ids = None, every: All = False, topic: TopicOption = None, yes: Yes = False, data: Data = None, url: Url = None
) -> None:
    """Forget dead letters.

    \b
    headwater dlq drop 12 13
    """
    with session(data, url) as verbs:
        chosen = _chosen(verbs, ids, every, topic)
        if every:
            confirmed(f"Forget {output.plural(len(chosen), 'dead letter')}?", yes)
        for id in chosen:
            verbs.drop_dead_letter(id)
    output.say(f"dropped {len(chosen):,}")


def _chosen(verbs: Headwater, ids: list[int] | None, every: bool, topic: str | None) -> list[int]:
    if bool(ids) == every:
        raise typer.BadParameter("name the dead letters (`headwater dlq` lists them), or say --all")
    found: list[DeadLetter] = verbs.dead_letters(topic, limit=_MOST) if every else []
    return ids or [d.id for d in found]
