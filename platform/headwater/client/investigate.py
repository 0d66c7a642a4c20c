"""Investigations over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from headwater import wire
from headwater.client.sending import Sending, given, listed
from headwater.records.investigations import InvestigateEvent, Investigation, Step

_BESIDE_S = 60.0  # of silence, besides what the investigation may take
_LONG_S = 300.0


class InvestigateCalls:
    """The verbs of investigations."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def investigate(self, question: str, **scope: Any) -> Investigation:
        """As Verbs.investigate."""
        body, wait_s = _body(question, scope), (scope.get("timeout_s") or _LONG_S) + _BESIDE_S
        return wire.decode(Investigation, await self._sending.send("POST", "/v1/investigate", body=body, timeout_s=wait_s))

    async def events(self, question: str, **scope: Any) -> AsyncIterator[InvestigateEvent]:
        """As Verbs.investigate_events."""
        async for event in self._sending.events("POST", "/v1/investigate", body=_body(question, {**scope, "stream": True})):
            if event.name == "step":
                yield InvestigateEvent("step", wire.decode(Step, event.data))
            elif event.name == "done":
                yield InvestigateEvent("done", wire.decode(Investigation, event.data))


def _body(question: str, scope: dict[str, Any]) -> Any:
    if "topics" in scope:
        scope = {**scope, "topics": listed(scope["topics"])}
    return wire.sent(given({"question": question, **scope}))
