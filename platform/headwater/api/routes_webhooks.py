"""Webhooks: made, listed, tested, paused, removed. What calls us is in routes_push."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import Field

from headwater.api.bodies import Body, Engine, Reply
from headwater.api.problems import RESPONSES
from headwater.records.webhooks import Tested, Webhook
from headwater.verbs.webhooks import SECRET, TRIES

router = APIRouter(prefix="/v1/webhooks", responses=RESPONSES, tags=["webhooks"])
WebhookId = Annotated[str, Path(max_length=100, description="Its id or its name.")]


class WebhookBody(Body):
    """Whom to call, and for what. The secret is the name of an environment variable of the daemon."""

    url: str = Field(max_length=2000)
    name: str | None = Field(None, max_length=100)
    alerts: list[Annotated[str, Field(max_length=100)]] = Field([], max_length=1000)
    watches: list[Annotated[str, Field(max_length=100)] | int] = Field([], max_length=2000)
    secret: str = Field(SECRET, max_length=120)
    allow_private: bool = False
    tries: int = TRIES

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


@router.get("", response_model=dict[str, list[Webhook]])
async def webhooks(engine: Engine) -> Response:
    """Every webhook, oldest first."""
    return Reply({"webhooks": await engine.webhooks()})


@router.post("", response_model=Webhook, status_code=201)
async def add(engine: Engine, body: WebhookBody) -> Response:
    """Call an address for alerts and hits of watches from now on."""
    return Reply(await engine.add_webhook(**body.arguments()), 201)


@router.get("/{id}", response_model=Webhook)
async def webhook(engine: Engine, id: WebhookId) -> Response:
    """One webhook, with the calls that have not succeeded."""
    return Reply(await engine.webhook(id))


@router.post("/{id}/pause", response_model=Webhook)
async def pause(engine: Engine, id: WebhookId) -> Response:
    """Call it no more until it is resumed; what it is to be sent waits."""
    return Reply(await engine.pause_webhook(id))


@router.post("/{id}/resume", response_model=Webhook)
async def resume(engine: Engine, id: WebhookId) -> Response:
    """Let it go on; what waits and what was given up is tried anew, at once."""
    return Reply(await engine.resume_webhook(id))


@router.post("/{id}/test", response_model=Tested)
async def test(engine: Engine, id: WebhookId) -> Response:
    """Call it once now, with a signed `test`: how that went."""
    return Reply(await engine.test_webhook(id))


@router.delete("/{id}", status_code=204)
async def remove(engine: Engine, id: WebhookId) -> Response:
    """Forget a webhook with what it was to be sent."""
    await engine.remove_webhook(id)
    return Response(status_code=204)
