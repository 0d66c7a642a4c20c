"""How busy a topic usually is at a time of the day and of the week: counts against what an even flow would bring.

A cell is an hour of the day, apart for working days and weekends; its factor is the posterior mean of a Poisson ratio under
a gamma prior around 1, so that hours not seen yet count as any other. Old counts fade.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.detect.seen import MINUTE_MS

_PRIOR = 30.0  # records that the prior around 1 is worth
_DAY = 1440


def cell_of(minute: int) -> int:
    """0..47: the hour (UTC), from 24 on at weekends."""
    day = (minute // _DAY + 3) % 7  # the epoch began on a Thursday
    return minute // 60 % 24 + (24 if day >= 5 else 0)


class Season:
    """Records a minute, by cell. `factor` is what a minute usually has against an even flow."""

    def __init__(self, half_life_days: float = 14.0) -> None:
        self._fade = 0.5 ** (1 / (half_life_days * _DAY))
        self._counts = [0.0] * 48
        self._minutes = [0.0] * 48
        self.count = self.minutes = 0.0

    @property
    def rate(self) -> float:
        """Records a minute over all."""
        return (self.count + 0.5) / (self.minutes + 1.0)

    def factor(self, minute: int) -> float:
        """About 1, between neighbouring hours in proportion."""
        into = minute % 60 / 60 - 0.5
        here, beside = cell_of(minute), cell_of(minute + (60 if into > 0 else -60))
        share = abs(into)
        return self._cell(here) * (1 - share) + self._cell(beside) * share

    def _cell(self, cell: int) -> float:
        other = (cell + 24) % 48  # working days and weekends tell of each other where one is not known
        rate = self.rate
        both = (self._counts[cell] + self._counts[other] + _PRIOR) / (
            rate * (self._minutes[cell] + self._minutes[other]) + _PRIOR
        )
        return (self._counts[cell] + _PRIOR * both) / (rate * self._minutes[cell] + _PRIOR)

    def learn(self, minute: int, count: float) -> None:
        """One more minute that was normal."""
        if minute % 60 == 0:
            fade = self._fade**60
            self._counts = [c * fade for c in self._counts]
            self._minutes = [m * fade for m in self._minutes]
            self.count, self.minutes = self.count * fade, self.minutes * fade
        cell = cell_of(minute)
        self._counts[cell] += count
        self._minutes[cell] += 1
        self.count += count
        self.minutes += 1

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return {"counts": self._counts, "minutes": self._minutes, "count": self.count, "all": self.minutes}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._counts, self._minutes = list(state["counts"]), list(state["minutes"])
        self.count, self.minutes = state["count"], state["all"]


def minute_of(time_ms: int) -> int:
    """The minute of the epoch."""
    return time_ms // MINUTE_MS
