"""What the entries of the roster become: the sources that a daemon runs."""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater.listening import check_address, listen, serving
from headwater.source_settings import (
    LIVE_VARIABLES,
    AnySource,
    KafkaSettings,
    NatsSettings,
    OtlpSettings,
    SourceSettings,
    SyslogSettings,
)
from headwater.sources import Batch, Condition, Source, State

if TYPE_CHECKING:
    from pydantic import SecretStr
    from starlette.types import ASGIApp

    from headwater.config import ServerSettings
    from headwater.intake.roster import Entry

Serve = Callable[["ServerSettings", str], "ASGIApp"]


class Sourcing:
    """Makes sources. `serve(settings, entry)` is the app that takes OTLP on a port of its own."""

    def __init__(self, server: ServerSettings, serve: Serve) -> None:
        self._server, self._serve = server, serve

    def __call__(self, entry: Entry, known: Mapping[str, str]) -> list[Source]:
        """The sources of an entry of which `known` (path -> topic) does not tell; none for what is only pushed."""
        settings = entry.settings
        if isinstance(settings, SourceSettings):
            return followed(settings, known)
        if isinstance(settings, KafkaSettings | NatsSettings):
            return [of_broker(settings, entry.topic, live=entry.origin == "live")]
        return [] if settings is None else listening(settings, entry.topic, self._server, self._serve)


def followed(settings: SourceSettings, known: Mapping[str, str]) -> list[Source]:
    """The sources of a path. Raises NotFoundError for one that is not there, unless there are others already."""
    from headwater.sources.planning import plan

    there = [path for path in _expanded(settings.path) if not known or path == "-" or os.path.exists(path)]  # it may come again
    return plan(there, known=known, topic=settings.topic, read_as=settings.read_as, from_start=settings.from_start)


def of_broker(settings: KafkaSettings | NatsSettings, topic: str, *, live: bool) -> Source:
    """The source of messages of a broker. One that was added `live` takes credentials only from variables that begin with
    SOURCE_: who may add one could send all others to a server of his own. ConfigError."""
    own = settings.credentials
    common: dict[str, Any] = {
        "from_start": settings.from_start, "form": settings.form, "value_field": settings.value_field,
        "key_field": settings.key_field, "time_field": settings.time_field, "time": settings.time,
        "headers": settings.headers, "coordinates": settings.coordinates, "username": settings.username,
        "password": _plain(settings.password), "label": settings.name,
        "credentials": own if not live or own.startswith(LIVE_VARIABLES) else LIVE_VARIABLES + own,
    }  # fmt: skip
    if isinstance(settings, KafkaSettings):
        from headwater.sources.kafka import KafkaSource

        properties = dict(pair.split("=", 1) for pair in settings.properties)
        return KafkaSource(
            settings.servers, settings.topics, topic, group=settings.group, instance=settings.instance,
            tombstones=settings.tombstones, properties=properties, **common,
        )  # fmt: skip
    from headwater.sources.nats import NatsSource

    token = _plain(settings.token)
    return NatsSource(
        settings.servers, settings.stream, topic, durable=settings.durable, subjects=settings.subjects, token=token, **common
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def listening(settings: AnySource, topic: str, server: ServerSettings, serve: Serve) -> list[Source]:
    """The source that listens on a port, of an entry that has one."""
    if isinstance(settings, SyslogSettings):
        from headwater.sources.syslog import Syslog

        return [
            Syslog(
                topic, name=settings.name, host=settings.host, port=settings.port, transport=settings.transport,
                queue=settings.queue, max_message_bytes=settings.max_message_bytes, tls_cert=settings.tls_cert,
                tls_key=settings.tls_key, tls_client_ca=settings.tls_client_ca,
            )
        ]  # fmt: skip
    if isinstance(settings, OtlpSettings) and settings.port is not None:
        return [OtlpPort(settings, topic, replace(server, host=settings.host, port=settings.port), serve)]
    return []


def check_paths(entries: Sequence[AnySource]) -> None:
    """Raise NotFoundError now for a path that is not there."""
    for settings in entries:
        if isinstance(settings, SourceSettings):
            followed(settings, {})


class OtlpPort:
    """Source whose records come over a port of its own and are stored where they arrive: it listens, and yields nothing."""

    kind = "otlp"

    def __init__(self, settings: OtlpSettings, topic: str, server: ServerSettings, serve: Serve) -> None:
        self.name, self.topic = settings.name, topic
        self._server, self._serve = server, serve
        self._stopping = asyncio.Event()
        self._state = "starting"

    @property
    def condition(self) -> Condition:
        return Condition(self._state)

    def stop(self) -> None:
        self._stopping.set()

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Ends with `stop`, when the requests under way are answered. Raises ConfigError for an address that cannot be had."""
        self._stopping.clear()
        check_address(self._server)
        listener = listen(self._server, firm=True)
        async with serving(self._serve(self._server, self.name), listener, self._stopping):
            self._state = f"listening on {self._server.host} port {listener.getsockname()[1]}"
            await self._stopping.wait()
        nothing: tuple[Batch, ...] = ()
        for batch in nothing:
            yield batch


def _expanded(path: str) -> list[str]:
    """The paths a glob stands for; any other path itself."""
    return sorted(glob.glob(os.path.expanduser(path), recursive=True)) if glob.has_magic(path) else [path]
