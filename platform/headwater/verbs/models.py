"""The verbs of chat models, a family of headwater.verbs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from headwater.records.models import Completion, Message, ModelInfo, Piece


class ModelVerbs(Protocol):
    """Chat models without retrieval."""

    async def models(self, *, check: bool = False) -> list[ModelInfo]:
        """The configured model, its fallbacks, and what else there could be; with `check` each is asked whether it is there."""

    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> Completion:
        """What a chat model answers to a prompt, or to messages of which the last is the user's; the configured one by default.
        `cache` False asks anew. ModelError where it fails, LimitError where a budget is spent."""

    def complete_stream(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> AsyncIterator[Piece | Completion]:
        """The same in pieces as they are made, the Completion last. An answer that is cut raises ModelError and has none.
        Closing the iterator ends the call."""
