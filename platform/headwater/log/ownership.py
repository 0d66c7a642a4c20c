"""One process owns a data directory: a lock that dies with its holder, and a note that says where the owner listens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from headwater.errors import OwnedError, StorageError


class Ownership:
    """Holds `directory/lock` from construction to `release()`. Raises OwnedError, naming the owner, when it is taken."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd: int | None = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot use the data directory {directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note = _read(self._fd)
            os.close(self._fd)
            self._fd = None
            who = f"process {note.get('pid', '?')}" + (f" at {note['url']}" if note.get("url") else "")
            raise OwnedError(
                f"{directory} is in use by {who}; connect to it (headwater.connect()) or choose another directory",
                url=note.get("url"),
            ) from None
        self.announce(None)

    def announce(self, url: str | None) -> None:
        """Say where this owner listens."""
        assert self._fd is not None
        note = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.pwrite(self._fd, note.ljust(512), 0)

    def release(self) -> None:
        """Let go; safe to call twice."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None


def _read(fd: int) -> dict[str, str]:
    try:
        note = json.loads(os.pread(fd, 512, 0) or b"{}")
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
