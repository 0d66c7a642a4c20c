"""The log of calls: what agents call is kept, by whom, and nobody can change it afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import httpx
import pytest
from mcp.client import Client

import headwater
from headwater.errors import AuthError, UsageError
from headwater.tokens import tokens_of
from headwater_mcp import build
from headwater_mcp.noting import digest
from memory_verbs import MemoryVerbs
from serving import serving, settings_in

HASH = digest({"q": "x"})


def test_calls_are_kept_in_order_and_survive_a_restart(tmp_path: Path) -> None:
    with headwater.open(tmp_path) as hw:
        for n in range(5):
            hw.note_call("me", f"tool{n}", arguments=HASH, size=n, seconds=0.5, failed=n == 4)
    with headwater.open(tmp_path) as hw:
        found = hw.calls(limit=3)
        assert [call.tool for call in found] == ["tool4", "tool3", "tool2"]
        assert [call.failed for call in found] == [True, False, False]
        assert [call.tool for call in hw.calls(before=found[-1].n)] == ["tool1", "tool0"]
        assert found[0].arguments == HASH
        for wrong in ({"arguments": "x"}, {"arguments": HASH, "size": -1}, {"arguments": HASH, "seconds": float("inf")}):
            with pytest.raises(UsageError):
                hw.note_call("me", "t", **wrong)
        with pytest.raises(UsageError):
            hw.calls(limit=0)


def test_what_is_kept_cannot_be_changed_or_removed_even_in_the_database(tmp_path: Path) -> None:
    with headwater.open(tmp_path) as hw:
        hw.note_call("me", "search", arguments=HASH)
    db = apsw.Connection(str(tmp_path / "log.db"))
    for statement in ("DELETE FROM tool_call", "UPDATE tool_call SET who = 'you'", "INSERT OR REPLACE INTO tool_call "
                      "VALUES(1, 0, 'you', 't', 'x', 0, 0, 0)"):  # fmt: skip
        db.pragma("recursive_triggers", True)
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            db.execute(statement)
    db.close()


def test_every_call_of_an_agent_is_kept_with_who_and_without_its_arguments() -> None:
    async def run() -> None:
        verbs = MemoryVerbs()
        await verbs.append("logs", ["a"])
        async with Client(build(verbs, who="token:ci")) as client:  # type: ignore[arg-type]
            await client.call_tool("search", {"q": "my secret words"})
            await client.call_tool("search", {"nonsense": 1})
            await client.call_tool("drop_everything", {})
            await client.read_resource("headwater://topics")
        assert [(call.tool, call.failed) for call in verbs.noted] == [
            ("search", False), ("search", True), ("drop_everything", True), ("resources/read", False),
        ]  # fmt: skip
        assert all(call.who.startswith("token:ci ") and call.size > 0 for call in verbs.noted)
        assert verbs.noted[0].arguments == digest({"q": "my secret words"})
        assert "secret words" not in repr(verbs.noted)

    asyncio.run(run())


def test_a_token_adds_under_its_own_name_and_reads_nothing(tmp_path: Path) -> None:
    _, secret = tokens_of(tmp_path).create("ci", ["a"])
    _, other = tokens_of(tmp_path).create("other", ["a"])
    with serving(settings_in(tmp_path, api_key=headwater.config.SecretStr("k"))) as url:
        with headwater.connect(url, secret) as hw:
            hw.note_call("token:other", "search", arguments=HASH)
            with pytest.raises(AuthError):
                hw.calls()
        with headwater.connect(url, "k") as hw:
            assert [call.who for call in hw.calls()] == ["token:ci token:other"]
        assert httpx.get(f"{url}/v1/calls", headers={"authorization": f"Bearer {other}"}).status_code == 403
