"""Numeric fields of records: their middle and their high values every five minutes, each a series judged as it grows, by its
stretches and by its level."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headwater.detect.level import Level
from headwater.detect.numeric import Series
from headwater.detect.seen import MINUTE_MS, Seen

STEP = 5  # minutes of one value of a series
HISTORY = 2048  # values: a week
SCALES = (1, 3, 12, 72)  # five minutes, a quarter, an hour, six hours
MOST_FIELDS = 12
_ODD = {"numeric": 2.0, "numeric.level": 1.0}  # scores by family, from which they are told
_LEAST = 3  # numbers in a step, else the step says nothing
_TAIL = 20  # numbers in a step, from which the highest alone does not set the 95th percentile, and its level is judged
_MOST_HELD = 2000
_IDS = ("id", "pid", "tid", "port", "line", "offset", "thread", "pri", "timestamp", "time", "ts", "version", "page", "chunk")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?(ns|us|\u00b5s|\u03bcs|ms|s)")
_UNITS = {"ns": 1e-6, "us": 1e-3, "\u00b5s": 1e-3, "\u03bcs": 1e-3, "ms": 1.0, "s": 1e3}


def _duration(value: Any) -> float | None:
    """A time with its unit, as many write them (`12.5ms`, `3 s`), in milliseconds; None for anything else."""
    if type(value) is not str or value[-1:] != "s" or (found := _DURATION.fullmatch(value)) is None:
        return None
    return float(found[1]) * _UNITS[found[2]]


class Fields:
    """Numeric attributes of one topic, and durations with a unit; `chosen` names them, else the first that have numbers are
    taken."""

    def __init__(self, chosen: Sequence[str] | None = None) -> None:
        self._chosen = None if chosen is None else tuple(chosen)
        self._held: dict[str, list[float]] = {}
        self._seqs: dict[str, tuple[float, int]] = {}  # the highest value of a step and its record
        self._series: dict[tuple[str, str], Series] = {}
        self._usual: dict[tuple[str, str], float] = {}
        self._levels: dict[tuple[str, str], Level] = {}

    def add(self, attributes: Mapping[str, Any], seq: int) -> None:
        """One record."""
        for name, given in attributes.items():
            value = given if type(given) in (int, float) else _duration(given)
            if value is None or not self._wants(name):
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

    def close(self, minute: int, *, learn: bool) -> list[Seen]:
        """One minute is over; every fifth one values are judged: the oddest by stretches, and by level."""
        if (minute + 1) % STEP:
            return []
        seen: list[Seen] = []
        for name, values in self._held.items():
            if len(values) >= _LEAST:
                middle, high = np.percentile(values, [50, 95]).tolist()
                seen += self._judge(name, "middle", middle, len(values), minute, learn)
                seen += self._judge(name, "p95", high, len(values), minute, learn)
        self._held = {name: [] for name in self._held}
        self._seqs.clear()
        oddest = {one.family: one for one in sorted(seen, key=lambda one: one.score)}
        return list(oddest.values())

    def _judge(self, name: str, part: str, value: float, numbers: int, minute: int, learn: bool) -> list[Seen]:
        """One value of a series, of that many numbers."""
        series = self._series.setdefault((name, part), Series(SCALES, HISTORY))
        odd, usual = 2 * series.score(value), self._usual.get((name, part), value)
        self._usual[name, part] = usual + 0.05 * (value - usual)
        level, far, hourly = self._levels.setdefault((name, part), Level()), 0.0, value
        if part == "middle" or numbers >= _TAIL:
            far, hourly = level.score(minute, value, numbers, learn=learn)
        unit = f"{'median' if part == 'middle' else '95th percentile'} of {name} in {STEP} min"
        at, seq = (minute + 1) * MINUTE_MS, self._seqs[name][1]
        return [
            Seen("numeric", family, f"field:{name}", at, score, round(value, 6), round(normal, 6), unit, seq=seq, field=name)
            for family, score, normal in (("numeric", odd, usual), ("numeric.level", far, hourly))
            if score > _ODD[family]
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields judged."""
        return tuple(sorted({name for name, _ in self._series}))

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        series = [[name, part, s.state(), self._usual[name, part], self._levels[name, part].state()]
                  for (name, part), s in self._series.items()]  # fmt: skip
        return {"held": self._held, "seqs": list(self._seqs.items()), "series": series}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._held = {name: list(values) for name, values in state["held"].items()}
        self._seqs = {name: (value, seq) for name, (value, seq) in state["seqs"]}
        for name, part, series, usual, level in state["series"]:
            self._series[name, part] = made = Series(SCALES, HISTORY)
            made.load(series)
            self._usual[name, part] = usual
            self._levels[name, part] = Level()
            self._levels[name, part].load(level)
