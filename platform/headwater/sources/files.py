"""Read a file once, for `ingest`: jsonl, json, csv/tsv, log, txt, md and gzip of these, as batches that can be resumed.

Positions count the bytes of the (unpacked) file, of `json` its records. The stream is the path and a hash of the file's
bytes: reading the same file again delivers the same (stream, position) pairs, and a changed file is another stream. One that
only grew goes on in its stream, behind what was read.

What a file is read as (`kind`), by its name unless it is given:

- `jsonl` (.jsonl .ndjson): one record a line, see `fields`. A line that is no JSON is a fault.
- `table` (.csv .tsv): a header, then one record a row, the fields as in `fields`. Without a value column the value
  is the row as JSON. A row with more cells than the header, or with a quote never closed, is a fault.
- `json` (.json): an object, a list of them, or the one list of objects in an object, each a record. Read as a whole.
- `log` (.log, no ending, others): one record an event, see `lines`.
- `lines` and `document`: one record a line; the whole file as one record.
- .md .markdown .rst are documents. .txt .text is a document where it reads as prose (see `is_prose`), else lines.

- PDF, Word, PowerPoint, Excel, HTML and notebooks, told by their bytes, and source code are documents too, see `convert`.

A document's key is its path below `root` (its name without one), its attributes its title, format and front matter.
One that cannot be converted is a fault. Text is UTF-8, or UTF-16 with a byte order mark.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import orjson

from headwater.errors import LimitError, NotFoundError, StorageError, UsageError
from headwater.records import Draft
from headwater.sources import Batch, Fault, State
from headwater.sources.convert import SOURCE_BYTES, Converter, format_of
from headwater.sources.documents import LANGUAGES, MARKDOWN, converted, document, is_prose
from headwater.sources.exports import MOST_BYTES
from headwater.sources.fields import BadLine, json_draft, object_draft
from headwater.sources.foreign import foreign
from headwater.sources.lines import Line, LineCutter, codec, decode, decode_text
from headwater.sources.shapes import PAYLOAD_CHARS, read_all, shape_of
from headwater.sources.trees import elements

Kind = Literal["jsonl", "json", "table", "log", "lines", "document"]
KINDS: Mapping[str, Kind | None] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "table", ".tsv": "table", ".log": "log", ".out": "log", ".err": "log",
    **dict.fromkeys((*MARKDOWN, *LANGUAGES), "document"), ".txt": None, ".text": None,
}  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
DOCUMENT_BYTES = 16 << 20
BLOCK_BYTES = 256 << 10
FIRST_BYTES = 64 << 10
_BATCH_CHARS = 8 << 20
_CONTROLS = bytes(n for n in range(32) if n not in b"\t\n\v\f\r\b\x1b")  # what text hardly has
_ODD_SHARE = 20  # one byte in so many, and it is no text
_MAGIC = ((b"PK\x03\x04", "a zip archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"BZh", "bzip2"),
          (b"\xfd7zXZ", "xz"), (b"(\xb5/\xfd", "zstd"), (b"\x7fELF", "a program"),
          (b"{\\rtf", "rich text (RTF), whose text only a word processor reads"), (b"%!PS", "PostScript"))  # fmt: skip


def open_regular(path: Path, *, root: Path | None = None) -> BinaryIO:
    """`path` open for reading. Raises NotFoundError, StorageError where it cannot be read, and UsageError for anything
    but a regular file (directory, FIFO, device, socket) and for a path that leads out of `root`."""
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} leads out of {root}; copy the file there, or name it by itself")
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a directory; name the files in it, or follow it with `headwater up {path}`")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a regular file; pipe it in instead: `... | headwater append TOPIC`")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UsageError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def read(
    path: str | os.PathLike[str],
    *,
    kind: Kind | None = None,
    batch_records: int = 2000,
    root: Path | None = None,
    state: State | None = None,
    max_ratio: int = 200,
    max_bytes: int = 64 << 30,
    converter: Converter | None = None,
) -> Reading:
    """The records of a file, as an iterator of batches with progress. With the state of an earlier batch it goes on
    behind that batch, provided that the file is the same (else it starts anew). A `converter` may serve many files.

    Raises UsageError for what is no regular text file, NotFoundError, StorageError, and LimitError where a gzip file
    unpacks to more than `max_bytes`, or to more than `max_ratio` times its size once beyond 32 MiB.
    """
    where = Path(os.path.abspath(path))
    return Reading(where, kind, batch_records, root, state, max_ratio, max_bytes, converter)


class Reading(Iterator[Batch]):
    """A file being read. `done_bytes` of `total_bytes` (as it lies on disk) have been read. Exhaust it,
    close it, or use it as a context."""

    def __init__(
        self,
        path: Path,
        kind: Kind | None,
        batch_records: int,
        root: Path | None,
        state: State | None,
        max_ratio: int,
        max_bytes: int,
        converter: Converter | None = None,
    ) -> None:
        self.path = path
        self.source = f"ingest:{path}"
        self._converter = converter
        self._file = open_regular(path, root=root)
        try:
            self.total_bytes = os.fstat(self._file.fileno()).st_size
            self._digest = _digest(self._file)
            self.stream = f"{self.source}#{self._digest}"
            self._file.seek(0)
            self._text = _Bytes(self._file, self.total_bytes, max_ratio, max_bytes)
            self._format = format_of(path.name.removesuffix(".gz"), self._text.first) if kind in (None, "document") else None
            self.kind: Kind = kind or ("document" if self._format else _kind_of(path, self._text))
            self._encoding, self._mark_bytes = codec(self._text.first) or ("utf-8", 0)
            self.key = path.resolve().relative_to(root.resolve()).as_posix() if root else path.name
        except BaseException:
            self._file.close()
            raise
        self._start = self._mark_bytes
        if state is not None:
            self.resume(state)
        self._batch_records = batch_records
        self._batches: Iterator[Batch] = self._read()

    def resume(self, state: State) -> bool:
        """Go on behind the batch whose state that is; False, and nothing changed, where it is of another file, or of one that
        was changed and not only added to. To be called before the first batch is taken."""
        if state.get("stream") != self.stream and not self._has_grown(state):
            return False
        self.stream = str(state["stream"])
        self._start = max(int(state["offset"]), self._mark_bytes)
        return True

    def _has_grown(self, state: State) -> bool:
        """Whether the file is the one that the state tells of, with more behind it: then it goes on in the same stream.
        Documents and what is packed are read as a whole."""
        size, before = state.get("size"), state.get("digest")
        if (
            self.kind in ("document", "json")
            or self._text.packed
            or not (isinstance(size, int) and 0 < size < self.total_bytes)
        ):
            return False
        self._file.seek(0)
        return _digest(self._file, size) == before

    @property
    def done_bytes(self) -> int:
        return self.total_bytes if self._file.closed else self._file.tell()

    def __next__(self) -> Batch:
        return next(self._batches)

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._batches = iter(())

    # ------------------------------------------------------------------------------------------------------ batches
    def _read(self) -> Iterator[Batch]:
        try:
            if self.kind == "document":
                if self._start == self._mark_bytes:  # else it has been read
                    yield self._document()
            else:
                yield from self._batched(self._records())
        finally:
            self._file.close()

    def _batched(self, found: Iterator[tuple[Draft | Fault | None, int]]) -> Iterator[Batch]:
        """Batches of what `found` yields with the position behind it."""
        drafts: list[Draft] = []
        faults: list[Fault] = []
        end, size = self._start, 0
        for item, end in found:
            if isinstance(item, Draft):
                drafts.append(item)
                size += len(item.value)
            elif item is not None:
                faults.append(item)
            if len(drafts) + len(faults) >= self._batch_records or size >= _BATCH_CHARS:
                yield self._batch(drafts, faults, end)
                drafts, faults, size = [], [], 0
        if self._text.fault is not None:
            faults.append(Fault(self._text.at, self._text.fault))
        if drafts or faults:
            yield self._batch(drafts, faults, end)

    def _batch(self, drafts: list[Draft], faults: list[Fault], end: int) -> Batch:
        state = {"stream": self.stream, "offset": end, "size": self.total_bytes, "digest": self._digest}
        return Batch(drafts, state, self.stream, self.total_bytes - self.done_bytes, faults)

    def _lines(self, start: int) -> Iterator[Line]:
        """The lines from `start` on. The last, incomplete line of a gzip file that is cut off is left out."""
        cutter = LineCutter(start, self._encoding)
        for data in self._text.blocks(start):
            yield from cutter.feed(data)
        if self._text.fault is None:
            yield from cutter.flush()

    def _records(self) -> Iterator[tuple[Draft | Fault | None, int]]:
        """Each event, line, JSON line or row."""
        if self.kind == "document":
            raise AssertionError("a document is one record")
        if self.kind == "json":
            yield from self._elements()
            return
        begin = self._start
        header = self._text.first[:begin] if self.kind == "table" and begin > self._mark_bytes else b""
        delimiter = "\t" if ".tsv" in self.path.suffixes else None
        shape = shape_of(self.kind, begin, self._encoding, header=header[self._mark_bytes :], delimiter=delimiter)
        yield from read_all(shape, self._lines(begin))

    def _elements(self) -> Iterator[tuple[Draft | Fault | None, int]]:
        """Each object of a file of JSON, or what is none; those before the start were read."""
        parts, size = [], 0
        for data in self._text.blocks(self._mark_bytes):
            parts.append(data)
            size += len(data)
            if size > MOST_BYTES:
                raise LimitError(f"{self.path} is JSON of more than {MOST_BYTES >> 20} MiB; make it one object a line (.jsonl)")
        text = decode(b"".join(parts), self._encoding)[0]
        begin = self._start if self._start > self._mark_bytes else 0
        n = -1
        try:
            for n, tree in enumerate(elements(text)):
                if n >= begin:
                    yield _of_tree(tree, n), n + 1
        except BadLine as error:  # of the file itself
            yield Fault(n + 1, str(error)), n + 1

    def _document(self) -> Batch:
        parts, size = [], 0
        for data in self._text.blocks(self._start):
            parts.append(data)
            size += len(data)
            if size > (SOURCE_BYTES if self._format else DOCUMENT_BYTES):
                if self._format:
                    return self._batch([], [Fault(0, f"a document of more than {SOURCE_BYTES >> 20} MiB; split it")], size)
                raise LimitError(f"{self.path} is a document of more than 16 MiB; read it with kind='lines', or split it")
        data = b"".join(parts)
        if self._format:
            return self._converted(data)
        text, raw = decode_text(data, self._encoding)
        faults = [Fault(size, self._text.fault)] if self._text.fault is not None else []
        drafts = [document(text, self.key, 0, raw)] if text.strip() else []
        return self._batch(drafts, faults, self._text.at)

    def _converted(self, data: bytes) -> Batch:
        assert self._format is not None
        converter = self._converter or Converter()
        try:
            return self._batch([converted(converter.convert(data, self._format), self.key)], [], self._text.at)
        except UsageError as error:
            return self._batch([], [Fault(0, str(error))], self._text.at)
        finally:
            if self._converter is None:
                converter.close()


def unpacked(path: Path, into: IO[bytes]) -> bool:
    """Write what a gzip file holds `into` another; False, and nothing done, where it is none. Raises what `open_regular`
    raises, UsageError for one that is damaged, LimitError for a bomb."""
    with open_regular(path) as file:
        data = _Bytes(file, os.fstat(file.fileno()).st_size, 200, 16 << 30)
        if not data.packed:
            return False
        for block in data.blocks(0):
            into.write(block)
        if data.fault is not None:
            raise UsageError(f"{path}: {data.fault}; fetch it anew")
    into.flush()
    return True


def first_bytes(path: Path) -> bytes:
    """What a file begins with, unpacked. Raises what `open_regular` raises."""
    with open_regular(path) as file:
        return _Bytes(file, os.fstat(file.fileno()).st_size, 200, 64 << 30).first


# ------------------------------------------------------------------------------------------------------------- bytes
class _Bytes:
    """The bytes of a file, unpacked where it is gzip. `at` is the position behind what was read; `fault` says why
    that is not all there was."""

    def __init__(self, file: BinaryIO, size: int, max_ratio: int, max_bytes: int) -> None:
        self._file, self._size = file, size
        self._max_ratio, self._max_bytes = max_ratio, max_bytes
        self.packed = file.read(2) == b"\x1f\x8b"
        self.fault: str | None = None
        self.at = 0
        self.first = b"".join(self._some(FIRST_BYTES))
        self.fault = None

    def _some(self, length: int) -> Iterator[bytes]:
        size = 0
        for data in self.blocks(0):
            yield data[: length - size]
            size += len(data)
            if size >= length:
                return

    def blocks(self, start: int) -> Iterator[bytes]:
        """The bytes from `start` on."""
        self._file.seek(0 if self.packed else start)
        self.at = 0 if self.packed else start
        for data in self._unpacked() if self.packed else iter(lambda: self._file.read(BLOCK_BYTES), b""):
            begin = self.at
            self.at += len(data)
            if self.at > start:
                yield data[max(0, start - begin) :]

    def _unpacked(self) -> Iterator[bytes]:
        """All members, in blocks. Raises LimitError for a bomb; sets `fault` and ends where the file is damaged."""
        unpack, held, total = zlib.decompressobj(31), b"", 0
        while True:
            held = held or self._file.read(64 << 10)
            if not held:
                self.fault = "the gzip file is cut off; its complete lines were kept"
                return
            try:
                data = unpack.decompress(held, BLOCK_BYTES)
            except zlib.error as error:
                self.fault = f"the gzip file is damaged ({error}); what came before was kept"
                return
            held = unpack.unconsumed_tail
            total += len(data)
            if total > self._max_bytes or (total > 32 << 20 and total > self._max_ratio * self._size):
                raise LimitError(f"a gzip file of {self._size} bytes unpacks to more than {total}; refused as a bomb")
            if data:
                yield data
            if unpack.eof:
                held = (unpack.unused_data or self._file.read(64 << 10)).lstrip(b"\0")  # padding is allowed
                if not held:
                    return
                unpack = zlib.decompressobj(31)


def _digest(file: BinaryIO, size: int = 1 << 62) -> str:
    """Of the next `size` bytes."""
    found = hashlib.sha256()
    while size > 0 and (data := file.read(min(size, 1 << 20))):
        found.update(data)
        size -= len(data)
    return found.hexdigest()[:16]


def not_text(first: bytes) -> str | None:
    """What a file that begins with `first` is, where it is no text."""
    for magic, what in _MAGIC:
        if first.startswith(magic):
            return what
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 is half NUL bytes
        return None
    sample = first.lstrip(b"\0")[:8192]  # a truncated file begins with a hole
    odd = len(sample) - len(sample.translate(None, _CONTROLS))
    return "not text (it is full of control bytes)" if odd * _ODD_SHARE > len(sample) else None


def _kind_of(path: Path, text: _Bytes) -> Kind:
    """The kind a file's name and first bytes tell. Raises UsageError for what is no text."""
    name = path.name.lower().removesuffix(".gz")
    ending = os.path.splitext(name)[1]
    if (document := foreign(name, text.first)) is not None:
        raise UsageError(f"{path} is {document}")
    what = not_text(text.first) or ("an archive" if ending in ARCHIVES else None)
    if what:
        raise UsageError(f"{path} is {what}; unpack or convert it, and name the text files")
    known = KINDS.get(ending)
    if known is not None:
        return known
    sample = decode(text.first, (codec(text.first) or ("utf-8", 0))[0])[0].lstrip("\ufeff")
    if ending in (".txt", ".text"):
        return "document" if is_prose(sample) else "lines"
    if ending != ".json":
        return "log"
    lines = [line.strip() for line in sample.split("\n", 3)[:3] if line.strip()]
    apart = len(lines) > 1 and all(line.startswith("{") for line in lines) and lines[0].endswith("}")
    return "jsonl" if apart else "json"


def _of_tree(tree: Any, n: int) -> Draft | Fault:
    """The draft of one value of a file of JSON."""
    try:
        whole = orjson.dumps(tree).decode()
    except (orjson.JSONEncodeError, UnicodeDecodeError):
        whole = json.dumps(tree)
    try:
        return object_draft(tree, whole, n) if isinstance(tree, dict) else json_draft(whole, n)
    except BadLine as error:
        return Fault(n, str(error), whole[:PAYLOAD_CHARS])
