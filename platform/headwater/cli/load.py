"""Batches of a source or a file into a topic, through the verbs: cut to what one request may hold, in their order. What is
no record, or does not fit into a request, becomes a dead letter of the topic.

A file's batches carry the state that resumes behind them, and each record its place in the file: a load that was
interrupted goes on where it stopped when it is run again, and stores nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headwater.batches import Fault
from headwater.errors import ConflictError, LimitError, UsageError, WaitTimeout
from headwater.records import TOPIC_NAME, Draft

if TYPE_CHECKING:
    from headwater.verbs import Verbs

PIECE_BYTES = 1 << 20  # of text in one request; JSON at worst sextuples it, mostly it hardly grows
PIECE_RECORDS = 5000
_SHOWN_FAULTS = 20
_SHOWN_CHARS = 2000  # of input that is set aside, where its place in the file says where the rest is


@dataclass(slots=True)
class Tally:
    """What became of the input so far."""

    stored: int = 0
    known: int = 0  # was stored already by an earlier load
    dead_letters: int = 0
    shown: list[tuple[str, Fault]] = field(default_factory=list)  # the first, with the file
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.begun, 1e-3)

    @property
    def rate(self) -> float:
        """Records stored a second."""
        return self.stored / self.seconds


def check_name(topic: str) -> None:
    """UsageError for what cannot name a topic, before any input is read."""
    if not TOPIC_NAME.fullmatch(topic):
        raise UsageError(f"{topic!r} cannot name a topic; use letters, digits, dot, dash and underscore (at most 100)")


class Load:
    """Stores drafts in `topic`, in order. `searchable`: wait after each piece until search finds it."""

    def __init__(self, verbs: Verbs, topic: str, *, searchable: bool = False) -> None:
        self._verbs, self._topic, self._wait = verbs, topic, searchable
        self.tally = Tally()
        self.source = self.file = "stdin"  # what is being read: as dead letters name it, and as people do
        self.addresses: list[str] = []  # of the last piece

    async def state(self) -> Mapping[str, Any] | None:
        """The state that the source's last batch left, in this load or an earlier one."""
        return (await self._verbs.deliver(self._topic, self.source)).state

    async def deliver(
        self, drafts: Sequence[Draft], stream: str, state: Mapping[str, Any] | None = None, faults: Sequence[Fault] = ()
    ) -> None:
        """Store a batch of the source, and with it its state."""
        await self.refuse(faults, stream)
        *first, last = list(pieces(drafts)) or [()]
        for piece in first:
            await self._deliver(piece, stream, None)
        if last or state is not None:
            await self._deliver(last, stream, state)

    async def refuse(self, faults: Sequence[Fault], stream: str = "") -> None:
        """Keep pieces of the input that are no records as dead letters."""
        self.tally.shown += [(self.file, fault) for fault in faults[: _SHOWN_FAULTS - len(self.tally.shown)]]
        step = max(1, PIECE_BYTES // _SHOWN_CHARS)
        for start in range(0, len(faults), step):
            part = [Fault(f.position, f.reason, f.payload[:_SHOWN_CHARS]) for f in faults[start : start + step]]
            done = await self._verbs.deliver(self._topic, self.source, stream=stream, faults=part)
            self.tally.dead_letters += done.dead_letters

    async def _deliver(self, piece: Sequence[Draft], stream: str, state: Mapping[str, Any] | None) -> None:
        try:
            done = await self._verbs.deliver(self._topic, self.source, piece, stream=stream, state=state)
        except LimitError as error:
            if error.retry_after_s is not None or not piece:
                raise
            if len(piece) > 1:
                middle = len(piece) // 2
                await self._deliver(piece[:middle], stream, None)
                await self._deliver(piece[middle:], stream, state)
                return
            await self.refuse([_too_large(piece[0], error)], stream)
            if state is not None:
                await self._deliver((), stream, state)
            return
        self.tally.stored += done.stored
        self.tally.known += done.duplicates
        self.tally.dead_letters += done.dead_letters

    async def store(self, drafts: Sequence[Draft], stream: str) -> None:
        """Append drafts of one stream that nobody can ask for again. What the topic cannot take is set aside."""
        for piece in pieces(drafts):
            await self._append(piece, stream)

    async def _append(self, piece: Sequence[Draft], stream: str) -> None:
        place = f"{stream}|{self._topic}|{piece[0].position}-{piece[-1].position}|{len(piece)}"
        key = hashlib.sha256(place.encode("utf-8", "backslashreplace")).hexdigest()[:40]
        try:
            reply = await self._verbs.append(
                self._topic, piece, idempotency_key=key, wait="searchable" if self._wait else "stored", timeout_s=120.0
            )
        except ConflictError:
            raise
        except (UsageError, LimitError) as error:
            if isinstance(error, LimitError) and error.retry_after_s is not None:
                raise
            if len(piece) > 1:
                await self._append(piece[: len(piece) // 2], stream)
                await self._append(piece[len(piece) // 2 :], stream)
                return
            fault = Fault(piece[0].position or 0, str(error).removeprefix("record 0: "), piece[0].value)
            await self.refuse([_too_large(piece[0], error) if isinstance(error, LimitError) else fault], stream)
            return
        if reply.timed_out:
            raise WaitTimeout(f"the records are stored in {self._topic}, but not all are searchable yet")
        known = sum(r.duplicate for r in reply.records)
        self.tally.known += known
        self.tally.stored += len(reply.records) - known
        self.addresses = [r.address for r in reply.records]

    async def settle(self, timeout_s: float = 600.0) -> None:
        """Wait until what was stored is found by every index the topic has; WaitTimeout."""
        end = time.monotonic() + timeout_s
        mark = (await self._verbs.topic(self._topic)).watermark
        upto = mark.stored
        while time.monotonic() < end:
            topic = await self._verbs.topic(self._topic)
            mark = topic.watermark
            keyword_only = topic.config.get("model_in_use") is None
            if mark.keyword >= upto and (keyword_only or mark.semantic >= upto):
                return
            await asyncio.sleep(0.1)
        raise WaitTimeout(f"all is stored, but {self._topic} is not searchable as a whole after {timeout_s:g} s")


def _too_large(draft: Draft, error: LimitError) -> Fault:
    size = len(draft.value.encode("utf-8", "replace"))
    return Fault(draft.position or 0, f"a record of {size:,} bytes is too large to send: {error}", draft.value)


def pieces(drafts: Sequence[Draft]) -> Iterator[Sequence[Draft]]:
    """Drafts in runs that one request may hold; the same drafts are always cut the same way."""
    start, size = 0, 0
    for at, draft in enumerate(drafts):
        length = len(draft.value) if draft.value.isascii() else len(draft.value.encode("utf-8", "replace"))
        if at > start and (size + length > PIECE_BYTES or at - start >= PIECE_RECORDS):
            yield drafts[start:at]
            start, size = at, 0
        size += length
    if start < len(drafts):
        yield drafts[start:]
