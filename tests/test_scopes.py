"""Tokens: how they are kept, and that nothing outside a token's topics is seen through any route, verb or tool."""

from __future__ import annotations

import asyncio
import inspect
import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp.client import Client

import headwater
from headwater.errors import AuthError, ConflictError, HeadwaterError, NotFoundError, StorageError, UsageError
from headwater.scoped import scoped
from headwater.tokens import FILE, Token, Tokens, tokens_of
from headwater.verbs import Verbs
from headwater_mcp import build
from memory_verbs import MemoryVerbs
from serving import serving, settings_in

SECRET = "zebrafinch"  # stands in everything that belongs to topic b, and in no request
A = Token("a", "", ("a", "team-*"), False, 0)


# ---------------------------------------------------------------------- how tokens are kept


def test_a_token_is_told_once_and_kept_as_a_hash_that_only_its_user_reads(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path)
    made, secret = tokens.create("ci", ["logs", "team-*"], write=True, ttl_s=60)
    assert secret.startswith("hw_")
    assert len(secret) > 40
    text = (tmp_path / FILE).read_text()
    assert secret not in text
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    again = tokens_of(tmp_path)
    assert again.find(secret) == made == again.all()[0]
    assert again.find(secret + "x") is None
    assert made.sees("logs")
    assert made.sees("team-x")
    assert not made.sees("logs2")


def test_a_token_that_is_revoked_or_expired_is_refused_at_once(tmp_path: Path) -> None:
    now = [1000.0]
    tokens = Tokens(tmp_path / FILE, clock=lambda: now[0])
    other = Tokens(tmp_path / FILE, clock=lambda: now[0])
    _, brief = tokens.create("brief", ["a"], ttl_s=10)
    _, long = tokens.create("long", ["a"])
    assert other.find(brief) is not None
    now[0] += 11
    assert other.find(brief) is None
    assert other.find(long) is not None
    assert tokens.revoke("long").name == "long"
    assert other.find(long) is None
    with pytest.raises(NotFoundError, match="headwater tokens list"):
        tokens.revoke("long")


@pytest.mark.parametrize(
    ("name", "topics", "options"),
    [("", ["a"], {}), ("x y", ["a"], {}), ("n", [], {}), ("n", ["a/b"], {}), ("n", ["*a"], {}), ("n", [""], {}),
     ("n", ["a"], {"ttl_s": 0}), ("n", ["a"], {"requests_per_s": -1}), ("n", ["a"], {"max_body_bytes": 0})],
)  # fmt: skip
def test_a_token_that_makes_no_sense_is_refused(tmp_path: Path, name: str, topics: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        tokens_of(tmp_path).create(name, topics, **options)
    assert not (tmp_path / FILE).exists()


def test_names_are_given_once_and_a_damaged_file_lets_nobody_in(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path)
    tokens.create("n", ["a"])
    with pytest.raises(ConflictError):
        tokens.create("n", ["b"])
    (tmp_path / FILE).write_text("{half")
    with pytest.raises(StorageError, match="tokens"):
        tokens.all()
    with serving(settings_in(tmp_path)) as url:
        assert httpx.get(f"{url}/v1/topics").status_code == 507


# ---------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """The URL, a token that reads topic a, one that writes to it. Topic b holds the secret wherever a topic can."""
    path = tmp_path_factory.mktemp("scopes")
    tokens = tokens_of(path)
    _, admin = tokens.create("admin", ["*"], write=True)
    _, reader = tokens.create("reader", ["a", "team-*"])
    _, writer = tokens.create("writer", ["a", "team-*"], write=True)
    with serving(settings_in(path)) as url:
        with headwater.connect(url, admin) as hw:
            hw.append("a", [{"value": f"payment {n} failed", "key": "k"} for n in range(5)], wait="searchable", timeout_s=240)
            b = f"b-{SECRET}"
            hw.append(
                b,
                [{"value": f"payment failed {SECRET}", "key": SECRET, "attributes": {SECRET: SECRET}}],
                wait="searchable",
                timeout_s=240,
            )
            hw.add_watch(f"{SECRET} payment", name=SECRET, topics=[b])
            hw.add_watch("payment", name="everything")
        yield url, reader, writer


def _operations(url: str, token: str) -> list[tuple[str, str, dict[str, Any]]]:
    api = httpx.get(f"{url}/openapi.json", headers={"authorization": f"Bearer {token}"}).json()
    return [(method.upper(), path, one) for path, of in api["paths"].items() for method, one in of.items()]


BODIES: dict[str, Any] = {
    "/v1/search": {"q": "payment failed"}, "/v1/search/batch": {"queries": [{"q": "payment"}, {"q": "x", "topics": ["b"]}]},
    "/v1/ask": {"question": "which payment failed?"}, "/v1/watches": {"q": "payment"}, "/v1/embed": {"texts": ["x"]},
}  # fmt: skip


@pytest.mark.parametrize("topic", ["a", f"b-{SECRET}"])
def test_no_route_shows_a_token_what_is_outside_its_topics(served: tuple[str, str, str], topic: str) -> None:
    url, reader, writer = served
    tried = 0
    for token in (reader, writer):
        with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=240) as http:
            for method, path, operation in _operations(url, token):
                if path.startswith("/v1/hooks") or path.endswith(("/tail", "/events", "/live")):
                    continue  # a hook is signed instead; streams are tested by name
                filled = (
                    path.replace("{topic}", topic).replace("{partition}", "0").replace("{offset}", "0").replace("{name}", topic)
                )
                filled = filled.replace("{id}", "1")
                query = {p["name"]: {"timeout": 0, "topics": topic}[p["name"]] for p in operation.get("parameters", [])
                         if p["name"] in ("timeout", "topics") and (topic != "a" or p["name"] == "timeout")}  # fmt: skip
                body = BODIES.get(path, {"records": []}) if method in ("POST", "PUT", "PATCH") else None
                reply = http.request(method, url + filled, json=body, params=query)
                # what the caller itself wrote, the topic's name, may come back; nothing else
                said = reply.text.replace(f"b-{SECRET}", "") if topic != "a" else reply.text
                assert SECRET not in said, (method, filled, reply.text[:500])
                assert reply.status_code < 500, (method, filled, reply.text[:500])
                if topic != "a" and "{topic}" in path:
                    assert reply.status_code in (401, 403, 404, 422), (method, filled, reply.status_code)
                tried += 1
    assert tried > 60
    with headwater.connect(url, reader) as hw:
        assert [t.name for t in hw.topics()] == ["a"]


def test_searching_asking_watching_and_following_keep_to_the_scope(served: tuple[str, str, str]) -> None:
    url, reader, _ = served
    with headwater.connect(url, reader) as hw:
        assert {hit.topic for hit in hw.search("payment failed", top_k=50)} == {"a"}
        assert SECRET not in repr(hw.ask("which payment failed?"))
        assert SECRET not in repr(hw.status())
        assert hw.status().webhooks == {}  # those of others are not counted
        with pytest.raises(NotFoundError):
            hw.search("x", topics=[f"b-{SECRET}"])
        with pytest.raises(NotFoundError):
            hw.read(f"b-{SECRET}/0/0")
        with pytest.raises(NotFoundError):
            hw.add_watch("x", like=f"b-{SECRET}/0/0")
        with pytest.raises(NotFoundError):
            next(hw.tail(f"b-{SECRET}", from_start=True))
        made = hw.add_watch("payment", name="mine", since="1h")
        assert made.topics == ("a",)
        assert made.name in [w.name for w in hw.watches()]
        assert not {"everything", SECRET} & {w.name for w in hw.watches()}
        assert hw.watch("mine").id == made.id
        assert SECRET not in repr(hw.wait(made.id, timeout=5))
        for id in ("everything", SECRET, 1):
            with pytest.raises(NotFoundError):
                hw.wait(id, timeout=0)
        hw.remove_watch("mine")
        with pytest.raises(AuthError):
            hw.append("a", ["x"])


def test_a_token_that_writes_does_so_in_its_topics_alone_and_manages_nothing(served: tuple[str, str, str]) -> None:
    url, _, writer = served
    with headwater.connect(url, writer) as hw:
        hw.append("team-x", ["hello"])
        for topic in (f"b-{SECRET}", "other"):
            with pytest.raises(AuthError):
                hw.append(topic, ["x"])
        for forbidden in (
            lambda: hw.delete_topic("a"),
            lambda: hw.purge_topic("a"),
            lambda: hw.delete_records("a", offset=0),
            lambda: hw.set_topic("a", retention_records=1),
            lambda: hw.rebuild_index("a"),
            lambda: hw.delete_index("a"),
            lambda: hw.add_source(path="/etc/passwd"),
            lambda: hw.drop_dead_letter(1),
        ):
            with pytest.raises(AuthError):
                forbidden()
    refused = httpx.delete(f"{url}/v1/topics/a", headers={"authorization": f"Bearer {writer}"})
    assert refused.status_code == 403  # known, and not allowed


# ---------------------------------------------------------------------- verbs and tools


def test_a_verb_that_nobody_has_thought_about_is_refused() -> None:
    class More(MemoryVerbs):
        async def everything(self) -> str:
            return SECRET

    async def run() -> None:
        verbs: Any = scoped(More(), A)  # type: ignore[arg-type]
        with pytest.raises(AuthError):
            await verbs.everything()
        with pytest.raises(AuthError, match="model"):
            await verbs.ask("x", topics=["a"], model="openai:x")

    asyncio.run(run())
    assert scoped(MemoryVerbs(), None).__class__ is MemoryVerbs  # type: ignore[arg-type]


def test_every_verb_is_scoped_or_refused() -> None:
    from headwater import scoped as module

    of_parts = set(vars(module._Scoped(MemoryVerbs(), A)))  # type: ignore[arg-type]
    by_hand = of_parts | {name for name, _ in inspect.getmembers(module._Scoped, inspect.isfunction)}
    tables = module._OF_A_TOPIC | module._STREAM_OF_A_TOPIC | module._WRITING | module._OF_TOPICS | module._OF_NO_TOPIC
    verbs = {name for name, _ in inspect.getmembers(Verbs, inspect.isfunction) if not name.startswith("_")}
    assert tables <= verbs
    assert not (tables & by_hand)
    open_to_tokens = (by_hand | tables) & verbs
    refused = verbs - open_to_tokens
    assert {"delete_topic", "purge_topic", "delete_records", "set_topic", "add_source", "replay_dead_letter"} <= refused


def test_agents_of_a_token_see_its_topics_alone_in_tools_resources_and_errors() -> None:
    async def run() -> None:
        verbs = MemoryVerbs()
        await verbs.append("a", ["payment failed"])
        await verbs.append(f"b-{SECRET}", [f"payment {SECRET}"])
        async with Client(build(scoped(verbs, A))) as client:  # type: ignore[arg-type]
            said = []
            for name, arguments in (
                ("topics", {}), ("search", {"q": "payment"}), ("patterns", {"topic": "a"}), ("ask", {"question": "payment?"}),
                ("status", {}), ("timeline", {}), ("read", {"address": "nope/0/0"}), ("patterns", {"topic": "nope"}),
                ("similar", {"address": "a/0/0"}), ("watch", {}),
            ):  # fmt: skip
                said.append(str((await client.call_tool(name, arguments)).content))
            said.append(str(await client.list_resources()))
            said.append(str(await client.read_resource("headwater://topics")))
            assert "payment failed" in "".join(said)
            assert SECRET not in json.dumps(said)
            hidden = await client.call_tool("read", {"address": f"b-{SECRET}/0/0"})
            assert hidden.is_error

    asyncio.run(run())


def test_a_token_without_a_topic_yet_sees_nothing_instead_of_everything() -> None:
    async def run() -> None:
        verbs = MemoryVerbs()
        await verbs.append("b", [SECRET])
        within = scoped(verbs, A)  # type: ignore[arg-type]
        assert await within.topics() == []
        for call in (within.search(SECRET), within.ask(SECRET), within.timeline(SECRET)):
            with pytest.raises(HeadwaterError):
                await call

    asyncio.run(run())


def test_an_answer_that_is_streamed_keeps_to_the_scope(served: tuple[str, str, str]) -> None:
    url, reader, _ = served
    asked = {"question": "which payment failed?", "stream": True}
    reply = httpx.post(f"{url}/v1/ask", json=asked, headers={"authorization": f"Bearer {reader}"}, timeout=240)
    assert "event: done" in reply.text
    assert "payment" in reply.text
    assert SECRET not in reply.text
    elsewhere = httpx.post(f"{url}/v1/ask", json={**asked, "model": "rehearsal"}, headers={"authorization": f"Bearer {reader}"})
    assert "event: done" not in elsewhere.text


# ---------------------------------------------------------------------- conversations, pipelines, extract, investigations


def test_a_conversation_belongs_to_the_token_that_made_it(served: tuple[str, str, str]) -> None:
    url, reader, writer = served
    with headwater.connect(url, reader) as mine, headwater.connect(url, writer) as other:
        mine.ask("which payment failed?", conversation="talk")
        assert [c.id for c in mine.conversations()] == ["talk"]
        assert [m.role for m in mine.messages("talk")] == ["user", "assistant"]
        assert len(mine.answers(conversation="talk")) == 1
        assert mine.set_conversation("talk", title="payments").title == "payments"
        assert other.conversations() == []
        for look in (other.conversation, other.messages, other.remove_conversation):
            with pytest.raises(NotFoundError, match="'talk'"):
                look("talk")
        assert other.create_conversation("talk").id == "talk"  # another one, of the same name
        assert other.messages("talk") == []
        other.remove_conversation("talk")
        assert mine.conversation("talk").messages == 2
        for forbidden in (
            lambda: mine.create_conversation("dear", model="openai:x"),
            lambda: mine.set_conversation("talk", model="openai:x"),
            mine.answers,
        ):
            with pytest.raises(AuthError):
                forbidden()
        mine.remove_conversation("talk")


def test_a_token_given_the_name_of_an_earlier_one_has_none_of_its_conversations() -> None:
    async def run() -> None:
        verbs = MemoryVerbs()
        await verbs.append("a", ["payment failed"])
        before = scoped(verbs, A)  # type: ignore[arg-type]
        await before.create_conversation("talk")
        after = scoped(verbs, replace(A, digest="another"))  # type: ignore[arg-type]
        assert [c.id for c in await before.conversations()] == ["talk"]
        assert await after.conversations() == []

    asyncio.run(run())


def test_pipelines_of_topics_in_scope_are_seen_and_with_the_right_to_write_made(served: tuple[str, str, str]) -> None:
    url, reader, writer = served
    local = [{"classify": {"labels": {"money": "payments", "other": "all else"}, "method": "zero-shot"}}]
    b = f"b-{SECRET}"
    with headwater.connect(url, reader) as reads, headwater.connect(url, writer) as writes:
        writes.create_pipeline("mine", {"topics": ["a"], "output": "team-labels", "steps": local}, start=False)
        assert [p.name for p in reads.pipelines()] == ["mine"]
        assert reads.pipeline("mine").output == "team-labels"
        assert writes.stop_pipeline("mine").state == "stopped"
        assert reads.trace_pipeline("mine", "a/0/0").fields
        assert writes.backtest_pipeline("mine", records=5).records == 5
        outside: Any = [{"http": {"url": "http://203.0.113.9/"}}]
        for steps, topics, output in (
            (local, ["a"], b), (local, [b], "team-x"), (local, None, "team-x"), (outside, ["a"], "team-x"),
            ([{"summarize": {}}], ["a"], "team-x"), ([{"python": {"call": "x"}}], ["a"], "team-x"),
            ([{"parallel": [*local, *outside]}], ["a"], "team-x"), ([{"route": {"to": [{"topic": b}]}}], ["a"], "team-x"),
        ):  # fmt: skip
            spec = {"topics": topics, "output": output, "steps": steps}
            with pytest.raises((AuthError, NotFoundError)):
                writes.create_pipeline("other", {k: v for k, v in spec.items() if v is not None})
        for forbidden in (
            lambda: reads.create_pipeline("x", {"topics": ["a"], "output": "team-labels", "steps": local}),
            lambda: reads.delete_pipeline("mine"),
            lambda: reads.start_pipeline("mine"),
            lambda: list(reads.run_pipeline("x", ["text"], spec={"steps": outside})),
        ):
            with pytest.raises(AuthError):
                forbidden()
        writes.delete_pipeline("mine")
        assert reads.pipelines() == []


def test_a_pipeline_of_other_topics_is_neither_seen_nor_replaced_by_its_name() -> None:
    async def run() -> None:
        verbs = MemoryVerbs()
        await verbs.append("a", ["payment failed"])
        steps = [{"classify": {"labels": ["x", "y"], "method": "zero-shot"}}]
        await verbs.create_pipeline("theirs", {"topics": [f"b-{SECRET}"], "output": "c", "steps": steps})
        within = scoped(verbs, replace(A, write=True, topics=("a", "out")))  # type: ignore[arg-type]
        assert await within.pipelines() == []
        with pytest.raises(NotFoundError):
            await within.pipeline("theirs")
        with pytest.raises(ConflictError) as refused:
            await within.create_pipeline("theirs", {"topics": ["a"], "output": "out", "steps": steps})
        assert SECRET not in str(refused.value)

    asyncio.run(run())


def test_values_are_extracted_and_causes_investigated_within_the_scope(served: tuple[str, str, str]) -> None:
    url, reader, _ = served
    schema = {"type": "object", "properties": {"number": {"type": "string", "pattern": "[0-9]+"}}}
    with headwater.connect(url, reader) as hw:
        assert hw.extract(["payment 7 failed"], schema=schema, by="regex").results[0].value == {"number": "7"}
        found = hw.investigate("why did payments fail?")
        assert SECRET not in repr(found)
        assert {c.address.split("/")[0] for c in found.report.citations} <= {"a"}
        with pytest.raises(NotFoundError):
            hw.investigate("why?", topics=[f"b-{SECRET}"])
        for dear in ({"model": "rehearsal"}, {"max_tokens": 10}, {"max_cost": 1.0}):
            with pytest.raises(AuthError):
                hw.investigate("why?", **dear)
        with pytest.raises(AuthError):
            hw.extract(["x"], schema=schema, model="rehearsal")
