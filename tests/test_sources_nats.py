"""NATS JetStream against a real server, with its store on files: each message is stored once, whoever dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokers import KILLS, NEEDS_NATS, Nats, Victims, count_of, following, records_of, settings_for, soon
from headwater.engine import Engine
from headwater.errors import ConfigError
from headwater.records import Record
from headwater.sources import Source

pytestmark = NEEDS_NATS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    found = Nats(tmp_path_factory.mktemp("nats"))
    yield found
    found.kill()


def source(server: Nats, stream: str, **options: Any) -> Source:
    from headwater.sources.nats import NatsSource

    return NatsSource(server.url, stream, "in", **{"environment": {}, **options})


async def js_of(server: Nats) -> tuple[Any, Any]:
    """A connection and its JetStream."""
    import nats

    client = await nats.connect(server.url, connect_timeout=240)
    return client, client.jetstream(timeout=240)


async def publish(server: Nats, messages: list[tuple[str, bytes, dict[str, str] | None]]) -> None:
    """To the stream that the subjects begin with, once the server, which may just have started, has it."""
    from nats.errors import Error

    client, js = await js_of(server)
    async with asyncio.timeout(240):
        while True:
            try:
                await js.stream_info(messages[0][0].split(".")[0])
                break
            except Error:
                await asyncio.sleep(0.05)
    await asyncio.gather(*(js.publish(subject, data, headers=headers) for subject, data, headers in messages))
    await client.close()


async def make(server: Nats, stream: str, **options: Any) -> None:
    """A stream of the subjects STREAM.*"""
    client, js = await js_of(server)
    await js.add_stream(name=stream, subjects=[f"{stream}.*"], **options)
    await client.close()


async def remove(server: Nats, stream: str) -> None:
    client, js = await js_of(server)
    await js.delete_stream(stream)
    await client.close()


async def stored(directory: Path, found: Source, records: int) -> list[Record]:
    """The records in the topic, when it has that many."""
    async with Engine(settings_for(directory)) as engine:
        async with following(engine, found):
            await soon(lambda: count_of(engine) >= records, lambda: (count_of(engine), found.condition))
        return records_of(engine)


def lines(stream: str, first: int, end: int) -> list[tuple[str, bytes, dict[str, str] | None]]:
    return [(f"{stream}.a", b"n%d" % i, None) for i in range(first, end)]


def values(records: list[Record]) -> list[str]:
    return [record.value for record in records]


# ---------------------------------------------------------------------- what a message becomes


def test_a_record_has_the_message_s_subject_time_headers_and_place(server: Nats, tmp_path: Path) -> None:
    async def run() -> tuple[list[Record], Any]:
        await make(server, "whole")
        await publish(
            server, [("whole.disk", b"disk is full", {"trace": "a1"}), ("whole.x", b'{"text": "paid", "id": 7}', None)]
        )
        client, js = await js_of(server)
        kept = await js.get_msg("whole", 1)
        await client.close()
        return await stored(tmp_path, source(server, "whole"), 2), kept

    (first, second), kept = asyncio.run(run())
    assert (first.value, first.key, second.value, second.key) == ("disk is full", "whole.disk", "paid", "7")
    assert abs((first.timestamp - kept.time).total_seconds()) < 0.001
    wanted = {"header.trace": "a1", "nats.stream": "whole", "nats.subject": "whole.disk", "nats.sequence": 1}
    assert first.attributes == wanted


def test_only_the_subjects_asked_for_are_read_and_empty_messages_are_counted(server: Nats, tmp_path: Path) -> None:
    async def run() -> list[str]:
        await make(server, "some")
        await publish(server, [(f"some.{s}", s.encode(), None) for s in ("a", "b", "c")])
        await publish(server, [("some.a", b"", None), ("some.c", b"last", None)])
        found = source(server, "some", subjects=["some.a", "some.c"])
        records = await stored(tmp_path, found, 3)
        assert found.condition.counts == {"empty": 1}
        return values(records)

    assert asyncio.run(run()) == ["a", "c", "last"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"servers": "nats://user:secret@host:4222"}, "without a user"),
        ({"stream": "a.b"}, "cannot be the name of a stream"),
        ({"durable": ""}, "cannot be the name of a durable"),
        ({"form": "xml"}, "none of auto, text, json"),
    ],
)
def test_what_cannot_be_set_is_told_before_anything_runs(options: dict[str, Any], said: str) -> None:
    from headwater.sources.nats import NatsSource

    with pytest.raises(ConfigError, match=said):
        NatsSource(**{"servers": "nats://127.0.0.1:9", "stream": "s", "topic": "in", "environment": {}, **options})


def test_credentials_come_from_the_environment(tmp_path: Path) -> None:
    from headwater.sources.nats import NatsSource

    found = {"EAST_USER": "u", "EAST_PASSWORD": "p", "NATS_TOKEN": "other"}
    assert NatsSource("h", "s", "in", credentials="EAST", environment=found).login() == {"user": "u", "password": "p"}
    assert NatsSource("h", "s", "in", token="t", environment={}).login() == {"token": "t"}


def test_a_delivery_s_numbers_are_read_with_and_without_a_domain() -> None:
    from headwater.sources.nats import _told

    wanted = (1, 5, 7, 1_700_000_000_000, 3)
    assert _told("$JS.ACK.stream.durable.1.5.7.1700000000000999999.3") == wanted
    assert _told("$JS.ACK.hub.AbC.stream.durable.1.5.7.1700000000000999999.3.r4nd0m") == wanted


# ---------------------------------------------------------------------- once each


def test_a_restart_goes_on_behind_the_last_record_and_the_server_knows(server: Nats, tmp_path: Path) -> None:
    async def run() -> list[str]:
        await make(server, "restarted")
        await publish(server, lines("restarted", 0, 40))
        client, js = await js_of(server)

        async def known() -> tuple[int, int]:
            consumer = await js.consumer_info("restarted", "headwater")
            return consumer.ack_floor.stream_seq, consumer.num_ack_pending

        found = source(server, "restarted", batch_records=7)
        async with Engine(settings_for(tmp_path)) as engine, following(engine, found):
            await soon(lambda: count_of(engine) == 40, lambda: found.condition)
            async with asyncio.timeout(240):  # it is told once the last batch is stored
                while await known() != (40, 0):
                    await asyncio.sleep(0.02)
        assert await known() == (40, 0)
        await client.close()
        await publish(server, lines("restarted", 40, 50))
        return values(await stored(tmp_path, source(server, "restarted"), 50))

    assert asyncio.run(run()) == [f"n{i}" for i in range(50)]


def test_a_consumer_that_is_ahead_of_the_log_is_set_back(server: Nats, tmp_path: Path) -> None:
    """As it is for a log that was restored, or made anew."""

    async def run() -> list[str]:
        await make(server, "ahead")
        await publish(server, lines("ahead", 0, 30))
        await stored(tmp_path / "first", source(server, "ahead"), 30)
        return values(await stored(tmp_path / "second", source(server, "ahead"), 30))

    assert asyncio.run(run()) == [f"n{i}" for i in range(30)]


def test_a_batch_that_was_not_stored_comes_again_at_once_and_in_order(server: Nats) -> None:
    async def run() -> None:
        await make(server, "unstored")
        await publish(server, lines("unstored", 0, 30))
        first = source(server, "unstored", batch_records=10).batches(None)
        start = await anext(first)
        taken = await anext(first)
        await first.aclose()  # type: ignore[attr-defined]
        again = source(server, "unstored", batch_records=10).batches(start.state)
        while not (batch := await anext(again)).drafts:
            pass
        await again.aclose()  # type: ignore[attr-defined]
        assert list(batch.drafts) == list(taken.drafts)
        assert batch.stream == taken.stream

    asyncio.run(run())


def test_a_lost_consumer_is_made_anew_where_the_log_stands(server: Nats, tmp_path: Path) -> None:
    async def run() -> list[str]:
        await make(server, "lost")
        await publish(server, lines("lost", 0, 20))
        found = source(server, "lost")
        async with Engine(settings_for(tmp_path)) as engine, following(engine, found):
            await soon(lambda: count_of(engine) == 20, lambda: found.condition)
            client, js = await js_of(server)
            await js.delete_consumer("lost", "headwater")
            await client.close()
            await publish(server, lines("lost", 20, 40))
            await soon(lambda: count_of(engine) == 40, lambda: found.condition)
            return values(records_of(engine))

    assert asyncio.run(run()) == [f"n{i}" for i in range(40)]


def test_a_stream_that_is_made_anew_is_read_from_its_start(server: Nats, tmp_path: Path) -> None:
    async def run() -> list[str]:
        await make(server, "again")
        await publish(server, lines("again", 0, 20))
        found = source(server, "again")
        async with Engine(settings_for(tmp_path)) as engine, following(engine, found):
            await soon(lambda: count_of(engine) == 20, lambda: found.condition)
            await remove(server, "again")
            await make(server, "again")
            await publish(server, lines("again", 100, 140))
            await soon(lambda: count_of(engine) == 60, lambda: (count_of(engine), found.condition))
            assert found.condition.counts["streams_made_anew"] == 1
            return values(records_of(engine))

    assert asyncio.run(run()) == [f"n{i}" for i in (*range(20), *range(100, 140))]


def test_only_what_comes_from_now_on_is_read_where_asked_for(server: Nats, tmp_path: Path) -> None:
    async def run() -> list[str]:
        await make(server, "running")
        await publish(server, lines("running", 0, 5))
        found = source(server, "running", from_start=False)
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, found):
                await soon(lambda: engine.log.source_state(found.name) is not None, lambda: found.condition)
            await publish(server, lines("running", 5, 7))
            async with following(engine, found):
                await soon(lambda: count_of(engine) == 2, lambda: found.condition)
            return values(records_of(engine))

    assert asyncio.run(run()) == ["n5", "n6"]


def test_messages_that_expired_unread_are_told(server: Nats, tmp_path: Path) -> None:
    async def run() -> None:
        await make(server, "short", max_msgs=10)
        await publish(server, lines("short", 0, 5))
        await stored(tmp_path, source(server, "short"), 5)
        await publish(server, lines("short", 5, 40))
        found = source(server, "short")
        assert values(await stored(tmp_path, found, 15))[5:] == [f"n{i}" for i in range(30, 40)]
        assert found.condition.counts == {"gaps": 1}

    asyncio.run(run())


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
def test_where_acknowledged_messages_leave_the_stream_they_leave_it_when_they_are_stored(
    server: Nats, tmp_path: Path, retention: str
) -> None:
    async def run() -> list[str]:
        await make(server, retention, retention=retention)
        found = source(server, retention, batch_records=7)
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, found):
                await soon(lambda: found.condition.state == "following", lambda: found.condition)
                await publish(server, lines(retention, 0, 30))
                await soon(lambda: count_of(engine) == 30, lambda: found.condition)
            await publish(server, lines(retention, 30, 40))  # while nobody reads: the durable consumer's interest lasts
            client, js = await js_of(server)
            async with following(engine, found), asyncio.timeout(240):
                while (await js.stream_info(retention)).state.messages:
                    await asyncio.sleep(0.02)
            await client.close()
            return values(records_of(engine))

    assert asyncio.run(run()) == [f"n{i}" for i in range(40)]


# ---------------------------------------------------------------------- outages and crashes


def test_an_outage_is_told_and_reading_goes_on_after_it(tmp_path: Path) -> None:
    server = Nats(tmp_path)

    async def run() -> list[str]:
        found = source(server, "late")
        async with Engine(settings_for(tmp_path / "data")) as engine, following(engine, found):
            await soon(lambda: found.condition.state == "waiting for the stream", lambda: found.condition)
            await make(server, "late")
            await publish(server, lines("late", 0, 30))
            await soon(lambda: count_of(engine) == 30, lambda: found.condition)
            await asyncio.to_thread(server.kill)
            await soon(lambda: found.condition.state == "unreachable", lambda: found.condition)
            await asyncio.to_thread(server.start)
            await publish(server, lines("late", 30, 60))
            await soon(lambda: count_of(engine) == 60, lambda: found.condition)
            await soon(lambda: found.condition.state == "following", lambda: found.condition)
            return values(records_of(engine))

    try:
        assert asyncio.run(run()) == [f"n{i}" for i in range(60)]
    finally:
        server.kill()


def test_a_server_that_was_never_there_is_told_with_its_address(tmp_path: Path) -> None:
    from headwater.sources.nats import NatsSource

    found = NatsSource("nats://127.0.0.1:9", "s", "in", environment={})

    async def run() -> None:
        async with Engine(settings_for(tmp_path)) as engine, following(engine, found):
            await soon(lambda: found.condition.state == "unreachable", lambda: found.condition)

    asyncio.run(run())
    assert "none of nats://127.0.0.1:9 can be reached" in (found.condition.error or "")
    assert "Connect call failed" in (found.condition.error or "")


async def _told(found: Source, until: str) -> None:
    """Read until the source says something of that kind."""
    batches = found.batches(None)
    reading = asyncio.ensure_future(anext(batches))
    await soon(lambda: reading.done() or until in (found.condition.error or ""), lambda: found.condition)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await batches.aclose()  # type: ignore[attr-defined]
    assert until in (found.condition.error or "")


def test_a_password_is_told_to_no_server_without_tls_where_tls_is_asked_for() -> None:
    from headwater.sources.nats import NatsSource

    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"S","version":"2.10.0","max_payload":1048576,"auth_required":true}\r\n')
        heard.append(await reader.read(4096))  # ends when the client hangs up
        writer.close()
        await writer.wait_closed()

    async def go() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as fake:
            port = fake.sockets[0].getsockname()[1]
            options: dict[str, Any] = {"username": "me", "password": "secret", "environment": {}}
            found = NatsSource(f"tls://127.0.0.1:{port}", "s", "in", **options)
            await _told(found, "TLS is asked for, and the server does not offer it")
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    asyncio.run(go())
    assert heard
    assert set(heard) == {b""}


def test_what_a_server_forbids_is_told_in_its_words(tmp_path: Path) -> None:
    from headwater.sources.nats import NatsSource

    server = Nats(tmp_path)
    try:
        server.kill()
        user = 'user: r, password: r, permissions: {publish: ["x"], subscribe: ["_INBOX.>"]}'
        config = f'jetstream {{ store_dir: "{tmp_path}/store" }}\nauthorization {{ users: [{{{user}}}] }}\n'
        (tmp_path / "nats.conf").write_text(config, "utf-8")
        server.start()
        found = NatsSource(server.url, "ORDERS", "in", username="r", password="r", environment={})
        asyncio.run(_told(found, "permissions violation for publish"))
    finally:
        server.kill()


@pytest.mark.slow
def test_consumers_and_servers_that_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    """Every third time the server is killed while a consumer reads, which goes on when it is back; then that dies, too."""
    server, rng, sent = Nats(tmp_path), random.Random(KILLS), 0

    async def send(n: int) -> None:
        nonlocal sent
        await publish(server, lines("killed", sent, sent + n))
        sent += n

    asyncio.run(make(server, "killed"))
    victims = Victims("nats", tmp_path / "data", server.url, "killed")
    try:
        for i in range(KILLS):
            asyncio.run(send(200))
            victims.run(batches=rng.randrange(2, 9), meanwhile=server.restart if i % 3 == 1 else None)
        asyncio.run(send(50))
        asyncio.run(_rest(server, tmp_path / "data", sent))
    finally:
        victims.close()
        server.kill()


async def _rest(server: Nats, directory: Path, sent: int) -> None:
    from broker_worker import source_of

    found = source_of("nats", server.url, "killed", "")
    async with Engine(settings_for(directory)) as engine:
        async with following(engine, found):
            await soon(lambda: count_of(engine) >= sent, lambda: (count_of(engine), sent, found.condition), 240)
        assert sorted(values(records_of(engine))) == sorted(f"n{i}" for i in range(sent))
        assert sorted(r.attributes["nats.sequence"] for r in records_of(engine)) == list(range(1, sent + 1))
