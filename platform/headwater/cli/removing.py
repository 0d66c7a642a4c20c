"""`headwater delete` and `headwater topics purge`: records out, and what they leave behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output, topics
from headwater.cli.session import Data, Json, Url, Yes, confirmed, session

if TYPE_CHECKING:
    from headwater.blocking import Headwater

_AT_ONCE = 20_000  # records deleted between two looks at how far it is


def add(app: typer.Typer) -> None:
    app.command()(delete)
    topics.group.command()(purge)


def delete(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="[ADDRESS]...", help="Records: TOPIC/PARTITION/OFFSET, or an offset.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The records of this key.")] = None,
    query: Annotated[
        str | None, typer.Option("--q", metavar="QUERY", help="Records that match: all words must occur; level:error, -word.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    yes: Yes = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Delete records, for every reader at once.

    By address, by key, or by a query. Says how many there are and asks first. Interrupted, what was deleted stays
    deleted; the same command goes on. `headwater topics purge` takes their bytes from the disk as well.

    \b
    headwater delete tickets tickets/0/42 tickets/0/43
    headwater delete tickets --key customer-1182
    headwater delete logs --q 'healthcheck level:debug until:7d' --dry-run
    """
    if sum((bool(addresses), key is not None, query is not None)) != 1:
        raise typer.BadParameter("say which records: addresses, --key or --q, one of them")
    with session(data, url) as verbs:
        places = [_place(topic, address) for address in addresses or ()]
        scopes: list[dict[str, Any]] = places or [{"key": key} if key is not None else {"q": query}]
        count = sum(verbs.delete_records(topic, **scope, dry_run=True).matched for scope in scopes)
        if count and not dry_run:
            confirmed(f"Delete {output.plural(count, 'record')} of {topic}?", yes)
        deleted = 0 if dry_run or not count else _delete(verbs, topic, scopes, count)
    if json:
        output.show_json({"topic": topic, "matched": count, "deleted": deleted, "dry_run": dry_run})
    if dry_run:
        output.say(f"{output.plural(count, 'record')} of {topic} would be deleted")
    else:
        output.say(f"deleted {output.plural(deleted, 'record')} of {topic}" if count else f"no record of {topic} matches")


def _place(topic: str, address: str) -> dict[str, Any]:
    from headwater.errors import UsageError
    from headwater.records import parse_address

    if address.isdecimal() and len(address) <= 15:
        return {"partition": 0, "offset": int(address)}
    name, partition, offset = parse_address(address)
    if name != topic:
        raise UsageError(f"{address} is not in topic {topic!r}")
    return {"partition": partition, "offset": offset}


def _delete(verbs: Headwater, topic: str, scopes: list[dict[str, Any]], count: int) -> int:
    from headwater.cli.progress import bar

    deleted = 0
    with bar(count, "deleting", unit_bytes=False) as step:
        for scope in scopes:
            more = True
            while more:
                done = verbs.delete_records(topic, **scope, limit=_AT_ONCE)
                deleted, more = deleted + done.deleted, done.more
                step(deleted, deleted, "deleting")
    return deleted


def purge(
    name: topics.Name,
    marker: Annotated[
        list[str] | None,
        typer.Option("--marker", metavar="TEXT", help="A text that should be gone: look for it in every file."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Take what deleted records left behind from the disk.

    Writes the log's file and the keyword index anew, forgets templates and vectors that only deleted records had, and
    says where a --marker text is still found. Exit 1 when one is. Appends wait meanwhile; backups are not reached.

    \b
    headwater delete tickets --key customer-1182 --yes
    headwater topics purge tickets --marker customer-1182 --marker 'Jane Roe'
    """
    markers = marker or []
    with session(data, url) as verbs:
        topic = verbs.topic(name)
        confirmed(f"Write the files of {name} anew? Appends to all topics wait meanwhile ({output.size(topic.bytes)}).", yes)
        report = verbs.purge_topic(name, markers=markers)
    if json:
        output.show_json(report)
    else:
        for what, number in report.removed.items():
            output.out(f"{what:<20}  {number:,} removed")
        before, after = report.log_bytes
        output.out(f"{'log':<20}  {output.size(before)} before, {output.size(after)} now")
        for text, files in report.found.items():
            where = f"still found in {', '.join(files)}" if files else f"found in none of {output.plural(report.files, 'file')}"
            output.out(f"{output.line_of(text, 60)!r}: {where}")
        for note in report.notes:
            output.note(note)
    output.say(f"purged {name} in {report.seconds:.1f} s")
    if any(report.found.values()):
        output.say("what is still found stands in records that were not deleted, or in input set aside (`headwater dlq`)")
        raise typer.Exit(1)
