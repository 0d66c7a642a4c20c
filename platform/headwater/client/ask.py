"""Questions over HTTP: answers, conversations, answers that are kept, summaries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from headwater import wire
from headwater.client.sending import Sending, given, listed
from headwater.composed import AskEvent
from headwater.records import Answer, Citation, Coverage
from headwater.records.answers import Conversation, Message, Rerun, StoredAnswer
from headwater.verbs.ask import When

_MODEL_S = 300.0  # a local model may take its time


class AskCalls:
    """The verbs of questions."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def ask(
        self,
        question: str,
        *,
        conversation: str | None = None,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        top_k: int = 12,
        as_of: When | Mapping[str, int] | None = None,
        model: str | None = None,
        rerank: bool | None = None,
        recency: float | str | None = None,
    ) -> Answer:
        """As Verbs.ask."""
        body = {
            "question": question, "conversation": conversation, "topics": listed(topics), "since": since, "until": until,
            "top_k": top_k, "as_of": as_of, "model": model, "rerank": rerank, "recency": recency,
        }  # fmt: skip
        return wire.decode(Answer, await self._post("/v1/ask", body, again=conversation is None))

    async def events(self, question: str, *, place: str | None = None, **scope: Any) -> AsyncIterator[AskEvent]:
        """As Verbs.ask_events."""
        body = wire.sent(given({"question": question, **scope, "stream": True}))
        async for event in self._sending.events("POST", "/v1/ask", body=body, place=place):
            if event.name == "token":
                yield AskEvent("token", str(orjson.loads(event.data)["text"]), event.id)
            elif event.name == "retrieval":
                yield AskEvent("retrieval", wire.decode(Coverage, event.data), event.id)
            elif event.name == "citation":
                yield AskEvent("citation", wire.decode(Citation, event.data), event.id)
            elif event.name == "done":
                yield AskEvent("done", wire.decode(Answer, event.data), event.id)

    async def answers(self, *, conversation: str | None = None, limit: int = 50) -> list[StoredAnswer]:
        """As Verbs.answers."""
        kind = dict[str, list[StoredAnswer]]
        return (await self._sending.get(kind, "/v1/answers", conversation=conversation, limit=limit))["answers"]

    async def answer(self, id: str) -> StoredAnswer:
        """As Verbs.answer."""
        return await self._sending.get(StoredAnswer, f"/v1/answers/{quote(id, safe='')}")

    async def rerun(self, id: str, *, model: str | None = None) -> Rerun:
        """As Verbs.rerun."""
        return wire.decode(Rerun, await self._post(f"/v1/answers/{quote(id, safe='')}/rerun", {"model": model}))

    async def summarize(self, **scope: Any) -> Answer:
        """As Verbs.summarize."""
        if "topics" in scope:
            scope["topics"] = listed(scope["topics"])
        return wire.decode(Answer, await self._post("/v1/summarize", scope, again=True))

    async def create_conversation(self, id: str | None = None, **settings: Any) -> Conversation:
        """As Verbs.create_conversation."""
        return wire.decode(Conversation, await self._post("/v1/conversations", {"id": id, **settings}))

    async def conversations(self) -> list[Conversation]:
        """As Verbs.conversations."""
        return (await self._sending.get(dict[str, list[Conversation]], "/v1/conversations"))["conversations"]

    async def conversation(self, id: str) -> Conversation:
        """As Verbs.conversation."""
        return await self._sending.get(Conversation, _place(id))

    async def set_conversation(self, id: str, **changes: Any) -> Conversation:
        """As Verbs.set_conversation."""
        changed = await self._sending.send("PATCH", _place(id), body=wire.sent(changes), again=True)
        return wire.decode(Conversation, changed)

    async def remove_conversation(self, id: str) -> None:
        """As Verbs.remove_conversation."""
        await self._sending.send("DELETE", _place(id))

    async def messages(self, id: str, *, limit: int = 100, before: int | None = None) -> list[Message]:
        """As Verbs.messages."""
        kind = dict[str, list[Message]]
        return (await self._sending.get(kind, f"{_place(id)}/messages", limit=limit, before=before))["messages"]

    async def _post(self, path: str, body: Mapping[str, Any], *, again: bool = False) -> bytes:
        return await self._sending.send("POST", path, body=wire.sent(given(body)), again=again, timeout_s=_MODEL_S)


def _place(id: str) -> str:
    return f"/v1/conversations/{quote(id, safe='')}"
