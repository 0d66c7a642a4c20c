"""Days of the demo shop's logs with incidents in them, for measuring what detectors find and what they cry wolf at.

The shop has a day and a week; every night a batch runs, every other day a deploy brings a harmless new line or two, and now
and then a scanner or a sale brings a small burst. Incidents are of five kinds: the payments release of the story, its
return, new errors of a service, a known warning that surges, and a service that falls silent. All of it is invented.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Literal

from headwater.demo import services, synthetic
from headwater.demo.services import Line
from headwater.records import Draft, to_ms

Kind = Literal["payments", "errors", "surge", "silence"]
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
_KINDS: tuple[Kind, ...] = (
    "payments",
    "errors",
    "surge",
    "silence",
    "errors",
    "payments",
    "surge",
    "errors",
    "silence",
    "errors",
)
_CALM_DAYS = 2  # before the first incident
_APART_MINUTES = 20 * 60
_LASTS = (25, 50)  # minutes
_NIGHTLY = (
    ("scheduler", "INFO", "batch.go:40", '"Ledger export" part={few} rows={n}'),
    ("postgres", "LOG", "-", 'automatic analyze of table "shop.reporting.daily": {n} rows'),
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An injected incident: its first and last minute count from the start."""

    kind: Kind
    start: int
    end: int
    service: str


@dataclass(frozen=True, slots=True)
class Month:
    """What is to come: incidents, and the plan of everything else."""

    start: datetime
    minutes: int
    seed: int
    per_minute: float
    troubles: tuple[Trouble, ...]

    def drafts(self) -> Iterator[Draft]:
        """Every log line with its time, in order; the same for the same month."""
        rng = random.Random(self.seed * 7919 + 1)
        changes = _Changes(random.Random(self.seed * 7919 + 2), self.minutes)
        waves = {trouble: _wave(trouble, random.Random(self.seed * 7919 + 3 + trouble.start)) for trouble in self.troubles}
        hourly = 1.0
        for minute in range(self.minutes):
            if minute % 60 == 0:
                hourly = rng.lognormvariate(0, 0.06)
            now = [t for t in self.troubles if t.start <= minute < t.end]
            silent = {t.service for t in now if t.kind == "silence"}
            lines = [
                line
                for line in changes.usual(rng, _poisson(rng, self.per_minute * busy(self.start, minute) * hourly))
                if line.service not in silent
            ]
            lines += changes.besides(rng, minute)
            for trouble in now:
                lines += _broken(rng, waves[trouble], trouble, minute)
            begin = self.start + timedelta(minutes=minute)
            for second, line in sorted(((rng.random() * 60, line) for line in lines), key=lambda pair: pair[0]):
                when = begin + timedelta(seconds=second)
                host = {"host": f"{line.service}-{rng.randrange(1, 4)}"}
                yield Draft(services.write(line, when, rng), line.service, to_ms(when), host)


def month(*, seed: int, days: int = 30, incidents: int = 10, per_minute: float = 20.0, start: datetime = START) -> Month:
    """So many days with so many incidents at random times (at least 20 hours apart, none in the first two days)."""
    rng = random.Random(seed)
    minutes, calm = days * 1440, _CALM_DAYS * 1440
    if incidents * (_APART_MINUTES + _LASTS[1]) > minutes - calm:
        raise ValueError("so many incidents do not fit into so few days")
    spare = minutes - calm - incidents * (_APART_MINUTES + _LASTS[1])
    gaps = sorted(rng.randrange(spare + 1) for _ in range(incidents))
    kinds = [_KINDS[i % len(_KINDS)] for i in range(incidents)]
    rng.shuffle(kinds)
    troubles = []
    for i, (gap, kind) in enumerate(zip(gaps, kinds, strict=True)):
        at = calm + gap + i * (_APART_MINUTES + _LASTS[1])
        service = {"payments": "payments", "silence": rng.choice(("gateway", "gateway", "checkout"))}.get(
            kind, rng.choice(("checkout", "payments", "orders", "inventory", "accounts"))
        )
        troubles.append(Trouble(kind, at, at + rng.randrange(*_LASTS), service))
    return Month(start, minutes, seed, per_minute, tuple(troubles))


def busy(start: datetime, minute: int) -> float:
    """How busy the shop is, about 1: most in the afternoon, less at night and at weekends."""
    at = start + timedelta(minutes=minute)
    hour = at.hour + at.minute / 60
    return (0.95 + 0.5 * math.sin((hour - 8.5) / 24 * 2 * math.pi)) * (0.75 if at.weekday() >= 5 else 1.05)


class _Changes:
    """The shop's usual lines as deploys change them, and what comes besides."""

    def __init__(self, rng: random.Random, minutes: int) -> None:
        self._lines = list(services.BASELINE)
        self._messages = synthetic.messages(rng)
        self._rng, self._sums = rng, list(accumulate(line.weight for line in self._lines))
        self._deploys = set[int]()
        at = 0
        while (at := at + int(rng.expovariate(1 / 2880)) + 240) < minutes:
            self._deploys.add(at)
        self._burst: tuple[int, int, Line] = (-1, -1, self._lines[0])

    def usual(self, rng: random.Random, count: int) -> list[Line]:
        """So many lines of the usual mix."""
        return [self._lines[bisect_right(self._sums, rng.random() * self._sums[-1])] for _ in range(count)]

    def besides(self, rng: random.Random, minute: int) -> list[Line]:
        """The nightly batch, new lines of a deploy, small bursts of harmless ones."""
        found: list[Line] = []
        if minute in self._deploys:
            found += self._deploy()
        if 135 <= minute % 1440 < 143:
            found += [Line(service, 1, level, part, text) for service, level, part, text in _NIGHTLY for _ in range(3)]
        if minute > self._burst[1] and rng.random() < 1 / 2000:
            calm = [line for line in self._lines if line.level not in ("WARN", "ERROR", "WARNING")]
            self._burst = minute, minute + rng.randrange(2, 8), rng.choice(calm)
        if self._burst[0] <= minute <= self._burst[1]:
            found += [self._burst[2]] * rng.randrange(1, 5)
        return found

    def _deploy(self) -> list[Line]:
        """A release: one or two new harmless lines from now on, each said once at the start."""
        made = []
        for _ in range(self._rng.randrange(0, 3)):
            service = self._rng.choice(("checkout", "payments", "orders", "inventory", "accounts"))
            level = "DEBUG" if self._rng.random() < 0.3 else "INFO"
            text = _said(next(self._messages), service)
            made.append(Line(service, self._rng.uniform(0.3, 3), level, f"feature.{self._rng.randrange(90)}", text))
        self._lines += made
        self._sums = list(accumulate(line.weight for line in self._lines))
        return made


def _wave(trouble: Trouble, rng: random.Random) -> list[tuple[float, Line]]:
    """The lines of an incident, each with how many a minute come at its height."""
    if trouble.kind == "payments":
        total = sum(wave.line.weight for wave in services.INCIDENT)
        return [(8 * wave.line.weight / total, wave.line) for wave in services.INCIDENT]
    if trouble.kind == "errors":
        texts = synthetic.messages(rng)
        lines = []
        for _ in range(rng.randrange(1, 4)):
            text = _said(next(texts), trouble.service)
            lines.append((rng.uniform(1.0, 5.0), Line(trouble.service, 1, "ERROR", f"fault.{rng.randrange(90)}", text)))
        return lines
    if trouble.kind == "surge":
        known = [line for line in services.BASELINE if line.level in ("WARN", "ERROR", "WARNING")]
        return [(rng.uniform(4.0, 9.0), rng.choice(known))]
    return []


def _said(text: str, service: str) -> str:
    """A made-up message as that service would write it, with values that services have."""
    text = text.replace("{path}", "/var/lib/{hex}").replace("{host}", "worker-{few}")
    return f'msg="{text}"' if service == "orders" else text


def _broken(rng: random.Random, wave: Sequence[tuple[float, Line]], trouble: Trouble, minute: int) -> list[Line]:
    """An incident's lines of one minute: within three minutes it is at its height."""
    height = min(1.0, (minute - trouble.start + 1) / 3)
    return [line for rate, line in wave for _ in range(_poisson(rng, rate * height))]


def _poisson(rng: random.Random, mean: float) -> int:
    """A Poisson count (Knuth's product of uniforms; means here are small)."""
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count
