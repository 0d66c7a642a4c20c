"""Agents over streamable HTTP at the daemon's /mcp: both protocol revisions, with and without sessions, behind the guard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

import headwater
from headwater.api.agents import Agents
from headwater.config import ServerSettings
from headwater.tokens import tokens_of
from memory_verbs import MemoryVerbs
from serving import eventually, serving, settings_in

HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    """A token for every topic, to write."""
    return tokens_of(folder).create("all", ["*"], write=True)[1]


@pytest.fixture(scope="module")
def url(folder: Path, key: str) -> Iterator[str]:
    with serving(settings_in(folder, allowed_hosts=("data.example",), mcp_sessions=3)) as url:
        with headwater.connect(url, key) as hw:
            hw.append("logs", ["card payment refused", "pool exhausted"], wait="searchable", timeout_s=60)
        yield url


def _within(url: str, key: str, body: Callable[[Client], Awaitable[None]], mode: str = "auto") -> None:
    async def run() -> None:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=240) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
        ):
            await body(client)

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_works_over_http_in_both_revisions(url: str, key: str, mode: str) -> None:
    async def body(client: Client) -> None:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"search", "append"} <= set(names)
        found = await client.call_tool("search", {"q": "payment refused"})
        assert "card payment refused" in str(found.content[0].text)  # type: ignore[union-attr]
        stored = await client.call_tool("append", {"topic": "notes", "records": [f"noted {mode}"], "wait": "searchable"})
        assert not stored.is_error
        assert f"noted {mode}" in str((await client.call_tool("search", {"q": f"noted {mode}", "topics": "notes"})).content)
        assert "refused" in str((await client.read_resource("headwater://topics/logs")).contents[0])

    _within(url, key, body, mode)


def test_a_listener_over_http_is_told_of_records_that_others_store(url: str, key: str) -> None:
    async def body(client: Client) -> None:
        async with client.listen(resource_subscriptions=["headwater://topics/logs"]) as stream, asyncio.timeout(240):
            async with headwater.aconnect(url, key) as hw:
                await hw.append("logs", ["one more"])
            event = await anext(stream.__aiter__())
            assert getattr(event, "uri", None) == "headwater://topics/logs"

    _within(url, key, body)


def _post(url: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/mcp", json=body, headers={**HEADERS, **headers}, timeout=240)


def test_without_a_valid_token_or_from_a_foreign_place_nobody_comes_in(url: str, key: str) -> None:
    missing = _post(url, INITIALIZE)
    assert missing.status_code == 401
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert _post(url, INITIALIZE, authorization="Bearer hw_guess").status_code == 401
    bearer = f"Bearer {key}"
    assert _post(url, INITIALIZE, authorization=bearer, host="evil.example").status_code == 421
    assert _post(url, INITIALIZE, authorization=bearer, origin="https://evil.example").status_code == 403
    assert _post(url, INITIALIZE, authorization=bearer, host="data.example").status_code == 200
    assert _post(url, "x" * 5_000_000, authorization=bearer).status_code == 413


def test_sessions_are_their_callers_own_bounded_and_can_be_ended(url: str, key: str, folder: Path) -> None:
    tokens = tokens_of(folder)
    _, first = tokens.create("first", ["logs"])
    _, second = tokens.create("second", ["logs"])
    bearer = {"authorization": f"Bearer {first}"}
    opened = [_post(url, INITIALIZE, **bearer).headers["mcp-session-id"] for _ in range(3)]
    assert _post(url, INITIALIZE, **bearer).status_code == 503
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert _post(url, listing, **bearer, **{"mcp-session-id": opened[0]}).status_code == 200
    stolen = _post(url, listing, authorization=f"Bearer {second}", **{"mcp-session-id": opened[0]})
    assert stolen.status_code == 404
    ended = httpx.delete(f"{url}/mcp", headers={**bearer, "mcp-session-id": opened[0]})
    assert ended.status_code in (200, 204)
    assert _post(url, listing, **bearer, **{"mcp-session-id": opened[0]}).status_code == 404
    assert _post(url, INITIALIZE, **bearer).status_code == 200
    tokens.revoke("first")
    assert _post(url, listing, **bearer, **{"mcp-session-id": opened[1]}).status_code == 401


def test_a_token_that_may_only_read_is_not_offered_to_write(url: str, folder: Path) -> None:
    _, secret = tokens_of(folder).create("reader", ["logs"])

    async def body(client: Client) -> None:
        assert "append" not in [tool.name for tool in (await client.list_tools()).tools]
        assert (await client.call_tool("append", {"topic": "logs", "records": ["x"]})).is_error

    _within(url, secret, body)


def test_without_sessions_every_request_stands_alone(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, mcp_stateless=True)) as url:
        answered = _post(url, INITIALIZE)
        assert answered.status_code == 200
        assert "mcp-session-id" not in answered.headers
        listed = _post(url, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, **{"mcp-protocol-version": "2025-11-25"})
        data = next(line for line in listed.text.splitlines() if line.startswith("data: {"))
        names = [tool["name"] for tool in json.loads(data[6:])["result"]["tools"]]
        assert "search" in names
        assert "append" not in names  # nobody said that agents may write


def test_the_servers_of_callers_end_when_the_daemon_closes_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.api.agents._MOST_CALLERS", 1)

    async def run() -> None:
        closing = asyncio.Event()
        agents = Agents(MemoryVerbs(), ServerSettings(), closing)  # type: ignore[arg-type]
        transport = httpx.ASGITransport(agents)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            assert (await http.post("/mcp", json=INITIALIZE, headers=HEADERS)).status_code == 200
        own = await agents._of(None)
        assert own is not None
        assert not own.task.done()
        closing.set()
        await asyncio.wait_for(own.task, 240)

    asyncio.run(run())


def test_without_an_entry_point_the_daemon_says_that_there_is_no_server(tmp_path: Path) -> None:
    async def run() -> int:
        agents = Agents(MemoryVerbs(), ServerSettings(), asyncio.Event(), find=lambda: None)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(agents), base_url="http://127.0.0.1") as http:
            return (await http.post("/mcp", json=INITIALIZE, headers=HEADERS)).status_code

    assert asyncio.run(run()) == 404


def test_a_token_has_a_rate_and_a_size_of_its_own(url: str, folder: Path) -> None:
    _, secret = tokens_of(folder).create("slow", ["logs"], requests_per_s=1, max_body_bytes=1000)
    bearer = {"authorization": f"Bearer {secret}"}
    assert httpx.post(f"{url}/v1/search", json={"q": "x" * 2000}, headers=bearer).status_code == 413
    eventually(lambda: httpx.get(f"{url}/v1/topics", headers=bearer).status_code == 200)
    replies: list[httpx.Response] = []

    def refused() -> bool:
        replies.append(httpx.get(f"{url}/v1/topics", headers=bearer))
        return replies[-1].status_code == 429

    eventually(refused)
    assert int(replies[-1].headers["retry-after"]) >= 1
