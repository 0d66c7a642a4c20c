"""Resources, subscriptions, prompts, completions, progress and cancellation, in both protocol revisions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp.types import PromptReference, ResourceTemplateReference

from headwater.errors import HeadwaterError, UnreachableError
from headwater.records import Topic
from headwater.records.watches import Woken
from headwater_mcp import build
from headwater_mcp.budget import tokens
from headwater_mcp.updates import Updates
from memory_verbs import MemoryVerbs

MODES = ["auto", "legacy"]


async def _filled() -> MemoryVerbs:
    verbs = MemoryVerbs()
    await verbs.append(
        "logs", [{"value": f"payment {n} failed", "attributes": {"level": "error", "service": "pay ments"}} for n in range(40)]
    )
    await verbs.append("tickets", [{"value": "charged twice", "key": "u1"}])
    await verbs.add_watch("payment")
    return verbs


def _with(
    body: Callable[[Client, MemoryVerbs], Awaitable[None]], mode: str, verbs: MemoryVerbs | None = None, **options: Any
) -> None:
    async def run() -> None:
        held = verbs or await _filled()

        async def pause(seconds: float) -> None:
            await asyncio.sleep(min(seconds, 0.01))

        server = build(held, updates=Updates(held, pause=pause, idle_s=0.02))
        async with Client(server, mode=mode, **options) as client:
            try:
                async with asyncio.timeout(240):
                    await body(client, held)
            except AssertionError as error:
                failed.append(error)

    failed: list[AssertionError] = []
    asyncio.run(run())
    if failed:
        raise failed[0]


async def _text(client: Client, uri: str) -> str:
    found = (await client.read_resource(uri)).contents[0]
    assert found.mime_type == "text/plain"
    return str(found.text)  # type: ignore[union-attr]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(240):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("mode", MODES)
def test_topics_records_and_watches_are_read_by_their_uri(mode: str) -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        listed = [str(r.uri) for r in (await client.list_resources()).resources]
        assert listed == [
            "headwater://topics",
            "headwater://topics/logs",
            "headwater://topics/tickets",
            "headwater://watches/1",
        ]
        templates = {t.uri_template for t in (await client.list_resource_templates()).resource_templates}
        assert templates >= {
            "headwater://topics/{topic}", "headwater://records/{topic}/{partition}/{offset}", "headwater://watches/{id}",
        }  # fmt: skip
        for uri in listed:
            assert tokens(await _text(client, uri)) < 8000
        assert "payment <*> failed" in await _text(client, "headwater://topics/logs")
        record = await _text(client, "headwater://records/tickets/0/0")
        assert re.search(r"<data-(\w+)>charged twice</data-\1>", record)
        assert "40 hits" in await _text(client, "headwater://watches/1") or "hits" in await _text(
            client, "headwater://watches/1"
        )

    _with(body, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "uri", ["headwater://topics/nope", "headwater://records/logs/0/9999", "headwater://records/logs/x/y", "headwater://watches/9",
            "file:///etc/passwd", "headwater://topics/..%2Fx", "headwater://"],
)  # fmt: skip
def test_what_is_not_there_is_an_error_that_says_so(mode: str, uri: str) -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
        assert caught.value.error.code == -32602
        assert len(caught.value.error.message) < 400

    _with(body, mode)


@pytest.mark.filterwarnings("ignore:resources/")
def test_a_session_of_2025_is_told_of_the_resources_it_subscribed_to_and_of_list_changes() -> None:
    told: list[tuple[str, str | None]] = []

    async def hear(message: Any) -> None:
        method = getattr(message, "method", "")
        if method.startswith("notifications/resources"):
            told.append((method.rpartition("/")[2], getattr(message.params, "uri", None) and str(message.params.uri)))

    async def body(client: Client, verbs: MemoryVerbs) -> None:
        assert client.server_capabilities is not None
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe
        assert client.server_capabilities.resources.list_changed
        await client.subscribe_resource("headwater://topics/logs")
        await verbs.append("logs", ["one more"])
        await _until(lambda: ("updated", "headwater://topics/logs") in told)
        assert ("updated", "headwater://topics") not in told
        await verbs.append("deploys", ["pool 20 to 8"])
        await _until(lambda: ("list_changed", None) in told)
        await client.unsubscribe_resource("headwater://topics/logs")
        told.clear()
        await client.subscribe_resource("headwater://topics/tickets")
        await verbs.append("logs", ["unheard"])
        await verbs.append("tickets", ["heard"])
        await _until(lambda: ("updated", "headwater://topics/tickets") in told)
        assert ("updated", "headwater://topics/logs") not in told
        with pytest.raises(MCPError, match="not a resource"):
            await client.subscribe_resource("http://169.254.169.254/")

    _with(body, "legacy", message_handler=hear)


def test_a_listener_of_2026_is_told_of_what_it_asked_for() -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        async with client.listen(
            resources_list_changed=True, resource_subscriptions=["headwater://topics/logs", "headwater://topics/deploys"]
        ) as stream:
            events = stream.__aiter__()
            await verbs.append("logs", ["one more"])
            assert getattr(await anext(events), "uri", None) == "headwater://topics/logs"
            await verbs.append("tickets", ["not asked for"])
            await verbs.append("deploys", ["pool 20 to 8"])
            kinds = {type(await anext(events)).__name__, type(await anext(events)).__name__}
            assert kinds == {"ResourcesListChanged", "ResourceUpdated"}

    _with(body, "auto")


def test_what_changed_while_the_daemon_was_away_is_told_when_it_is_back() -> None:
    class Away(MemoryVerbs):
        away = False

        async def topics(self) -> list[Topic]:
            if self.away:
                raise UnreachableError("no daemon")
            return await super().topics()

    async def body(client: Client, verbs: MemoryVerbs) -> None:
        assert isinstance(verbs, Away)
        await verbs.append("logs", ["a"])
        async with client.listen(resource_subscriptions=["headwater://topics/logs"]) as stream:
            verbs.away = True
            await verbs.append("logs", ["b"])
            assert [r.name for r in (await client.list_resources()).resources] == ["topics"]
            verbs.away = False
            assert (await anext(stream.__aiter__())).uri == "headwater://topics/logs"  # type: ignore[union-attr]

    _with(body, "auto", Away())


@pytest.mark.parametrize("mode", MODES)
def test_prompts_lead_an_agent_through_the_tools(mode: str) -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        listed = {p.name: p for p in (await client.list_prompts()).prompts}
        assert set(listed) == {"investigate", "whats_new", "summarise_topic", "post_mortem"}
        given = {"investigate": {"what": "card payments fail"}, "whats_new": {}, "summarise_topic": {"topic": "logs"},
                 "post_mortem": {"what": "the outage", "since": "2h", "until": "1h"}}  # fmt: skip
        served = {tool.name for tool in (await client.list_tools()).tools} | {"anomalies"}
        for name, arguments in given.items():
            assert listed[name].description
            required = {a.name for a in listed[name].arguments or [] if a.required}
            assert required <= set(arguments)
            text = str((await client.get_prompt(name, arguments)).messages[0].content.text)  # type: ignore[union-attr]
            assert all(value in text for value in arguments.values())
            assert set(re.findall(r"`([a-z]+)`", text)) <= served
            assert tokens(text) < 500

    _with(body, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_that_cannot_be_made_says_what_it_takes_and_nothing_of_what_was_given(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        for name, arguments, says in (
            ("nope", {}, "there are investigate"), ("summarise_topic", {}, "topic is missing"),
            ("summarise_topic", {"topic": "logs", "hunter2": "x"}, "takes topic, since (optional), and nothing else"),
            ("investigate", {"what": "hunter2" * 1000}, "takes what"),
        ):  # fmt: skip
            with pytest.raises(MCPError) as refused:
                await client.get_prompt(name, arguments)
            assert refused.value.error.code == -32602
            assert says in str(refused.value)
            assert "hunter2" not in str(refused.value)
        assert "Traceback" not in caplog.text  # whoever asks wrongly fills no log

    _with(body, mode)


@pytest.mark.parametrize("mode", MODES)
def test_topics_places_fields_and_values_are_completed(mode: str) -> None:
    async def completed(client: Client, ref: Any, name: str, value: str, **given: str) -> list[str]:
        reply = await client.complete(ref, {"name": name, "value": value}, context_arguments=given or None)
        return list(reply.completion.values)

    async def body(client: Client, verbs: MemoryVerbs) -> None:
        record = ResourceTemplateReference(uri="headwater://records/{topic}/{partition}/{offset}")
        prompt = PromptReference(name="investigate")
        assert await completed(client, record, "topic", "t") == ["tickets"]
        assert await completed(client, record, "partition", "", topic="logs") == ["0"]
        assert (await completed(client, record, "offset", "3", topic="logs"))[0] == "39"
        assert await completed(client, record, "offset", "", topic="nope") == []
        assert await completed(client, ResourceTemplateReference(uri="headwater://watches/{id}"), "id", "") == ["1"]
        assert await completed(client, prompt, "topics", "tickets,l") == ["tickets,logs"]
        assert await completed(client, prompt, "since", "2") == ["2h", "24h"]
        assert await completed(client, prompt, "q", "level:e") == ["level:error"]
        assert await completed(client, prompt, "q", "ser") == ["service:"]
        assert await completed(client, prompt, "q", "level:error service:p") == ['level:error service:"pay ments"']
        assert await completed(client, prompt, "what", "x") == []

    _with(body, mode)


class Slow(MemoryVerbs):
    """Its `wait` takes as long as it is given, or until `enough`, and says when it was given up."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.given_up, self.enough = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(self, id: int | str, *, cursor: str | None = None, timeout: float | None = 25, limit: int = 100) -> Woken:
        self.waiting.set()
        try:
            await asyncio.wait_for(self.enough.wait(), timeout or 0.001)
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        except TimeoutError:
            pass
        return Woken("w1", (), "0", True)


@pytest.mark.parametrize("mode", MODES)
def test_a_long_call_tells_its_progress(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater_mcp.server._PROGRESS_S", 0.02)
    told: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        assert message is not None
        told.append((done, total))
        if len(told) > 2:
            slow.enough.set()

    async def body(client: Client, verbs: MemoryVerbs) -> None:
        await client.call_tool("wait", {"id": "1", "timeout": 25}, progress_callback=progress)
        assert len(told) > 2
        assert told == sorted(told)
        assert {total for _, total in told} == {25}

    slow = Slow()
    _with(body, mode, slow)


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_cancelled_ends_and_the_server_goes_on(mode: str) -> None:
    async def body(client: Client, verbs: MemoryVerbs) -> None:
        assert isinstance(verbs, Slow)
        call = asyncio.create_task(client.call_tool("wait", {"id": "1", "timeout": 25}))
        await verbs.waiting.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(240):
            await verbs.given_up.wait()
        assert not (await client.call_tool("topics", {})).is_error

    _with(body, mode, Slow())


def test_a_failure_of_a_resource_says_what_to_do() -> None:
    class Failing(MemoryVerbs):
        async def topics(self) -> list[Topic]:
            raise HeadwaterError("the sky fell")

    async def body(client: Client, verbs: MemoryVerbs) -> None:
        with pytest.raises(MCPError, match="the sky fell"):
            await client.read_resource("headwater://topics")

    _with(body, "auto", Failing())
