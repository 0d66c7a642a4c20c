"""Doors: where records are pushed to sources, over OTLP and webhooks. What is answered with success has been committed.

Whoever serves HTTP hands the requests over; a door that is paused, or whose log cannot be written now, asks to come again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import anyio.to_thread

from headwater.errors import AuthError, ConflictError, HeadwaterError, LimitError, StorageError, UsageError
from headwater.index.topic import TopicIndex
from headwater.intake.deliveries import deliver
from headwater.intake.roster import Entry, Roster, Tally
from headwater.log.store import Log, Origin
from headwater.records import Appended, Draft
from headwater.source_settings import OtlpSettings, WebhookSettings
from headwater.sources import otlp, webhooks

_MOST_UNPACKED_BYTES = 64 << 20
_THREAD_BYTES = 32 << 10  # a body above it is read in a thread
_AGAIN_S = 5.0


class Append(Protocol):
    """What stores: Engine.append."""

    async def __call__(
        self, topic: str, records: Sequence[Draft], *, idempotency_key: str | None = None, origin: Origin | None = None
    ) -> Appended: ...


class Reply(NamedTuple):
    """What to answer an exporter."""

    status: int
    body: bytes
    kind: str
    retry_after_s: float | None = None


class Doors:
    """All doors of one engine. `append` stores, `home` gives a topic, made where there is none."""

    def __init__(
        self, roster: Roster, log: Log, append: Append, home: Callable[[str], Awaitable[TopicIndex]],
        *, now_s: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._roster, self._log, self._append, self._home, self._now_s = roster, log, append, home, now_s
        self._services: dict[str, str] = {}

    # ------------------------------------------------------------------ OTLP

    async def logs(self, body: bytes, content_type: str, encoding: str = "", *, door: str | None = None) -> Reply:
        """Store the logs of an export request; `door` is the entry it came to, the first by default. Never raises a
        HeadwaterError: an exporter hears in OTLP's own form whether to send again."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind not in (otlp.PROTOBUF, otlp.JSON):
            return Reply(415, otlp.refusal(f"send {otlp.PROTOBUF} or {otlp.JSON}, not {kind!r}", otlp.JSON), otlp.JSON)
        entry = self._roster.first_otlp() if door is None else self._roster.door(door)
        tally = self._roster.tally(entry.name, entry)
        try:
            _check_open(entry, tally)
            rejected, why = await self._store_logs(entry, tally, body, kind, encoding)
        except (StorageError, LimitError) as error:
            again = isinstance(error, StorageError) or error.retry_after_s is not None
            tally.error = None if entry.paused else str(error)
            return Reply(503 if again else 413, otlp.refusal(str(error), kind), kind, _AGAIN_S if again else None)
        except HeadwaterError as error:
            tally.count("refused")
            tally.error = str(error)
            return Reply(400, otlp.refusal(str(error), kind), kind)
        tally.error = None
        return Reply(200, otlp.reply(rejected, why, kind), kind)

    async def _store_logs(self, entry: Entry, tally: Tally, body: bytes, kind: str, encoding: str) -> tuple[int, str]:
        """How many logs could not be kept, and why."""
        settings = entry.settings
        assert isinstance(settings, OtlpSettings)
        whole = otlp.decompressed(body, encoding, _MOST_UNPACKED_BYTES) if encoding else body
        read = otlp.drafts
        logs = read(whole, kind) if len(whole) < _THREAD_BYTES else await anyio.to_thread.run_sync(read, whole, kind)
        rejected = logs.empty
        for service, drafts in logs.of.items():
            topic = self._topic_of(settings, service)

            async def append(part: Sequence[Draft], origin: Origin, topic: str = topic) -> Appended:
                return await self._append(topic, part)

            home = await self._home(topic)
            done = await deliver(append, self._log, home, drafts, Origin("otlp"), (), entry.name)
            tally.stored += done.stored
            tally.count("dead_letters", done.dead_letters)
            rejected += done.dead_letters
        tally.count("empty", logs.empty)
        if not rejected:
            return 0, ""
        return rejected, f"{logs.empty} without a body or attributes; {rejected - logs.empty} that the topic cannot take"

    def _topic_of(self, settings: OtlpSettings, service: str | None) -> str:
        pattern = settings.topic or settings.name
        if "{service}" not in pattern:
            return pattern
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", service or "unknown").strip("-.") or "unknown"
        topic = self._services.get(name)
        if topic is None:
            known = name if len(self._services) < settings.max_topics else "other"
            topic = pattern.replace("{service}", known)[:100]
            if known == name:
                self._services[name] = topic
        return topic

    # ------------------------------------------------------------------ webhooks

    async def hook(self, name: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, Any]:
        """Store what a webhook delivered, each delivery once; what to answer. Names of headers in small letters. Raises
        NotFoundError, AuthError for a wrong signature, UsageError, StorageError."""
        entry = self._roster.door(name)
        hook = entry.settings
        assert isinstance(hook, WebhookSettings)
        tally = self._roster.tally(entry.name, entry)
        try:
            webhooks.check(hook, headers, body, self._now_s())
        except AuthError:
            tally.count("bad_signature")
            raise
        _check_open(entry, tally)
        try:
            sent = webhooks.read(hook, headers, body)
            if sent.answer is not None:
                return sent.answer
            stored = await self._store_hook(entry, hook, sent)
        except (UsageError, StorageError) as error:
            tally.count("refused")
            tally.error = str(error)
            raise
        tally.error = None
        tally.stored += stored
        tally.count("duplicates", len(sent.drafts) - stored)
        return {"stored": stored, "duplicates": len(sent.drafts) - stored}

    async def _store_hook(self, entry: Entry, hook: WebhookSettings, sent: webhooks.Delivered) -> int:
        topic, origin = hook.topic or hook.name, Origin(f"webhook:{hook.name}")
        try:
            done = await self._append(topic, sent.drafts, idempotency_key=f"{hook.name}:{sent.id}", origin=origin)
        except ConflictError:
            raise
        except UsageError:
            home = await self._home(topic)

            async def append(part: Sequence[Draft], origin: Origin) -> Appended:
                return await self._append(topic, part, origin=origin)

            kept = await deliver(append, self._log, home, sent.drafts, origin, (), entry.name)
            return kept.stored
        return sum(not receipt.duplicate for receipt in done.records)


def _check_open(entry: Entry, tally: Tally) -> None:
    if entry.paused:
        raise LimitError(f"source {entry.name!r} is paused; send it again later", retry_after_s=_AGAIN_S)
    tally.state = tally.state if tally.state.startswith("listening") else "listening"
