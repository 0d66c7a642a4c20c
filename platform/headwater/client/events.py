"""Server-sent events as they are read (the WHATWG rules, for streams whose data is JSON)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class EventReader:
    """Feed it bytes as they come; it gives the events that are complete. Lines end in LF or CRLF."""

    class Event(NamedTuple):
        """`id` is None where the event has none; an event of id alone (no data) only sets where to resume."""

        name: str
        data: bytes
        id: str | None

    def __init__(self) -> None:
        self._rest, self._name = b"", "message"
        self._data: list[bytes] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line:
                self._field(line)
            elif self._data or self._id is not None:
                yield self.Event(self._name, b"\n".join(self._data), self._id)
                self._name, self._data, self._id = "message", [], None

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode()
        elif name == b"id":
            self._id = value.decode()
