"""Budgets of chat models: they hold under concurrency, faults and restarts, in tokens and in dollars, a day and a call."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from fake_chat import HELLO, FakeChat, Waits, chat_of, settings_of, with_server
from headwater.config import LlmSettings
from headwater.errors import ConfigError, LimitError, ModelError
from headwater.llm.caller import Caller
from headwater.llm.chat import Chat, Completion, Message
from headwater.llm.ledger import Ledger
from headwater.llm.lookup import load as load_model
from headwater.llm.provider import Prompt
from headwater.log.store import Log
from headwater.records.models import Usage


def user(text: str) -> list[Message]:
    return [Message("user", text)]


@pytest.mark.parametrize("form", ["openai", "anthropic"])
def test_a_days_budget_holds_under_concurrency_and_faults(tmp_path: Path, form: Any) -> None:
    rng = random.Random(3)
    faults = ("429", "500", "bad-json", "cut")

    async def work(server: FakeChat) -> tuple[int, int]:
        with Log(tmp_path, clock_ms=lambda: 0) as log:
            settings = settings_of(server, budget_tokens_per_day=900, max_tokens=20, retries=5)
            ledger = Ledger(settings, log, clock=lambda: 0.0)
            caller = Caller(load_model(f"{form}:tiny", settings, env={}), settings, ledger=ledger, sleep=Waits(), rng=rng)
            server.at_exit.append(caller.aclose)
            chat = Chat([caller], settings)
            done = await asyncio.gather(*(chat.complete(user(f"n {n}")) for n in range(120)), return_exceptions=True)
            refused = [d for d in done if isinstance(d, LimitError)]
            assert refused
            assert all(isinstance(d, Completion | LimitError | ModelError) for d in done)
            assert refused[0].retry_after_s is not None
            assert "llm.budget_tokens_per_day" in str(refused[0])
            taken = ledger.today()[f"{form}:tiny"]
            return server.spent, taken.input + taken.output

    spent, counted = with_server(work, lambda: rng.choice(faults) if rng.random() < 0.3 else "ok", format=form, retry_after="0")
    assert spent <= counted <= 900


def test_what_was_taken_is_known_after_a_restart_and_what_was_held_by_a_dead_process_counts(tmp_path: Path) -> None:
    settings = LlmSettings(budget_tokens_per_day=1000)

    async def first() -> None:
        with Log(tmp_path, clock_ms=lambda: 0) as log:
            ledger = Ledger(settings, log, clock=lambda: 0.0)
            ledger.settle(await ledger.hold("m", 300, None), Usage(100, 50, None))
            await ledger.hold("m", 400, None)  # never settled

    async def second() -> None:
        with Log(tmp_path, clock_ms=lambda: 0) as log:
            ledger = Ledger(settings, log, clock=lambda: 0.0)
            taken = ledger.today()["m"]
            assert taken.input + taken.output == 550
            assert taken.usage.cost is None
            with pytest.raises(LimitError):
                await ledger.hold("m", 451, None)
            await ledger.hold("m", 450, None)

    asyncio.run(first())
    asyncio.run(second())


def test_a_budget_begins_anew_at_midnight_utc() -> None:
    now = [86_399.0]
    ledger = Ledger(LlmSettings(budget_tokens_per_day=100), clock=lambda: now[0])

    async def work() -> None:
        hold = await ledger.hold("m", 100, None)
        ledger.settle(hold, Usage(90, 10, 0.0))
        with pytest.raises(LimitError) as caught:
            await ledger.hold("m", 1, None)
        assert caught.value.retry_after_s == 1.0
        now[0] += 1
        await ledger.hold("m", 100, None)

    asyncio.run(work())


def test_a_call_waits_for_what_others_may_leave_and_not_for_ever() -> None:
    ledger = Ledger(LlmSettings(budget_tokens_per_day=100), clock=lambda: 0.0)

    async def work() -> None:
        hold = await ledger.hold("m", 80, None)
        waiting = asyncio.create_task(ledger.hold("m", 60, None))
        await asyncio.sleep(0)
        assert not waiting.done()
        ledger.settle(hold, Usage(10, 5, 0.0))
        await waiting
        with pytest.raises(LimitError, match="under way"):
            await ledger.hold("m", 60, None, 0.01)

    asyncio.run(work())


def test_a_cost_budget_counts_dollars_and_needs_a_price() -> None:
    async def work(server: FakeChat) -> float:
        unknown = chat_of(server, budget_cost_per_day=1.0)
        with pytest.raises(ConfigError, match=r"llm\.price_input"):
            await unknown.complete(HELLO)
        chat = chat_of(server, budget_cost_per_day=0.01, price_input=10.0, price_output=100.0, max_tokens=20)
        calls = (chat.complete(user(f"n {n}")) for n in range(100))
        done = await asyncio.gather(*calls, return_exceptions=True)
        refused = [str(d) for d in done if isinstance(d, LimitError)]
        assert "$0.0100" in refused[0]
        assert "llm.budget_cost_per_day" in refused[0]
        return sum(d.usage.cost or 0.0 for d in done if isinstance(d, Completion))

    assert 0.005 < with_server(work) <= 0.01


def test_a_call_is_made_to_fit_its_own_budget_or_refused() -> None:
    async def work(server: FakeChat) -> list[int]:
        chat = chat_of(server, budget_tokens_per_call=200, max_tokens=1000)
        await chat.complete(user("x" * 100))
        with pytest.raises(LimitError, match="budget of one call"):
            await chat.complete(user("x" * 1000))
        return [r.body["max_tokens"] for r in server.requests]

    assert with_server(work) == [200 - (100 + 16 + 1) // 2]


def test_known_prices_come_with_the_library() -> None:
    async def work() -> Usage:
        settings = LlmSettings(provider="openai", model="gpt-4o-mini")
        caller = Caller(load_model("openai:gpt-4o-mini", settings, env={"OPENAI_API_KEY": "k"}), settings)
        await caller.ready()
        prompt = Prompt(tuple(HELLO))
        return caller._costing(1_000_000, 0) if prompt.most_input_tokens else Usage()

    cost = asyncio.run(work()).cost
    assert cost is not None
    assert cost > 0
