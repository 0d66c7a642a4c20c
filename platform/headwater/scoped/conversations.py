"""Conversations of a token: those it made, and no others.

They are kept under names that begin with a digest of the token itself, so they belong to that token and not to one that is
given its name later, perhaps for other topics. Whoever shows it knows them by the names it gave.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from typing import Any

from headwater.errors import AuthError, LimitError, NotFoundError, UsageError
from headwater.records.answers import Conversation, Message, StoredAnswer
from headwater.tokens import Token
from headwater.verbs import Verbs

MOST = 500  # conversations of one token
_LONGEST = 80  # characters of a name


class OwnConversations:
    """The verbs of conversations, for whoever shows a token."""

    def __init__(self, verbs: Verbs, token: Token) -> None:
        self._verbs, self._token = verbs, token
        self._prefix = f"t{hashlib.sha256(f'{token.name} {token.digest}'.encode()).hexdigest()[:16]}."

    def kept(self, id: str) -> str:
        """The name that a conversation is kept under. UsageError for one that is too long."""
        if not 0 < len(id) <= _LONGEST:
            raise UsageError(f"an id of a conversation has at most {_LONGEST} characters")
        return f"{self._prefix}{id}"

    async def spoken_in(self, id: str) -> str:
        """The same, for a question: one that is not there is about to be made. LimitError where there are too many."""
        kept = self.kept(id)
        try:
            await self._verbs.conversation(kept)
        except NotFoundError:
            await self._room()
        return kept

    async def create(self, id: str | None = None, *, model: str | None = None, **settings: Any) -> Conversation:
        self._plain(model)
        await self._room()
        kept = self.kept(id or f"c{uuid.uuid4().hex[:12]}")
        return self._told(await self._verbs.create_conversation(kept, **settings))

    async def all(self) -> list[Conversation]:
        return [self._told(c) for c in await self._verbs.conversations() if c.id.startswith(self._prefix)]

    async def one(self, id: str) -> Conversation:
        with _Named(id):
            return self._told(await self._verbs.conversation(self.kept(id)))

    async def change(self, id: str, **changes: Any) -> Conversation:
        self._plain(changes.get("model"))
        with _Named(id):
            return self._told(await self._verbs.set_conversation(self.kept(id), **changes))

    async def remove(self, id: str) -> None:
        with _Named(id):
            await self._verbs.remove_conversation(self.kept(id))

    async def messages(self, id: str, **page: Any) -> list[Message]:
        with _Named(id):
            return await self._verbs.messages(self.kept(id), **page)

    async def answers(self, *, conversation: str | None = None, limit: int = 50) -> list[StoredAnswer]:
        """Those of one of its conversations: answers outside of conversations belong to nobody."""
        if conversation is None:
            raise AuthError(f"the token {self._token.name!r} may list the answers of its conversations only; name one")
        return await self._verbs.answers(conversation=self.kept(conversation), limit=limit)

    async def _room(self) -> None:
        if len(await self.all()) >= MOST:
            raise LimitError(f"the token {self._token.name!r} has {MOST} conversations, the most there can be; remove one")

    def _plain(self, model: str | None) -> None:
        if model is not None:
            raise AuthError(f"the token {self._token.name!r} may not choose a chat model; that needs the API key")

    def _told(self, found: Conversation) -> Conversation:
        return replace(found, id=found.id.removeprefix(self._prefix))


class _Named:
    """Errors that name a conversation as whoever asked knows it."""

    def __init__(self, id: str) -> None:
        self._id = id

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotFoundError):
            raise NotFoundError(f"there is no conversation {self._id[:100]!r}") from None
