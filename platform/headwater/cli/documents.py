"""`headwater documents`: the documents of a topic, each in its latest version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Url, session

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records import Record

_CSV = ("key", "title", "format", "pages", "version", "characters", "appended", "replaced", "address")
_PAGE = 200  # documents at a time; each may be long


def add(app: typer.Typer) -> None:
    app.command()(documents)


def documents(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    versions: Annotated[
        bool, typer.Option("--versions", help="Former versions too, with the record that replaced them.")
    ] = False,
    json: Json = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Documents of a topic: title, format, pages, version.

    \b
    headwater documents handbook
    headwater documents handbook --versions
    headwater delete handbook --key old/plan.pdf
    """
    with session(data, url) as hw:
        found = sorted((_row(record) for record in _documents(hw, topic, versions)), key=lambda row: str(row["key"]))
    if json:
        output.show_json(found)
        return
    if csv:
        output.show_csv(_CSV, ([row[name] for name in _CSV] for row in found))
        return
    shown = ("key", "format", "pages", "version", "characters", *(("replaced", "address") if versions else ()), "title")
    lines = ([output.line_of("" if row[name] is None else str(row[name])) for name in shown] for row in found)
    for line in output.table([name.upper() for name in shown], lines, right=(2, 3, 4)) if found else ():
        output.out(line)
    output.say(output.plural(len(found), "version" if versions else "document"))


def _documents(hw: Headwater, topic: str, versions: bool) -> Iterator[Record]:
    """The records that came from documents, which say their format and title."""
    cursor: str | None = None
    while True:
        page = hw.records(topic, limit=_PAGE, cursor=cursor, versions=versions)
        yield from (r for r in page.records if r.key is not None and "format" in r.attributes and "title" in r.attributes)
        if (cursor := page.next_cursor) is None:
            return


def _row(record: Record) -> dict[str, Any]:
    about = record.attributes
    return {
        "key": record.key, "title": about["title"], "format": about["format"], "pages": about.get("pages"),
        "version": about.get("version"), "characters": len(record.value), "appended": record.appended.isoformat(),
        "replaced": about.get("replaced"), "address": record.address,
    }  # fmt: skip
