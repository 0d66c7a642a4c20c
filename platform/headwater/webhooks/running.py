"""Webhooks as the daemon calls them: each its oldest call first, one at a time, until it has arrived.

A receiver that is not there, or busy, is left alone for longer and longer (or as long as it says), and then asked with its
oldest call; one that refuses a call gets that call again later, and the others meanwhile. How a try went is in the log before
the next one: a daemon that is killed goes on with the same ids, and what it had sent without having written so comes again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio.to_thread

from headwater import wire
from headwater.errors import HeadwaterError, UsageError
from headwater.log import webhooks as store
from headwater.log.store import Log
from headwater.log.webhooks import CallRow, Hook
from headwater.records import from_ms
from headwater.records.anomalies import Anomaly
from headwater.records.watches import WatchHit
from headwater.webhooks import signing
from headwater.webhooks.calling import Outcome, call

logger = logging.getLogger(__name__)
FIRST_S, GROWS, LONGEST_S = 5.0, 3.0, 1800.0  # between two tries, give or take a fifth
_HERE_S = 30.0  # where it cannot even be sent
_RETRY_S = 1.0
_REST_S = 3600.0
_GONE = 410
_TYPES = {"alert": "anomaly.alert", "watch": "watch.hit", "test": "test"}
About = Anomaly | WatchHit | Mapping[str, Any]


class Calling:
    """`run()` on the engine's loop, in a daemon. `about` reads what a call is about from the log, None once that is gone;
    `bells` are the events that are set when there is something new."""

    def __init__(
        self, log: Log, about: Callable[[CallRow], About | None], *, bells: Callable[[], Sequence[asyncio.Event]],
        environment: Mapping[str, str], clock_ms: Callable[[], int], rng: random.Random,
    ) -> None:  # fmt: skip
        self._log, self._about, self._bells, self._environment = log, about, bells, environment
        self._clock_ms, self._rng = clock_ms, rng
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look for work now (any thread)."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Call webhooks, until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                events = [self._wake, *self._bells()]
                try:
                    due = await anyio.to_thread.run_sync(store.due, self._log)
                except HeadwaterError as error:
                    logger.warning("webhooks wait: %s", error)
                    await asyncio.sleep(_RETRY_S)
                    continue
                now, rest_s = self._clock_ms(), _REST_S
                for id, at_ms in due.items():
                    if id in self._busy:
                        continue
                    if at_ms > now:
                        rest_s = min(rest_s, (at_ms - now) / 1000)
                        continue
                    task = self._busy[id] = asyncio.create_task(self._drain(id))
                    task.add_done_callback(lambda _, id=id: self._free(id))  # type: ignore[misc]  # a lambda's default
                await _first_of(events, rest_s)
        finally:
            tasks = list(self._busy.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _free(self, id: int) -> None:
        self._busy.pop(id, None)
        self._ring()

    async def _drain(self, id: int) -> None:
        """Call one webhook until nothing is due of it."""
        try:
            while True:
                hook = next((h for h in await anyio.to_thread.run_sync(store.read, self._log) if h.id == id), None)
                now = self._clock_ms()
                if hook is None or hook.paused is not None or hook.wait_ms > now:
                    return
                found = await anyio.to_thread.run_sync(store.next_call, self._log, id, now)
                if found is None:
                    return
                await self._try(hook, found)
        except Exception as error:  # the top of a loop that nothing may end: the same call is made again
            unknown = None if isinstance(error, HeadwaterError) else error
            logger.warning("webhook %d waits: %s", id, error or type(error).__name__, exc_info=unknown)
            await asyncio.sleep(_RETRY_S)

    async def _try(self, hook: Hook, found: CallRow) -> None:
        about = await anyio.to_thread.run_sync(self._about, found)
        if about is None:
            await self._write(store.vanished, found)
            return
        outcome = await self._send(hook, found.id, _TYPES[found.kind], found.made_ms, about)
        now = self._clock_ms()
        if outcome.ok:
            await self._write(store.succeeded, found, now)
            return
        error = outcome.error or "it failed"
        if not outcome.left:
            wait_ms = now + round(_HERE_S * 1000)
            await self._write(store.failed, found, now, error, due_ms=0, wait_ms=wait_ms, counts=False)
            return
        pause_s = outcome.retry_after_s or self._pause_s(hook.failures if outcome.busy else found.tries)
        again_ms = now + round(pause_s * 1000)
        over = found.tries + 1 >= hook.tries
        busy_ms = again_ms if outcome.busy else None  # all of its calls wait, else this one
        due_ms = None if over else 0 if outcome.busy else again_ms
        await self._write(store.failed, found, now, error, due_ms=due_ms, wait_ms=busy_ms, counts=True)
        if over:
            logger.warning(
                "webhook %s gives a call up after %d tries (%s %s): %s", hook.name, hook.tries, found.kind, found.id, error
            )
        if outcome.status == _GONE:
            await self._write(store.pause, hook.id, "it answered 410: it wants no more calls")

    def _pause_s(self, failures: int) -> float:
        return min(FIRST_S * GROWS ** min(failures, 20), LONGEST_S) * self._rng.uniform(0.8, 1.2)

    async def _write(self, work: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        await anyio.to_thread.run_sync(lambda: self._log.write(lambda db: work(db, *args, **kwargs)))

    async def send_test(self, hook: Hook, id: str) -> Outcome:
        """Call a webhook once with nothing to say."""
        about = {"webhook": hook.name, "message": "this is a test; nothing happened"}
        return await self._send(hook, id, _TYPES["test"], self._clock_ms(), about)

    async def _send(self, hook: Hook, id: str, kind: str, made_ms: int, about: About) -> Outcome:
        try:
            keys = signing.keys_of(hook.secret, self._environment)
        except UsageError as error:
            return Outcome(error=str(error), left=False)
        body = wire.encode({"type": kind, "timestamp": from_ms(made_ms), "data": about})
        headers = {"user-agent": "headwater", **signing.signed(keys, id, self._clock_ms() // 1000, body)}
        return await call(hook.url, headers, body, allow_private=hook.private)


async def _first_of(events: Sequence[asyncio.Event], timeout_s: float) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
