"""What chat models take, kept by day, and the budgets that hold under concurrency.

A call is held against the budgets at the most it can take before it begins, and settled at what it took. Where what is held
by others leaves too little, a call waits for them; where what was taken does, it is refused. What a process that died held
is counted as taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.config import LlmSettings
from headwater.errors import LimitError
from headwater.records.models import Usage

if TYPE_CHECKING:
    import apsw

    from headwater.log.store import Log

_DAY_S = 86_400
_ROUNDING = 1e-9  # of a dollar


@dataclass(slots=True)
class Taken:
    """What one model took in a day. `cost` is that of the calls whose price is known."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cost: float = 0.0
    unpriced: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(self.input, self.output, None if self.unpriced else self.cost)


@dataclass(eq=False, slots=True)
class Hold:
    """What a call under way may take at most."""

    model: str
    day: int
    tokens: int
    cost: float
    open: bool = field(default=True)


class Ledger:
    """Counts for all models of an engine; on its loop only. Without a log nothing outlives it."""

    def __init__(self, settings: LlmSettings, log: Log | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._log, self._clock = settings, log, clock
        self._day, self._taken = -1, dict[str, Taken]()
        self._holds: set[Hold] = set()
        self._settled = asyncio.Event()
        self.limited = bool(settings.budget_tokens_per_day or settings.budget_cost_per_day)

    @property
    def priced(self) -> bool:
        """Whether a budget needs to know what calls cost."""
        return bool(self._settings.budget_cost_per_day or self._settings.budget_cost_per_call)

    def today(self) -> dict[str, Taken]:
        """What each model took since midnight UTC."""
        self._turn()
        return dict(self._taken)

    async def hold(self, model: str, tokens: int, cost: float | None, wait_s: float = 60.0) -> Hold:
        """Set aside what a call may take. LimitError where a day's budget does not leave it; waits for calls under way, at most
        `wait_s`, where what they leave may do."""
        try:
            async with asyncio.timeout(wait_s):
                while not self._fits(tokens, cost or 0.0):
                    await self._settled.wait()
        except TimeoutError:
            told = "what calls under way may take leaves the day's budget for chat models nothing for this one; try again"
            raise LimitError(told, retry_after_s=5.0) from None
        hold = Hold(model, self._day, tokens, cost or 0.0)
        self._holds.add(hold)
        if self.limited:
            try:
                await self._write("held_tokens = held_tokens + ?, held_cost = held_cost + ?", hold, (hold.tokens, hold.cost))
            except BaseException:
                self._release(hold)
                raise
        return hold

    def _fits(self, tokens: int, cost: float) -> bool:
        """Whether so much can be held now. LimitError where it cannot whatever the calls under way leave."""
        self._turn()
        taken, held = self._taken.values(), [h for h in self._holds if h.day == self._day]
        spent_tokens, spent_cost = sum(t.input + t.output for t in taken), sum(t.cost for t in taken)
        fits = True
        for what, budget, spent, under_way, wanted in (
            ("tokens", self._settings.budget_tokens_per_day, spent_tokens, sum(h.tokens for h in held), tokens),
            ("cost", self._settings.budget_cost_per_day, spent_cost, sum(h.cost for h in held), cost),
        ):
            if budget and spent + wanted > budget + _ROUNDING:
                raise self._refusal(what, budget, spent, wanted)
            fits = fits and (not budget or spent + under_way + wanted <= budget + _ROUNDING)
        return fits

    def settle(self, hold: Hold, usage: Usage, *, calls: int = 1) -> None:
        """Count what a call took, in place of what it held. A second time does nothing."""
        if not hold.open:
            return
        self._release(hold)
        cost, unpriced = usage.cost or 0.0, int(usage.cost is None and calls > 0)
        if hold.day == self._day:
            taken = self._taken.setdefault(hold.model, Taken())
            taken.calls, taken.unpriced = taken.calls + calls, taken.unpriced + unpriced
            taken.input, taken.output = taken.input + usage.input_tokens, taken.output + usage.output_tokens
            taken.cost += cost
        tokens, held_cost = (hold.tokens, hold.cost) if self.limited else (0, 0.0)
        if self.limited or calls or usage.tokens:
            columns = "calls = calls + ?, input = input + ?, output = output + ?, cost = cost + ?, unpriced = unpriced + ?"
            columns += ", held_tokens = held_tokens - ?, held_cost = held_cost - ?"
            values = (calls, usage.input_tokens, usage.output_tokens, cost, unpriced, tokens, held_cost)
            self._write(columns, hold, values)

    def _release(self, hold: Hold) -> None:
        hold.open = False
        self._holds.discard(hold)
        self._settled.set()
        self._settled = asyncio.Event()

    def _turn(self) -> None:
        """Begin a new day where there is one."""
        day = int(self._clock() // _DAY_S)
        if day != self._day:
            self._day, self._taken = day, self._read(day)

    def _read(self, day: int) -> dict[str, Taken]:
        """What the log has of a day; what is held there beyond the calls of this process was another's, which has died."""
        if self._log is None:
            return {}
        mine = {id(h): h for h in self._holds}

        def read(db: apsw.Connection) -> dict[str, Taken]:
            if not mine:
                taken = (
                    "UPDATE model_use SET input = input + held_tokens, cost = cost + held_cost, held_tokens = 0, held_cost = 0"
                )
                db.execute(f"{taken} WHERE held_tokens > 0 OR held_cost > 0")
            chosen = "SELECT model, calls, input, output, cost, unpriced FROM model_use WHERE day = ?"
            return {model: Taken(*row) for model, *row in db.execute(chosen, (day,))}

        return self._log.write(read)

    def _write(self, columns: str, hold: Hold, values: tuple[Any, ...]) -> asyncio.Future[None]:
        def write(db: apsw.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO model_use(day, model) VALUES(?, ?)", (hold.day, hold.model))
            db.execute(f"UPDATE model_use SET {columns} WHERE day = ? AND model = ?", (*values, hold.day, hold.model))

        done: Future[None] = Future()
        if self._log is None:
            done.set_result(None)
        else:
            done = self._log.submit(write)
        return asyncio.wrap_future(done)

    def _refusal(self, what: str, budget: float, spent: float, wanted: float) -> LimitError:
        wait = _DAY_S - self._clock() % _DAY_S
        budget_, spent_, wanted_ = (f"{n:,.0f} tokens" if what == "tokens" else f"${n:,.4f}" for n in (budget, spent, wanted))
        return LimitError(
            f"the day's budget of {budget_} for chat models does not leave this call what it may take: {spent_} are taken, and "
            f"it may take {wanted_}; it begins anew at midnight UTC, or raise llm.budget_{what}_per_day",
            retry_after_s=round(wait, 1),
        )
