"""Replies as tables: for pandas, polars, Arrow, and notebooks. None of these libraries is needed until it is asked for."""

from __future__ import annotations

import html
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.errors import UsageError
from headwater.records import Citation, Hit, Page, Pattern, PatternsReply, Record, SearchReply, Timeline
from headwater.records.tabular import Tabular
from headwater.visible import visible

_SHOWN_CHARS = 300
_SHOWN_ROWS = 50


def rows(reply: Tabular) -> list[dict[str, Any]]:
    """One flat row for each hit, pattern, record or bucket; `attributes` stays a mapping."""
    if isinstance(reply, SearchReply):
        return [_hit(h) for h in reply.hits]
    if isinstance(reply, PatternsReply):
        return [_pattern(p) for p in reply.patterns]
    if isinstance(reply, Page):
        return [_record(r) for r in reply.records]
    if not isinstance(reply, Timeline):
        raise UsageError(f"a {type(reply).__name__} has no rows")
    return [{"start": b.start, "count": b.count, **{f"topics.{k}": v for k, v in b.topics.items()}} for b in reply.buckets]


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
    columns = [c for c in found[0] if c in _COLUMNS] or list(found[0])
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(_cell(r.get(c)) for c in columns) + "</tr>" for r in found[:_SHOWN_ROWS])
    more = f"<p>and {len(found) - _SHOWN_ROWS} more</p>" if len(found) > _SHOWN_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def answer_html(text: str, citations: Sequence[Citation] = (), note: str = "") -> str:
    """An answer for a notebook: its text as text, then each citation with its address and quote. All of it escaped."""
    shown = "".join(f"<p>{_shown(part)}</p>" for part in text.split("\n") if part.strip())
    cited = "".join(f"<li value='{c.n}'><code>{_shown(c.address)}</code>: {_shown(c.quote)}</li>" for c in citations)
    listed = f"<ol>{cited}</ol>" if cited else ""
    return shown + listed + (f"<p><small>{_shown(note)}</small></p>" if note else "")


def _shown(text: str) -> str:
    return html.escape(visible(text))


_COLUMNS = ("address", "timestamp", "key", "value", "score", "text", "count", "new", "level", "example", "start")


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


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    shown = visible(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
    return f"<td>{html.escape(shown)}</td>"


def _load(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"this needs {package}, which is not installed; `pip install {package}`") from error
