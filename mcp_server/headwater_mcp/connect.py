"""Verbs that connect when they are first called, and again when the daemon has gone away.

The server can so answer `initialize` and `tools/list` at once, while the daemon is still starting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from headwater.errors import UnreachableError
from headwater.verbs import Verbs

_NOT_REPEATED = ("append", "add_watch")  # it may have been done although its answer was lost


class _Held:
    """Verbs, how many calls they are in the middle of, and whether they are to be closed when the last of these ends."""

    def __init__(self, verbs: Verbs) -> None:
        self.verbs, self.calls, self.dropped = verbs, 0, False


class _Connecting:
    """Calls go to the verbs `connect` makes; one attempt is under way at a time, and a failed one is tried anew."""

    def __init__(self, connect: Callable[[], Awaitable[Verbs]]) -> None:
        self._connect = connect
        self._lock = asyncio.Lock()
        self._held: _Held | None = None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await self._call(name, args, kwargs)
            except UnreachableError:
                if name in _NOT_REPEATED and not kwargs.get("idempotency_key"):
                    raise
            return await self._call(name, args, kwargs)

        return call

    async def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call. Verbs that nobody could reach are let go of, and closed once no other call is in the middle of them."""
        held = await self._connected()
        held.calls += 1
        try:
            return await getattr(held.verbs, name)(*args, **kwargs)
        except UnreachableError:
            self._drop(held)
            raise
        finally:
            held.calls -= 1
            await _close_if_done(held)

    async def aclose(self) -> None:
        """Let go of the connection, if there is one."""
        if (held := self._held) is not None:
            self._drop(held)
            await _close_if_done(held)

    async def _connected(self) -> _Held:
        async with self._lock:
            if self._held is None:
                self._held = _Held(await self._connect())
            return self._held

    def _drop(self, held: _Held) -> None:
        held.dropped = True
        if self._held is held:
            self._held = None


async def _close_if_done(held: _Held) -> None:
    if held.dropped and not held.calls:
        await held.verbs.aclose()


def connecting(connect: Callable[[], Awaitable[Verbs]]) -> Verbs:
    """Verbs over what `connect` returns, connected at the first call and reconnected once when UnreachableError comes."""
    return cast(Verbs, _Connecting(connect))
