"""A segment in the making: written down block by block, built by a child process, made durable, renamed into place."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from headwater.errors import DamageError, StorageError
from headwater.vectors import chroma, files
from headwater.vectors.files import storage
from headwater.vectors.shape import FORMAT, SegmentRow, Shape
from headwater.vectors.space import Floats, Ints, Space

_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKIO_WORKER_THREADS": "1"}


def disk_needed(shape: Shape, dimension: int, rows: int) -> int:
    """Bytes that building takes at its height. A graph: Chroma's queue and graph (4 bytes a component each) beside ours."""
    a_row = {"hnsw": 10 * dimension + 1200, "ivf": 5 * dimension + 64, "flat": 2 * dimension + 32}[shape.kind]
    return rows * a_row + (1 << 20)


class Building:
    """A segment in the making, in a directory of its own; `finish` gives its row, `discard` leaves nothing behind.

    Memory: a block of vectors here and 8 bytes an id; in the child the graph (Chroma's, about 4.4 KB a vector of 384), or a
    sample of 64 vectors for each cell. Disk: `disk_needed`.
    """

    def __init__(self, home: Path, space: Space, shape: Shape, *, nice: int = 19) -> None:
        self._home, self._space, self._shape, self._nice = home, space, shape, nice
        token = secrets.token_hex(8)
        self.name = files.SEALED + token
        self.directory = home / (files.BUILDING + token)
        self.count = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def write(self, blocks: Iterator[tuple[Ints, Floats]]) -> Ints:
        """Write the members down, block by block; their ids. Raises StorageError."""
        parts: list[Ints] = [np.empty(0, np.int64)]
        with storage("writing the vectors of a new segment"):
            self.directory.mkdir(parents=True)
            with (self.directory / "vectors.npy").open("wb") as file:
                self._header(file, 0)
                for ids, vectors in blocks:
                    if self._cancelled:
                        raise StorageError("the segment was not built: the index is closing")
                    parts.append(ids)
                    file.write(np.ascontiguousarray(vectors, dtype="<f2").data)
                    self.count += len(ids)
                members = np.concatenate(parts)
                file.seek(0)
                self._header(file, len(members))
            np.save(self.directory / "ids.npy", members)
            need = disk_needed(self._shape, self._space.dimension, self.count)
            if self.count and shutil.disk_usage(self._home).free < need:
                raise StorageError(f"a new segment needs {need >> 20} MiB of disk; free some. The tail is searched meanwhile")
        return members

    @property
    def done(self) -> int:
        """How many members the child has put in their place."""
        with suppress(OSError, ValueError):
            return int((self.directory / "progress").read_text("utf-8") or 0)
        return 0

    def run(self) -> None:
        """Build in a child and wait for it; DamageError where it fails."""
        plan = {**asdict(self._shape), "dimension": self._space.dimension, "metric": self._space.metric, "nice": self._nice}
        log = self.directory / "build.log"
        with storage("starting the builder"):
            (self.directory / "plan.json").write_text(json.dumps(plan), "utf-8")
            command = [sys.executable, "-P", "-m", "headwater.vectors.build", str(self.directory.absolute())]
            with log.open("wb") as err:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=err,
                    close_fds=True,
                    env={**os.environ, **_QUIET},
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
        with storage("putting a new segment into place"):
            built = json.loads((self.directory / "built.json").read_text("utf-8"))
            for name in ("plan.json", "built.json", "build.log", "progress"):
                (self.directory / name).unlink(missing_ok=True)
            manifest = {
                "format": FORMAT,
                "dimension": self._space.dimension,
                "metric": self._space.metric,
                **asdict(self._shape),
                "count": len(ids),
                "chromadb": chroma.version(),
                **built,
                "files": files.marks(self.directory),
            }
            text = json.dumps(manifest)
            (self.directory / "manifest.json").write_text(text, "utf-8")
            for path in [*self.directory.rglob("*"), self.directory]:
                files.fsync(path)
            self.directory.rename(self._home / self.name)
            files.fsync(self._home)
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
        shape = {"descr": "<f2", "fortran_order": False, "shape": (rows, self._space.dimension)}
        np.lib.format.write_array_header_1_0(file, shape)
