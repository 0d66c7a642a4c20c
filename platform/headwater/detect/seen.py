"""What detectors are given and what they say: plain values, no clock, no storage."""

from __future__ import annotations

import math
from typing import NamedTuple

from headwater.records.anomalies import DetectorKind

MINUTE_MS = 60_000
MOST_SCORE = 60.0


class Item(NamedTuple):
    """One record as detectors see it: its surviving passages, and its attributes as they are encoded. `bad` is True from level
    warn on."""

    seq: int
    time_ms: int
    key: str | None
    passages: tuple[int, ...]
    bad: bool
    attributes: bytes | None


class Seen(NamedTuple):
    """What a detector saw: `score` is on the scale of -log10 of a probability, before it is calibrated by `family`. `subject`
    is the same whenever it sees the same thing again; `seq` is a record that shows it."""

    kind: DetectorKind
    family: str
    subject: str
    at_ms: int
    score: float
    observed: float | None
    expected: float | None
    unit: str
    passage: int | None = None
    seq: int | None = None
    field: str | None = None
    session: str | None = None

    @property
    def fewer(self) -> bool:
        """Whether it is about something that came less often than usual."""
        return self.family.startswith("rate.") and (self.observed or 0) < (self.expected or 0)


def normal_tail(z: float) -> float:
    """-log10 of the chance that a standard normal value is z or more; 0.3 at 0."""
    if z < 15:
        return -math.log10(max(math.erfc(z / math.sqrt(2)) / 2, 10**-MOST_SCORE))
    return min((z * z / 2 + math.log(z * math.sqrt(2 * math.pi))) / math.log(10), MOST_SCORE)  # its asymptote


def counts_tail(count: int, mean: float, size: float) -> float:
    """-log10 of the chance of `count` events or more where `mean` are expected, negative binomial with that `size` (the
    smaller, the more they come in clumps): the predictive law of a Poisson rate known from `size` events."""
    if count <= 0:
        return 0.0
    if count > 10_000:
        return normal_tail((count - mean) / math.sqrt(mean + mean * mean / size))
    share = mean / (mean + size)
    if share <= 0:
        return MOST_SCORE
    log_p = math.lgamma(count + size) - math.lgamma(size) - math.lgamma(count + 1)
    log_p += size * math.log1p(-share) + count * math.log(share)
    total, term, k = 1.0, 1.0, count
    while term > 1e-6 * total and k < count + 2000:
        term *= (k + size) / (k + 1) * share
        total += term
        k += 1
    return min(max(-(log_p + math.log(total)) / math.log(10), 0.0), MOST_SCORE)


def surprise(count: int, mean: float) -> float:
    """How far a count is from its mean in standard deviations, nearly normal for any mean (Anscombe 1948)."""
    return 2.0 * (math.sqrt(count + 0.375) - math.sqrt(mean + 0.375))
