"""Whether something comes at another rate than before, by two counts: a test of two Poisson rates, for many at once.

Given the total of two Poisson counts, one of them is binomial; so their ratio has an exact test (Przyborowski and Wilenski
1940). Of many tests some are significant by chance: the share of false ones among those told is held by Benjamini and
Hochberg (1995). Plain functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FALSE = 0.05  # the share of changes told that may be false
_EXACT = 2000  # up to that total the binomial is summed, beyond it is normal
LEAST = 1.5  # times as many, or as few: smaller changes matter to nobody however certain they are


@dataclass(frozen=True, slots=True)
class Windows:
    """Two stretches of time, the second behind the first (ms since the epoch, ends not in them)."""

    begin_ms: int
    mark_ms: int
    end_ms: int

    @property
    def before_s(self) -> float:
        return max((self.mark_ms - self.begin_ms) / 1000, 0.001)

    @property
    def after_s(self) -> float:
        return max((self.end_ms - self.mark_ms) / 1000, 0.001)


def chance(before: int, after: int, windows: Windows) -> float:
    """The chance of counts as far apart, or farther, were the rates equal (two-sided)."""
    total, share = before + after, windows.after_s / (windows.before_s + windows.after_s)
    if total == 0:
        return 1.0
    if total > _EXACT:
        spread = math.sqrt(total * share * (1 - share))
        return math.erfc(max(abs(after - total * share) - 0.5, 0.0) / spread / math.sqrt(2))
    low, high = _below(after, total, share), _below(total - after, total, 1 - share)
    return min(2 * min(low, high), 1.0)


def _below(count: int, total: int, share: float) -> float:
    """P(X <= count) of a binomial."""
    if count >= total:
        return 1.0
    logs = math.lgamma(total + 1)
    terms = (
        logs - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * math.log(share) + (total - k) * math.log1p(-share)
        for k in range(count + 1)
    )
    return min(math.fsum(math.exp(term) for term in terms), 1.0)


def adjusted(chances: Sequence[float]) -> list[float]:
    """Each as the least share of false ones at which it would be told (Benjamini-Hochberg)."""
    order = sorted(range(len(chances)), key=lambda i: chances[i], reverse=True)
    found, least = [1.0] * len(chances), 1.0
    for rank, i in zip(range(len(chances), 0, -1), order, strict=True):
        least = min(least, chances[i] * len(chances) / rank)
        found[i] = max(least, chances[i])
    return found


def ratio(before: int, after: int, windows: Windows) -> float:
    """How many times as often it comes; half a record is added to both, so that nothing is infinite."""
    return (after + 0.5) / windows.after_s / ((before + 0.5) / windows.before_s)


@dataclass(frozen=True, slots=True)
class Change:
    """How often a pattern came `before` a mark, within so many seconds, and `after` it; it comes `times` as often. `chance` is
    the share of false ones among changes as significant as this one."""

    before: int
    before_s: float
    after: int
    after_s: float
    times: float
    chance: float


def compare(counts: Sequence[tuple[int, int]], windows: Windows) -> list[Change]:
    """The changes of many patterns, by their counts before and after."""
    chances = adjusted([chance(before, after, windows) for before, after in counts])
    return [
        Change(before, windows.before_s, after, windows.after_s, float(f"{ratio(before, after, windows):.4g}"), told)
        for (before, after), told in zip(counts, chances, strict=True)
    ]


def matters(change: Change) -> bool:
    """Whether a change is certain enough, and large enough, to be told."""
    return change.chance <= FALSE and not 1 / LEAST < change.times < LEAST
