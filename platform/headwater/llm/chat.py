"""Chat: the one handle on a chat model that callers hold, with its fallbacks behind it.

Two verbs go to the model, `complete` and `stream`; `extract`, `classify` and `summarize` are made of `complete`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from headwater.config import LlmSettings
from headwater.errors import LimitError, ModelError, UsageError
from headwater.llm.caller import Caller
from headwater.llm.provider import Prompt
from headwater.records.models import Completion, Message, Piece, Role, Usage

if TYPE_CHECKING:
    from pydantic import BaseModel

    M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

__all__ = ["Chat", "Completion", "Extracted", "Labelled", "Message", "Piece", "Role", "Usage"]


@dataclass(frozen=True, slots=True)
class Extracted(Generic[T]):
    """A value that follows the schema. `usage` is that of all tries."""

    value: T
    model: str
    usage: Usage
    tries: int = 1
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Labelled:
    """One of the labels given. `confidence` (0-1) is what the model says of itself, None where it did not."""

    label: str
    confidence: float | None
    model: str
    usage: Usage
    tries: int = 1
    cached: bool = False


class Chat:
    """A chat model. `name` is the configured one's; a Completion says which answered. All verbs raise ModelError where it and
    its fallbacks failed, LimitError where a budget is spent, UsageError for an impossible request."""

    def __init__(self, callers: Sequence[Caller], settings: LlmSettings) -> None:
        self._callers, self._settings = tuple(callers), settings
        self.name = callers[0].name
        self.context_tokens = min(c.provider.context_tokens for c in callers)

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        cache: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """The whole answer to `messages`, of which the last is the user's. `cache` False asks anew."""
        prompt = self._prompt(messages, temperature, max_tokens, schema)
        for caller in (serving := self._serving()):
            try:
                return await caller.complete(prompt, timeout_s or self._settings.timeout_s, cache=cache)
            except (ModelError, LimitError):
                if caller is serving[-1]:
                    raise
        raise AssertionError("unreachable")

    async def stream(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float | None = None,
        cache: bool = True,
    ) -> AsyncGenerator[Piece | Completion, None]:
        """The answer in pieces, and the Completion last. One that is cut raises ModelError, and has no Completion; before the
        first piece it is tried again, and by the fallbacks. Closing the iterator ends the call."""
        prompt = self._prompt(messages, temperature, max_tokens, None)
        for caller in (serving := self._serving()):
            begun, parts = False, caller.stream(prompt, timeout_s or self._settings.timeout_s, cache=cache)
            try:
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        begun = True
                        yield part
                return
            except (ModelError, LimitError):
                if begun or caller is serving[-1]:
                    raise

    async def likely_cost(self, messages: Sequence[Message], *, max_tokens: int) -> float | None:
        """US dollars that an answer may cost, by the dearest model that may give it; None where a price is unknown."""
        prompt = self._prompt(messages, None, max_tokens, None)
        costs = [await caller.likely_cost(prompt) for caller in self._serving()]
        return None if None in costs else max(cost for cost in costs if cost is not None)

    @overload
    async def extract(
        self,
        messages: Sequence[Message],
        schema: type[M],
        *,
        retries: int = 2,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> Extracted[M]: ...

    @overload
    async def extract(
        self, messages: Sequence[Message], schema: Mapping[str, Any], *, retries: int = 2, max_tokens: int | None = None,
        cache: bool = True,
    ) -> Extracted[Any]: ...  # fmt: skip

    async def extract(
        self, messages: Sequence[Message], schema: Any, *, retries: int = 2, max_tokens: int | None = None, cache: bool = True
    ) -> Extracted[Any]:
        """A value that follows a JSON schema, or an instance of a pydantic model. A reply that does not follow it is shown to
        the model with what is wrong, at most `retries` times; then ModelError."""
        from headwater.llm.structured import extract

        return await extract(self, messages, schema, retries=retries, max_tokens=max_tokens, cache=cache)

    async def classify(
        self, text: str, labels: Mapping[str, str], *, task: str = "", retries: int = 2, cache: bool = True
    ) -> Labelled:
        """The label (name -> description) that fits a text. `task` says what for. An answer that is no label is asked for
        again, at most `retries` times; then ModelError."""
        from headwater.llm.structured import classify

        return await classify(self, text, labels, task=task, retries=retries, cache=cache)

    async def summarize(
        self, texts: str | Sequence[str], *, max_tokens: int = 300, task: str = "", cache: bool = True
    ) -> Completion:
        """A summary of one or many texts; where they are more than the model reads at once, of summaries of parts."""
        from headwater.llm.structured import summarize

        return await summarize(self, texts, max_tokens=max_tokens, task=task, cache=cache)

    def _serving(self) -> list[Caller]:
        """The models to ask in turn: those that failed lately only where no other is left."""
        awake = [caller for caller in self._callers if not caller.resting]
        return awake or list(self._callers)

    def _prompt(
        self, messages: Sequence[Message], temperature: float | None, max_tokens: int | None, schema: Mapping[str, Any] | None
    ) -> Prompt:
        if not messages or messages[-1].role != "user":
            raise UsageError("a model is asked with messages of which the last is the user's")
        if max_tokens is not None and max_tokens < 1:
            raise UsageError("max_tokens must be at least 1")
        temperature = self._settings.temperature if temperature is None else temperature
        if temperature is not None and not 0 <= temperature <= 2:
            raise UsageError("temperature must be between 0 and 2")
        return Prompt(tuple(messages), temperature, max_tokens or self._settings.max_tokens, schema)
