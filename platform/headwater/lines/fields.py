"""Lines that are made of fields: JSON objects and logfmt pairs.

What is kept of them: scalars under flattened dotted keys, at most `max_attributes` in order of appearance and not deeper
than 8 levels; a list of scalars is joined with ", ", other lists are left out, and so is null. Numbers outside 64 bits
(ints >= 2^63 or < -2^63) and what is no finite number (NaN, Infinity, 1e999) are kept as their text. The last of
duplicate keys wins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from headwater.records import Scalar
from headwater.records.levels import LEVELS, canonical_level

MESSAGE_KEYS = (
    "message", "msg", "log", "event", "body", "text", "short_message", "@m", "mensaje", "mensagem", "nachricht", "meldung",
    "messaggio",
)  # fmt: skip
TIME_KEYS = (
    "timestamp", "@timestamp", "time", "ts", "t", "datetime", "date", "asctime", "@t", "fecha_hora", "fecha", "hora",
    "data_hora", "zeitstempel", "datum", "zeit", "horodatage", "heure",
)  # fmt: skip
LEVEL_KEYS = (
    "level", "severity", "lvl", "loglevel", "log.level", "levelname", "severity_text", "@l", "nivel", "nível", "niveau",
    "livello", "priority",
)  # fmt: skip
_SYSLOG = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")
_PINO = {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}
_MAX_DEPTH = 8
_UNEVEN = frozenset((dict, list, type(None)))  # values that flattening changes or leaves out
_MAX_JSON_CHARS = 1_048_576  # a longer line is read as plain text
_MAX_LOGFMT_CHARS = 8192
_LOGFMT = re.compile(r'([A-Za-z_][\w.@/-]{0,80})=("(?:[^"\\]|\\.)*+"|[^\s"]*+)(?:\s+|$)')
_DIGITS = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))  # every digit is a 0
_LONG_NUMBER = b"0" * 19
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DAY = re.compile(r"\d{4}-\d\d-\d\d|\d\d?[./]\d\d?[./]\d{4}")
_CLOCK = re.compile(r"\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")


def json_fields(text: str) -> dict[str, Any] | None:
    """The object a JSON line holds; None where it is none, too long, or nested beyond what a parser takes."""
    if len(text) > _MAX_JSON_CHARS or (text[-1:] != "}" and text[-2:].rstrip()[-1:] != "}"):
        return None
    found: Any = None
    if _LONG_NUMBER not in text.encode("utf-8", "surrogatepass").translate(_DIGITS):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError:
            found = None
    if found is None:
        try:
            found = json.loads(text, parse_constant=str, parse_float=_finite, parse_int=_small)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def logfmt_fields(text: str) -> dict[str, Any] | None:
    """The pairs of a line of at least three, which cover four fifths of it and begin it; None for any other line."""
    if len(text) > _MAX_LOGFMT_CHARS:
        return None
    pairs: dict[str, Any] = {}
    covered = count = 0
    for match in _LOGFMT.finditer(text):
        if not count and text[: match.start()].strip():
            return None
        key, value = match.groups()
        pairs[key] = _unquoted(value) if value[:1] == '"' else _typed(value)
        covered += match.end() - match.start()
        count += 1
    return pairs if count >= 3 and covered >= 0.8 * len(text.strip()) else None


def flatten(fields: Mapping[str, Any], most: int) -> dict[str, Scalar]:
    """Scalars under dotted keys, in order of appearance, at most `most`."""
    if len(fields) <= most and _UNEVEN.isdisjoint(map(type, fields.values())):
        return dict(fields)
    out: dict[str, Scalar] = {}
    stack = [("", iter(fields.items()))]
    while stack:
        prefix, items = stack[-1]
        for name, value in items:
            key = prefix + name
            if isinstance(value, dict):
                if len(stack) < _MAX_DEPTH:
                    stack.append((key + ".", iter(value.items())))
                    break
            elif isinstance(value, list):
                if value and all(isinstance(v, str | int | float) for v in islice(value, 64)) and len(value) <= 64:
                    out[key] = ", ".join(map(str, value))
            elif value is not None:
                out[key] = value
            if len(out) >= most:
                return out
        else:
            stack.pop()
    return out


def named(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The fields that bear some names, in the order of the names: as they are, else in any case (`Level`, `MESSAGE`)."""
    found = [name for name in names if name in fields]
    if found or all(map(str.islower, fields)):
        return found
    spelt = {name.lower(): name for name in reversed(list(fields))}
    return [spelt[name] for name in names if name in spelt]


def moments(fields: Mapping[str, Any]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """What may be the time, each with the fields that say it: a bare day with the bare clock that stands beside it is one, as
    tables and the logs of web servers write them."""
    names = named(fields, TIME_KEYS)
    for name in names:
        value = fields[name]
        if len(names) > 1 and isinstance(value, str) and _DAY.fullmatch(day := value.strip()):
            clock = next((n for n in names if isinstance(fields[n], str) and _CLOCK.fullmatch(fields[n].strip())), None)
            if clock is not None:
                yield f"{day} {fields[clock].strip()}", (name, clock)
        yield value, (name,)


def level_of(key: str, value: object) -> str | None:
    """The canonical level of a field: a word, a pino number 10..60, or a syslog number 0..7."""
    if isinstance(value, str):
        if (found := canonical_level(value)) in LEVELS:
            return found
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 4 else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if key == "priority" or value < 8:
        return _SYSLOG[value] if 0 <= value < 8 else None
    return _PINO.get(value)


def as_pairs(attributes: Mapping[str, Scalar]) -> str:
    """Fields as one text, for lines that have no message among them."""
    return " ".join(f"{key}={value}" for key, value in attributes.items())


def _finite(text: str) -> float | str:
    value = float(text)
    return value if abs(value) != float("inf") else text


def _small(text: str) -> int | str:
    return int(text) if len(text) < 19 or (len(text) <= 20 and -(2**63) <= int(text) < 2**63) else text


def _unquoted(value: str) -> str:
    try:
        return str(orjson.loads(value))
    except orjson.JSONDecodeError:
        return value[1:-1]


def _typed(value: str) -> Scalar:
    if _INTEGER.fullmatch(value):
        return int(value)
    if _DECIMAL.fullmatch(value):
        return float(value)
    return {"true": True, "false": False}.get(value, value)
