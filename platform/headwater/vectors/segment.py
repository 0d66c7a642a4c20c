"""A sealed segment: one directory that is built by a child, checked by hashes, renamed into place and never written again.

seg-<name>/ids.npy          (n,) int64, the passage of each row
           vectors.npy      (n, d) float32, read by exact scans through a memory map
           chroma/          the Chroma database over them
           manifest.json    settings and the sha256 of every other file; the catalogue holds the copy that counts
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.errors import DamageError, StorageError
from headwater.vectors import chroma
from headwater.vectors.space import Floats, Ints, Space, nearest
from headwater.vectors.tail import Bools, Lookup

FORMAT = 1
_MOST_FAILURES = 3
SEALED, BUILDING = "seg-", "building-"
OURS = (SEALED, BUILDING, chroma.WORKING)
"""Prefixes of the directories that this package makes, and may remove."""


@dataclass(frozen=True, slots=True)
class Hnsw:
    """The graph's settings: neighbours per vector, candidates while building and while searching."""

    m: int = 16
    ef_construction: int = 100
    ef_search: int = 100


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment in the catalogue; `manifest` is JSON text: settings, recall, and hash and size of every file."""

    name: str
    count: int
    min_id: int
    max_id: int
    manifest: str


class Segment:
    """An immutable segment open for reading. Its ids are read at once, the rest is checked before the first search."""

    def __init__(self, home: Path, row: SegmentRow, space: Space, clients: chroma.Clients) -> None:
        """Reads and checks the ids; raises DamageError where they, or the manifest, are not as they were sealed."""
        self.row = row
        self.name = row.name
        self.directory = home / row.name
        self._space = space
        self._clients = clients
        self._lock = threading.Lock()
        self._vectors: Floats | None = None
        self._manifest = _manifest(row, space)
        self._hash("ids.npy")
        self._ids: Ints = np.load(self.directory / "ids.npy")
        self._lookup = Lookup(self._ids)
        self._alive: Bools = np.ones(len(self._ids), np.bool_)
        self._dead = 0
        self._failures = 0

    @property
    def dead(self) -> int:
        """Members that were removed since the segment was sealed."""
        return self._dead

    @property
    def ready(self) -> bool:
        """Whether every file has been checked in this process."""
        return self._vectors is not None

    @property
    def ids(self) -> Ints:
        """All members, removed ones too."""
        return self._ids

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(int(file["bytes"]) for file in self._manifest["files"].values())

    @property
    def recall(self) -> float:
        """Recall@10 when it was built."""
        return float(self._manifest["recall"])

    def holds(self, ids: Ints) -> Bools:
        """`(n,)`: which ids are members, removed ones too."""
        return self._lookup.positions(ids) >= 0

    def hide(self, ids: Ints) -> None:
        """Leave members out of every result; unknown ids are ignored. One writer at a time."""
        self._set(ids, False)

    def show(self, ids: Ints) -> None:
        """Undo `hide`."""
        self._set(ids, True)

    def living(self, ids: Ints) -> Bools:
        """`(n,)`: which ids are members and not removed."""
        at = self._lookup.positions(ids)
        return (at >= 0) & self._alive[at]

    def check(self) -> None:
        """Hash every file against the manifest, once in a process; DamageError. About 1 s per GB."""
        with self._lock:
            if self._vectors is not None:
                return
            for name in self._manifest["files"]:
                self._hash(name)
            vectors = np.load(self.directory / "vectors.npy", mmap_mode="r")
            if vectors.shape != (len(self._ids), self._space.dimension) or vectors.dtype != np.float32:
                raise self._damage("vectors.npy has another shape than the manifest says")
            self._vectors = np.asarray(vectors)

    def warm(self) -> None:
        """Check all files and answer one query, so that the first search need not wait; DamageError."""
        self.check()
        assert self._vectors is not None
        self._propose(self._space.queries(self._vectors[:1]), min(2, len(self._ids)))

    def rows(self, ids: Ints) -> tuple[Bools, Floats]:
        """Which ids are living members, and the vectors of those, in order."""
        self.check()
        assert self._vectors is not None
        living = self.living(ids)
        return living, self._vectors[self._lookup.positions(ids[living])]

    def nearest(self, queries: Floats, k: int, among: Ints | None) -> tuple[list[tuple[Ints, Floats]], bool]:
        """For each of `(m, d)` queries the ids and closeness of the k nearest living members, and whether that is exact.

        Chroma proposes, the vector file decides: closeness is computed as everywhere else. Removed members are made up
        for by asking for more. `among` and large k are exact scans. Raises DamageError.
        """
        self.check()
        if among is not None:
            return self._scan(queries, k, self._lookup.found(among)), True
        living = len(self._ids) - self._dead
        ask = min(len(self._ids), k + 2 + 2 * -(-k * self._dead // max(living, 1)))
        while True:
            if ask > chroma.MOST_IDS or living <= k:
                return self._scan(queries, k, None), True
            proposed = self._propose(queries, ask)
            if proposed is None:
                return self._scan(queries, k, None), True
            found = [self._at(ids) for ids in proposed]
            if ask == len(self._ids) or all(len(at) >= min(k, living) for at in found):
                pairs = zip(queries, found, strict=True)
                return [self._scan(query[None], k, at)[0] for query, at in pairs], False
            ask = min(len(self._ids), ask * 4)

    def retire(self) -> None:
        """Close and delete: running searches finish on what they hold, later ones see DamageError."""
        self._clients.close(self.directory / "chroma")
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Let go of the database; the directory stays."""
        self._clients.close(self.directory / "chroma")

    def _propose(self, queries: Floats, ask: int) -> list[Ints] | None:
        """Candidates by Chroma; None where it cannot answer now (no disk, no file handles): its files were right, so only
        a failure that lasts is damage."""
        try:
            found = self._clients.query(self.directory / "chroma", queries, ask)
        except StorageError:
            return None
        except DamageError:
            self._failures += 1
            if self._failures > _MOST_FAILURES or not self.directory.exists():
                raise
            return None
        self._failures = 0
        return found

    def _at(self, ids: Ints) -> Ints:
        at = self._lookup.found(ids)
        return at[self._alive[at]]

    def _scan(self, queries: Floats, k: int, positions: Ints | None) -> list[tuple[Ints, Floats]]:
        vectors = self._vectors
        assert vectors is not None
        positions = np.flatnonzero(self._alive) if positions is None else positions[self._alive[positions]]
        ids = self._ids[positions]
        return [nearest(ids, near, k) for near in self._space.closeness_at(vectors, None, positions, queries)]

    def _set(self, ids: Ints, alive: bool) -> None:
        at = self._lookup.found(ids)
        changed = int((self._alive[at] != alive).sum())
        self._alive[at] = alive
        self._dead += -changed if alive else changed

    def _hash(self, name: str) -> None:
        wanted, path = self._manifest["files"][name], self.directory / name
        try:
            same = path.stat().st_size == wanted["bytes"] and _sha256(path) == wanted["sha256"]
        except OSError as error:
            raise self._damage(f"{name} cannot be read ({error.strerror})") from error
        if not same:
            raise self._damage(f"{name} is not as it was sealed")

    def _damage(self, what: str) -> DamageError:
        return DamageError(f"segment {self.name}: {what}; it is rebuilt from the log, and searched exactly meanwhile")


class Building:
    """A segment in the making, in a directory of its own; `finish` gives its row, `discard` leaves nothing behind."""

    def __init__(self, home: Path, space: Space, hnsw: Hnsw, *, nice: int = 19) -> None:
        self._home, self._space, self._hnsw, self._nice = home, space, hnsw, nice
        token = secrets.token_hex(8)
        self.name = SEALED + token
        self.directory = home / (BUILDING + token)
        self.count = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def write(self, blocks: Iterator[tuple[Ints, Floats]]) -> Ints:
        """Write the members down, block by block; their ids. Raises StorageError."""
        parts: list[Ints] = [np.empty(0, np.int64)]
        with _storage("writing the vectors of a new segment"):
            self.directory.mkdir(parents=True)
            with (self.directory / "vectors.npy").open("wb") as file:
                self._header(file, 0)
                for ids, vectors in blocks:
                    if self._cancelled:
                        raise StorageError("the segment was not built: the index is closing")
                    parts.append(ids)
                    file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
                members = np.concatenate(parts)
                file.seek(0)
                self._header(file, len(members))
            np.save(self.directory / "ids.npy", members)
            self.count = len(members)
            need = self.count * (8 * self._space.dimension + 1200)
            if self.count and shutil.disk_usage(self._home).free < need:
                raise StorageError(f"a new segment needs {need >> 20} MiB of disk; free some. The tail is searched meanwhile")
        return members

    def run(self) -> None:
        """Build the database in a child and wait for it; DamageError where it fails."""
        space = {"dimension": self._space.dimension, "metric": self._space.metric}
        plan = {**space, "hnsw": asdict(self._hnsw), "nice": self._nice}
        log = self.directory / "build.log"
        with _storage("starting the builder"):
            (self.directory / "plan.json").write_text(json.dumps(plan), "utf-8")
            command = [sys.executable, "-P", "-m", "headwater.vectors.build", str(self.directory.absolute())]
            quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}
            with log.open("wb") as err:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=err,
                    close_fds=True,
                    env={**os.environ, **quiet},
                )
        with self._child as child:
            if self._cancelled:
                child.kill()
            status = child.wait()
        if status:
            said = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or [f"it ended with status {status}"]
            if "disk is full" in said[0] or "No space left" in said[0]:
                raise StorageError("the disk is full: no segment was built; free some space, it is tried again")
            raise DamageError(f"no segment was built: {said[0]}; the vectors stay searchable and it is tried again")

    def finish(self, ids: Ints) -> SegmentRow:
        """Write the manifest, make all of it durable, and rename into place; not yet in the catalogue."""
        with _storage("putting a new segment into place"):
            built = json.loads((self.directory / "built.json").read_text("utf-8"))
            for name in ("plan.json", "built.json", "build.log"):
                (self.directory / name).unlink()
            files = {
                path.relative_to(self.directory).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
                for path in sorted(self.directory.rglob("*"))
                if path.is_file()
            }
            manifest = {
                "format": FORMAT,
                "dimension": self._space.dimension,
                "metric": self._space.metric,
                "hnsw": asdict(self._hnsw),
                "count": len(ids),
                "chromadb": chroma.version(),
                **built,
                "files": files,
            }
            text = json.dumps(manifest)
            (self.directory / "manifest.json").write_text(text, "utf-8")
            for path in [*self.directory.rglob("*"), self.directory]:
                _fsync(path)
            self.directory.rename(self._home / self.name)
            _fsync(self._home)
        return SegmentRow(self.name, len(ids), int(ids.min()), int(ids.max()), text)

    def cancel(self) -> None:
        """Stop from another thread; `write` or `run` then raises."""
        self._cancelled = True
        if self._child is not None:
            self._child.kill()

    def discard(self) -> None:
        """Remove whatever there is of it."""
        for path in (self.directory, self._home / self.name):
            shutil.rmtree(path, ignore_errors=True)

    def _header(self, file: Any, rows: int) -> None:
        """The .npy header; numpy pads it so that one of more rows fits over it."""
        shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, self._space.dimension)}
        np.lib.format.write_array_header_1_0(file, shape)


def sweep(home: Path, keep: set[str]) -> None:
    """Remove what a crash left behind: half-built, working and uncatalogued segment directories."""
    for path in home.iterdir():
        if path.name.startswith(OURS) and path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _manifest(row: SegmentRow, space: Space) -> Mapping[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(row.manifest)
        made = (manifest["format"], manifest["dimension"], manifest["metric"])
        complete = {"ids.npy", "vectors.npy", "chroma/chroma.sqlite3"} <= set(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"segment {row.name}: its manifest cannot be read; it is rebuilt from the log") from error
    if made != (FORMAT, space.dimension, space.metric) or not complete:
        raise DamageError(f"segment {row.name} was made for other settings; it is rebuilt from the log")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage(doing: str) -> Iterator[None]:
    """OSError becomes StorageError, saying what was being done."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{doing} failed ({error.strerror or error}); free disk space or mend the disk") from error
