"""What a Kafka source says when it is set up wrongly or the broker is away, and that it then ends without waiting for it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest

from brokers import NEEDS_KAFKA, Kafka, free_port, soon
from headwater.sources import Batch, Condition, Draining, Source

pytestmark = NEEDS_KAFKA


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    broker = Kafka()
    yield broker
    broker.kill()


def source(address: str, topics: str | list[str], group: str | None) -> Source:
    from headwater.sources.kafka import KafkaSource

    return KafkaSource(address, topics, "in", group=group, environment={}, look_s=0.3, session_timeout_s=6)


async def _read(found: Source, into: list[Batch]) -> None:
    async with aclosing(found.batches(None)) as batches:  # type: ignore[type-var]
        async for batch in batches:
            into.append(batch)


async def _until(found: Source, done: Callable[[list[Batch]], bool]) -> list[Batch]:
    """What a source yields until something holds; then it is stopped, as the daemon does."""
    batches: list[Batch] = []
    reading = asyncio.create_task(_read(found, batches))
    await soon(lambda: reading.done() or done(batches), lambda: found.condition)
    assert isinstance(found, Draining)
    found.stop()
    await asyncio.wait_for(reading, 240)
    return batches


def _records(batches: list[Batch]) -> int:
    return sum(len(batch.drafts) for batch in batches)


@pytest.mark.parametrize("group", [None, "readers"], ids=["alone", "in a group"])
def test_a_topic_that_is_not_there_is_told_with_the_one_that_may_be_meant_until_it_is_made(
    kafka: Kafka, group: str | None
) -> None:
    kafka.create("orders")
    found = source(kafka.address, "ordesr", group)
    told: list[Condition] = []

    def mended(batches: list[Batch]) -> bool:
        if not told and "did you mean" in (found.condition.error or ""):
            told.append(found.condition)
            kafka.create("ordesr")
            kafka.produce("ordesr", [{"value": "late"}])
        return _records(batches) == 1 and found.condition.error is None

    asyncio.run(_until(found, mended))
    assert told[0].state == "waiting for the topic"
    assert told[0].error == "there is no topic 'ordesr' that this client may read; did you mean 'orders'?"
    assert found.condition.state == "following"


def test_one_of_several_topics_that_is_not_there_is_told_while_the_others_are_read(kafka: Kafka) -> None:
    kafka.create("orders")
    kafka.produce("orders", [{"value": "here"}])
    found = source(kafka.address, ["orders", "zebra"], None)
    asyncio.run(_until(found, lambda batches: _records(batches) == 1 and found.condition.error is not None))
    assert found.condition == Condition("following", "there is no topic 'zebra' that this client may read")


def test_why_no_broker_can_be_reached_is_told_and_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "headwater.sources.kafka_reader")
    address = f"127.0.0.1:{free_port()}"
    found = source(address, "orders", "readers")

    def refused() -> list[int]:
        return [record.levelno for record in caplog.records if "Connection refused" in record.getMessage() and record.args]

    asyncio.run(_until(found, lambda _: len(refused()) > 6))
    assert found.condition.state == "unreachable"
    assert found.condition.error == (f"none of {address} can be reached: Connect to ipv4#{address} failed: Connection refused")
    assert refused().count(logging.INFO) == 2  # by the log of the library, and by the error it hands out


def test_a_source_whose_broker_hangs_ends_without_taking_leave_of_it(kafka: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headwater.sources.kafka_reader")
    kafka.create("orders")
    kafka.produce("orders", [{"value": "here"}])
    found = source(kafka.address, "orders", "readers")

    def hangs(batches: list[Batch]) -> bool:
        if _records(batches) == 1:
            kafka.signal(signal.SIGSTOP)
            return True
        return False

    try:
        asyncio.run(_until(found, hangs))
    finally:
        kafka.signal(signal.SIGCONT)
    assert "the group was not left" in caplog.text
