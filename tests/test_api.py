"""The HTTP API over a real engine, spoken to as a stranger would: raw requests, bad input, wrong hosts, broken streams."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import socket
import string
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from headwater.api.guard import Rate
from headwater.config import INDEX_SETTINGS, SecretStr, TopicConfig
from serving import eventually, serving, settings_in

NDJSON = {"content-type": "application/x-ndjson"}
PROBLEM = "application/problem+json"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(settings_in(tmp_path)) as url, httpx.Client(base_url=url, timeout=240, trust_env=False) as client:
        yield client


def problem(reply: httpx.Response, status: int) -> dict[str, Any]:
    assert (reply.status_code, reply.headers["content-type"]) == (status, PROBLEM), reply.text
    body: dict[str, Any] = reply.json()
    assert body["status"] == status
    assert body["detail"]
    return body


# ---------------------------------------------------------------------- records


def test_records_are_pushed_as_json_and_acknowledged_with_their_addresses(api: httpx.Client) -> None:
    reply = api.post("/v1/topics/t/records", json={"records": [{"value": "a", "key": "k"}, {"value": {"b": 1}}]})
    assert reply.status_code == 201
    assert reply.json() == {
        "records": [
            {"partition": 0, "offset": 0, "seq": 0, "address": "t/0/0", "duplicate": False},
            {"partition": 0, "offset": 1, "seq": 1, "address": "t/0/1", "duplicate": False},
        ],
        "wait": "stored",
        "timed_out": False,
    }
    assert api.get("/v1/topics/t/records/0/1").json()["record"]["value"] == '{"b":1}'


def test_records_are_pushed_as_lines_and_a_bad_line_is_named_and_nothing_stored(api: httpx.Client) -> None:
    good = b'{"value":"one"}\n\n{"value":"two"}\r\n{"value":"three"}'
    assert len(api.post("/v1/topics/t/records", content=good, headers=NDJSON).json()["records"]) == 3
    for bad, what in (
        (b'{"value":"x"}\nplain text\n', "line 2: not valid JSON"),
        (b'{"value":"x"}\n\n"text"\n', "line 3: each line must be an object"),
        (b'{"value":"x"}\n{"key":"y"}', "record 1: no 'value'"),
        (b"[" * 100_000, "line 1: the JSON is nested too deeply"),
    ):
        assert what in problem(api.post("/v1/topics/t/records", content=bad, headers=NDJSON), 422)["detail"]
    assert api.get("/v1/topics/t").json()["records"] == 3


def test_a_body_sent_in_small_pieces_is_read_whole(api: httpx.Client) -> None:
    lines = b"".join(b'{"value":"line %d"}\n' % n for n in range(300))
    pieces = (lines[i : i + 7] for i in range(0, len(lines), 7))
    assert len(api.post("/v1/topics/t/records", content=pieces, headers=NDJSON).json()["records"]) == 300


def test_the_same_idempotency_key_stores_once_and_refuses_another_body(api: httpx.Client) -> None:
    def push(value: str) -> httpx.Response:
        return api.post("/v1/topics/t/records", json={"records": [{"value": value}]}, headers={"Idempotency-Key": "k1"})

    assert push("a").status_code == 201
    again = push("a")
    assert (again.status_code, again.json()["records"][0]["duplicate"]) == (200, True)
    assert "another body" in problem(push("b"), 422)["detail"]
    with ThreadPoolExecutor(8) as pool:
        body = {"json": {"records": [{"value": "x"}]}, "headers": {"Idempotency-Key": "k2"}}
        replies = list(pool.map(lambda _: httpx.post(f"{api.base_url}/v1/topics/t/records", **body), range(16)))
    assert len({r.json()["records"][0]["address"] for r in replies}) == 1
    assert api.get("/v1/topics/t").json()["records"] == 2


def test_strange_numbers_and_surrogates_are_normalised(api: httpx.Client) -> None:
    odd = b'{"records":[{"value":"a\\ud800b","attributes":{"n":NaN,"big":1e999,"long":123456789012345678901234567890}}]}'
    sent = {"content-type": "application/json", "idempotency-key": "odd"}
    assert api.post("/v1/topics/t/records", content=odd, headers=sent).status_code == 201
    record = api.get("/v1/topics/t/records/0/0").json()["record"]
    assert record["value"] == "a\ufffdb"
    assert record["attributes"] == {
        "n": "nan", "big": "inf", "long": "123456789012345678901234567890", "invalid_utf8": True,
    }  # fmt: skip


def test_waiting_until_searchable_finds_at_once_and_says_when_time_ran_out(api: httpx.Client) -> None:
    api.post("/v1/topics", json={"name": "t", "passages": "exact"})
    done = api.post("/v1/topics/t/records?wait=searchable&timeout_s=240", json={"records": [{"value": "payment failed"}]})
    assert (done.status_code, done.json()["wait"]) == (201, "searchable")
    (hit,) = api.post("/v1/search", json={"q": "payment"}).json()["hits"]
    assert set(hit) == {
        "address", "topic", "partition", "offset", "timestamp", "key", "value", "attributes", "score", "scores", "distance",
        "passage",
    }  # fmt: skip
    assert {"id", "text", "count", "first_seen", "last_seen"} <= set(hit["passage"])
    assert hit["timestamp"].endswith("Z")
    assert len(api.post("/v1/search", json={"q": "payment", "include": ["vector"]}).json()["hits"][0]["vector"]) == 256
    late = api.post("/v1/topics/u/records?wait=searchable&timeout_s=0", json={"records": [{"value": "x"}]})
    assert (late.status_code, late.json()["timed_out"], late.json()["wait"]) == (202, True, "stored")
    assert api.get("/v1/topics/u").json()["records"] == 1


# ---------------------------------------------------------------------- streams


def events(reply: httpx.Response) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in reply.iter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def test_a_tail_resumes_behind_the_last_event_id(api: httpx.Client) -> None:
    api.post("/v1/topics/t/records", json={"records": [{"value": str(n)} for n in range(5)]})
    with api.stream("GET", "/v1/topics/t/tail?from_start=true") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        first = list(itertools.islice(events(reply), 3))
    assert [e["id"] for e in first] == ["0:0", "0:1", "0:2"]
    assert json.loads(first[0]["data"])["address"] == "t/0/0"
    with api.stream("GET", "/v1/topics/t/tail", headers={"Last-Event-ID": first[-1]["id"]}) as reply:
        assert [json.loads(e["data"])["value"] for e in itertools.islice(events(reply), 2)] == ["3", "4"]
    problem(api.get("/v1/topics/t/tail", headers={"Last-Event-ID": "nonsense"}), 422)
    problem(api.get("/v1/topics/nowhere/tail"), 404)
    problem(api.get("/v1/topics/t/tail?q=since:foo"), 400)


def test_a_tail_from_now_on_gives_everything_stored_after_its_headers(api: httpx.Client) -> None:
    api.post("/v1/topics/t/records", json={"records": [{"value": "old"}]})
    with api.stream("GET", "/v1/topics/t/tail") as reply:
        httpx.post(f"{api.base_url}/v1/topics/t/records", json={"records": [{"value": "new"}]})
        assert json.loads(next(events(reply))["data"])["value"] == "new"


def test_a_silent_stream_has_heartbeats(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.api.sse.stream.__kwdefaults__", {"heartbeat_s": 0.05})
    api.post("/v1/topics/t/records", json={"records": [{"value": "old"}]})
    with api.stream("GET", "/v1/topics/t/tail") as reply:
        beats = (line for line in reply.iter_lines() if line == ": heartbeat")
        assert [next(beats), next(beats)] == [": heartbeat"] * 2


def test_an_answer_streams_its_events_in_order(api: httpx.Client) -> None:
    api.post("/v1/topics", json={"name": "t", "passages": "exact"})
    api.post(
        "/v1/topics/t/records?wait=searchable&timeout_s=240",
        json={"records": [{"value": "The disk was full, so the payment service failed."}]},
    )
    with api.stream("POST", "/v1/ask", json={"question": "Why did the payment service fail?", "stream": True}) as reply:
        found = list(events(reply))
    names = [e["event"] for e in found]
    assert names[0] == "retrieval"
    assert names[-1] == "done"
    assert set(names) == {"retrieval", "token", "citation", "done"}
    answer = json.loads(found[-1]["data"])
    assert "".join(json.loads(e["data"])["text"] for e in found if e["event"] == "token") == answer["text"]
    assert answer["citations"][0]["verified"]


# ---------------------------------------------------------------------- errors


def test_errors_are_problem_details_that_point_at_the_place(api: httpx.Client) -> None:
    body = problem(api.post("/v1/search", json={"q": "since:foo"}), 400)
    assert (body["type"], body["position"]) == ("urn:headwater:problem:query", 6)
    assert body["expected"].startswith("an age")
    problem(api.get("/v1/topics/nowhere"), 404)
    problem(api.get("/v1/nowhere"), 404)
    problem(api.put("/v1/topics"), 405)
    problem(api.get("/v1/topics/t/records/0/99999999999999999999"), 422)
    api.post("/v1/topics", json={"name": "t"})
    problem(api.post("/v1/topics", json={"name": "t", "partitions": 2}), 409)
    assert "did you mean 'partitions'" in problem(api.post("/v1/topics", json={"name": "u", "partition": 2}), 422)["detail"]
    problem(api.post("/v1/search", content=b"{nonsense", headers={"content-type": "application/json"}), 400)


def test_a_refused_request_is_not_echoed(api: httpx.Client) -> None:
    secret = "sk-canary-0123456789"
    for reply in (
        api.post("/v1/search", json={"q": "x", "api_key": secret}),
        api.post("/v1/search", json={"q": ["x"], "mode": secret}),
        api.post("/v1/search", content=f'{{"q": {secret}'.encode(), headers={"content-type": "application/json"}),
        api.post("/v1/topics/t/records", content=secret.encode(), headers=NDJSON),
    ):
        assert reply.status_code in (400, 422)
        assert secret not in reply.text


def test_an_unforeseen_error_says_nothing_but_an_id(api: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise ValueError("internal words")

    monkeypatch.setattr("headwater.engine.Engine.status", fails)
    body = problem(api.get("/v1/status"), 500)
    assert "internal words" not in json.dumps(body)
    eventually(lambda: body["id"] in caplog.text)
    assert "internal words" in caplog.text
    assert api.get("/v1/health").status_code == 200


def test_dead_letters_are_listed_and_dropped(api: httpx.Client) -> None:
    api.post("/v1/topics", json={"name": "t", "oversize": "dead-letter"})
    api.post("/v1/topics/t/records", json={"records": [{"value": "x" * 1_100_000}, {"value": "small"}]})
    (letter,) = api.get("/v1/dead-letters?topic=t").json()["dead_letters"]
    assert letter["stage"] == "intake"
    problem(api.post(f"/v1/dead-letters/{letter['id']}/replay"), 422)
    assert api.delete(f"/v1/dead-letters/{letter['id']}").status_code == 204
    assert api.get("/v1/dead-letters").json() == {"dead_letters": []}


def test_metrics_count_what_happened(api: httpx.Client) -> None:
    api.post("/v1/topics/t/records", json={"records": [{"value": "a"}, {"value": "b"}]})
    api.post("/v1/search", json={"q": "a"})
    page = api.get("/metrics").text
    assert 'headwater_records_appended_total{topic="t"} 2.0' in page
    assert 'headwater_request_seconds_count{verb="search"} 1.0' in page
    for name in ("process_resident_memory_bytes", "headwater_backlog_records", "headwater_dead_letters"):
        assert f"\n{name}" in page


# ---------------------------------------------------------------------- the guard


def test_foreign_hosts_and_origins_are_refused(api: httpx.Client) -> None:
    problem(api.get("/v1/health", headers={"host": "evil.example"}), 421)
    problem(api.get("/v1/health", headers={"host": "127.0.0.1.evil.example:80"}), 421)
    problem(api.get("/v1/health", headers={"origin": "http://evil.example"}), 403)
    problem(api.get("/v1/health", headers={"origin": "null"}), 403)
    problem(api.post("/v1/topics/t/records", json={"records": []}, headers={"origin": "https://evil.example"}), 403)
    assert api.get("/v1/health", headers={"host": "localhost:1", "origin": "http://localhost:3000"}).status_code == 200
    assert api.get("/v1/health", headers={"host": "[::1]:8787"}).status_code == 200


def test_a_key_is_asked_of_every_request(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, api_key=SecretStr("s3cret"), allowed_hosts=("data.example",))) as url:
        for path in ("/v1/health", "/metrics", "/openapi.json", "/v1/topics", "/nowhere"):
            reply = httpx.get(url + path)
            problem(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer"
        for value in ("Bearer wrong", "Basic s3cret", "s3cret", "Bearer"):
            problem(httpx.get(url + "/v1/health", headers={"authorization": value}), 401)
        good = {"authorization": "Bearer s3cret", "host": "data.example"}
        assert httpx.get(url + "/v1/health", headers=good).status_code == 200


def test_a_body_that_is_too_large_is_refused_stated_or_not(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, max_body_bytes=100_000)) as url:
        problem(httpx.post(url + "/v1/topics/t/records", content=b"x" * 200_000), 413)
        pieces = (b'{"value":"x"}\n' * 1000 for _ in range(30))
        problem(httpx.post(url + "/v1/topics/t/records", content=pieces, headers=NDJSON), 413)
        problem(httpx.post(url + "/v1/search", content=(b" " * 10_000 for _ in range(30))), 413)
        assert httpx.get(url + "/v1/topics").json() == {"topics": []}


def test_a_body_that_trickles_is_refused(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, body_timeout_s=0.2)) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=240) as slow:
            slow.sendall(f"POST /v1/search HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: 10\r\n\r\n{{".encode())
            assert b" 408 " in slow.recv(4096)
        assert httpx.get(url + "/v1/health").status_code == 200


def test_a_flood_is_slowed_down_and_appends_go_on(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path, requests_per_s=0.01)) as url, httpx.Client(base_url=url) as client:
        replies = [client.get("/v1/health") for _ in range(5)]
        assert replies[0].status_code == 200
        refused = [r for r in replies if r.status_code == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        assert problem(refused[0], 429)["retry_after"] >= 1
        for _ in range(20):
            assert client.post("/v1/topics/t/records", json={"records": [{"value": "x"}]}).status_code == 201


def test_a_bucket_fills_again_and_clients_do_not_share_it() -> None:
    now = [0.0]
    rate = Rate(2.0, clock=lambda: now[0])
    assert [rate.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert rate.wait_s("b") == 0.0
    now[0] = 0.5
    assert [rate.wait_s("a"), rate.wait_s("a")] == [0.0, 0.5]


def test_the_settings_of_topics_and_indexes_are_in_the_openapi_each_with_what_it_is_for(api: httpx.Client) -> None:
    told = api.get("/openapi.json").json()
    topic = told["paths"]["/v1/topics"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    change = told["paths"]["/v1/topics/{topic}"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    settings = {f.name: f.metadata["doc"] for f in dataclasses.fields(TopicConfig)}
    assert {name: one["description"] for name, one in change["properties"].items()} == settings
    assert topic["properties"].keys() == settings.keys() | {"name"}
    assert topic["properties"]["partitions"]["default"] == 1
    assert "default" not in change["properties"]["partitions"]
    assert api.post("/v1/topics", json={"name": "n", "sorts": 1}).status_code == 422
    index = told["components"]["schemas"]["IndexBody"]["properties"]
    assert all(index[name]["description"] == settings[name] for name in index if name in settings)
    assert set(INDEX_SETTINGS) <= index.keys()


# ---------------------------------------------------------------------- anything at all


def test_no_request_whatever_gets_a_5xx(api: httpx.Client) -> None:
    """A bounded fuzz of the OpenAPI: 500 seeded requests of valid and invalid values."""
    seed = 20261121
    print("seed", seed)
    rng = random.Random(seed)
    paths = api.get("/openapi.json").json()
    api.post(
        "/v1/topics/t/records?wait=searchable&timeout_s=240", json={"records": [{"value": f"disk {n} full"} for n in range(50)]}
    )
    operations = [
        (method, path, operation)
        for path, methods in paths["paths"].items()
        for method, operation in methods.items()
        if not (method == "get" and "text/event-stream" in operation["responses"].get("200", {}).get("content", ()))  # endless
    ]
    statuses: dict[int, int] = {}
    for number in range(500):
        method, path, operation = operations[number % len(operations)]
        target, query = path, {}
        for parameter in operation.get("parameters", ()):
            value = _value(rng, parameter["schema"])
            if parameter["in"] == "path":
                value = "t" if parameter["name"] == "topic" and rng.random() < 0.5 else value
                target = target.replace("{" + parameter["name"] + "}", quote(str(value), safe="") or "t")
            elif parameter["in"] == "query" and rng.random() < 0.5:
                query[parameter["name"]] = value
        content = {"content": _body(rng, operation, paths), "headers": {"content-type": "application/json"}}
        reply = api.request(method, target, params=query, **(content if method in ("post", "patch") else {}))
        statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
        assert reply.status_code < 500, (method, target, query, content, reply.text)
        if reply.status_code >= 400 and path == "/v1/logs":
            assert reply.status_code == 413 or reply.json()["message"], "OTLP has a form of its own for errors"
        elif reply.status_code >= 400:
            problem(reply, reply.status_code)
    assert sum(n for status, n in statuses.items() if status < 300) > 50, statuses
    assert api.get("/v1/ready").json()["ready"]


_ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e308, -1e308, "", " ", "t", "nowhere", "a b", "é\u202e", "\x00", "' OR 1=1 --",
    "../../etc/passwd", "0", "-0.0", "NaN", "1e999", "9" * 400, "2h", "2026-02-30", "0000-00-00", "now", "level:error",
    '"unclosed', "-", "field:>=x", "mode:none", "since:9999999999999999", "offset:>=99999999999999999999", "(" * 300,
    [], {}, [1], {"a": {"b": [None]}}, ["t"], {"level": ["error"]}, {"partition": 2**70}, {"key": None}, ["t", "t", "nowhere"],
    [""], [None],
]  # fmt: skip


def _value(rng: random.Random, schema: dict[str, Any]) -> Any:
    """Something for a parameter: often what its schema asks for, else something odd."""
    if rng.random() < 0.4:
        return rng.choice(_ODD)
    schema = next((s for s in schema.get("anyOf", ()) if s.get("type") != "null"), schema)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "integer":
        return rng.randint(int(schema.get("minimum", 0)), min(int(schema.get("maximum", 20)), 20))
    if kind == "number":
        return rng.random()
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "array":
        return [_value(rng, schema.get("items", {})) for _ in range(rng.randint(0, 3))]
    if kind == "object":
        return {"level": "error"} if rng.random() < 0.5 else {}
    return rng.choice(["t", "disk", "full disk", "2h", "".join(rng.choices(string.printable, k=rng.randint(0, 40)))])


def _body(rng: random.Random, operation: dict[str, Any], paths: dict[str, Any]) -> bytes:
    roll = rng.random()
    if roll < 0.08:
        return bytes(rng.choices(range(256), k=rng.randint(0, 60)))
    schema = next(iter(operation.get("requestBody", {}).get("content", {}).values()), {}).get("schema", {})
    while "$ref" in schema or "anyOf" in schema:
        schema = schema.get("anyOf", [schema])[0]
        if "$ref" in schema:
            schema = paths["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    properties = schema.get("properties", {})
    body = {name: _value(rng, s) for name, s in properties.items() if rng.random() < 0.6 or name in schema.get("required", ())}
    if "records" in body and rng.random() < 0.7:
        body["records"] = [{"value": rng.choice(_ODD), "attributes": {"a": rng.choice(_ODD)}} for _ in range(3)]
    if "queries" in body:
        body["queries"] = [{"q": str(rng.choice(_ODD))} for _ in range(2)]
    return json.dumps(rng.choice(_ODD) if roll < 0.15 else body).encode()


def test_many_clients_push_at_once_and_every_record_is_stored_once(api: httpx.Client) -> None:
    """Eight clients, each record once, offsets without a gap."""

    def push(client: int) -> list[int]:
        with httpx.Client(base_url=api.base_url, timeout=240) as mine:
            replies = [mine.post("/v1/topics/t/records", json={"records": [{"value": f"{client} {n}"}]}) for n in range(25)]
            return [r.json()["records"][0]["offset"] for r in replies]

    with ThreadPoolExecutor(8) as pool:
        offsets = [o for part in pool.map(push, range(8)) for o in part]
    assert sorted(offsets) == list(range(200))
