"""A self-made incident: a shop's logs, deploys, tickets and chat around a payments release that goes wrong.

The story, in minutes from `start`: a healthy baseline; at 70 payments v2.14 is deployed with a smaller database pool; from
about 74 three new patterns (pool exhausted, bank timeouts with retries, duplicate-charge guard) grow and drag checkout,
gateway and orders along; people ask, guess wrong and find it; at 106 it is rolled back; by 112 all is well; the end is 135.
A ticket of eight months earlier tells of the same cause in other words. Everything is invented.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headwater.demo import services, voices
from headwater.records import Draft, Scalar, to_ms

TOPICS = ("logs", "deploys", "tickets", "chat")
DEPLOY_MINUTE, ROLLBACK_MINUTE, END_MINUTE = 70, 106, 135
INCIDENT_SHARE = 0.2  # of the log lines
_RECOVERY_MINUTES = 5.0
_CLOCK = re.compile(r"\{t:(-?\d+)\}")

Entry = tuple[str, Draft]


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what is true: the first thing an answer says must hold, for each fact, one of its wordings (compare
    lower-cased); the record that shows it best has `key` in `topic`."""

    text: str
    facts: tuple[tuple[str, ...], ...]
    topic: str
    key: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A search in words its target does not use: the target is in `topic` and contains `text`."""

    q: str
    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one stretch of a live show, due `after_s` seconds of the story from its start."""

    after_s: float
    entries: tuple[Entry, ...]


QUESTIONS = (
    Question(
        "What did payments v2.14 change about the database pool?",
        (("maximumpoolsize",), ("from 20 to 8",)), "deploys", "payments-v2.14",
    ),
    Question(
        "Why did payment requests time out waiting for a connection?",
        (("connection is not available", "waiting for a database connection", "smaller pool"),), "logs", "payments",
    ),
    Question(
        "Why were customers charged twice?",
        (("idempotency key", "second capture"),), "chat", "c-109",
    ),
    Question(
        "How was the earlier outage with the connection pool fixed?",
        (("raising the pool to 50",), ("rolling back release 1.98",)), "tickets", "T-2291",
    ),
    Question(
        "Which version was payments rolled back to?",
        (("rollback", "rolled back", "roll back", "back on"), ("v2.13.4",)), "deploys", "payments-v2.13.4",
    ),
    Question(
        "Was the bank down?",
        (("all green", "300 ms"),), "chat", "c-107",
    ),
)  # fmt: skip

FINDINGS = (
    Finding("customers billed two times", "logs", "Duplicate charge guard tripped"),
    Finding("cannot borrow a session", "logs", "Connection is not available"),
    Finding("threatens a chargeback", "tickets", "Paid once, debited double"),
    Finding("going back to an older release", "deploys", "Rollback of payments"),
)


CAUSES = ("Connection is not available", "Bank gateway authorize attempt", "Duplicate charge guard tripped")
EARLIER_TICKET = "T-2291"  # of eight months before
EARLIER_REMEDY = "raising the pool to 50"


def story(start: datetime) -> str:
    """The question this incident is made for."""
    return f"what is new since the {deploy_at(start):%H:%M} deploy, and has anyone seen it before?"


def deploy_at(start: datetime) -> datetime:
    """When payments v2.14 is deployed: from here on patterns are new."""
    return _utc(start) + timedelta(minutes=DEPLOY_MINUTE)


def start_before(now: datetime) -> datetime:
    """The latest 12:55 UTC whose incident is over at `now`; the deploy is then at 14:05 and the rollback at 14:41."""
    start = _utc(now).replace(hour=12, minute=55, second=0, microsecond=0)
    return start if start + timedelta(minutes=END_MINUTE) <= _utc(now) else start - timedelta(days=1)


def incident(start: datetime, *, seed: int = 7, lines: int = 6000) -> Iterator[Entry]:
    """`(topic, draft)` in time order, the same for the same arguments: `lines` (at least 100) log lines and what people
    wrote. Every draft has its time; keys are the service, the deploy, the ticket or the chat thread."""
    if lines < 100:
        raise ValueError("an incident needs at least 100 lines")
    rng = random.Random(seed)
    start = _utc(start)
    entries = [*_tickets(start, rng), *_deploys(start), *_chat(start), *_logs(start, rng, lines)]
    entries.sort(key=lambda entry: entry[1].time_ms or 0)
    yield from entries


def stream(start: datetime, *, seed: int = 7, lines: int = 6000, batch_s: float = 10.0) -> Iterator[Batch]:
    """The incident cut into stretches of `batch_s` seconds of the story, empty ones left out. The first batch holds
    what is older than the story. The caller paces: nothing here waits."""
    begin = to_ms(_utc(start))
    due, kept = 0.0, list[Entry]()
    for topic, draft in incident(start, seed=seed, lines=lines):
        after_s = max(0, ((draft.time_ms or 0) - begin) // round(batch_s * 1000) + 1) * batch_s
        if kept and after_s != due:
            yield Batch(due, tuple(kept))
            kept = []
        due = after_s
        kept.append((topic, draft))
    if kept:
        yield Batch(due, tuple(kept))


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _at(start: datetime, minute: float) -> datetime:
    return start + timedelta(minutes=DEPLOY_MINUTE + minute)


def _spoken(text: str, start: datetime) -> str:
    return _CLOCK.sub(lambda found: f"{_at(start, int(found[1])):%H:%M}", text)


def _draft(value: str, key: str, when: datetime, **attributes: Scalar) -> Draft:
    return Draft(value, key, to_ms(when), attributes)


def _tickets(start: datetime, rng: random.Random) -> Iterator[Entry]:
    ages = sorted(rng.sample(range(12, 420), len(voices.OLD_TICKETS)), reverse=True)
    old = [
        voices.Ticket(f"T-{4790 - 10 * age}", rng.uniform(-300, 200), age, rng.choice(("low", "normal", "high")), text)
        for age, text in zip(ages, rng.sample(voices.OLD_TICKETS, len(voices.OLD_TICKETS)), strict=True)
    ]
    for ticket in (*old, voices.MARCH_TICKET, *voices.TICKETS):
        when = _at(start, ticket.minute) - timedelta(days=ticket.days)
        status = "closed" if ticket.days else "open"
        yield "tickets", _draft(ticket.text, ticket.key, when, priority=ticket.priority, status=status)


def _deploys(start: datetime) -> Iterator[Entry]:
    for deploy in voices.DEPLOYS:
        key = f"{deploy.service}-{deploy.version}"
        when = _at(start, deploy.minute)
        yield "deploys", _draft(deploy.notes, key, when, service=deploy.service, version=deploy.version, by=deploy.by)


def _chat(start: datetime) -> Iterator[Entry]:
    for message in voices.CHAT:
        text = f"{message.user}: {_spoken(message.text, start)}"
        when = _at(start, message.minute)
        yield "chat", _draft(text, message.thread, when, channel=message.channel, user=message.user)


def _logs(start: datetime, rng: random.Random, lines: int) -> Iterator[Entry]:
    broken = round(lines * INCIDENT_SHARE)
    waves = services.INCIDENT
    chosen = [*waves, *rng.choices(waves, [wave.line.weight for wave in waves], k=broken - len(waves))]
    for wave in chosen:
        yield _log(wave.line, _at(start, _growing(rng, wave.since)), rng)
    healthy = services.BASELINE
    for line in rng.choices(healthy, [line.weight for line in healthy], k=lines - broken):
        yield _log(line, start + timedelta(minutes=rng.uniform(0, END_MINUTE)), rng)


def _growing(rng: random.Random, since: float) -> float:
    """A minute after the deploy: linearly more until the rollback, a few stragglers behind it."""
    until = ROLLBACK_MINUTE - DEPLOY_MINUTE
    if rng.random() < 0.04:
        return until + rng.random() * rng.random() * _RECOVERY_MINUTES
    return since + (until - since) * math.sqrt(rng.random())


def _log(line: services.Line, when: datetime, rng: random.Random) -> Entry:
    host = f"{line.service}-{rng.randrange(1, 4)}"
    return "logs", _draft(services.write(line, when, rng), line.service, when, host=host)
