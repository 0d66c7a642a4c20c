"""Numeric fields of records: their middle and their high values every five minutes, each a series judged as it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headwater.detect.numeric import Series
from headwater.detect.seen import MINUTE_MS, Seen

STEP = 5  # minutes of one value of a series
HISTORY = 2048  # values: a week
SCALES = (1, 3, 12, 72)  # five minutes, a quarter, an hour, six hours
MOST_FIELDS = 12
_LEAST = 3  # numbers in a step, else the step says nothing
_MOST_HELD = 2000
_IDS = ("id", "pid", "tid", "port", "line", "offset", "thread", "pri", "timestamp", "time", "ts", "version", "page", "chunk")


class Fields:
    """Numeric attributes of one topic; `chosen` names them, else the first that have numbers are taken."""

    def __init__(self, chosen: Sequence[str] | None = None) -> None:
        self._chosen = None if chosen is None else tuple(chosen)
        self._held: dict[str, list[float]] = {}
        self._seqs: dict[str, tuple[float, int]] = {}  # the highest value of a step and its record
        self._series: dict[tuple[str, str], Series] = {}
        self._usual: dict[tuple[str, str], float] = {}

    def add(self, attributes: Mapping[str, Any], seq: int) -> None:
        """One record."""
        for name, value in attributes.items():
            if type(value) not in (int, float) or not self._wants(name):
                continue
            held = self._held.setdefault(name, [])
            if len(held) < _MOST_HELD:
                held.append(float(value))
            if name not in self._seqs or value > self._seqs[name][0]:
                self._seqs[name] = float(value), seq

    def _wants(self, name: str) -> bool:
        if name in self._held or (name, "p95") in self._series:
            return True
        if self._chosen is not None:
            return name in self._chosen
        words = name.lower().replace(".", "_").replace("-", "_").split("_")
        return len({n for n, _ in self._series} | set(self._held)) < MOST_FIELDS and words[-1] not in _IDS

    def close(self, minute: int) -> list[Seen]:
        """One minute is over; every fifth one values are judged."""
        if (minute + 1) % STEP:
            return []
        seen = []
        for name, values in self._held.items():
            if len(values) < _LEAST:
                continue
            middle, high = np.percentile(values, [50, 95]).tolist()
            for part, value in (("middle", middle), ("p95", high)):
                series = self._series.setdefault((name, part), Series(SCALES, HISTORY))
                score = series.score(value)
                usual = self._usual.get((name, part), value)
                self._usual[name, part] = usual + 0.05 * (value - usual)
                if score > 1:
                    unit = "median" if part == "middle" else "95th percentile"
                    at, seq = (minute + 1) * MINUTE_MS, self._seqs[name][1]
                    seen.append(Seen("numeric", "numeric", f"field:{name}", at, 2 * score, round(value, 6), round(usual, 6),
                                     f"{unit} of {name} in {STEP} min", seq=seq, field=name))  # fmt: skip
        self._held = {name: [] for name in self._held}
        self._seqs.clear()
        return sorted(seen, key=lambda s: -s.score)[:1]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields judged."""
        return tuple(sorted({name for name, _ in self._series}))

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        series = [[name, part, s.state(), self._usual[name, part]] for (name, part), s in self._series.items()]
        return {"held": self._held, "seqs": list(self._seqs.items()), "series": series}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._held = {name: list(values) for name, values in state["held"].items()}
        self._seqs = {name: (value, seq) for name, (value, seq) in state["seqs"]}
        for name, part, series, usual in state["series"]:
            self._series[name, part] = made = Series(SCALES, HISTORY)
            made.load(series)
            self._usual[name, part] = usual
