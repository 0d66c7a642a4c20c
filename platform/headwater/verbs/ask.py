"""The verbs of questions: answers, conversations, answers that are kept, summaries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from headwater.composed import AskEvent
from headwater.records import Answer
from headwater.records.answers import Conversation, Message, Rerun, StoredAnswer

When = datetime | str | float | int


class AskVerbs(Protocol):
    """Questions and their answers."""

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
        """An answer whose every sentence cites records; abstains where support is weak. In a `conversation` (made where there
        is none of that id) it goes on from what was said. `model` is a chat model, `extractive` for none; in a conversation
        it answers from now on. `as_of` is a time, or maps topics to sequence numbers as `coverage.watermark` has them in
        `stored`: the answer is made of the records stored before, as far as they are still there. `rerank` reads the best
        hits again with a cross-encoder; with `recency` (`7d`, or seconds) a hit that old counts three quarters."""

    def ask_events(self, question: str, *, place: str | None = None, **scope: Any) -> AsyncIterator[AskEvent]:
        """The answer as it is made: `retrieval` first, then `token`s and `citation`s, `done` last, with the checked answer. Its
        text may have other marks than the tokens had: what words leave open is settled at the end. Closing the iterator
        ends the model's call. `scope` is that of `ask`; with the `place` of the last event seen what came behind it is
        given of an answer that was completed, and another that was not is made anew."""

    async def answers(self, *, conversation: str | None = None, limit: int = 50) -> list[StoredAnswer]:
        """The answers that are kept, newest first."""

    async def answer(self, id: str) -> StoredAnswer:
        """An answer that is kept; NotFoundError."""

    async def rerun(self, id: str, *, model: str | None = None) -> Rerun:
        """The same question again, as of now: the new answer, and what changed since the first one was given."""

    async def create_conversation(
        self,
        id: str | None = None,
        *,
        title: str | None = None,
        system: str = "",
        model: str | None = None,
        max_context_tokens: int | None = None,
        persist: bool = True,
        ttl: float | str | None = None,
    ) -> Conversation:
        """A new conversation; ConflictError where there is one of that id."""

    async def conversations(self) -> list[Conversation]:
        """Every conversation, the one spoken in last first."""

    async def conversation(self, id: str) -> Conversation:
        """One conversation; NotFoundError."""

    async def set_conversation(self, id: str, **changes: Any) -> Conversation:
        """Change the title, system, model, max_context_tokens or ttl of a conversation."""

    async def remove_conversation(self, id: str) -> None:
        """Forget a conversation, its messages and its answers; NotFoundError."""

    async def messages(self, id: str, *, limit: int = 100, before: int | None = None) -> list[Message]:
        """The newest messages of a conversation (before message number `before`), oldest first."""

    async def summarize(
        self,
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        q: str = "",
        thread: str | None = None,
        max_tokens: int = 400,
        model: str | None = None,
    ) -> Answer:
        """What the records of topics and a time say, in at most about `max_tokens` tokens, each sentence cited: of those that
        match `q`, or of the `thread` that the record at that address belongs to (the same key, reply or subject). Without
        a model it is the most telling records themselves."""
