"""Rows written to a file: JSON lines, CSV or Markdown, by the file's ending."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from headwater.errors import StorageError, UsageError
from headwater.records import Record
from headwater.visible import visible
from headwater_tui.rows import Found, Row

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = ("address", "timestamp", "key", "value", "attributes", "score")


def write(rows: Sequence[Row], path: Path) -> int:
    """Write the records that rows show; how many. UsageError for another ending, or where the file exists."""
    written = [_plain(row) for row in rows if isinstance(row, Record | Found)]
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path.name}: the name must end in {', '.join(_FORMS)}")
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(form(written))
    except FileExistsError as error:
        raise UsageError(f"{path} exists; choose another name") from error
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    return len(written)


def _plain(row: Record | Found) -> dict[str, Any]:
    shown = row.hit if isinstance(row, Found) else row
    plain = {"address": shown.address, "timestamp": shown.timestamp, "key": shown.key, "value": shown.value}
    return {**plain, "attributes": dict(shown.attributes), "score": row.hit.score if isinstance(row, Found) else None}


def _jsonl(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows([[_cell(row[name]) for name in _COLUMNS] for row in rows])
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
    return orjson.dumps(value).decode() if isinstance(value, dict) else str(value)


def _markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A list, each value a code block whose fence its text cannot close."""
    parts = []
    for row in rows:
        text = visible(row["value"])
        fence = "`" * max(3, 1 + max((len(run) for run in _runs(text)), default=0))
        parts.append(f"- {row['address']}, {_text(row['timestamp'])}\n\n{fence}\n{text}\n{fence}\n")
    return "\n".join(parts)


def _runs(text: str) -> list[str]:
    return re.findall("`+", text)


_FORMS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {".jsonl": _jsonl, ".csv": _csv, ".md": _markdown}
