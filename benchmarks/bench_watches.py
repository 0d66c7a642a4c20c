"""How soon whoever waits for a watch is woken, with 1,000 other watches: from the call of append to the return of wait.

Half of the watches wait for words and a level, half for a meaning. The one that is waited for by words, and the one by meaning,
get a record at random moments; each must wake.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time

from common import machine, options, percentiles, report, say
from headwater.config import EmbeddingSettings, Settings
from headwater.engine import Engine
from headwater.records.watches import Watch

_NOUNS = [
    "payment",
    "card",
    "disk",
    "queue",
    "broker",
    "replica",
    "session",
    "cache",
    "tenant",
    "invoice",
    "order",
    "webhook",
    "index",
    "shard",
    "lease",
    "token",
]
_VERBS = ["failed", "expired", "refused", "stalled", "overflowed", "leaked", "diverged", "vanished", "doubled", "froze"]


async def measure(watches: int, rounds: int, seed: int, model: str) -> dict[str, float]:
    """Latencies in ms over all rounds; the worse of the two kinds counts."""
    rng, found = random.Random(seed), {}
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        async with Engine(Settings(data_dir=directory, embedding=EmbeddingSettings(model=model))) as engine:
            await engine.create_topic("prose", passages="exact")
            for n in range(watches):
                words = f"{rng.choice(_NOUNS)} {rng.choice(_VERBS)}"
                if n % 2:
                    await engine.add_watch(f"the {words} because of number {n}", min_score=0.6)
                else:
                    await engine.add_watch(f"{words} level:error w{n}", mode="keyword")
            worded = await engine.add_watch("marker payment failed", mode="keyword")
            meant = await engine.add_watch("customers are charged twice for one order", mode="semantic", min_score=0.5)
            await engine.append("prose", ["the watches learn what they mean"], wait="searchable")
            while True:
                if not any(watch.behind for watch in await engine.watches()):
                    break
                await asyncio.sleep(0.05)
            say(f"{watches + 2} watches are ready")
            for name, watch, text in (
                ("words", worded, "marker {n}: payment failed"),
                ("meaning", meant, "customers are charged twice for one order {n}"),
            ):
                found[name] = [await _woken(engine, watch, text.format(n=n), rng) for n in range(rounds)]
    both = {f"watch_{name}_latency_{p}_ms": v for name, values in found.items() for p, v in percentiles(values).items()}
    return {**both, "watch_latency_p99_ms": max(both["watch_words_latency_p99_ms"], both["watch_meaning_latency_p99_ms"])}


async def _woken(engine: Engine, watch: Watch, text: str, rng: random.Random) -> float:
    cursor = (await engine.watch(watch.id)).cursor
    waiting = asyncio.create_task(engine.wait(watch.id, cursor=cursor, timeout=30))
    await asyncio.sleep(rng.random() * 0.05)
    begun = time.perf_counter()
    await engine.append("prose", [text])
    reply = await waiting
    if not reply.hits:
        raise RuntimeError(f"{watch.name} did not wake for {text!r}")
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", default="bge-small")
    args = parser.parse_args()
    before = machine()
    watches, rounds = (20, 3) if args.small else (1000, 150)
    model = "hash" if args.small else args.model
    report(args, before, asyncio.run(measure(watches, rounds, args.seed, model)))


if __name__ == "__main__":
    main()
