"""Watches: "wake me if it recurs", and it does: once for each record, over every surface, across restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headwater
from fake_openai import FakeOpenAI
from headwater.blocking import Headwater
from headwater.engine import Engine
from headwater.errors import ConflictError, LimitError, NotFoundError, QueryError, UsageError
from headwater.records.watches import Watch, WatchHit, Woken
from headwater.search.planning import now_ms
from headwater.watch.verbs import MOST_OF_OWNER
from serving import eventually, serving, settings_in
from test_engine import run
from test_standby import settings as remote_settings


@pytest.fixture
def ahead_ms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By how much the clock of engines that are opened afterwards is ahead."""
    ahead = [0]
    monkeypatch.setattr("headwater.engine.now_ms", lambda: now_ms() + ahead[0])
    return ahead


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def told(reply: Woken) -> list[tuple[str, str]]:
    return [(hit.address, hit.why) for hit in reply.hits]


def judged(hw: Headwater, watch: Watch) -> Watch:
    """The watch once it has judged all there is."""
    eventually(lambda: hw.watch(watch.id).behind == 0)
    return hw.watch(watch.id)


# ---------------------------------------------------------------------- the story


def test_wake_me_if_it_recurs_and_it_does(hw: Headwater) -> None:
    hw.create_topic("logs", passages="template")
    lines = [f"2026-03-01T14:05:{n:02}Z INFO request {n} took {n * 3} ms" for n in range(30)]
    hw.append("logs", [*lines, "2026-03-01T14:06:00Z ERROR pool exhausted after 17 ms"], wait="searchable", timeout_s=240)
    found = hw.search("pool exhausted", mode="keyword")[0]
    watch = hw.add_watch(like=found.address, name="recurs")
    assert (watch.topics, watch.like, watch.fired, watch.state) == (("logs",), found.address, 0, "watching")
    waiting: list[Woken] = []
    waiter = threading.Thread(target=lambda: waiting.append(hw.wait("recurs", timeout=240)))
    waiter.start()
    hw.append(
        "logs", ["2026-03-01T15:00:00Z INFO request 99 took 1 ms", "2026-03-01T15:00:01Z ERROR pool exhausted after 903 ms"]
    )
    waiter.join(240)
    (reply,) = waiting
    assert told(reply) == [("logs/0/32", "pattern")]
    assert reply.hits[0].record is not None
    assert reply.hits[0].record.value.endswith("903 ms")
    assert hw.wait("recurs", cursor=reply.cursor, timeout=0).hits == ()


def test_a_wait_gives_what_was_fired_behind_its_cursor_and_misses_nothing_in_between(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("payment failed", topics=["t"], mode="keyword")
    hw.append("t", ["payment failed one", "payment fine", "FAILED was the payment"])
    judged(hw, watch)
    hw.append("t", ["payment failed three"])
    judged(hw, watch)
    first = hw.wait(watch.id, limit=2)
    assert told(first) == [("t/0/0", "words"), ("t/0/2", "words")]
    assert (first.more, first.missed, first.timed_out) == (True, 0, False)
    rest = hw.wait(watch.id, cursor=first.cursor)
    assert told(rest) == [("t/0/3", "words")]
    assert [h.id for h in (*first.hits, *rest.hits)] == [f"{watch.id}-{n}" for n in (1, 2, 3)]
    late = hw.wait(watch.id, cursor=rest.cursor, timeout=0.05)
    assert (late.hits, late.cursor, late.timed_out) == ((), rest.cursor, True)
    assert hw.wait(watch.id, cursor="1", timeout=0).hits == (*first.hits[1:], *rest.hits)


def test_a_record_fires_by_its_words_or_by_its_meaning_once(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("card payment declined", topics=["t"], min_score=0.3)
    hw.append("t", ["card payment declined", "the card payment was declined", "weather is fine", "card payment was refused"])
    judged(hw, watch)
    hits = {hit.address: hit for hit in hw.wait(watch.id).hits}
    assert {a: h.why for a, h in hits.items()} == {"t/0/0": "words", "t/0/1": "words", "t/0/3": "meaning"}
    assert hits["t/0/0"].score == 1
    assert 0.3 <= hits["t/0/3"].score < 1


def test_filters_hold_in_every_mode_and_alone_are_enough(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    filtered = hw.add_watch("level:error host:h1,h2", topics=["t"])
    worded = hw.add_watch('disk "is full" -test level:error', topics=["t"], mode="keyword")
    every = hw.add_watch(topics=["t"])
    rows: list[dict[str, Any]] = [
        {"value": "disk is full", "attributes": {"level": "ERROR", "host": "h1"}},
        {"value": "disk is full", "attributes": {"level": "info", "host": "h1"}},
        {"value": "test disk is full", "attributes": {"level": "error", "host": "h2"}},
        {"value": "disk full is", "attributes": {"level": "error", "host": "h3"}},
    ]
    hw.append("t", rows)
    for watch, wanted in ((filtered, [0, 2]), (worded, [0]), (every, [0, 1, 2, 3])):
        judged(hw, watch)
        assert [h.address for h in hw.wait(watch.id).hits] == [f"t/0/{n}" for n in wanted], watch.q


def test_a_count_fires_once_for_each_crossing_and_again_when_it_was_lower_in_between(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("tick", topics=["t"], mode="keyword", more_than=2, within="10m")
    assert (watch.more_than, watch.within_s) == (2, 600.0)
    minutes = [0, 1, 2, 3, 4, 14, 15, 16, 17, 30]  # the third crosses; at 14 only one is left; 16 crosses again
    hw.append("t", [{"value": f"tick {n}", "timestamp": f"2026-03-01T14:{n:02}:00Z"} for n in minutes])
    judged(hw, watch)
    reply = hw.wait(watch.id)
    assert [(hit.address, hit.count) for hit in reply.hits] == [("t/0/2", 3), ("t/0/7", 3)]


def test_a_record_of_a_wrong_clock_does_not_silence_a_count(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("tick", topics=["t"], mode="keyword", more_than=2, within="10m")
    times = ["2031-01-01T00:00:00Z", *(f"2026-03-01T14:{n:02}:00Z" for n in (0, 1, 2, 3, 40, 41, 42)), "2031-01-01T00:00:01Z"]
    hw.append("t", [{"value": "tick", "timestamp": time} for time in times])
    judged(hw, watch)
    assert [(hit.address, hit.count) for hit in hw.wait(watch.id).hits] == [("t/0/3", 3), ("t/0/7", 3)]


def test_records_that_come_late_are_counted_at_their_own_time_and_neither_end_nor_repeat_a_crossing(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("tick", topics=["t"], mode="keyword", more_than=2, within="10m")
    minutes = [30, 31, 0, 32, 1, 33, 34, 2, 3, 35, 59]  # two streams, one half an hour behind: each crosses once
    hw.append("t", [{"value": f"tick {n}", "timestamp": f"2026-03-01T14:{n:02}:00Z"} for n in minutes])
    judged(hw, watch)
    assert [hit.record.value for hit in hw.wait(watch.id).hits if hit.record] == ["tick 32", "tick 2"]


def test_a_watch_can_look_back_and_then_goes_on(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", [f"alarm {n}" for n in range(2500)], wait="searchable", timeout_s=240)
    other = hw.add_watch("alarm", topics=["t"], mode="keyword")
    watch = hw.add_watch("alarm", topics=["t"], since="1h")
    hw.append("t", ["alarm again", "calm"])
    assert judged(hw, watch).fired == 2501
    assert judged(hw, other).fired == 1
    reply = hw.wait(watch.id, limit=1000)
    assert reply.missed == 1501  # the newest thousand are kept, and the rest is not passed over in silence
    assert reply.hits[-1].address == "t/0/2500"


def test_topics_that_come_later_are_watched_from_their_start(hw: Headwater) -> None:
    watch = hw.add_watch("fire", mode="keyword")
    hw.append("later", ["fire one"])
    assert told(hw.wait(watch.id, timeout=240)) == [("later/0/0", "words")]


def test_hits_come_as_events_from_a_cursor_on(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("go", topics=["t"], mode="keyword")
    hw.append("t", ["go 1", "go 2"])
    judged(hw, watch)
    found = hw.watch_events(watch.id, cursor="1")
    assert next(found).address == "t/0/1"
    hw.append("t", ["stay", "go 3"])
    assert next(found).address == "t/0/3"
    found.close()  # type: ignore[attr-defined]


def test_watches_are_listed_named_and_removed(hw: Headwater) -> None:
    one = hw.add_watch("a", name="first", mode="keyword")
    two = hw.add_watch("b", ttl="1h")
    assert (two.name, two.expires is not None) == (f"w{two.id}", True)
    assert [w.name for w in hw.watches()] == ["first", two.name]
    assert hw.watch("first").id == one.id == hw.watch(one.id).id
    assert hw.status().watches["watching"] == 2
    with pytest.raises(ConflictError, match="'first' exists"):
        hw.add_watch("c", name="first")
    hw.remove_watch("first")
    with pytest.raises(NotFoundError, match="first"):
        hw.wait("first")
    assert [w.name for w in hw.watches()] == [two.name]


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({}, UsageError, "what to watch for"),
        ({"q": "since:foo"}, QueryError, "not a time"),
        ({"q": "a", "topics": ["nowhere"]}, NotFoundError, "nowhere"),
        ({"q": "a", "more_than": 3}, UsageError, "belong together"),
        ({"q": "a", "more_than": 0, "within": "1m"}, UsageError, "between 1 and"),
        ({"q": "a", "more_than": 3, "within": "soon"}, UsageError, "duration"),
        ({"q": "a", "ttl": "-1"}, UsageError, "ttl"),
        ({"q": "a", "name": "12"}, UsageError, "name"),
        ({"q": "a", "min_score": 2}, UsageError, "between 0 and 1"),
        ({"q": "!!!"}, UsageError, "no letter"),
        ({"q": "words", "like": "t/0/0"}, UsageError, "filters alone"),
        ({"like": "t/0/9"}, NotFoundError, "t/0/9"),
        ({"like": "t/0/0", "mode": "keyword"}, UsageError, "by meaning"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    hw: Headwater, asked: dict[str, Any], kind: type[Exception], said: str
) -> None:
    hw.append("t", ["a text"], wait="searchable", timeout_s=240)
    with pytest.raises(kind, match=said):
        hw.add_watch(**asked)
    assert hw.watches() == []


def test_a_cursor_that_no_wait_gave_is_refused(hw: Headwater) -> None:
    watch = hw.add_watch("a")
    for cursor in ("x", "-1", "7"):
        with pytest.raises(UsageError):
            hw.wait(watch.id, cursor=cursor, timeout=0)


def test_one_client_cannot_make_watches_without_end(hw: Headwater) -> None:
    for _ in range(MOST_OF_OWNER):
        hw.add_watch("a", owner="agent")
    with pytest.raises(LimitError, match="this client has"):
        hw.add_watch("a", owner="agent")
    assert hw.add_watch("a", owner="another").owner == "another"


# ---------------------------------------------------------------------- time, failure, deletion


def test_an_expired_watch_ends_its_waiters_and_keeps_its_hits(ahead_ms: list[int], hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("go", topics=["t"], mode="keyword", ttl="1h")
    hw.append("t", ["go 1"])
    first = hw.wait(watch.id, timeout=240)
    assert watch.expires is not None
    ahead_ms[0] = round((watch.expires.timestamp() - time.time() - 1.5) * 1000)  # it ends in a moment
    ended = hw.wait(watch.id, cursor=first.cursor, timeout=240)
    assert (ended.hits, ended.state, ended.timed_out) == ((), "expired", False)
    hw.append("t", ["go 2"], wait="searchable", timeout_s=240)
    assert hw.watch(watch.id).state == "expired"
    assert told(hw.wait(watch.id)) == [("t/0/0", "words")]


def test_a_hit_outlives_its_record(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    watch = hw.add_watch("secret", topics=["t"], mode="keyword")
    hw.append("t", ["secret of mine"])
    judged(hw, watch)
    hw.delete_records("t", offset=0)
    (hit,) = hw.wait(watch.id).hits
    assert (hit.address, hit.record) == ("t/0/0", None)


def test_watches_go_on_where_they_were_after_a_restart(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.create_topic("t", passages="exact")
        watch = hw.add_watch("card payment declined", topics=["t"], min_score=0.3)
        counting = hw.add_watch("declined", topics=["t"], mode="keyword", more_than=1, within="1d")
        hw.append("t", ["card payment declined", "card payment was refused"])
        judged(hw, watch)
        before = hw.wait(watch.id)
        assert len(before.hits) == 2
        judged(hw, counting)
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        assert hw.wait(watch.id) == before
        hw.append("t", ["nothing", "payment by card declined"])
        judged(hw, watch)
        judged(hw, counting)
        assert [h.address for h in hw.wait(watch.id, cursor=before.cursor).hits] == ["t/0/3"]
        assert [(h.address, h.count) for h in hw.wait(counting.id).hits] == [("t/0/3", 2)]


def test_while_the_model_is_down_words_judge_and_meaning_catches_up(tmp_path: Path) -> None:
    states = ["ok"]

    async def main() -> None:
        async with (
            FakeOpenAI(lambda: states[-1], retry_after="0") as server,
            Engine(remote_settings(tmp_path, server.url, None)) as engine,
        ):
            await engine.create_topic("t", passages="exact")
            watch = await engine.add_watch("card payment declined", topics=["t"], min_score=0.0)
            states.append("503")
            await engine.append("t", ["card payment declined", "the card was refused"])
            first = await engine.wait(watch.id, timeout=240)
            assert told(first) == [("t/0/0", "words")]
            while (await engine.watch(watch.id)).state != "held up":
                await asyncio.sleep(0.01)
            states.append("ok")
            late = await engine.wait(watch.id, cursor=first.cursor, timeout=240)
            assert told(late) == [("t/0/1", "meaning")]

    asyncio.run(asyncio.wait_for(main(), 240))


def test_a_template_that_generalises_is_still_what_was_watched_for(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("logs", passages="template")
        first = ["2026-03-01T14:05:00Z INFO user alice logged in from desktop"]
        await engine.append("logs", first, wait="searchable", timeout_s=240)
        watch = await engine.add_watch(like="logs/0/0", min_score=1.0)
        names = ("bob", "carol", "dave", "erin", "frank", "grace", "heidi")
        lines = [f"2026-03-01T14:06:{n:02}Z INFO user {name} logged in from desktop" for n, name in enumerate(names)]
        await engine.append("logs", lines, wait="searchable", timeout_s=240)
        await engine.append("logs", ["2026-03-01T14:07:00Z INFO user mallory logged in from desktop"])
        async with asyncio.timeout(240):
            while not any(hit.address == "logs/0/8" for hit in (await engine.wait(watch.id)).hits):
                await asyncio.sleep(0.01)
        addresses = [hit.address for hit in (await engine.wait(watch.id)).hits]
        assert len(addresses) == len(set(addresses))

    run(tmp_path, main)


def test_a_purge_forgets_the_text_of_what_a_watch_is_like(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        await engine.append("t", ["the marker zebrafish stands here", "something else"], wait="searchable", timeout_s=240)
        await engine.add_watch(like="t/0/0", name="like")
        await engine.delete_records("t", offset=0)
        done = await engine.purge_topic("t", markers=["zebrafish"])
        assert done.found == {"zebrafish": ()}
        assert (await engine.watch("like")).state == "held up"

    run(tmp_path, main)


# ---------------------------------------------------------------------- HTTP


def test_watches_over_http_are_made_waited_for_and_streamed(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url, httpx.Client(base_url=url, timeout=240) as client:
        client.post("/v1/topics", json={"name": "t", "passages": "exact"})
        made = client.post("/v1/watches", json={"q": "go", "topics": ["t"], "mode": "keyword", "name": "g"})
        assert made.status_code == 201
        client.post("/v1/topics/t/records", json={"records": [{"value": "go 1"}]})
        eventually(lambda: client.get("/v1/watches/g").json()["behind"] == 0)
        reply = client.get("/v1/watches/g/wait", params={"timeout": 25}).json()
        assert (reply["cursor"], reply["hits"][0]["address"], reply["hits"][0]["record"]["value"]) == ("1", "t/0/0", "go 1")
        empty = client.get("/v1/watches/g/wait", params={"cursor": "1", "timeout": 0.05}).json()
        assert (empty["hits"], empty["cursor"], empty["timed_out"]) == ([], "1", True)
        assert client.get("/v1/watches/g/wait", params={"timeout": 26}).status_code == 422
        with client.stream("GET", "/v1/watches/g/events") as stream:
            assert next(line for line in stream.iter_lines() if line.startswith("id:")) == f"id: {made.json()['id']}-1"
        client.post("/v1/topics/t/records", json={"records": [{"value": "go 2"}]})
        with client.stream("GET", "/v1/watches/g/events", headers={"last-event-id": f"{made.json()['id']}-1"}) as stream:
            data = next(line for line in stream.iter_lines() if line.startswith("data:"))
            assert '"t/0/1"' in data
        assert [w["name"] for w in client.get("/v1/watches").json()["watches"]] == ["g"]
        assert client.delete("/v1/watches/g").status_code == 204
        assert client.get("/v1/watches/g/wait").status_code == 404


def test_a_daemon_that_ends_lets_its_waiters_go(tmp_path: Path) -> None:
    replies: list[Any] = []
    with serving(settings_in(tmp_path)) as url:
        httpx.post(f"{url}/v1/watches", json={"q": "go", "name": "g"})
        ask = threading.Thread(target=lambda: replies.append(httpx.get(f"{url}/v1/watches/g/wait", timeout=240)))
        ask.start()
        eventually(lambda: httpx.get(f"{url}/v1/status").json()["watches"]["waiting"] == 1)
    ask.join(240)
    assert not ask.is_alive()
    assert replies[0].json()["timed_out"]


def test_the_values_of_watches_survive_the_wire(hw: Headwater) -> None:
    watch = hw.add_watch("a level:error", topics=None, more_than=1, within=2.5, ttl="2d", min_score=0.4, owner="me")
    assert isinstance(watch, Watch)
    assert (watch.q, watch.within_s, watch.min_score, watch.owner) == ("a level:error", 2.5, 0.4, "me")
    hw.create_topic("t", passages="exact")
    hw.append(
        "t", [{"value": "a 1", "attributes": {"level": "error", "n": 3}}, {"value": "a 2", "attributes": {"level": "error"}}]
    )
    (hit,) = hw.wait(watch.id, timeout=240).hits
    assert isinstance(hit, WatchHit)
    assert (hit.count, hit.watch, hit.record and hit.record.topic) == (2, watch.name, "t")
