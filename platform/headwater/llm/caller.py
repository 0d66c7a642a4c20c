"""One model as it may be called: its limits, tries, budget and kept answers around a Provider."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from headwater.config import LlmSettings
from headwater.embed.fault import Fault, Pace
from headwater.errors import ModelError
from headwater.llm.provider import MEND, Prompt, Provider, Reply
from headwater.model_records import Completion, Piece, Usage

BACKOFF_S, BACKOFF_MAX_S = 0.5, 20.0
RETRY_AFTER_MAX_S = 60.0  # a provider that asks for longer is given up on at once; the error says how long


class Caller:
    """Calls one provider, never more than its concurrency and rate allow. Raises ModelError and LimitError.

    `sleep`, `clock` (monotonic) and `rng` are what waiting and jitter are made of."""

    def __init__(
        self,
        provider: Provider,
        settings: LlmSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.provider, self.name = provider, provider.name
        self._settings, self._sleep, self._rng = settings, sleep, rng or random.Random()
        self._gate = asyncio.Semaphore(settings.concurrency or provider.concurrency)
        self._pace = Pace(settings.requests_per_s, clock, sleep)

    async def complete(self, prompt: Prompt, timeout_s: float, *, cache: bool) -> Completion:
        """A whole answer, after at most `retries` more tries."""
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._gate:
                    await self._pace.turn()
                    async with self._in_time(timeout_s):
                        return self._completion(await self.provider.complete(prompt))
            except Fault as fault:
                await self._pause(fault, attempt)
        raise AssertionError("unreachable")

    async def stream(self, prompt: Prompt, timeout_s: float, *, cache: bool) -> AsyncIterator[Piece | Completion]:
        """The pieces of an answer, then the whole. It is tried again only while no piece was given."""
        begun = False
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._gate, contextlib.AsyncExitStack() as opened:
                    await self._pace.turn()
                    parts = self.provider.stream(prompt)
                    if (close := getattr(parts, "aclose", None)) is not None:
                        opened.push_async_callback(close)
                    while True:
                        async with self._in_time(timeout_s):
                            part = await anext(parts, None)
                        if part is None:
                            raise Fault("the answer was cut", passes=True)
                        if isinstance(part, Reply):
                            yield self._completion(part)
                            return
                        begun = True
                        yield Piece(part)
            except Fault as fault:
                if begun:
                    raise ModelError(f"{self.name}: the answer was cut: {fault}") from fault
                await self._pause(fault, attempt)

    def _completion(self, reply: Reply) -> Completion:
        return Completion(reply.text, self.name, Usage(reply.input_tokens or 0, reply.output_tokens or 0), reply.finish)

    @contextlib.asynccontextmanager
    async def _in_time(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            raise Fault(f"no answer within {timeout_s:g} s", passes=True) from error

    async def _pause(self, fault: Fault, attempt: int) -> None:
        """Wait before the next try; ModelError where there is to be none."""
        asked = fault.retry_after_s or 0.0
        if not fault.passes or attempt == self._settings.retries or asked > RETRY_AFTER_MAX_S:
            tries = f" (tried {attempt + 1} times)" if attempt else ""
            remedy = self.provider.remedy(fault)
            mend = f". {MEND}{remedy}" if remedy else ""
            raise ModelError(f"{self.name}: {fault}{tries}{mend}", retry_after_s=fault.retry_after_s) from fault
        wait = min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
        await self._sleep(max(wait, asked))

    async def aclose(self) -> None:
        await self.provider.aclose()
