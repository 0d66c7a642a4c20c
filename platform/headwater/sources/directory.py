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
from headwater.sources.documents import document, is_prose
from headwater.sources.files import ARCHIVES, DOCUMENT_BYTES, not_text, open_regular
from headwater.sources.lines import codec, decode
from headwater.sources.rotation import is_rotated
from headwater.sources.stdin import Stdin
from headwater.sources.tail import FileTail, Wake

_DOCUMENTS = (".md", ".markdown", ".rst")
_LOGS = (".log", ".out", ".err", ".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv")
_BATCH_CHARS = 8 << 20
_RACY_NS = 2_000_000_000  # a file changed this short before it was read may change again within one clock tick


def classify(path: Path) -> Literal["log", "document", "table"] | None:
    """What a file is, by its ending and its first 8 KiB; None for what is no text, is packed, or cannot be read.
    JSON lines and files without a known ending are logs; .txt is a document where it reads as prose, else a log."""
    ending = path.suffix.lower()
    if ending in ARCHIVES or ending in (".gz", ".lock", ".pid", ".sock", ".swp", ".tmp") or path.name.endswith("~"):
        return None
    try:
        with open_regular(path) as file:
            first = file.read(8192)
    except HeadwaterError:
        return None
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


def walk(root: Path) -> Iterator[Path]:
    """The files below `root`, by name; hidden files and folders and links to folders are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


class DirectoryFollow:
    """Source of the documents in a folder: one record a document, keyed by its path below the folder, and another
    whenever its text changes. One that is deleted stays in the topic. The state holds a hash of each document, so a
    restart reads all and repeats none; positions count versions within the run of the state."""

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
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.topic = topic
        self.poll_s, self.batch_records = poll_s, batch_records
        self._wake, self._now_ns = wake, now_ns
        self._condition = Condition()
        self._seen: dict[str, tuple[int, int, int]] = {}  # what need not be read again: inode, size, mtime

    @property
    def name(self) -> str:
        return f"directory:{self.topic}:{self.path}"

    @property
    def condition(self) -> Condition:
        return self._condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. State: `{born, next, documents: {key: hash}}`."""
        born = int(state["born"]) if state else self._now_ns()
        position = int(state["next"]) if state else 0
        hashes: dict[str, str] = dict(state["documents"]) if state else {}
        stream = f"{self.name}#{born}"
        self._seen.clear()
        while True:
            self._condition = Condition("following" if self.path.is_dir() else "waiting for the folder")
            drafts: list[Draft] = []
            faults: list[Fault] = []
            present: set[str] = set()
            size = 0
            for path in walk(self.path):
                key = path.relative_to(self.path).as_posix()
                present.add(key)
                found = self._changed(path, key, position, hashes)
                if found is None:
                    continue
                position += 1
                if isinstance(found, Draft):
                    drafts.append(found)
                    size += len(found.value)
                else:
                    faults.append(found)
                if len(drafts) + len(faults) >= max(self.batch_records, len(hashes) // 20) or size >= _BATCH_CHARS:
                    yield Batch(drafts, {"born": born, "next": position, "documents": dict(hashes)}, stream, None, faults)
                    drafts, faults, size = [], [], 0
                    await asyncio.sleep(0)
            if self.path.is_dir():
                for key in hashes.keys() - present:
                    del hashes[key]
            if drafts or faults:
                yield Batch(drafts, {"born": born, "next": position, "documents": dict(hashes)}, stream, 0, faults)
            await self._wake(self.poll_s)

    def _changed(self, path: Path, key: str, position: int, hashes: dict[str, str]) -> Draft | Fault | None:
        """The document, where its text is new; a fault, once for each version, where it cannot be taken."""
        try:
            status = path.stat()
            mark = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._seen.get(key) == mark:
                return None
            if self._now_ns() - status.st_mtime_ns > _RACY_NS:
                self._seen[key] = mark
            if classify(path) != "document":
                return None
            with open_regular(path, root=self.path) as file:
                data = file.read(DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            return None
        except (HeadwaterError, OSError) as error:
            return self._new(hashes, key, str(error).encode()) and Fault(position, str(error), key)
        if not self._new(hashes, key, data):
            return None
        if len(data) > DOCUMENT_BYTES:
            return Fault(position, "a document of more than 16 MiB", key)
        encoding, mark_bytes = codec(data) or ("utf-8", 0)
        text, raw = decode(data[mark_bytes:], encoding)
        return document(text, key, position, raw) if text.strip() else None

    @staticmethod
    def _new(hashes: dict[str, str], key: str, data: bytes) -> Literal[True] | None:
        found = hashlib.blake2b(data, digest_size=8).hexdigest()
        if hashes.get(key) == found:
            return None
        hashes[key] = found
        return True


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
        if classify(path) is None:
            raise UsageError(_refused(path))
        yield path, Path(path.name)
        return
    yield path, Path(path.name)
    for file in walk(path):
        if classify(file) == "log" and not is_rotated(file) and file.resolve().is_relative_to(path.resolve()):
            yield file, file.relative_to(path)


def _refused(path: Path) -> str:
    """Why a file is not followed, and what to do instead."""
    ending = path.suffix.lower()
    if ending in (".gz", *ARCHIVES):
        return f"{path} is packed, and not followed; `headwater ingest TOPIC FILE` reads .gz files once"
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
