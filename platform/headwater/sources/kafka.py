"""Kafka topics as a source: every message once in the log, whoever dies and whenever.

Where reading goes on is kept in the log, in the transaction that stores the records, for each partition; what the group has
committed at the broker is information: for tools that show lag, and of what other members of the group have in logs of
their own. A partition's stream is named after the topic's own id: one that is deleted and made anew is another stream, and read
from its start. So (stream, offset) names a message for ever, also for two members of a group that share a log.

Back-pressure: nothing is polled while a batch is being stored; the client library holds at most `queue_bytes` ahead. A store
that stalls for `max.poll.interval.ms` (5 minutes) loses its partitions to the group's other members, and gets them back.

Needs confluent-kafka: `pip install 'headwater[kafka]'`. Security is set by the environment: KAFKA_SECURITY_PROTOCOL,
KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, KAFKA_SSL_CA_LOCATION and all others of the library's settings
that begin with security, sasl or ssl, as KAFKA_ and the setting's name in capitals with underscores for dots. `username`,
`password` and, of what is no secret, `properties` go before it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from headwater.errors import ConfigError
from headwater.sources import Batch, Condition, State
from headwater.sources.kafka_reader import Pieces, Reader, Take
from headwater.sources.messages import MessageForm, Reading

_OWN = (
    "bootstrap.servers", "group.id", "group.instance.id", "enable.auto.commit", "enable.auto.offset.store",
    "auto.offset.reset", "partition.assignment.strategy", "group.protocol",
)  # fmt: skip
_SECURITY = ("security.", "sasl.", "ssl.")
_SECRET = ("password", "secret", ".pem", "username", "oauthbearer.config")  # endings of what must not stand in a file


class KafkaSource:
    """Source of the messages of Kafka topics into one topic of Headwater.

    servers           host:port of one or more brokers, with commas between
    topics            names; one that begins with ^ is a pattern (`^app\\.`) and takes in topics made later
    topic             where the records go
    group             consumer group, which spreads partitions over its members; None: this source reads all partitions, starts
                      at once after a crash (a group waits until the dead member's session is over), and commits nothing
    instance          a name of its own for this member (static membership), so that a restart keeps its partitions
    from_start        begin with the oldest message, else with those that come from now on (partitions that are added later
                      are always read from their start)
    form              auto, text or json: see `messages`
    value_field, key_field, time_field, time, headers     see `messages.Reading`
    coordinates       whether records get the attributes kafka.topic, kafka.partition and kafka.offset
    tombstones        skip: messages without a value are counted and passed over; keep: they become records with an empty
                      value and the attribute kafka.tombstone
    batch_records     most records of one transaction
    session_timeout_s how long a member may be silent before its partitions go to others
    queue_bytes       of messages held in memory ahead of the log
    properties        further settings of librdkafka that are no secrets
    username, password    of SASL (mechanism PLAIN over TLS, where properties and environment do not say otherwise)
    credentials       what the names of the environment's variables begin with, for a cluster of its own: KAFKA
    look_s            how often new partitions and topics are looked for, and topics made anew
    label             tells sources apart that have topic and group in common
    """

    kind = "kafka"

    def __init__(
        self,
        servers: str,
        topics: str | Sequence[str],
        topic: str,
        *,
        group: str | None = "headwater",
        instance: str | None = None,
        from_start: bool = True,
        form: MessageForm = "auto",
        value_field: str | None = None,
        key_field: str | None = None,
        time_field: str | None = None,
        time: Literal["message", "value"] = "message",
        headers: Sequence[str] | None = None,
        coordinates: bool = True,
        tombstones: Literal["skip", "keep"] = "skip",
        batch_records: int = 2000,
        session_timeout_s: float = 10.0,
        queue_bytes: int = 32 << 20,
        properties: Mapping[str, str | int | float | bool] | None = None,
        username: str | None = None,
        password: str | None = None,
        credentials: str = "KAFKA",
        look_s: float = 10.0,
        label: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        if batch_records < 1 or session_timeout_s <= 0 or look_s <= 0:
            raise ConfigError("batch_records must be at least 1, session_timeout_s and look_s more than 0")
        self.topic = topic
        self.topics = (topics,) if isinstance(topics, str) else tuple(topics)
        self.group, self.from_start, self.batch_records = group, from_start, batch_records
        self.look_s, self._label = look_s, label or group or servers
        reading = Reading(form, value_field, key_field, time_field, time, None if headers is None else tuple(headers))
        self.take = Take(reading, coordinates, tombstones == "keep")
        self.config = _client_config(servers, self.topics, group, properties or {}, _security(credentials, environment))
        if username is not None:
            for name, usual in (("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN")):
                self.config.setdefault(name, usual)
            self.config |= {"sasl.username": username, "sasl.password": password or ""}
        self.config |= {
            "session.timeout.ms": round(session_timeout_s * 1000),
            "heartbeat.interval.ms": max(100, round(session_timeout_s * 1000 / 5)),
            "queued.max.messages.kbytes": max(1024, queue_bytes >> 10),
            **({"group.instance.id": instance} if instance and group else {}),
        }
        self._stopping = False
        self._condition = Condition()
        self._counts: Counter[str] = Counter()
        self.lag: Mapping[str, int] = {}  # messages not yet read, by "topic/partition", of the partitions in hand

    @property
    def name(self) -> str:
        return f"kafka:{self.topic}:{self._label}"

    @property
    def condition(self) -> Condition:
        return self._condition

    def note(self, state: str, error: str | None = None, count: str | None = None, by: int = 1) -> None:
        """Say how it goes; `count` adds to that count."""
        if count:
            self._counts[count] += by
        self._condition = Condition(state, error, dict(self._counts))

    def stop(self) -> None:
        """Read no more; `batches` ends when what it handed out is stored, and tells the group so."""
        self._stopping = True

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless until `stop`. State: `{"log": name, "topics": {name: {"id": id, "next": {partition: offset}}}}`. A batch
        holds messages of one partition. Its `lag_bytes` counts messages, as Kafka does; `lag` has them by partition."""
        self._stopping = False
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix="headwater-kafka")  # all calls of the client, which block, in order
        reader = Reader(self, state)
        try:
            while not self._stopping:
                pieces: Pieces = await loop.run_in_executor(pool, reader.step)
                for piece in pieces:
                    reader.take_over(piece)
                    lag = sum(self.lag.values()) if self.lag else None
                    yield Batch(piece.drafts, reader.state(), piece.stream or self.name, lag, piece.faults)
                    reader.stored(piece)
        finally:
            closing = loop.run_in_executor(pool, reader.close)
            pool.shutdown(wait=False)
            await asyncio.shield(closing)


def _client_config(
    servers: str,
    topics: Sequence[str],
    group: str | None,
    properties: Mapping[str, str | int | float | bool],
    security: Mapping[str, str],
) -> dict[str, str | int | float | bool]:
    """The settings of the client library. Raises ConfigError."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ConfigError("Kafka needs the package confluent-kafka: pip install 'headwater[kafka]'")
    if not servers or "@" in servers or "://" in servers:
        raise ConfigError(f"servers is host:port, with commas between several, not {servers!r}")
    if not topics or not all(topics):
        raise ConfigError("name one or more Kafka topics")
    for name in properties:
        if name in _OWN:
            raise ConfigError(f"{name} is not to be set: the source decides it")
        if name.startswith(_SECURITY) and name.endswith(_SECRET):
            raise ConfigError(f"{name} is a secret: set it in the environment, as KAFKA_{name.upper().replace('.', '_')}")
    return {
        "client.id": "headwater",
        "reconnect.backoff.ms": 500,  # half of it is how often a broker that is down is tried
        "reconnect.backoff.max.ms": 5000,
        "socket.connection.setup.timeout.ms": 10_000,
        "socket.keepalive.enable": True,
        "topic.metadata.refresh.interval.ms": 10_000,
        "fetch.wait.max.ms": 100,
        **security,
        **properties,
        "bootstrap.servers": servers,
        "group.id": group or "headwater-reads-alone",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
    }


def _security(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The security settings that the environment names."""
    found = {}
    for variable, value in environment.items():
        setting = variable.removeprefix(f"{prefix}_").lower().replace("_", ".")
        if variable.startswith(f"{prefix}_") and setting.startswith(_SECURITY):
            found[setting] = value
    return found
