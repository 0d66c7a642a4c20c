"""journald's export format and `journalctl -o json` -> a record an entry, in the journal's own numbering."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import orjson

from headwater.records import Draft
from headwater.sources import Fault
from headwater.sources.exports import Item, attributes, place

_LEVELS = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")
_MOST_FIELD_BYTES = 16 << 20
_MOST_LINE_BYTES = 16 << 20
_BETWEEN = b"\x1e data:"  # what stands before an entry of json-seq and json-sse
_CURSOR = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]+)")
_FIELDS = {
    "unit": ("_SYSTEMD_UNIT", "UNIT", "_SYSTEMD_USER_UNIT"), "identifier": ("SYSLOG_IDENTIFIER", "_COMM"),
    "pid": ("_PID", "SYSLOG_PID"), "host": ("_HOSTNAME",), "transport": ("_TRANSPORT",), "message_id": ("MESSAGE_ID",),
    "file": ("CODE_FILE",), "errno": ("ERRNO",), "container": ("CONTAINER_NAME",),
}  # fmt: skip


def is_export(first: bytes) -> bool:
    return re.match(rb"(?:[A-Z_][A-Z0-9_]{0,63}=[^\n]*\n){0,3}?__CURSOR=", first) is not None


def is_json(first: bytes) -> bool:
    begin = first.lstrip(_BETWEEN)
    entry = begin.split(b"\n}" if begin.startswith(b"{\n") else b"\n", 1)[0]
    return begin.startswith(b"{") and b'"__REALTIME_TIMESTAMP"' in entry and b'"MESSAGE"' in first


def read(file: BinaryIO) -> Iterator[Item]:
    """Entries of the export format: `NAME=value` lines, binary fields with their length, a blank line behind each."""
    entry: dict[str, Any] = {}
    at = start = 0
    while line := file.readline(_MOST_LINE_BYTES):
        here, at = at, at + len(line)
        if not line.endswith(b"\n"):
            yield Item("", Fault(here, "the export is cut off, or a line is longer than any field may be"))
            return
        if line == b"\n":
            if entry:
                yield _item(entry, start)
            entry, start = {}, at
            continue
        name, equals, value = line[:-1].partition(b"=")
        if not equals:
            size = int.from_bytes(file.read(8), "little")
            if size > _MOST_FIELD_BYTES:
                yield Item("", Fault(here, f"a field of {size:,} bytes: damaged, or no journal export"))
                return
            value = file.read(size)
            if len(value) < size or file.read(1) != b"\n":
                yield Item("", Fault(here, "the export is cut off"))
                return
            at += 8 + size + 1
        entry[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    if entry:
        yield _item(entry, start)


def read_json(file: BinaryIO) -> Iterator[Item]:
    """Entries as JSON, one a line; those of `json-pretty`, `json-sse` and `json-seq` too."""
    at = start = 0
    held = b""
    while line := file.readline(_MOST_LINE_BYTES):
        start, at = start if held else at, at + len(line)
        line = held + (line if held else line.lstrip(_BETWEEN))
        if not line.strip():
            continue
        pretty = line.startswith((b"{\n", b"{\r\n"))
        if pretty and not line.rstrip().endswith(b"\n}") and len(line) < _MOST_LINE_BYTES:
            held = line
            continue
        held = b""
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Item("", Fault(start, f"not JSON: {str(error)[:100]}", line[:2000].decode("utf-8", "replace")))
            continue
        if isinstance(entry, dict):
            yield _item(entry, start)
        else:
            yield Item("", Fault(start, "no journal entry", line[:2000].decode("utf-8", "replace")))


def _item(entry: Mapping[str, Any], start: int) -> Item:
    stamp = _text(entry.get("_SOURCE_REALTIME_TIMESTAMP")) or _text(entry.get("__REALTIME_TIMESTAMP"))
    received = _text(entry.get("__REALTIME_TIMESTAMP")) or stamp
    if not stamp.isdigit() or not received.isdigit():
        return Item("", Fault(start, "a journal entry without a time", str(dict(entry))[:2000]))
    cursor = _CURSOR.match(_text(entry.get("__CURSOR")))
    known = {name: next((t for field in fields if (t := _text(entry.get(field)))), "") for name, fields in _FIELDS.items()}
    priority = _text(entry.get("PRIORITY"))
    level = _LEVELS[int(priority)] if priority in tuple("01234567") else None
    pid = int(known["pid"]) if known["pid"].isdigit() else known["pid"]
    found = attributes(**{**known, "pid": pid, "level": level, "boot": _text(entry.get("_BOOT_ID"))})
    key = known["unit"] or known["identifier"] or None
    time_ms = int(stamp) // 1000
    position = int(cursor[2], 16) if cursor else place(int(received) // 1000, str(sorted(entry.items())))
    draft = Draft(_text(entry.get("MESSAGE")), key, time_ms, found, position=position)
    return Item(cursor[1] if cursor else "", draft)


def _text(value: object) -> str:
    """A field's text: of several values the first; bytes that are no UTF-8 come as a list of numbers."""
    if isinstance(value, list):
        if value and all(isinstance(n, int) and 0 <= n < 256 for n in value):
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0]) if value else ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
