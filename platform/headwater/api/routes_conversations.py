"""Conversations: made, listed, read, changed, forgotten."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from headwater.api.bodies import Body, Engine, Reply
from headwater.api.problems import RESPONSES
from headwater.records.answers import Conversation, Message

router = APIRouter(prefix="/v1/conversations", responses=RESPONSES, tags=["ask"])
ConversationId = Annotated[str, Path(max_length=100)]
Duration = Annotated[str, Field(max_length=100)] | float | None


class ConversationBody(Body):
    """A conversation to be made."""

    id: str | None = Field(None, max_length=100)
    title: str | None = Field(None, max_length=200)
    system: str = Field("", max_length=8000)
    model: str | None = Field(None, max_length=500)
    max_context_tokens: int | None = None
    persist: bool = True
    ttl: Duration = None

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class ConversationChanges(Body):
    """What is to be changed of a conversation."""

    title: str | None = Field(None, max_length=200)
    system: str | None = Field(None, max_length=8000)
    model: str | None = Field(None, max_length=500)
    max_context_tokens: int | None = None
    ttl: Duration = None

    def changes(self) -> dict[str, Any]:
        """What was given, also where that is null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


@router.get("", response_model=dict[str, list[Conversation]])
async def conversations(engine: Engine) -> Response:
    """Every conversation, the one spoken in last first."""
    return Reply({"conversations": await engine.conversations()})


@router.post("", response_model=Conversation, status_code=201)
async def create(engine: Engine, body: ConversationBody) -> Response:
    """A new conversation."""
    return Reply(await engine.create_conversation(**body.arguments()), 201)


@router.get("/{id}", response_model=Conversation)
async def conversation(engine: Engine, id: ConversationId) -> Response:
    """One conversation."""
    return Reply(await engine.conversation(id))


@router.patch("/{id}", response_model=Conversation)
async def change(engine: Engine, id: ConversationId, body: ConversationChanges) -> Response:
    """Change its title, system prompt, model, window or end."""
    return Reply(await engine.set_conversation(id, **body.changes()))


@router.delete("/{id}", status_code=204)
async def remove(engine: Engine, id: ConversationId) -> Response:
    """Forget it, its messages and its answers."""
    await engine.remove_conversation(id)
    return Response(status_code=204)


@router.get("/{id}/messages", response_model=dict[str, list[Message]])
async def messages(
    engine: Engine,
    id: ConversationId,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=1 << 40, description="Only messages with a smaller number.")] = None,
) -> Response:
    """Its newest messages, oldest first."""
    return Reply({"messages": await engine.messages(id, limit=limit, before=before)})
