"""Verbs that connect when they are first called, and again when the daemon has gone away.

The server can so answer `initialize` and `tools/list` at once, while the daemon is still starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from headwater.errors import UnreachableError
from headwater.verbs import Verbs

_NOT_REPEATED = (
    "append",
    "add_watch",
)  # an append may have been stored although its answer was lost


class _Connecting:
    """Calls go to the verbs `connect` makes; one attempt is under way at a time, and a failed one is tried anew."""

    def __init__(self, connect: Callable[[], Awaitable[Verbs]]) -> None:
        self._connect = connect
        self._lock = asyncio.Lock()
        self._verbs: Verbs | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            verbs = await self._connected()
            try:
                return await getattr(verbs, name)(*args, **kwargs)
            except UnreachableError:
                await self._drop(verbs)
                if name in _NOT_REPEATED and not kwargs.get("idempotency_key"):
                    raise
            return await getattr(await self._connected(), name)(*args, **kwargs)

        return call

    async def aclose(self) -> None:
        """Let go of the connection, if there is one."""
        if self._verbs is not None:
            await self._drop(self._verbs)

    async def _connected(self) -> Verbs:
        async with self._lock:
            if self._verbs is None:
                self._verbs = await self._connect()
            return self._verbs

    async def _drop(self, verbs: Verbs) -> None:
        if self._verbs is verbs:
            self._verbs = None
            await verbs.aclose()


def connecting(connect: Callable[[], Awaitable[Verbs]]) -> Verbs:
    """Verbs over what `connect` returns, connected at the first call and reconnected once when UnreachableError comes."""
    return cast(Verbs, _Connecting(connect))
