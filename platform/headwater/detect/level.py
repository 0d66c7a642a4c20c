"""How high a number usually is at an hour of the day, and how far above it a value is: streaming, in a few numbers.

Beside the search for stretches that never were (headwater.detect.numeric), which knows every shape but takes a rise like one
of last week for known. Values are taken on a scale that is straight near nothing and logarithmic beyond (asinh), so that to
be five times as high is as far at any height. The level follows what comes within a day; hours differ from it as they did
before. What is learned is winsorised (Huber 1964), and of fewer numbers less is claimed. A fall is none: of few
numbers even the highest are low.
"""

from __future__ import annotations

import math
from typing import Any

from headwater.detect.seen import normal_tail

_FIRST = 12  # values that tell the scale
_KNOWN = 72.0  # values before one is judged
_DAY = 288.0  # values that the level remembers
_LONG = 4032.0  # that the spread remembers: two weeks
_HOURS = 168.0  # that an hour remembers
_HOURLY = 6.0  # values of an hour that no difference is worth
_PRIOR = 0.3  # spread
_LEAST = 0.05
_FULL = 30  # numbers behind a value, from which more make it no surer
_CLAMP = 3.0  # spreads that a value may teach


class Level:
    """One series, a value each five minutes."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._scale = 0.0  # 0 until it is known
        self._weight = self._mean = 0.0
        self._square = _PRIOR**2
        self._hours = [(0.0, 0.0)] * 24  # weight, mean difference from the level

    def score(self, minute: int, value: float, numbers: int, *, learn: bool) -> tuple[float, float]:
        """-log10 of the chance to be so far above the usual, and the usual; `value` is of that many numbers."""
        if not self._scale:
            self._first.append(abs(value))
            if len(self._first) == _FIRST:
                self._scale = sum(self._first) / _FIRST / 4 or 1.0
                self._first.clear()
            return 0.0, value
        at, hour = math.asinh(value / self._scale), minute // 60 % 24
        known, beside = self._hours[hour]
        usual = self._mean + beside * known / (known + _HOURLY)
        sure = math.sqrt(min(numbers, _FULL) / _FULL)
        spread = max(math.sqrt(self._square), _LEAST)
        residual = (at - usual) * sure if self._weight else 0.0
        judged = self._weight >= _KNOWN
        if learn or not judged:
            bounded = min(max(residual, -_CLAMP * spread), _CLAMP * spread)
            self._learn(at if not self._weight else usual + bounded / sure, bounded, hour)
        score = normal_tail(residual / spread) if judged else 0.0
        return score, math.sinh(usual) * self._scale

    def _learn(self, at: float, residual: float, hour: int) -> None:
        self._weight = min(self._weight + 1, _LONG)
        self._mean += (at - self._mean) / min(self._weight, _DAY)
        self._square += (residual * residual - self._square) / (self._weight + 12)
        weight, beside = self._hours[hour]
        weight = min(weight + 1, _HOURS)
        self._hours[hour] = weight, beside + (at - self._mean - beside) / weight

    def state(self) -> list[Any]:
        """What `load` takes: plain JSON."""
        return [self._first, self._scale, self._weight, self._mean, self._square, self._hours]

    def load(self, state: Any) -> None:
        """Go on where `state` was taken."""
        first, self._scale, self._weight, self._mean, self._square, hours = state
        self._first, self._hours = list(first), [(weight, beside) for weight, beside in hours]
