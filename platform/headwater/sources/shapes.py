"""Lines -> records, in each of the ways a file may hold them, with the place behind each: what `ingest` reads once and
what a tail follows go through the same.

A shape takes a line at a time and gives what that completes: drafts, and faults for what is no record, each with the
position behind it. `resume` is where reading must start again so that nothing not yet given is lost; `holding` says that
something waits for its end and may be taken for ended once nothing more comes.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from headwater.batches import Fault
from headwater.records import Draft
from headwater.sources.fields import BadLine, cell, json_draft, object_draft
from headwater.sources.lines import LONGEST_LINE_BYTES, EventJoiner, Line, decode, decode_text

Form = Literal["log", "lines", "jsonl", "table"]
Found = tuple[Draft | Fault, int]
ROW_LINES, ROW_CHARS = 1000, 1 << 20
PAYLOAD_CHARS = 2000
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?', re.IGNORECASE)
_FORMS: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "table", ".tsv": "table"}


class Shape(Protocol):
    resume: int

    @property
    def holding(self) -> bool: ...

    def add(self, line: Line) -> Sequence[Found]:
        """What the line completes."""

    def flush(self) -> Sequence[Found]:
        """What is held, ended here."""


def shape_of(form: Form, at: int, encoding: str, *, header: bytes = b"", delimiter: str | None = None) -> Shape:
    """The shape that reads `form` from position `at` on. A table that is not read from its start is given its `header`:
    the first bytes of the file."""
    if form == "jsonl":
        return JsonLines(at, encoding)
    if form == "table":
        return TableRows(at, encoding, header=header, delimiter=delimiter)
    return Events(at, encoding, multiline=form == "log")


def form_of(path: Path) -> Form:
    """How the lines of a followed file are read, by its name; a rotated one has the name of that it was."""
    return _FORMS.get(path.suffix.lower(), "log")


class Events:
    """A record an event (see `lines`), or a line."""

    def __init__(self, at: int, encoding: str, *, multiline: bool) -> None:
        self._joiner = EventJoiner(at, encoding, multiline=multiline)
        self.resume = at

    @property
    def holding(self) -> bool:
        return self._joiner.holding

    def add(self, line: Line) -> Sequence[Found]:
        return self._given(self._joiner.add(line))

    def flush(self) -> Sequence[Found]:
        return self._given(self._joiner.flush())

    def _given(self, draft: Draft | None) -> Sequence[Found]:
        self.resume = self._joiner.resume
        return () if draft is None else ((draft, self.resume),)


class JsonLines:
    """A record a line of JSON (see `fields`). A blank line is none, one that is no JSON a fault."""

    holding = False

    def __init__(self, at: int, encoding: str) -> None:
        self.resume, self._encoding = at, encoding

    def add(self, line: Line) -> Sequence[Found]:
        self.resume = line.end
        text, raw = decode(line.data, self._encoding)
        if not text.strip():
            return ()
        try:
            draft = json_draft(text, line.start)
        except BadLine as error:
            return ((Fault(line.start, str(error), text[:PAYLOAD_CHARS]), line.end),)
        return ((draft if raw is None else draft._replace(raw=raw), line.end),)

    def flush(self) -> Sequence[Found]:
        return ()


class TableRows:
    """A record a row of a table with a header (see `fields`), over as many lines as its quotes span; a row with more cells
    than the header is a fault, and so is the first line of one whose quote is never closed."""

    holding = False  # an open quote is not closed by waiting

    def __init__(self, at: int, encoding: str, *, header: bytes = b"", delimiter: str | None = None) -> None:
        self.resume, self._encoding, self._delimiter = at, encoding, delimiter
        self._header: list[str] | None = None
        self._taken: list[Line] = []
        self._texts: list[str] = []
        self._chars = 0
        csv.field_size_limit(LONGEST_LINE_BYTES)  # one for the process; a cell is no longer than its line
        if header:
            start = 0
            for data in header.split("\n".encode(encoding)):
                end = start + len(data)
                self.add(Line(start, end, data))
                start = end
                if self._header is not None:
                    break
            self._forget(at)

    def add(self, line: Line) -> Sequence[Found]:
        apart = self._encoding == "utf-8" and b"\r" in line.data[:-1] and b'"' not in line.data
        waiting = deque(_lines_of(line) if apart else [line])
        found: list[Found] = []
        while waiting:
            found += self._take(waiting.popleft(), waiting)
        return found

    def flush(self) -> Sequence[Found]:
        """What is held is given up, line by line."""
        found: list[Found] = []
        while self._taken:
            waiting: deque[Line] = deque()
            found.append(self._given_up(waiting))
            for line in waiting:
                found += self.add(line)
        return found

    def _take(self, line: Line, waiting: deque[Line]) -> Iterable[Found]:
        text = decode_text(line.data, self._encoding)[0].removesuffix("\r")
        self._taken.append(line)
        self._texts.append(text)
        self._chars += len(text)
        if len(self._taken) > 1 and '"' not in text and not self._full:
            return ()  # within a quote, which this line does not close
        cells = self._cells()
        if cells is None:
            return (self._given_up(waiting),) if self._full else ()
        start, whole = self._taken[0].start, "\n".join(self._texts)
        self._forget(line.end)
        if not cells:
            return ()
        if self._header is None:
            if (told := _SEPARATOR.fullmatch(whole)) is not None:  # a line for Excel
                self._delimiter = told[1]
                return ()
            self._delimiter = self._delimiter or max(",;\t|", key=whole.split("\n")[0].count)
            self._header = [name.strip() for name in next(csv.reader([whole], delimiter=self._delimiter), [])]
            return ()
        item = self._row(self._header, start, cells, whole)
        return () if item is None else ((item, line.end),)

    @property
    def _full(self) -> bool:
        return len(self._taken) >= ROW_LINES or self._chars >= ROW_CHARS

    def _cells(self) -> list[str] | None:
        """The cells of the lines held; None where a quote is still open."""
        lines = [text + "\n" for text in self._texts]
        try:
            return next(csv.reader(lines, delimiter=self._delimiter or ",", strict=True), [])
        except csv.Error as error:
            if len(self._taken) == 1 and "unexpected end" not in str(error):  # a stray quote or return: take the row leniently
                return next(csv.reader([lines[0].replace("\r", " ")], delimiter=self._delimiter or ","), [])
            return None

    def _given_up(self, waiting: deque[Line]) -> Found:
        """The first line held, as a fault; the others are to be taken anew."""
        first, text = self._taken[0], self._texts[0]
        waiting.extendleft(reversed(self._taken[1:]))
        self._forget(first.end)
        return Fault(first.start, "a quote is opened and never closed", text[:PAYLOAD_CHARS]), first.end

    def _forget(self, resume: int) -> None:
        self._taken, self._texts, self._chars, self.resume = [], [], 0, resume

    @staticmethod
    def _row(header: list[str], start: int, cells: list[str], text: str) -> Draft | Fault | None:
        if len(cells) > len(header):
            return Fault(start, f"{len(cells)} cells, but the header has {len(header)}", text[:PAYLOAD_CHARS])
        if not any(cells):
            return None
        tree: dict[str, Any] = {}
        for name, value in zip(header, cells, strict=False):
            if value:
                tree[name] = f"{tree[name]}, {value}" if name in tree else value  # columns of one name belong together
        whole = orjson.dumps({name: _clean(value) for name, value in tree.items()}).decode()
        try:
            draft = object_draft(tree, whole, start)
        except BadLine as error:
            return Fault(start, str(error), text[:PAYLOAD_CHARS])
        attributes = {name: cell(v) if isinstance(v, str) else v for name, v in draft.attributes.items()}
        return draft._replace(attributes=attributes)


def read_all(shape: Shape, lines: Iterable[Line]) -> Iterator[Found]:
    """Everything in `lines`, the last of it ended."""
    for line in lines:
        yield from shape.add(line)
    yield from shape.flush()


def _lines_of(line: Line) -> list[Line]:
    """The lines of one whose lines end as those of old Macintosh computers do; itself where they do not."""
    pieces = line.data.removesuffix(b"\r").split(b"\r")
    ends = list(accumulate(len(piece) + 1 for piece in pieces))
    starts = [0, *ends[:-1]]
    return [
        Line(line.start + start, line.end if end == ends[-1] else line.start + end, piece)
        for piece, start, end in zip(pieces, starts, ends, strict=True)
    ]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
