"""`headwater search`, `similar` and `patterns`: what is in the streams."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Since, Topics, Until, Url, names_of, pairs_of, session
from headwater.cli.words import QueryCommand, excerpt, pattern_of, terms_of

if TYPE_CHECKING:
    from headwater.composed import LiveEvent
    from headwater.records import Hit, Mode, Pattern, PatternsReply, SearchReply

TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, help="At most so many hits.")]
Full = Annotated[bool, typer.Option("--full", help="Whole texts, however long.")]
Cursor = Annotated[str | None, typer.Option(help="Go on where an earlier reply ended.")]
_MODES = ("hybrid", "keyword", "semantic")
_TEXT_CHARS = 300  # of a hit's text where stdout is no terminal; --full shows all
_HIT_HEADS = (
    "score", "count", "address", "timestamp", "level", "key", "value", "passage", "first_seen", "last_seen", "attributes",
)  # fmt: skip
_PATTERN_HEADS = ("count", "first_seen", "last_seen", "level", "new", "template", "passage_id", "example")
_SCORES = (
    "score: 0 to 1, the share of meaning and that of words together (semantic_weight of the topic, mostly one half each); "
    "about 0.5 is all that one of them alone can give"
)


def add(app: typer.Typer) -> None:
    app.command(cls=QueryCommand)(search)
    app.command()(similar)
    app.command(cls=QueryCommand)(patterns)


# ---------------------------------------------------------------------- search


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help='Words, "phrase", -not, field:value, since:2h, mode:keyword.')],
    topics: Topics = None,
    top_k: TopK = 10,
    mode: Annotated[str | None, typer.Option(help="hybrid (the default), keyword or semantic.")] = None,
    since: Since = None,
    until: Until = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", "-f", metavar="NAME=VALUE", help="Only records with this attribute.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(min=0, max=1, help="Leave out hits below this score.")] = None,
    cursor: Cursor = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="What was stored before this time, in the versions of then.")
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Read the best hits again with the local cross-encoder.")] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=200, max=200_000, help="Most tokens of the reply; hits of one pattern are one."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="How it was found: plan, candidates, timings, what scores mean.")
    ] = False,
    live: Annotated[bool, typer.Option("--live", help="Print new hits as they arrive; Ctrl+C ends.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="With --live: end after so many hits.")] = None,
    full: Full = False,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Search by meaning and by words.

    A hit is a passage with its best record, and how often it occurred.

    \b
    headwater search "customers billed two times"
    headwater search 'timeout level:error -healthcheck' --since 2h --topics logs
    headwater search '"connection refused" host:web-1' --mode keyword --json
    headwater search 'payment failures' --live
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    wanted = _mode(mode)
    if live and (since or until or explain or as_of or rerank):
        raise typer.BadParameter(
            "--live is about what arrives from now on; leave out --since, --until, --as-of, --rerank, --explain"
        )
    if limit is not None and not live:
        raise typer.BadParameter("--limit goes with --live; --top-k says how many hits a search gives")
    with session(data, url) as verbs:
        if live:
            scope: dict[str, Any] = {
                "topics": names_of(topics),
                "mode": wanted,
                "filters": dict(pairs_of(filters, "--filter")) or None,
            }
            _follow(verbs.live(query, **scope, min_score=min_score, after=cursor), form, full, limit, query)
            return
        reply = verbs.search(
            query, topics=names_of(topics), top_k=top_k, mode=wanted, since=since, until=until,
            filters=dict(pairs_of(filters, "--filter")) or None, min_score=min_score, explain=explain, cursor=cursor,
            as_of=as_of, rerank=rerank, max_tokens=max_tokens,
        )  # fmt: skip
    _show_hits(reply, form, full, query=query)


def _follow(events: Iterator[LiveEvent], form: output.Format, full: bool, limit: int | None, query: str) -> None:
    """Print hits as they come; what was missed is said."""
    found, matching = 0, pattern_of(terms_of(query))
    if form is output.Format.CSV:
        output.show_csv(_HIT_HEADS, ())
    for event in events:
        if event.event == "ready":
            output.say("waiting for new hits; Ctrl+C ends")
        elif event.event == "skipped":
            output.say(f"fell behind: {output.plural(event.skipped, 'record')} of {event.topic} went before they could be read")
        if event.hit is None:
            continue
        if form is output.Format.TEXT:
            show_hit(event.hit, full=full, matching=matching)
        elif form is output.Format.CSV:
            output.append_csv(_hit_row(event.hit))
        else:
            output.show_json(event.hit)
        sys.stdout.flush()
        found += 1
        if limit is not None and found >= limit:
            return


def similar(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, or a whole address such as logs/0/42.")],
    offset: Annotated[int | None, typer.Option(min=0, help="Offset of the record.")] = None,
    partition: Annotated[int, typer.Option(min=0, help="Its partition.")] = 0,
    topics: Topics = None,
    top_k: TopK = 10,
    full: Full = False,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What is nearest in meaning to a record.

    Passages of its own topic, unless others are named.

    \b
    headwater similar logs --offset 4711
    headwater similar logs/0/4711 --topics logs,tickets
    """
    from headwater.records import parse_address

    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    if "/" in topic:
        topic, partition, offset = parse_address(topic)
    if offset is None:
        raise typer.BadParameter("say which record: --offset N, or an address such as logs/0/42")
    with session(data, url) as verbs:
        reply = verbs.similar(topic, offset=offset, partition=partition, top_k=top_k, topics=names_of(topics))
    _show_hits(reply, form, full, pages=False)


def _mode(mode: str | None) -> Mode | None:
    from typing import cast

    if mode is not None and mode not in _MODES:
        raise typer.BadParameter(f"--mode takes {', '.join(_MODES)}, not {mode!r}")
    return cast("Mode | None", mode)


def _show_hits(reply: SearchReply, form: output.Format, full: bool, *, query: str = "", pages: bool = True) -> None:
    if form is output.Format.JSON:
        output.show_json(reply)
        return
    if form is output.Format.TEXT:
        matching = pattern_of(terms_of(query))
        for hit in reply:
            show_hit(hit, full=full, explain=reply.explain is not None, matching=matching)
        if not reply.hits:
            output.say("nothing found")
    else:
        output.show_all(form, reply.hits, _HIT_HEADS, (_hit_row(hit) for hit in reply))
    if reply.explain is not None:
        _show_explain(reply.explain, form)
    output.show_coverage(form, reply.coverage, pages=pages)


def _hit_row(hit: Hit) -> list[Any]:
    passage = hit.passage
    return [
        round(hit.score, 4), passage.count, hit.address, hit.timestamp, hit.attributes.get("level"), hit.key, hit.value,
        passage.text, passage.first_seen, passage.last_seen, hit.attributes,
    ]  # fmt: skip


def _document(hit: Hit) -> str:
    """Which document a hit stands in, and on which page."""
    if hit.key is None or "format" not in hit.attributes:
        return ""
    page = f", page {hit.attributes['page']}" if "page" in hit.attributes else ""
    return f"{output.line_of(hit.key, 60)}{page}: "


def show_hit(
    hit: Hit, *, full: bool = False, explain: bool = False, most: int = _TEXT_CHARS, matching: re.Pattern[str] | None = None
) -> None:
    """score, xCOUNT, address, time, level, text; for a passage that occurred more than once also its first and last time.
    Words that match are marked."""
    level = str(hit.attributes.get("level") or "-")
    head = (
        f"{output.style(f'{hit.score:.2f}', 'bold')}  {f'x{hit.passage.count:,}':<7}  {output.style(hit.address, 'cyan')}  "
        f"{output.when(hit.timestamp)}  {output.style(level, *output.level_style(level))}"
    )
    where = _document(hit)
    output.out(f"{head}  {where}{_text(hit, full, len(hit.address) + len(level) + len(where) + 41, most, matching)}")
    if hit.passage.count > 1:
        template = f"  {output.line_of(hit.passage.text, None if full else 160)}" if hit.passage.text != hit.value else ""
        seen = output.span(hit.passage.first_seen, hit.passage.last_seen)
        output.out(f"      {output.style(f'seen {seen}{template}', 'dim')}")
    if explain:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in hit.scores.items())
        distance = "" if hit.distance is None else f"; distance {hit.distance:.3f}"
        output.out(f"      {output.style(f'{scores}{distance}; passage {hit.passage.id}', 'dim')}")


def _text(hit: Hit, full: bool, used: int, most: int, matching: re.Pattern[str] | None) -> str:
    """What of the record shows why it was found: of a long one, or one that holds several passages, the stretch of the
    passage with the words looked for."""
    text, wide = hit.value, output.width()
    room = most if wide is None else max(2 * wide - used, 60)
    if not full:
        span = hit.span
        if span is not None and len(text) > room:
            part = excerpt(text[span.start : span.end], matching, room - 2)
            before = "…" if span.start and not part.startswith("…") else ""
            text = f"{before}{part}{'…' if span.end < len(text) and not part.endswith('…') else ''}"
        else:
            text = excerpt(text, matching, room)
    shown = output.line_of(text, None if full else room + 2)
    return matching.sub(lambda found: output.style(found.group(), "bold"), shown) if matching else shown


def _step(step: Any) -> str:
    """`look up 3.1 ms (passages 175, in_scope 22)`."""
    numbers = ", ".join(f"{name} {value:,}" for name, value in step.items() if name not in ("step", "ms"))
    return f"{step['step']} {step['ms']} ms ({numbers})"


def _show_explain(explain: Any, form: output.Format) -> None:
    write = output.note if form is output.Format.TEXT else output.say
    write(_SCORES)
    for plan in explain.get("plans", ()):
        steps = "; ".join(_step(step) for step in plan["steps"])
        write(f"plan of {plan['topic']} ({plan['model']}): {plan['plan']}; {plan['why']}" + (f"; {steps}" if steps else ""))
    for name, value in explain.items():
        if name == "plans":
            continue
        write(f"{name}: {value if isinstance(value, str | int | float) else output.json_text(value)}")


# ---------------------------------------------------------------------- patterns


def patterns(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="Only what matches.")] = "",
    since: Since = None,
    until: Until = None,
    new_since: Annotated[
        str | None, typer.Option("--new-since", metavar="TIME", help="Only what was first seen since then: 14:05, 2h.")
    ] = None,
    gone_since: Annotated[
        str | None, typer.Option("--gone-since", metavar="TIME", help="Only what came regularly and does not since then.")
    ] = None,
    changed_since: Annotated[
        str | None, typer.Option("--changed-since", metavar="TIME", help="Only what comes more or less often since then.")
    ] = None,
    fields: Annotated[bool, typer.Option("--fields", help="Also what varying places and attributes hold.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many; 100 with --fields.")] = 30,
    cursor: Cursor = None,
    full: Full = False,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What a topic consists of, with counts.

    Its passages (templates of log lines) with first and last time; with --new-since only those that are new.

    \b
    headwater patterns logs
    headwater patterns logs --new-since 14:05
    headwater patterns logs --changed-since 14:05
    headwater patterns logs timeout --fields --limit 5
    headwater patterns logs level:error --since 1h --csv
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        reply = verbs.patterns(
            topic, q=query, since=since, until=until, new_since=new_since, gone_since=gone_since, changed_since=changed_since,
            fields=fields, limit=limit, cursor=cursor,
        )  # fmt: skip
    if form is output.Format.JSON:
        output.show_json(reply)
        return
    if form is output.Format.TEXT and fields:
        _show_fields(reply, None if full else _TEXT_CHARS)
    elif form is output.Format.TEXT:
        show_patterns(reply, full=full)
    else:
        output.show_all(form, reply.patterns, _PATTERN_HEADS, (_pattern_row(p) for p in reply.patterns))
    output.show_coverage(form, reply.coverage)


def show_patterns(reply: PatternsReply, *, full: bool = False, most: int = _TEXT_CHARS) -> None:
    """A table: count, first, last, level, NEW where it is, the template."""
    if not reply.patterns:
        output.say("no patterns here")
        return
    cut = None if full else most
    if reply.patterns[0].change is not None:
        show_changes(reply.patterns, cut)
        return
    rows = (
        [output.number(p.count), output.when(p.passage.first_seen), output.when(p.passage.last_seen), p.level or "-",
         "NEW" if p.new else "", output.line_of(p.passage.text, cut)]
        for p in reply.patterns
    )  # fmt: skip
    heads = ("COUNT", "FIRST", "LAST", "LEVEL", "NEW", "PATTERN")
    if full:
        for row in (heads, *rows):
            output.out("  ".join(row))
    else:
        output.show_table(heads, rows, right=(0,))


def show_changes(patterns: Sequence[Pattern], cut: int | None) -> None:
    """A table: records an hour before and after, how many times as many, the chance that it is none, level, the template."""
    rows = [
        (f"{c.before / c.before_s * 3600:,.1f}", f"{c.after / c.after_s * 3600:,.1f}", _times(c.times, c.after),
         "<1e-9" if c.chance < 1e-9 else f"{c.chance:.1g}", p.level or "-", output.line_of(p.passage.text, cut))
        for p in patterns
        if (c := p.change) is not None
    ]  # fmt: skip
    output.show_table(("BEFORE/H", "AFTER/H", "CHANGE", "CHANCE", "LEVEL", "PATTERN"), rows, right=(0, 1, 2, 3))


def _show_fields(reply: PatternsReply, cut: int | None) -> None:
    """Each pattern with its places and attributes below it: how many values, the most frequent, the range of numbers."""
    if not reply.patterns:
        output.say("no patterns here")
    for pattern in reply.patterns:
        head = output.style(f"{pattern.count:,}x", "bold")
        output.out(f"{head}  {pattern.level or '-'}  {output.line_of(pattern.passage.text, cut)}")
        for field in pattern.fields:
            values = ", ".join(f"{output.line_of(top.value, 40)} ({top.count:,})" for top in field.top)
            unit = f" {field.unit}" if field.unit else ""
            span = ""
            if field.median is not None and field.least != field.most:
                span = f", {field.least:g} to {field.most:g}{unit}, median {field.median:g}{unit}"
            where = output.line_of(field.context) if field.kind == "place" else field.name
            about = "about " if field.distinct > field.records else ""
            output.out(f"    {output.style(where, 'cyan')}  {about}{output.plural(field.distinct, 'value')}{span}: {values}")


def _times(times: float, after: int) -> str:
    return "GONE" if not after else f"x{times:,.1f}" if times >= 1 else f"x1/{1 / times:,.1f}"


def _pattern_row(pattern: Pattern) -> list[Any]:
    passage = pattern.passage
    return [
        pattern.count, passage.first_seen, passage.last_seen, pattern.level, pattern.new, passage.text, passage.id,
        pattern.example,
    ]  # fmt: skip
