"""JSON objects and table rows -> drafts: which field is the value, the key, the time.

value: the first of value, text, message, body, msg, content, description that holds text, below the first of title,
subject, summary that holds a line it does not begin with (not above `value`, which says what it is); without any the
whole line is the value. key: key or id. time: timestamp, time, ts, @timestamp, created_at, created, datetime, date (ISO
8601, or epoch seconds, milliseconds, microseconds or nanoseconds told apart by size). Names are found as they are, else
in any case and with spaces or hyphens for underscores, as spreadsheets and exports write them. `attributes` and every
other field become attributes, the title too; lists and objects as their JSON text. NaN and infinities become text, and so
do integers beyond 64 bits; of duplicate keys the last counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from headwater.records import MAX_MS, MIN_MS, Draft, Scalar, to_ms

VALUE_FIELDS = ("value", "text", "message", "body", "msg", "content", "description")
TITLE_FIELDS = ("title", "subject", "summary")
KEY_FIELDS = ("key", "id")
TIME_FIELDS = ("timestamp", "time", "ts", "@timestamp", "created_at", "created", "datetime", "date")

_APART = re.compile(r"[\s-]+")
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)?)?")


class BadLine(ValueError):
    """A line that is no record; the message says why."""


def json_draft(line: str, position: int) -> Draft:
    """The draft of one line of JSON. Raises BadLine."""
    tree = _parse(line)
    if isinstance(tree, str):
        return Draft(tree, position=position)
    if not isinstance(tree, dict):
        return Draft(line.strip(), position=position)
    return object_draft(tree, line.strip(), position)


def object_draft(tree: Mapping[str, Any], whole: str, position: int) -> Draft:
    """The draft of a JSON object or table row whose text is `whole`. Raises BadLine."""
    rest = dict(tree)
    body = next((name for name in _named(tree, VALUE_FIELDS) if _is_text(tree[name])), None)
    value = whole if body is None else rest.pop(body)
    if body is not None and body != "value":
        titles = (tree[name].strip() for name in _named(rest, TITLE_FIELDS) if _is_text(tree[name]))
        if (title := next(titles, None)) is not None and not value.lstrip().startswith(title):
            value = f"{title}\n{value}"
    key = next((str(rest.pop(name)) for name in _named(rest, KEY_FIELDS) if _is_key(tree[name])), None)
    time_ms = None
    for name in _named(rest, TIME_FIELDS):
        if (time_ms := parse_time(rest[name])) is not None:
            del rest[name]
            break
    vector = _vector(rest.pop("vector")) if rest.get("vector") is not None else None
    partition = rest.pop("partition") if type(rest.get("partition")) is int and rest["partition"] >= 0 else None
    nested = rest.pop("attributes") if isinstance(rest.get("attributes"), dict) else {}
    attributes = {str(k): scalar(v) for k, v in {**rest, **nested}.items() if v is not None}
    return Draft(value, key, time_ms, attributes, partition, position, vector=vector)


def _named(tree: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The fields of `tree` that bear one of some names, in the order of the names: as they are, else however they are spelt."""
    found = [name for name in names if name in tree]
    if found or all(name.islower() and name.isidentifier() for name in tree):
        return found
    spelt = {folded(name): name for name in reversed(list(tree))}
    return [spelt[name] for name in names if name in spelt]


def folded(name: str) -> str:
    """A field's name as the names above are written: `Created At` is `created_at`."""
    return _APART.sub("_", name.strip().lower())


def parse_time(value: object) -> int | None:
    """Milliseconds since the epoch, or None where `value` is no time. ISO 8601 without a zone is UTC."""
    if isinstance(value, str):
        text = value.strip()
        if match := _ISO.fullmatch(text):
            day, clock, fraction, zone = match.groups()
            try:
                when = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or '').replace('Z', '+00:00')}")
                return to_ms(when) + int(((fraction or "") + "000")[:3])
            except (ValueError, OverflowError):
                return None
        if not _NUMBER.fullmatch(text) or len(text) > 30:
            return None
        value = float(text) if "." in text else int(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    for limit, scale in ((1e11, 1000), (1e14, 1), (1e17, 1e-3), (1e20, 1e-6)):
        if value < limit:
            return min(max(int(value * scale), MIN_MS), MAX_MS)
    return None


def scalar(value: object) -> Scalar:
    """`value` as an attribute: what cannot be one becomes its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if isinstance(value, str | int | float | bool):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False)


def cell(text: str) -> Scalar:
    """A table's cell: a number where it is written just as the number is, `true` and `false`, else text."""
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= 18 and _NUMBER.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text


def _parse(line: str) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        reason = str(error).split(": line ")[0]
    try:  # NaN, Infinity and numbers beyond 64 bits are no JSON, but are met
        return json.loads(line)
    except RecursionError:
        raise BadLine("JSON nested too deep") from None
    except ValueError:
        raise BadLine(f"not JSON: {reason}") from None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not value.isspace() and value != ""


def _is_key(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def _vector(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise BadLine("vector is not a list of numbers")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value):
        raise BadLine("vector holds something that is not a finite number")
    return tuple(float(x) for x in value)
