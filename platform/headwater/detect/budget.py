"""When what detectors saw is worth an alert: one scale for all of them, a line drawn by history, and a budget.

Each family of scores is calibrated by the highest score of every normal five minutes (`Tail`); how unlikely the families of
the last ten minutes are together is added up, as independent evidence is (Fisher 1925), and the sum is calibrated once more in
the same way, for families that move together. So the line says what it means: by chance alone it is crossed once in so many
days. Crossings that belong together are one incident with one alert; each alert of a day makes the next one dearer, and
beyond the budget nothing alerts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headwater.detect.habit import ALIKE, Habits
from headwater.detect.seen import MINUTE_MS, Seen
from headwater.detect.tail import Tail
from headwater.records.anomalies import Sensitivity

BLOCK = 5  # minutes
TOGETHER = 10  # minutes within which signals add up
QUIET = 30  # minutes without a signal, after which an incident is over
LONGEST = 180  # minutes of one incident; what lasts longer becomes normal
LEARNING = 45  # minutes of history before anything alerts
DAY_MS = 86_400_000
SPARE: Mapping[Sensitivity, float] = {"low": 144.0, "medium": 36.0, "high": 9.0}  # days between false alerts, times the budget
DEARER = 2.0  # times, for each alert of the last day
_FADE_DAYS = 14
_NOISE = 1.0  # decades of one family that add nothing
_JOINS = 1.5  # decades from which a signal is shown with an incident
_CLEAR = 2.0  # decades of a signal that is more than noise
_LASTING = ("rate.topic", "rate.ok", "silence", "drift.topic")  # families of what goes on and spreads to other subjects
_SPREADS = ("rate.ok", "drift.topic")  # those that say the same of other subjects, where what they tell was told long ago
_ONCE = ("new.bad", "new.ok", "rare.bad", "rare.ok", "drift.bad", "drift.ok")  # families of what is no habit: another each time
_DISMISSED = "what was called no anomaly goes on"
_LEAST_BLOCKS = 3.9
_WAIT = 3  # blocks until one teaches
_WARM = 30  # minutes in which detectors know too little for their scores to teach
_MOST_SIGNALS = 12
_WEIGHTS: Mapping[str, float] = {  # of a family's decades: troubles that were never seen before count most
    "new.bad": 1.5, "rare.bad": 1.2, "rate.topic": 0.7, "rate.ok": 0.5, "new.ok": 0.5, "rare.ok": 0.5, "drift.ok": 0.5,
    "drift.topic": 0.5, "sequence": 0.5, "numeric": 0.5, "numeric.level": 0.5, "silence": 0.9,
}  # fmt: skip
MUTED = 1.5  # times as odd as what was called no anomaly, to be looked at again


@dataclass(slots=True)
class Incident:
    """An anomaly as it grows: its signals with how many decades each is beyond the usual, the oddest first."""

    n: int
    opened_ms: int
    last_ms: int
    by_chance_days: float
    line_days: float
    signals: list[tuple[Seen, float]] = field(default_factory=list)
    changed: bool = True
    alerted: bool = True
    why_quiet: str | None = None


class _Known(NamedTuple):
    """What is known and goes on: called no anomaly by people as it lasted (`dismissed`), or lasting longer than an incident."""

    last_ms: int
    families: list[str]
    subjects: list[str]
    dismissed: bool

    def has(self, one: Seen) -> bool:
        """Whether a signal is of it."""
        return one.family in self.families or one.subject in self.subjects


class Budget:
    """The line, the budget and the open incident of one topic. `muted` has what people called no anomaly, by subject: the
    decades it had."""

    def __init__(self, per_day: float, sensitivity: Sensitivity) -> None:
        self.per_day, self.sensitivity = per_day, sensitivity
        self._tails: dict[str, Tail] = {}
        self._fused = _tail()
        self._highest: dict[str, float] = {}  # of the block under way
        self._highest_fused = 0.0
        self._waiting: list[tuple[dict[str, float], float]] = []
        self._recent: list[tuple[Seen, float]] = []
        self.muted: dict[str, float] = {}
        self._known: _Known | None = None
        self._habits = Habits()
        self.incident: Incident | None = None
        self.minutes = self.n = 0
        self._spent: list[int] = []

    # ------------------------------------------------------------------ the line

    def line_days(self, at_ms: int) -> float:
        """What chance brings less often than once in so many days alerts."""
        return SPARE[self.sensitivity] / max(self.per_day, 0.01) * DEARER ** len(self.spent(at_ms))

    def spent(self, at_ms: int) -> list[int]:
        """When the alerts of the last 24 hours were raised (ms)."""
        return [at for at in self._spent if at > at_ms - DAY_MS]

    @property
    def learning(self) -> bool:
        """Whether too little history is known to judge by."""
        return self.minutes < LEARNING or self._fused.blocks < _LEAST_BLOCKS

    @property
    def normal(self) -> bool:
        """Whether this minute may teach what is normal."""
        return self.incident is None

    # ------------------------------------------------------------------ a minute

    def close(self, minute: int, seen: Sequence[Seen], *, quiet: str | None = None) -> Incident | None:
        """One minute is over, in which detectors saw this: an incident that began or changed. `quiet` says why nothing may
        alert now."""
        at_ms = (minute + 1) * MINUTE_MS
        self.minutes += 1
        incident = self._end(at_ms)
        calibrated = [(one, self._decades(one, minute)) for one in seen]
        self._follow(at_ms, calibrated)
        calibrated = [(one, 0.0 if self._was_told(one) else decades) for one, decades in calibrated]
        self._recent = [pair for pair in self._recent if pair[0].at_ms > at_ms - TOGETHER * MINUTE_MS] + calibrated
        fused = self._fuse()
        self._note(calibrated, fused)
        days = self._fused.blocks_between(fused) * BLOCK / 1440
        if incident is None and not self.learning and days >= self.line_days(at_ms):
            incident = self._begin(at_ms, days, quiet)
        elif incident is not None:
            self._grow(incident, at_ms, days, calibrated)
        if (minute + 1) % BLOCK == 0:
            self._learn()
        return incident if incident is not None and incident.changed else None

    def _decades(self, one: Seen, minute: int) -> float:
        tail = self._tails.get(one.family)
        if tail is None:
            tail = self._tails[one.family] = _tail(round(self._fused.blocks))
        found = math.log10(tail.blocks_between(one.score))
        muted = self.muted.get(one.subject)
        if muted is not None and found < muted * MUTED:
            return 0.0
        found *= _WEIGHTS.get(one.family, 1.0)
        if one.family in _ONCE:
            return found
        usual = self._habits.usual(one.subject, minute)
        self._habits.note(one.subject, minute, found)
        return 0.0 if found <= usual * ALIKE else found

    def _fuse(self) -> float:
        best: dict[str, float] = {}
        for one, decades in self._recent:
            best[one.family] = max(best.get(one.family, 0.0), decades)
        return sum(max(decades - _NOISE, 0.0) for decades in best.values())

    def _note(self, calibrated: Sequence[tuple[Seen, float]], fused: float) -> None:
        for one, decades in calibrated:
            if not decades:
                continue  # it is usual of this subject alone, or at this time, or known
            self._highest[one.family] = max(self._highest.get(one.family, 0.0), one.score)
        self._highest_fused = max(self._highest_fused, fused)

    def _follow(self, at_ms: int, calibrated: Sequence[tuple[Seen, float]]) -> None:
        """Whether what is known goes on: what people called no anomaly as it lasted, or what lasts longer than an incident."""
        if self._known is None:
            return
        if any(self._known.has(one) and decades >= _JOINS for one, decades in calibrated):
            self._known = self._known._replace(last_ms=at_ms)
        elif at_ms - self._known.last_ms > QUIET * MINUTE_MS:
            self._known = None

    def _was_told(self, one: Seen) -> bool:
        """Whether this has lasted longer than an incident does, and so is nothing odd any more."""
        return self._known is not None and not self._known.dismissed and self._known.has(one)

    def _learn(self) -> None:
        """A block is over. It teaches what is normal a quarter of an hour later, unless it has become part of an incident by
        then: what is only beginning must not be known already."""
        if self.normal and self.minutes > _WARM:
            self._waiting.append((dict(self._highest), self._highest_fused))
        else:
            self._waiting.clear()
        if len(self._waiting) > _WAIT:
            highest, fused = self._waiting.pop(0)
            for family, tail in self._tails.items():
                tail.learn(highest.get(family, 0.0))
            self._fused.learn(fused)
        self._highest.clear()
        self._highest_fused = 0.0

    # ------------------------------------------------------------------ incidents

    def _begin(self, at_ms: int, days: float, quiet: str | None) -> Incident:
        self.n += 1
        line = self.line_days(at_ms)
        made = self.incident = Incident(self.n, at_ms, at_ms, days, line)
        self._join(made, self._recent)
        if quiet is None and len(self.spent(at_ms)) + 1 > self.per_day:
            quiet = "the budget was spent"
        if quiet is None and (known := self._known) is not None and known.dismissed:
            quiet = _DISMISSED if all(known.has(one) for one, decades in made.signals if decades >= _CLEAR) else None
        made.alerted, made.why_quiet = quiet is None, quiet
        if made.alerted:
            self._spent = [*self.spent(at_ms), at_ms]
        return made

    def _grow(self, incident: Incident, at_ms: int, days: float, calibrated: Sequence[tuple[Seen, float]]) -> None:
        incident.changed = self._join(incident, [pair for pair in calibrated if pair[1] >= _JOINS])
        if incident.changed or days >= incident.line_days:
            incident.last_ms = at_ms
        if days > incident.by_chance_days * 10:
            incident.by_chance_days, incident.changed = days, True

    def _join(self, incident: Incident, pairs: Sequence[tuple[Seen, float]]) -> bool:
        """Keep the oddest signal of each subject: whether there is news."""
        held = {one.subject: (one, decades) for one, decades in incident.signals}
        news = False
        for one, decades in pairs:
            if decades < 1.0:
                continue
            before = held.get(one.subject)
            if before is None or decades > before[1] + 0.5:
                held[one.subject] = (one, decades)
                news = True
        ranked = sorted(held.values(), key=lambda pair: (-pair[1], pair[0].at_ms, pair[0].subject))[:_MOST_SIGNALS]
        news = news and [p[0] for p in ranked] != [p[0] for p in incident.signals]
        incident.signals = ranked
        return news

    def _end(self, at_ms: int) -> Incident | None:
        held = self.incident
        if held is None:
            return None
        held.changed = False
        if at_ms - held.opened_ms > LONGEST * MINUTE_MS:
            subjects, families = [one.subject for one, _ in held.signals], {one.family for one, _ in held.signals}
            self._known = _Known(at_ms, sorted(families.intersection(_SPREADS)), subjects, held.why_quiet == _DISMISSED)
            self._recent = [pair for pair in self._recent if not self._was_told(pair[0])]
            self._highest.clear()
            self._highest_fused, self.incident = 0.0, None
        elif at_ms - held.last_ms > QUIET * MINUTE_MS:
            self.incident = None
        return self.incident

    def dismiss(self, incident: int, decades: Mapping[str, float]) -> None:
        """People say that an incident was none: what it showed is muted, and it is not open any more. Where it lasts and
        spreads (a stream that stops), more of the same families alerts nobody until they were quiet for a while."""
        self.muted.update(decades)
        self._recent = [pair for pair in self._recent if pair[0].subject not in decades]
        self._highest.clear()
        self._highest_fused = 0.0
        if self.incident is not None and self.incident.n == incident:
            families = {one.family for one, _ in self.incident.signals}.intersection(_LASTING)
            self._known = _Known(self.incident.last_ms, sorted(families), [], True) if families else None
            self.incident = None

    def undo(self, subjects: Sequence[str]) -> None:
        """Muted subjects may alert again."""
        self._known = None
        for subject in subjects:
            self.muted.pop(subject, None)

    # ------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        held = self.incident
        return {
            "tails": {family: tail.state() for family, tail in self._tails.items()},
            "fused": self._fused.state(),
            "highest": self._highest, "highest_fused": self._highest_fused, "muted": self.muted,
            "minutes": self.minutes,
            "n": self.n, "spent": self._spent, "waiting": self._waiting, "habits": self._habits.state(),
            "known": None if self._known is None else list(self._known),
            "recent": [[list(one), decades] for one, decades in self._recent],
            "incident": None if held is None else [
                held.n, held.opened_ms, held.last_ms, held.by_chance_days, held.line_days,
                [[list(one), decades] for one, decades in held.signals], held.alerted, held.why_quiet,
            ],
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for family, held in state["tails"].items():
            self._tails[family] = tail = _tail()
            tail.load(held)
        self._fused.load(state["fused"])
        self._highest, self._highest_fused = dict(state["highest"]), state["highest_fused"]
        self.muted, self.minutes, self.n = dict(state["muted"]), state["minutes"], state["n"]
        self._spent = list(state["spent"])
        self._known = None if state["known"] is None else _Known(*state["known"])
        self._habits.load(state["habits"])
        self._waiting = [(dict(highest), fused) for highest, fused in state["waiting"]]
        self._recent = _pairs(state["recent"])
        if (kept := state["incident"]) is not None:
            n, opened, last, days, line, signals, alerted, why = kept
            self.incident = Incident(n, opened, last, days, line, _pairs(signals), False, alerted, why)


def _pairs(kept: Sequence[Sequence[Any]]) -> list[tuple[Seen, float]]:
    return [(Seen(*one), decades) for one, decades in kept]


def _tail(blocks: int = 0) -> Tail:
    """A tail that has seen so many blocks in which nothing was odd."""
    made = Tail(_FADE_DAYS * 1440 / BLOCK)
    for _ in range(min(blocks, 4032)):
        made.learn(0.0)
    return made
