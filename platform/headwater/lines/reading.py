"""What a record's text says of itself: its time, its level, its fields, and where its message begins.

Plain lines are read by the shape of their header (headwater.lines.header), JSON and logfmt lines by their fields
(headwater.lines.fields). A shape seen before costs about a microsecond: the layout of a header is cached by the header
with its digits folded and its long ids alike, and the conversion of a timestamp by its text to the second
(headwater.lines.time).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from headwater.lines.fields import (
    LEVEL_KEYS,
    MESSAGE_KEYS,
    as_pairs,
    flatten,
    json_fields,
    level_of,
    logfmt_fields,
    moments,
    named,
)
from headwater.lines.header import HEAD_CHARS, Layout, layout, level_in_message, settled_by
from headwater.lines.time import Instants
from headwater.records import Scalar

__all__ = ["LineReader", "Reading"]

_CACHED_LAYOUTS = 32_768
_CACHED_LEVELS = 32_768
_LEVEL_CHARS = 80  # of a message in which a level is looked for
_PREFIXES = (40, 56, 72, 96, 128, None)  # characters of a line under which its layout is looked for; None for its whole head
_END = b"\xff"  # of a line that is shorter than a prefix; no text has it
_FOLD = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_ID = re.compile(rb"\b(?=[a-f]*0)(?=0*[a-f])[0a-f]{8,}(?:-[0a-f]{4,})*\b")  # in a folded line: a long hexadecimal id
_PRIORITIES = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")
_NONE: Mapping[str, Scalar] = MappingProxyType({})


class Reading(NamedTuple):
    """What a text says of itself. `message` is what passages are made of: the message field of a JSON or logfmt line (its
    fields as `key=value` where it has none), else `text[start:]`.

    `time_ms` is the event time found in the text, `level` one of trace debug info warn error fatal. `attributes` are the
    fields of a JSON or logfmt line without those that became message, time and level; empty for plain lines."""

    time_ms: int | None
    level: str | None
    start: int
    attributes: Mapping[str, Scalar]
    message: str


class LineReader:
    """Reads texts. Never raises, whatever the text; what it returns depends on the text and the clock's day alone."""

    def __init__(self, clock_ms: Callable[[], int], *, max_attributes: int = 64) -> None:
        self._most = max_attributes
        self._instants = Instants(clock_ms)
        self._layouts: dict[bytes, Layout] = {}  # by as many characters as settle them
        self._levels: dict[bytes, str | None] = {}  # by the begin of a message

    def head(self, text: str) -> tuple[int | None, str | None, int] | None:
        """Time, level and where the message begins, of a plain line; None for one that may be made of fields."""
        if text[:1] == "{":
            return None
        folded = text[:HEAD_CHARS].encode("utf-8", "surrogatepass").translate(_FOLD) + _END
        found = self._layout(text, folded)
        return None if found is None else self._of_layout(text, folded, found)

    def read(self, text: str) -> Reading:
        """Everything the text says of itself."""
        head = self.head(text)
        if head is None:
            fields = _fields(text)
            if fields is not None:
                return self._of_fields(fields)
            begin = text[:HEAD_CHARS]
            head = self._of_layout(text, begin.encode("utf-8", "surrogatepass").translate(_FOLD) + _END, layout(begin))
        time_ms, level, start = head
        return Reading(time_ms, level, start, _NONE, text[start:] if start else text)

    def message(self, text: str) -> str:
        """`read(text).message`, cheaper."""
        found = None
        if text[:1] != "{":
            found = self._layout(text, text[:HEAD_CHARS].encode("utf-8", "surrogatepass").translate(_FOLD) + _END)
        if found is None:
            fields = _fields(text)
            if fields is not None:
                return self._message_of(fields)
            found = layout(text[:HEAD_CHARS])
        return text[found.start :] if found.start else text

    def _of_layout(self, text: str, folded: bytes, found: Layout) -> tuple[int | None, str | None, int]:
        """What a line (and its folded head) says where its layout is `found`."""
        span, level, start, pri = found
        if level is None:
            level = self._level_in_message(text, folded, start)
            if level is None and pri[1]:
                level = _PRIORITIES[int(text[pri[0] : pri[1]]) & 7]
        if span is None:
            return None, level, start
        name, _, begin, end, fraction, behind = span
        if fraction == behind:
            return self._instants.instant(name, text[begin:end], ""), level, start
        second = text[begin:fraction] if behind == end else text[begin:fraction] + text[behind:end]
        return self._instants.instant(name, second, text[fraction:behind]), level, start

    def _level_in_message(self, text: str, folded: bytes, start: int) -> str | None:
        """`level_in_message`, which has no eye for digits, cached by what it reads with its digits folded."""
        if start and start + _LEVEL_CHARS < HEAD_CHARS and text.isascii():
            key = folded[start - 1 : start + _LEVEL_CHARS]  # with what stands before
        else:
            window = text[start - 1 : start + _LEVEL_CHARS] if start else "\n" + text[:_LEVEL_CHARS]
            key = window.encode("utf-8", "surrogatepass").translate(_FOLD)
        try:
            return self._levels[key]
        except KeyError:
            if len(self._levels) >= _CACHED_LEVELS:
                self._levels.clear()
            level = self._levels[key] = level_in_message(text, start, _LEVEL_CHARS)
            return level

    def _layout(self, text: str, folded: bytes) -> Layout | None:
        """The layout of a plain line; None for one that may be made of fields. `folded` is its head with digits alike."""
        layouts = self._layouts
        for chars in _PREFIXES:
            if (found := layouts.get(folded[:chars])) is not None:
                return found
        if _may_be_fields(text[:HEAD_CHARS]):
            return None
        loosened = _ID.sub(_one_id, folded)
        if loosened != folded:
            for chars in _PREFIXES:
                if (found := layouts.get(loosened[:chars])) is not None:
                    return found
        head = loosened[:-1].decode("utf-8", "surrogatepass")
        found = layout(head)
        settling = next((n for n in _PREFIXES if n and head.isascii() and settled_by(head, found, n)), None)
        if len(layouts) >= _CACHED_LAYOUTS:
            layouts.clear()
        layouts[loosened[:settling]] = found
        return found

    def _of_fields(self, fields: Mapping[str, Any]) -> Reading:
        attributes = flatten(fields, self._most)
        time_ms = level = None
        for stated, names in moments(fields):
            if (time_ms := self._field_time(stated)) is not None:
                for name in names:
                    attributes.pop(name, None)
                break
        for key in named(attributes, LEVEL_KEYS):
            if (level := level_of(key.lower(), attributes[key])) is not None:
                attributes.pop(key, None)
                break
        body = self._message_key(fields)
        if body is None:
            return Reading(time_ms, level, 0, attributes, as_pairs(attributes))
        attributes.pop(body, None)
        return Reading(time_ms, level, 0, attributes, fields[body])

    @staticmethod
    def _message_key(fields: Mapping[str, Any]) -> str | None:
        for key in named(fields, MESSAGE_KEYS):
            value = fields[key]
            if isinstance(value, str) and value and not value.isspace():
                return key
        return None

    def _message_of(self, fields: Mapping[str, Any]) -> str:
        """`_of_fields(fields).message`, cheaper where a field holds it."""
        key = self._message_key(fields)
        return self._of_fields(fields).message if key is None else str(fields[key])

    def _field_time(self, value: object) -> int | None:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return self._instants.number(value) if abs(value) >= 1e8 else None
        return self._instants.text(value) if isinstance(value, str) else None


def _one_id(found: re.Match[bytes]) -> bytes:
    """What stands for a long hexadecimal id where a layout is looked for: as long, and of the same sort of first character."""
    return (b"0" if found[0][:1] == b"0" else b"a") + b"a" + b"0" * (len(found[0]) - 2)


def _may_be_fields(head: str) -> bool:
    """Whether a line may be JSON or logfmt, judged by its head."""
    first = head.lstrip()[:1]
    if first == "{":
        return True
    at = head.find("=")
    return (
        0 < at <= 82 and head.count("=") >= 2 and head[:at].strip().replace(".", "").replace("-", "").replace("_", "").isalnum()
    )


def _fields(text: str) -> dict[str, Any] | None:
    return json_fields(text) if text.lstrip()[:1] == "{" else logfmt_fields(text)
