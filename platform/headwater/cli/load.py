"""Batches of a source or a file into a topic, through the verbs: cut to what one request may hold, each piece with an
idempotency key made of its place in the input, so that an interrupted load that is run again stores nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.errors import ConflictError, LimitError, UsageError, WaitTimeout
from headwater.records import TOPIC_NAME, Draft
from headwater.sources import Fault

if TYPE_CHECKING:
    from headwater.verbs import Verbs

PIECE_BYTES = 1 << 20  # of text in one append; JSON at worst sextuples it, mostly it hardly grows
PIECE_RECORDS = 2000
_SHOWN_FAULTS = 20


@dataclass(slots=True)
class Tally:
    """What became of the input so far."""

    stored: int = 0
    known: int = 0  # was stored already by an earlier load
    faults: int = 0
    shown: list[tuple[str, Fault]] = field(default_factory=list)  # with the file
    begun: float = field(default_factory=time.monotonic)

    def refuse(self, file: str, fault: Fault) -> None:
        self.faults += 1
        if len(self.shown) < _SHOWN_FAULTS:
            self.shown.append((file, fault))


def check_name(topic: str) -> None:
    """UsageError for what cannot name a topic, before any input is read."""
    if not TOPIC_NAME.fullmatch(topic):
        raise UsageError(f"{topic!r} cannot name a topic; use letters, digits, dot, dash and underscore (at most 100)")


class Load:
    """Stores drafts in `topic`, in order. `searchable`: wait after each piece until search finds it."""

    def __init__(self, verbs: Verbs, topic: str, *, searchable: bool = False) -> None:
        self._verbs, self._topic, self._wait = verbs, topic, searchable
        self.tally = Tally()
        self.file = "stdin"  # what is being read, for the faults found in it
        self.addresses: list[str] = []  # of the last piece

    async def store(self, drafts: Sequence[Draft], stream: str) -> None:
        """Store drafts of one stream. What the topic cannot take becomes a fault, and holds nothing else up."""
        for piece in pieces(drafts):
            await self._append(piece, stream)

    def refuse(self, fault: Fault) -> None:
        """Count a piece of the file being read that is no record."""
        self.tally.refuse(self.file, fault)

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
            self.refuse(Fault(piece[0].position or 0, str(error), piece[0].value[:200]))
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
