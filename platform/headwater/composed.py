"""Replies that come as events: an answer while it is made, over every implementation of the verbs, and live searches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headwater.records import Answer, Citation, Coverage, Hit

_PIECE = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True, slots=True)
class AskEvent:
    """A step of an answer as it is given: its coverage, a piece of text, a citation, the whole at the end. `place` resumes
    behind it, once the answer is complete."""

    event: Literal["retrieval", "token", "citation", "done"]
    data: Coverage | str | Citation | Answer
    place: str | None = None


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """What a live search tells: `ready` (what is stored from now on is judged), a `hit`, `skipped` records of a topic that were
    deleted or expired before they could be judged, `progress` of the cursor alone. `cursor` resumes behind it."""

    event: Literal["ready", "hit", "skipped", "progress"]
    cursor: str
    hit: Hit | None = None
    skipped: int = 0
    topic: str | None = None


def events_of(answer: Answer) -> Iterator[AskEvent]:
    """The events of an answer that is there already."""
    yield AskEvent("retrieval", answer.coverage)
    waiting, shown = {c.n: c for c in answer.citations}, 0
    for piece in _PIECE.findall(answer.text):
        for mark in re.findall(r"\[(\d+)\]", piece):
            if (citation := waiting.pop(int(mark), None)) is not None:
                yield AskEvent("citation", citation)
        shown += len(piece)
        yield AskEvent("token", piece, f"{answer.id}.{shown}")
    for citation in waiting.values():
        yield AskEvent("citation", citation)
    yield AskEvent("done", answer, f"{answer.id}.end")
