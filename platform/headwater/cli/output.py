"""What commands write: lines and tables for people, JSON, JSON lines and CSV for programs, narration on stderr.

Text from outside never reaches a terminal unescaped: in lines and tables it goes through `visible`, in JSON every
character that is not printable is a `\\u` escape, which is the same JSON.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import typer

from headwater.visible import visible

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_LEVEL_STYLES = {"fatal": "red", "error": "red", "warn": "yellow"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STEPS = ((1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def chosen(*, json: bool = False, jsonl: bool = False, csv: bool = False) -> Format:
    """The format that the flags ask for; a usage error where they contradict each other."""
    asked = [f for f, given in ((Format.JSON, json), (Format.JSONL, jsonl), (Format.CSV, csv)) if given]
    if len(asked) > 1:
        raise typer.BadParameter(f"--{asked[0]} and --{asked[1]} contradict each other; choose one")
    return asked[0] if asked else Format.TEXT


# ---------------------------------------------------------------------- where to


def out(line: str = "") -> None:
    """A line of data."""
    sys.stdout.write(_encodable(line, sys.stdout.encoding) + "\n")


def say(line: str = "") -> None:
    """A line of narration."""
    sys.stderr.write(_encodable(line, sys.stderr.encoding) + "\n")
    sys.stderr.flush()


def note(line: str) -> None:
    """A line about the data: below the data on stdout where both go to one terminal's reader, dimmed."""
    out(style(f"-- {line}", "dim"))


def _encodable(line: str, encoding: str | None) -> str:
    return line.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


def coloured(stream: Any = None) -> bool:
    """Whether a stream (stdout) shows colours: a terminal, without NO_COLOR."""
    stream = stream or sys.stdout
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, *names: str) -> str:
    """`text` in these styles where stdout shows them."""
    if not names or not coloured():
        return text
    return f"\x1b[{';'.join(_STYLES[n] for n in names)}m{text}\x1b[0m"


def level_style(level: str | None) -> tuple[str, ...]:
    return (_LEVEL_STYLES[level],) if level in _LEVEL_STYLES else ()


def width() -> int | None:
    """Columns of the terminal; None where stdout is not one, and nothing need be cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


# ---------------------------------------------------------------------- for people


def line_of(text: str, room: int | None = None) -> str:
    """`text` on one line, what is hidden visible; cut to `room` columns, which the ellipsis shows."""
    return clip(visible(text.strip(), newlines="mark").replace("\t", " "), room)


def clip(text: str, room: int | None) -> str:
    """At most `room` columns of `text`, ending in an ellipsis where it is cut."""
    if room is None or columns(text) <= room:
        return text
    kept, used = 0, 1
    for kept, character in enumerate(text):  # noqa: B007 - where it stopped is the answer
        used += columns(character)
        if used > room:
            break
    return text[:kept] + "…"


def columns(text: str) -> int:
    """Columns `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), wide: int | None = None
) -> list[str]:
    """Lines of an aligned table; columns in `right` are flush right, and the column `wide` (the last by default) is cut to what
    the terminal has left."""
    cells = [list(heads), *(list(row) for row in rows)]
    flush, last = set(right), len(heads) - 1
    wide = last if wide is None else wide
    widths = [max(columns(row[i]) for row in cells) for i in range(len(heads))]
    if (room := width()) is not None:
        others = sum(w for i, w in enumerate(widths) if i != wide) + 2 * last
        widths[wide] = min(widths[wide], max(room - others, 20))
    lines = []
    for row in cells:
        parts = []
        for i, cell in enumerate(row):
            cell = clip(cell, widths[i])
            gap = " " * (widths[i] - columns(cell))
            parts.append(gap + cell if i in flush else cell + gap)
        lines.append("  ".join(parts).rstrip())
    return lines


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), wide: int | None = None
) -> None:
    head, *lines = table(heads, rows, right=right, wide=wide)
    out(style(head, "bold"))
    for line in lines:
        out(line)


def when(moment: datetime | None) -> str:
    """`2026-11-21T14:05:00Z`, as it may stand in a query; `-` for None."""
    return "-" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def span(first: datetime, last: datetime) -> str:
    """`first .. last`, without saying the day, or one second, twice."""
    if when(first) == when(last):
        return when(first)
    return f"{when(first)} .. {when(last) if first.date() != last.date() else f'{last:%H:%M:%S}Z'}"


def number(value: float) -> str:
    """`12,345`; `0.25`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def size(count: float) -> str:
    """`1.2 MB`."""
    for step, unit in _STEPS:
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """`45 s`, `2 min`, `1 h 30 min`, `13 days`: the two largest units that matter."""
    whole = round(seconds)
    if whole < 1:
        return f"{seconds:.1g} s"
    parts = []
    for name, unit in (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, unit)
        if count:
            parts.append(plural(count, name) if name == "day" else f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2])


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------- for programs


def json_text(value: Any) -> str:
    """The wire form of a value, characters that are not printable as escapes."""
    from headwater.wire import encode

    text = encode(value).decode()
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_json_escape, text)


_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def _json_escape(found: re.Match[str]) -> str:
    character = found.group()
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def show_json(value: Any) -> None:
    out(json_text(value))


def show_csv(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as CSV; a cell that a spreadsheet would run as a formula is quoted with an apostrophe."""
    append_csv(heads)
    for row in rows:
        append_csv(row)


def append_csv(row: Sequence[Any]) -> None:
    """One more row of CSV."""
    import csv

    csv.writer(sys.stdout, lineterminator="\n").writerow([_cell(value) for value in row])


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping | list | tuple):
        return json_text(value)
    if isinstance(value, str):
        text = visible(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return value


def show_all(form: Format, values: Sequence[Any], heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A list of values in one of the formats for programs; `heads` and `rows` are its CSV."""
    if form is Format.CSV:
        show_csv(heads, rows)
    elif form is Format.JSONL:
        for value in values:
            show_json(value)
    else:
        show_json(list(values))


# ---------------------------------------------------------------------- coverage


def coverage_line(coverage: Any, *, pages: bool = True) -> str:
    """What a reply says of itself, in one line; `pages`: the command can be asked for the next page."""
    parts = [f"searched {plural(coverage.searched, 'record')} in {', '.join(coverage.topics) or 'no topic'}"]
    if coverage.since:
        parts.append(f"since {when(coverage.since)}")
    if coverage.until:
        parts.append(f"until {when(coverage.until)}")
    if coverage.omitted:
        parts.append(f"at least {coverage.omitted:,} more matched")
    if coverage.next_cursor and pages:
        parts.append(f"next page: --cursor {coverage.next_cursor}")
    parts.extend(visible(text, newlines="mark") for text in coverage.notes)
    return "; ".join(parts)


def show_coverage(form: Format, coverage: Any, *, pages: bool = True) -> None:
    """The coverage line: behind text on stdout, beside data for programs on stderr (JSON carries it within)."""
    if form is Format.TEXT:
        note(coverage_line(coverage, pages=pages))
    elif form is not Format.JSON:
        say(f"-- {coverage_line(coverage, pages=pages)}")
