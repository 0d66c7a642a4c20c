"""Bytes -> lines -> events, each with the byte position it stands at.

A *line* ends at its newline; an *event* is a line with the lines that go on with it (a stack trace). The rule that
joins lines, in order; the first that applies decides:

1. A blank line is never a record. It belongs to the event around it, or to none.
2. Inside a Python traceback (behind `Traceback (most recent call last):`) indented lines and the one line behind
   them, which names the error, go on. So do `During handling of ...`, `The above exception ...` and the traceback
   that follows them. A traceback goes on with a line above that is none itself.
3. A line of a known shape goes on, indented or not: `at f(...)`, `Caused by:`, `Suppressed:`, `... 3 more`,
   `File "x", line 3`, `from x:3:in`, `goroutine 1 [`, `created by `, `stack backtrace:`, `--- End of`; and so does
   an error's qualified name (`java.io.IOException: ...`) below a line that is not one itself.
4. A line indented deeper than the event's first line goes on, unless a time stamp follows the indentation.
5. Any other line begins an event.

An event has at most 1,000 lines and 256 KiB; what would go on with a longer one begins another. A line is kept whole
up to 16 MiB; a longer one is cut there. Both limits bound memory, and a restart cuts at the same places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from headwater.records import Draft

LONGEST_LINE_BYTES = 16 << 20
LONGEST_EVENT_BYTES = 256 << 10
LONGEST_EVENT_LINES = 1000

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))

_MAYBE = frozenset(" \tabcdefghijklmnopqrstuvwxyz_$CSTDF.-")  # first characters of lines that may go on
_SHAPE = re.compile(
    r"at (?:async )?[\w$.<>/@-]+ ?[(:\[]|Caused by:|Suppressed:|\.\.\. \d+ (?:more|common)|File \"[^\"]*\", line \d"
    r"|from \S+:\d+:in |goroutine \d+ \[|created by \S|stack backtrace:|--- End of "
)
_RAISED = re.compile(r"(?:[a-z_$][\w$]*\.)+[\w$]*(?:Exception|Error|Throwable)\b")
_CHAIN = re.compile(r"During handling of the above exception|The above exception was the direct cause")
_STAMP = re.compile(r"\[?\d{4}-\d\d-\d\d[T ]\d\d:|\[?\d\d:\d\d:\d\d\b")
_FOREIGN = re.compile(rb"[\x80-\xff]{4}")  # more letters beyond ASCII in a row than words of Western Europe have
_TRACEBACK = "Traceback (most recent call last):"


def codec(first: bytes) -> tuple[str, int] | None:
    """`(encoding, bytes of the byte order mark)` of a text that begins with `first`; None while that is too short
    to tell."""
    for mark, encoding in _BOMS:
        if first.startswith(mark):
            return encoding, len(mark)
        if first and mark.startswith(first):
            return None
    return ("utf-8", 0) if first else None


def decode(data: bytes, encoding: str) -> tuple[str, bytes | None]:
    """The text, and `data` itself where the text is not its exact decoding (bad bytes are replaced by U+FFFD)."""
    try:
        return data.decode(encoding), None
    except UnicodeDecodeError:
        return data.decode(encoding, "replace"), data


def decode_text(data: bytes, encoding: str) -> tuple[str, bytes | None]:
    """As `decode`, for what people wrote: what is no UTF-8 at all and may be Windows-1252, which older programs of Western
    Europe write, is read as that."""
    text, raw = decode(data, encoding)
    if raw is None or encoding != "utf-8" or _FOREIGN.search(data) or not all(c == "\ufffd" or c.isascii() for c in text):
        return text, raw
    try:
        return data.decode("cp1252"), raw
    except UnicodeDecodeError:
        return text, raw


@dataclass(frozen=True, slots=True)
class Line:
    """`data` without its newline; `[start, end)` with it."""

    start: int
    end: int
    data: bytes


class LineCutter:
    """Cuts a stream of bytes into lines. `at` is the position behind the last byte fed."""

    def __init__(self, at: int, encoding: str = "utf-8") -> None:
        self.at = at
        self._newline = {"utf-16-le": b"\n\x00", "utf-16-be": b"\x00\n"}.get(encoding, b"\n")
        self._start = at  # of the line not yet complete
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Line]:
        """The lines completed by `data`."""
        self.at += len(data)
        self._parts.append(data)
        whole = len(self._newline) == 1 and b"\n" not in data
        if whole and self.at - self._start <= LONGEST_LINE_BYTES:
            return []
        *pieces, rest = self._split(b"".join(self._parts))
        found: list[Line] = []
        for piece in pieces:
            self._cut(piece, len(self._newline), found)
        while len(rest) > LONGEST_LINE_BYTES:
            rest = self._cut_long(rest, found)
        self._parts = [rest] if rest else []
        return found

    def flush(self) -> list[Line]:
        """The incomplete last line, when there will be no more."""
        rest, self._parts = b"".join(self._parts), []
        if not rest:
            return []
        line = Line(self._start, self.at, rest)
        self._start = self.at
        return [line]

    def _split(self, data: bytes) -> list[bytes]:
        if len(self._newline) == 1:
            return data.split(b"\n")
        pieces, start, found = [], 0, data.find(self._newline)
        while found >= 0:
            if found % 2:
                found = data.find(self._newline, found + 1)
                continue
            pieces.append(data[start:found])
            start = found + 2
            found = data.find(self._newline, start)
        return [*pieces, data[start:]]

    def _cut(self, piece: bytes, newline: int, found: list[Line]) -> None:
        while len(piece) > LONGEST_LINE_BYTES:
            piece = self._cut_long(piece, found)
        end = self._start + len(piece) + newline
        found.append(Line(self._start, end, piece))
        self._start = end

    def _cut_long(self, piece: bytes, found: list[Line]) -> bytes:
        """Cut the first 16 MiB off, at the edge of a character of UTF-8."""
        length = LONGEST_LINE_BYTES
        while len(self._newline) == 1 and length > LONGEST_LINE_BYTES - 3 and piece[length] & 0xC0 == 0x80:
            length -= 1
        found.append(Line(self._start, self._start + length, piece[:length]))
        self._start += length
        return piece[length:]


@dataclass(slots=True)
class _Event:
    """An event being put together."""

    start: int
    indent: int
    head: str
    texts: list[str] = field(default_factory=list)
    datas: list[bytes] = field(default_factory=list)
    exact: bool = True
    size: int = 0
    in_traceback: bool = False
    chained: bool = False
    blanks: int = 0

    def draft(self) -> Draft:
        raw = None if self.exact else b"\n".join(self.datas)
        return Draft(self.texts[0] if len(self.texts) == 1 else "\n".join(self.texts), position=self.start, raw=raw)


class EventJoiner:
    """Lines in, drafts of events out, one behind: an event ends where the next begins. `resume` is where reading must
    start again so that nothing that was not handed out is lost; `holding` says that an event waits for its end."""

    def __init__(self, at: int, encoding: str = "utf-8", *, multiline: bool = True) -> None:
        self.resume = at
        self._encoding = encoding
        self._multiline = multiline
        self._event: _Event | None = None
        self._seen = at

    @property
    def holding(self) -> bool:
        return self._event is not None

    def add(self, line: Line) -> Draft | None:
        """Take the next line; returns the event that it ends."""
        text, raw = decode(line.data, self._encoding)
        self._seen = line.end
        text = text.lstrip("\0") if text[:1] == "\0" else text  # the hole a truncated file leaves
        text = text.removesuffix("\r")
        event = self._event
        if not text or text.isspace():
            if event is None:
                self.resume = line.end
            else:
                event.blanks += 1
            return None
        if event is not None and self._multiline and _goes_on(event, text, len(line.data)):
            _attach(event, text, line.data, raw is None)
            return None
        done = self.flush()
        self.resume = line.start
        self._event = _Event(line.start, _indent(text), text, in_traceback=text.lstrip() == _TRACEBACK)
        _attach(self._event, text, line.data, raw is None)
        if not self._multiline and done is None:
            return self.flush()
        return done

    def flush(self) -> Draft | None:
        """The event held, ended here."""
        event, self._event = self._event, None
        self.resume = self._seen
        return event.draft() if event else None


def _attach(event: _Event, text: str, data: bytes, exact: bool) -> None:
    event.texts.extend([""] * event.blanks)
    event.datas.extend([b""] * event.blanks)
    event.blanks = 0
    event.texts.append(text)
    event.datas.append(data)
    event.exact = event.exact and exact
    event.size += len(data) + 1


def _goes_on(event: _Event, text: str, size: int) -> bool:
    """The rule of this module, for a line that is not blank."""
    if text[0] not in _MAYBE and not event.in_traceback:
        return False
    if len(event.texts) + event.blanks >= LONGEST_EVENT_LINES or event.size + size > LONGEST_EVENT_BYTES:
        return False
    indent = _indent(text)
    body = text[indent:].rstrip()
    if body == _TRACEBACK:
        joins = event.chained or event.head.lstrip() != _TRACEBACK
        event.in_traceback, event.chained = event.in_traceback or joins, False
        return joins
    if event.in_traceback and not _STAMP.match(body):
        if indent <= event.indent:
            event.in_traceback = False
        return True
    event.in_traceback = False
    if _CHAIN.match(body):
        event.chained = True
        return True
    if _SHAPE.match(body):
        return True
    if _RAISED.match(body):
        return not _RAISED.match(event.head[event.indent :])
    return indent > event.indent and not _STAMP.match(body)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" \t"))
