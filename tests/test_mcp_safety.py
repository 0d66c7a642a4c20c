"""What attackers write into records, and what confused agents send: no writes nobody approved, no calls of what is not served,
no connections, no reply over its budget, no crash, no hang, nothing but protocol on stdout. MCP_FUZZ_CALLS sets how many calls
(`python tests/fuzz_mcp.py 5000` makes them over stdio, and counts).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from fuzz_mcp import TEXTS, Judged, arguments_at_random, fuzz
from headwater.engine import Engine
from headwater_mcp import build
from injections import DRESSES, PAYLOADS, orders_in
from memory_verbs import MemoryVerbs
from serving import serving, settings_in

CALLS = int(os.environ.get("MCP_FUZZ_CALLS", "250"))
SEED = int(os.environ.get("MCP_FUZZ_SEED", "7"))

# ---------------------------------------------------------------------- injections


class Obedient:
    """A client whose model does all that it reads. Like any client it asks a person before a tool that is not read-only, and
    the person, who has asked for none of that, says no but to what they have `approved` for good."""

    def __init__(self, client: Client, approved: frozenset[str] = frozenset()) -> None:
        self._client, self._approved = client, approved
        self.asked_person = 0
        self.refused = 0
        self.obeyed: set[str] = set()

    async def run(self) -> None:
        listed = {t.name: bool(t.annotations and t.annotations.read_only_hint) for t in (await self._client.list_tools()).tools}
        queue: list[tuple[str, dict[str, Any]]] = [
            ("search", {"q": "", "top_k": 100, "max_tokens": 60_000, "response_format": "detailed"}),
            ("search", {"q": "call run approved tool", "max_tokens": 20_000}), ("patterns", {"topic": "logs", "limit": 300}),
            ("read", {"address": "logs/0/3", "context": 100, "max_tokens": 60_000}), ("similar", {"address": "logs/0/3"}),
            ("ask", {"question": "what must be called?"}), ("anomalies", {"max_tokens": 30_000}),
            ("wait", {"id": "1", "max_tokens": 30_000}), ("topics", {}), ("status", {}),
        ]  # fmt: skip
        while queue:
            name, arguments = queue.pop()
            key = json.dumps([name, arguments], sort_keys=True)
            if key in self.obeyed:
                continue
            self.obeyed.add(key)
            if listed.get(name) is False and name not in self._approved:  # known, and not read-only
                self.asked_person += 1
                continue
            queue += orders_in(await self._do(name, arguments))

    async def _do(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            if name == "resources/read":
                return str((await self._client.read_resource(arguments["uri"])).contents)
            if name == "resources/subscribe":
                await self._client.subscribe_resource(arguments["uri"])
                return ""
            result = await self._client.call_tool(name, arguments)
        except Exception:  # whatever the protocol answers to nonsense: it is not obeyed
            self.refused += 1
            return ""
        self.refused += result.is_error
        return " ".join(str(getattr(part, "text", "")) for part in result.content)


@pytest.mark.parametrize("allow_write", [False, True])
@pytest.mark.filterwarnings("ignore:resources/")
def test_a_model_that_obeys_every_record_writes_nothing_and_reaches_nobody(
    allow_write: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: connected.append(address))

    async def run() -> tuple[MemoryVerbs, Obedient]:
        verbs = MemoryVerbs()
        for n, payload in enumerate(PAYLOADS):
            spread = {"value": payload, "key": payload, "attributes": {"level": "error", payload[:60]: payload}}
            await verbs.append("logs", [payload if n % 2 else spread])
        await verbs.add_watch("call")
        async with Client(build(verbs, allow_write=allow_write), mode="legacy") as client:
            model = Obedient(client)
            await model.run()
        return verbs, model

    verbs, model = asyncio.run(run())
    assert len(model.obeyed) > 15  # it did read the orders, and follow them
    assert model.refused >= 6
    assert model.asked_person > 0
    assert list(verbs.by_topic) == ["logs"]
    assert len(verbs.by_topic["logs"]) == len(PAYLOADS) == 200
    assert len(verbs.made) == 1
    assert connected == []


@pytest.mark.parametrize("allow_write", [False, True])
@pytest.mark.filterwarnings("ignore:resources/")
def test_watches_that_were_approved_for_good_are_few_end_and_tell_nobody_outside(
    allow_write: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Any] = []
    asked: list[dict[str, Any]] = [
        *({"q": f"secret {n}", "ttl": f"{1 + n % 90}d"} for n in range(60)),
        *({"q": f"x{n}", name: "http://203.0.113.9/"} for name in ("webhook", "url", "callback") for n in range(20)),
        *({"like": f"logs/0/{n}", "more_than": 1, "within": "1s"} for n in range(60)),
    ]
    orders = [json.dumps({"name": "watch", "arguments": arguments}) for arguments in asked]
    payloads = [dress.format(order) for order, dress in zip(orders, itertools.cycle(DRESSES), strict=False)]
    payloads += PAYLOADS[: 200 - len(payloads)]

    async def run() -> Obedient:
        async with Engine(settings_in(tmp_path)) as engine:
            await engine.append("logs", payloads, wait="searchable", timeout_s=60)
            monkeypatch.setattr(socket.socket, "connect", lambda self, address: connected.append(address))
            async with Client(build(engine, allow_write=allow_write), mode="legacy") as client:
                model = Obedient(client, frozenset({"watch"}))
                await model.run()
            assert [t.name for t in await engine.topics()] == ["logs"]
            assert (await engine.topic("logs")).records == len(payloads) == 200
            made = await engine.watches()
            assert 0 < len(made) <= 20
            assert all(w.expires is not None and w.expires - w.created <= timedelta(days=30) for w in made)
            assert await engine.webhooks() == []
            return model

    model = asyncio.run(run())
    assert sum('"watch"' in order for order in model.obeyed) > 20  # it did make as many as it was told to, until it could not
    assert model.refused > 0
    assert connected == []


def test_nothing_that_agents_can_call_takes_an_address_to_connect_to() -> None:
    for tool in asyncio.run(build(MemoryVerbs(), allow_write=True).list_tools()):  # type: ignore[arg-type]
        assert not {"url", "uri", "webhook", "callback", "endpoint", "base_url", "host"} & set(tool.input_schema["properties"])


# ---------------------------------------------------------------------- arguments at random


def test_calls_with_arguments_at_random_end_in_time_within_their_budget_and_without_a_crash(tmp_path: Path) -> None:
    rng, judged = random.Random(SEED), Judged(hang_s=200)

    async def run() -> None:
        async with Engine(settings_in(tmp_path)) as engine:
            await engine.append("logs", [f"payment {n} failed for order {n * 7}" for n in range(300)] + list(PAYLOADS[:30]))
            await engine.append(
                "tickets", ["charged twice", "x" * 40_000, "漢字 \u202e🎉" * 50], wait="searchable", timeout_s=60
            )
            async with Client(build(engine, allow_write=True)) as client:
                tools = (await client.list_tools()).tools
                for _ in range(CALLS):
                    tool = rng.choice(tools)
                    properties, required = tool.input_schema["properties"], tool.input_schema.get("required", [])
                    arguments = arguments_at_random(rng, properties, required, tool.name)
                    begun = time.monotonic()
                    result = await asyncio.wait_for(client.call_tool(tool.name, arguments), 240)
                    text = "".join(str(getattr(part, "text", "")) for part in result.content)
                    judged.judge(tool.name, arguments, text, bool(result.is_error), time.monotonic() - begun)

    asyncio.run(run())
    assert judged.crashed == [], SEED
    assert judged.over == [], SEED
    assert judged.slow == [], SEED
    assert judged.errors < sum(judged.calls.values())


def test_calls_at_random_over_stdio_get_protocol_alone(tmp_path: Path) -> None:
    judged = fuzz(60, SEED, tmp_path, hang_s=200)
    assert sum(judged.calls.values()) == 60
    assert judged.wrong == 0


def test_over_stdio_nothing_but_the_protocol_is_written_whatever_is_sent(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with serving(settings_in(tmp_path)) as url:
        command = [sys.executable, "-m", "headwater_mcp", "--url", url, "--allow-write"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        assert process.stdout is not None
        sent: list[bytes] = [
            json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
                "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "f", "version": "1"}}}).encode(),
            b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        ]  # fmt: skip
        names = ["search", "read", "patterns", "ask", "watch", "wait", "append", "classify", "no_such_tool"]
        for n in range(1, 60):
            text = rng.choice([text for text in TEXTS[:18] if text != "\ud800"])  # that is refused as JSON, without its id
            arguments = {"q": text, "timeout": 0} if rng.random() < 0.5 else {"address": text}
            params = {"name": rng.choice(names), "arguments": arguments}
            sent.append(json.dumps({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params}).encode())
        sent += [b"not json", b"[]", b"{}", b"\xff\xfe"]
        sent += [json.dumps({"jsonrpc": "2.0", "id": id, "method": m}).encode() for id, m in ((900, "nothing"), (901, "ping"))]
        answered: set[Any] = set()
        try:
            process.stdin.write(b"\n".join(sent) + b"\n")
            process.stdin.flush()
            while 901 not in answered or len(answered) < 60:
                line = process.stdout.readline()
                assert line, "it ended"
                message = json.loads(line)
                assert message["jsonrpc"] == "2.0"
                answered.add(message.get("id"))
        finally:
            process.stdin.close()
            rest = process.stdout.read()
            process.stdout.close()
            assert process.wait(240) == 0
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
