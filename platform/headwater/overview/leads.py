"""Which topic's surge came first: a hint, by the cross-correlation of how counts rise and fall.

Counts are put on Anscombe's square-root scale, and their steps (two buckets against the two before) are compared rather than
their levels, so that topics that merely are busy at the same time of the day do not lead each other (prewhitening: Box and
Jenkins 1970). How large a correlation chance brings follows Bartlett (1946), for all the lags and pairs that were tried. A lead
is told where it is certain, strong, and clearly better than no lag at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from headwater.records.markers import Lead

LEAST = 0.5  # correlation
BETTER = 0.15  # than without a lag
_FALSE = 0.01
_LEAST_BUCKETS = 12
_LONGEST_LAG = 24  # buckets; a quarter of all at most
_MOST_TOPICS = 12  # the busiest
_MOST = 5


def leads(counts: Mapping[str, Sequence[int]], interval_s: float) -> tuple[Lead, ...]:
    """The strongest first. `counts` are those of each topic in equal buckets."""
    busiest = sorted((name for name in counts if any(counts[name])), key=lambda name: (-sum(counts[name]), name))[:_MOST_TOPICS]
    if len(busiest) < 2 or len(counts[busiest[0]]) < _LEAST_BUCKETS:
        return ()
    steps = {name: _steps(counts[name]) for name in sorted(busiest)}
    n = len(steps[busiest[0]])
    most = min(n // 4, _LONGEST_LAG)
    pairs = list(itertools.combinations(steps, 2))
    found = []
    for first, then in pairs:
        lag, strength, still = _best(steps[first], steps[then], most)
        chance = _chance(steps[first], steps[then], strength, tried=(2 * most + 1) * len(pairs))
        if lag and strength >= LEAST and strength - still >= BETTER and chance < _FALSE:
            ahead, behind = (first, then) if lag > 0 else (then, first)
            found.append(_lead(ahead, behind, abs(lag), strength, interval_s))
    return tuple(sorted(found, key=lambda lead: (-lead.correlation, lead.first, lead.then))[:_MOST])


def _steps(counts: Sequence[int]) -> np.ndarray:
    scaled = np.sqrt(np.asarray(counts, float) + 0.375)
    return (scaled[3:] + scaled[2:-1] - scaled[1:-2] - scaled[:-3]) / 2


def _best(one: np.ndarray, other: np.ndarray, most: int) -> tuple[int, float, float]:
    """The lag (above 0: `one` came first) of the highest correlation, that, and the one without a lag."""
    scale = math.sqrt(float(one @ one) * float(other @ other))
    if not scale:
        return 0, 0.0, 0.0
    n = len(one)
    at = {lag: float(one[max(-lag, 0) : n - max(lag, 0)] @ other[max(lag, 0) : n - max(-lag, 0)]) / scale
          for lag in range(-most, most + 1)}  # fmt: skip
    lag = max(at, key=lambda lag: (at[lag], -abs(lag)))
    return lag, at[lag], at[0]


def _chance(one: np.ndarray, other: np.ndarray, strength: float, *, tried: int) -> float:
    """Of a correlation as high by chance, at any of the lags and pairs that were tried."""
    shared = sum(_own(one, k) * _own(other, k) for k in range(1, min(len(one) // 4, 10) + 1))
    spread = math.sqrt(max(1 + 2 * shared, 0.5) / len(one))
    single = math.erfc(strength / spread / math.sqrt(2)) / 2
    return -math.expm1(tried * math.log1p(-min(single, 0.999999)))


def _own(values: np.ndarray, lag: int) -> float:
    whole = float(values @ values)
    return float(values[:-lag] @ values[lag:]) / whole if whole else 0.0


def _lead(first: str, then: str, buckets: int, strength: float, interval_s: float) -> Lead:
    lag_s = buckets * interval_s
    what = f"{then} rises and falls {_span(lag_s)} after {first} (correlation {strength:.2f}): a hint, no proof of a cause"
    return Lead(first, then, buckets, lag_s, round(strength, 3), what)


def _span(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {name}{'' if seconds == size else 's'}"
    return f"{seconds:g} s"
