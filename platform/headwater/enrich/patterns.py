"""Values found in text by regular expressions: members of a JSON schema, each with its pattern.

The pattern of a member is the one given for it, else `pattern` of its schema, else what its `format` looks like. Of a match the
first group counts, else all of it; a member that is an array takes every match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headwater.errors import UsageError
from headwater.redaction import NESTED

_MOST_CHARS = 50_000  # of a text that are searched
_MOST_MATCHES = 100
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
FORMATS: Mapping[str, str] = {
    "email": r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    "uri": r"[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]}]{1,2000}",
    "ipv4": r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)",
    "uuid": r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b",
    "date": rf"\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}} (?:{_MONTHS})[a-z]{{0,6}} \d{{4}}\b",
    "date-time": r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?",
    "time": r"\b\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?\b",
    "hostname": r"\b(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b",
}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


class Patterns:
    """The patterns of a schema's members. UsageError for one that does not compile, or that some text could make endless."""

    def __init__(self, schema: Mapping[str, Any], given: Mapping[str, str] | None = None) -> None:
        members = schema.get("properties") or {}
        if unknown := sorted(set(given or ()) - set(members)):
            raise UsageError(f"there is a pattern for {unknown[0]!r}, which is no property of the schema")
        self._members: dict[str, tuple[re.Pattern[str], Mapping[str, Any]]] = {}
        for name, member in members.items():
            if not isinstance(member, Mapping):
                continue
            inner = member.get("items") if member.get("type") == "array" else member
            inner = inner if isinstance(inner, Mapping) else {}
            text = (given or {}).get(name) or inner.get("pattern") or FORMATS.get(str(inner.get("format")))
            if text:
                self._members[name] = (checked(name, text), member)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def find(self, text: str) -> dict[str, Any]:
        """What is found in a text, as the types the schema asks for; a member that is not found is missing."""
        text = text[:_MOST_CHARS]
        found: dict[str, Any] = {}
        for name, (pattern, member) in self._members.items():
            if member.get("type") == "array":
                items = member.get("items") if isinstance(member.get("items"), Mapping) else {}
                matches = [
                    _typed(_taken(m), items or {}) for _, m in zip(range(_MOST_MATCHES), pattern.finditer(text), strict=False)
                ]
                if values := [value for value in matches if value is not None]:
                    found[name] = list(dict.fromkeys(values)) if member.get("uniqueItems") else values
            elif (match := pattern.search(text)) and (value := _typed(_taken(match), member)) is not None:
                found[name] = value
        return found


def checked(name: str, text: str) -> re.Pattern[str]:
    """A pattern, compiled."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"the pattern of {name!r} is not a regular expression: {error}") from error
    if len(text) > 2000 or NESTED.search(text):
        raise UsageError(f"the pattern of {name!r} repeats a repetition, which can take for ever; write it without, as [a-z]+")
    return pattern


def _taken(match: re.Match[str]) -> str:
    if match.re.groups:
        return next((group for group in match.groups() if group is not None), match[0])
    return match[0]


def _plain_number(text: str) -> str:
    """A number as people write it, with a point and without what groups its digits: 1,234.50 and 1.234,50; 12,50 is no 1250."""
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(?:,\d{2,3}){0,10},\d{3}(?:\.\d{0,30})?", text):
        return text.replace(",", "")
    if re.fullmatch(r"[+-]?(?:\d{1,30}|\d{1,3}(?:\.\d{3}){1,10}),\d{1,30}", text):
        return text.replace(".", "").replace(",", ".")
    return text


def _typed(text: str, member: Mapping[str, Any]) -> Any:
    """A text as the type its schema asks for, None where it is none of that; of an enumeration the value it spells."""
    if "enum" in member:
        return next((v for v in member["enum"] if str(v).casefold() == text.strip().casefold()), None)
    kinds = member.get("type", "string")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        plain = _plain_number(text.strip()) if kind in ("integer", "number") else text.strip()
        if kind == "integer" and re.fullmatch(r"[+-]?\d{1,18}", plain):
            return int(plain)
        if kind == "number" and re.fullmatch(r"[+-]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][+-]?\d{1,3})?", plain):
            return float(plain)
        if kind == "boolean" and plain.lower() in _TRUE | _FALSE:
            return plain.lower() in _TRUE
        if kind == "string":
            return text
    return None
