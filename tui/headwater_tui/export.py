"""Records, patterns and answers written to a file: JSON lines, CSV or Markdown, by the file's ending."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from headwater.errors import StorageError, UsageError
from headwater.records import Answer, Pattern, Record
from headwater.visible import visible
from headwater_tui.rows import Found, Row

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to write: what stands above its text, the text, and all of it by name, the same names for all of a kind."""

    head: str
    text: str
    fields: Mapping[str, Any]


def write(entries: Sequence[Entry], path: Path) -> int:
    """Write them; how many. UsageError for another ending, or where the file exists."""
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path.name}: the name must end in {', '.join(_FORMS)}")
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(form(entries))
    except FileExistsError as error:
        raise UsageError(f"{path} exists; choose another name") from error
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    return len(entries)


def of_rows(rows: Sequence[Row]) -> list[Entry]:
    """The records that rows show."""
    return [_of_record(row) for row in rows if isinstance(row, Record | Found)]


def _of_record(row: Record | Found) -> Entry:
    shown = row.hit if isinstance(row, Found) else row
    fields = {"address": shown.address, "timestamp": shown.timestamp, "key": shown.key, "value": shown.value}
    fields |= {"attributes": dict(shown.attributes), "score": row.hit.score if isinstance(row, Found) else None}
    return Entry(f"{shown.address}, {_text(shown.timestamp)}", shown.value, fields)


def of_pattern(pattern: Pattern) -> Entry:
    """A pattern with its counts and times."""
    passage = pattern.passage
    fields = {
        "topic": pattern.topic, "pattern": passage.text, "count": pattern.count, "level": pattern.level, "new": pattern.new,
        "times": None if pattern.change is None else pattern.change.times, "first_seen": passage.first_seen,
        "last_seen": passage.last_seen, "example": pattern.example,
    }  # fmt: skip
    head = f"{pattern.topic}: {pattern.count:,} times, {_text(passage.first_seen)} to {_text(passage.last_seen)}"
    return Entry(f"{head}, such as {pattern.example}", passage.text, fields)


def of_answer(answer: Answer) -> Entry:
    """A question, its answer and what it cites."""
    cited = [
        {"n": c.n, "address": c.address, "quote": c.quote, "verified": c.verified, "supported": c.supported}
        for c in answer.citations
    ]
    fields: dict[str, Any] = {"id": answer.id, "question": answer.question, "answer": answer.text, "citations": cited}
    fields |= {"unsupported": list(answer.unsupported), "confidence": answer.confidence, "model": answer.model}
    said = "\n".join(f"[{c.n}] {c.address}: {c.quote}" for c in answer.citations)
    return Entry(answer.question, f"{answer.text}\n\n{said}".rstrip(), fields)


def _jsonl(entries: Sequence[Entry]) -> str:
    return "".join(orjson.dumps(entry.fields).decode() + "\n" for entry in entries)


def _csv(entries: Sequence[Entry]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    if entries:
        table.writerow(entries[0].fields)
    table.writerows([[_cell(value) for value in entry.fields.values()] for entry in entries])
    return out.getvalue()


def _cell(value: Any) -> str:
    """A cell's text; one that a spreadsheet would run as a formula begins with an apostrophe."""
    text = _text(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _markdown(entries: Sequence[Entry]) -> str:
    """A list, each text a code block whose fence it cannot close."""
    parts = []
    for entry in entries:
        text = visible(entry.text)
        fence = "`" * max(3, 1 + max((len(run) for run in _runs(text)), default=0))
        parts.append(f"- {visible(entry.head, newlines='mark')}\n\n{fence}\n{text}\n{fence}\n")
    return "\n".join(parts)


def _runs(text: str) -> list[str]:
    return re.findall("`+", text)


_FORMS: dict[str, Callable[[Sequence[Entry]], str]] = {".jsonl": _jsonl, ".csv": _csv, ".md": _markdown}
