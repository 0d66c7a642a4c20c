"""A followed file and its rotated siblings on disk: who is who, and in which order they were written.

A file is known by its inode while it is held open, and by its *print* over a restart: a hash of its first up to
1,024 bytes and of the up to 256 bytes before the place read up to. Bytes already read never change in a file that is
only appended to, so a print that differs means another file, or the same one truncated.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

HEAD_BYTES = 1024
BACK_BYTES = 256

# What a rotated file's name has beyond the followed one's: app.log.1, app.log-20260131.gz, app-2026-01-31.log
_SUFFIX = re.compile(r"[.\-_](\d[\w.:\-]*?|old|bak|prev)(\.gz)?")


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading stands in one generation of a file: `offset` is the next byte to read. `stream` names the
    generation, "" before its first record. `head`/`back` are the print; `mtime_ns` the time of the last write seen."""

    generation: int = 0
    stream: str = ""
    inode: int = 0
    offset: int = 0
    head: str = ""
    head_bytes: int = 0
    back: str = ""
    back_bytes: int = 0
    mtime_ns: int = 0

    def to_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Place:
        return cls(**{name: state[name] for name in cls.__slots__ if name in state})


class Opened:
    """A regular file open for reading at positions, plain or gzip (positions then count unpacked bytes, and reading
    goes forward only). Raises OSError; one that is no regular file is refused before anything is read from it."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        self.path, self.packed = path, packed
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{path} is not a regular file")
            self.identity = (status.st_dev, status.st_ino)
            self._packed_file = os.fdopen(os.dup(self._fd), "rb") if packed else None
            self._gzip = gzip.GzipFile(fileobj=self._packed_file, mode="rb") if self._packed_file else None
        except OSError:
            os.close(self._fd)
            raise
        self.damaged: str | None = None
        self._at = 0  # in the unpacked bytes
        self._first = b""  # of them; what may be read again
        while self._gzip is not None and len(self._first) < HEAD_BYTES and (more := self._unpack(HEAD_BYTES)):
            self._first += more

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self._fd)

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; b"" at the end. What comes before damage in a gzip file is read."""
        if self._gzip is None:
            return os.pread(self._fd, length, offset)
        if offset < len(self._first):
            return self._first[offset : offset + length]
        return self._unpack(length) if self._skip(offset) and self._at == offset else b""

    def _unpack(self, length: int) -> bytes:
        assert self._gzip is not None
        try:
            data = self._gzip.read1(length)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damaged = str(error)
            return b""
        self._at += len(data)
        return data

    def matches(self, place: Place) -> bool:
        """Whether this file holds, up to `place.offset`, what was read then. A gzip file is compared by its head
        and length, and is then read on from the offset."""
        head = self.read(0, place.head_bytes) if place.head_bytes else b""
        if len(head) < place.head_bytes or (head and digest(head) != place.head):
            return False
        if self._gzip is not None:
            return self._skip(place.offset)
        back = self.read(place.offset - place.back_bytes, place.back_bytes)
        kept = len(back) == place.back_bytes and (not back or digest(back) == place.back)
        return kept and self.status.st_size >= place.offset

    def _skip(self, offset: int) -> bool:
        if offset <= len(self._first):
            return self._at >= offset
        while self._at < offset and self._unpack(min(offset - self._at, 1 << 20)):
            pass
        return self._at == offset

    def close(self) -> None:
        if self._gzip is not None and self._packed_file is not None:
            self._gzip.close()
            self._packed_file.close()
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Sibling:
    """A file of the family: the followed name itself (suffix None) or a rotated one."""

    path: Path
    suffix: str | None
    packed: bool
    identity: tuple[int, int]
    mtime_ns: int
    size: int

    @property
    def number(self) -> int | None:
        return int(self.suffix) if self.suffix and re.fullmatch(r"\d{1,4}", self.suffix) else None


def family(path: Path) -> list[Sibling]:
    """The followed file and its rotated siblings, oldest first; the followed one, where it exists, comes last. A
    listing during which names moved is taken again. Raises OSError where the directory cannot be read."""
    before = _listing(path)
    for _ in range(5):
        again = _listing(path)
        if {(s.path, s.identity) for s in again} == {(s.path, s.identity) for s in before}:
            break
        before = again
    found = before
    plain = {s.path.name for s in found if not s.packed}
    rotated = [s for s in found if s.suffix is not None and not (s.packed and s.path.name.removesuffix(".gz") in plain)]
    return _by_age(rotated) + [s for s in found if s.suffix is None]


def _listing(path: Path) -> list[Sibling]:
    found = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            suffix, packed = None, False
            if entry.name != path.name:
                match = _rotated_name(entry.name, path)
                if match is None:
                    continue
                suffix, packed = match[1], bool(match[2])
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                found.append(Sibling(Path(entry.path), suffix, packed, identity, status.st_mtime_ns, status.st_size))
    return found


def _rotated_name(name: str, path: Path) -> re.Match[str] | None:
    """`app.log.1`, `app.log-20260131.gz` and `app-2026-01-31.log(.gz)` of `app.log`."""
    if name.startswith(path.name):
        return _SUFFIX.fullmatch(name[len(path.name) :])
    packed = ".gz" if name.endswith(".gz") else ""
    middle = name.removesuffix(".gz")
    if path.suffix and middle.endswith(path.suffix) and middle.startswith(path.stem):
        return _SUFFIX.fullmatch(middle[len(path.stem) : -len(path.suffix)] + packed)
    return None


def _by_age(rotated: list[Sibling]) -> list[Sibling]:
    """Oldest first: by number where all have one (the highest is the oldest, unless three pairs of neighbours were
    written the other way round and none was not: packing may touch the times), by their digits where all are dated,
    else by the time of the last write."""
    if rotated and all(s.number is not None for s in rotated):
        upward = downward = 0
        for packed in (True, False):
            same = sorted((s for s in rotated if s.packed == packed), key=lambda s: s.number or 0)
            for a, b in pairwise(same):
                upward += a.mtime_ns < b.mtime_ns
                downward += a.mtime_ns > b.mtime_ns
        return sorted(rotated, key=lambda s: s.number or 0, reverse=upward < 3 or downward > 0)
    if all(s.suffix is not None and len(s.suffix) >= 6 and s.suffix[0].isdigit() for s in rotated):
        return sorted(rotated, key=lambda s: [int(d) for d in re.findall(r"\d+", s.suffix or "")])
    return sorted(rotated, key=lambda s: (s.mtime_ns, -(s.number or 0), s.path.name))


def locate(path: Path, place: Place) -> Opened | None:
    """The file that holds what was read up to `place`: under its own name, under any other name in the directory by
    its inode, or as a copy or gzip file among the rotated siblings by its print."""
    siblings = family(path)
    own = [s for s in siblings if s.identity[1] == place.inode]
    others = [s for s in siblings if s not in own and place.head_bytes and s.mtime_ns >= place.mtime_ns]
    for sibling in own + list(reversed(others)) + _strangers(path, place, siblings):
        try:
            opened = Opened(sibling.path, packed=sibling.packed)
        except FileNotFoundError:
            continue
        if opened.matches(place):
            return opened
        opened.close()
    return None


def _strangers(path: Path, place: Place, siblings: list[Sibling]) -> list[Sibling]:
    """Files with the inode sought whose names are no rotated names."""
    known = {s.path for s in siblings}
    found = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.inode() == place.inode and Path(entry.path) not in known and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                identity = (status.st_dev, status.st_ino)
                found.append(Sibling(Path(entry.path), "", False, identity, status.st_mtime_ns, status.st_size))
    return found


def newer(path: Path, identity: tuple[int, int] | None, place: Place) -> list[Sibling]:
    """The files of the family written after the one with `identity`, oldest first. Where that one has gone: after the
    one packed or copied from it; else those last written after `place.mtime_ns`, and the followed one."""
    siblings = family(path)
    for i, sibling in enumerate(siblings):
        if sibling.identity == identity:
            return siblings[i + 1 :]
    for i, sibling in enumerate(siblings):
        if sibling.suffix is not None and place.head_bytes and sibling.mtime_ns >= place.mtime_ns and _holds(sibling, place):
            return siblings[i + 1 :]
    since = place.mtime_ns + (1 if place.offset else 0)  # nothing was read yet: the same tick may be the same file
    return [s for s in siblings if s.suffix is None or s.mtime_ns >= since]


def _holds(sibling: Sibling, place: Place) -> bool:
    try:
        opened = Opened(sibling.path, packed=sibling.packed)
    except FileNotFoundError:
        return False
    try:
        return opened.matches(place)
    finally:
        opened.close()


def last_line_start(opened: Opened) -> int:
    """Where the last, incomplete line of a plain file starts: its end, where the last line is complete, and where no
    newline is among the last 64 KiB."""
    size = opened.status.st_size
    low = max(0, size - (64 << 10)) & ~1
    data = opened.read(low, size - low)
    first = opened.read(0, 2)
    newline = {b"\xff\xfe": b"\n\x00", b"\xfe\xff": b"\x00\n"}.get(first, b"\n")
    found = data.rfind(newline)
    while len(newline) == 2 and found >= 0 and found % 2:
        found = data.rfind(newline, 0, found + 1)
    if found < 0:
        return 0 if low == 0 else size
    return low + found + len(newline)


def is_rotated(path: Path) -> bool:
    """Whether a file's name is that of a rotated one: `x.log.1`, `x.log-20260131`, or `x-2026-01-31.log` beside x.log."""
    match = re.fullmatch(r"(.+?\.[A-Za-z]+|[^.]+)[.\-_](\d[\d.:T\-]*|old|bak|prev)(\.gz)?", path.name)
    if match is not None and (match[1].lower().endswith((".log", ".out", ".err")) or path.with_name(match[1]).exists()):
        return True
    dated = re.match(r"(.+?)[.\-_]\d", path.stem)
    return dated is not None and path.suffix != "" and path.with_name(dated[1] + path.suffix).exists()
