"""What surfaces are told of chat models: what is said to one, what it answers, and which there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwater.records.tabular import Shown

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "filtered"]
Standing = Literal["default", "fallback", "asked for", "known"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation with a model."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that calls took, and what they cost in US dollars; `cost` is None where no price is known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, cost)

    def __sub__(self, other: Usage) -> Usage:
        cost = None if self.cost is None or other.cost is None else self.cost - other.cost
        return Usage(self.input_tokens - other.input_tokens, self.output_tokens - other.output_tokens, cost)


@dataclass(frozen=True, slots=True)
class Completion(Shown):
    """A whole answer. `model` is the one that answered, which may be a fallback. `finish` is `length` where it was cut at
    max_tokens, `filtered` where the provider withheld (part of) it. A `cached` one took no tokens: `usage` says what it took
    when it was made."""

    text: str
    model: str
    usage: Usage = Usage()
    finish: Finish = "stop"
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer that is still being made."""

    text: str


@dataclass(frozen=True, slots=True)
class ModelInfo(Shown):
    """One chat model: the configured one, a fallback, one that was asked for by name; or a provider that none is configured
    of (`standing` is then `known` and `model` empty).

    `url` never holds credentials; `key` says whether there is one, None where none is needed; `reachable` is None where it
    was not checked. `problem` says what is wrong and `mend` the command against it. `used` is what its `calls` since
    midnight UTC took."""

    name: str
    provider: str
    model: str
    standing: Standing
    url: str | None
    key: bool | None
    reachable: bool | None
    streaming: bool
    schema: bool
    embeddings: bool
    problem: str | None = None
    mend: str | None = None
    calls: int = 0
    used: Usage = Usage()
