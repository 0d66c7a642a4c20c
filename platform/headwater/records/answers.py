"""What surfaces are told of conversations and of answers that are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from headwater.records import Answer
from headwater.records.tabular import Shown

Role = Literal["user", "assistant"]
ChangeKind = Literal["added", "removed", "kept"]


@dataclass(frozen=True, slots=True)
class Conversation(Shown):
    """Questions that go on from each other. `model` answers them (None: the one of the settings), `system` is said to it
    besides our own instructions. What does not fit into `max_context_tokens` is in `summary`. One that is not to `persist`
    is kept in memory only. `messages` counts what was said. `ttl_s` seconds after its last message it `expires`."""

    id: str
    title: str
    system: str
    model: str | None
    max_context_tokens: int
    persist: bool
    created: datetime
    updated: datetime
    ttl_s: float | None
    expires: datetime | None
    messages: int
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, `n` from 1. `answer` is the id of the answer an assistant's turn is, `model` who gave it."""

    n: int
    role: Role
    text: str
    created: datetime
    answer: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A record that an answer was made from: its address, the passage that was found and the score it had."""

    address: str
    score: float
    passage: int = 0


@dataclass(frozen=True, slots=True)
class StoredAnswer(Shown):
    """An answer with what it was made of, so that the same question can be asked again: the arguments it came with, the
    `standalone` question that was searched for, the records `read`, and the settings that shaped it. What was searched, and
    how far each topic had come, is in `answer.coverage`."""

    answer: Answer
    created: datetime
    arguments: Mapping[str, Any]
    standalone: str
    read: tuple[Read, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    rerun_of: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A sentence of an answer that was given again: `added`, `removed` or `kept`."""

    kind: ChangeKind
    text: str


@dataclass(frozen=True, slots=True)
class Rerun(Shown):
    """An answer given anew. `new_records` counts the records stored since the first, by topic; `found` are addresses read
    now and not then, `lost` those read then and not now; `summary` says in a sentence what changed, `diff` shows it line by
    line."""

    before: Answer
    after: Answer
    changes: tuple[Change, ...]
    new_records: Mapping[str, int]
    found: tuple[str, ...]
    lost: tuple[str, ...]
    summary: str
    diff: str
