"""Grouping accuracy of log templates: raw lines through the real ingest path, one default configuration for all systems.

A line's group is the passage its record ended up in, aliases resolved: what patterns, counts and novelty are based on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

import headwater
from common import machine, options, report, say, scorer
from headwater.engine import Engine
from headwater.log.schema import SEQ_BITS

APPEND = 500


async def passages_of(engine: Engine, topic: str, lines: Sequence[str]) -> tuple[list[int], str]:
    """Append the lines to a topic with default settings: the passage of each, and what kind of passages `auto` chose."""
    seqs: list[int] = []
    for at in range(0, len(lines), APPEND):
        appended = await engine.append(topic, list(lines[at : at + APPEND]), wait="searchable", timeout_s=240)
        seqs.extend(r.seq for r in appended.records)
    index = engine.stock.find(topic)  # no verb lists the passage of every record
    places = index.catalogue.places([index.row.id << SEQ_BITS | seq for seq in seqs])
    found = (places.get(index.row.id << SEQ_BITS | seq, ()) for seq in seqs)
    return [index.resolve(p[0].passage) if p else -1 for p in found], index.kind


async def measure(args: Any, metrics: dict[str, Any]) -> None:
    score = scorer(args.data)
    systems = args.systems.split(",") if args.systems else list(score.LOG_SYSTEMS)
    if args.small:
        systems = systems[:2]
    accuracies = []
    async with headwater.aopen(headwater.MEMORY, embedding={"model": "none"}) as engine:
        for system in systems:
            loaded = score.load_logs(system, args.data)
            n = 200 if args.small else len(loaded.lines)
            started = time.perf_counter()
            passages, kind = await passages_of(engine, f"{args.prefix}{system}", loaded.lines[:n])
            accuracy = score.grouping_accuracy(loaded.template_ids[:n], passages)
            accuracies.append(accuracy)
            metrics[f"template_ga_{system.lower()}"] = round(accuracy, 4)
            groups = f"{len(set(passages))} groups of {len(set(loaded.template_ids[:n]))}"
            say(f"{system}: {accuracy:.4f}, {groups}, {kind}, {time.perf_counter() - started:.1f} s")
    metrics["template_ga_mean"] = round(sum(accuracies) / len(accuracies), 4)


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__, data=True)
    parser.add_argument("--systems", default="", help="which log systems; all that score.py lists by default")
    parser.add_argument("--prefix", default="logs-", help="of the topics' names")
    args = parser.parse_args(argv)
    before, metrics = machine(), dict[str, Any]()
    asyncio.run(measure(args, metrics))
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
