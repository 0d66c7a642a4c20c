"""Passages never seen before, and ones that had all but gone: how many there are against how many there usually are.

New passages arrive at a rate of their own, which in a settled stream falls (the chance that the next record is new is about
the share of those seen once: Good 1953); how many came in ten minutes is judged by the predictive law of a gamma-Poisson
rate. A new passage that comes again and again is odder than one that came once: how often earlier new ones came in their
first ten minutes says by how much. Troubles (level warn and worse) are counted apart from what is harmless.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from headwater.detect.seen import MINUTE_MS, Seen, counts_tail
from headwater.detect.tail import Histogram

WINDOW = 10  # minutes
RARE_PER_DAY = 0.2  # a passage that came less often counts as rare
_FADE = 0.5 ** (1 / (7 * 1440))
_CLASSES = ("new.bad", "new.ok", "rare.bad", "rare.ok")
_PRIOR_GROWTH = 4.0  # new passages that came once, before any is known
_LEAST_MINUTES = 20.0
_MOST_HELD = 400


class _Arrivals:
    """New (or rare) passages of one class: their rate, and those of the last minutes."""

    def __init__(self) -> None:
        self.count = self.minutes = 0.0
        self.recent: deque[tuple[int, int, int]] = deque(maxlen=_MOST_HELD)  # minute, passage, seq
        self.growth = Histogram(0.5, 0.0, 20.0, 500.0)  # log2 of occurrences in the first minutes


class Novelty:
    """New and rare passages of one topic, minute by minute."""

    def __init__(self) -> None:
        self._classes = {name: _Arrivals() for name in _CLASSES}
        self._young: dict[int, list[int]] = {}  # passage -> minute, bad, occurrences, newest seq, rare

    def arrive(self, passage: int, minute: int, seq: int, *, bad: bool, rare: bool) -> None:
        """A passage came that is new, or rare."""
        if passage not in self._young and len(self._young) < _MOST_HELD * 4:
            self._young[passage] = [minute, int(bad), 0, seq, int(rare)]
            self._classes[_name(bad, rare)].recent.append((minute, passage, seq))

    def again(self, passage: int, count: int, seq: int) -> None:
        """A passage came; counts where it is young."""
        if (held := self._young.get(passage)) is not None:
            held[2] += count
            held[3] = seq

    def close(self, minute: int, *, learn: bool) -> list[Seen]:
        """One minute is over."""
        seen = [one for name, held in self._classes.items() if (one := self._judge(name, held, minute)) is not None]
        for name, held in self._classes.items():
            if learn:  # what came teaches when its ten minutes are over: it must not be usual while it begins
                came = sum(at == minute - WINDOW for at, _, _ in held.recent)
                held.count = held.count * _FADE + came
                held.minutes = held.minutes * _FADE + 1
            while held.recent and held.recent[0][0] <= minute - WINDOW:
                _, passage, _ = held.recent.popleft()
                young = self._young.pop(passage, None)
                if young is not None and learn:
                    self._classes[name].growth.add(math.log2(max(young[2], 1)))
        return seen

    def _judge(self, name: str, held: _Arrivals, minute: int) -> Seen | None:
        fresh = [(at, passage) for at, passage, _ in held.recent if at > minute - WINDOW]
        if not fresh or held.minutes < _LEAST_MINUTES:
            return None
        mean = (held.count + 0.5) / (held.minutes + 60) * WINDOW
        score = counts_tail(len(fresh), mean, held.count + 0.5)
        strongest = max((p for _, p in fresh), key=lambda p: (self._young[p][2] if p in self._young else 0, -p))
        young = self._young.get(strongest)
        times = 1 if young is None else young[2]
        score += self._growth(held, times)
        rare = name.startswith("rare")
        return Seen("new", name, f"passage:{strongest}", (minute + 1) * MINUTE_MS, score, len(fresh), round(mean, 3),
                    f"{'rare' if rare else 'new'} in {WINDOW} min", strongest, None if young is None else young[3])  # fmt: skip

    def _growth(self, held: _Arrivals, times: int) -> float:
        """-log10 of the share of earlier new passages that came so often at first."""
        if times <= 1:
            return 0.0
        above, _ = held.growth.above(math.log2(times) - 1e-9)
        prior = _PRIOR_GROWTH * times**-2.0
        return -math.log10((above + prior) / (held.growth.total + _PRIOR_GROWTH))

    def young(self, minute: int) -> list[int]:
        """Passages that were new in the last minutes, newest last."""
        found = [(at, p) for name in ("new.bad", "new.ok") for at, p, _ in self._classes[name].recent if at > minute - WINDOW]
        return [p for _, p in sorted(found)]

    def rename(self, old: int, new: int) -> None:
        """A template has generalised: its novelty is that of the one before."""
        if (held := self._young.pop(old, None)) is not None:
            self._young.setdefault(new, held)
        for arrivals in self._classes.values():
            if any(p == old for _, p, _ in arrivals.recent):
                arrivals.recent = deque(((at, new if p == old else p, s) for at, p, s in arrivals.recent), maxlen=_MOST_HELD)

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        classes = {
            name: [held.count, held.minutes, list(held.recent), held.growth.state()] for name, held in self._classes.items()
        }
        return {"classes": classes, "young": list(self._young.items())}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for name, (count, minutes, recent, growth) in state["classes"].items():
            held = self._classes[name]
            held.count, held.minutes = count, minutes
            held.recent.extend((at, p, s) for at, p, s in recent)
            held.growth.load(growth)
        self._young = {id: list(held) for id, held in state["young"]}


def _name(bad: bool, rare: bool) -> str:
    return f"{'rare' if rare else 'new'}.{'bad' if bad else 'ok'}"
