"""What is made of verbs and so works over every implementation of them: many searches at once, an answer as events."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from headwater.errors import HeadwaterError, UsageError
from headwater.records import Answer, Citation, Coverage, SearchReply
from headwater.verbs import Verbs

MOST_QUERIES = 100
_PIECE = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True, slots=True)
class AskEvent:
    """A step of an answer as it is given: its coverage, a piece of text, a citation, the whole at the end."""

    event: Literal["retrieval", "token", "citation", "done"]
    data: Coverage | str | Citation | Answer


@runtime_checkable
class Remote(Protocol):
    """Verbs that can have these done at the other end."""

    async def search_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply]: ...

    def ask_events(self, question: str, **scope: Any) -> AsyncIterator[AskEvent]: ...


async def search_batch(verbs: Verbs, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply]:
    """A reply for each query (`{"q": ..., and the other parameters of search}`), in their order. The first query that
    fails fails the batch, and its error says which it was."""
    if isinstance(verbs, Remote):
        return await verbs.search_batch(queries)
    if len(queries) > MOST_QUERIES:
        raise UsageError(f"at most {MOST_QUERIES} queries in one batch")
    replies = await asyncio.gather(*(verbs.search(**query) for query in queries), return_exceptions=True)
    done: list[SearchReply] = []
    for number, reply in enumerate(replies):
        if isinstance(reply, HeadwaterError):
            reply.add_note(f"in query {number} of the batch")
        if isinstance(reply, BaseException):
            raise reply
        done.append(reply)
    return done


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
