"""Calls of agents' tools with arguments at random, over standard input and output of a real server process.

    python tests/fuzz_mcp.py 5000 [SEED]

prints how many replies were over their max_tokens, how many calls crashed or hung, and how many bytes on standard output were
not protocol; it exits 1 where any were. Half of the calls have nothing but values that make sense.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import headwater
from headwater_mcp.budget import tokens
from serving import serving, settings_in

HANG_S = 5.0
TEXTS = (
    "", " ", "payments", "level:error", '"open', "a" * 5000, "\x00\x1b[2J", "漢字 \u202e🎉", "\ud800", "-not", "since:2h x",
    "(", "field:>=", "logs/0/3", "logs/0/99999999999999999999", "nope/0/0", "../..", "logs", "1", "-1", "2h", "soon", "9" * 400,
    "1e999", "0~", "7~x", "%s%n", "${HOME}", "' OR 1=1 --", "\n" * 50,
)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 1 << 70, 0.5, -0.0, 1e308, [], {}, [[]], ["logs"], ["logs", "nope"], {"a": {"b": []}},
    [None], "x", list(range(50)),
)  # fmt: skip
RIGHT: Mapping[str, tuple[Any, ...]] = {
    "q": ("payment failed", "level:error", "", '"order 7" -refund', "mode:semantic customers billed twice"),
    "question": ("which payment failed?", "what is new since yesterday?", "how many payments failed?"),
    "topic": ("logs", "tickets"), "topics": (["logs"], "logs,tickets", ["tickets"]), "address": ("logs/0/3", "tickets/0/1"),
    "like": ("logs/0/3",), "since": ("2h", "2026-01-01"), "until": ("2030-01-01",), "new_since": ("1h", "2026-01-01"),
    "response_format": ("concise", "detailed"), "labels": (["money", "other"], {"money": "payments", "rest": "all else"}),
    "texts": (["charged twice", "x" * 3000], ["a"]), "records": (["a note"], [{"value": "x" * 2000, "key": "k"}]),
    "path": ("notes.log", "."), "name": ("labels", "kinds"), "output": ("labelled",), "within": ("10m",), "ttl": ("1h",),
    "id": ("1", "2"), "context": (0, 3, 100), "offset": (0, 3), "partition": (0,), "top_k": (1, 10, 100), "limit": (1, 50, 500),
    "buckets": (1, 24, 200), "min_score": (0, 0.3), "more_than": (1, 5), "mode": ("keyword", "semantic", "hybrid"),
    "idempotency_key": ("k1",), "cursor": ("0~", "5~"), "quiet": (True, False), "severity": ("low", "high"),
    "timeout": (0, 0.05), "max_tokens": (300, 500, 2000, 6000), "wait": ("stored",),
}  # fmt: skip


@dataclass(slots=True)
class Judged:
    """What was wrong with calls so far. A call that took longer than `hang_s` hangs."""

    hang_s: float = HANG_S
    over: list[Any] = field(default_factory=list)
    crashed: list[Any] = field(default_factory=list)
    slow: list[Any] = field(default_factory=list)
    stray_bytes: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    errors: int = 0

    @property
    def wrong(self) -> int:
        return len(self.over) + len(self.crashed) + len(self.slow) + self.stray_bytes

    def judge(self, tool: str, arguments: Mapping[str, Any], text: str, failed: bool, seconds: float) -> None:
        """Look at one reply."""
        self.calls[tool] += 1
        self.errors += failed
        if seconds > self.hang_s:
            self.slow.append((tool, arguments, seconds))
        given = arguments.get("max_tokens", 6000)
        most = given if isinstance(given, int) and not isinstance(given, bool) and not failed else 6000
        if tokens(text) > most:
            self.over.append((tool, arguments, tokens(text)))
        if "failed inside Headwater" in text or "Error executing" in text:
            self.crashed.append((tool, arguments))


def arguments_at_random(rng: random.Random, properties: Mapping[str, Any], required: list[str], tool: str) -> dict[str, Any]:
    """Some of a tool's parameters, with values right and wrong; now and then one that it does not have."""
    made: dict[str, Any] = {}
    if rng.random() < 0.5:
        made = {n: rng.choice(RIGHT[n]) for n in properties if n in RIGHT and (n in required or rng.random() < 0.5)}
        return {**made, "timeout": 0} if tool == "wait" else made
    for name, schema in properties.items():
        if name not in required and rng.random() < 0.6:
            continue
        if rng.random() < 0.15:
            made[name] = rng.choice(ODD)
        elif name == "max_tokens":
            made[name] = rng.choice((300, 301, 500, 1000, 6000, 100_000))
        elif name == "timeout":
            made[name] = rng.choice((0, 0.01, 0.05))
        elif "enum" in schema:
            made[name] = rng.choice(schema["enum"])
        elif schema.get("type") == "integer":
            made[name] = rng.choice((0, 1, 2, 5, 50, 100, 10_000, -5))
        elif schema.get("type") == "array":
            made[name] = rng.choice((["logs"], "logs,tickets", [], [rng.choice(TEXTS)], ["billing", "outage"]))
        else:
            made[name] = rng.choice(TEXTS)
    if rng.random() < 0.05:
        made[rng.choice(("nonsense", "query", "", "x" * 300))] = rng.choice(ODD)
    if tool == "wait" and made.get("timeout") in (None, 1, 7, True):
        made["timeout"] = 0  # else it waits as long as it should
    return made


class Stdio:
    """A server process and the calls to it, one after the other. What it writes that is no protocol is counted."""

    def __init__(self, process: subprocess.Popen[bytes], judged: Judged) -> None:
        self._process, self._judged, self._n, self._rest = process, judged, 0, b""

    def ask(self, method: str, params: Mapping[str, Any], timeout_s: float = 240.0) -> Mapping[str, Any]:
        """The reply to a request."""
        self._n += 1
        self.say({"jsonrpc": "2.0", "id": self._n, "method": method, "params": params})
        end = time.monotonic() + timeout_s
        while True:
            message = self._message(end)
            if message.get("id") == self._n:
                return message

    def say(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _message(self, end: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
                        return message
                self._judged.stray_bytes += len(line) + 1
                continue
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the server does not answer")
            chunk = self._process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
            assert chunk, "the server ended"
            self._rest += chunk


@contextlib.contextmanager
def server(folder: Path, judged: Judged) -> Iterator[Stdio]:
    """A server process that may write and load files, over a daemon's API with a few hundred records, some of them odd."""
    files = folder / "files"
    files.mkdir()
    (files / "notes.log").write_text("a line\nanother\n")
    with serving(settings_in(folder / "data")) as url:
        with headwater.connect(url) as hw:
            hw.append("logs", [f"payment {n} failed for order {n * 7}" for n in range(300)])
            hw.append("tickets", ["charged twice", "x" * 40_000, "漢字 \u202e🎉" * 50], wait="searchable", timeout_s=240)
        command = [sys.executable, "-m", "headwater_mcp", "--url", url, "--allow-write", "--root", str(files)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        told = Stdio(process, judged)
        try:
            told.ask(
                "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "f", "version": "1"}}
            )
            told.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
            yield told
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.stdout is not None
            process.stdout.read()
            process.stdout.close()
            process.wait(240)


def fuzz(calls: int, seed: int, folder: Path, hang_s: float = HANG_S) -> Judged:
    """So many calls over all tools, in turn and at random."""
    rng, judged = random.Random(seed), Judged(hang_s)
    with server(folder, judged) as told:
        tools = told.ask("tools/list", {})["result"]["tools"]
        for n in range(calls):
            tool = tools[n % len(tools)] if n < 2 * len(tools) else rng.choice(tools)
            schema = tool["inputSchema"]
            arguments = arguments_at_random(rng, schema["properties"], schema.get("required", []), tool["name"])
            arguments = json.loads(json.dumps(arguments).replace("\\ud800", "?"))  # no lone surrogate passes as JSON text
            begun = time.monotonic()
            reply = told.ask("tools/call", {"name": tool["name"], "arguments": arguments})
            seconds = time.monotonic() - begun
            result = reply.get("result") or {"content": [{"text": str(reply.get("error"))}], "isError": True}
            text = "".join(part.get("text", "") for part in result["content"])
            judged.judge(tool["name"], arguments, text, bool(result.get("isError")), seconds)
            if calls >= 500 and n % 500 == 499:
                print(f"{n + 1} calls", file=sys.stderr, flush=True)
    return judged


def main() -> int:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        judged = fuzz(calls, seed, Path(folder))
    print(json.dumps({
        "calls": sum(judged.calls.values()), "tools": dict(judged.calls), "answered_with_an_error": judged.errors,
        "over_max_tokens": len(judged.over), "crashes": len(judged.crashed), "hangs_over_5_s": len(judged.slow),
        "stray_stdout_bytes": judged.stray_bytes, "seed": seed, "seconds": round(time.monotonic() - begun, 1),
    }, indent=1))  # fmt: skip
    for what in (judged.over, judged.crashed, judged.slow):
        for one in what[:5]:
            print(repr(one)[:400], file=sys.stderr)
    return int(judged.wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
