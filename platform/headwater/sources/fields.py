"""JSON objects and table rows -> drafts: which field is the value, the key, the time.

Fields are known by the names of headwater.records.naming, however they are spelt. value: the first that holds text, below the
first title that holds a line it does not begin with (not above `value`, which says what it is); without any the whole line
is the value. time: the first that is one (see headwater.records.moments); a date and a time of day in two fields are one.
`attributes` and every other field become attributes, the title too; those of objects under dotted names,
lists as their JSON text. NaN and infinities become text, and so do integers beyond 64 bits; of duplicate keys the last counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from headwater.records import Draft, Scalar
from headwater.records.moments import is_clock, parse_time
from headwater.records.naming import roles

__all__ = ["BadLine", "cell", "json_draft", "key_field", "object_draft", "parse_time", "scalar"]

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_BARE_DATE = re.compile(r"[^:]{6,40}")
_WRAPPED = ("$oid", "$uuid", "$numberLong", "$numberInt", "$numberDouble", "$numberDecimal", "$symbol")  # JSON of MongoDB


_PINO = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}  # what loggers of Node write as `level`
_DEEPEST = 8  # objects in objects; what lies deeper is kept as its JSON text


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
    rest = {name: _plain(value) for name, value in tree.items()}
    values, titles, keys, times = roles(tree)
    body = next((name for name in values if _is_text(rest[name])), None)
    value = whole if body is None else rest.pop(body)
    if body is not None and body != "value":
        lines = (rest[name].strip() for name in titles if _is_text(rest[name]))
        if (title := next(lines, None)) is not None and not value.lstrip().startswith(title):
            value = f"{title}\n{value}"
    key = next((str(rest.pop(name)) for name in keys if _is_key(rest[name])), None)
    time_ms = _time_of(rest, times)
    vector = _vector(rest.pop("vector")) if rest.get("vector") is not None else None
    partition = rest.pop("partition") if type(rest.get("partition")) is int and rest["partition"] >= 0 else None
    nested = rest.pop("attributes") if isinstance(rest.get("attributes"), dict) else {}
    attributes = _flat({**rest, **nested})
    if time_ms is not None and body is not None and type(number := attributes.get("level")) is int:
        attributes["level"] = _PINO.get(number, number)
    return Draft(value, key, time_ms, attributes, partition, position, vector=vector)


def _flat(fields: Mapping[str, Any]) -> dict[str, Scalar]:
    """Fields as attributes: those of objects under dotted names, so that each can be filtered by."""
    out: dict[str, Scalar] = {}
    stack = [("", iter(fields.items()))]
    while stack:
        prefix, items = stack[-1]
        for name, raw in items:
            value = _plain(raw)
            if isinstance(value, dict) and value and len(stack) < _DEEPEST:
                stack.append((f"{prefix}{name}.", iter(value.items())))
                break
            if value is not None:
                out[f"{prefix}{name}"] = scalar(value)
        else:
            stack.pop()
    return out


def key_field(tree: Mapping[str, Any], key: str) -> tuple[str, Scalar] | None:
    """The field of an object that gave `key`, and what it holds."""
    found = ((name, _plain(tree[name])) for name in roles(tree).keys)
    return next(((name, scalar(value)) for name, value in found if str(value) == key), None)


def _time_of(rest: dict[str, Any], names: Sequence[str]) -> int | None:
    """The time that the fields `names` state, which are taken out of `rest`."""
    clock: str | None = None
    for name in names:
        value = rest[name]
        if clock is None and is_clock(value):
            clock = name
            continue
        parts = [name]
        if clock is not None and isinstance(value, str) and _BARE_DATE.fullmatch(value.strip()):
            parts.append(clock)
        if (time_ms := parse_time(" ".join(rest[part].strip() for part in parts) if clock in parts else value)) is not None:
            for part in parts:
                del rest[part]
            return time_ms
    return None


def _plain(value: Any) -> Any:
    """A value without what MongoDB's JSON says of its type."""
    if type(value) is not dict or len(value) != 1:
        return value
    ((name, inner),) = value.items()
    if name not in _WRAPPED or not isinstance(inner, str | int | float):
        return value
    return cell(inner) if name.startswith("$number") and isinstance(inner, str) else inner


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
