"""Whether something that used to speak has fallen silent: a service, a host, a device, by the key of its records.

An even flow would be Poisson: exp(-n) is the chance that n expected records all fail to come in a minute. What speaks in
clumps is silent more often, what beats like a heart less. So two chances are learned of each key: that it is silent in a
minute after one in which it spoke, and that it stays silent; both as a factor on the expected records, which go by the time
of the day, and shrunk to Poisson where little is known. The chance of a silence is the product over its minutes (a chain of
two states: Gilbert 1960). A key that lives on under a new name is not silent (headwater.detect.succession).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headwater.detect.season import Season
from headwater.detect.seen import MINUTE_MS, MOST_SCORE, Seen
from headwater.detect.succession import OVERLAP, Begun, Ended, succeeded

_MOST_KEYS = 5000
_KNOWN = 30.0  # minutes with records, before a key can be missed
_AGE = 180  # minutes from its first record to its last, before: what spoke for less may be a job that has ended
_HOURLY = 10.0  # records that the topic's season is worth at an hour of a key
_DAY = 1440.0
_LEAST_RATE = 0.05  # records a minute
_FADE = 0.5 ** (1 / (3 * 1440))
_FORGET = 2880  # minutes of silence after which a key is not expected any more
_PASSING = 60  # of a key that never came regularly
_PRIOR = 30.0  # minutes that taking it for Poisson is worth
_UNSEEN = 0.5  # silent minutes, where none was seen: a short history claims little


class _Chance:
    """Of minutes of one sort: how many there were, how many of them silent, and the records expected in them."""

    __slots__ = ("expected", "minutes", "silent")

    def __init__(self) -> None:
        self.minutes = self.silent = self.expected = 0.0

    def learn(self, expected: float, *, silent: bool) -> None:
        self.minutes = self.minutes * _FADE + 1
        self.silent = self.silent * _FADE + silent
        self.expected = self.expected * _FADE + expected

    def factor(self, rate: float) -> float:
        """How much more evenly than Poisson it speaks (below 1: less): silent minutes are as likely as with so many times the
        records."""
        mean = self.expected / self.minutes if self.minutes else rate
        poisson = math.exp(-mean)
        chance = (self.silent + max(_PRIOR * poisson, _UNSEEN)) / (self.minutes + _PRIOR)
        return -math.log(min(chance, 0.9999)) / max(mean, 1e-3)


class _Key:
    __slots__ = ("began", "count", "first", "hours", "known", "last", "minutes", "missed", "records", "score", "seq", "stays")

    def __init__(self, minute: int) -> None:
        self.began = self.last = minute
        self.seq, self.known, self.records = 0, 0.0, 0
        self.count = self.minutes = self.missed = self.score = 0.0
        self.hours: dict[int, float] = {}
        self.first, self.stays = _Chance(), _Chance()

    def rate(self, minute: int, factor: float) -> float:
        """Records expected in a minute, by the season of the topic or, once a day of it is known, by its own hours: the fewer.
        Either may have a batch in it that is not its own, or was over within the hour."""
        mean = self.count / (self.minutes + 5) * factor
        if self.minutes < _DAY:
            return mean
        even = mean * self.minutes / 24
        return mean * min((self.hours.get(minute // 60 % 24, 0.0) + _HOURLY) / (even + _HOURLY), 1.0)

    def learn(self, minute: int, count: int) -> None:
        """One more minute, with so many records."""
        hour = minute // 60 % 24
        if minute % 60 == 0:
            self.hours = {at: held * _FADE**60 for at, held in self.hours.items()}
        if count:
            self.hours[hour] = self.hours.get(hour, 0.0) + count
        self.count = (self.count + count) * _FADE
        self.minutes = self.minutes * _FADE + 1


class Silence:
    """Keys of one topic, minute by minute; keys past the first thousands are not followed."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}

    def close(self, minute: int, counts: Mapping[str, tuple[int, int]], season: Season, *, learn: bool) -> list[Seen]:
        """One minute is over: `counts` has (records, seq) of the keys that came."""
        factor = season.factor(minute)
        for key in counts:
            if key not in self._keys and len(self._keys) < _MOST_KEYS:
                self._keys[key] = _Key(minute)
        silent, gone = dict[str, _Key](), []
        for key, held in self._keys.items():
            count, seq = counts.get(key, (0, 0))
            rate = held.rate(minute, factor)
            sort = held.first if held.last == minute - 1 else held.stays
            known = held.known >= _KNOWN and held.last - held.began >= _AGE
            if not count and known:
                held.missed += rate
                held.score += rate * sort.factor(rate) / math.log(10)
                if held.count / (held.minutes + 5) >= _LEAST_RATE and held.score > 1:
                    silent[key] = held
            if not count and minute - held.last > (_FORGET if held.known >= _KNOWN else _PASSING):
                gone.append(key)
            if (learn or count) and held.known and minute > held.last:
                sort.learn(rate, silent=not count)
            if count:
                held.last, held.seq, held.missed, held.score = minute, seq, 0.0, 0.0
                held.known += 1
                held.records += count
            if learn or count:
                held.learn(minute, count)
        renamed = self._renamed(silent, minute)
        gone += [key for key in renamed if minute - self._keys[key].last > _AGE]
        for key in set(gone):
            del self._keys[key]
        return [_seen(key, held, minute, min(held.score, MOST_SCORE)) for key, held in silent.items() if key not in renamed]

    def _renamed(self, silent: Mapping[str, _Key], minute: int) -> set[str]:
        """The silent keys that live on under new names. Those are known to be missed themselves after a while, and what they
        replaced is forgotten then."""
        ended = [Ended(key, held.last, held.missed) for key, held in silent.items()]
        since = min((one.last for one in ended), default=minute) - OVERLAP
        return succeeded(ended, (Begun(k, h.began, h.records) for k, h in self._keys.items() if h.began >= since))

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        return {
            "keys": [
                [k, h.began, h.last, h.seq, h.known, h.count, h.minutes, h.missed, h.score, h.records, list(h.hours.items()),
                 *([c.minutes, c.silent, c.expected] for c in (h.first, h.stays))]
                for k, h in self._keys.items()
            ]
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        for key, began, last, seq, known, count, minutes, missed, score, records, hours, first, stays in state["keys"]:
            held = self._keys[key] = _Key(began)
            held.last, held.seq, held.known, held.count, held.minutes = last, seq, known, count, minutes
            held.hours = dict(hours)
            held.missed, held.score, held.records = missed, score, records
            held.first.minutes, held.first.silent, held.first.expected = first
            held.stays.minutes, held.stays.silent, held.stays.expected = stays


def _seen(key: str, held: _Key, minute: int, score: float) -> Seen:
    silent = minute - held.last
    return Seen("silence", "silence", f"key:{key}", (minute + 1) * MINUTE_MS, score, 0, round(held.missed, 1),
                f"in {silent} min", seq=held.seq)  # fmt: skip
