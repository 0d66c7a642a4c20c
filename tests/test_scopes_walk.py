"""Every route and every tool, walked with a narrow token and hostile arguments: nothing of another topic comes back.

The routes are those of the OpenAPI, their arguments are filled in by name, so a route that is added later is walked too.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.types import ResourceTemplateReference
from pydantic import SecretStr

import headwater
from headwater.scoped import scoped
from headwater.tokens import Token, tokens_of
from headwater_mcp import build
from serving import serving, settings_in

SECRET = "zebrafinch"  # stands in all that belongs to the other topic, and in no request
OTHER = "outside"
RECORDS = 3971  # of the other topic
COUNTS = re.compile(r"(?<![\w.:-])39[67]\d(?![\w.-])")  # its counts and offsets, alone or with those in scope


@dataclass(frozen=True, slots=True)
class Attack:
    """How the arguments of every request are filled in."""

    name: str
    q: str = "payment"
    topics: Any = None
    place: str = "mine/0/0"
    after: str | None = None

    def value(self, name: str, schema: dict[str, Any]) -> Any:
        """What an argument of that name gets; None leaves it out."""
        known: dict[str, Any] = {
            "q": self.q, "question": f"which {self.q} failed?", "topics": self.topics, "like": self.place,
            "thread": self.place, "address": self.place, "texts": [self.q], "labels": ["good", "bad"],
            "vector": [0.1, 0.2] * 192,
            "queries": [{"q": self.q, "topics": self.topics}, {"q": self.q}, {"q": self.q, "topics": ()}],
            "records": [{"value": "payment one failed"}], "prompt": "hello", "schema": {"type": "object", "properties": {}},
            "after": self.after, "as_of": None, "alert_topic": OTHER, "alerts": [OTHER, "*"], "watches": ["*"],
            "explain": True, "context": 100, "alike": 100, "offset": 0, "partition": 0, "timeout": 0, "wait": "stored",
            "since": "1h", "new_since": "1h", "buckets": 5, "quiet": True, "dismissed": True, "fields": None, "limit": 500,
            "versions": True, "dry_run": True, "name": OTHER, "step": "cancel", "verdict": "anomaly", "who": "token:admin",
            "tool": "x", "arguments": "0" * 64, "topic": OTHER, "path": "/etc", "url": "http://example.org", "steps": 4,
            "from_start": True, "spec": {"topics": [OTHER], "output": "mine", "steps": [{"classify": {"labels": ["x", "y"]}}]},
            "source": "s", "include": ["vector"], "conversation": "c1", "timeout_s": 20, "last-event-id": None,
        }  # fmt: skip
        if name in known:
            return known[name]
        return {"string": "x", "integer": 1, "array": [], "object": {}}.get(schema.get("type", ""))


ATTACKS = (
    Attack("plain"),
    Attack("an empty list of topics", topics=[]),
    Attack("a query that names the topic", q=f"payment topic:{OTHER}"),
    Attack("a query that names both", q=f"payment topic:{OTHER} topic:mine", topics=["mine"]),
    Attack("a query that excludes its own", q="payment -topic:mine", topics=["mine"]),
    Attack("a query of a beginning", q="payment topic:out*", topics=["mine"]),
    Attack("topics that name it", topics=["mine", OTHER]),
    Attack("a place in it", place=f"{OTHER}/0/0", after=f"{OTHER}:0,mine:0"),
)
HEARD = [attack for attack in ATTACKS if "-topic" not in attack.q and "*" not in attack.q]  # the others find nothing at all
FILLED = frozenset(
    ("topics", "topic", "q", "like", "thread", "address", "since", "new_since", "after", "alert_topic", "spec", "explain",
     "context", "alike", "timeout", "quiet", "dismissed", "versions", "dry_run", "from_start", "include", "steps", "buckets",
     "limit")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    reader: str
    writer: str
    admin: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon with a topic in scope and another that holds the secret wherever a topic can."""
    path = tmp_path_factory.mktemp("walk")
    tokens = tokens_of(path)
    admin = "the-api-key-of-the-walk"
    _, reader = tokens.create("reader", ["mine"])
    _, writer = tokens.create("writer", ["mine"], write=True)
    with serving(settings_in(path, api_key=SecretStr(admin))) as url:
        with headwater.connect(url, admin) as hw:
            hw.append(
                "mine", [{"value": f"payment {n} failed", "key": "k"} for n in range(5)], wait="searchable", timeout_s=240
            )
            hidden = [
                {"value": f"payment {n} failed for {SECRET}", "key": SECRET, "attributes": {SECRET: SECRET}}
                for n in range(RECORDS)
            ]
            hw.append(OTHER, hidden, wait="searchable", timeout_s=240)
            hw.add_watch(f"{SECRET} payment", name=SECRET, topics=[OTHER], since="1h")
            hw.add_watch("payment", name="everything", since="1h")
            hw.set_detecting(OTHER)
            hw.set_detecting("mine", alert_topic=f"{SECRET}-alerts")
            spec = {"topics": [OTHER], "output": f"{SECRET}.out", "steps": [{"classify": {"labels": [SECRET, "x"]}}]}
            hw.create_pipeline(f"p-{SECRET}", spec, start=False)
            hw.create_conversation(f"c-{SECRET}", title=SECRET)
            hw.ask(f"what of {SECRET}?", topics=[OTHER])
        yield Served(url, reader, writer, admin)


def _operations(served: Served) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, Any]]:
    bearer = {"authorization": f"Bearer {served.reader}"}
    api = httpx.get(f"{served.url}/openapi.json", headers=bearer).json()
    found = [(method.upper(), path, one) for path, of in api["paths"].items() for method, one in of.items()]
    return found, api["components"]["schemas"]


def _request(
    attack: Attack, path: str, operation: dict[str, Any], schemas: dict[str, Any], topic: str
) -> tuple[str, dict[str, Any], Any]:
    """The path, the query parameters and the body of one operation."""
    for name, value in {"topic": topic, "partition": "0", "offset": "0", "name": f"p-{OTHER}", "id": f"{OTHER}-1"}.items():
        path = path.replace(f"{{{name}}}", value)
    query = {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "query" or (parameter["name"] not in FILLED and not parameter.get("required")):
            continue
        if (value := attack.value(parameter["name"], parameter["schema"])) is not None:
            query[parameter["name"]] = ",".join(value) if parameter["name"] == "topics" else value
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return path, query, None
    schema = content["schema"]
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    required = schema.get("required", ())
    body = {}
    for name, of in schema.get("properties", {}).items():
        if (name in required or name in FILLED) and (value := attack.value(name, of)) is not None:
            body[name] = value
    if path == "/v1/complete":
        body = {"prompt": "hello"}
    return path, query, body


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_route_of_the_api_tells_a_narrow_token_of_another_topic(served: Served, attack: Attack) -> None:
    operations, schemas = _operations(served)
    answered = 0
    for bearer in (served.reader, served.writer) if attack == ATTACKS[0] else (served.writer,):
        with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {bearer}"}, timeout=240) as http:
            for method, route, operation in operations:
                if route.endswith(("/tail", "/events", "/live")):
                    continue  # endless: walked below
                for topic in ("mine", OTHER) if "{topic}" in route else ("mine",):
                    path, query, body = _request(attack, route, operation, schemas, topic)
                    reply = http.request(method, path, params=query, json=body)
                    what = (attack.name, method, path, query, body, reply.status_code)
                    assert reply.status_code < 500, (*what, reply.text[:500])
                    assert SECRET not in reply.text, (*what, reply.text[:2000])
                    said = re.sub(r'"pid":\d+', "", reply.text) if not path.endswith("metrics") else _of_topics(reply.text)
                    assert not COUNTS.search(said), (*what, reply.text[:2000])
                    answered += reply.status_code < 400
    assert answered > 15
    with headwater.connect(served.url, served.admin) as hw:
        assert hw.topic(OTHER).records == RECORDS  # nothing was written or removed there
        assert {w.name for w in hw.watches()} >= {SECRET, "everything"}


def _of_topics(page: str) -> str:
    """The lines of a metrics page that count what is stored, not the process; its numbers as they are elsewhere."""
    lines = (line.removesuffix(".0") for line in page.splitlines())
    return "\n".join(line for line in lines if line.startswith("headwater_") and "_request_" not in line)


def test_the_walk_would_see_the_counts_that_it_looks_for(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers={"authorization": f"Bearer {served.admin}"}, timeout=240) as http:
        assert COUNTS.search(_of_topics(http.get("/metrics").text))
        assert COUNTS.search(http.get("/v1/topics").text)


@pytest.mark.parametrize("attack", HEARD, ids=lambda attack: attack.name)
def test_no_stream_tells_a_narrow_token_of_another_topic(served: Served, attack: Attack) -> None:
    """A record of the other topic comes before one in scope: whoever is sent the second and not the first was kept apart."""
    operations, schemas = _operations(served)
    for method, route, operation in operations:
        if not route.endswith(("/tail", "/live")) or (route.endswith("/tail") and "topic:" in attack.q):
            continue  # a tail of one topic whose records are to be of another has none
        path, query, _ = _request(attack, route, operation, schemas, "mine")
        heard = threading.Event()

        def speak(heard: threading.Event = heard) -> None:
            with headwater.connect(served.url, served.admin) as hw:
                while not heard.is_set():
                    hw.append(f"{OTHER}-stream", [f"payment failed {SECRET}"])
                    hw.append("mine", ["payment failed aloud"])
                    heard.wait(0.2)

        speaking = threading.Thread(target=speak)
        bearer = {"authorization": f"Bearer {served.reader}"}
        with httpx.stream(method, served.url + path, params=query, headers=bearer, timeout=240) as reply:
            speaking.start()
            said = ""
            for text in reply.iter_text():
                said += text
                if "aloud" in said or reply.status_code >= 400:
                    break
        heard.set()
        speaking.join()
        assert SECRET not in said, (attack.name, path, query)
        if reply.status_code < 400:
            assert OTHER not in said, (attack.name, path, said[:500])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_tool_resource_prompt_or_completion_tells_an_agent_of_another_topic(served: Served, attack: Attack) -> None:
    async def run() -> None:
        async with headwater.aconnect(served.url, served.admin) as hw:
            within = scoped(hw, Token("agent", "", ("mine",), write=True, created_ms=0))
            async with Client(build(within, allow_write=True, who="token:agent")) as client:
                said = []
                for tool in (await client.list_tools()).tools:
                    given = {}
                    for name, schema in tool.input_schema["properties"].items():
                        if (value := attack.value(name, schema)) is not None:
                            given[name] = value
                    for leave in ((), ("like",), ("address",), ("texts",), ("texts", "topics"), ("topic",)):
                        kept = {k: v for k, v in given.items() if k not in (*leave, "cursor", "more_than", "within", "output")}
                        if tool.name == "append":
                            kept = {"records": ["x"], "topic": OTHER}
                        reply = await client.call_tool(tool.name, kept | ({"timeout": 0} if tool.name == "wait" else {}))
                        said.append(f"{tool.name}({kept}): {reply.content}")
                said.append(str(await client.list_resources()))
                places = [f"topics/{OTHER}", f"records/{OTHER}/0/0", f"anomalies/{OTHER}", "watches/1", "watches/2", "topics"]
                for place in places:
                    try:
                        said.append(str(await client.read_resource(f"headwater://{place}")))
                    except MCPError as error:
                        said.append(str(error))
                template = ResourceTemplateReference(uri="headwater://topics/{topic}", type="ref/resource")
                for argument, value in (
                    ("topic", ""),
                    ("topics", ""),
                    ("q", "zebra"),
                    ("q", "key:"),
                    ("id", ""),
                    ("offset", ""),
                ):
                    given = {"topic": OTHER} if argument == "offset" else {}
                    found = await client.complete(template, {"name": argument, "value": value}, given)
                    assert OTHER not in str(found), (argument, found)
                    said.append(str(found))
                for text in said:
                    assert SECRET not in text, text[:2000]
                    assert not COUNTS.search(text), text[:2000]

    asyncio.run(run())


def test_a_token_cannot_sign_the_log_of_calls_with_a_name_that_begins_like_its_own(served: Served) -> None:
    call = {"tool": "signed", "arguments": "0" * 64}
    bearer = {"authorization": f"Bearer {served.reader}"}
    for who in ("token:reader2 other", "token:readerx", "admin", "token:reader", "token:reader agent"):
        assert httpx.post(f"{served.url}/v1/calls", json={**call, "who": who}, headers=bearer).status_code == 204
    with headwater.connect(served.url, served.admin) as hw:
        signed = [c.who for c in reversed(hw.calls(limit=100)) if c.tool == "signed"]
    assert signed == [
        "token:reader token:reader2 other", "token:reader token:readerx", "token:reader admin", "token:reader",
        "token:reader agent",
    ]  # fmt: skip


def test_a_token_chooses_no_model_that_somebody_else_pays_for(served: Served) -> None:
    spec = {"topics": ["mine"], "output": "notes.writer", "embedding": "openai:x", "steps": [{"redact": {}}]}
    tried: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/v1/complete", {"prompt": "hello", "model": "openai:gpt-5"}), ("/v1/embed", {"texts": ["x"], "model": "openai:x"}),
        ("/v1/ask", {"question": "what?", "model": "openai:x"}), ("/v1/investigate", {"question": "why?", "model": "openai:x"}),
        ("/v1/topics", {"name": "mine", "embedding_model": "http:x"}), ("/v1/pipelines", {"name": "p", "spec": spec}),
    )  # fmt: skip
    for path, body in tried:
        reply = httpx.post(served.url + path, json=body, headers={"authorization": f"Bearer {served.writer}"}, timeout=240)
        assert reply.status_code == 403, (path, reply.text)
        assert "API key" in reply.json()["detail"], (path, reply.text)


def test_alerts_of_a_topic_go_to_no_topic_outside_the_scope(served: Served) -> None:
    bearer = {"authorization": f"Bearer {served.writer}"}
    url = f"{served.url}/v1/topics/mine/anomaly"
    assert httpx.put(url, json={"alert_topic": OTHER}, headers=bearer).status_code == 403
    kept = httpx.put(url, json={"budget": "4/day"}, headers=bearer)
    assert kept.json()["alert_topic"] is None  # there is one, which the token does not see
    with headwater.connect(served.url, served.admin) as hw:
        assert hw.detecting("mine")[0].alert_topic == f"{SECRET}-alerts"


@pytest.mark.parametrize("place", ["topics/mine/tail", "search/live", "watches/w/events"])
def test_a_stream_ends_with_the_token_that_it_was_begun_with(tmp_path: Path, place: str) -> None:
    tokens = tokens_of(tmp_path)
    admin = "the-api-key"
    _, shown = tokens.create("short", ["mine"])
    with (
        serving(settings_in(tmp_path, api_key=SecretStr(admin))) as url,
        headwater.connect(url, admin) as hw,
        headwater.connect(url, shown) as own,
    ):
        hw.append("mine", ["payment before"], wait="searchable", timeout_s=240)
        own.add_watch("payment", name="w")
        bearer = {"authorization": f"Bearer {shown}"}
        query = {"q": "payment"} if place != "watches/w/events" else {}
        with httpx.stream("GET", f"{url}/v1/{place}", params=query, headers=bearer, timeout=240) as reply:
            stop, said = threading.Event(), ""
            heard = threading.Event()

            def speak() -> None:
                while not stop.is_set():
                    hw.append("mine", [f"payment {'after' if heard.is_set() else 'meanwhile'}"])
                    stop.wait(0.1)

            speaking = threading.Thread(target=speak)
            speaking.start()
            for text in reply.iter_text():
                said += text
                if "meanwhile" in said and not heard.is_set():
                    tokens.revoke("short")
                    heard.set()
                if "payment after" in said:
                    break
            stop.set()
            speaking.join()
        assert "revoked" in said  # and the stream ended by itself
        assert "payment after" not in said
