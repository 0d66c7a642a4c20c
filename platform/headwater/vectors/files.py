"""Files of segments: hashes, durability, and what goes wrong with disks."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from headwater.errors import StorageError

SEALED, BUILDING, WORKING = "seg-", "building-", "open-"
OURS = (SEALED, BUILDING, WORKING)
"""Prefixes of the directories that this package makes, and may remove."""
_PIECE = 4_194_304


def sha256(path: Path, stop: Callable[[], bool] = lambda: False) -> str:
    """The hash of a file, about 1 s per GB; "" where `stop` turned true meanwhile. Raises OSError."""
    found = hashlib.sha256()
    buffer = memoryview(bytearray(_PIECE))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            if stop():
                return ""
            found.update(buffer[:size])
    return found.hexdigest()


def wrong(directory: Path, name: str, marks: Mapping[str, tuple[int, str]], stop: Callable[[], bool]) -> str | None:
    """What is wrong with a file of a segment; None where it is as it was sealed."""
    size, digest = marks[name]
    path = directory / name
    try:
        same = path.stat().st_size == size and sha256(path, stop) == digest
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if same else f"{name} is not as it was sealed"


def marks(directory: Path) -> dict[str, dict[str, int | str]]:
    """Size and hash of every file below a directory, by its path in it."""
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def fsync(path: Path) -> None:
    """Make a file or a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(home: Path, keep: set[str]) -> None:
    """Remove what a crash left behind: half-built, working and uncatalogued segment directories."""
    for path in home.iterdir():
        if path.name.startswith(OURS) and path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def storage(doing: str) -> Iterator[None]:
    """OSError becomes StorageError, saying what was being done."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{doing} failed ({error.strerror or error}); free disk space or mend the disk") from error
