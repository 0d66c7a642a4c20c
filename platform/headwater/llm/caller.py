"""One model as it may be called: kept answers, budgets, limits and tries around a Provider.

Faults that pass (429, 408, 5xx, timeouts, broken connections, answers that make no sense) are tried again with exponential
back-off and jitter (Brooker, "Exponential Backoff And Jitter", 2015); a Retry-After is waited for up to a bound. Faults that
stay (400, 401, 403, 404, a redirect, an empty quota) fail at once with what to mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from headwater.config import LlmSettings
from headwater.embed.fault import Fault, Pace
from headwater.errors import ConfigError, LimitError, ModelError
from headwater.llm.ledger import Ledger
from headwater.llm.prices import Price, price_of
from headwater.llm.provider import MEND, Prompt, Provider, Reply
from headwater.records.models import Completion, Piece, Usage

if TYPE_CHECKING:
    from headwater.embed.cache import VectorCache

BACKOFF_S, BACKOFF_MAX_S = 0.5, 20.0
RETRY_AFTER_MAX_S = 60.0  # a provider that asks for longer is given up on at once; the error says how long
REST_S, REST_MAX_S = 5.0, 300.0  # before a model that failed is tried again, where a fallback serves meanwhile
SHORTEST = 16  # tokens of an answer that is worth asking for


@dataclass(slots=True)
class _Turn:
    """One try. `usage` is what it took, as far as is known by then."""

    usage: Usage


class Caller:
    """Calls one provider, never more than its budget, concurrency and rate allow. Raises ModelError and LimitError.

    `sleep`, `clock` (monotonic) and `rng` are what waiting and jitter are made of."""

    def __init__(
        self,
        provider: Provider,
        settings: LlmSettings,
        *,
        ledger: Ledger | None = None,
        cache: VectorCache | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.provider, self.name = provider, provider.name
        self._settings, self._sleep, self._clock, self._rng = settings, sleep, clock, rng or random.Random()
        self._ledger, self._cache = ledger or Ledger(settings), cache if settings.cache_enabled else None
        self._gate = asyncio.Semaphore(settings.concurrency or provider.concurrency)
        self._pace = Pace(settings.requests_per_s, clock, sleep)
        self._price: Price | None = None
        self._readied = False
        self._rest_s, self._rests_until = REST_S, float("-inf")
        self.trouble: str | None = None  # why the last call failed; None once one succeeds

    @property
    def resting(self) -> bool:
        """Whether it failed so lately that it is not worth waiting for."""
        return self._clock() < self._rests_until

    async def complete(self, prompt: Prompt, timeout_s: float, *, cache: bool) -> Completion:
        """A whole answer, after at most `retries` more tries."""
        if cache and (kept := await self._kept(prompt)) is not None:
            return kept
        prompt = await self._fitted(prompt)
        for attempt in range(self._settings.retries + 1):
            try:
                return await self._complete(prompt, timeout_s, cache)
            except Fault as fault:
                await self._pause(fault, attempt)
        raise AssertionError("unreachable")

    async def _complete(self, prompt: Prompt, timeout_s: float, cache: bool) -> Completion:
        async with self._turn(prompt, timeout_s) as turn, _in_time(timeout_s):
            reply = _worth(await self.provider.complete(prompt))
            turn.usage = self._usage(prompt, reply)
        return await self._done(prompt, reply, turn.usage, cache)

    async def stream(self, prompt: Prompt, timeout_s: float, *, cache: bool) -> AsyncGenerator[Piece | Completion, None]:
        """The pieces of an answer, then the whole. It is tried again only while no piece was given."""
        if cache and (kept := await self._kept(prompt)) is not None:
            yield Piece(kept.text)
            yield kept
            return
        prompt = await self._fitted(prompt)
        for attempt in range(self._settings.retries + 1):
            begun = False
            try:
                async with contextlib.aclosing(self._stream(prompt, timeout_s, cache)) as parts:
                    async for part in parts:
                        begun = True
                        yield part
                return
            except Fault as fault:
                if begun:
                    raise self._failed(fault, "the answer was cut: ") from fault
                await self._pause(fault, attempt)

    async def _stream(self, prompt: Prompt, timeout_s: float, cache: bool) -> AsyncGenerator[Piece | Completion, None]:
        async with self._turn(prompt, timeout_s) as turn, contextlib.AsyncExitStack() as opened:
            parts = self.provider.stream(prompt)
            if (close := getattr(parts, "aclose", None)) is not None:
                opened.push_async_callback(close)
            while True:
                try:
                    async with asyncio.timeout(timeout_s):
                        part = await anext(parts, None)
                except TimeoutError as error:
                    raise _late(timeout_s) from error
                if part is None:
                    raise Fault("the stream ended before its end", passes=True)
                if isinstance(part, Reply):
                    reply = _worth(part)
                    break
                yield Piece(part)
            turn.usage = self._usage(prompt, reply)
        yield await self._done(prompt, reply, turn.usage, cache)

    # ------------------------------------------------------------------ before and after a call

    async def ready(self) -> None:
        """Load what the first call needs, which takes seconds. Raises Fault, ConfigError."""
        await self.provider.ready()
        if not self._readied:
            self._price = await asyncio.to_thread(price_of, self.provider)
            if self._price is None and self._ledger.priced:
                raise ConfigError(
                    f"no price is known of {self.name}, and a budget needs one: set llm.price_input and llm.price_output "
                    "(US dollars for a million tokens; 0 where it costs nothing)"
                )
            self._readied = True

    async def likely_cost(self, prompt: Prompt) -> float | None:
        """US dollars that a call may take; None where no price is known."""
        await self._loaded()
        return self._costing(prompt.likely_input_tokens, prompt.max_tokens).cost

    async def _loaded(self) -> None:
        try:
            await self.ready()
        except Fault as fault:
            raise self._failed(fault) from fault

    async def _fitted(self, prompt: Prompt) -> Prompt:
        """The prompt with as many tokens left for the answer as the budget of one call leaves. LimitError where too few."""
        await self._loaded()
        most = prompt.max_tokens
        if budget := self._settings.budget_tokens_per_call:
            most = min(most, budget - prompt.likely_input_tokens)
        if (budget_cost := self._settings.budget_cost_per_call) and self._price is not None:
            per_token = self._price(0, 1_000_000) / 1e6
            room = budget_cost - self._price(prompt.likely_input_tokens, 0)
            most = min(most, int(room / per_token) if per_token else (most if room >= 0 else 0))
        likely = prompt.likely_input_tokens
        if most < min(SHORTEST, prompt.max_tokens):
            raise LimitError(
                f"{self.name}: a prompt of about {likely:,} tokens leaves the budget of one call nothing for "
                "an answer; shorten it, or raise llm.budget_tokens_per_call and llm.budget_cost_per_call"
            )
        return prompt if most == prompt.max_tokens else replace(prompt, max_tokens=most)

    @contextlib.asynccontextmanager
    async def _turn(self, prompt: Prompt, timeout_s: float) -> AsyncIterator[_Turn]:
        """A place among the calls under way, within the rate and the budget. It is settled at what the call took: nothing
        where it was refused, and where nobody can know, the most it can have been."""
        most = self._costing(prompt.most_input_tokens, prompt.max_tokens)
        async with self._gate:
            await self._pace.turn()
            hold = await self._ledger.hold(self.name, most.tokens, most.cost, timeout_s)
            turn = _Turn(most)
            try:
                yield turn
            except Fault as fault:
                turn.usage = most if fault.status is None else Usage()
                raise
            finally:
                self._ledger.settle(hold, turn.usage, calls=int(turn.usage.tokens > 0))

    def _usage(self, prompt: Prompt, reply: Reply) -> Usage:
        """What an answer took; where the server did not say, at the most: one token a byte."""
        input = prompt.most_input_tokens if reply.input_tokens is None else reply.input_tokens
        output = len(reply.text.encode("utf-8", "replace")) if reply.output_tokens is None else reply.output_tokens
        return self._costing(input, output)

    def _costing(self, input: int, output: int) -> Usage:
        return Usage(input, output, None if self._price is None else self._price(input, output))

    async def _done(self, prompt: Prompt, reply: Reply, usage: Usage, cache: bool) -> Completion:
        self.trouble, self._rest_s, self._rests_until = None, REST_S, float("-inf")
        if cache and self._cache is not None and reply.finish != "filtered":
            kept = orjson.dumps([reply.text, reply.finish, usage.input_tokens, usage.output_tokens, usage.cost])
            await asyncio.to_thread(self._cache.keep_reply, self._key, prompt.canonical(), kept)
        return Completion(reply.text, self.name, usage, reply.finish)

    async def _kept(self, prompt: Prompt) -> Completion | None:
        if self._cache is None:
            return None
        data = await asyncio.to_thread(self._cache.reply, self._key, prompt.canonical())
        try:
            text, finish, input, output, cost = orjson.loads(data or b"null")
        except (orjson.JSONDecodeError, TypeError, ValueError):  # nothing there, or damaged
            return None
        return Completion(text, self.name, Usage(input, output, cost), finish, cached=True)

    @property
    def _key(self) -> str:
        return f"{self.name}@{self.provider.version}"

    # ------------------------------------------------------------------ faults

    async def _pause(self, fault: Fault, attempt: int) -> None:
        """Wait before the next try; ModelError where there is to be none."""
        asked = fault.retry_after_s or 0.0
        if not fault.passes or attempt == self._settings.retries or asked > RETRY_AFTER_MAX_S:
            raise self._failed(fault, tries=attempt + 1) from fault
        wait = min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
        await self._sleep(max(wait, asked))

    def _failed(self, fault: Fault, before: str = "", *, tries: int = 1) -> ModelError:
        """The error of a call that is given up; it is noted, so that a fallback can serve for a while."""
        if not fault.too_large and fault.status not in (400, 413, 422):  # those are about the request
            self.trouble = str(fault)
            if not self.resting:
                self._rests_until = self._clock() + max(self._rest_s, fault.retry_after_s or 0.0)
                self._rest_s = min(self._rest_s * 2, REST_MAX_S)
        told = f" (tried {tries} times)" if tries > 1 else ""
        remedy = self.provider.remedy(fault)
        mend = f". {MEND}{remedy}" if remedy else ""
        return ModelError(f"{self.name}: {before}{fault}{told}{mend}", retry_after_s=fault.retry_after_s)

    async def aclose(self) -> None:
        await self.provider.aclose()


def _worth(reply: Reply) -> Reply:
    """The reply, where there is something in it; Fault."""
    if not reply.text.strip() and reply.finish == "stop":
        raise Fault("an empty answer", passes=True)
    return reply


@contextlib.asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise _late(timeout_s) from error


def _late(timeout_s: float) -> Fault:
    return Fault(f"no answer within {timeout_s:g} s", passes=True)
