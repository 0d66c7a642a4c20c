"""Replies that come as events: an answer while it is made, over every implementation of the verbs, and live searches."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from headwater.records import Answer, Citation, Coverage, Hit

if TYPE_CHECKING:
    from headwater.verbs import Verbs

_PIECE = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True, slots=True)
class AskEvent:
    """A step of an answer as it is given: its coverage, a piece of text, a citation, the whole at the end."""

    event: Literal["retrieval", "token", "citation", "done"]
    data: Coverage | str | Citation | Answer


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """What a live search tells: `ready` (what is stored from now on is judged), a `hit`, `skipped` records of a topic that were
    deleted or expired before they could be judged, `progress` of the cursor alone. `cursor` resumes behind it."""

    event: Literal["ready", "hit", "skipped", "progress"]
    cursor: str
    hit: Hit | None = None
    skipped: int = 0
    topic: str | None = None


@runtime_checkable
class Remote(Protocol):
    """Verbs that can have this done at the other end."""

    def ask_events(self, question: str, **scope: Any) -> AsyncIterator[AskEvent]: ...


async def ask_events(verbs: Verbs, question: str, **scope: Any) -> AsyncIterator[AskEvent]:
    """The answer to a question as events: `retrieval` first, then `token`s with each `citation` before the piece of text
    that refers to it, `done` last. The tokens together are the answer's text. `scope` is that of Verbs.ask."""
    if isinstance(verbs, Remote):
        async for event in verbs.ask_events(question, **scope):
            yield event
        return
    answer = await verbs.ask(question, **scope)
    yield AskEvent("retrieval", answer.coverage)
    waiting = {c.n: c for c in answer.citations}
    for piece in _PIECE.findall(answer.text):
        for mark in re.findall(r"\[(\d+)\]", piece):
            if (citation := waiting.pop(int(mark), None)) is not None:
                yield AskEvent("citation", citation)
        yield AskEvent("token", piece)
    for citation in waiting.values():
        yield AskEvent("citation", citation)
    yield AskEvent("done", answer)
