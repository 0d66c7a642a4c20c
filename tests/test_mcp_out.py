"""What goes out to agents: secrets taken out, memory signed, anomalies and labels told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mcp.client import Client
from mcp.types import Implementation

from headwater.errors import UnreachableError
from headwater.records import SourceInfo, Topic
from headwater.records.watches import Watch
from headwater.scoped import scoped
from headwater.tokens import Token
from headwater_mcp import build
from headwater_mcp.budget import tokens
from headwater_mcp.connect import connecting
from memory_verbs import MemoryVerbs

SECRETS = (
    "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "hunter2secret9", "xoxb-123456789012-abcdefghij",
)  # fmt: skip
LINES = (
    "aws key AKIAIOSFODNN7EXAMPLE used", "pushed with ghp_" + "a1B2" * 9, "login password=hunter2secret9 ok",
    "slack xoxb-123456789012-abcdefghij", "x" * 30_000 + " password=hunter2secret9 " + "y" * 30_000,
)  # fmt: skip


def _with(verbs: Any, body: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with Client(build(verbs, **options), client_info=Implementation(name="probe", version="1")) as client:
            try:
                await body(client)
            except AssertionError as error:
                failed.append(error)

    failed: list[AssertionError] = []
    asyncio.run(run())
    if failed:
        raise failed[0]


async def _call(client: Client, name: str, /, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    return str(result.content[0].text)  # type: ignore[union-attr]


async def _everything(client: Client) -> str:
    said = []
    for form in ("concise", "detailed"):
        for name, arguments in (
            ("search", {"q": "password login key pushed slack"}), ("search", {"q": ""}), ("patterns", {"topic": "logs"}),
            ("similar", {"address": "logs/0/2"}), ("ask", {"question": "password login key pushed slack?"}),
            ("anomalies", {}), ("read", {"address": "logs/0/2", "context": 4}), ("wait", {"id": "1"}), ("watch", {}),
        ):  # fmt: skip
            said.append(await _call(client, name, response_format=form, max_tokens=20_000, **arguments))
    said.append(await _call(client, "classify", labels=["login", "aws"], texts=list(LINES)))
    cursor: str | None = None
    for _ in range(60):
        page = await _call(client, "read", address="logs/0/4", max_tokens=2000, **({"cursor": cursor} if cursor else {}))
        said.append(page)
        if (found := re.search(r"next_cursor=(\S+?)\)", page)) is None:
            break
        cursor = found[1]
    for uri in ("headwater://topics/logs", "headwater://records/logs/0/2", "headwater://watches/1"):
        said.append(str((await client.read_resource(uri)).contents[0].text))  # type: ignore[union-attr]
    return "\n".join(said)


async def _filled() -> MemoryVerbs:
    verbs = MemoryVerbs()
    for line in LINES:
        await verbs.append("logs", [{"value": line, "key": line[:200], "attributes": {"level": "error", "note": line[:300]}}])
    await verbs.add_watch("password key pushed slack")
    return verbs


def test_secrets_in_records_do_not_go_out_by_any_tool_or_resource() -> None:
    async def body(client: Client) -> None:
        said = await _everything(client)
        for secret in SECRETS:
            assert secret not in said
        assert "[aws-key]" in said
        assert "[password]" in said

    _with(asyncio.run(_filled()), body)


def test_they_do_where_that_was_asked_for() -> None:
    async def body(client: Client) -> None:
        said = await _everything(client)
        assert all(secret in said for secret in SECRETS)

    _with(asyncio.run(_filled()), body, redact=False)


def test_a_record_shown_in_pages_is_whole_but_for_its_secrets() -> None:
    text = "\n".join(f"line {n} token AKIAIOSFODNN7EXAMPL{'ABCDEFGH'[n % 8]} and words" for n in range(400))

    async def body(client: Client) -> None:
        shown, cursor = "", None
        for _ in range(100):
            page = await _call(client, "read", address="logs/0/0", max_tokens=700, **({"cursor": cursor} if cursor else {}))
            found = re.search(r"<data-(\w+)>(.*?)</data-\1>", page, re.DOTALL)
            assert found is not None
            shown += found[2]
            if (following := re.search(r"next_cursor=(\S+?)\)", page)) is None:
                break
            cursor = following[1]
        assert shown == re.sub(r"AKIA\w{16}", "[aws-key]", text)

    verbs = MemoryVerbs()
    asyncio.run(verbs.append("logs", [text]))
    _with(verbs, body)


def test_an_agent_remembers_in_its_notes_with_who_wrote_them() -> None:
    verbs = MemoryVerbs()

    async def body(client: Client) -> None:
        noted = await _call(client, "append", records=["the pool was too small, see deploys/0/3"], wait="searchable")
        assert "notes/0/0" in noted
        await _call(client, "append", records=[{"value": "v", "attributes": {"agent": "somebody else", "k": "v"}}])
        found = await _call(client, "search", q="pool too small", topics="notes", response_format="detailed")
        assert "agent=probe" in found
        assert verbs.by_topic["notes"][1].attributes == {"agent": "probe", "k": "v"}

    _with(verbs, body, allow_write=True)


def test_the_notes_of_a_token_are_its_own() -> None:
    verbs = MemoryVerbs()
    ada, bob = (Token(name, "", ("logs",), True, 0) for name in ("ada", "bob"))

    async def write(client: Client) -> None:
        await _call(client, "append", records=["the vault opens at nine"])

    async def look(client: Client) -> None:
        assert "vault" not in await _call(client, "search", q="vault")
        assert (await client.call_tool("append", {"records": ["x"], "topic": "notes.ada"})).is_error

    async def again(client: Client) -> None:
        assert "vault opens at nine" in await _call(client, "search", q="vault")

    asyncio.run(verbs.append("logs", ["a"]))
    _with(scoped(verbs, ada), write, allow_write=True, who="token:ada")  # type: ignore[arg-type]
    assert list(verbs.by_topic) == ["logs", "notes.ada"]
    _with(scoped(verbs, bob), look, allow_write=True, who="token:bob")  # type: ignore[arg-type]
    _with(scoped(verbs, ada), again, allow_write=True, who="token:ada")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["concise", "detailed"])
def test_anomalies_say_how_odd_and_which_records(form: str) -> None:
    async def body(client: Client) -> None:
        said = await _call(client, "anomalies", response_format=form, severity="high")
        assert said.startswith("5 anomalies")
        assert "once in 30 days by chance, 5 a minute where 1 is usual" in said
        assert "records: logs/0/0" in said
        few = await _call(client, "anomalies", max_tokens=300)
        assert tokens(few) <= 300
        assert "next_cursor=" in few
        assert (await client.call_tool("anomalies", {"severity": "dreadful"})).is_error

    _with(asyncio.run(_filled()), body)


def test_texts_and_topics_are_sorted_into_labels() -> None:
    async def body(client: Client) -> None:
        said = await _call(client, "classify", labels=["slack", "login"], texts=["slack down", "login failed", "??"])
        assert [line.split(">")[1].split("<")[0] for line in said.splitlines()[2:4]] == ["slack", "login"]
        assert "[3] no label" in said
        counted = await _call(client, "classify", labels={"slack": "chat", "login": "passwords"}, topics="logs")
        assert "5 records" in counted

    _with(asyncio.run(_filled()), body)


def test_an_agent_labels_a_topic_from_now_on_and_only_where_it_may_write() -> None:
    verbs = asyncio.run(_filled())

    async def write(client: Client) -> None:
        said = await _call(client, "enrich", name="kinds", topics="logs", labels={"slack": "chat", "login": "passwords"})
        assert "pipeline kinds" in said
        assert "logs.kinds" in said
        assert (await client.call_tool("enrich", {"name": "x", "topics": "logs", "labels": ["one"]})).is_error

    async def read(client: Client) -> None:
        assert (await client.call_tool("enrich", {"name": "x", "topics": "logs", "labels": ["a", "b"]})).is_error

    _with(verbs, write, allow_write=True)
    _with(verbs, read)


def test_files_are_loaded_from_below_allowed_folders_alone(tmp_path: Path) -> None:
    class Loading(MemoryVerbs):
        loaded: ClassVar[list[str]] = []

        async def add_source(self, *, path: str, topic: str) -> list[SourceInfo]:
            self.loaded.append(path)
            return [SourceInfo(path, "file", topic, "following", 3, 0, None)]

    root, outside = tmp_path / "allowed", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "app.log").write_text("a\n")
    (outside / "secret.log").write_text("s\n")
    (root / ".hidden.log").write_text("h\n")
    (root / "link.log").symlink_to(outside / "secret.log")
    (root / "sub" / "fine.log").symlink_to(root / "app.log")

    async def write(client: Client) -> None:
        for path in (str(root / "app.log"), "app.log", "sub/fine.log", "sub"):
            assert "loading into logs" in await _call(client, "ingest", path=path, topic="logs")
        for path in (
            str(outside / "secret.log"), "../outside/secret.log", "link.log", ".hidden.log", "nope.log", "/etc/passwd",
            "sub/../../outside", "\x00", "~root/x",
        ):  # fmt: skip
            refused = await client.call_tool("ingest", {"path": path, "topic": "logs"})
            assert refused.is_error, path
            assert "secret" not in str(refused.content)

    async def without(client: Client) -> None:
        assert "ingest" not in [tool.name for tool in (await client.list_tools()).tools]

    _with(Loading(), write, allow_write=True, roots=[root])
    assert Loading.loaded == [str(root / "app.log")] * 3 + [str(root / "sub")]
    _with(Loading(), without, allow_write=True)
    _with(Loading(), without, roots=[root])


def test_a_call_that_finds_the_daemon_gone_does_not_end_others_that_are_under_way() -> None:
    class Connection(MemoryVerbs):
        def __init__(self) -> None:
            super().__init__()
            self.closed, self.release = False, asyncio.Event()

        async def topic(self, name: str) -> Topic:
            raise UnreachableError("gone")

        async def watches(self) -> list[Watch]:
            await self.release.wait()
            assert not self.closed, "closed under a call"
            return []

        async def aclose(self) -> None:
            self.closed = True

    async def run() -> None:
        made: list[Connection] = []

        async def connect() -> Any:
            made.append(Connection())
            return made[-1]

        verbs = connecting(connect)
        slow = asyncio.create_task(verbs.watches())
        await asyncio.sleep(0)
        with pytest.raises(UnreachableError):
            await verbs.topic("x")
        assert len(made) == 2  # once more, with a connection of its own
        assert [one.closed for one in made] == [False, True]
        made[0].release.set()
        assert await slow == []
        assert made[0].closed
        await verbs.aclose()

    asyncio.run(run())
