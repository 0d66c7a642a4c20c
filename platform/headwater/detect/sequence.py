"""Whether what happens within one request, or one instance, happens as it does in others.

A session is the passages of records that share an attribute, in order. Passages follow each other as in a Markov chain whose
transitions are counted, beginning and end included: a step that all but never happens, one that is missing at the end, and
one in the wrong place each leave a rare transition (Ye 2000, "A Markov Chain Model of Temporal Behavior for Anomaly
Detection"; Du et al., "DeepLog", CCS 2017, judge the same by top candidates). A session's score is that of its rarest
transition. Passages that are new are left to the detector of novelty.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from headwater.detect.seen import MINUTE_MS, Seen

START, END = 0, -1
IDLE = 5  # minutes after which a session is over
_MOST_OPEN = 20_000
_MOST_STEPS = 200
_MOST_PAIRS = 50_000
_KNOWN = 100.0  # sessions before one is judged
_LEAST_STEPS = 1.5  # of a session on average, else there is no order to judge
_SEEN_BEFORE = 5.0  # times a passage must have followed or led, else it is new and tells nothing of order
NAMES = ("trace_id", "request_id", "session_id", "correlation_id", "transaction_id", "req_id", "traceid", "requestid",
         "trace", "instance_id", "block_id")  # fmt: skip


class Sequences:
    """Sessions of one topic, by the attribute `name`, or the first of NAMES that records have."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self._open: OrderedDict[str, list[int]] = OrderedDict()  # minute, seq, passages...
        self._next: dict[int, dict[int, float]] = {}
        self._totals: dict[int, float] = {}
        self.sessions = self._steps = 0.0

    def add(self, attributes: Mapping[str, Any], passages: tuple[int, ...], minute: int, seq: int) -> None:
        """One record."""
        if self.name is None:
            self.name = next((name for name in NAMES if name in attributes), None)
        session = None if self.name is None else attributes.get(self.name)
        if session is None or not passages:
            return
        steps = self._open.setdefault(str(session)[:200], [minute, seq])
        steps[0], steps[1] = minute, seq
        if len(steps) < _MOST_STEPS:
            steps.extend(p for p in passages if p != steps[-1] or len(steps) == 2)
        self._open.move_to_end(str(session)[:200])

    def close(self, minute: int, *, learn: bool) -> list[Seen]:
        """One minute is over: sessions that are quiet long enough are judged, and taught."""
        best: Seen | None = None
        while self._open:
            session, steps = next(iter(self._open.items()))
            if minute - steps[0] < IDLE and len(self._open) <= _MOST_OPEN:
                break
            del self._open[session]
            path = [START, *steps[2:], END]
            score, at = self._score(path)
            if score > 1 and (best is None or score > best.score):
                passage = path[at] if path[at] > 0 else path[at - 1]
                best = Seen("sequence", "sequence", f"step:{path[at - 1]}>{path[at]}", (minute + 1) * MINUTE_MS, score,
                            round(10**-score, 6), None, "share of this step", passage, steps[1], session=session)  # fmt: skip
            if learn:
                self._teach(path)
        return [] if best is None else [best]

    def _score(self, path: list[int]) -> tuple[float, int]:
        """The score of the rarest transition of a session, and where it leads."""
        worst, place = 0.0, 1
        if self.sessions < _KNOWN or self._steps < _LEAST_STEPS * self.sessions:
            return worst, place
        for i in range(1, len(path)):
            before, after = path[i - 1], path[i]
            total = self._totals.get(before, 0.0)
            if total < _SEEN_BEFORE or (after > 0 and self._totals.get(after, 0.0) < _SEEN_BEFORE):
                continue
            followers = self._next[before]
            chance = (followers.get(after, 0.0) + 0.5) / (total + 0.5 * (len(followers) + 1))
            if -math.log10(chance) > worst:
                worst, place = -math.log10(chance), i
        return worst, place

    def _teach(self, path: list[int]) -> None:
        self.sessions += 1
        self._steps += len(path) - 2
        for before, after in itertools.pairwise(path):
            followers = self._next.setdefault(before, {})
            followers[after] = followers.get(after, 0.0) + 1
            self._totals[before] = self._totals.get(before, 0.0) + 1
        if self.sessions % 5000 == 0:
            self._fade()

    def _fade(self) -> None:
        """Half of what is known of old sessions stays; transitions seen once go where there are very many."""
        few = sum(len(f) for f in self._next.values()) > _MOST_PAIRS
        for before, followers in list(self._next.items()):
            kept = {after: n / 2 for after, n in followers.items() if n > (2.0 if few else 0.25)}
            if kept:
                self._next[before], self._totals[before] = kept, sum(kept.values())
            else:
                del self._next[before], self._totals[before]

    def rename(self, old: int, new: int) -> None:
        """A template has generalised."""
        followers = self._next.pop(old, {})
        total = self._totals.pop(old, 0.0)
        if followers:
            into = self._next.setdefault(new, {})
            for after, n in followers.items():
                into[after] = into.get(after, 0.0) + n
            self._totals[new] = self._totals.get(new, 0.0) + total
        for into in self._next.values():
            if old in into:
                into[new] = into.get(new, 0.0) + into.pop(old)

    def state(self) -> dict[str, Any]:
        """What `load` takes: plain JSON."""
        pairs = [[before, list(followers.items())] for before, followers in self._next.items()]
        return {
            "name": self.name,
            "open": list(self._open.items()),
            "next": pairs,
            "sessions": self.sessions,
            "steps": self._steps,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.name, self.sessions = self.name or state["name"], state["sessions"]
        self._steps = state["steps"]
        self._open = OrderedDict((session, list(steps)) for session, steps in state["open"])
        self._next = {before: dict(followers) for before, followers in state["next"]}
        self._totals = {before: sum(followers.values()) for before, followers in self._next.items()}
