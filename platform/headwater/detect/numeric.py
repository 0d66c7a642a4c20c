"""Whether a series of numbers does something it never did: streaming, robust, without a model of what it should do.

The last m values are compared with every stretch of m values before them; how far the nearest one is, is the score, for
several m at once: a spike shows at small m, a day of another shape at large m. Seasons need no fitting, for the day before
looks like today. This is the left-discord of Lu et al., "Matrix Profile XXIV: Scaling Time Series Anomaly Detection to
Trillions of Datapoints and Ultra-fast Arriving Data Streams", KDD 2022, on values that are not normalised (a shifted level
is an anomaly here), with all scales updated from the step before (Mueen's recurrence), and calibrated like a conformal score
(Burnaev and Ishimtsev, "Conformalized density- and distance-based anomaly detection in time-series data", 2016): distances are
judged by the quantiles of the distances before them. Nothing looks ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headwater.detect.tail import Histogram

SCALES = (4, 12, 36, 96, 288)  # lengths of the stretches compared
HISTORY = 4096  # how far back a stretch is looked for
LINE = 2.0  # the score from which a value is an alert
SILENT = 288  # values after an alert within which none follows
_FLOOR = 0.02  # of the series' spread: distances below are noise
_LEAST_SPREAD = 0.25  # of log distances
_KNOWN = 100  # distances before one is judged
_LONGER = 0.2  # a long stretch is tested as often as a short one, yet brings fewer independent chances: more for each e-fold
_EXACT = 1024  # values between two exact recomputations of the distances
_MOST = 1e12


class Series:
    """Judges one series value by value: `score` is above LINE where it is odd."""

    def __init__(self, scales: Sequence[int] = SCALES, history: int = HISTORY) -> None:
        self.scales, self.history = tuple(scales), history
        self._kept = history + max(scales) + 2
        self._values = np.zeros(2 * self._kept)
        self._end = 0  # of what is held in _values
        self.n = 0
        self._squares = [np.zeros(history + 1) for _ in scales]  # by lag: squared distance of the last m to those before
        self._logs = [Histogram(0.05, -30.0, 40.0) for _ in scales]
        self._spread = Histogram(1 / 64, -64.0, 64.0)
        self._noise = 0.0

    def score(self, value: float) -> float:
        """How odd the series is with one more value: 0 is usual, 1 is as odd as its oddest hundredth, LINE is an alert. A value
        that is no number counts as the one before."""
        if not math.isfinite(value):
            value = float(self._values[self._end - 1]) if self.n else 0.0
        value = min(max(value, -_MOST), _MOST)
        self._push(value)
        worst = 0.0
        for i, m in enumerate(self.scales):
            last = min(self.n - m, self.history)
            if last <= m:
                continue
            nearest = math.sqrt(max(float(self._squares[i][m : last + 1].min()), 0.0) / m)
            worst = max(worst, self._judge(i, math.log(nearest + self._noise)))
        return worst

    def _judge(self, i: int, log_distance: float) -> float:
        m, logs = self.scales[i], self._logs[i]
        score = 0.0
        if self.n > 3 * m and logs.total >= _KNOWN:
            middle, high = logs.quantile(0.5, 0.99)
            middle -= logs.width
            score = (log_distance - middle) / max(high - middle, _LEAST_SPREAD)
            score += _LONGER * math.log(m / self.scales[0]) if score > 0 else 0.0
        if self.n > 2 * m:
            logs.add(log_distance)
        return score

    def _push(self, value: float) -> None:
        held = self._values
        if self._end == len(held):
            held[: self._kept] = held[-self._kept :]
            self._end = self._kept
        held[self._end] = value
        self._end += 1
        self.n += 1
        if self.n % _EXACT == 0:
            self._recompute()
        else:
            self._update(value)
        self._spread.add(math.asinh(value))
        if self.n % 16 == 1:
            low, middle, high = (math.sinh(edge) for edge in self._spread.quantile(0.05, 0.5, 0.95))
            self._noise = _FLOOR * (high - low) * (high - low > 0.05 * abs(middle)) + 1e-9 * (abs(middle) + 1)

    def _update(self, value: float) -> None:
        """Distances of the step before, with the newest pair of values added and the oldest taken off, for every lag."""
        held, t = self._values, self._end - 1
        lags = min(self.n - 1, self.history)
        added = held[t - lags : t][::-1] - value
        added *= added
        for m, squares in zip(self.scales, self._squares, strict=True):
            squares[1 : lags + 1] += added
            if (far := min(self.n - 1 - m, self.history)) > 0:
                gone = held[t - m - far : t - m][::-1] - held[t - m]
                gone *= gone
                squares[1 : far + 1] -= gone

    def _recompute(self) -> None:
        """Distances from the values themselves: what rounding has added up to goes."""
        held, t = self._values, self._end - 1
        for m, squares in zip(self.scales, self._squares, strict=True):
            if (far := min(self.n - m, self.history)) <= 0:
                continue
            newest = held[t - m + 1 : t + 1]
            windows = np.lib.stride_tricks.sliding_window_view(held[t - m + 1 - far : t], m)[::-1]
            squares[1 : far + 1] = np.square(windows - newest).sum(axis=1)

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        held = self._values[max(self._end - self._kept, 0) : self._end]
        logs = [logs.state() for logs in self._logs]
        return {"n": self.n, "values": held.tolist(), "noise": self._noise, "spread": self._spread.state(), "logs": logs}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        values = np.asarray(state["values"], np.float64)
        self.n, self._noise, self._end = int(state["n"]), float(state["noise"]), len(values)
        self._values[: self._end] = values
        self._spread.load(state["spread"])
        for logs, held in zip(self._logs, state["logs"], strict=True):
            logs.load(held)
        self._recompute()


class Alarm:
    """Alerts of one series: at LINE or above, once in SILENT values."""

    def __init__(self, line: float = LINE, silent: int = SILENT) -> None:
        self.series, self._line, self._silent, self._quiet = Series(), line, silent, 0

    def alerts(self, value: float) -> bool:
        """Whether one more value is an alert."""
        odd = self.series.score(value) >= self._line
        self._quiet = max(self._quiet - 1, 0)
        if odd and not self._quiet:
            self._quiet = self._silent
            return True
        return False
