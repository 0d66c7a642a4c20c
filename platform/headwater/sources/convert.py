"""Documents that are not plain text -> text, in a child process with limits, and how a file's first bytes tell its format.

A hostile document can at worst end the child: it sees no file, has `memory_bytes` and `seconds`, and is killed beyond
them. The child serves many documents; `close` ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Literal

from headwater.errors import UsageError
from headwater.sources.conversion import REPLY, REQUEST

Format = Literal["pdf", "office", "html", "notebook", "ole"]
SOURCE_BYTES = 64 << 20  # of a file that is converted
_OFFICE = (".docx", ".docm", ".dotx", ".pptx", ".pptm", ".ppsx", ".xlsx", ".xlsm", ".xltx")
_OFFICE_PARTS = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"ppt/", b"xl/", b"customXml/")
ENDINGS: Mapping[str, Format] = {
    ".pdf": "pdf", ".html": "html", ".htm": "html", ".xhtml": "html", ".ipynb": "notebook", ".doc": "ole", ".xls": "ole",
    ".ppt": "ole", **dict.fromkeys(_OFFICE, "office"),
}  # fmt: skip
_PAGE = re.compile(rb"\s*+(?:<\?xml[^>]*+>\s*+)?(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_NOTEBOOK = re.compile(rb'\s*\{(?=.*"(?:cells|nbformat|worksheets)"\s*:)(?=.*"(?:cell_type|nbformat)"\s*:)', re.DOTALL)
_LOG_LIKE = (".log", ".jsonl", ".ndjson", ".csv", ".tsv")  # where a page may be quoted in the first line


def format_of(name: str, first: bytes) -> Format | None:
    """The format of a file that begins with `first`, by its bytes and, where they do not tell, its name. None for text."""
    ending = PurePath(name).suffix.lower()
    if b"%PDF-" in first[:1024]:
        return "pdf"
    if first.startswith(b"PK\x03\x04"):
        length = int.from_bytes(first[26:28], "little")
        return "office" if ending in _OFFICE or first[30 : 30 + length].startswith(_OFFICE_PARTS) else None
    if first.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "ole"
    if ending not in _LOG_LIKE and _PAGE.match(first.lstrip(b"\xef\xbb\xbf")):
        return "html"
    if ending in (".ipynb", ".json") and _NOTEBOOK.match(first):
        return "notebook"
    return ENDINGS.get(ending)


@dataclass(frozen=True, slots=True)
class Converted:
    """A document's canonical text; `format` is pdf, docx, pptx, xlsx, html or notebook, `pages` None where it has none."""

    text: str
    format: str
    pages: int | None
    attributes: Mapping[str, str]


class Converter:
    """Converts one document at a time, from any thread. The child is started when needed."""

    def __init__(self, *, seconds: float = 60.0, memory_bytes: int = 1 << 30) -> None:
        self._seconds, self._memory_bytes = seconds, memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closing = False

    def __enter__(self) -> Converter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, also while it converts. The next document gets another."""
        self._closing = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._end()
            self._closing = False

    def convert(self, data: bytes, format: Format) -> Converted:
        """The text of a document. Raises UsageError that says why there is none, and how to mend that."""
        if not data.strip(b"\0\t\n\r "):
            raise UsageError("the file is empty")
        if len(data) > SOURCE_BYTES:
            raise UsageError(f"a document of more than {SOURCE_BYTES >> 20} MiB; split it")
        with self._lock:
            used = self._child is not None
            try:
                reply = self._exchange(data, format)
            except EOFError as error:
                if not used or self._closing:
                    raise UsageError(str(error)) from None
                reply = self._again(data, format)  # it may have died of something else than this document
            if reply.get("ends"):
                self._end()
        if "fault" in reply:
            raise UsageError(str(reply["fault"]))
        pages = reply["pages"]
        return Converted(
            str(reply["text"]), str(reply["format"]), pages if isinstance(pages, int) else None,
            reply["attributes"] if isinstance(reply["attributes"], dict) else {},
        )  # fmt: skip

    def _again(self, data: bytes, format: Format) -> dict[str, object]:
        try:
            return self._exchange(data, format)
        except EOFError as error:
            raise UsageError(str(error)) from None

    def _exchange(self, data: bytes, format: Format) -> dict[str, object]:
        """Raises UsageError where it takes too long, EOFError where the child dies of it."""
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        header = json.dumps({"format": format, "seconds": self._seconds, "memory": self._memory_bytes}).encode()
        try:
            child.stdin.write(REQUEST.pack(len(header), len(data)) + header)
            child.stdin.write(data)
            child.stdin.flush()
            end = time.monotonic() + self._seconds
            (length,) = REPLY.unpack(_read(child.stdout, REPLY.size, end))
            return dict(json.loads(_read(child.stdout, length, end)))
        except TimeoutError:
            self._end()
            raise UsageError(f"converting it takes longer than {self._seconds:g} s; split it, or save it anew") from None
        except (EOFError, BrokenPipeError, ConnectionError):
            status = self._end()
            raise EOFError(f"it ended the converter (status {status}): a damaged or hostile document") from None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            command = [sys.executable, "-P", "-m", "headwater.sources.conversion"]
            pipe = subprocess.PIPE
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._child = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, close_fds=True, env=environment
            )
        return self._child

    def _end(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        return child.wait()


def _read(pipe: IO[bytes], length: int, end: float) -> bytes:
    """Exactly `length` bytes by the time `end`. Raises TimeoutError, and EOFError where the pipe ends before."""
    parts: list[bytes] = []
    missing = length
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while missing:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError
        part = os.read(pipe.fileno(), min(missing, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
