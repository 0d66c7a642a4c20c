"""Whether a topic says other things than it used to: the mix of meanings of the last hour against the usual one.

Passages that mean nearly the same are one meaning (a new one joins the nearest before it). The distance of two mixes is the
square root of their Jensen-Shannon divergence (Lin 1991; a metric by Endres and Schindelin 2003), 0 for equal ones and 1 for
ones that share nothing. How far an hour usually is from the usual mix the topic has shown itself: a distance is judged by the
mean and the spread of those before it. The last hour is no part of the usual mix; it becomes so as it ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from headwater.detect.seen import MINUTE_MS, Seen, normal_tail

WINDOW = 60  # minutes
STEP = 5
_FADE = 0.5 ** (1 / (7 * 24))  # an hour
_KNOWN = 1440  # minutes of the usual mix, before an hour is judged: a day has its hours
_LEAST = 50  # records of an hour
_SPREAD, _PRIOR = 0.05, 12.0  # of distances, and the steps that this is worth
_LONGEST = 4032.0  # steps that the mean and the spread remember: two weeks
_CLAMP = 3.0  # standard deviations that a step may teach
_MOST = 20_000  # meanings


def divergence(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """The distance of two mixes by their weights, 0 to 1. `before` may be far larger than `after`."""
    old, new = sum(before.values()), sum(after.values())
    if not old or not new:
        return 0.0
    total, shared = 0.0, 0.0
    for id, weight in after.items():
        p, q = before.get(id, 0.0) / old, weight / new
        shared += p
        total += _part(p, q)
    total += 0.5 * max(1.0 - shared, 0.0)  # what did not come at all
    return math.sqrt(min(max(total, 0.0), 1.0))


def _part(p: float, q: float) -> float:
    middle = (p + q) / 2
    return 0.5 * sum(share * math.log2(share / middle) for share in (p, q) if share > 0)


def rising(before: Mapping[int, float], after: Mapping[int, float]) -> list[int]:
    """The meanings of `after`, by how much their share has grown, weighed by how telling that is; those that fell last."""
    old, new = max(sum(before.values()), 1e-9), max(sum(after.values()), 1e-9)

    def gain(id: int) -> float:
        p, q = before.get(id, 0.0) / old, after[id] / new
        return _part(p, q) if q > p else -_part(p, q)

    return sorted(after, key=lambda id: (-gain(id), id))


class Mix:
    """The meanings of one topic, minute by minute."""

    def __init__(self) -> None:
        self._usual: dict[int, float] = {}
        self._minutes = 0.0  # of the usual mix
        self._hour: deque[tuple[int, bool, dict[int, float]]] = deque()  # minute, whether it may teach, meanings
        self._home: dict[int, int] = {}  # passage -> the one it means the same as
        self._mean, self._square, self._weight = 0.0, _SPREAD**2, 0.0

    def join(self, passage: int, other: int) -> None:
        """A passage means the same as an earlier one."""
        home = self._home.get(other, other)
        if home != passage and len(self._home) < _MOST:
            self.rename(passage, home)

    def close(self, minute: int, counts: Iterable[tuple[int, int, int]], *, learn: bool) -> list[Seen]:
        """One minute is over: `counts` has (passage, occurrences, newest seq) of the passages that came."""
        came: dict[int, float] = {}
        seqs: dict[int, int] = {}
        for passage, count, seq in counts:
            home = self._home.get(passage, passage)
            came[home] = came.get(home, 0) + count
            seqs[home] = seq
        self._hour.append((minute, learn, came))
        while self._hour and self._hour[0][0] <= minute - WINDOW:
            _, taught, old = self._hour.popleft()
            if taught:
                self._teach(old)
        if minute % 60 == 0:
            self._fade()
        return [] if (minute + 1) % STEP else self._judge(minute, seqs, learn)

    def _judge(self, minute: int, seqs: Mapping[int, int], learn: bool) -> list[Seen]:
        hour: dict[int, float] = {}
        for _, _, came in self._hour:
            for id, count in came.items():
                hour[id] = hour.get(id, 0.0) + count
        if sum(hour.values()) < _LEAST or self._minutes < _KNOWN:
            return []
        distance = divergence(self._usual, hour)
        spread = math.sqrt((self._square * self._weight + _SPREAD**2 * _PRIOR) / (self._weight + _PRIOR))
        usual, known = self._mean, self._weight >= _PRIOR
        residual = (distance - usual) / spread
        if learn:
            self._weight = min(self._weight + 1, _LONGEST)
            bounded = residual if not known else min(max(residual, -_CLAMP), _CLAMP)
            self._mean += bounded * spread / self._weight
            self._square += ((bounded * spread) ** 2 - self._square) / self._weight
        score = normal_tail(residual)
        if not known or score <= 1:
            return []
        most = rising(self._usual, hour)[0]
        at = (minute + 1) * MINUTE_MS
        return [Seen("drift", "drift.topic", "mix", at, score, round(distance, 3), round(usual, 3),
                     f"distance of {WINDOW} min from the usual mix", most, seqs.get(most))]  # fmt: skip

    def _teach(self, came: Mapping[int, float]) -> None:
        self._minutes += 1
        for id, count in came.items():
            self._usual[id] = self._usual.get(id, 0.0) + count

    def _fade(self) -> None:
        kept = {id: weight * _FADE for id, weight in self._usual.items() if weight * _FADE > 0.02}
        if len(kept) > _MOST:
            kept = dict(sorted(kept.items(), key=lambda pair: (-pair[1], pair[0]))[: _MOST * 9 // 10])
        self._usual = kept

    def rename(self, old: int, new: int) -> None:
        """A template has generalised, or means the same as another: they are one from now on."""
        home = self._home.get(new, new)
        if home == old:
            return
        self._home[old] = home
        for passage, other in self._home.items():
            if other == old:
                self._home[passage] = home
        for mix in (self._usual, *(came for _, _, came in self._hour)):
            if (weight := mix.pop(old, None)) is not None:
                mix[home] = mix.get(home, 0.0) + weight

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        hour = [[minute, learn, list(came.items())] for minute, learn, came in self._hour]
        return {
            "usual": list(self._usual.items()), "minutes": self._minutes, "hour": hour, "home": list(self._home.items()),
            "mean": self._mean, "square": self._square, "weight": self._weight,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._usual, self._minutes, self._home = dict(state["usual"]), state["minutes"], dict(state["home"])
        self._hour = deque((minute, learn, dict(came)) for minute, learn, came in state["hour"])
        self._mean, self._square, self._weight = state["mean"], state["square"], state["weight"]
