"""Where in the records a question looks: its times fixed to the calendar, its events to the records that tell of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from headwater.rag.keyed import keyed, of_kind
from headwater.rag.question import EVENTS, Event, Question, understand
from headwater.rag.say import bounds
from headwater.rag.times import AROUND_MS
from headwater.records import Coverage, Hit, Mode, PassageForm, PatternsReply, RecordView, SearchReply, from_ms, to_ms

_DAY_MS = 86_400_000
_DELIVERY_MS = 60_000  # between a record's time and its append, within which it has none of its own
_MOST_EVENTS = 200  # newest records of a topic of events that are looked through
_STEPS = 3  # back to older records, for a time whose day or year was left open


class Look(Protocol):
    """What the reader of a question may look at: three of the verbs (headwater.verbs.Verbs), which search nothing by
    words that are blank and then give the newest first."""

    async def search(
        self, q: str, *, topics: Sequence[str] | None = None, top_k: int = 10, mode: Mode | None = None,
        since: datetime | str | float | int | None = None, until: datetime | str | float | int | None = None,
    ) -> SearchReply: ...  # fmt: skip

    async def patterns(
        self, topic: str, *, q: str = "", since: datetime | str | float | int | None = None,
        until: datetime | str | float | int | None = None, new_since: datetime | str | float | int | None = None,
        limit: int = 50,
    ) -> PatternsReply: ...  # fmt: skip

    async def read(self, address: str, *, context: int = 0) -> RecordView: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The records that may be looked at. `kind_of` gives the form of a topic's passages. `documents` are topics of long
    texts without times of their own: what they tell of is as old as it says, not as their delivery. `key`: only the records
    with that key. `listed`: records are asked for, each of which counts, however alike."""

    look: Look
    kind_of: Callable[[str], PassageForm]
    topics: Sequence[str] | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    documents: frozenset[str] = frozenset()
    key: str = ""
    listed: bool = False

    async def knowing_documents(self) -> Scope:
        """The same scope, with its topics of documents found: their newest record has the time of its delivery."""
        found = []
        for topic in (await self.covered()).topics:
            if self.kind_of(topic) == "chunks" and len(reply := await self.look.search("", topics=[topic], top_k=1)):
                record = (await self.look.read(reply[0].address)).record
                if abs(to_ms(record.timestamp) - to_ms(record.appended)) < _DELIVERY_MS:
                    found.append(topic)
        return replace(self, documents=frozenset(found))

    def events(self, topics: Sequence[str]) -> list[str]:
        """The topics that are not of documents."""
        return [t for t in topics if t not in self.documents]

    async def search(self, q: str, top_k: int, *, mode: Mode | None = None, topics: Sequence[str] | None = None) -> SearchReply:
        q = f'key:"{self.key}" {q}'.strip() if self.key else q
        return await self.look.search(
            q, topics=topics or self.topics, top_k=top_k, mode=mode, since=when(self.since_ms), until=when(self.until_ms)
        )

    async def covered(self) -> Coverage:
        """What is in scope, without asking for any of it."""
        return replace((await self.search("", 1)).coverage, omitted=0, truncated=False, next_cursor=None)

    def within(self, since_ms: int | None, until_ms: int | None) -> Scope:
        """The same topics in another time."""
        return replace(self, since_ms=since_ms, until_ms=until_ms)

    async def counted(self) -> int:
        """How many records are in scope; documents, whose time is that of their delivery, only where nothing else is."""
        every = await self.covered()
        events = self.events(every.topics)
        if not events or len(events) == len(every.topics):
            return every.searched
        return (await self.search("", 1, topics=events)).coverage.searched

    async def newest(self) -> Hit | None:
        """The newest record in scope, not of a document where there are others."""
        reply = await self.search("", 1)
        events = self.events(reply.coverage.topics)
        if events and len(events) < len(reply.coverage.topics):
            reply = await self.search("", 1, topics=events)
        return reply[0] if len(reply) else None

    async def at_instant(self, ms: int, topic: str, passage: int) -> Hit | None:
        """A record of a passage at an instant."""
        found = await self.within(ms, ms + 1).search("", 100, topics=[topic])
        return next((hit for hit in found if hit.passage.id == passage), None)

    async def last_of(self, hit: Hit) -> Hit:
        """The last record of a hit's passage, or the hit where that is out of scope."""
        last = to_ms(hit.passage.last_seen)
        if self.until_ms is not None and last >= self.until_ms:
            return hit
        return await self.at_instant(last, hit.topic, hit.passage.id) or hit


@dataclass(frozen=True, slots=True)
class Placed:
    """A question in its place. `scope` has its times (a time asked for as an argument stays); `reading` says how they were
    read; `event` is the record taken for its event, `others` those that may be meant as well. `as_words`: its times choose
    no records (older than all, or documents only), so they are words, which only documents can answer. `missing`: the
    event of which no record tells."""

    question: Question
    scope: Scope
    reading: str = ""
    event: Hit | None = None
    others: tuple[Hit, ...] = ()
    as_words: bool = False
    missing: str = ""

    def at(self, event: Hit) -> Placed:
        """The same question with another event taken for its own."""
        return replace(self, scope=self.scope.within(to_ms(event.timestamp), self.scope.until_ms), event=event)


async def place(text: str, scope: Scope, now_ms: int) -> Placed:
    """The question with its times, its event and its key found. Times said in arguments win over those in the text."""
    rest, inside = await keyed(text, scope)
    if not inside.key:
        return await _timed(*await of_kind(text, scope), now_ms)
    placed = await _timed(rest, inside, now_ms)
    reading = f"{placed.reading}, of" if placed.reading else "I read it as of"
    return replace(placed, reading=f'{reading} the records with key "{inside.key}"', as_words=False)


async def _timed(text: str, scope: Scope, now_ms: int) -> Placed:
    question = understand(text, now_ms)
    if scope.since_ms is not None or scope.until_ms is not None:
        return Placed(question, scope)
    if question.event is not None:
        return await _at_event(question, question.event, scope, now_ms)
    period = question.period
    if period is None:
        return Placed(question, scope)
    touches = not period.dated or await _touches(scope, period.since_ms, period.until_ms)
    if not touches and not await _holds_all(scope, period.since_ms, period.until_ms):
        return Placed(question, scope, as_words=True)
    for _ in range(_STEPS if period.floats else 0):
        if await scope.within(period.since_ms, period.until_ms).counted():
            break
        before = await scope.within(None, period.since_ms or period.until_ms).newest()
        if before is None:
            break
        moved = understand(text, to_ms(before.timestamp))
        if moved.period is None or moved.period == period:
            break
        question, period = moved, moved.period
    if period.floats and not await scope.within(period.since_ms, period.until_ms).counted():
        question = understand(text, now_ms)  # nothing is in any such time: it is the last one that is meant
        assert question.period is not None
        period = question.period
    if await _excludes_no_document(scope, period.since_ms, period.until_ms):
        return Placed(question, scope, as_words=True)
    reading = f'I read "{period.phrase}" as {bounds(period.since_ms, period.until_ms)}'
    return Placed(question, scope.within(period.since_ms, period.until_ms), reading)


async def _excludes_no_document(scope: Scope, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether there are documents only, and a period lets all of them in."""
    every = await scope.covered()
    if not every.topics or scope.events(every.topics):
        return False
    return (await scope.within(since_ms, until_ms).covered()).searched == every.searched


async def _touches(scope: Scope, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether a period shuts some records out and lets others in, or is younger than all of them."""
    if until_ms is not None and not await scope.within(None, until_ms).counted():
        return False
    return since_ms is None or until_ms is not None or bool(await scope.within(None, since_ms).counted())


async def _holds_all(scope: Scope, since_ms: int | None, until_ms: int | None) -> bool:
    """Whether a period lets all records of logs and the like in: it shuts none out, and is a time all the same."""
    every = await scope.covered()
    if not scope.events(every.topics):
        return False
    return await scope.within(since_ms, until_ms).counted() >= await scope.counted()


# -------------------------------------------------------------------------------------------------------- events
async def _at_event(question: Question, event: Event, scope: Scope, now_ms: int) -> Placed:
    found = await find_events(event, scope, now_ms)
    if found:
        at = to_ms(found[0].timestamp)
        inside = scope.within(None, at) if event.before else scope.within(at, None)
        return Placed(question, inside, f'I read "{event.phrase}" as', found[0], _others(event, found))
    if event.clock is None and event.day is None:
        return Placed(question, scope, missing=event.phrase)
    day = event.day
    low = day.since_ms if day is not None and day.since_ms is not None else now_ms // _DAY_MS * _DAY_MS
    if event.clock is not None:
        low = low // _DAY_MS * _DAY_MS + event.clock[0]
        low -= _DAY_MS * (low > now_ms)
    inside = scope.within(None, low) if event.before else scope.within(low, None)
    said = f'No record tells of it, so I read "{event.phrase}" as {bounds(inside.since_ms, inside.until_ms)}'
    return Placed(question, inside, said)


def _others(event: Event, found: Sequence[Hit]) -> tuple[Hit, ...]:
    """The events that may be meant as well: where none is pointed out, all in the topic of such events."""
    return tuple(h for h in found[1:] if _is_of(event.kind, h.topic)) if event.open else ()


async def find_events(event: Event, scope: Scope, now_ms: int) -> list[Hit]:
    """The records that tell of an event: in topics named for its kind, else in what people wrote, else in logs. Newest
    first, or where a time of day is said the one nearest to it first."""
    topics = (await scope.covered()).topics
    named = [t for t in topics if _is_of(event.kind, t)]
    written = [t for t in scope.events(topics) if t not in named and scope.kind_of(t) != "template"]
    logs = [t for t in topics if t not in named and scope.kind_of(t) == "template"]
    inside = _around(event, scope)
    for group in (named, written, logs):
        if not group:
            continue
        words = "" if group is named else f"{' '.join(event.about)} {_SAID[event.kind]}".strip()
        found = await inside.search(words, _MOST_EVENTS, mode="keyword" if words else None, topics=group)
        fitting = [h for h in found if to_ms(h.timestamp) <= now_ms and _fits(event, h, line=group is logs)]
        if fitting:
            if group is logs and event.clock is None:
                fitting = [await inside.last_of(h) for h in fitting]
            return sorted(fitting, key=lambda h: (_distance(event, h), -to_ms(h.timestamp), h.address))
    return []


def _is_of(kind: str, topic: str) -> bool:
    """Whether a topic's name says that it holds such events; rollbacks and upgrades are told of among deploys."""
    kinds = (kind, "deploy") if kind in ("rollback", "upgrade") else (kind,)
    return any(re.search(rf"(?<![a-z])(?:{EVENTS[k]})", topic, re.IGNORECASE) for k in kinds)


_SAID = {
    "deploy": "deploy deployed deployment release released rollout rolled",
    "rollback": "rollback rolled reverted",
    "restart": "restart restarted restarting reboot",
    "upgrade": "upgrade upgraded update updated migration",
    "incident": "incident outage crash crashed failover",
}


def _around(event: Event, scope: Scope) -> Scope:
    day = event.day
    if day is None:
        return scope
    low = None if day.since_ms is None else day.since_ms - (AROUND_MS if event.clock else 0)
    high = None if day.until_ms is None else day.until_ms + (AROUND_MS if event.clock else 0)
    return scope.within(low, high)


def _fits(event: Event, hit: Hit, *, line: bool) -> bool:
    """Whether a record tells of the event: its kind (not another one's: a rollback is no deploy), its words, its hour."""
    text = f"{hit.key or ''} {hit.value} {' '.join(map(str, hit.attributes.values()))}"
    end = r"(?!\s?[=:(]|\w)" if line else ""  # in a log line `release=0` is a field
    told = re.compile(rf"(?<![a-z])(?:{EVENTS[event.kind]}){end}", re.IGNORECASE)
    if not told.search(hit.topic) and not told.search(hit.value):
        return False
    first = re.search(rf"\b(?:{EVENTS['rollback']})", hit.value, re.IGNORECASE)
    if event.kind == "deploy" and first is not None and first.start() < 40:
        return False
    if not all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in event.about):
        return False
    return event.clock is None or _distance(event, hit) <= AROUND_MS


def _distance(event: Event, hit: Hit) -> int:
    """Milliseconds between the hour said and the record's, past midnight too."""
    if event.clock is None:
        return 0
    low, high = event.clock
    at = to_ms(hit.timestamp) % _DAY_MS
    apart = 0 if low <= at < high else min(abs(at - low), abs(at - high))
    return min(apart, _DAY_MS - apart)


def when(ms: int | None) -> datetime | None:
    """A bound as the verbs take it."""
    return None if ms is None else from_ms(ms)
