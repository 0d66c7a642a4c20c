"""Replies as tables: for pandas, polars, Arrow, and notebooks. None of these libraries is needed until it is asked for."""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from headwater.errors import UsageError
from headwater.records import Citation, Hit, Page, Pattern, PatternsReply, Record, RecordView, SearchReply, Timeline
from headwater.records.tabular import Tabular
from headwater.visible import visible

_SHOWN_CHARS = 300
_LINE_CHARS = 80  # of a cell in a terminal
_SHOWN_ROWS = 50
_SHOWN_ITEMS = 5


def rows(reply: Tabular) -> list[dict[str, Any]]:
    """One flat row for each hit, pattern, record, bucket, or whatever a reply is a list of; `attributes` stays a mapping."""
    if isinstance(reply, SearchReply):
        return [_hit(h) for h in reply.hits]
    if isinstance(reply, PatternsReply):
        return [_pattern(p) for p in reply.patterns]
    if isinstance(reply, Page):
        return [_record(r) for r in reply.records]
    if isinstance(reply, RecordView):
        return [_record(r) for r in (*reply.before, reply.record, *reply.after)]
    if isinstance(reply, Timeline):
        return [{"start": b.start, "count": b.count, **{f"topics.{k}": v for k, v in b.topics.items()}} for b in reply.buckets]
    return [_flat(item) for item in _items(reply)]


def to_pandas(reply: Tabular) -> Any:
    """A pandas.DataFrame of `rows`; UsageError where pandas is not installed."""
    return _load("pandas").DataFrame(rows(reply))


def to_polars(reply: Tabular) -> Any:
    """A polars.DataFrame of `rows`, attributes as JSON text; UsageError where polars is not installed."""
    return _load("polars").DataFrame([_scalars(r) for r in rows(reply)], infer_schema_length=None)


def to_arrow(reply: Tabular) -> Any:
    """A pyarrow.Table of `rows`, attributes as JSON text; UsageError where pyarrow is not installed."""
    return _load("pyarrow").Table.from_pylist([_scalars(r) for r in rows(reply)])


def to_html(reply: Tabular) -> str:
    """A table for a notebook. Whatever records say is shown as text: escaped, with what hides made visible."""
    found = rows(reply)
    if not found:
        return "<p>nothing found</p>"
    columns = _columns(found)
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(_cell(r.get(c)) for c in columns) + "</tr>" for r in found[:_SHOWN_ROWS])
    more = f"<p>and {len(found) - _SHOWN_ROWS} more</p>" if len(found) > _SHOWN_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def to_text(reply: Tabular) -> str:
    """The same table for a terminal: a line for each row, what hides made visible, what is long cut and that shown."""
    found = rows(reply)
    if not found:
        return "nothing found"
    columns = _columns(found)
    table = [columns, *([_line(r.get(c)) for c in columns] for r in found[:_SHOWN_ROWS])]
    wide = [max(len(line[n]) for line in table) for n in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, wide, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, f"and {len(found) - _SHOWN_ROWS:,} more"] if len(found) > _SHOWN_ROWS else lines)


def _columns(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return [c for c in found[0] if c in _COLUMNS] or list(found[0])


def fields_text(value: Any) -> str:
    """A value's fields for a terminal, a line for each that says something."""
    said = [(name, _line(_brief(v), _SHOWN_CHARS)) for name, v in _said(value)]
    wide = max((len(name) for name, _ in said), default=0)
    return "\n".join([type(value).__name__, *(f"  {name:<{wide}}  {text}" for name, text in said)])


def answer_text(text: str, citations: Sequence[Citation] = (), note: str = "") -> str:
    """An answer for a terminal: its text, each citation with its address and quote, and how it was made."""
    cited = [f"[{c.n}] {c.address}: {c.quote}" for c in citations]
    return visible("\n\n".join(filter(None, (text, "\n".join(cited), note and f"-- {note}"))))


def fields_html(value: Any) -> str:
    """A value's fields for a notebook, a row for each that says something; what records say is escaped."""
    body = "".join(f"<tr><th>{html.escape(name)}</th>{_cell(_brief(v))}</tr>" for name, v in _said(value))
    return f"<table><caption>{html.escape(type(value).__name__)}</caption><tbody>{body}</tbody></table>"


def answer_html(text: str, citations: Sequence[Citation] = (), note: str = "") -> str:
    """An answer for a notebook: its text as text, then each citation with its address and quote. All of it escaped."""
    shown = "".join(f"<p>{_shown(part)}</p>" for part in text.split("\n") if part.strip())
    cited = "".join(f"<li value='{c.n}'><code>{_shown(c.address)}</code>: {_shown(c.quote)}</li>" for c in citations)
    listed = f"<ol>{cited}</ol>" if cited else ""
    return shown + listed + (f"<p><small>{_shown(note)}</small></p>" if note else "")


def _shown(text: str) -> str:
    return html.escape(visible(text))


_COLUMNS = (
    "id", "address", "timestamp", "key", "value", "score", "why", "severity", "what", "text", "count", "records", "new",
    "level", "label", "confidence", "problem", "example", "start", "fired",
)  # fmt: skip


def _items(reply: Any) -> Sequence[Any]:
    """What a reply lists: its first tuple that has values in it, else none."""
    listed = (getattr(reply, field.name) for field in fields(reply))
    return next((v for v in listed if isinstance(v, tuple) and v and is_dataclass(v[0])), ())


def _flat(item: Any) -> dict[str, Any]:
    """The fields of a value; of a record in it the text, of other values in it nothing."""
    row: dict[str, Any] = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if isinstance(value, Record):
            row |= {"timestamp": value.timestamp, "key": value.key, "value": value.value}
        elif isinstance(value, tuple):
            if not any(is_dataclass(v) for v in value):
                row[field.name] = list(value)
        elif not is_dataclass(value):
            row[field.name] = value
    return row


def _said(value: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of the fields that say something."""
    for field in fields(value):
        if (found := getattr(value, field.name)) not in (None, "", (), {}):
            yield field.name, found


def _brief(value: Any) -> Any:
    """A field in one cell: texts, numbers and times as they are, the fields of values in it, of long lists the beginning."""
    if is_dataclass(value):
        return ", ".join(f"{name} {_brief(v)}" for name, v in _said(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_brief(v)}" for k, v in value.items())
    if isinstance(value, tuple | list):
        told = "; ".join(str(_brief(v)) for v in value[:_SHOWN_ITEMS])
        return told if len(value) <= _SHOWN_ITEMS else f"{len(value):,}: {told} ..."
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return f"{value:.6g}" if isinstance(value, float) else value


def _hit(hit: Hit) -> dict[str, Any]:
    passage = hit.passage
    return {
        "address": hit.address, "topic": hit.topic, "partition": hit.partition, "offset": hit.offset,
        "timestamp": hit.timestamp, "key": hit.key, "value": hit.value, "attributes": dict(hit.attributes),
        "score": hit.score, "distance": hit.distance, "passage_id": passage.id, "passage": passage.text,
        "count": passage.count, "first_seen": passage.first_seen, "last_seen": passage.last_seen,
    }  # fmt: skip


def _pattern(pattern: Pattern) -> dict[str, Any]:
    passage = pattern.passage
    return {
        "topic": pattern.topic, "text": passage.text, "count": pattern.count, "count_total": passage.count_total,
        "new": pattern.new, "level": pattern.level, "example": pattern.example, "first_seen": passage.first_seen,
        "last_seen": passage.last_seen, "passage_id": passage.id,
    }  # fmt: skip


def _record(record: Record) -> dict[str, Any]:
    return {
        "address": record.address, "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "seq": record.seq, "timestamp": record.timestamp, "appended": record.appended, "key": record.key,
        "value": record.value, "attributes": dict(record.attributes),
    }  # fmt: skip


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which mappings are JSON text: their fields differ from record to record."""
    import orjson

    return {k: orjson.dumps(v).decode() if isinstance(v, Mapping) else v for k, v in row.items()}


def _line(value: Any, most: int = _LINE_CHARS) -> str:
    text = f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else _plain(value)
    return visible(text if len(text) <= most else text[: most - 1] + "…", newlines="mark")


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    text = _plain(value)
    shown = visible(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
    return f"<td>{html.escape(shown)}</td>"


def _load(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"this needs {package}, which is not installed; `pip install {package}`") from error
