"""One topic's detectors together: records in, incidents out. Plain synchronous code without a clock: event time drives it.

Records are counted by the minute; when a minute is over every detector judges it, and the budget decides. Late records count
in the minute under way; what is much older only becomes known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from headwater.detect.budget import Budget, Incident
from headwater.detect.drift import Drift
from headwater.detect.fields import Fields
from headwater.detect.mix import Mix
from headwater.detect.novelty import RARE_PER_DAY, Novelty
from headwater.detect.rate import Rates
from headwater.detect.season import minute_of
from headwater.detect.seen import Item, Seen
from headwater.detect.sequence import Sequences
from headwater.detect.silence import Silence
from headwater.records.anomalies import DetectorKind, Sensitivity

VERSION = 6  # of the state
_LATE = 15  # minutes
_SETTLING = 2  # minutes until everybody who speaks does so again
_LONGEST_GAP = 7 * 1440  # minutes closed one by one


class TopicJudge:
    """The detectors of one topic that are on."""

    def __init__(
        self, *, per_day: float, sensitivity: Sensitivity, kinds: Collection[DetectorKind],
        fields: Sequence[str] | None = None, session: str | None = None,
    ) -> None:  # fmt: skip
        self._kinds = frozenset(kinds)
        self.rates, self.novelty, self.silence = Rates(), Novelty(), Silence()
        self.fields, self.sequences = Fields(fields), Sequences(session)
        self.drift, self.mix = Drift(), Mix()
        self.budget = Budget(per_day, sensitivity)
        self.minute: int | None = None  # the one under way
        self.unseen = 0  # until this minute nobody looked: what did not come then may be on its way, or lost
        self.live = False  # whether its records are of now
        self.records = 0
        self.signals: dict[str, int] = {}
        self._total = 0
        self._passages: dict[int, tuple[int, int, bool, int]] = {}
        self._keys: dict[str, tuple[int, int]] = {}
        self._beyond: list[Seen] = []  # seen since the last minute was closed

    # ------------------------------------------------------------------ records

    def feed(self, items: Iterable[Item], *, quiet: str | None = None) -> list[Incident]:
        """Judge records: the incidents that began or changed, in order; one may occur again."""
        found: list[Incident] = []
        decoded: dict[bytes, Mapping[str, Any]] = {}
        reads = bool(self._kinds & {"numeric", "sequence"})
        for item in items:
            minute = minute_of(item.time_ms)
            if self.minute is None:
                self.minute = minute
            elif minute > self.minute:
                found += self._close_until(minute, quiet)
            elif minute < self.minute - _LATE or minute < min(self.minute, self.unseen):
                for passage in item.passages:
                    self.rates.meet(passage, item.time_ms, self.minute, bad=item.bad)
                continue
            self._count(item)
            if reads and item.attributes is not None:
                self._read(item, decoded)
        return found

    def _count(self, item: Item) -> None:
        assert self.minute is not None
        self._total += 1
        self.records += 1
        if item.key is not None:
            count = self._keys[item.key][0] if item.key in self._keys else 0
            self._keys[item.key] = count + 1, item.seq
        for passage in item.passages:
            held = self._passages.get(passage)
            if held is not None:
                self._passages[passage] = held[0] + 1, item.seq, held[2], held[3]
                continue
            self._passages[passage] = 1, item.seq, item.bad, item.time_ms
            if not self.rates.knows(passage):
                self.novelty.arrive(passage, self.minute, item.seq, bad=item.bad, rare=False)
                self.drift.arrive(passage, item.seq, bad=item.bad)
            elif self.rates.per_day(passage, self.minute) < RARE_PER_DAY:
                self.novelty.arrive(passage, self.minute, item.seq, bad=item.bad, rare=True)

    def _read(self, item: Item, decoded: dict[bytes, Mapping[str, Any]]) -> None:
        assert item.attributes is not None
        assert self.minute is not None
        attributes = decoded.get(item.attributes)
        if attributes is None:
            if len(decoded) > 5000:
                decoded.clear()
            attributes = decoded[item.attributes] = orjson.loads(item.attributes)
        if "numeric" in self._kinds:
            self.fields.add(attributes, item.seq)
        if "sequence" in self._kinds:
            self.sequences.add(attributes, item.passages, self.minute, item.seq)

    # ------------------------------------------------------------------ time

    def away(self, now_ms: int) -> None:
        """Nobody looked until now (a restart, a machine that slept): minutes without records until then tell nothing, and of
        records of that time only what is new or more than usual is odd."""
        self.unseen = max(self.unseen, minute_of(now_ms) + _SETTLING)

    def tick(self, now_ms: int, *, quiet: str | None = None) -> list[Incident]:
        """Time has passed, though no record came."""
        return [] if self.minute is None else self._close_until(minute_of(now_ms), quiet)

    def _close_until(self, minute: int, quiet: str | None) -> list[Incident]:
        assert self.minute is not None
        found = []
        if minute - self.minute > _LONGEST_GAP:
            found += self._close(quiet)
            self.minute = minute
        while self.minute < minute:
            found += self._close(quiet)
        return found

    def _close(self, quiet: str | None) -> list[Incident]:
        assert self.minute is not None
        minute, unseen = self.minute, self.minute < self.unseen
        if unseen and not self._total:
            self.minute += 1
            return []
        learn = self.budget.normal and not unseen
        for id, (count, seq, _, _) in self._passages.items():
            self.novelty.again(id, count, seq)
        seen, self._beyond = self._beyond, []
        seen += self.novelty.close(minute, learn=learn)
        seen += self.rates.close(minute, self._passages, self._total, learn=learn)
        seen += [] if unseen else self.silence.close(minute, self._keys, self.rates.season, learn=learn)
        seen += self.fields.close(minute, learn=learn)
        seen += self.sequences.close(minute, learn=learn)
        came = [(id, count, seq) for id, (count, seq, _, _) in self._passages.items()]
        seen += self.mix.close(minute, came, learn=learn)
        self._total, self._passages, self._keys = 0, {}, {}
        self.minute += 1
        seen = [one for one in seen if one.kind in self._kinds and not (unseen and one.fewer)]
        for one in seen:
            self.signals[one.kind] = self.signals.get(one.kind, 0) + 1
        incident = self.budget.close(minute, seen, quiet=quiet)
        return [] if incident is None else [incident]

    # ------------------------------------------------------------------ meaning

    def meant(self, passage: int, similarities: Sequence[float], same: int | None = None) -> None:
        """The vector of a new passage has come: its similarities to the nearest passages before it, best first; `same` is the
        one among them that means the same, where there is any."""
        if same is not None:
            self.mix.join(passage, same)
        if self.minute is not None and (one := self.drift.judge(passage, similarities, self.minute)) is not None:
            self._beyond.append(one)

    def rename(self, aliases: Mapping[int, int]) -> None:
        """Templates have generalised: old passage -> surviving one."""
        for old, new in aliases.items():
            for part in (self.rates, self.novelty, self.drift, self.sequences, self.mix):
                part.rename(old, new)
            if (held := self._passages.pop(old, None)) is not None:
                other = self._passages.get(new)
                self._passages[new] = held if other is None else (held[0] + other[0], *other[1:])

    # ------------------------------------------------------------------ state

    def state(self) -> bytes:
        """What `load` takes: JSON."""
        parts = {name: part.state() for name, part in self._parts().items()}
        own = {
            "minute": self.minute, "live": self.live, "records": self.records, "signals": self.signals, "total": self._total,
            "passages": list(self._passages.items()), "keys": self._keys, "beyond": [list(one) for one in self._beyond],
        }  # fmt: skip
        return orjson.dumps({"version": VERSION, "own": own, **parts}, option=orjson.OPT_NON_STR_KEYS)

    def load(self, state: bytes) -> bool:
        """Go on where `state` was taken; False, and nothing is known, where another version wrote it."""
        held = orjson.loads(state)
        if held["version"] != VERSION:
            return False
        for name, part in self._parts().items():
            part.load(held[name])
        own = held["own"]
        self.minute, self.records, self.signals, self._total = own["minute"], own["records"], own["signals"], own["total"]
        self.live = own["live"]
        self._passages = {id: (count, seq, bool(bad), ms) for id, (count, seq, bad, ms) in own["passages"]}
        self._keys = {key: (count, seq) for key, (count, seq) in own["keys"].items()}
        self._beyond = [Seen(*one) for one in own["beyond"]]
        return True

    def _parts(self) -> dict[str, Any]:
        return {
            "rates": self.rates, "novelty": self.novelty, "silence": self.silence, "fields": self.fields,
            "sequences": self.sequences, "drift": self.drift, "mix": self.mix, "budget": self.budget,
        }  # fmt: skip
