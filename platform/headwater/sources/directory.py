"""Documents that are followed: those of a folder, or one file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Literal

from headwater.errors import HeadwaterError, NotFoundError, UsageError
from headwater.records import Draft
from headwater.sources import Batch, Condition, Fault, State
from headwater.sources.convert import ENDINGS, SOURCE_BYTES, Converter, format_of
from headwater.sources.documents import LANGUAGES, MARKDOWN, converted, document, is_prose
from headwater.sources.files import ARCHIVES, DOCUMENT_BYTES, not_text, open_regular
from headwater.sources.foreign import foreign_in_folder
from headwater.sources.hints import Hints
from headwater.sources.lines import codec, decode, decode_text
from headwater.sources.tail import Wake

_DOCUMENTS = (*MARKDOWN, *LANGUAGES)
_HINTED = (*_DOCUMENTS, *ENDINGS, ".txt", ".text")
_MACHINE_MADE = ("node_modules", "__pycache__", "site-packages", "venv")  # folders of what others wrote, or programs did
_LOGS = (".log", ".out", ".err", ".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
_BATCH_CHARS = 8 << 20
_RACY_NS = 2_000_000_000  # a file changed this short before it was read may change again within one clock tick
_REST_S = 0.5  # a file is read once it has not changed for so long: one that is being written is no version yet
_PATIENCE_S = 10.0  # but after this at the latest


def classify(path: Path) -> Literal["log", "document", "table"] | None:
    """What a file is, by its ending and its first 8 KiB; None for what is neither text nor a document that can be
    converted, is packed, or cannot be read.
    JSON lines and files without a known ending are logs; .txt is a document where it reads as prose, else a log."""
    ending = path.suffix.lower()
    if ending in ARCHIVES or ending in (".gz", ".lock", ".pid", ".sock", ".swp", ".tmp") or path.name.endswith("~"):
        return None
    try:
        with open_regular(path) as file:
            first = file.read(8192)
    except HeadwaterError:
        return None
    if format_of(path.name, first) is not None:
        return "document"
    if not_text(first):
        return None
    if ending in _DOCUMENTS:
        return "document"
    if ending in _TABLES:
        return "table"
    if ending in _LOGS:
        return "log"
    text, bad = decode(first[: first.rfind(b"\n") + 1] or first, (codec(first) or ("utf-8", 0))[0])
    if ending in (".txt", ".text"):
        return "document" if is_prose(text) else "log"
    if ending in ("", ".syslog", ".messages") or re.fullmatch(r"\.[a-z]*log", ending):
        return None if bad is not None and text.count("\ufffd") * 20 > len(text) else "log"
    return None


def walk(root: Path, *, failed: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """The files below `root`, by name; hidden files and folders, installed packages and links to folders are left out.
    `failed` is told of each folder that cannot be listed."""
    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _MACHINE_MADE)
        for name in sorted(names):
            if not name.startswith((".", "~$")):  # Office's own locks
                yield Path(folder, name)


class DirectoryFollow:
    """Source of the documents in a folder: one record a document, keyed by its path below the folder, and another
    whenever its text changes; the attribute `version` counts them. With `alone` the path is one file, which is read as a
    document whatever its name.

    The state holds a hash of each document, so a restart reads all and repeats none; positions count versions within the
    run of the state. Of the keys named `latest` in a batch's state only the newest record is to stay, of those `gone`
    none: the state says it again after a restart, until the next batch. One that changed to what cannot be read keeps
    its last version. Where a folder could not be listed nothing is taken for gone. It looks every `poll_s`, and sooner
    where the system tells of a change, or `wake` returns instead."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        topic: str,
        *,
        alone: bool = False,
        poll_s: float = 2.0,
        batch_records: int = 200,
        wake: Wake | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        converter: Converter | None = None,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.topic, self.kind = topic, "document" if alone else "directory"
        self._alone, self._folder = alone, self.path.parent if alone else self.path
        self.poll_s, self.batch_records = poll_s, batch_records
        self._wake, self._now_ns, self._converter = wake, now_ns, converter or Converter()
        self._condition = Condition()
        self._tables: set[str] = set()  # which are read by `headwater ingest`, and not followed
        self._seen: dict[str, tuple[int, int, int]] = {}  # what need not be read again: inode, size, mtime
        self._restless: dict[str, int] = {}  # what is being written, and since when that was seen

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.topic}:{self.path}"

    @property
    def condition(self) -> Condition:
        return self._condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. State: `{born, next, documents: {key: hash}, versions: {key: n}, latest?: [key], gone?: [key]}`."""
        scan = _Scan(self.name, state or {"born": self._now_ns(), "next": 0, "documents": {}})
        self._seen.clear()
        waking = nullcontext(self._wake) if self._wake else _hinted(self._folder, self._is_hint, deep=not self._alone)
        try:
            if state and (state.get("latest") or state.get("gone")):
                yield Batch([], state, scan.stream)  # the process ended before what they ask for was done for sure
            async with waking as wake:
                while True:
                    self._tell()
                    present: set[str] = set()
                    unread: list[OSError] = []
                    for path in self._files(unread.append):
                        key = path.relative_to(self._folder).as_posix()
                        present.add(key)
                        if not self._is_due(path, key):
                            continue
                        scan.take(key, await asyncio.to_thread(self._read, path, key, scan))
                        if scan.pending >= max(self.batch_records, len(scan.hashes) // 20) or scan.size >= _BATCH_CHARS:
                            yield scan.batch(None)
                    if self._folder.is_dir() and not unread:
                        scan.forget(present)
                        self._tables &= present
                    for key in self._restless.keys() - present:
                        del self._restless[key]
                    if scan.pending:
                        yield scan.batch(0)
                    self._converter.close()
                    await wake(min(_REST_S, self.poll_s) if self._restless else self.poll_s)
        finally:
            self._converter.close()

    def _tell(self) -> None:
        there = self.path.is_file() if self._alone else self.path.is_dir()
        left_out = {"tables_left_out": len(self._tables)} if self._tables else {}
        waiting = f"waiting for the {'file' if self._alone else 'folder'}"
        self._condition = Condition("following" if there else waiting, counts=left_out)

    def _files(self, failed: Callable[[OSError], None]) -> Iterator[Path]:
        if not self._alone:
            yield from walk(self.path, failed=failed)
        elif self.path.exists():
            yield self.path

    def _is_hint(self, changed: Path) -> bool:
        """Whether a change below the folder may be one of a document."""
        if self._alone:
            return changed.name == self.path.name
        parts = changed.relative_to(self._folder).parts if changed.is_relative_to(self._folder) else changed.parts
        hidden = any(part.startswith(".") or part in _MACHINE_MADE for part in parts)
        return not hidden and changed.suffix.lower() in _HINTED

    def _is_due(self, path: Path, key: str) -> bool:
        """Whether a file is to be read now: it is not the one that was read before, by its inode, size and time, and is not
        being written."""
        try:
            status = path.stat()
        except OSError:
            return True  # reading it says why
        mark, now = (status.st_ino, status.st_size, status.st_mtime_ns), self._now_ns()
        if self._seen.get(key) == mark:
            return False
        age_ns = now - status.st_mtime_ns
        if 0 <= age_ns < _REST_S * 1e9 and now - self._restless.setdefault(key, now) < _PATIENCE_S * 1e9:
            return False
        self._restless.pop(key, None)
        if age_ns > _RACY_NS:
            self._seen[key] = mark
        return True

    def _read(self, path: Path, key: str, scan: _Scan) -> Draft | str | None:
        """The document where its bytes are new, why it cannot be taken (once for each version), or None."""
        try:
            if not self._alone:
                kind = classify(path)
                (self._tables.add if kind == "table" else self._tables.discard)(key)
                if kind != "document":
                    reason = self._why_not(path) if kind is None else None
                    return reason if reason is not None and scan.is_new(key, reason.encode()) else None
            with open_regular(path, root=None if self._alone else self._folder) as file:
                data = file.read(SOURCE_BYTES + 1)
        except (FileNotFoundError, NotFoundError):
            return None
        except (HeadwaterError, OSError) as error:
            return str(error) if scan.is_new(key, str(error).encode()) else None
        if not scan.is_new(key, data):
            return None
        try:
            return self._document(path.name, data, key)
        except UsageError as error:
            return str(error)

    @staticmethod
    def _why_not(path: Path) -> str | None:
        """Why a document is none that is read; None for what is no document, as programs and pictures are."""
        try:
            with open_regular(path) as file:
                return foreign_in_folder(path.name, file.read(64))
        except HeadwaterError:
            return None

    def _document(self, name: str, data: bytes, key: str) -> Draft:
        """The document that some bytes are. Raises UsageError."""
        format = format_of(name, data[:8192])
        limit = SOURCE_BYTES if format else DOCUMENT_BYTES
        if len(data) > limit:
            raise UsageError(f"a document of more than {limit >> 20} MiB; split it")
        if format:
            return converted(self._converter.convert(data, format), key)
        if (what := not_text(data[:8192])) is not None:
            raise UsageError(f"no document: it is {what}")
        encoding, mark_bytes = codec(data) or ("utf-8", 0)
        text, raw = decode_text(data[mark_bytes:], encoding)
        return document(text, key, 0, raw)


@asynccontextmanager
async def _hinted(folder: Path, matters: Callable[[Path], bool], *, deep: bool) -> AsyncIterator[Wake]:
    async with Hints(folder, matters, deep=deep) as hints:
        yield hints.wake


class _Scan:
    """What is known of a folder's documents, and the batch that is being filled."""

    def __init__(self, name: str, state: State) -> None:
        self._born, self._next = int(state["born"]), int(state["next"])
        self.stream = f"{name}#{self._born}"
        self.hashes: dict[str, str] = dict(state["documents"])
        self._versions: dict[str, int] = dict(state.get("versions") or dict.fromkeys(self.hashes, 1))
        self._drafts: list[Draft] = []
        self._faults: list[Fault] = []
        self._latest: list[str] = []
        self._gone: list[str] = []
        self.size = 0

    @property
    def pending(self) -> int:
        return len(self._drafts) + len(self._faults) + len(self._gone)

    def is_new(self, key: str, data: bytes) -> bool:
        """Whether a document's bytes are others than before; they are remembered."""
        found = hashlib.blake2b(data, digest_size=8).hexdigest()
        if self.hashes.get(key) == found:
            return False
        self.hashes[key] = found
        return True

    def take(self, key: str, found: Draft | str | None) -> None:
        """Add a document, or why there is none. One that became blank is gone."""
        if isinstance(found, str):
            self._faults.append(Fault(self._next, found, key))
        elif found is not None and found.value.strip():
            number = self._versions[key] = self._versions.get(key, 0) + 1
            attributes = {**found.attributes, "version": number}
            self._drafts.append(found._replace(attributes=attributes, position=self._next))
            self._latest += [key] if number > 1 else []
            self.size += len(found.value)
        elif found is not None and key in self._versions:
            self._gone.append(key)
        else:
            return
        self._next += 1

    def forget(self, present: Collection[str]) -> None:
        """Take the documents that are no longer `present` for gone. Their versions go on where they come again."""
        for key in self.hashes.keys() - present:
            del self.hashes[key]
            if key in self._versions:
                self._gone.append(key)

    def batch(self, lag_bytes: int | None) -> Batch:
        """What was taken since the last batch."""
        state: dict[str, object] = {
            "born": self._born, "next": self._next, "documents": dict(self.hashes), "versions": dict(self._versions),
        }  # fmt: skip
        if self._latest:
            state["latest"] = self._latest
        if self._gone:
            state["gone"] = sorted(self._gone)
        found = Batch(self._drafts, state, self.stream, lag_bytes, self._faults)
        self._drafts, self._faults, self._latest, self._gone, self.size = [], [], [], [], 0
        return found
