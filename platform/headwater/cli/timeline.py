"""`headwater timeline` and `headwater drift`: the course of topics in time, and whether one says other things than before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.search import show_changes
from headwater.cli.session import Csv, Data, Json, Jsonl, Since, Topics, Until, Url, names_of, session
from headwater.cli.words import QueryCommand

if TYPE_CHECKING:
    from headwater.records import Pattern, Timeline
    from headwater.records.markers import Marker

_BAR = 40  # columns of the longest bar
_TEXT_CHARS = 200  # of a pattern


def add(app: typer.Typer) -> None:
    app.command(cls=QueryCommand)(timeline)
    app.command()(drift)


def timeline(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="Only records that match; words must occur.")] = "",
    topics: Topics = None,
    since: Since = None,
    until: Until = None,
    buckets: Annotated[int, typer.Option(min=1, max=1000, help="At most so many bars.")] = 40,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """How many records match, by time; with what stands out meanwhile, and hints which topic came first.

    \b
    headwater timeline level:error --since 2h
    headwater timeline --topics logs,deploys,tickets --since 6h
    headwater timeline '"connection refused"' --topics logs --csv
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        reply = verbs.timeline(query, topics=names_of(topics), since=since, until=until, buckets=buckets)
    if form is output.Format.JSON:
        output.show_json(reply)
        return
    if form is output.Format.TEXT:
        _show_bars(reply)
    else:
        rows = ([b.start, b.count, b.topics, b.levels] for b in reply.buckets)
        output.show_all(form, reply.buckets, ("start", "count", "topics", "levels"), rows)
    output.show_coverage(form, reply.coverage)


def _show_bars(reply: Timeline) -> None:
    most = max((b.count for b in reply.buckets), default=0)
    if not most:
        output.say("no records match")
        return
    room, left = len(f"{most:,}"), list(reply.markers)
    for bucket in reply.buckets:
        while left and left[0].at < bucket.start:
            _show_marker(left.pop(0))
        filled = bucket.count * _BAR * 8 // most
        bar = "█" * (filled // 8) + (" ▏▎▍▌▋▊▉"[filled % 8] if filled % 8 else "")
        if bucket.count and not filled:
            bar = "▏"
        levels = [f"{count:,} {level}" for level, count in bucket.levels.items() if level in ("warn", "error", "fatal")]
        said = output.style(f"  {', '.join(reversed(levels))}", "yellow") if levels else ""
        output.out(f"{output.when(bucket.start)}  {bucket.count:>{room},}  {output.style(bar, 'cyan')}{said}".rstrip())
    for marker in left:
        _show_marker(marker)
    for lead in reply.leads:
        output.out(f"hint: {output.line_of(lead.what)}")
    output.note(f"each bar: {output.duration(reply.interval_s)}")


def _show_marker(marker: Marker) -> None:
    what = {"anomaly": f"anomaly {marker.id}", "event": f"event {marker.id}", "new": f"new {marker.severity}"}[marker.kind]
    head = output.style(f"{marker.topic} {what}", "bold")
    output.out(f"    {output.when(marker.at)}  {head}  {output.line_of(marker.text)}")


def drift(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="The time from which on it is looked at: 14:05, 2h.")],
    until: Until = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="TIME", help="Where the time it is compared with begins; four times as long at first."
        ),
    ] = None,
    query: Annotated[str, typer.Option("--query", "-q", help="Only records that match; words must occur.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="Patterns that rose, and that fell.")] = 10,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Whether a topic says other things since a time than before, and which patterns make the difference.

    \b
    headwater drift logs --since 14:05
    headwater drift tickets --since 7d --before 60d
    """
    with session(data, url) as verbs:
        found = verbs.drift(topic, since=since, until=until, before=before, q=query, limit=limit)
    if json:
        output.show_json(found)
        return
    output.out(f"{output.style(found.topic, 'bold')}  {output.line_of(found.what)}")
    window = f"{output.when(found.before)} to {output.when(found.since)}, and to {output.when(found.until)}"
    counts = f"{found.records_before:,} records before and {found.records_after:,} since"
    output.out(f"  {counts}, {found.meanings:,} meanings ({window})")
    for name, patterns in (("rose", found.rose), ("fell", found.fell)):
        if patterns:
            _show_moved(name, patterns)


def _show_moved(name: str, patterns: tuple[Pattern, ...]) -> None:
    output.out("")
    output.out(f"{name}:")
    show_changes(patterns, _TEXT_CHARS)
