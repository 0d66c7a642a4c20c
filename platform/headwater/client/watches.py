"""Watches over HTTP: what headwater.client gives as `add_watch`, `wait` and their kin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from headwater import wire
from headwater.client.sending import PATIENT_S, PAUSES_S, Sending, given
from headwater.errors import UnreachableError
from headwater.records.watches import Watch, WatchHit, Woken

_POLL_S = 25.0  # the longest wait by one request


class WatchCalls:
    """The verbs of watches."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def add(self, q: str = "", **scope: Any) -> Watch:
        """As Verbs.add_watch."""
        return wire.decode(Watch, await self._sending.send("POST", "/v1/watches", body=wire.sent(given({"q": q, **scope}))))

    async def all(self) -> list[Watch]:
        """As Verbs.watches."""
        return (await self._sending.get(dict[str, list[Watch]], "/v1/watches"))["watches"]

    async def one(self, id: int | str) -> Watch:
        """As Verbs.watch."""
        return await self._sending.get(Watch, _watch(id))

    async def remove(self, id: int | str) -> None:
        """As Verbs.remove_watch."""
        await self._sending.send("DELETE", _watch(id))

    async def wait(self, id: int | str, *, cursor: str | None = None, timeout: float | None = 25.0, limit: int = 100) -> Woken:
        """As Verbs.wait; a long wait is several requests."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while True:
            left = _POLL_S if end is None else min(max(end - loop.time(), 0.0), _POLL_S)
            query = {"cursor": cursor, "timeout": left, "limit": limit}
            body = await self._sending.send(
                "GET", f"{_watch(id)}/wait", query=query, again=True, timeout_s=self._sending.timeout_s + left
            )
            reply = wire.decode(Woken, body)
            if reply.hits or not reply.timed_out or (end is not None and loop.time() >= end):
                return reply

    async def events(self, id: int | str, *, cursor: str | None = None) -> AsyncIterator[WatchHit]:
        """As Verbs.watch_events, over broken connections and restarts of the daemon."""
        tries, pauses = 0, PAUSES_S
        while True:
            try:
                reply = await self.wait(id, cursor=cursor, timeout=None)
            except UnreachableError:
                if tries >= len(pauses):
                    raise
                await self._sending.pause(pauses[tries])
                tries += 1
                continue
            for hit in reply.hits:
                yield hit
            cursor, tries, pauses = reply.cursor, 0, PATIENT_S
            if not reply.hits:
                return


def _watch(id: int | str) -> str:
    return f"/v1/watches/{quote(str(id), safe='')}"
