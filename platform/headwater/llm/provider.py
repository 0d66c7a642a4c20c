"""The Provider: what every chat model is to the rest of Headwater, in two methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from headwater.embed.fault import Fault
from headwater.records.models import Finish, Message

MEND = "To mend it: "  # what follows it in an error is a command
_MESSAGE_TOKENS = 16  # a chat template's own tokens around a message
_SCHEMA_TOKENS = 256  # what a server may write around a schema


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one call sends. `schema` is a JSON schema that the answer must follow; `name` is what it is called there."""

    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int = 1024
    schema: Mapping[str, Any] | None = None
    name: str = "answer"

    def canonical(self) -> str:
        """The same text for the same prompt: what answers are kept by."""
        whole = {
            "messages": [(m.role, m.text) for m in self.messages], "temperature": self.temperature,
            "max_tokens": self.max_tokens, "schema": self.schema, "name": self.name,
        }  # fmt: skip
        return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS).decode()

    @property
    def likely_input_tokens(self) -> int:
        """More than tokenizers make of prose and of log lines: a token for two bytes."""
        return (self.most_input_tokens + 1) // 2

    @property
    def most_input_tokens(self) -> int:
        """No tokenizer makes more of it: one token a byte, and a template's own."""
        said = sum(len(m.text.encode("utf-8", "replace")) + _MESSAGE_TOKENS for m in self.messages)
        return said + (0 if self.schema is None else len(orjson.dumps(self.schema)) + _SCHEMA_TOKENS)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call answered. Token counts are None where the server did not say; the text of a stream stands whole here."""

    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish: Finish = "stop"


class Provider(ABC):
    """A chat model. A plugin sets `name` and writes `complete` and `stream`; both raise Fault, and nothing else.

    A Fault's status is the HTTP status of a refusal, 0 where nothing listens, None where the model may have worked (a
    timeout, a cut or senseless answer): what such a call took is then counted at the most it can have been."""

    name: str  # PROVIDER:MODEL
    url: str | None = None  # without credentials
    key: bool | None = None  # whether there is one; None: none needed
    version: str = ""  # tells two models of one name apart, where answers are kept
    embeds: bool = False  # whether headwater.embed has this provider too
    schema: bool = True  # whether the server holds the model to a schema; else it is asked to follow it
    concurrency: int = 128  # calls under way at once
    context_tokens: int = 8192
    free: bool = False  # runs on machines of one's own, or has no price
    prices: tuple[float, float] | None = None  # US dollars for a million tokens of prompt and of answer, as settings say

    @abstractmethod
    async def complete(self, prompt: Prompt) -> Reply:
        """The whole answer."""

    @abstractmethod
    def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        """The answer in pieces, then the Reply. A stream that ends before its model said it was done raises Fault."""

    async def ready(self) -> None:
        """Load and start what the first call needs. Raises Fault."""
        return

    async def warm(self) -> None:
        """Load, and do not start, what the first call needs. Raises Fault."""
        return

    async def check(self) -> None:
        """Whether the model can be had, without asking it anything where that is possible. Raises Fault."""
        await self.complete(Prompt((Message("user", "Say ok."),), max_tokens=1))

    def remedy(self, fault: Fault) -> str:
        """The command that mends this; empty where there is none."""
        return ""

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def model(self) -> str:
        return self.name.partition(":")[2]

    async def aclose(self) -> None:
        """Release connections and what was started; a closed provider may not be used again."""
        return
