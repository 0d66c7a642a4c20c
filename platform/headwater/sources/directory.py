"""Document folders, and what `headwater up PATH...` makes of its arguments."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from headwater.errors import HeadwaterError, NotFoundError, UsageError
from headwater.records import Draft
from headwater.sources import Batch, Condition, Fault, Source, State
from headwater.sources.convert import SOURCE_BYTES, Converter, format_of
from headwater.sources.documents import LANGUAGES, MARKDOWN, converted, document, is_prose
from headwater.sources.files import ARCHIVES, DOCUMENT_BYTES, not_text, open_regular
from headwater.sources.lines import codec, decode
from headwater.sources.rotation import is_rotated
from headwater.sources.stdin import Stdin
from headwater.sources.tail import FileTail, Wake

_DOCUMENTS = (*MARKDOWN, *LANGUAGES)
_MACHINE_MADE = ("node_modules", "__pycache__", "site-packages", "venv")  # folders of what others wrote, or programs did
_LOGS = (".log", ".out", ".err", ".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
_BATCH_CHARS = 8 << 20
_RACY_NS = 2_000_000_000  # a file changed this short before it was read may change again within one clock tick


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
    whenever its text changes; the attribute `version` counts them.

    The state holds a hash of each document, so a restart reads all and repeats none; positions count versions within the
    run of the state. Of the keys named `latest` in a batch's state only the newest record is to stay, of those `gone`
    none: the state says it again after a restart, until the next batch. One that changed to what cannot be read keeps
    its last version. Where a folder could not be listed nothing is taken for gone."""

    kind = "directory"

    def __init__(
        self,
        path: str | os.PathLike[str],
        topic: str,
        *,
        poll_s: float = 2.0,
        batch_records: int = 200,
        wake: Wake = asyncio.sleep,
        now_ns: Callable[[], int] = time.time_ns,
        converter: Converter | None = None,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.topic = topic
        self.poll_s, self.batch_records = poll_s, batch_records
        self._wake, self._now_ns, self._converter = wake, now_ns, converter or Converter()
        self._condition = Condition()
        self._tables: set[str] = set()  # which are read by `headwater ingest`, and not followed
        self._seen: dict[str, tuple[int, int, int]] = {}  # what need not be read again: inode, size, mtime

    @property
    def name(self) -> str:
        return f"directory:{self.topic}:{self.path}"

    @property
    def condition(self) -> Condition:
        return self._condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. State: `{born, next, documents: {key: hash}, versions: {key: n}, latest?: [key], gone?: [key]}`."""
        scan = _Scan(self.name, state or {"born": self._now_ns(), "next": 0, "documents": {}})
        self._seen.clear()
        try:
            if state and (state.get("latest") or state.get("gone")):
                yield Batch([], state, scan.stream)  # the process ended before what they ask for was done for sure
            while True:
                left_out = {"tables_left_out": len(self._tables)} if self._tables else {}
                self._condition = Condition("following" if self.path.is_dir() else "waiting for the folder", counts=left_out)
                present: set[str] = set()
                unread: list[OSError] = []
                for path in walk(self.path, failed=unread.append):
                    key = path.relative_to(self.path).as_posix()
                    present.add(key)
                    if self._is_known(path, key):
                        continue
                    scan.take(key, await asyncio.to_thread(self._read, path, key, scan))
                    if scan.pending >= max(self.batch_records, len(scan.hashes) // 20) or scan.size >= _BATCH_CHARS:
                        yield scan.batch(None)
                if self.path.is_dir() and not unread:
                    scan.forget(present)
                    self._tables &= present
                if scan.pending:
                    yield scan.batch(0)
                self._converter.close()
                await self._wake(self.poll_s)
        finally:
            self._converter.close()

    def _is_known(self, path: Path, key: str) -> bool:
        """Whether a file is the one that was read before, by its inode, size and time."""
        try:
            status = path.stat()
        except OSError:
            return False
        mark = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._seen.get(key) == mark:
            return True
        if self._now_ns() - status.st_mtime_ns > _RACY_NS:
            self._seen[key] = mark
        return False

    def _read(self, path: Path, key: str, scan: _Scan) -> Draft | str | None:
        """The document where its bytes are new, why it cannot be taken (once for each version), or None."""
        try:
            kind = classify(path)
            (self._tables.add if kind == "table" else self._tables.discard)(key)
            if kind != "document":
                return None
            with open_regular(path, root=self.path) as file:
                data = file.read(SOURCE_BYTES + 1)
        except (FileNotFoundError, NotFoundError):
            return None
        except (HeadwaterError, OSError) as error:
            return str(error) if scan.is_new(key, str(error).encode()) else None
        if not scan.is_new(key, data):
            return None
        format = format_of(path.name, data[:8192])
        limit = SOURCE_BYTES if format else DOCUMENT_BYTES
        if len(data) > limit:
            return f"a document of more than {limit >> 20} MiB; split it"
        if format:
            try:
                return converted(self._converter.convert(data, format), key)
            except UsageError as error:
                return str(error)
        encoding, mark_bytes = codec(data) or ("utf-8", 0)
        text, raw = decode(data[mark_bytes:], encoding)
        return document(text, key, 0, raw)


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


def plan(
    paths: Sequence[str], *, known: Mapping[str, str] | None = None, stdin_topic: str = "stdin", wake: Wake = asyncio.sleep
) -> list[Source]:
    """The sources for `paths` of which `known` (file or folder -> topic) does not tell: a tail for a file, a
    DirectoryFollow for a folder's documents and a tail for each log in it, stdin for `-`. Call it again, with what runs
    by now as `known`, to find logs that appeared later. Tables in a folder are left to `ingest`; rotated files belong to their
    tail. Raises NotFoundError for a path that is not there, UsageError for one that cannot be followed."""
    taken = dict(known or {})
    sources: list[Source] = []
    for given in paths:
        if given == "-":
            if "-" not in taken:
                taken["-"] = stdin_topic
                sources.append(Stdin(stdin_topic))
            continue
        path = Path(os.path.abspath(Path(given).expanduser()))
        for file, relative in _followed(path):
            if str(file) in taken:
                continue
            topic = topic_name(relative, file, taken.values())
            taken[str(file)] = topic
            sources.append(DirectoryFollow(file, topic, wake=wake) if file.is_dir() else FileTail(file, topic, wake=wake))
    return sources


def _followed(path: Path) -> Iterator[tuple[Path, Path]]:
    """What is followed for `path`, each with the path that names its topic."""
    if not path.exists():
        raise NotFoundError(f"there is no {path}; name a log file, a folder of documents, or - for standard input")
    if not path.is_dir():
        if classify(path) is None or _is_converted(path):
            raise UsageError(_refused(path))
        yield path, Path(path.name)
        return
    yield path, Path(path.name)
    for file in walk(path):
        if classify(file) == "log" and not is_rotated(file) and file.resolve().is_relative_to(path.resolve()):
            yield file, file.relative_to(path)


def _is_converted(path: Path) -> bool:
    with open_regular(path) as file:
        return format_of(path.name, file.read(8192)) is not None


def _refused(path: Path) -> str:
    """Why a file is not followed, and what to do instead."""
    ending = path.suffix.lower()
    if ending in (".gz", *ARCHIVES):
        return f"{path} is packed, and not followed; `headwater ingest TOPIC FILE` reads .gz files once"
    if _is_converted(path):
        return f"{path} is a document; follow its folder, or read it once with `headwater ingest TOPIC {path.name}`"
    with open_regular(path) as file:
        what = not_text(file.read(8192))
    if what is not None:
        return f"{path} cannot be followed: it is {what}"
    return (
        f"{path} is not followed, as its name is not that of a log; `headwater ingest TOPIC FILE` loads it once, "
        "`tail -F FILE | headwater up -` follows it as it is"
    )


def topic_name(relative: Path, path: Path, taken: Collection[str]) -> str:
    """A topic's name for the file or folder `path`: its path below the folder that was named, without an ending that
    only says how it is read, made of the characters a topic may have. Where that is taken, the ending stays; then its
    folder's name goes before it, and then a hash of its path behind it."""
    whole = "-".join(relative.parts)
    name = _sanitised(re.sub(r"(?i)(?<=.)\.(?:log|txt|jsonl|ndjson|csv|tsv)$", "", whole))
    if name in taken and not whole.lower().endswith(".log"):
        name = _sanitised(whole)
    if name in taken:
        name = _sanitised(f"{path.parent.name}-{name}")
    if name in taken:
        name = f"{name[:91]}-{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    return name


def _sanitised(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "files"
