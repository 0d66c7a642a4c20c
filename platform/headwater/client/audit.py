"""The log of calls over HTTP: what headwater.client gives as `note_call` and `calls`."""

from __future__ import annotations

from headwater import wire
from headwater.client.sending import Sending
from headwater.records.calls import ToolCall


class AuditCalls:
    """The verbs of the log of calls."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def note(
        self, who: str, tool: str, *, arguments: str, size: int = 0, seconds: float = 0.0, failed: bool = False
    ) -> None:
        """As Verbs.note_call."""
        call = {"who": who, "tool": tool, "arguments": arguments, "size": size, "seconds": seconds, "failed": failed}
        await self._sending.send("POST", "/v1/calls", body=wire.sent(call))

    async def all(self, *, limit: int = 100, before: int | None = None) -> list[ToolCall]:
        """As Verbs.calls."""
        return (await self._sending.get(dict[str, list[ToolCall]], "/v1/calls", limit=limit, before=before))["calls"]
