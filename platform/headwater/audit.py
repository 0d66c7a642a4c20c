"""The log of calls in an engine. Triggers keep rows from being changed or removed, whoever writes to the database."""

from __future__ import annotations

import re
from collections.abc import Callable

import anyio.to_thread

from headwater.errors import UsageError
from headwater.log.store import Log
from headwater.records import from_ms
from headwater.records.calls import ToolCall

MOST = 1000  # calls of one reply
_LONGEST = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Audit:
    """Implements the verbs of the log of calls."""

    def __init__(self, log: Log, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._clock_ms = log, clock_ms

    async def note(
        self, who: str, tool: str, *, arguments: str, size: int = 0, seconds: float = 0.0, failed: bool = False
    ) -> None:
        """As Verbs.note_call."""
        if not _DIGEST.fullmatch(arguments):
            raise UsageError("arguments is the SHA-256 of a call's arguments, 64 hexadecimal digits")
        if not tool or size < 0 or not 0 <= seconds < 1e9:
            raise UsageError("a call has a tool, a size and a time of 0 or more")
        row = (self._clock_ms(), who[:_LONGEST], tool[:_LONGEST], arguments, min(size, 1 << 62), seconds, failed)
        insert = "INSERT INTO tool_call(at_ms, who, tool, arguments, size, seconds, failed) VALUES(?,?,?,?,?,?,?)"
        await anyio.to_thread.run_sync(lambda: self._log.write(lambda db: db.execute(insert, row).get))

    async def all(self, *, limit: int = 100, before: int | None = None) -> list[ToolCall]:
        """As Verbs.calls."""
        if not 1 <= limit <= MOST:
            raise UsageError(f"limit must be between 1 and {MOST}")
        return await anyio.to_thread.run_sync(self._read, limit, (1 << 62) if before is None else before)

    def _read(self, limit: int, before: int) -> list[ToolCall]:
        select = (
            "SELECT n, at_ms, who, tool, arguments, size, seconds, failed FROM tool_call WHERE n < ? ORDER BY n DESC LIMIT ?"
        )
        with self._log.reading() as db:
            return [
                ToolCall(n, from_ms(at), who, tool, digest, size, seconds, bool(failed))
                for n, at, who, tool, digest, size, seconds, failed in db.execute(select, (before, limit))
            ]
