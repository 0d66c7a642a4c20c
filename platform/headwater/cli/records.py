"""`headwater append`, `ingest` and `tail`: records in, and records as they come."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Since, Url, opening, pairs_of, session
from headwater.cli.words import QueryCommand

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.cli.load import Load, Tally
    from headwater.cli.progress import Step
    from headwater.errors import HeadwaterError
    from headwater.records import Record
    from headwater.sources import Batch
    from headwater.sources.convert import Converter
    from headwater.sources.exports.reading import ExportReading
    from headwater.sources.files import Reading
    from headwater.sources.shapes import Form

_LOOK_BACK = 20_000  # stored records among which `tail --last` looks for those that match

Topic = Annotated[str, typer.Argument(metavar="TOPIC")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when search finds the records.")]
_RECORD_HEADS = ("address", "timestamp", "key", "level", "value")
_SMALL_BYTES = 1 << 20  # a file that is delivered anew sooner than it is asked how far it has come
_KINDS = (
    "jsonl", "json", "table", "log", "lines", "document", "slack", "mbox", "github", "git", "journald", "sqlite", "jira",
    "zendesk", "discord", "parquet",
)  # fmt: skip


def add(app: typer.Typer) -> None:
    app.command()(append)
    app.command()(ingest)
    app.command(cls=QueryCommand)(tail)


# ---------------------------------------------------------------------- append


def append(
    topic: Topic,
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Records; without any, stdin is read.")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Input lines are JSON: {value, key?, timestamp?, attributes?, partition?, vector?}.")
    ] = False,
    multiline: Annotated[
        bool, typer.Option("--multiline", help="Join indented lines (stack traces) to the one before.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Key of the records.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="An attribute of the records.")
    ] = None,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Append records: texts, or lines of stdin.

    Lines are stored as they come, durably when the command returns. A topic that is not there is made.

    \b
    headwater append tickets "Payment failed for order 1182" --key u1 -a level=error
    journalctl -f | headwater append journal
    headwater append events --jsonl < events.jsonl
    """
    import asyncio

    from headwater.cli.load import check_name

    check_name(topic)
    if text and jsonl:
        raise typer.BadParameter("--jsonl reads stdin; give no TEXT with it")
    attributes = pairs_of(attribute, "--attribute")
    opened = opening(data, url)
    if not text and sys.stdin.isatty():
        output.say("reading records from the terminal, one a line; Ctrl+D ends")

    async def run() -> tuple[Tally, list[str]]:
        from headwater.cli.load import Load

        async with opened() as verbs:
            load = Load(verbs, topic, searchable=wait)
            if text:
                await _append_texts(load, text, key, attributes)
            else:
                await _append_stdin(load, jsonl, multiline, key, attributes)
            return load.tally, load.addresses if text else []

    tally, addresses = asyncio.run(run())
    for address in () if json else addresses:
        output.out(address)
    _finish(tally, topic, json)


async def _append_texts(load: Load, texts: Sequence[str], key: str | None, attributes: dict[str, str]) -> None:
    from headwater.records import Draft

    drafts = [Draft(value, key, None, attributes, position=n) for n, value in enumerate(texts)]
    await load.store(drafts, f"append#{time.time_ns()}")


async def _append_stdin(load: Load, jsonl: bool, multiline: bool, key: str | None, attributes: dict[str, str]) -> None:
    from headwater.sources.stdin import Stdin

    async for batch in Stdin("-", form="jsonl" if jsonl else "log" if multiline else "lines", quiet_s=0.3).batches(None):
        await load.refuse(batch.faults, batch.stream)
        drafts = batch.drafts
        if key is not None or attributes:
            drafts = [
                d._replace(key=d.key if d.key is not None else key, attributes={**attributes, **d.attributes}) for d in drafts
            ]
        await load.store(drafts, batch.stream)


# ---------------------------------------------------------------------- ingest


def ingest(
    topic: Topic,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, globs, or - for stdin.")],
    kind: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="Read as that (below); by content and name if not given."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Deliver documents anew, also deleted ones; each replaces what it was.")
    ] = False,
    wait: Wait = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Load files once: jsonl, csv, log, txt, gz, documents, exports.

    Documents are PDF, Word, PowerPoint, Excel, HTML, notebooks, Markdown and code; exports those of Slack (zip or folder),
    Discord, GitHub, Jira, Zendesk, mbox, journald, SQLite, Parquet, and a git repository's log. KIND is one of jsonl, json,
    table, log, lines, document, slack, discord, github, jira, zendesk, mbox, journald, sqlite, parquet, git.

    Run it again to go on after an interruption: what is stored already is not stored twice.

    \b
    headwater ingest logs /var/log/app/*.log
    headwater ingest tickets export.csv.gz
    headwater ingest docs 'docs/**/*.md' handbook.pdf --wait
    headwater ingest chat slack-export.zip
    zcat huge.gz | headwater ingest logs -
    """
    import asyncio

    from headwater.cli.load import check_name
    from headwater.errors import StorageError, UnreachableError

    check_name(topic)
    if kind is not None and kind not in _KINDS:
        raise typer.BadParameter(f"--as takes {', '.join(_KINDS)}, not {kind!r}")
    paths = _expanded(files)
    opened = opening(data, url)

    async def run() -> Tally:
        from headwater.cli.load import Load
        from headwater.engine import Engine

        async with opened() as verbs:
            load = Load(verbs, topic)
            await _ingest_all(load, paths, kind, again)
            if (wait or isinstance(verbs, Engine)) and load.tally.stored:
                output.say("stored; waiting until search finds it all")
                await load.settle()
            return load.tally

    try:
        tally = asyncio.run(run())
    except (KeyboardInterrupt, UnreachableError, StorageError):
        output.say("stopped; what is stored stays, and the same command goes on from there")
        raise
    _finish(tally, topic, json)


def _expanded(files: Sequence[str]) -> list[str]:
    """The files of globs, sorted; NotFoundError for a glob of nothing."""
    from headwater.errors import NotFoundError

    found: list[str] = []
    for name in files:
        if name != "-" and glob.has_magic(name) and not Path(name).exists():
            matched = sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file())
            if not matched:
                raise NotFoundError(f"no file matches {name}")
            found.extend(matched)
        else:
            found.append(name)
    return list(dict.fromkeys(found))


async def _ingest_all(load: Load, paths: Sequence[str], kind: str | None, again: bool) -> None:
    """Every file into the topic, in order, with a bar over all of them."""
    from headwater.cli.progress import bar
    from headwater.sources import Fault
    from headwater.sources.convert import Converter

    sizes = {path: os.path.getsize(path) if path != "-" and os.path.isfile(path) else 0 for path in paths}  # noqa: ASYNC240
    with bar(sum(sizes.values()), "reading") as step, Converter() as converter:
        before = 0
        for path in paths:
            if path == "-":
                await _ingest_piped(load, kind)
            else:
                try:
                    await _ingest_file(load, path, kind, step, before, converter, again)
                except _Unfit as error:
                    if len(paths) == 1:
                        raise error.error from None
                    await load.refuse([Fault(0, str(error.error))])  # the other files are none the worse for it
            before += sizes[path]


async def _ingest_file(
    load: Load, path: str, kind: str | None, step: Step, before: int, converter: Converter, again: bool
) -> None:
    """One file, from where an earlier load of it stopped; the next batch is read while the last one is stored."""
    import asyncio

    from headwater.errors import UsageError

    load.file, load.source = path, f"ingest:{os.path.abspath(path)}"  # noqa: ASYNC240
    reading = await asyncio.to_thread(_open, path, kind, converter)
    label = output.line_of(Path(path).name, 40)
    load.source = reading.source
    with reading:
        passed = 0  # records before the place where it goes on
        document = reading.kind == "document"
        if again and not document:
            raise _Unfit(UsageError(f"--again delivers documents anew, and {path} is none: its records would be stored twice"))
        earlier = await load.state() if document or reading.total_bytes > _SMALL_BYTES else None
        known = earlier is not None and earlier.get("stream") == reading.stream and not again
        run = (str(earlier.get("run", "")) if earlier and known else f"|{time.time_ns()}") if document else ""
        if earlier is not None and not again and earlier.get("kind") == reading.kind and reading.resume(earlier):
            passed = int(earlier.get("records", 0))
            load.tally.known += passed
        step(before + reading.done_bytes, load.tally.stored, label)
        ahead = asyncio.create_task(asyncio.to_thread(_next, reading))
        while (batch := await ahead) is not None:
            ahead = asyncio.create_task(asyncio.to_thread(_next, reading))
            passed += len(batch.drafts)
            state = {**batch.state, "kind": reading.kind, "records": passed}
            if document:
                state["run"] = run  # a text that comes back after another one is a new version
            if document and batch.drafts:
                state["latest"] = [reading.key]  # the file's earlier versions are to be found no more
            await load.deliver(batch.drafts, f"{batch.stream}|{reading.kind}{run}", state, batch.faults)
            step(before + reading.done_bytes, load.tally.stored, label)


class _Unfit(Exception):
    """A file that is no input at all, or more than one may be."""

    def __init__(self, error: HeadwaterError) -> None:
        self.error = error


def _open(path: str, kind: str | None, converter: Converter) -> Reading | ExportReading:
    """A file or export to read. One below the working directory is known by its path from there, another by its name."""

    from headwater.cli.load import PIECE_RECORDS
    from headwater.errors import LimitError, UsageError
    from headwater.sources.exports.reading import EXPORTS, ExportReading, export_of
    from headwater.sources.files import Kind, read

    here = Path.cwd()
    inside = not Path(path).is_absolute() and Path(path).resolve().is_relative_to(here)
    root = here if inside else None
    try:
        export = export_of(Path(path)) if kind is None else kind
        if export in EXPORTS:
            return ExportReading(path, export, batch_records=PIECE_RECORDS, converter=converter)
        return read(path, kind=cast("Kind | None", kind), root=root, batch_records=PIECE_RECORDS, converter=converter)
    except (UsageError, LimitError) as error:
        raise _Unfit(error) from error


def _next(reading: Reading | ExportReading) -> Batch | None:
    from headwater.errors import LimitError, UsageError

    try:
        return next(reading, None)
    except (UsageError, LimitError) as error:
        raise _Unfit(error) from error


async def _ingest_piped(load: Load, kind: str | None) -> None:
    from headwater.errors import UsageError
    from headwater.sources.stdin import Stdin

    if kind not in (None, "log", "lines", "jsonl", "table"):
        raise UsageError(f"--as {kind} needs a file; what is piped in is read line by line: log, lines, jsonl or table")
    async for batch in Stdin("-", form=cast("Form", kind or "log")).batches(None):
        await load.deliver(batch.drafts, batch.stream, faults=batch.faults)


def _finish(tally: Tally, topic: str, json: bool) -> None:
    """One line of what became of the input; exit 1 where some of it was no record."""
    if json:
        output.show_json(
            {"topic": topic, "stored": tally.stored, "duplicates": tally.known, "dead_letters": tally.dead_letters,
             "seconds": round(tally.seconds, 3), "records_per_s": round(tally.rate, 1)}
        )  # fmt: skip
    for file, fault in tally.shown:
        payload = f": {output.line_of(fault.payload[:200], 80)}" if fault.payload else ""
        output.say(f"  {output.line_of(file)} at {fault.position:,}: {output.line_of(fault.reason)}{payload}")
    known = f", {tally.known:,} were there already" if tally.known else ""
    dead = (
        f", {output.plural(tally.dead_letters, 'dead letter')} (`headwater dlq --topic {topic}`)" if tally.dead_letters else ""
    )
    rate = f" ({tally.rate:,.0f}/s)" if tally.seconds > 1 and tally.stored else ""
    output.say(f"{output.plural(tally.stored, 'record')} stored in {topic}{known}{dead}, in {tally.seconds:.1f} s{rate}")
    if tally.dead_letters:
        raise typer.Exit(1)


# ---------------------------------------------------------------------- tail


def tail(
    topic: Topic,
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="Only records that match: words, level:error, -word.")] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin with those of the last N records that match.")] = 10,
    since: Since = None,
    after: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Begin behind this record.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest record.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the text of each record.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", "--json", help="Print one JSON value a line.")] = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Follow a topic, filtered.

    Records are printed as they are stored; Ctrl+C ends.

    \b
    headwater tail logs
    headwater tail logs 'level:error -healthcheck'
    headwater tail logs --since 10m timeout
    headwater tail logs --from-start --limit 100 --jsonl
    """
    form = output.chosen(jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        if since is not None:
            query, from_start = f"{query} since:{since}".strip(), True
        if form is output.Format.CSV:
            output.show_csv(_RECORD_HEADS, ())
        history: list[Record] = []
        if not from_start and after is None and last:
            history, after = _newest(verbs, topic, query, last)
        for count, record in enumerate(chain(history, verbs.tail(topic, query, after=after, from_start=from_start)), 1):
            _show_record(record, form, raw)
            if limit is not None and count >= limit:
                return


def _newest(verbs: Headwater, topic: str, query: str, most: int) -> tuple[list[Record], str | None]:
    """The newest records that match among the last `_LOOK_BACK` stored, oldest first, and the address of the last one
    looked at, behind which to follow."""
    from headwater.matching import matches
    from headwater.query import parse

    wanted = parse(query, now_ms=time.time_ns() // 1_000_000)
    found: deque[Record] = deque(maxlen=most)
    seen: str | None = None
    cursor: str | None = str(max(verbs.topic(topic).watermark.stored - _LOOK_BACK, 0))
    while cursor is not None:
        page = verbs.records(topic, limit=1000, cursor=cursor)
        found.extend(record for record in page.records if matches(wanted, record))
        seen = page.records[-1].address if page.records else seen
        cursor = page.next_cursor
    return list(found), seen


def _show_record(record: Record, form: output.Format, raw: bool) -> None:
    from headwater.visible import visible

    level = str(record.attributes.get("level") or "")
    if form is output.Format.JSONL:
        output.show_json(record)
    elif form is output.Format.CSV:
        output.append_csv([record.address, record.timestamp, record.key, level, record.value])
    elif raw:
        output.out(visible(record.value) if sys.stdout.isatty() else record.value)
    else:
        shown = output.style(f"{level or '-':<5}", *output.level_style(level))
        head = f"{output.style(record.address, 'cyan')}  {output.when(record.timestamp)}  {shown}"
        output.out(f"{head}  {output.line_of(record.value)}")
    sys.stdout.flush()
