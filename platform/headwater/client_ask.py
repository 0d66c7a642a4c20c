"""Questions over HTTP: what headwater.client gives as `ask` and its kin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from headwater import wire
from headwater.composed import AskEvent
from headwater.records import Answer, Citation, Coverage
from headwater.sending import Sending, given, listed
from headwater.verbs import When


class AskCalls:
    """The verbs of questions."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def ask(
        self,
        question: str,
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        top_k: int = 12,
    ) -> Answer:
        """As Verbs.ask."""
        body = {"question": question, "topics": listed(topics), "since": since, "until": until, "top_k": top_k}
        return await self._sending.ask(Answer, "/v1/ask", body)

    async def events(self, question: str, **scope: Any) -> AsyncIterator[AskEvent]:
        """The answer as events while it is made (see headwater.composed); `scope` is that of `ask`."""
        body = {"question": question, **scope, "stream": True}
        async for event in self._sending.events("POST", "/v1/ask", body=wire.sent(given(body))):
            if event.name == "token":
                yield AskEvent("token", str(orjson.loads(event.data)["text"]))
            elif event.name == "retrieval":
                yield AskEvent("retrieval", wire.decode(Coverage, event.data))
            elif event.name == "citation":
                yield AskEvent("citation", wire.decode(Citation, event.data))
            elif event.name == "done":
                yield AskEvent("done", wire.decode(Answer, event.data))
