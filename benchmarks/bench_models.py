"""Chat models against a local server that speaks their wire formats and fails on purpose: nothing lost, nothing cut taken for
whole, no budget exceeded; what concurrency gains; what a streamed piece costs over a bare relay.

The server is the one of the tests (tests/fake_chat.py); no model is asked. `--small` is a tenth.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx2
import orjson

from common import machine, options, percentiles, report, say
from fake_chat import ANSWER, HELLO, FakeChat, Format, settings_of
from headwater.config import LlmSettings
from headwater.errors import LimitError, ModelError
from headwater.llm.caller import Caller
from headwater.llm.chat import Chat, Completion, Message, Piece
from headwater.llm.ledger import Ledger
from headwater.llm.lookup import load
from headwater.llm.models import Models
from headwater.log.store import Log

SERVE = "--serve-streams"
FAULTS = ("429", "500", "timeout", "bad-json", "cut", "silent-cut", "in-stream")
FORMS: Sequence[Format] = ("openai", "anthropic", "ollama", "llamafile")
SHARE = 0.3  # of calls that meet a fault
TOKENS_PER_S = 20.0
TIMEOUT_S = 5.0  # server and client share this machine, and what else goes on there


def chat_over(server: FakeChat, ledger: Ledger | None = None, **options: Any) -> Chat:
    settings = settings_of(server, **options)
    caller = Caller(load(f"{server.format}:tiny", settings, env={}), settings, ledger=ledger, rng=random.Random(1), sleep=_soon)
    server.at_exit.append(caller.aclose)
    return Chat([caller], settings)


async def _soon(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


async def faults(form: Format, calls: int, seed: int) -> dict[str, int]:
    """`calls` calls, half of them streamed, of which a share meets a fault: how each ended. A streamed answer that was cut is
    asked for again by the caller, as a person would."""
    rng = random.Random(seed)
    plan = lambda: rng.choice(FAULTS) if rng.random() < SHARE else "ok"  # noqa: E731
    ended = {"whole": 0, "told of a cut": 0, "lost": 0, "cut and marked complete": 0}
    async with FakeChat(plan, format=form, retry_after="0") as server:
        chat = chat_over(server, timeout_s=TIMEOUT_S, retries=8, concurrency=64)

        async def one(n: int) -> None:
            messages = [*HELLO[:1], Message("user", f"call {n}")]
            for _ in range(12):
                try:
                    got = await chat.complete(messages) if n % 2 else await _last(chat, messages)
                except ModelError as error:
                    ended["told of a cut"] += "cut" in str(error)
                    continue
                right = got.text == ANSWER and got.finish == "stop"
                ended["whole" if right else "cut and marked complete"] += 1
                return
            ended["lost"] += 1

        await asyncio.gather(*(one(n) for n in range(calls)))
    return ended


async def _last(chat: Chat, messages: Sequence[Message]) -> Completion:
    last: Piece | Completion | None = None
    async for part in chat.stream(messages):
        last = part
    assert isinstance(last, Completion)
    return last


async def budget(form: Format, calls: int, tokens: int) -> tuple[int, int, int]:
    """64 at once under a day's budget, with faults: what the server made (a provider's bill), answers, refusals."""
    rng = random.Random(7)
    plan = lambda: rng.choice(FAULTS) if rng.random() < SHARE else "ok"  # noqa: E731
    answered = refused = 0
    with tempfile.TemporaryDirectory() as directory, Log(Path(directory), clock_ms=lambda: 0) as log:
        async with FakeChat(plan, format=form, retry_after="0") as server:
            settings = settings_of(server, budget_tokens_per_day=tokens)
            chat = chat_over(
                server,
                Ledger(settings, log),
                timeout_s=0.5,
                retries=8,
                max_tokens=40,
                concurrency=64,
                budget_tokens_per_day=tokens,
            )

            async def one(n: int) -> None:
                nonlocal answered, refused
                try:
                    await chat.complete([Message("user", f"call {n}")])
                    answered += 1
                except LimitError:
                    refused += 1
                except ModelError:
                    pass

            await asyncio.gather(*(one(n) for n in range(calls)))
            return server.spent, answered, refused


async def concurrency(calls: int) -> tuple[float, float]:
    """Seconds for `calls` calls of a model that takes 200 ms, one at a time and all at once."""
    async with FakeChat(format="openai", delay_s=0.2) as server:
        chat = chat_over(server)
        await chat.complete(HELLO)
        began = time.perf_counter()
        for n in range(calls // 8):
            await chat.complete([Message("user", f"one {n}")])
        alone = (time.perf_counter() - began) * 8
        began = time.perf_counter()
        await asyncio.gather(*(chat.complete([Message("user", f"all {n}")]) for n in range(calls)))
        return alone, time.perf_counter() - began


def streams(number: int, seconds: float) -> dict[str, tuple[float, list[float]]]:
    """Pieces a second and the lateness (ms) of each, of `number` streams at once from a server in a process of its own: through
    Chat, and read from the bare wire."""
    command = [sys.executable, __file__, SERVE, str(int(TOKENS_PER_S * seconds))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = asyncio.run(read_streams(number, server.stdout.readline().strip()))
        server.communicate()
    return found


async def read_streams(number: int, url: str) -> dict[str, tuple[float, list[float]]]:
    """What `streams` gives, from the server at `url`."""
    found: dict[str, tuple[float, list[float]]] = {}
    settings = LlmSettings(provider="custom", model="tiny", base_url=url, max_tokens=100_000, cache_enabled=False)
    models = Models(settings, env={})
    chat = models.get()
    assert chat is not None
    await chat.complete([Message("user", "warm")], max_tokens=1)
    for kind in ("bare", "chat"):
        late: list[float] = []

        async def one(n: int, kind: str = kind, late: list[float] = late) -> int:
            pieces, before = 0, 0.0
            async for part in _bare(url, n) if kind == "bare" else chat.stream([Message("user", f"s{n}")]):
                now = time.perf_counter()
                if not isinstance(part, Completion):
                    late.extend([(now - before) * 1000 - 1000 / TOKENS_PER_S] if before else [])
                    before, pieces = now, pieces + 1
            return pieces

        began = time.perf_counter()
        total = sum(await asyncio.gather(*(one(n) for n in range(number))))
        found[kind] = (total / (time.perf_counter() - began), late)
    await models.aclose()
    return found


async def serve(words: int) -> None:
    """The server of `streams`, until standard input ends."""
    async with FakeChat(format="custom", token_s=1 / TOKENS_PER_S, answer=lambda _: "word " * words) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _bare(url: str, n: int) -> Any:
    body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": f"s{n}"}], "max_tokens": 100_000}
    async with (
        httpx2.AsyncClient(timeout=None, trust_env=False) as http,
        http.stream("POST", f"{url}/chat/completions", json=body) as reply,
    ):
        async for line in reply.aiter_lines():
            if (
                line.startswith("data: {")
                and (choices := orjson.loads(line[6:])["choices"])
                and choices[0]["delta"].get("content")
            ):
                yield line


def main() -> None:
    given, before = options(__doc__).parse_args(), machine()
    calls = 20 if given.small else 500
    figures: dict[str, Any] = {}
    for form in FORMS:
        ended = asyncio.run(faults(form, calls, seed=5))
        say(f"faults, {form}: {calls} calls, {SHARE:.0%} meet a fault: {ended}")
        figures[f"faults_{form}"] = ended
    for form in FORMS[:2]:
        limit = 600 if given.small else 4_000
        spent, answered, refused = asyncio.run(budget(form, calls, limit))
        say(f"budget, {form}: {limit:,} tokens a day; the server made {spent:,}; {answered} answered, {refused} refused")
        figures[f"budget_{form}"] = {"limit": limit, "spent": spent, "answered": answered, "refused": refused}
    alone, together = asyncio.run(concurrency(16 if given.small else 64))
    say(f"concurrency: one at a time {alone:.1f} s, all at once {together:.2f} s: {alone / together:.1f} times")
    figures["concurrency_gain"] = round(alone / together, 1)
    found = streams(10 if given.small else 100, 1.0 if given.small else 5.0)
    for kind, (rate, late) in found.items():
        say(f"streams, {kind}: {rate:,.0f} pieces/s; lateness of a piece {percentiles(late)}")
        figures[f"streams_{kind}_per_s"] = round(rate, 1)
        figures[f"streams_{kind}_late_ms"] = percentiles(late)
    figures["streams_share"] = round(found["chat"][0] / found["bare"][0], 3)
    report(given, before, figures)


if __name__ == "__main__":
    if SERVE in sys.argv:
        asyncio.run(serve(int(sys.argv[-1])))
    else:
        main()
