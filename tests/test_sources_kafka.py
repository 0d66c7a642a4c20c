"""Kafka against a real broker (Tansu, in memory): what a message becomes, and that each is stored once, whoever dies."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from brokers import KILLS, NEEDS_KAFKA, Kafka, Victims, count_of, following, records_of, settings_for, soon
from headwater.engine import Engine
from headwater.errors import ConfigError
from headwater.sources import Draining, Source
from headwater.sources.messages import Message, Reading

pytestmark = NEEDS_KAFKA


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    broker = Kafka()
    yield broker
    broker.kill()


def source(broker: Kafka, topics: str | list[str], **options: object) -> Source:
    """Without a group, which takes seconds to gather."""
    from headwater.sources.kafka import KafkaSource

    settings: dict[str, object] = {"group": None, "environment": {}, "look_s": 0.3, **options}
    return KafkaSource(broker.address, topics, "in", **settings)  # type: ignore[arg-type]


async def stored(directory: Path, found: Source, records: int) -> list[str]:
    """The values in the topic, when it has that many."""
    async with Engine(settings_for(directory)) as engine:
        async with following(engine, found):
            await soon(lambda: count_of(engine) >= records, lambda: (count_of(engine), found.condition))
        return [record.value for record in records_of(engine)]


# ---------------------------------------------------------------------- what a message becomes


async def _record(broker: Kafka, directory: Path, topic: str, message: dict[str, object], **options: object) -> object:
    broker.create(topic)
    broker.produce(topic, [message])
    found = source(broker, topic, **options)
    async with Engine(settings_for(directory)) as engine:
        async with following(engine, found):
            await soon(lambda: count_of(engine) >= 1, lambda: found.condition)
        return records_of(engine)[0]


def test_a_record_has_the_message_s_key_time_headers_and_place(kafka: Kafka, tmp_path: Path) -> None:
    headers = [("trace", b"a1"), ("trace", b"a2"), ("empty", None)]
    message = {"value": "disk is full", "key": "host7", "timestamp": 1_700_000_000_123, "headers": headers}
    record = asyncio.run(_record(kafka, tmp_path, "whole", message))
    assert (record.value, record.key) == ("disk is full", "host7")  # type: ignore[attr-defined]
    assert record.timestamp.isoformat() == "2023-11-14T22:13:20.123000+00:00"  # type: ignore[attr-defined]
    assert record.attributes == {  # type: ignore[attr-defined]
        "header.trace": "a2", "kafka.topic": "whole", "kafka.partition": 0, "kafka.offset": 0,
    }  # fmt: skip


def test_a_json_object_is_taken_apart_as_it_is_elsewhere(kafka: Kafka, tmp_path: Path) -> None:
    message = {"value": '{"message": "paid", "amount": 3, "id": "o1", "time": "2026-01-02T03:04:05Z"}', "key": "customer 4"}
    record = asyncio.run(_record(kafka, tmp_path, "objects", message, coordinates=False))
    assert (record.value, record.key) == ("paid", "customer 4")  # type: ignore[attr-defined]
    assert record.timestamp.isoformat() == "2026-01-02T03:04:05+00:00"  # type: ignore[attr-defined]
    assert record.attributes == {"amount": 3, "id": "o1"}  # type: ignore[attr-defined]


def test_tombstones_are_counted_or_kept(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create("compacted")
    kafka.produce("compacted", [{"value": None, "key": "gone"}, {"value": "here", "key": "k"}])
    skipping, keeping = source(kafka, "compacted"), source(kafka, "compacted", tombstones="keep")
    assert asyncio.run(stored(tmp_path / "a", skipping, 1)) == ["here"]
    assert skipping.condition.counts == {"tombstones": 1}
    assert asyncio.run(stored(tmp_path / "b", keeping, 2)) == ["", "here"]


def test_what_cannot_be_read_is_kept_and_stops_nothing(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create("poison")
    kafka.produce("poison", [{"value": b"\xff\x00 broken"}, {"value": "{no json"}, {"value": '{"text": "fine"}'}])
    assert asyncio.run(stored(tmp_path / "a", source(kafka, "poison"), 3)) == ["\ufffd\0 broken", "{no json", "fine"]

    async def strict() -> list[tuple[str, str | None]]:
        found = source(kafka, "poison", form="json")
        async with Engine(settings_for(tmp_path / "b")) as engine, following(engine, found):
            await soon(lambda: count_of(engine) >= 1, lambda: found.condition)
            return [(letter.reason, letter.source) for letter in await engine.dead_letters()]

    letters = sorted(asyncio.run(strict()), key=lambda letter: str(letter[1]))
    assert [reason.split(":")[0] for reason, _ in letters] == ["not a JSON object", "not JSON"]
    assert [place and place.rsplit(" at ", 1)[1] for _, place in letters] == ["0", "1"]


def test_fields_of_one_s_own_choice_give_value_key_and_time() -> None:
    reading = Reading(value_field="log.text", key_field="who", time_field="log.at", headers=("kept",))
    body = b'{"log": {"text": "hello", "at": 1700000000, "n": 1}, "who": 7, "partition": 3, "message": "other"}'
    draft = reading.draft(Message(body, 5, b"key", 9, [("kept", b"yes"), ("left", b"no")], {"kafka.offset": 5}))
    assert draft == (
        "hello", "7", 1_700_000_000_000, {"partition": 3, "log.n": 1, "header.kept": "yes", "kafka.offset": 5},
        None, 5, None, None, None,
    )  # fmt: skip


def test_the_schema_s_number_before_json_is_cut_off_and_a_binary_key_is_in_hexadecimal() -> None:
    draft = Reading().draft(Message(b'\0\0\0\0\x07{"text": "hello"}', 1, b"\x00\x01"))
    assert (draft[0], draft[1]) == ("hello", "0001")  # type: ignore[index]


def test_the_time_in_the_text_goes_before_the_message_s_where_asked_for() -> None:
    message = Message(b"2026-01-02 03:04:05 started", 0, time_ms=7)
    assert Reading().draft(message)[2] == 7  # type: ignore[index]
    assert Reading(time="value").draft(message)[2] is None  # type: ignore[index]  # the intake reads it from the text


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"servers": "sasl://user:secret@host:9092"}, "host:port"),
        ({"topics": []}, "name one or more"),
        ({"properties": {"sasl.password": "x"}}, "KAFKA_SASL_PASSWORD"),
        ({"properties": {"enable.auto.commit": True}}, "not to be set"),
        ({"form": "xml"}, "none of auto, text, json"),
        ({"form": "text", "key_field": "id"}, "takes no object apart"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_told_before_anything_runs(options: dict[str, object], said: str) -> None:
    from headwater.sources.kafka import KafkaSource

    given: dict[str, object] = {"servers": "127.0.0.1:9", "topics": "t", "topic": "in", "environment": {}, **options}
    with pytest.raises(ConfigError, match=said):
        KafkaSource(**given)  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.sources.kafka import KafkaSource

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'headwater\[kafka\]'"):
        KafkaSource("h:1", "t", "in", environment={})


def test_security_comes_from_the_environment() -> None:
    from headwater.sources.kafka import KafkaSource

    found = {"EAST_SECURITY_PROTOCOL": "SASL_SSL", "EAST_SASL_PASSWORD": "s", "KAFKA_SASL_PASSWORD": "other", "EAST_HOME": "/"}
    config = KafkaSource("h:1", "t", "in", credentials="EAST", environment=found).config
    assert (config["security.protocol"], config["sasl.password"]) == ("SASL_SSL", "s")
    assert "home" not in config
    assert KafkaSource("h:1", "t", "in", username="u", password="p", environment={}).config["security.protocol"] == "SASL_SSL"


# ---------------------------------------------------------------------- once each


def test_a_restart_goes_on_behind_the_last_record(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create("restarted", 2)
    kafka.produce("restarted", [{"value": f"n{i}", "partition": i % 2} for i in range(40)])
    asyncio.run(stored(tmp_path, source(kafka, "restarted", batch_records=7), 40))
    kafka.produce("restarted", [{"value": f"n{i}", "partition": i % 2} for i in range(40, 50)])
    found = asyncio.run(stored(tmp_path, source(kafka, "restarted"), 50))
    assert sorted(found) == sorted(f"n{i}" for i in range(50))
    assert [v for v in found if int(v[1:]) % 2] == [f"n{i}" for i in range(1, 50, 2)]  # a partition's order is kept


def test_messages_that_two_sources_read_are_stored_once(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create("shared", 3)
    kafka.produce("shared", [{"value": f"n{i}", "partition": i % 3} for i in range(300)])

    async def both() -> list[str]:
        one, two = (source(kafka, "shared", label=label, batch_records=17) for label in "ab")
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, one, two):
                await soon(
                    lambda: all(
                        sum(
                            (engine.log.source_state(s.name) or {"topics": {"shared": {"next": {}}}})["topics"]["shared"][
                                "next"
                            ].values()
                        )
                        == 300
                        for s in (one, two)
                    ),
                    lambda: (one.condition, two.condition),
                )
            return [record.value for record in records_of(engine)]

    assert sorted(asyncio.run(both())) == sorted(f"n{i}" for i in range(300))


def test_only_what_comes_from_now_on_is_read_where_asked_for(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create("running")
    for i in range(3):  # one batch each: the broker tells the end by its last batch's start
        kafka.produce("running", [{"value": f"old{i}"}])

    async def run() -> list[str]:
        found = source(kafka, "running", from_start=False)
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, found):
                await soon(lambda: engine.log.source_state(found.name) is not None, lambda: found.condition)
            kafka.produce("running", [{"value": "while away"}])  # the place was kept before the first record
            async with following(engine, found):
                await soon(lambda: count_of(engine) == 1, lambda: found.condition)
                kafka.produce("running", [{"value": "new"}])
                await soon(lambda: count_of(engine) == 2, lambda: found.condition)
            return [record.value for record in records_of(engine)]

    assert asyncio.run(run()) == ["while away", "new"]


def test_a_pattern_takes_in_topics_that_come_later_and_their_lag_is_told(kafka: Kafka, tmp_path: Path) -> None:
    async def run() -> None:
        found = source(kafka, "^app-.*")
        async with Engine(settings_for(tmp_path)) as engine, following(engine, found):
            await soon(lambda: found.condition.state == "waiting for the topic", lambda: found.condition)
            for name in ("app-one", "app-two", "other"):
                kafka.create(name)
                kafka.produce(name, [{"value": name}])
            await soon(lambda: count_of(engine) == 2, lambda: found.condition)
            await soon(lambda: found.lag == {"app-one/0": 0, "app-two/0": 0}, lambda: found.lag)  # type: ignore[attr-defined]
            assert {r.value for r in records_of(engine)} == {"app-one", "app-two"}

    asyncio.run(run())


def test_nothing_is_read_ahead_of_a_batch_that_is_not_stored(kafka: Kafka) -> None:
    kafka.create("slow")
    kafka.produce("slow", [{"value": f"n{i}"} for i in range(100)])

    async def run() -> list[int]:
        batches = source(kafka, "slow", batch_records=8).batches(None)
        sizes = [len((await anext(batches)).drafts) for _ in range(4)]
        await batches.aclose()  # type: ignore[attr-defined]
        return sizes

    sizes = asyncio.run(run())
    assert sizes[0] == 0, "the places come first"
    assert max(sizes) <= 8


# ---------------------------------------------------------------------- outages and crashes


def test_an_outage_is_told_and_a_topic_made_anew_is_read_from_its_start(tmp_path: Path) -> None:
    """The broker forgets all when it dies, so its topic is another one afterwards: longer than what was read of the first."""
    broker = Kafka()

    async def run() -> list[str]:
        broker.create("lines", 2)
        broker.produce("lines", [{"value": f"a{i}", "partition": i % 2} for i in range(100)])
        found = source(broker, "lines", look_s=60)
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, found):
                await soon(lambda: count_of(engine) == 100, lambda: found.condition)
                await asyncio.to_thread(broker.kill)
                await soon(lambda: found.condition.state == "unreachable", lambda: found.condition)
                assert found.condition.error
                await asyncio.to_thread(broker.start)
                await asyncio.to_thread(broker.create, "lines", 2)
                broker.produce("lines", [{"value": f"b{i}", "partition": i % 2} for i in range(300)])
                await soon(lambda: count_of(engine) >= 400, lambda: (count_of(engine), found.condition))
                await soon(lambda: found.condition.state == "following", lambda: found.condition)
                await asyncio.to_thread(broker.kill)
            return [record.value for record in records_of(engine)]

    try:
        found = asyncio.run(run())
    finally:
        broker.kill()
    assert sorted(found) == sorted([f"a{i}" for i in range(100)] + [f"b{i}" for i in range(300)])


@pytest.fixture
def mock() -> Iterator[str]:
    """The address of the client library's own mock cluster: it keeps what is said with a commit and knows ends of partitions
    exactly, which Tansu does not; it has no ids of topics."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
    broker = next(iter(producer.list_topics(timeout=240).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    producer.flush()  # the cluster lives as long as the producer


async def _until_stored(directory: Path, found: Source, records: int) -> list[str]:
    async with Engine(settings_for(directory)) as engine:
        async with following(engine, found):
            await soon(lambda: count_of(engine) >= records, lambda: (count_of(engine), found.condition))
            await soon(lambda: set(found.lag.values()) == {0}, lambda: found.lag)  # type: ignore[attr-defined]
        return [record.value for record in records_of(engine)]


def _send(address: str, first: int, end: int, *, size: int = 0) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address})
    for i in range(first, end):
        producer.produce("lines", f"n{i}".ljust(size, "."), partition=0)
    assert producer.flush(240) == 0


@pytest.mark.slow
def test_members_with_logs_of_their_own_divide_the_messages_and_a_restored_log_catches_up(
    mock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.sources import kafka_reader
    from headwater.sources.kafka import KafkaSource

    def member() -> Source:
        return KafkaSource(mock, "lines", "in", group="logs", environment={}, session_timeout_s=6)

    monkeypatch.setattr(kafka_reader, "_CALL_S", 0.3)  # the mock cluster never answers the question for ids
    one, two = tmp_path / "one", tmp_path / "two"
    _send(mock, 0, 20)
    assert asyncio.run(_until_stored(one, member(), 20)) == [f"n{i}" for i in range(20)]
    shutil.copytree(one, tmp_path / "backup")
    _send(mock, 20, 30)
    assert asyncio.run(_until_stored(two, member(), 10)) == [f"n{i}" for i in range(20, 30)]  # behind the first log
    _send(mock, 30, 40)
    found = asyncio.run(_until_stored(one, member(), 30))
    assert found == [f"n{i}" for i in (*range(20), *range(30, 40))]  # and behind the second
    shutil.rmtree(one)
    shutil.copytree(tmp_path / "backup", one)
    assert asyncio.run(_until_stored(one, member(), 40))[20:] == [f"n{i}" for i in range(20, 40)]


async def _resumed(address: str, at: int, last: str) -> tuple[list[str], set[str], Mapping[str, int]]:
    """What a source that has read partition 0 up to an offset reads from there on: values up to `last`, streams, counts."""
    from headwater.sources.kafka import KafkaSource

    found = KafkaSource(address, "lines", "in", group=None, environment={})
    batches = found.batches({"log": "x", "topics": {"lines": {"id": "-old", "next": {"0": at, "1": 0, "2": 0, "3": 0}}}})
    values: list[str] = []
    streams: set[str] = set()
    async with asyncio.timeout(240):
        while last not in values:
            batch = await anext(batches)
            values += [draft.value.rstrip(".") for draft in batch.drafts]
            streams |= {batch.stream} if batch.drafts else set()
    await batches.aclose()  # type: ignore[attr-defined]
    return values, streams, found.condition.counts


def test_a_partition_that_ends_before_what_was_read_of_it_is_read_again_under_another_name(
    mock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.sources import kafka_reader

    monkeypatch.setattr(kafka_reader, "_CALL_S", 0.3)
    _send(mock, 0, 5)
    values, streams, counts = asyncio.run(_resumed(mock, 1000, "n4"))
    assert (values, streams, counts) == ([f"n{i}" for i in range(5)], {"kafka:lines/0#-old~1"}, {"cuts": 1})


def test_messages_that_expired_unread_are_told(mock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.sources import kafka_reader

    monkeypatch.setattr(kafka_reader, "_CALL_S", 0.3)
    for i in range(16):  # the mock cluster keeps 5 MB of a partition
        _send(mock, i, i + 1, size=500_000)
    values, streams, counts = asyncio.run(_resumed(mock, 2, "n15"))
    assert values == [f"n{i}" for i in range(16 - len(values), 16)]
    assert len(values) < 14
    assert (streams, counts) == ({"kafka:lines/0#-old"}, {"gaps": 1})


def _offsets(engine: Engine) -> list[tuple[int, int]]:
    return sorted((int(r.attributes["kafka.partition"]), int(r.attributes["kafka.offset"])) for r in records_of(engine))


@pytest.mark.slow
@pytest.mark.parametrize(("group", "kills"), [("", KILLS), ("crashing", KILLS // 2)], ids=["alone", "in a group"])
def test_consumers_that_are_killed_lose_and_double_nothing(kafka: Kafka, tmp_path: Path, group: str, kills: int) -> None:
    topic, rng, partitions = f"killed{group}", random.Random(kills), 3
    kafka.create(topic, partitions)
    sent = [0] * partitions

    def produce(n: int) -> None:
        messages = []
        for _ in range(n):
            p = rng.randrange(partitions)
            messages.append({"value": f"{p}-{sent[p]}", "partition": p})
            sent[p] += 1
        kafka.produce(topic, messages)

    victims = Victims("kafka", tmp_path, kafka.address, topic, group)
    try:
        for _ in range(kills):
            produce(200)
            victims.run(batches=rng.randrange(2, 9))
    finally:
        victims.close()
    produce(50)

    async def rest() -> None:
        from broker_worker import source_of

        found = source_of("kafka", kafka.address, topic, group)
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, found):
                await soon(lambda: count_of(engine) >= sum(sent), lambda: (count_of(engine), sum(sent), found.condition), 240)
            assert _offsets(engine) == sorted((p, i) for p in range(partitions) for i in range(sent[p]))
            assert all(
                r.value == f"{r.attributes['kafka.partition']}-{r.attributes['kafka.offset']}" for r in records_of(engine)
            )

    asyncio.run(rest())


def test_a_source_that_is_stopped_tells_the_group_of_its_last_batch_before_it_ends(kafka: Kafka) -> None:
    kafka.create("left")
    kafka.produce("left", [{"value": f"n{i}"} for i in range(30)])

    async def run() -> None:
        found = source(kafka, "left", group="leavers", session_timeout_s=10)
        taken = 0
        async with aclosing(found.batches(None)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                taken += len(batch.drafts)
                if taken == 30:
                    assert isinstance(found, Draining)
                    found.stop()  # as the batch is being stored

    asyncio.run(run())
    assert kafka.committed("leavers", "left", 1) == {0: 30}


@pytest.mark.slow
def test_a_group_s_members_come_and_go_and_each_message_is_stored_once(kafka: Kafka, tmp_path: Path) -> None:
    partitions, total = 4, 0
    kafka.create("moving", partitions)

    def member(label: str) -> Source:
        return source(kafka, "moving", group="movers", label=label, session_timeout_s=10, batch_records=50)

    async def produce(n: int) -> None:
        nonlocal total
        messages = [{"value": f"n{i}", "partition": i % partitions} for i in range(total, total + n)]
        await asyncio.to_thread(kafka.produce, "moving", messages)
        total += n

    async def all_stored(engine: Engine, *members: Source) -> None:
        await soon(lambda: count_of(engine) >= total, lambda: (count_of(engine), total, [m.condition for m in members]), 240)

    async def run() -> None:
        one, two = member("one"), member("two")
        async with Engine(settings_for(tmp_path)) as engine:
            async with following(engine, one):
                await produce(1000)
                await all_stored(engine, one)
                async with following(engine, two):
                    for _ in range(20):
                        await produce(100)
                        await asyncio.sleep(0.02)
                    await soon(lambda: bool(two.lag), lambda: two.condition)  # type: ignore[attr-defined]
                    await produce(500)
                    await all_stored(engine, one, two)
                await produce(500)
                await all_stored(engine, one)
            assert _offsets(engine) == sorted((p, i) for p in range(partitions) for i in range(total // partitions))

    asyncio.run(run())
    assert sum(kafka.committed("movers", "moving", partitions).values()) == total
