"""The verbs of the log of calls: what agents did, kept so that nobody can change it afterwards."""

from __future__ import annotations

from typing import Protocol

from headwater.records.calls import ToolCall


class AuditVerbs(Protocol):
    """Calls of agents."""

    async def note_call(
        self, who: str, tool: str, *, arguments: str, size: int = 0, seconds: float = 0.0, failed: bool = False
    ) -> None:
        """Keep that `who` called `tool`, with the SHA-256 of its arguments and the bytes of the reply. What is kept can be
        neither changed nor removed by any verb. UsageError."""

    async def calls(self, *, limit: int = 100, before: int | None = None) -> list[ToolCall]:
        """Calls of agents, newest first; `before` a number, those older than that one."""
