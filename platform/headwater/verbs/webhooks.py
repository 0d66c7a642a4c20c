"""The verbs of webhooks: addresses that are called for alerts and for what watches fire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headwater.records.webhooks import Tested, Webhook

SECRET = "WEBHOOK_SECRET"  # the environment variable, where none is named
TRIES = 30  # about half a day


class WebhookVerbs(Protocol):
    """Webhooks. The daemon calls them; what is to be sent is kept in the log, and sent at least once."""

    async def add_webhook(
        self,
        url: str,
        *,
        name: str | None = None,
        alerts: Sequence[str] = (),
        watches: Sequence[str | int] = (),
        secret: str = SECRET,
        allow_private: bool = False,
        tries: int = TRIES,
    ) -> Webhook:
        """Call `url` from now on for each alert of the topics `alerts` and each hit of `watches` (ids or names; `*` for all of
        either), signed as Standard Webhooks are with the secret in the environment variable `secret` (WEBHOOK_...). Loopback
        and private addresses only with `allow_private`, link-local ones never. A call is given up after `tries`. UsageError,
        NotFoundError, ConflictError where the name is taken, LimitError."""

    async def webhooks(self) -> list[Webhook]:
        """Every webhook, oldest first."""

    async def webhook(self, id: int | str) -> Webhook:
        """The webhook of that id or name, with the calls that have not succeeded; NotFoundError."""

    async def pause_webhook(self, id: int | str) -> Webhook:
        """Call it no more until it is resumed; what it is to be sent waits."""

    async def resume_webhook(self, id: int | str) -> Webhook:
        """Let it go on; what waits and what was given up is tried anew, at once."""

    async def test_webhook(self, id: int | str) -> Tested:
        """Call it once now, with a signed `test`: how that went. It is not tried again."""

    async def remove_webhook(self, id: int | str) -> None:
        """Forget a webhook with what it was to be sent; NotFoundError."""
