"""Settings of sources: one frozen value a kind, made of a `[[sources]]` entry or of what `headwater sources add` was told.

Read by headwater.config, which checks the names and the types. A secret is a reference `"${NAME}"` to the environment.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import SecretStr

from headwater.errors import ConfigError
from headwater.records import TOPIC_NAME

SourceKind = Literal["path", "syslog", "otlp", "webhook", "kafka", "nats"]
LIVE_VARIABLES = "SOURCE_"  # what the names of variables begin with that a source added live may have of the environment
Form = Literal["auto", "text", "json"]
Reading = Literal["log", "lines", "jsonl", "table", "document"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _set(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A log file, a directory of files, a glob, or stdin to follow into a topic."""

    type: SourceKind = _set("path", "What it is: path, syslog, otlp, webhook, kafka or nats.")
    name: str = _set("", "Name it is managed by; the path or the type by default.")
    topic: str | None = _set(None, "Topic the records go to; from the file's or the source's name by default.")
    path: str = _set("", "File, directory or glob to follow; `-` for standard input.")
    from_start: bool = _set(True, "Read what is already there, not only what is new.")
    read_as: Reading | None = _set(None, "What a file is, where its name and bytes tell it wrong.")


@dataclass(frozen=True, slots=True)
class SyslogSettings:
    type: Literal["syslog"] = "syslog"
    name: str = "syslog"
    topic: str | None = None
    host: str = _set("127.0.0.1", "Address to listen on; syslog has no authentication, so name another only in a safe network.")
    port: int = _set(5514, "Port to listen on; 0 takes a free one.")
    transport: Literal["both", "udp", "tcp"] = _set("both", "What to listen for.")
    queue: int = _set(20_000, "Datagrams that may wait to be stored; beyond them they are dropped and counted.")
    max_message_bytes: int = _set(65_536, "A longer message of a TCP connection is cut into several.")
    tls_cert: str | None = _set(None, "A certificate (PEM): TCP connections then use TLS (transport tcp; port 6514 is usual).")
    tls_key: str | None = _set(None, "The key of tls_cert.")
    tls_client_ca: str | None = _set(None, "Only clients with a certificate that this one (PEM) has signed are let in.")


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    type: Literal["otlp"] = "otlp"
    name: str = "otlp"
    topic: str | None = _set(None, "Topic, in which `{service}` stands for service.name; `otlp` by default.")
    port: int | None = _set(None, "A port of its own besides that of the API, such as 4318; 0 takes a free one.")
    host: str = _set("127.0.0.1", "Address of that port; another than loopback needs server.api_key.")
    max_topics: int = _set(100, "Topics that `{service}` may make; logs of further services go to that of `other`.")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    type: Literal["webhook"] = "webhook"
    name: str = ""
    topic: str | None = None
    kind: Literal["github", "slack", "generic"] = _set("generic", "Who sends: it decides the signature and what a record is.")
    secret: SecretStr | None = _set(None, "Secret that signs what is sent; needed.")
    tolerance_s: float = _set(300.0, "How old a signature of Slack may be.")
    signature_header: str = _set("X-Signature-256", "generic: header with the HMAC-SHA256 of the body, in hex.")
    delivery_header: str = _set("X-Delivery-Id", "generic: header that names a delivery; the body itself where it is missing.")
    value_field: str | None = _set(None, "generic: field of the JSON that is the text, such as issue.title; all by default.")
    key_field: str | None = _set(None, "generic: field that is the key.")
    time_field: str | None = _set(None, "generic: field that is the time.")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    type: Literal["kafka"] = "kafka"
    name: str = "kafka"
    topic: str | None = None
    servers: str = _set("127.0.0.1:9092", "Brokers to begin with, host:port with commas between.")
    topics: tuple[str, ...] = _set((), "Kafka topics to read; one that begins with ^ is a pattern. Needed.")
    group: str | None = _set("headwater", "Consumer group; empty: this source reads all partitions and commits nothing.")
    instance: str | None = _set(None, "Name of this member of the group, so that a restart keeps its partitions.")
    from_start: bool = True
    form: Form = _set("auto", "How a message is read: auto takes JSON objects apart, text nothing, json refuses all else.")
    value_field: str | None = _set(None, "Field of a JSON object that is the text, instead of the usual ones.")
    key_field: str | None = _set(None, "Field that is the key.")
    time_field: str | None = _set(None, "Field that is the time.")
    time: Literal["message", "value"] = _set("message", "Where no field has a time: that of the message, or of the text.")
    headers: tuple[str, ...] | None = _set(None, "Headers kept as attributes; all by default.")
    coordinates: bool = _set(True, "Keep topic, partition and offset (stream, subject and sequence) as attributes.")
    tombstones: Literal["skip", "keep"] = _set("skip", "What becomes of messages without a value.")
    properties: tuple[str, ...] = _set((), "Further settings of librdkafka, as NAME=VALUE; none that are secret.")
    username: str | None = _set(None, "SASL user.")
    password: SecretStr | None = _set(None, "SASL password.")
    credentials: str = _set("KAFKA", "What variables with credentials begin with, such as KAFKA_SASL_PASSWORD.")


@dataclass(frozen=True, slots=True)
class NatsSettings:
    type: Literal["nats"] = "nats"
    name: str = "nats"
    topic: str | None = None
    servers: str = _set("nats://127.0.0.1:4222", "Servers, with commas between.")
    stream: str = _set("", "JetStream stream to read. Needed.")
    durable: str = _set("headwater", "Name of the durable consumer, which serves this data directory alone.")
    subjects: tuple[str, ...] = _set((), "Only messages of these subjects; wildcards are allowed.")
    from_start: bool = True
    form: Form = "auto"
    value_field: str | None = None
    key_field: str | None = None
    time_field: str | None = None
    time: Literal["message", "value"] = "message"
    headers: tuple[str, ...] | None = None
    coordinates: bool = True
    username: str | None = _set(None, "User.")
    password: SecretStr | None = _set(None, "Password.")
    token: SecretStr | None = _set(None, "Token, instead of user and password.")
    credentials: str = _set("NATS", "What variables with credentials begin with, such as NATS_CREDS.")


AnySource = SourceSettings | SyslogSettings | OtlpSettings | WebhookSettings | KafkaSettings | NatsSettings
KINDS: dict[str, type[AnySource]] = {
    "path": SourceSettings, "syslog": SyslogSettings, "otlp": OtlpSettings, "webhook": WebhookSettings, "kafka": KafkaSettings,
    "nats": NatsSettings,
}  # fmt: skip


def entry_name(source: AnySource) -> str:
    """The name an entry is managed by."""
    return source.name or (source.path if isinstance(source, SourceSettings) else source.type)


def check(source: AnySource) -> None:
    """ConfigError for values that cannot be."""
    if not isinstance(source, SourceSettings) and not NAME.fullmatch(source.name):
        raise ConfigError(f"a {source.type} source needs a name of letters, digits, dots and dashes, not {source.name!r}")
    if isinstance(source, SourceSettings) and not source.path:
        raise ConfigError("a source that is followed needs a path; another kind of source needs its type")
    if isinstance(source, WebhookSettings):
        if source.secret is None or not source.secret.get_secret_value():
            raise ConfigError(f'webhook {source.name!r} needs a secret: secret = "${{NAME}}", from the environment')
        if source.tolerance_s <= 0:
            raise ConfigError("tolerance_s must be positive")
    if source.topic is not None and not TOPIC_NAME.fullmatch(source.topic.replace("{service}", "s")):
        raise ConfigError(f"{source.topic!r} is not a topic's name: letters, digits, dots and dashes, at most 100")
    port = getattr(source, "port", None)
    if port is not None:
        _within("port", port, 0, 65_535)
    if isinstance(source, SourceSettings) and ("\0" in source.path or not source.path.isprintable()):
        raise ConfigError("the path has characters that no path should have")
    if isinstance(source, SyslogSettings):
        _within("queue", source.queue, 1, 10_000_000)
        _within("max_message_bytes", source.max_message_bytes, 480, 16 << 20)
        if (source.tls_cert is None) != (source.tls_key is None) or (source.tls_client_ca and not source.tls_cert):
            raise ConfigError("syslog over TLS needs both tls_cert and tls_key")
        if source.tls_cert is not None and source.transport != "tcp":
            raise ConfigError('syslog over TLS is over TCP alone: transport = "tcp"')
    if isinstance(source, KafkaSettings) and not source.topics:
        raise ConfigError(f"kafka source {source.name!r} needs topics, the Kafka topics to read")
    for pattern in source.topics if isinstance(source, KafkaSettings) else ():
        try:
            re.compile(pattern if pattern.startswith("^") else "")
        except re.error as error:
            raise ConfigError(f"{pattern!r} is no pattern of Kafka topics: {error}") from error
    if isinstance(source, KafkaSettings) and (not source.servers or "@" in source.servers or "://" in source.servers):
        raise ConfigError(f"servers of Kafka are host:port, with commas between several, not {source.servers!r}")
    if isinstance(source, KafkaSettings) and (wrong := [p for p in source.properties if "=" not in p]):
        raise ConfigError(f"properties are NAME=VALUE, not {wrong[0]!r}")
    if isinstance(source, NatsSettings) and not source.stream:
        raise ConfigError(f"nats source {source.name!r} needs stream, the JetStream stream to read")
    if isinstance(source, OtlpSettings):
        _within("max_topics", source.max_topics, 1, 10_000)


def check_package(source: AnySource) -> None:
    """ConfigError where a source needs a package that is not installed."""
    module, package = {"kafka": ("confluent_kafka", "confluent-kafka"), "nats": ("nats", "nats-py")}.get(source.type, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ConfigError(f"a {source.type} source needs the package {package}: pip install 'headwater[{source.type}]'")


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} must be between {least} and {most}, not {value}")
