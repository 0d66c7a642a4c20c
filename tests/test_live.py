"""Live search: every record that matches, once, in order, from where a reader left off; over every surface."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

import headwater
from brokers import free_port
from fake_openai import FakeOpenAI
from headwater.blocking import Headwater
from headwater.composed import LiveEvent
from headwater.engine import Engine
from headwater.errors import NotFoundError, QueryError, UsageError
from serving import serving, settings_in
from test_api import events, problem
from test_engine import run
from test_standby import settings as remote_settings


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


async def take(found: AsyncIterator[LiveEvent], number: int, within_s: float = 240.0) -> list[LiveEvent]:
    async with asyncio.timeout(within_s):
        return [await anext(found) for _ in range(number)]


def shown(found: list[LiveEvent]) -> list[str]:
    return [e.hit.value if e.hit is not None else e.event for e in found]


# ---------------------------------------------------------------------- the verb


def test_hits_come_as_records_arrive_and_a_cursor_goes_on_behind_any_of_them(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", ["payment old"], wait="searchable", timeout_s=60)
    found = hw.live("payment", topics=["t"], mode="keyword")
    ready = next(found)
    assert (ready.event, ready.cursor, ready.hit) == ("ready", "t:1", None)
    hw.append("t", ["payment one", "nothing", "payment two"])
    hw.append("t", ["payment three"])
    got = [next(found) for _ in range(3)]
    assert shown(got) == ["payment one", "payment two", "payment three"]
    assert [e.cursor for e in got] == ["t:2", "t:4", "t:5"]
    hit = got[0].hit
    assert hit is not None
    assert (hit.address, hit.score, hit.scores["keyword"]) == ("t/0/1", 1.0, 1.0)
    found.close()  # type: ignore[attr-defined]
    again = hw.live("payment", topics=["t"], after=got[0].cursor)
    assert shown([next(again) for _ in range(3)]) == ["ready", "payment two", "payment three"]


def test_filters_and_exclusions_hold_and_a_query_of_filters_alone_is_one(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    found = hw.live("-healthcheck", filters={"level": ["error", "fatal"]}, topics=["t"])
    next(found)
    rows = [("disk full", "error"), ("healthcheck failed", "error"), ("all well", "info"), ("dead", "fatal")]
    hw.append("t", [{"value": value, "attributes": {"level": level}} for value, level in rows])
    assert shown([next(found) for _ in range(2)]) == ["disk full", "dead"]


def test_what_cannot_be_looked_for_is_refused_at_once(hw: Headwater) -> None:
    hw.create_topic("t")
    with pytest.raises(QueryError, match="not a time"):
        next(hw.live("since:foo"))
    with pytest.raises(NotFoundError, match="nowhere"):
        next(hw.live("x", topics=["nowhere"]))
    for wrong in ({"min_score": 2.0}, {"after": "nonsense"}, {"after": "t:1,,"}, {"filters": {"mode": "x"}}):
        with pytest.raises(UsageError):
            next(hw.live("x", **wrong))  # type: ignore[arg-type]


def test_every_record_is_judged_once_while_many_writers_append(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        for name in ("a", "b"):
            await engine.create_topic(name, passages="exact", partitions=2)
        found = engine.live("wanted", mode="hybrid", min_score=1.0)
        await take(found, 1)

        async def write(name: str, writer: int) -> None:
            for n in range(30):
                records: list[Any] = [f"wanted {name} {writer} {n}", f"other {name} {writer} {n}"]
                await engine.append(name, records)

        writers = asyncio.gather(*(write(name, w) for name in ("a", "b") for w in range(3)))
        got, cursors = [], []
        while len(got) < 180:
            (event,) = await take(found, 1)
            if event.hit is not None:  # else it only moves the cursor, as it does where nothing matched for a while
                got.append(event.hit)
                cursors.append(event.cursor)
        await writers
        assert len({h.address for h in got}) == 180
        assert all(h.value.startswith("wanted") for h in got)
        rest = engine.live("wanted", mode="keyword", after=cursors[100])
        behind = [h.address for h in got[101:]]
        await take(rest, 1)
        again: list[str] = []
        while len(again) < len(behind):
            again += [e.hit.address for e in await take(rest, 1) if e.hit is not None]
        assert sorted(again) == sorted(behind)

    run(tmp_path, main)


def test_meaning_is_judged_once_for_each_passage_and_its_other_records_inherit(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="template")
        found = engine.live("connection to the database lost", mode="semantic", min_score=0.5)
        await take(found, 1)
        lines = [f"ERROR connection to the database lost after {n} ms" for n in range(20)]
        await engine.append("t", [*lines, *(f"INFO kittens {n} asleep" for n in range(20))])
        got = await take(found, 20)
        assert [e.hit.value for e in got if e.hit] == lines
        scores = {e.hit.score for e in got if e.hit}
        assert len(scores) == 1
        assert all(e.hit.passage.count >= 1 and e.hit.scores["keyword"] == 0 for e in got if e.hit)

    run(tmp_path, main)


def test_words_judge_alone_while_the_provider_is_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            FakeOpenAI(lambda: "503", retry_after="0") as server,
            Engine(remote_settings(tmp_path, server.url, None)) as engine,
        ):
            await engine.create_topic("t", passages="exact")
            found = engine.live("payment failed", topics=["t"])
            assert shown(await take(found, 1)) == ["ready"]
            await engine.append("t", ["the payment failed", "something else"])
            assert shown(await take(found, 1)) == ["the payment failed"]

    asyncio.run(main())


def test_records_that_went_before_they_could_be_judged_are_counted(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact", retention_records=3)
        await engine.append("t", [f"payment {n}" for n in range(10)], wait="searchable", timeout_s=60)
        await asyncio.to_thread(engine.stock.expire)
        got = await take(engine.live("payment", topics=["t"], mode="keyword", after="t:2"), 5)
        assert shown(got) == ["ready", "skipped", "payment 7", "payment 8", "payment 9"]
        assert (got[1].skipped, got[1].topic, got[1].cursor) == (5, "t", "t:7")

    run(tmp_path, main)


def test_topics_made_later_are_followed_and_one_that_is_deleted_ends_its_own_search(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("a", passages="exact")
        everywhere, there = engine.live("payment", mode="keyword"), engine.live("payment", topics=["a"], mode="keyword")
        await take(everywhere, 1)
        await take(there, 1)
        await engine.append("b", ["payment in b"])
        assert shown(await take(everywhere, 1)) == ["payment in b"]
        await engine.delete_topic("a")
        with pytest.raises(NotFoundError, match="'a' was deleted"):
            await take(there, 1)
        await engine.append("a", ["payment in the new a"])
        assert shown(await take(everywhere, 1)) == ["payment in the new a"]

    run(tmp_path, main)


def test_it_ends_when_the_engine_closes(tmp_path: Path) -> None:
    async def main() -> None:
        engine = Engine(settings_in(tmp_path))
        await engine.__aenter__()
        await engine.create_topic("t")
        found = engine.live("payment")
        await take(found, 1)
        waiting = asyncio.create_task(take(found, 1))
        await asyncio.sleep(0)
        await engine.aclose()
        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await waiting

    asyncio.run(main())


# ---------------------------------------------------------------------- over HTTP


@pytest.fixture
def api(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(settings_in(tmp_path)) as url, httpx.Client(base_url=url, timeout=240) as client:
        client.post("/v1/topics", json={"name": "t", "passages": "exact"})
        yield client


def push(api: httpx.Client, *values: str) -> None:
    httpx.post(f"{api.base_url}/v1/topics/t/records", json={"records": [{"value": v} for v in values]}).raise_for_status()


def test_hits_are_streamed_as_events_that_resume(api: httpx.Client) -> None:
    with api.stream("GET", "/v1/search/live?q=payment&topics=t&mode=keyword") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        found = events(reply)
        assert next(found) == {"id": "t:0", "event": "ready", "data": "{}"}
        push(api, "payment one", "other", "payment two")
        first, second = itertools.islice(found, 2)
    assert ("event" in first, first["id"], second["id"]) == (False, "t:1", "t:3")
    assert json.loads(first["data"])["address"] == "t/0/0"
    with api.stream("GET", "/v1/search/live?q=payment", headers={"Last-Event-ID": first["id"]}) as reply:
        found = events(reply)
        next(found)
        assert json.loads(next(found)["data"])["value"] == "payment two"
    problem(api.get("/v1/search/live?q=since:foo"), 400)
    problem(api.get("/v1/search/live?q=x&topics=nowhere"), 404)
    for wrong in ("mode=odd", "after=nonsense", "filters=7", "filters={", "min_score=7"):
        reply_ = api.get(f"/v1/search/live?q=x&{wrong}")
        assert reply_.status_code in (400, 422), wrong
        problem(reply_, reply_.status_code)


def test_a_web_socket_sends_hits_and_says_what_is_wrong(api: httpx.Client) -> None:
    url = str(api.base_url).replace("http", "ws").rstrip("/") + "/v1/search/live"
    with connect(f"{url}?q=payment&topics=t&mode=keyword") as socket:
        assert json.loads(socket.recv(240)) == {"event": "ready", "cursor": "t:0"}
        push(api, "payment one", "other")
        first = json.loads(socket.recv(240))
        assert (first["event"], first["cursor"], first["hit"]["value"]) == ("hit", "t:1", "payment one")
    with connect(url) as socket:
        socket.send(json.dumps({"q": "payment", "topics": ["t"], "after": "t:0"}))
        assert [json.loads(socket.recv(240))["event"] for _ in range(2)] == ["ready", "hit"]
    for wrong in ('{"q": "since:foo"}', "[]", "no json", '{"q": "x", "odd": 1}', '{"q": "x", "topics": ["nowhere"]}'):
        with connect(url) as socket:
            socket.send(wrong)
            told = json.loads(socket.recv(240))
            assert told["event"] == "error"
            assert told["problem"]["status"] in (400, 404, 422)


def test_a_web_socket_needs_the_key_and_a_host_of_ours(tmp_path: Path) -> None:
    from pydantic import SecretStr
    from websockets.exceptions import InvalidStatus

    with serving(settings_in(tmp_path, api_key=SecretStr("key"))) as url:
        target = url.replace("http", "ws") + "/v1/search/live?q=x"
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus), connect(target, additional_headers=headers):
                pass
        with connect(target, additional_headers={"Authorization": "Bearer key"}) as socket:
            assert json.loads(socket.recv(240))["event"] == "ready"
        with (
            pytest.raises(InvalidStatus),
            connect(target, additional_headers={"Authorization": "Bearer key"}, origin="https://evil.example"),  # type: ignore[arg-type]
        ):
            pass


def test_silence_has_heartbeats(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.api.sse.HEARTBEAT_S", 0.05)
    with connect(str(api.base_url).replace("http", "ws").rstrip("/") + "/v1/search/live?q=x") as socket:
        while json.loads(socket.recv(240))["event"] != "ready":
            pass  # a heartbeat: it took longer to look than between two of them
        assert [json.loads(socket.recv(240))["event"] for _ in range(2)] == ["heartbeat", "heartbeat"]


# ---------------------------------------------------------------------- batches, vectors, and what is not there yet


def test_a_batch_answers_in_order_with_the_error_of_each_query_that_fails(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", ["disk full", "all well", "payment failed"], wait="searchable", timeout_s=60)
    alone = hw.search("disk", top_k=1)
    found = hw.search_batch(
        [{"q": "disk", "top_k": 1}, {"q": "since:foo"}, {"q": "well", "mode": "keyword"}, {"q": "x", "topics": ["nowhere"]},
         {"q": "x", "odd": 1}, {"q": "x", "top_k": 0}, {}]
    )  # fmt: skip
    assert [type(f).__name__ for f in found] == [
        "SearchReply", "QueryError", "SearchReply", "NotFoundError", "UsageError", "UsageError", "UsageError",
    ]  # fmt: skip
    assert isinstance(found[0], headwater.SearchReply)
    assert isinstance(found[2], headwater.SearchReply)
    assert (found[0].hits, found[2][0].value) == (alone.hits, "all well")
    assert hw.search_batch([]) == []
    with pytest.raises(UsageError, match="100"):
        hw.search_batch([{"q": "x"}] * 101)


def test_the_texts_of_a_batch_are_embedded_together(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        await engine.append("t", ["disk full"], wait="searchable", timeout_s=60)
        embedder = engine.stock.find("t").embedder
        assert embedder is not None
        calls: list[list[str]] = []
        embed = embedder.embed

        async def counted(texts: Any, kind: Any = "passage") -> Any:
            calls.append(list(texts))
            return await embed(texts, kind)

        embedder.embed = counted  # type: ignore[method-assign]
        words = [f"word {n % 40}" for n in range(80)]
        await engine.search_batch([{"q": w} for w in words] + [{"q": "only", "mode": "keyword"}])
        assert calls == [list(dict.fromkeys(words))]

    run(tmp_path, main)


def test_a_batch_over_http_holds_a_problem_for_each_query_that_fails(api: httpx.Client) -> None:
    reply = api.post("/v1/search/batch", json={"queries": [{"q": "x"}, {"q": "x", "top_k": -1}, 7, {"q": "x", "rerank": True}]})
    results = reply.json()["results"]
    assert (reply.status_code, "hits" in results[0]) == (200, True)
    assert [r["error"]["status"] for r in results[1:]] == [422] * 3
    assert all(r["error"]["detail"] for r in results[1:])
    problem(api.post("/v1/search/batch", json={"queries": [{"q": "x"}] * 101}), 422)
    problem(api.post("/v1/search/batch", json={}), 422)


def test_a_vector_of_your_own_is_searched_where_it_fits(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append(
        "t",
        [{"value": v, "attributes": {"n": n}} for n, v in enumerate(["disk full", "all well"])],
        wait="searchable",
        timeout_s=60,
    )
    hw.create_topic("own", embedding_model="external", dimension=2, passages="exact")
    hw.append(
        "own",
        [{"value": "north", "vector": [0.0, 1.0]}, {"value": "east", "vector": [1.0, 0.0]}],
        wait="searchable",
        timeout_s=60,
    )
    hw.create_topic("plain", embedding_model="none")
    vector = hw.embed(["disk full"]).vectors[0]
    reply = hw.search_vector(vector, top_k=1)
    assert (reply[0].value, round(reply[0].score, 3)) == ("disk full", 1.0)
    assert any("'own' has 2 components" in note for note in reply.coverage.notes)
    assert hw.search_vector(vector, topics=["t"], filters={"n": 1})[0].value == "all well"
    opposite = hw.search_vector([-x for x in vector], topics=["t"], top_k=100)
    assert len(opposite) == hw.topic("t").passages  # the nearest are given, however far they are
    assert opposite[-1].score == 0.0
    assert hw.search_vector([0.1, 2.0], topics=["own"], include=["vector"])[0].vector == (0.0, 1.0)
    assert len(hw.search_vector(vector, model="nobody")) == 0
    for wrong in ([], [0.0] * 256, [1.0] * 256, [float("nan")] * 256, [1e39] * 256, [1.0, 2.0, 3.0]):
        with pytest.raises(UsageError):
            hw.search_vector(wrong, topics=["t"])
    with pytest.raises(UsageError, match="no vectors"):
        hw.search_vector(vector, topics=["plain"])
    with pytest.raises(NotFoundError):
        hw.search_vector(vector, topics=["nowhere"])


def test_a_live_search_survives_a_broken_connection(tmp_path: Path) -> None:
    port = free_port()
    with serving(settings_in(tmp_path, port=port)) as url, headwater.connect(url) as hw:
        hw.append("t", ["payment zero"])
    got: list[LiveEvent] = []
    with serving(settings_in(tmp_path, port=port)) as url:
        hw = headwater.connect(url)
        found = hw.live("payment", mode="keyword", after="t:0")
        got += [next(found), next(found)]

        def follow() -> None:
            got.append(next(found))

        reader = threading.Thread(target=follow)
        reader.start()
    with serving(settings_in(tmp_path, port=port)) as url, headwater.connect(url) as other:
        other.append("t", ["payment one"])
        reader.join(240)
        assert shown(got) == ["ready", "payment zero", "payment one"]
        hw.close()
