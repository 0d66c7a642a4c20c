"""How unlikely a score is, by what was normal before: a streaming histogram that forgets, with an extrapolated tail.

Beyond the scores seen often, exceedances over a high threshold are taken to fall off exponentially, the peaks-over-threshold
model with shape 0 (Pickands 1975; for streams: Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD
2017). The scale is shrunk towards a prior, so that little history claims little.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

_LEAST_LEFT = 1e-6  # weight below which a bin is forgotten


class Histogram:
    """Weighted counts of values in bins of `width`; old ones fade with a half-life of `half_life` additions (None: never).
    Memory is bounded: values are clamped to `[low, high]`."""

    def __init__(self, width: float, low: float, high: float, half_life: float | None = None) -> None:
        self.width, self.low, self.high = width, low, high
        self._gain = 1.0 if half_life is None else 2.0 ** (1.0 / half_life)
        self._weight = 1.0  # of the next addition: growing weights are the same as fading ones
        self._bins: dict[int, float] = {}
        self._sum = 0.0
        self._from: tuple[list[int], list[float], list[float]] | None = None  # see _sums; None once more was added

    def __len__(self) -> int:
        return len(self._bins)

    @property
    def total(self) -> float:
        """Weight of everything added, in units of the newest addition."""
        return self._sum / self._weight

    def add(self, value: float) -> None:
        """Count one value."""
        at = math.floor((min(max(value, self.low), self.high) - self.low) / self.width)
        self._bins[at] = self._bins.get(at, 0.0) + self._weight
        self._from = None
        self._sum += self._weight
        self._weight *= self._gain
        if self._weight > 1e12:
            self._renew()

    def _renew(self) -> None:
        kept = {at: weight / self._weight for at, weight in self._bins.items()}
        self._bins = {at: weight for at, weight in kept.items() if weight > _LEAST_LEFT}
        self._sum, self._weight = sum(self._bins.values()), 1.0

    def quantile(self, *shares: float) -> list[float]:
        """The upper edges of the bins below which those shares (rising) of the weight lie."""
        found: list[float] = []
        below, wanted = 0.0, list(shares)
        for at in sorted(self._bins):
            below += self._bins[at]
            while wanted and below >= wanted[0] * self._sum:
                wanted.pop(0)
                found.append(self.low + (at + 1) * self.width)
        return found + [self.high] * len(wanted)

    def above(self, value: float) -> tuple[float, float]:
        """Weight of the bins that begin at `value` or above, and the sum of their middles' excess over it."""
        bins, weights, moments = self._sums()
        first = bisect_left(bins, value, key=lambda at: self.low + at * self.width)
        weight, moment = weights[first], moments[first]
        return weight / self._weight, (moment - value * weight) / self._weight

    def _sums(self) -> tuple[list[int], list[float], list[float]]:
        """Bins in order, with the weight from each on, and the sum of their middles so weighted; 0 behind the last."""
        if self._from is None:
            bins = sorted(self._bins)
            weights = [self._bins[at] for at in bins]
            moments = [(self.low + (at + 0.5) * self.width) * w for at, w in zip(bins, weights, strict=True)]
            sums = [list(accumulate(reversed(part), initial=0.0))[::-1] for part in (weights, moments)]
            self._from = bins, sums[0], sums[1]
        return self._from

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return {"bins": list(self._bins.items()), "weight": self._weight, "sum": self._sum}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._bins = {int(at): float(weight) for at, weight in state["bins"]}
        self._from = None
        self._weight, self._sum = float(state["weight"]), float(state["sum"])


class Tail:
    """In how many blocks chance alone brings one score as high. Fed with the highest score of each block of time."""

    SCALE = 0.5  # prior mean excess; scores that are -log10 of a chance have 0.43
    PRIOR = 5.0  # blocks that the prior is worth
    SHARE = 0.05  # of the blocks make up the tail, and at least
    LEAST = 5.0

    def __init__(self, half_life_blocks: float) -> None:
        self._scores = Histogram(0.1, 0.0, 300.0, half_life_blocks)
        self._line: tuple[float, float, float] | None = None  # threshold, weight beyond it, scale; None once more was learned

    @property
    def blocks(self) -> float:
        """Blocks known, old ones counting less."""
        return self._scores.total

    def learn(self, highest: float) -> None:
        """One more normal block."""
        self._scores.add(highest)
        self._line = None

    def blocks_between(self, score: float) -> float:
        """Blocks between two that bring such a score; at least 1."""
        known = self._scores.total
        if not known:
            return 1.0
        threshold, beyond, scale = self._line or self._drawn()
        if score <= threshold:
            return max(known / max(self._scores.above(score)[0], 1.0), 1.0)
        rate = (beyond + 1.0) / (known + 1.0)
        return max(math.exp(min((score - threshold) / scale, 600.0)) / rate, 1.0)

    def _drawn(self) -> tuple[float, float, float]:
        known = self._scores.total
        share = min(max(self.SHARE, self.LEAST / known), 0.5)
        (threshold,) = self._scores.quantile(1.0 - share)
        beyond, excess = self._scores.above(threshold)
        scale = (excess + self.PRIOR * self.SCALE) / (beyond + self.PRIOR) * (1 + self.LEAST / known)
        self._line = threshold, beyond, scale
        return self._line

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return self._scores.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._scores.load(state)
        self._line = None
