"""Whether there is more or less than usual of a topic, or of one passage: counts against what the time of the day brings.

A topic's minutes, five minutes and quarters of an hour are compared with the mean of their season; a passage's counts with
its own rate at that hour, a gamma-Poisson posterior shrunk to the topic's season (so that what comes every night at two is
usual at two). Residuals are on Anscombe's square-root scale (1948), which makes counts of any mean nearly normal, and are
divided by the spread that the same subject showed before, so that what comes in clumps may. What is learned is winsorised
(Huber 1964): an outburst moves its own mean little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from headwater.detect.season import Season
from headwater.detect.seen import MINUTE_MS, Seen, normal_tail, surprise

WINDOWS = (1, 5, 15)  # minutes
YOUNG_MS = 30 * MINUTE_MS  # until then a new passage is no matter of its rate
_MOST_PASSAGES = 20_000
_FADE = 0.5 ** (1 / (14 * 1440))  # a minute, for what is learned of a passage
_CLAMP = 3.0  # standard deviations that a count may teach
_PRIOR_SPREAD, _PRIOR_WEIGHT = 1.5, 6.0  # of a passage's residuals
_BUSY = 12.0  # expected in a quarter of an hour, from which fewer of a passage are looked for
_SETTLED = 1440.0  # minutes a passage must be known before fewer of it are odd: the end of an outburst is none
_LOCAL = 75  # newest minutes: while the season is not known, what they brought is usual as well
_UNKNOWN = 4 * 1440.0  # minutes of history from which the season is known
_HOURLY = 3.0  # counts that the topic's season is worth at an hour of a passage


class Spread:
    """The usual size of residuals, of at most a few hundred newest ones."""

    __slots__ = ("square", "weight")

    def __init__(self, square: float = _PRIOR_SPREAD, weight: float = _PRIOR_WEIGHT) -> None:
        self.square, self.weight = square, weight

    def of(self, residual: float) -> float:
        """A residual in standard deviations."""
        return float(residual / max(self.square, 1.0) ** 0.5)

    def learn(self, residual: float) -> None:
        """One more normal residual."""
        most = _CLAMP * max(self.square, 1.0) ** 0.5
        bounded = min(max(residual, -most), most)
        self.weight = min(self.weight + 1, 400.0)
        self.square += (bounded * bounded - self.square) / self.weight


class _Passage:
    __slots__ = ("bad", "count", "first_ms", "hours", "minute", "minutes", "recent", "seq", "spread")

    def __init__(self, first_ms: int, bad: bool, minute: int) -> None:
        self.first_ms, self.bad, self.minute = first_ms, bad, minute
        self.count = self.minutes = 0.0
        self.hours: dict[int, float] = {}
        self.recent: deque[tuple[int, int]] = deque()
        self.spread, self.seq = Spread(), 0

    def fade(self, minute: int) -> None:
        """Bring counts and exposure to a minute."""
        if minute > self.minute:
            gone = minute - self.minute
            fade = _FADE**gone
            self.count *= fade
            self.minutes = self.minutes * fade + min(gone, 3 * 1440)
            if gone > 60:
                self.hours = {hour: held * fade for hour, held in self.hours.items() if held * fade > 0.02}
            self.minute = minute

    def window(self, minute: int, width: int) -> int:
        """Occurrences in the `width` minutes that end with this one."""
        return sum(n for at, n in self.recent if minute - width < at <= minute)


class Rates:
    """Rates of one topic and of its passages, minute by minute."""

    def __init__(self) -> None:
        self.season = Season()
        self._recent: deque[tuple[int, int]] = deque(maxlen=_LOCAL)
        self._local = 1.0
        self._looked = {width: width for width in WINDOWS}  # minutes of those last ones in which somebody looked
        self._spreads = {width: Spread(1.0, 30.0) for width in WINDOWS}
        self._passages: dict[int, _Passage] = {}
        self._active: dict[int, None] = {}
        self._busy: dict[int, None] = {}

    def knows(self, passage: int) -> bool:
        """Whether a passage was seen before."""
        return passage in self._passages

    def meet(self, passage: int, first_ms: int, minute: int, *, bad: bool) -> None:
        """A passage is known from before the time judged."""
        if passage not in self._passages:
            self._passages[passage] = _Passage(first_ms, bad, minute)

    def per_day(self, passage: int, minute: int) -> float:
        """How often a passage usually comes a day; 0 where it is not known."""
        held = self._passages.get(passage)
        if held is None:
            return 0.0
        held.fade(minute)
        return held.count / (held.minutes + 720) * 1440

    def close(self, minute: int, counts: Mapping[int, tuple[int, int, bool, int]], total: int, *, learn: bool) -> list[Seen]:
        """One minute is over: `counts` has (occurrences, seq, bad, first_ms) of the passages that came. What is odd, by any
        score above that of a usual minute; nothing is learned of a minute that is odd by other means."""
        seen = self._topic(minute, total, learn)
        self._looked = {width: sum(at > minute - width for at, _ in self._recent) for width in WINDOWS}
        for id, (count, seq, bad, first_ms) in counts.items():
            held = self._passages.get(id)
            if held is None:
                held = self._passages[id] = _Passage(first_ms, bad, minute)
            held.recent.append((minute, count))
            held.seq = seq
            self._active[id] = None
        whole = minute % 5 == 4  # in between only what came is looked at
        for id in list(dict.fromkeys([*self._active, *self._busy] if whole else counts)):
            seen += self._passage(id, minute, counts.get(id, (0,))[0], learn)
        if len(self._passages) > _MOST_PASSAGES:
            self._forget(minute)
        return seen

    def _topic(self, minute: int, total: int, learn: bool) -> list[Seen]:
        self._recent.append((minute, total))
        mean = self.season.rate * self.season.factor(minute)
        self._local = self._drift(minute, mean)
        found: list[Seen] = []
        known = self.season.minutes >= 30
        for width in WINDOWS:
            if minute % width and width > 5:
                continue
            within = [n for at, n in self._recent if at > minute - width]
            count, usual = sum(within), mean * len(within)  # minutes in which nobody looked are not there
            residual = min(surprise(count, usual), surprise(count, usual * self._local), key=abs)
            score = normal_tail(abs(self._spreads[width].of(residual)))
            if known and score > 1:
                at = (minute + 1) * MINUTE_MS
                found.append(Seen("rate", "rate.topic", "topic", at, score, count, round(usual, 2), f"in {width} min"))
            if learn and minute % width == 0:
                self._spreads[width].learn(residual)
        if learn:
            most = mean + _CLAMP * max(self._spreads[1].square, 1.0) ** 0.5 * max(mean, 1.0) ** 0.5 * 2
            self.season.learn(minute, min(total, most) if self.season.minutes > 60 else total)
        return sorted(found, key=lambda s: -s.score)[:1]

    def _drift(self, minute: int, mean: float) -> float:
        """How much busier than its season the topic was of late (a quarter of an hour left out); 1 once the season is known."""
        before = [n for at, n in self._recent if at <= minute - max(WINDOWS)]
        if self.season.minutes > _UNKNOWN or len(before) < 15:
            return 1.0
        return min(max((sum(before) + 5) / (mean * len(before) + 5), 0.25), 4.0)

    def _passage(self, id: int, minute: int, count: int, learn: bool) -> list[Seen]:
        held = self._passages.get(id)
        if held is None:
            self._busy.pop(id, None)
            return []
        while held.recent and held.recent[0][0] <= minute - max(WINDOWS):
            held.recent.popleft()
        if not held.recent:
            self._active.pop(id, None)
        held.fade(minute)
        hour = minute // 60 % 24
        rate = (held.count + 0.5) / (held.minutes + 720)
        factor = self.season.factor(minute) * self._local
        usual = rate * held.minutes / 24 * factor
        mean = rate * factor * (held.hours.get(hour, 0.0) + _HOURLY) / (usual + _HOURLY)
        found = self._judge(id, held, minute, mean) if (minute + 1) * MINUTE_MS - held.first_ms > YOUNG_MS else []
        if mean * 15 >= _BUSY:
            self._busy[id] = None
        else:
            self._busy.pop(id, None)
        if learn:
            most = mean + 2 * _CLAMP * (max(held.spread.square, 1.0) * max(mean, 1.0)) ** 0.5
            taught = count if held.minutes < 1440 else min(count, most)
            held.count += taught
            held.hours[hour] = held.hours.get(hour, 0.0) + taught
            if minute % 5 == 4 and (held.recent or mean * 5 > 1):
                held.spread.learn(surprise(held.window(minute, 5), mean * self._looked[5]))
        return found

    def _judge(self, id: int, held: _Passage, minute: int, mean: float) -> list[Seen]:
        best: Seen | None = None
        for width in (5, 15):
            count, usual = held.window(minute, width), mean * self._looked[width]
            residual = surprise(count, usual)
            if residual < 0 and (usual < _BUSY or held.minutes < _SETTLED):
                continue
            score = normal_tail(abs(held.spread.of(residual)))
            if score > 1 and (best is None or score > best.score):
                family = "rate.bad" if held.bad else "rate.ok"
                best = Seen("rate", family, f"passage:{id}", (minute + 1) * MINUTE_MS, score, count, round(usual, 3),
                            f"in {width} min", id, held.seq if count else None)  # fmt: skip
        return [] if best is None else [best]

    def _forget(self, minute: int) -> None:
        """The least frequent tenth goes."""
        for held in self._passages.values():
            held.fade(minute)
        ranked = sorted(self._passages, key=lambda id: (self._passages[id].count, id))
        for id in ranked[: _MOST_PASSAGES // 10]:
            del self._passages[id]
            self._active.pop(id, None)
            self._busy.pop(id, None)

    def rename(self, old: int, new: int) -> None:
        """A template has generalised: what was known of it counts for the one that replaces it."""
        held = self._passages.pop(old, None)
        self._active.pop(old, None)
        self._busy.pop(old, None)
        if held is None:
            return
        other = self._passages.get(new)
        if other is None:
            self._passages[new] = held
        else:
            other.fade(max(held.minute, other.minute))
            held.fade(other.minute)
            other.count += held.count
            other.minutes = max(held.minutes, other.minutes)
            other.first_ms = min(held.first_ms, other.first_ms)
            for hour, count in held.hours.items():
                other.hours[hour] = other.hours.get(hour, 0.0) + count
            other.recent = deque(sorted([*held.recent, *other.recent]))
        if self._passages[new].recent:
            self._active[new] = None

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        passages = [
            [id, p.first_ms, int(p.bad), p.minute, p.count, p.minutes,
             list(p.hours.items()), list(p.recent), p.spread.square, p.spread.weight, p.seq]
            for id, p in self._passages.items()
        ]  # fmt: skip
        spreads = [[width, s.square, s.weight] for width, s in self._spreads.items()]
        return {
            "season": self.season.state(), "recent": list(self._recent), "spreads": spreads, "passages": passages,
            "active": list(self._active), "busy": list(self._busy), "local": self._local,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.season.load(state["season"])
        self._recent.extend((at, n) for at, n in state["recent"])
        self._spreads = {width: Spread(square, weight) for width, square, weight in state["spreads"]}
        for id, first_ms, bad, minute, count, minutes, hours, recent, square, weight, seq in state["passages"]:
            held = self._passages[id] = _Passage(first_ms, bool(bad), minute)
            held.count, held.minutes, held.seq = count, minutes, seq
            held.hours = dict(hours)
            held.recent.extend((at, n) for at, n in recent)
            held.spread = Spread(square, weight)
        self._local = state["local"]
        self._active, self._busy = dict.fromkeys(state["active"]), dict.fromkeys(state["busy"])
