"""Ingest: lines and prose per second until searchable by meaning, the time of an acknowledgement, and freshness.

Floors are measured in the same run: embedding every line and adding it to plain Chroma, the embedder alone, raw fsync.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import headwater
from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.client import Client
from headwater.config import load
from headwater.demo.synthetic import mixed_lines
from headwater.records import Mode

TOPIC = "bench"
APPEND = 2000  # records in one append of the bulk measurements
CLIENTS = 8
_WORDS = """
account access agent alarm answer branch bridge budget camera canal carbon ceiling charter climate column concert contract
copper corner council cousin credit culture debate degree desert dinner district doctor donor drama driver editor engine
estate evening expert export fabric factor farmer father festival figure finance forest fortune garden gallery harbour
health history holiday hospital hunger import income island jacket journal journey kitchen ladder lawyer leader lesson
letter library lunch machine manager market meadow member memory mirror mission moment museum nation nature office orange
origin palace parent partner pattern people picture planet player pocket police policy prison profit quarter railway
reason record region report result river saddle salmon school season secret sister soldier speech spring station story
street studio summer supper supply surface system teacher temple theatre ticket timber tourist town trade traffic train
treaty valley victim village vision visitor volume wallet water weather weekend window winter worker writer"""


def ingest(lines: Sequence[str], passages: str, threads: int) -> tuple[float, int]:
    """Seconds until all lines, appended to a fresh durable directory, are searchable by words and by meaning, and how many
    passages they came to. Every last one must be."""
    with tempfile.TemporaryDirectory() as directory, _open(directory, threads) as hw:
        hw.create_topic(TOPIC, passages=passages)
        hw.embed(["the model is loaded before the clock starts"])
        started = time.perf_counter()
        for at in range(0, len(lines), APPEND):
            hw.append(TOPIC, lines[at : at + APPEND])
        appended = time.perf_counter() - started
        while min((mark := hw.topic(TOPIC).watermark).keyword, mark.semantic) < len(lines):
            time.sleep(0.02)
            if time.perf_counter() - started > 3600:
                raise SystemExit(f"only {mark} of {len(lines)} after an hour")
        took = time.perf_counter() - started
        topic = hw.topic(TOPIC)
        assert topic.records == len(lines), topic
        assert hw.search(lines[-1], mode="semantic", top_k=1)[0].distance is not None
        assert hw.search("", top_k=1).coverage.searched == len(lines)
        say(f"  {len(lines)} records, {topic.passages} passages: appended in {appended:.1f} s, searchable in {took:.1f} s")
        return took, topic.passages


def _open(directory: str, threads: int) -> headwater.Headwater:
    return headwater.open(directory, embedding={"cache_enabled": False, "threads": threads})


def log_lines(args: Namespace, metrics: dict[str, Any]) -> None:
    """Bulk log ingest at three shares of repetition."""
    for per_passage in (160, 20, 1000):
        n = 2000 if args.small else args.lines
        lines = list(mixed_lines(n, seed=args.seed, per_passage=per_passage))
        say(f"{n} mixed lines, {per_passage} records per passage")
        runs = [ingest(lines, "auto", args.threads) for _ in range(args.repeat)]
        took, passages = statistics.median(t for t, _ in runs), runs[0][1]
        suffix = "" if per_passage == 160 else f"_{per_passage}"
        metrics[f"ingest_log_lines_per_s{suffix}"] = round(n / took)
        metrics[f"ingest_log_corpus{suffix}"] = {
            "lines": n,
            "distinct_lines": round(len(set(lines)) / n, 4),
            "kinds": max(1, round(n / per_passage)),
            "passages_found": passages,
            "bytes": sum(map(len, lines)),
            "runs_s": [round(t, 2) for t, _ in runs],
        }


def embed_each(args: Namespace, metrics: dict[str, Any]) -> None:
    """The floor: every line of a sample embedded with the same model, on all cores, and added to plain Chroma."""
    import chromadb

    sample = list(mixed_lines(40 if args.small else 2000, seed=args.seed, per_passage=160))
    with tempfile.TemporaryDirectory() as directory, _open(f"{directory}/hw", os.cpu_count() or 1) as hw:
        hw.embed(["the model is loaded before the clock starts"])
        settings = chromadb.Settings(anonymized_telemetry=False)
        collection = chromadb.PersistentClient(f"{directory}/chroma", settings).create_collection("lines")
        started = time.perf_counter()
        for at in range(0, len(sample), 500):
            piece = sample[at : at + 500]
            ids = [str(at + i) for i in range(len(piece))]
            collection.add(ids=ids, embeddings=[list(v) for v in hw.embed(piece).vectors], documents=piece)
        rate = len(sample) / (time.perf_counter() - started)
    metrics["embed_each_lines_per_s"] = round(rate, 1)
    metrics["ingest_speedup_vs_embed_each"] = round(metrics["ingest_log_lines_per_s"] / rate, 1)


def prose(args: Namespace, metrics: dict[str, Any]) -> None:
    """Records that never repeat: what ingest leaves of the embedder's own rate, at the same number of threads."""
    rng, words = random.Random(args.seed), _WORDS.split()
    texts = [" ".join(rng.choices(words, k=rng.randrange(15, 36))) for _ in range(40 if args.small else 2500)]

    def alone() -> float:
        with tempfile.TemporaryDirectory() as directory, _open(directory, args.threads) as hw:
            hw.embed(["the model is loaded before the clock starts"])
            started = time.perf_counter()
            for at in range(0, len(texts), 500):
                hw.embed(texts[at : at + 500])
            return len(texts) / (time.perf_counter() - started)

    before = alone()
    rate = len(texts) / ingest(texts, "exact", args.threads)[0]
    own = (before + alone()) / 2  # before and after, for the machine's own drift
    metrics["ingest_prose_records_per_s"], metrics["embedder_texts_per_s"] = round(rate, 1), round(own, 1)
    metrics["ingest_prose_efficiency"] = round(rate / own, 3)


def fsync_ms(directory: Path, n: int) -> list[float]:
    """What appending 4 KiB to a file and syncing it takes."""
    took = []
    with (directory / "fsync").open("ab", buffering=0) as file:
        for _ in range(n):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            took.append((time.perf_counter() - started) * 1000)
    return took


@asynccontextmanager
async def daemon(directory: str) -> AsyncIterator[tuple[Callable[[], Client], launch.Runtime]]:
    """A daemon in a process of its own: how to make a client of it, and where it is."""
    settings = load(None, {"data_dir": directory, "server.port": 0, "server.requests_per_s": 0}).settings
    runtime = await asyncio.to_thread(launch.find_or_start, settings)
    try:
        yield lambda: Client(runtime.url, runtime.token), runtime
    finally:
        os.kill(runtime.pid, signal.SIGTERM)
        for _ in range(200):
            if await asyncio.to_thread(launch.find, settings) is None:
                break
            await asyncio.sleep(0.05)


def _line(client: int, i: int) -> str:
    return f"2026-01-01T00:00:00Z INFO client {client} wrote line {i} in {i * 7 % 13} ms"


async def acknowledge_sdk(connect: Callable[[], Client], each: int) -> list[float]:
    """ms from request to durable acknowledgement, CLIENTS of the SDK at once in this process, one record an append."""

    async def one(number: int) -> list[float]:
        async with connect() as hw:
            await hw.append("acks", [f"client {number} is here"])
            took = []
            for i in range(each):
                started = time.perf_counter()
                await hw.append("acks", [_line(number, i)])
                took.append((time.perf_counter() - started) * 1000)
            return took

    return [ms for part in await asyncio.gather(*(one(i) for i in range(CLIENTS))) for ms in part]


async def acknowledge(runtime: launch.Runtime, each: int) -> list[float]:
    """The same with a connection each and as little as possible around it: a client that takes longer than the server, as
    those of HTTP libraries in one Python process do, would measure itself."""
    url = urlsplit(runtime.url)
    head = f"POST /v1/topics/acks/records HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    if runtime.token:
        head += f"Authorization: Bearer {runtime.token}\r\n"

    async def one(number: int) -> list[float]:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        took = []
        for i in range(each):
            body = json.dumps({"records": [{"value": _line(number, i)}]}).encode()
            started = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: ([0-9]+)", answer, re.IGNORECASE)
            if not answer.startswith(b"HTTP/1.1 201") or found is None:
                raise SystemExit(f"an append was not acknowledged: {answer!r}")
            await reader.readexactly(int(found[1]))
            took.append((time.perf_counter() - started) * 1000)
        writer.close()
        return took

    return [ms for part in await asyncio.gather(*(one(i) for i in range(CLIENTS))) for ms in part]


async def freshness(connect: Callable[[], Client], mode: Mode, n: int, rng: random.Random) -> list[float]:
    """ms from an acknowledgement until a search in `mode` finds the record, while another client appends 20 a second."""
    async with connect() as hw, connect() as other:
        words = _WORDS.split()

        async def light_load() -> None:
            while True:
                await other.append("load", [" ".join(rng.choices(words, k=12))])
                await asyncio.sleep(0.05)

        load_task, took = asyncio.create_task(light_load()), []
        for i in range(n):
            text = f"{''.join(rng.choices('bcdfghjklmnpqrstvwz', k=9))}{i} {' '.join(rng.choices(words, k=9))}"
            receipt = (await hw.append("fresh", [text])).records[0]
            acknowledged = time.perf_counter()
            while True:
                reply = await hw.search(text, topics=["fresh"], mode=mode, top_k=3)
                if receipt.address in [hit.address for hit in reply]:
                    break
                if time.perf_counter() - acknowledged > 240:
                    raise SystemExit(f"{receipt.address} not found by {mode} within 240 s")
                await asyncio.sleep(0.005)
            took.append((time.perf_counter() - acknowledged) * 1000)
            await asyncio.sleep(rng.random() * 0.2)
        load_task.cancel()
        return took


async def over_http(args: Namespace, metrics: dict[str, Any]) -> None:
    """What a client sees: acknowledgements and freshness."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        async with daemon(f"{directory}/data") as (connect, runtime):
            async with connect() as hw:
                await hw.create_topic("fresh", passages="exact")
                await hw.create_topic("load", passages="exact")
                await hw.append("fresh", ["the model is loaded before the clock starts"], wait="searchable", timeout_s=240)
            syncs = 20 if args.small else 400
            fsyncs = await asyncio.to_thread(fsync_ms, Path(directory), syncs)
            sdk = await acknowledge_sdk(connect, 10 if args.small else 200)
            acks = await acknowledge(runtime, 10 if args.small else 400)
            fsyncs += await asyncio.to_thread(fsync_ms, Path(directory), syncs)
            metrics["append_ack_ms"], metrics["fsync_ms"] = percentiles(acks), percentiles(fsyncs, 3)
            metrics["append_ack_p99_ms"], metrics["append_ack_sdk_ms"] = percentiles(acks)["p99"], percentiles(sdk)
            metrics["append_ack_over_fsync"] = round(metrics["append_ack_p99_ms"] / percentiles(fsyncs, 6)["p99"], 2)
            say(f"acknowledgements {metrics['append_ack_ms']}, to the SDK {metrics['append_ack_sdk_ms']}")
            say(f"fsync {metrics['fsync_ms']}")
            rng, modes = random.Random(args.seed), dict[str, Mode](keyword="keyword", semantic="semantic")
            for name, mode in modes.items():
                took = await freshness(connect, mode, 3 if args.small else 150, rng)
                metrics[f"freshness_{name}_ms"] = percentiles(took)
                metrics[f"freshness_{name}_p99_ms"] = percentiles(took)["p99"]
                say(f"freshness {name} {metrics[f'freshness_{name}_ms']}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--lines", type=int, default=200_000, help="log lines")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each bulk measurement; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="embedding threads of ingest")
    parser.add_argument("--only", default="lines,floor,prose,http", help="which parts")
    args = parser.parse_args(argv)
    before, metrics, parts = machine(), dict[str, Any](), args.only.split(",")
    if "lines" in parts:
        log_lines(args, metrics)
        if "floor" in parts:
            embed_each(args, metrics)
    if "prose" in parts:
        prose(args, metrics)
    if "http" in parts:
        asyncio.run(over_http(args, metrics))
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
