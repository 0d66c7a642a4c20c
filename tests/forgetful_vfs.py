"""A disk for SQLite that forgets what was not synced, as one does when the power fails.

Writes go to real files; the content at each file's last sync is kept beside them. When the power fails everything is
refused, and `restore` puts every file back to its last sync.
"""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import Any

import apsw

_NUMBERS = itertools.count()


class ForgetfulDisk:
    """Register with `with ForgetfulDisk() as disk`; `disk.name` is SQLite's name for it. `cut_at` counts down writes: the
    power fails at that write. `full_at` likewise: from that write on the disk is full, until `space()`."""

    def __init__(self) -> None:
        self.name = f"forgetful{next(_NUMBERS)}"
        self.dead, self.cut_at, self.full_at, self.full = False, -1, -1, False
        self.synced: dict[str, bytes] = {}
        self._syncing = threading.Lock()  # two threads may sync one file: the later content is to stay
        self.writes = 0

    def __enter__(self) -> ForgetfulDisk:
        self._vfs = _Vfs(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._vfs.unregister()

    def write(self) -> None:
        """Called for each write; raises where the disk refuses it."""
        self.writes += 1
        if self.writes == self.cut_at:
            self.dead = True
        if self.writes == self.full_at:
            self.full = True
        if self.dead:
            raise apsw.IOError("the power has failed")
        if self.full:
            raise apsw.FullError("database or disk is full")

    def space(self) -> None:
        """There is room again."""
        self.full, self.full_at = False, -1

    def sync(self, path: str) -> None:
        if self.dead:
            raise apsw.IOError("the power has failed")
        with self._syncing:
            self.synced[path] = Path(path).read_bytes()

    def opened(self, path: str) -> None:
        if path not in self.synced:
            self.synced[path] = Path(path).read_bytes() if os.path.exists(path) else b""

    def restore(self) -> None:
        """The power is back: every file is as at its last sync; shared memory is gone."""
        for path, content in self.synced.items():
            Path(f"{path}-shm").unlink(missing_ok=True)
            if content or os.path.exists(path):
                Path(path).write_bytes(content)
        self.dead, self.cut_at = False, -1


class _Vfs(apsw.VFS):
    def __init__(self, disk: ForgetfulDisk) -> None:
        self._disk = disk
        super().__init__(disk.name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        return _File(self._disk, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:
        if self._disk.dead:
            raise apsw.IOError("the power has failed")
        self._disk.synced.pop(name, None)
        super().xDelete(name, sync)


class _File(apsw.VFSFile):
    def __init__(self, disk: ForgetfulDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if self._path:
            disk.opened(self._path)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.write()
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.write()
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        if self._path:
            self._disk.sync(self._path)
