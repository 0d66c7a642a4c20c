"""Chat models over HTTP: what headwater.client gives as `models`, `complete` and `complete_stream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from headwater import wire
from headwater.client.sending import Sending, given
from headwater.errors import ModelError
from headwater.records.models import Completion, Message, ModelInfo, Piece

_LONGEST_S = 600.0  # for a whole answer, with its tries


class ModelCalls:
    """The verbs of chat models."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def models(self, *, check: bool = False) -> list[ModelInfo]:
        """As ModelVerbs.models."""
        found = await self._sending.get(dict[str, list[ModelInfo]], "/v1/models", check="true" if check else None)
        return found["models"]

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
        """As ModelVerbs.complete."""
        body = _body(prompt, system=system, model=model, temperature=temperature, max_tokens=max_tokens, cache=cache)
        return wire.decode(Completion, await self._sending.send("POST", "/v1/complete", body=body, timeout_s=_LONGEST_S))

    async def complete_stream(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> AsyncIterator[Piece | Completion]:
        """As ModelVerbs.complete_stream."""
        body = _body(
            prompt, system=system, model=model, temperature=temperature, max_tokens=max_tokens, cache=cache, stream=True
        )
        async for event in self._sending.events("POST", "/v1/complete", body=body):
            if event.name == "token":
                yield Piece(str(orjson.loads(event.data)["text"]))
            elif event.name == "done":
                yield wire.decode(Completion, event.data)
                return
        raise ModelError("the answer was cut: the daemon ended the stream")


def _body(prompt: str | Sequence[Message], **options: Any) -> bytes:
    said = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
    return wire.sent(given({**said, **options}))
