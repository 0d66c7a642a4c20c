"""Whether something that used to speak has fallen silent: a service, a host, a device, by the key of its records.

How many records should have come since the last one, at this time of the day, is compared with the longest waits of the same
key: an even flow would be Poisson, for which exp(-n) is the chance that n expected ones all fail to come; what speaks in
clumps has longer waits, so n is divided by what its own waits were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headwater.detect.season import Season
from headwater.detect.seen import MINUTE_MS, MOST_SCORE, Seen

_MOST_KEYS = 5000
_KNOWN = 30.0  # minutes with records, before a key can be missed
_LEAST_RATE = 0.05  # records a minute
_FADE = 0.5 ** (1 / (3 * 1440))
_FORGET = 2880  # minutes of silence after which a key is not expected any more
_PASSING = 60  # of a key that never came regularly
_LONGEST = 5.0  # records expected in the longest of some hundred waits of an even flow: its logarithm
_WAIT_FADE = 0.995  # an arrival, for the longest wait


class _Key:
    __slots__ = ("count", "known", "last", "longest", "minutes", "missed", "seq")

    def __init__(self, minute: int) -> None:
        self.last, self.seq, self.known = minute, 0, 0.0
        self.count = self.minutes = self.missed = 0.0
        self.longest = _LONGEST  # records that were expected in the longest of its newest waits


class Silence:
    """Keys of one topic, minute by minute; keys past the first thousands are not followed."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}

    def close(self, minute: int, counts: Mapping[str, tuple[int, int]], season: Season, *, learn: bool) -> list[Seen]:
        """One minute is over: `counts` has (records, seq) of the keys that came."""
        for key, (count, seq) in counts.items():
            held = self._keys.get(key)
            if held is None:
                if len(self._keys) >= _MOST_KEYS:
                    continue
                held = self._keys[key] = _Key(minute)
            held.longest = max(held.longest * _WAIT_FADE, held.missed, _LONGEST)
            held.count, held.last, held.seq, held.missed = held.count + count, minute, seq, 0.0
            held.known += 1
        factor = season.factor(minute)
        seen, gone = [], []
        for key, held in self._keys.items():
            rate = held.count / (held.minutes + 5)
            if minute > held.last:
                held.missed += rate * factor
                if held.known >= _KNOWN and rate >= _LEAST_RATE:
                    score = min(held.missed / held.longest * _LONGEST / math.log(10), MOST_SCORE)
                    if score > 1:
                        seen.append(_seen(key, held, minute, score))
                if minute - held.last > (_FORGET if held.known >= _KNOWN else _PASSING):
                    gone.append(key)
            if learn or minute == held.last:
                held.count *= _FADE
                held.minutes = held.minutes * _FADE + 1
        for key in gone:
            del self._keys[key]
        return seen

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return {"keys": [[k, h.last, h.seq, h.known, h.count, h.minutes, h.missed, h.longest] for k, h in self._keys.items()]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for key, last, seq, known, count, minutes, missed, longest in state["keys"]:
            held = self._keys[key] = _Key(last)
            held.seq, held.known, held.count, held.minutes = seq, known, count, minutes
            held.missed, held.longest = missed, longest


def _seen(key: str, held: _Key, minute: int, score: float) -> Seen:
    silent = minute - held.last
    return Seen("silence", "silence", f"key:{key}", (minute + 1) * MINUTE_MS, score, 0, round(held.missed, 1),
                f"in {silent} min", seq=held.seq)  # fmt: skip
