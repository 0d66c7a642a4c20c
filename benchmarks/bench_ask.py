"""Answers by a chat model: what Headwater adds to the model's own time, and many answers at once.

A model server of this file's own speaks the OpenAI wire format at a fixed rate of tokens, each with the time it was sent at.
`first_token_overhead` is what `ask` over HTTP takes to its first token beyond the server's own first token, over a log of
many records (search and packing; no rewriting, no reranking). Many streams at once go through a bare relay that only passes
the server's bytes on, through `POST /v1/complete` and through `POST /v1/ask`, in the same run, to the same client, all begun at
the same moment: pieces a second over the whole run, in which those of `ask` are searched for first, and from each stream's
own first piece. `concurrency_gain`: many questions at once against one after the other. With --local the same question is
asked of the small local model.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx

import headwater
from common import machine, options, percentiles, report, say
from realistic import texts

RECORDS, SMALL = 100_000, 2_000
QUESTIONS = 60
STREAMS = 100
RATE = 20.0  # tokens/s of one stream
SECONDS = 12.0  # of one stream
AT_ONCE = 64
WHOLE_S = 0.2  # a whole answer of the model, for the gain of concurrency
NEAR = 0.15  # score of the best record, from which the model is asked: questions beyond it would not be streams
_NOUNS = ("pool", "gateway", "checkout", "invoice", "refund", "cache", "queue", "disk", "token", "region", "replica", "ledger")
_VERBS = ("failed", "stalled", "timed-out", "recovered", "restarted", "saturated", "rejected", "retried", "expired", "drained")


# ------------------------------------------------------------------------------------------ the model server and the relay
async def serve_model(port: int) -> None:
    """Chat completions, streamed at RATE; a question with `whole` in it is answered in one piece after WHOLE_S."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = int(next((h.split(":")[1] for h in head.split("\r\n") if h.startswith("content-length:")), "0"))
                body = json.loads(await reader.readexactly(size) or b"{}")
                asked = str(body.get("messages", [{}])[-1].get("content", ""))
                started = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                writer.write(started)
                if "whole" in asked:
                    await asyncio.sleep(WHOLE_S)
                    await _tell(writer, "The pool failed [1].", "stop")
                else:
                    seconds = 0.2 if "short" in asked else 2.0 if "medium" in asked else SECONDS
                    begun = time.perf_counter()
                    for n in range(round(seconds * RATE)):
                        await asyncio.sleep(max(0.0, begun + n / RATE - time.perf_counter()))
                        await _tell(writer, f" t{time.time() * 1000:.0f}")
                    await _tell(writer, ". The pool failed [1].", "stop")
                writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _tell(writer: asyncio.StreamWriter, text: str, finish: str | None = None) -> None:
    piece = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }  # fmt: skip
    if finish:
        piece["usage"] = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    writer.write(_chunk(b"data: " + json.dumps(piece).encode() + b"\n\n"))
    await writer.drain()


async def serve_relay(port: int, model: int) -> None:
    """Pass the model's answer on, byte for byte: what any server in between takes."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    client = httpx.AsyncClient(timeout=240, limits=httpx.Limits(max_connections=None))

    async def relay(request: Request) -> StreamingResponse:
        body = await request.body()

        async def passed() -> AsyncIterator[bytes]:
            url = f"http://127.0.0.1:{model}/v1/chat/completions"
            async with client.stream("POST", url, content=body) as reply:
                async for part in reply.aiter_raw():
                    yield part

        return StreamingResponse(passed(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])])
    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="error")).serve()


@contextlib.contextmanager
def process(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own, ended with the block."""
    made = subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield made
    finally:
        made.terminate()
        made.wait(240)


# -------------------------------------------------------------------------------------------------------------- measuring
async def answering(url: str, path: str = "/") -> None:
    """Wait until something listens there."""
    async with httpx.AsyncClient() as client:
        for _ in range(2400):
            with contextlib.suppress(httpx.HTTPError):
                await client.get(url + path)
                return
            await asyncio.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


async def first_token_ms(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> float:
    """Milliseconds to the first token of a stream, which is then read to its end."""
    began, first = time.perf_counter(), 0.0
    async with client.stream("POST", url, json=body) as reply:
        async for line in reply.aiter_lines():
            if not first and line.startswith("data:") and _is_token(line):
                first = (time.perf_counter() - began) * 1000
    if not first:
        raise SystemExit(f"{url} gave no token")
    return first


def _is_token(line: str) -> bool:
    return '"text":' in line[:30] or '"content":' in line


@dataclass(slots=True)
class Read:
    """What came of many streams: of each piece how many ms after its sending, of each stream its response, first piece, pieces
    and pace from the first to the last."""

    late_ms: list[float] = field(default_factory=list)
    answered_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    pieces: list[int] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)


async def stream(client: httpx.AsyncClient, url: str, body: dict[str, Any], read: Read) -> None:
    """Read one stream to its end."""
    count, began, first, last = 0, time.perf_counter(), 0.0, 0.0
    async with client.stream("POST", url, json=body) as reply:
        read.answered_ms.append((time.perf_counter() - began) * 1000)
        async for line in reply.aiter_lines():
            now = time.time() * 1000
            at = line.find("t17")
            if line.startswith("data:") and at >= 0 and _is_token(line) and line.find("t17", at + 1) < 0:  # not the whole again
                count, last = count + 1, time.perf_counter()
                first = first or last
                read.late_ms.append(now - float(line[at + 1 : at + 14]))
    read.pieces.append(count)
    if count > 1:
        read.first_ms.append((first - began) * 1000)
        read.pace.append((count - 1) / (last - first))


async def streams(url: str, bodies: list[dict[str, Any]], pid: int | None) -> dict[str, Any]:
    """Many streams at once."""
    read = Read()
    before = _rss(pid)
    most = before
    async with httpx.AsyncClient(timeout=240, limits=httpx.Limits(max_connections=None)) as client:
        began = time.perf_counter()
        running = asyncio.gather(*(stream(client, url, body, read) for body in bodies))
        while not running.done():
            await asyncio.wait({running}, timeout=0.5)
            most = max(most, _rss(pid))
        await running
        seconds = time.perf_counter() - began
    return {
        "streams": len(read.pace), "pieces": sum(read.pieces), "pieces_per_s": round(sum(read.pieces) / seconds, 1),
        "pieces_per_s_from_first": round(sum(read.pace), 1), "late_ms": percentiles(read.late_ms),
        "answered_ms": percentiles(read.answered_ms), "first_piece_ms": percentiles(read.first_ms),
        "memory_mb_a_stream": round((most - before) / 2**20 / len(bodies), 3),
    }  # fmt: skip


def _rss(pid: int | None) -> int:
    if pid is None:
        return 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def question(rng: random.Random, more: str = "") -> str:
    return f"why has the {rng.choice(_NOUNS)} {rng.choice(_VERBS)} in unit {rng.randint(1, 40)}? {more}".strip()


def drawn(folder: Path, count: int, rng: random.Random, more: str) -> list[str]:
    """Questions that some record is near to. What was embedded to find them is not kept."""
    found: list[str] = []
    with headwater.open(folder, embedding={"model": "bge-small", "cache_enabled": False}, llm={"cache_enabled": False}) as hw:
        for _ in range(count * 50):
            text = question(rng, more)
            if len(found) == count:
                break
            if max((hit.score for hit in hw.search(text, top_k=12)), default=0.0) >= NEAR and text not in found:
                found.append(text)
    return found


def fill(folder: Path, records: int, seed: int) -> None:
    rng = random.Random(seed)
    bodies = [" ".join(text.split())[:100] for text in texts(min(1000, records // 10))]
    bodies = [f"{_NOUNS[n % len(_NOUNS)]}: {body}" for n, body in enumerate(bodies)]
    with headwater.open(folder, embedding={"model": "bge-small"}) as hw:
        for start in range(0, records, 5000):
            rows = [
                f"2026-03-01T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z {rng.choice(('INFO', 'WARN', 'ERROR'))} "
                f"{rng.choice(bodies)}"
                for n in range(start, min(start + 5000, records))
            ]
            hw.append("logs", rows)
        while (mark := hw.topic("logs").watermark).semantic < mark.stored:
            time.sleep(0.2)
        say(f"{records:,} records, {hw.topic('logs').passages:,} passages")


async def measure(args: argparse.Namespace, folder: Path, many: list[str]) -> dict[str, Any]:
    rng = random.Random(args.seed)
    model, relay, daemon = args.port, args.port + 1, args.port + 2
    urls = [f"http://127.0.0.1:{port}" for port in (model, relay, daemon)]
    settings = folder / "headwater.toml"
    llm = f'[llm]\nprovider = "custom"\nmodel = "m"\nbase_url = "{urls[0]}/v1"\ncache_enabled = false\nconcurrency = 1000\n'
    settings.write_text(f"[server]\nport = {daemon}\nrequests_per_s = 0\n{llm}", "utf-8")
    metrics: dict[str, Any] = {}
    with (
        process(__file__, "--serve-model", "--port", str(model)), process(__file__, "--serve-relay", "--port", str(model)),
        process("-m", "headwater.daemon", "--data-dir", str(folder), "--config", str(settings)) as running,
    ):  # fmt: skip
        for url, path in zip(urls, ("/", "/", "/v1/ready"), strict=True):
            if url != urls[0]:
                await answering(url, path)
        ask, bare = f"{urls[2]}/v1/ask", f"{urls[1]}/v1/chat/completions"

        def to_ask(text: str) -> dict[str, Any]:
            return {"question": text, "stream": True}

        def to_relay(text: str) -> dict[str, Any]:
            return {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}

        async with httpx.AsyncClient(timeout=240) as client:
            count = 5 if args.small else QUESTIONS
            await first_token_ms(client, ask, to_ask(question(rng, "short")))
            direct, through = [], []
            for _ in range(count):
                text = question(rng, "short")
                direct.append(await first_token_ms(client, f"{urls[0]}/v1/chat/completions", to_relay(text)))
                through.append(await first_token_ms(client, ask, to_ask(text)))
            over = [t - percentiles(direct)["p50"] for t in through]
            metrics["first_token_model_ms"] = percentiles(direct)
            metrics["first_token_ms"] = percentiles(through)
            metrics["first_token_overhead_ms"] = percentiles(over)
            metrics["first_token_overhead_p50_ms"] = percentiles(over)["p50"]
            whole = [question(rng, "whole") for _ in range(8 if args.small else AT_ONCE)]
            began = time.perf_counter()
            for text in whole[: max(4, len(whole) // 4)]:
                await first_token_ms(client, ask, to_ask(text))
            singly = (time.perf_counter() - began) / max(4, len(whole) // 4) * len(whole)
        async with httpx.AsyncClient(timeout=240, limits=httpx.Limits(max_connections=None)) as client:
            began = time.perf_counter()
            await asyncio.gather(*(first_token_ms(client, ask, to_ask(text)) for text in whole))
            metrics["concurrency_gain"] = round(singly / (time.perf_counter() - began), 1)
        served = {
            "relay": (bare, [to_relay(text) for text in many], None),
            "complete": (f"{urls[2]}/v1/complete", [{"prompt": text, "stream": True} for text in many], running.pid),
            "ask": (ask, [to_ask(text) for text in many], running.pid),
        }
        for name, (url, bodies, pid) in served.items():
            say(f"{len(bodies)} streams through {url}")
            metrics[f"streams_{name}"] = await streams(url, bodies, pid)
        for name, figure in product(("complete", "ask"), ("pieces_per_s", "pieces_per_s_from_first")):
            share = metrics[f"streams_{name}"][figure] / metrics["streams_relay"][figure]
            metrics[f"streams_{name}_share_of_relay{figure.removeprefix('pieces_per_s')}"] = round(share, 4)
    return metrics


def local(folder: Path) -> dict[str, Any]:
    """The small local model: is it there, how long does it take, does its answer hold."""
    with headwater.open(folder, llm={"provider": "local", "cache_enabled": False}) as hw:
        hw.ask("which unit failed?")
        took, first = [], []
        answer = None
        for text in ("why has the pool failed in unit 3?", "what happened to the gateway in unit 7?"):
            began, seen = time.perf_counter(), 0.0
            for event in hw.ask(text, stream=True):
                if event.event == "token" and not seen:
                    seen = time.perf_counter() - began
                answer = event.data
            first.append(seen * 1000)
            took.append((time.perf_counter() - began) * 1000)
    return {"local_first_token_ms": percentiles(first), "local_answer_ms": percentiles(took),
            "local_answer": getattr(answer, "text", "")[:300]}  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--records", type=int, help=f"records in the log ({RECORDS:,})")
    parser.add_argument("--port", type=int, default=18_790, help="the first of three ports")
    parser.add_argument("--local", action="store_true", help="ask the small local model too")
    parser.add_argument("--serve-model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve-relay", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_model:
        asyncio.run(serve_model(args.port))
    elif args.serve_relay:
        asyncio.run(serve_relay(args.port + 1, args.port))
    else:
        before = machine()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            fill(folder, args.records or (SMALL if args.small else RECORDS), args.seed)
            count, more = (10, "medium") if args.small else (STREAMS, "")
            many = drawn(folder, count, random.Random(args.seed + 1), more)
            metrics = asyncio.run(measure(args, folder, many))
            if args.local:
                metrics |= local(folder)
        report(args, before, metrics)


if __name__ == "__main__":
    main()
