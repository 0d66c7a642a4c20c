"""What agents pay: time over the HTTP verb, time to the first reply, tokens to an incident's cause, and whether waiting misses.

Tokens are compared with reading the raw logs of the incident, and with a plain Chroma collection of the same records, asked in
the same words and the same embedding model, whose replies are JSON of documents and metadata as its MCP server gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

import headwater
from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.client import Client as Verbs
from headwater.config import Settings, load
from headwater.demo.incident import deploy_at, incident
from headwater.records import Draft, from_ms
from headwater_mcp import build
from headwater_mcp.budget import tokens
from headwater_mcp.connect import connecting

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CAUSE = "from 20 to 8"  # what the deploy did to the pool of connections
SYMPTOM = "Connection is not available"
QUESTIONS = (
    "payments fail since a short while, which errors are new?",
    "what was changed in payments before it began to fail?",
)
WAITERS = 10


def drafts(lines: int) -> dict[str, list[Draft]]:
    """The records of the demo's incident, by topic."""
    found: dict[str, list[Draft]] = {}
    for topic, draft in incident(START, lines=lines):
        found.setdefault(topic, []).append(draft)
    return found


def text_of(result: Any) -> str:
    """The text of a tool's reply; an error ends the benchmark."""
    text = "".join(str(getattr(part, "text", "")) for part in result.content)
    if result.is_error:
        raise RuntimeError(text)
    return text


# ---------------------------------------------------------------------- time


async def overhead(settings: Settings, calls: int) -> dict[str, Any]:
    """Percentiles (ms) of a search by the HTTP verb and by the tool, over HTTP and over standard input, asked in turn."""
    runtime = launch.find_or_start(settings)
    server = StdioServerParameters(command=sys.executable, args=["-m", "headwater_mcp", "--data-dir", str(settings.path)])
    took: dict[str, list[float]] = {"verb": [], "http": [], "stdio": []}
    words = [f"payments order {n} refused by the bank" for n in range(calls + 5)]
    async with Verbs(runtime.url, runtime.token) as verbs, open_http(runtime) as http, Client(server) as stdio:
        asks: dict[str, Callable[[str], Awaitable[Any]]] = {
            "verb": lambda q: verbs.search(q, top_k=10),
            "http": lambda q: http.call_tool("search", {"q": q}),
            "stdio": lambda q: stdio.call_tool("search", {"q": q}),
        }
        for n, q in enumerate(words):
            for name, ask in asks.items():  # the same words for each, so that each finds the query's vector kept or none does
                if name == "verb":
                    await verbs.search(q, top_k=10)
                started = time.perf_counter()
                await ask(q)
                if n >= 5:
                    took[name].append((time.perf_counter() - started) * 1000)
    found = {name: percentiles(values) for name, values in took.items()}
    return {
        "tool_overhead_p50_ms": round(found["http"]["p50"] - found["verb"]["p50"], 2),
        "tool_overhead_stdio_p50_ms": round(found["stdio"]["p50"] - found["verb"]["p50"], 2),
        "search_verb_ms": found["verb"], "search_tool_http_ms": found["http"], "search_tool_stdio_ms": found["stdio"],
    }  # fmt: skip


@contextlib.asynccontextmanager
async def open_http(runtime: launch.Runtime) -> AsyncIterator[Client]:
    """A client of the daemon's /mcp."""
    import httpx2

    headers = {"authorization": f"Bearer {runtime.token}"} if runtime.token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=240) as http,
        Client(streamable_http_client(f"{runtime.url}/mcp", http_client=http)) as client,
    ):
        yield client


async def first_reply_s(settings: Settings) -> float:
    """Seconds from starting the server as a client does until the first tool has replied."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "headwater_mcp", "--data-dir", str(settings.path)])
    started = time.perf_counter()
    async with Client(server) as client:
        text_of(await client.call_tool("topics", {}))
        return time.perf_counter() - started


def stop(settings: Settings, how: signal.Signals = signal.SIGTERM) -> None:
    """End the daemon of a data directory, and see it gone."""
    if (runtime := launch.find(settings)) is not None:
        os.kill(runtime.pid, how)
        while launch.find(settings) is not None:
            time.sleep(0.02)


# ---------------------------------------------------------------------- tokens


async def through_tools(client: Client) -> dict[str, Any]:
    """Tokens of everything a fixed script reads through our tools until symptom and cause are in sight, and its steps."""
    said = [text_of(await client.call_tool("topics", {}))]
    since = deploy_at(START).isoformat()
    said.append(
        text_of(await client.call_tool("patterns", {"topic": "logs", "new_since": since, "limit": 5, "max_tokens": 700}))
    )
    for top_k in (3, 6, 12, 24, 48):
        arguments = {"q": QUESTIONS[1], "top_k": top_k, "topics": "deploys,tickets,chat", "max_tokens": 400 + 60 * top_k}
        said.append(text_of(await client.call_tool("search", arguments)))
        if CAUSE in said[-1]:
            break
    found = re.search(r"^\[\d+\] (deploys/0/\d+)", said[-1], re.MULTILINE)
    if found is not None:
        said.append(text_of(await client.call_tool("read", {"address": found[1]})))
    whole = "\n".join(said)
    return {"tokens": sum(map(tokens, said)), "calls": len(said), "found": SYMPTOM in whole and CAUSE in whole}


def raw_tokens(by_topic: dict[str, list[Draft]]) -> int:
    """Tokens of the logs and messages around the incident, from ten minutes before the deploy to half an hour after it."""
    first, last = deploy_at(START) - timedelta(minutes=10), deploy_at(START) + timedelta(minutes=30)
    lines = [d.value for of in by_topic.values() for d in of if d.time_ms is not None and first <= from_ms(d.time_ms) <= last]
    return sum(tokens(line) + 1 for line in lines)


def through_chroma(by_topic: dict[str, list[Draft]], verbs: Any) -> dict[str, Any]:
    """Tokens that the same questions cost against one plain collection: asked for more until symptom and cause are in sight."""
    import chromadb
    from chromadb.config import Settings as ChromaSettings

    collection = chromadb.EphemeralClient(ChromaSettings(anonymized_telemetry=False)).create_collection("records")
    rows = [(topic, n, d) for topic, of in by_topic.items() for n, d in enumerate(of)]
    known: dict[str, Any] = {}
    texts = list(dict.fromkeys(d.value for _, _, d in rows))
    for at in range(0, len(texts), 50):
        known |= zip(texts[at : at + 50], verbs.embed(texts[at : at + 50]).vectors, strict=True)
    for at in range(0, len(rows), 4000):
        part = rows[at : at + 4000]
        collection.add(
            ids=[f"{topic}/{n}" for topic, n, _ in part], documents=[d.value for *_, d in part],
            embeddings=[list(known[d.value]) for *_, d in part],
            metadatas=[{"topic": t, "time": str(from_ms(d.time_ms or 0)), **d.attributes} for t, _, d in part],
        )  # fmt: skip
    spent = calls = 0
    met = []
    for question, fact in zip(QUESTIONS, (SYMPTOM, CAUSE), strict=True):
        vector = verbs.embed([question]).vectors[0]
        for n in (5, 10, 20, 40, 80, 160, 320):
            reply = collection.query(query_embeddings=[list(vector)], n_results=min(n, len(rows)))
            said = json.dumps({key: reply[key] for key in ("ids", "documents", "metadatas", "distances")}, default=str)
            spent, calls = spent + tokens(said), calls + 1
            if fact in said:
                met.append(fact)
                break
    return {"tokens": spent, "calls": calls, "found": len(met) == 2}


# ---------------------------------------------------------------------- waiting


async def waiting(settings: Settings, records: int, restarts: int, seed: int) -> dict[str, Any]:
    """Ten agents that wait, each for its own watch, while records arrive and the daemon is killed and started again."""
    rng = random.Random(seed)

    async def connect() -> Any:
        runtime = await asyncio.to_thread(launch.find_or_start, settings)
        return Verbs(runtime.url, runtime.token)

    verbs = connecting(connect)
    made = [await verbs.add_watch("alarm", topics=["alarms"], owner=None) for _ in range(WAITERS)] if await ready(verbs) else []
    stored: list[str] = []
    done = asyncio.Event()

    async def agent(id: int) -> list[str]:
        seen: list[str] = []
        cursor = "0"
        own = connecting(connect)
        async with Client(build(own)) as client:
            while not (done.is_set() and len(seen) >= len(stored)):
                result = await client.call_tool("wait", {"id": str(id), "cursor": cursor, "timeout": 2, "max_tokens": 20_000})
                text = "".join(str(getattr(part, "text", "")) for part in result.content)
                if result.is_error:
                    await asyncio.sleep(0.1)
                    continue
                seen += re.findall(r"^\[[\d-]+\] (alarms/0/\d+) \d", text, re.MULTILINE)
                following = re.search(r"next_cursor=(\d+)$", text)
                cursor = following[1] if following else cursor
                if done.is_set() and "nothing yet" in text:
                    break
        await own.aclose()
        return seen

    async def feed() -> None:
        kills = set(rng.sample(range(1, records), restarts))
        for n in range(records):
            if n in kills:
                await asyncio.to_thread(stop, settings, signal.SIGKILL)
            while True:
                with contextlib.suppress(headwater.HeadwaterError):
                    reply = await verbs.append("alarms", [f"alarm number {n}"], idempotency_key=f"a{n}")
                    stored.extend(r.address for r in reply.records)
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(3)  # so that everything has been judged
        done.set()

    results = (await asyncio.gather(feed(), *(agent(watch.id) for watch in made)))[1:]
    await verbs.aclose()
    missed = sum(len(set(stored) - set(seen)) for seen in results)
    repeated = sum(len(seen) - len(set(seen)) for seen in results)
    return {
        "wait_hits": sum(map(len, results)), "wait_missed": missed, "wait_repeated": repeated, "wait_clients": len(results),
        "wait_restarts": restarts,
    }  # fmt: skip


async def ready(verbs: Any) -> bool:
    """Have the topic there."""
    await verbs.create_topic("alarms")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of each kind, to measure the overhead")
    parser.add_argument("--lines", type=int, default=6000, help="log lines of the incident")
    parser.add_argument("--starts", type=int, default=5, help="of the server, with a daemon and without")
    parser.add_argument("--records", type=int, default=200, help="that ten agents wait for")
    args = parser.parse_args(argv)
    if args.small:
        args.calls, args.lines, args.starts, args.records = 5, 600, 1, 10
    before, metrics = machine(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        model = {"embedding.model": "hash"} if args.small else {}
        settings = load(None, {"data_dir": str(Path(folder) / "data"), "server.port": 0, **model}).settings
        try:
            _measure(args, settings, metrics)
        finally:
            stop(settings)
    report(args, before, metrics)
    return 0


def _measure(args: Any, settings: Settings, metrics: dict[str, Any]) -> None:
    by_topic = drafts(args.lines)
    runtime = launch.find_or_start(settings, timeout_s=240)
    with headwater.connect(runtime.url, runtime.token) as hw:
        say("loading the incident")
        for topic, of in by_topic.items():
            for at in range(0, len(of), 1000):
                hw.append(topic, of[at : at + 1000], wait="searchable", timeout_s=240)
        say("tokens to the cause: tools, raw logs, Chroma")
        tools = asyncio.run(_with_http(runtime, through_tools))
        chroma = through_chroma(by_topic, hw)
        say("an investigation without a model")
        started = time.perf_counter()
        report = hw.investigate(QUESTIONS[0], since=deploy_at(START), model="extractive").report
        took, first = time.perf_counter() - started, hw.read(report.citations[0].address).record
        metrics |= {
            "investigate_s": round(took, 3), "investigate_cause_found": CAUSE in first.value,
            "investigate_tokens": tokens(report.text), "investigate_citations": len(report.citations),
        }  # fmt: skip
    raw = raw_tokens(by_topic)
    metrics |= {
        "tokens_tools": tools["tokens"], "tokens_raw_logs": raw, "tokens_chroma": chroma["tokens"],
        "calls_tools": tools["calls"],
        "calls_chroma": chroma["calls"], "cause_found_tools": tools["found"], "cause_found_chroma": chroma["found"],
        "tokens_vs_raw": round(tools["tokens"] / raw, 4), "tokens_vs_chroma": round(tools["tokens"] / chroma["tokens"], 4),
    }  # fmt: skip
    say("overhead of a tool over the verb")
    metrics |= asyncio.run(overhead(settings, args.calls))
    say("the first reply, with a daemon and without")
    running = [asyncio.run(first_reply_s(settings)) for _ in range(args.starts)]
    cold = []
    for _ in range(args.starts):
        stop(settings)
        cold.append(asyncio.run(first_reply_s(settings)))
    metrics["stdio_first_reply_s"], metrics["stdio_first_reply_cold_s"] = percentiles(running), percentiles(cold)
    say("ten agents that wait, while the daemon is killed")
    metrics |= asyncio.run(waiting(settings, args.records, 1 if args.small else 4, args.seed))


async def _with_http(runtime: launch.Runtime, work: Callable[[Client], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    async with open_http(runtime) as client:
        return await work(client)


if __name__ == "__main__":
    sys.exit(main())
