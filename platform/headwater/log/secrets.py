"""Random bytes that only this data directory has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.log.store import Log

if TYPE_CHECKING:
    import apsw

PSEUDONYMS = "pseudonyms"  # what keys of redacted records are called by


def secret(log: Log, name: str) -> bytes:
    """32 bytes, made when they are first asked for."""

    def write(db: apsw.Connection) -> bytes:
        db.execute("INSERT OR IGNORE INTO secret VALUES(?, randomblob(32))", (name,))
        found: bytes = db.execute("SELECT value FROM secret WHERE name = ?", (name,)).get
        return found

    return log.write(write)
