"""Whether a new passage means something that nothing before it meant: its distance to the nearest normal ones.

The score is conformal: a distance is judged by those that earlier new passages had to their own predecessors when they
came (Laxhammar and Falkman, "Sequential Conformal Anomaly Detection in Trajectories based on Hausdorff Distance", 2011, with
the mean distance to the k nearest as the measure), its tail extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.detect.seen import MINUTE_MS, Seen
from headwater.detect.tail import Tail

NEIGHBOURS = 3
_KNOWN = 20.0  # distances before one is judged
_UNIT = 20.0  # a cosine distance of 1
_MOST_PENDING = 2000


class Drift:
    """New passages of one topic that wait for their vectors, and how far earlier ones were from what was before."""

    def __init__(self) -> None:
        self.pending: dict[int, tuple[int, bool]] = {}  # passage -> seq, bad
        self._distances = {True: Tail(1000.0), False: Tail(1000.0)}

    def arrive(self, passage: int, seq: int, *, bad: bool) -> None:
        """A new passage whose vector is to come."""
        if len(self.pending) < _MOST_PENDING:
            self.pending.setdefault(passage, (seq, bad))

    def judge(self, passage: int, similarities: Sequence[float], minute: int) -> Seen | None:
        """A vector has come: `similarities` (cosine) are those of the nearest passages before it, best first."""
        seq, bad = self.pending.pop(passage)
        nearest = similarities[:NEIGHBOURS]
        if not nearest:
            return None
        distance = max(1.0 - sum(nearest) / len(nearest), 0.0)
        tail = self._distances[bad]
        known, between = tail.blocks, tail.blocks_between(distance * _UNIT)
        tail.learn(distance * _UNIT)
        if known < _KNOWN or between < 10:
            return None
        at = (minute + 1) * MINUTE_MS
        return Seen("drift", "drift.bad" if bad else "drift.ok", f"passage:{passage}", at, math.log10(between),
                    round(nearest[0], 3), None, "similarity to the nearest", passage, seq)  # fmt: skip

    def rename(self, old: int, new: int) -> None:
        """A template has generalised: what it means was judged, or will be."""
        if (held := self.pending.pop(old, None)) is not None:
            self.pending.setdefault(new, held)

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return {"pending": list(self.pending.items()), "tails": [self._distances[b].state() for b in (True, False)]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.pending = {id: (seq, bool(bad)) for id, (seq, bad) in state["pending"]}
        for bad, held in zip((True, False), state["tails"], strict=True):
            self._distances[bad].load(held)
