"""Webhooks over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from headwater import wire
from headwater.client.sending import Sending, given
from headwater.records.webhooks import Tested, Webhook


class WebhookCalls:
    """The verbs of webhooks."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def add(self, url: str, **settings: Any) -> Webhook:
        """As WebhookVerbs.add_webhook."""
        return wire.decode(
            Webhook, await self._sending.send("POST", "/v1/webhooks", body=wire.sent(given({"url": url, **settings})))
        )

    async def all(self) -> list[Webhook]:
        """As WebhookVerbs.webhooks."""
        return (await self._sending.get(dict[str, list[Webhook]], "/v1/webhooks"))["webhooks"]

    async def one(self, id: int | str) -> Webhook:
        """As WebhookVerbs.webhook."""
        return await self._sending.get(Webhook, _webhook(id))

    async def pause(self, id: int | str) -> Webhook:
        """As WebhookVerbs.pause_webhook."""
        return wire.decode(Webhook, await self._sending.send("POST", f"{_webhook(id)}/pause", again=True))

    async def resume(self, id: int | str) -> Webhook:
        """As WebhookVerbs.resume_webhook."""
        return wire.decode(Webhook, await self._sending.send("POST", f"{_webhook(id)}/resume", again=True))

    async def test(self, id: int | str) -> Tested:
        """As WebhookVerbs.test_webhook."""
        return wire.decode(Tested, await self._sending.send("POST", f"{_webhook(id)}/test"))

    async def remove(self, id: int | str) -> None:
        """As WebhookVerbs.remove_webhook."""
        await self._sending.send("DELETE", _webhook(id))


def _webhook(id: int | str) -> str:
    return f"/v1/webhooks/{quote(str(id), safe='')}"
