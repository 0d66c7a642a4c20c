"""Records as lines of a terminal. Their text is shown, never obeyed: no markup, no escape codes."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from headwater.records import Record
from headwater.visible import visible
from headwater_tui.rows import Found, Gap, Row, level_of

LEVEL_STYLES = {"trace": "dim", "debug": "dim", "info": "", "warn": "yellow", "error": "bold red", "fatal": "bold white on red"}
_BARS = " ▏▎▍▌▋▊▉█"
_MOST_CHARS = 4000  # of one record in a list
_HANGING = "    "  # before the second line of a record and those that follow
MATCH = "reverse"
MARK = "bold magenta"


def line(
    row: Row,
    *,
    words: Collection[str] = (),
    topics: bool = False,
    marked: bool = False,
    score: bool = False,
    whole: bool = False,
) -> Text:
    """One row: mark, score bar, time, topic, level, text with `words` highlighted; its own line breaks where it is `whole`."""
    text = Text(no_wrap=True, end="")
    if isinstance(row, Gap):
        return text.append("· deleted or past its retention" if row.gone else "…", "dim")
    text.append("◆ " if marked else "  ", MARK)
    if isinstance(row, Found):
        hit, passage = row.hit, row.hit.passage
        if score:
            text.append(bar(hit.score, 5), "cyan").append(f" {hit.score:.2f} ", "dim")
        text.append(clock(hit.timestamp), "dim").append(" ")
        topic, value = hit.topic, hit.value
        if passage.count > 1:
            value = f"×{passage.count:,} {value}"
    else:
        text.append(clock(row.timestamp), "dim").append(" ")
        topic, value = row.topic, row.value
    if topics:
        text.append(f"{topic[:16]:<16} ", "blue")
    level = level_of(row)
    if level:
        text.append(f"{visible(level)[:5]:<5} ", LEVEL_STYLES.get(level, ""))
    start = len(text)
    text.append(flat(value, newlines="keep" if whole else "mark"), "red" if level in ("error", "fatal") else "")
    highlight(text, words, start)
    return text


def flat(value: str, *, newlines: Literal["keep", "mark"] = "mark") -> str:
    """Text on one line, hidden and control characters as escapes, its length bounded and that said."""
    cut = value if len(value) <= _MOST_CHARS else value[:_MOST_CHARS] + f" … {len(value) - _MOST_CHARS:,} characters more"
    return visible(cut, newlines=newlines).expandtabs(4)


def stripped(text: Text, console: Console) -> Strip:
    """A line as the terminal draws it."""
    return Strip([segment for segment in text.render(console) if isinstance(segment, Segment)])


def windowed(text: Text, console: Console, left: int, width: int) -> Strip:
    """The columns of a line that are in sight; a sign stands where it goes on to the left or to the right."""
    strip = stripped(text, console)
    more = Strip([Segment("›", Style(dim=True))]) if strip.cell_length > left + width > 0 else Strip([])
    less = Strip([Segment("‹", Style(dim=True))]) if left and strip.cell_length else Strip([])
    return Strip.join([less, strip.crop(left + less.cell_length, left + width - more.cell_length), more])


def wrapped(text: Text, console: Console, width: int, most: int) -> list[Text]:
    """A text on as many lines as it needs, at most `most`; the last says how many are left out."""
    parts = text.wrap(console, max(width - len(_HANGING), 1), overflow="fold", no_wrap=False) or [text]
    lines = [parts[0], *(Text(_HANGING, end="").append_text(part) for part in parts[1:])]
    if len(lines) > most:
        lines[most - 1 :] = [Text(f"{_HANGING}… {len(lines) - most + 1:,} more lines (Enter shows all)", "dim italic", end="")]
    return lines


def highlight(text: Text, words: Collection[str], start: int = 0) -> None:
    """Mark where words begin in a text, whatever their case."""
    if not words:
        return
    pattern = re.compile("|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)), re.IGNORECASE)
    for found in pattern.finditer(text.plain, start):
        text.stylize(MATCH, found.start(), found.end())


def words_of(q: str) -> list[str]:
    """The words and phrases of a query that a record may show: no fields, no `-not`, no parameters."""
    free = re.sub(r'-"[^"]*"|-\S+|\S+:(?:"[^"]*"|\S*)', " ", q)
    phrases = re.findall(r'"([^"]+)"', free)
    rest = re.sub(r'"[^"]*"?', " ", free)
    return [w for w in (*phrases, *re.findall(r"\w{2,}", rest)) if w]


def bar(share: float, width: int) -> str:
    """A share from 0 to 1 as a bar of eighths of a cell."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_BARS[rest] if rest else "")).ljust(width)


def clock(moment: datetime, now: datetime | None = None) -> str:
    """A time in UTC: of today to the millisecond, else with its date. Always 12 characters."""
    moment = moment.astimezone(UTC)
    today = (now or datetime.now(UTC)).date()
    if moment.date() == today:
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
    return f"{moment:%m-%d %H:%M} " if moment.year == today.year else f"{moment:%Y-%m-%d}  "


def _exactly(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def number(value: float) -> str:
    """A count for people: 950, 12.3k, 4.1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:g}" if value == int(value) else f"{value:.1f}"


def plural(count: int, noun: str) -> str:
    """`1 hit`, `1,200 hits`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def sized(count: int) -> str:
    """Bytes for people."""
    return f"{number(count)}B"


def about(record: Record) -> list[tuple[str, str]]:
    """What is known of a record beside its text, as names and values."""
    known = [
        ("address", record.address), ("time", _exactly(record.timestamp)), ("stored", _exactly(record.appended)),
        ("key", record.key or ""),
    ]  # fmt: skip
    known += [(name, str(value)) for name, value in sorted(record.attributes.items())]
    return [(visible(name), flat(value)) for name, value in known if value != ""]
