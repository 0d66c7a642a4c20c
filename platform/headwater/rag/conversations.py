"""Conversations: made, listed, changed, gone on with, forgotten."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread

from headwater.config import AskSettings, duration_s
from headwater.errors import ConfigError, ConflictError, LimitError, ModelError, NotFoundError, UsageError
from headwater.llm.chat import Chat
from headwater.log import conversations as store
from headwater.log.conversations import ConversationRow, MessageRow, Shelf, Volatile
from headwater.log.store import Log
from headwater.rag import prompts
from headwater.rag.answering import Dialogue
from headwater.rag.chain import NOTHING
from headwater.rag.packing import tokens
from headwater.rag.standalone import Turn
from headwater.records import from_ms
from headwater.records.answers import Conversation, Message

P = ParamSpec("P")
T = TypeVar("T")
MOST = 10_000
LEAST_TOKENS, MOST_TOKENS = 100, 1_000_000
MOST_SYSTEM = 8000  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CHANGES = ("title", "system", "model", "max_context_tokens", "ttl")
_OF_SUMMARY = 4  # a summary takes at most this part of the window
_MARKS = re.compile(r" ?\[\d+\]")
_LONGEST_S = 10 * 366 * 86_400.0


async def threaded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what blocks in a thread."""
    return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs))


class Conversations:
    """Implements the verbs of conversations. What is not to persist is in memory."""

    def __init__(self, log: Log, settings: AskSettings, *, clock_ms: Callable[[], int]) -> None:
        self._log, self._settings, self._clock_ms = log, settings, clock_ms
        self._volatile: Volatile | None = None

    @property
    def shelves(self) -> tuple[Shelf, ...]:
        """Where conversations are: the log, and memory once something is there."""
        return (self._log,) if self._volatile is None else (self._log, self._volatile)

    async def create(
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
        """As Verbs.create_conversation."""
        if id is not None and not _NAME.fullmatch(id):
            raise UsageError(f"{id[:40]!r} is no id of a conversation: letters, digits and ._- (at most 100)")
        id, now = id or f"c{uuid.uuid4().hex[:12]}", self._clock_ms()
        values = _checked({"title": title or "", "system": system, "model": model, "ttl": ttl,
                           "max_context_tokens": max_context_tokens or self._settings.conversation_tokens})  # fmt: skip
        if ttl is None and (kept_s := self._settings.conversation_ttl_s) is not None:
            values["ttl_ms"] = round(kept_s * 1000)
        ttl_ms = values["ttl_ms"]
        row = ConversationRow(
            id, values["title"], values["system"], values["model"], values["max_context_tokens"], ttl_ms, now, now,
            None if ttl_ms is None else now + ttl_ms,
        )  # fmt: skip
        await self.expire()
        if len(await self.all()) >= MOST:
            raise LimitError(f"there are {MOST:,} conversations, the most there can be; `headwater conversations rm` ends one")
        if await threaded(self.find, id) is not None:
            raise ConflictError(f"there is a conversation {id!r} already; ask in it, or give another id")
        if not persist and self._volatile is None:
            self._volatile = Volatile()
        shelf: Shelf = self._log if persist or self._volatile is None else self._volatile
        if not await threaded(shelf.write, lambda db: store.create(db, row)):
            raise ConflictError(f"there is a conversation {id!r} already; ask in it, or give another id")
        return self._told(row, shelf)

    async def all(self) -> list[Conversation]:
        """As Verbs.conversations."""
        found = [self._told(row, shelf) for shelf in self.shelves for row in await threaded(store.read, shelf)]
        now = from_ms(self._clock_ms())
        alive = (c for c in found if c.expires is None or c.expires > now)
        return sorted(alive, key=lambda c: (c.updated, c.id), reverse=True)

    async def one(self, id: str) -> Conversation:
        """As Verbs.conversation."""
        row, shelf = await self.known(id)
        return self._told(row, shelf)

    async def change(self, id: str, **changes: Any) -> Conversation:
        """As Verbs.set_conversation."""
        if unknown := sorted(set(changes) - set(_CHANGES)):
            raise UsageError(f"a conversation has no {unknown[0]!r} to change; it has {', '.join(_CHANGES)}")
        values = _checked(changes)
        row, shelf = await self.known(id)
        if "ttl_ms" in values:
            values["expires_ms"] = None if values["ttl_ms"] is None else row.updated_ms + values["ttl_ms"]
        await threaded(shelf.write, lambda db: store.change(db, id, values))
        return await self.one(id)

    async def remove(self, id: str) -> None:
        """As Verbs.remove_conversation."""
        _, shelf = await self.known(id)
        await threaded(shelf.write, lambda db: store.drop(db, [id]))

    async def messages(self, id: str, *, limit: int = 100, before: int | None = None) -> list[Message]:
        """As Verbs.messages."""
        if not 1 <= limit <= 1000:
            raise UsageError("limit must be between 1 and 1000")
        _, shelf = await self.known(id)
        rows = await threaded(store.messages, shelf, id, before=before, limit=limit)
        return [
            Message(m.n, "user" if m.role == "user" else "assistant", m.text, from_ms(m.created_ms), m.answer, m.model)
            for m in rows
        ]

    async def expire(self) -> None:
        """Forget what has come to its end."""
        now = self._clock_ms()
        for shelf in self.shelves:
            if ids := await threaded(store.expired, shelf, now):
                await threaded(shelf.write, lambda db, ids=ids: store.drop(db, ids))

    # ------------------------------------------------------------------ going on

    def find(self, id: str) -> tuple[ConversationRow, Shelf] | None:
        """The conversation of that id and where it is; None where there is none, or its end has come."""
        now = self._clock_ms()
        for shelf in self.shelves:
            for row in store.read(shelf, id):
                if row.expires_ms is None or row.expires_ms > now:
                    return row, shelf
        return None

    async def known(self, id: str) -> tuple[ConversationRow, Shelf]:
        """The same; NotFoundError where there is none."""
        found = await threaded(self.find, id)
        if found is None:
            raise NotFoundError(f"no conversation {id[:100]!r}; `headwater conversations` lists them")
        return found

    async def dialogue(self, row: ConversationRow, shelf: Shelf) -> Dialogue:
        """What was said, the newest turns that fit into the conversation's window."""
        rows = await threaded(store.messages, shelf, row.id, after=row.summarized)
        window = row.max_context_tokens - tokens(row.summary)
        return Dialogue(tuple(_turn(m) for m in _newest(rows, window)), row.summary, row.system)

    async def say(self, id: str, shelf: Shelf, said: Sequence[MessageRow], chat: Chat | None) -> None:
        """Keep what was said; turns that no longer fit go into the summary, by the model, or without one shortened."""
        now = self._clock_ms()
        await threaded(shelf.write, lambda db: store.say(db, id, said, now))
        found = await threaded(self.find, id)
        if found is None:
            return
        row, shelf = found
        rows = await threaded(store.messages, shelf, id, after=row.summarized)
        if sum(tokens(m.text) for m in rows) <= row.max_context_tokens - tokens(row.summary):
            return
        kept = _newest(rows, row.max_context_tokens // 2)
        old = rows[: len(rows) - len(kept)]
        if not old:
            return
        most = max(20, row.max_context_tokens // _OF_SUMMARY)
        summary = await _summary([_turn(m) for m in old], row.summary, most, chat)
        await threaded(shelf.write, lambda db: store.summarized(db, id, summary, old[-1].n))

    def _told(self, row: ConversationRow, shelf: Shelf) -> Conversation:
        return Conversation(
            row.id, row.title, row.system, row.model, row.max_context_tokens, shelf is self._log, from_ms(row.created_ms),
            from_ms(row.updated_ms), None if row.ttl_ms is None else row.ttl_ms / 1000,
            None if row.expires_ms is None else from_ms(row.expires_ms), row.messages, row.summary,
        )  # fmt: skip

    def close(self) -> None:
        """Forget what is in memory."""
        if self._volatile is not None:
            self._volatile.close()
            self._volatile = None


def _checked(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a conversation for what was asked; UsageError."""
    values = {name: value for name, value in changes.items() if name != "ttl"}
    size = values.get("max_context_tokens", LEAST_TOKENS)
    if not isinstance(size, int) or not LEAST_TOKENS <= size <= MOST_TOKENS:
        raise UsageError(f"max_context_tokens must be between {LEAST_TOKENS} and {MOST_TOKENS:,}")
    for name, most in (("title", 200), ("system", MOST_SYSTEM)):
        if len(values.get(name) or "") > most:
            raise UsageError(f"{name} has at most {most:,} characters")
        if name in values:
            values[name] = values[name] or ""
    if "ttl" in changes:
        values["ttl_ms"] = None if (ttl := changes["ttl"]) is None else round(_seconds(ttl) * 1000)
    return values


def _seconds(ttl: float | str) -> float:
    try:
        seconds = duration_s(ttl) if isinstance(ttl, str) else float(ttl)
    except ConfigError as error:
        raise UsageError(f"ttl: {error}") from error
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError("ttl must be more than nothing, and at most ten years")
    return seconds


def _newest(rows: Sequence[MessageRow], window: int) -> list[MessageRow]:
    """The newest messages that fit, from a question on."""
    kept: list[MessageRow] = []
    for row in reversed(rows):
        window -= tokens(row.text)
        if window < 0:
            break
        kept.append(row)
    while kept and kept[-1].role != "user":
        kept.pop()
    return kept[::-1]


def _turn(row: MessageRow) -> Turn:
    """A message as what was said; an answer that there is none says nothing, and would be repeated by small models."""
    if row.role == "user":
        return Turn("user", row.text)
    return Turn("assistant", "" if NOTHING in row.text else _MARKS.sub("", row.text))


async def _summary(old: Sequence[Turn], before: str, most_tokens: int, chat: Chat | None) -> str:
    """What was said, in at most so many tokens: by the model, or each question with the beginning of its answer."""
    if chat is not None:
        try:
            messages = prompts.shortening(old, before, most_tokens // 2)
            said = await chat.complete(messages, temperature=0.0, max_tokens=most_tokens)
            if said.text.strip():
                return _cut(said.text.strip(), most_tokens)
        except (ModelError, LimitError):
            pass  # then without it
    lines = [before] if before else []
    for turn in old:
        first = " ".join(turn.text.split())
        lines.append(f"Q: {first[:160]}" if turn.role == "user" else f"A: {first[:240]}")
    while len(lines) > 1 and tokens("\n".join(lines)) > most_tokens:  # what was asked stays longest
        lines.pop(next((i for i, line in enumerate(lines) if line.startswith("A: ")), 0))
    return _cut("\n".join(lines), most_tokens)


def _cut(text: str, most_tokens: int) -> str:
    while tokens(text) > most_tokens:
        text = text[: len(text) * 9 // 10]
    return text
