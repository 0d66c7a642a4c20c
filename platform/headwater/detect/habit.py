"""What comes at the same time of day again and again: a batch at night, a start of work, a job on Sundays.

A season learns how much comes at an hour. What comes in minutes, and so strongly that it is taken for an incident, teaches no
season; here it is remembered by its subject, and what came on two days before at that time of day, about as odd, is a habit.
"""

from __future__ import annotations

from typing import Any

DAYS = 22  # kept: two Sundays before this one
BESIDE = 20  # minutes a habit may be early or late
LEAST = 2.0  # decades from which something is remembered
ALIKE = 2.5  # times as odd as the habit is still the habit
_TIMES = 2  # days before on which it came, to be one
_MOST = 4000  # subjects
_DAY = 1440


class Habits:
    """Occasions of each subject: first and last minute of the epoch, and the most decades then."""

    def __init__(self) -> None:
        self._held: dict[str, list[list[float]]] = {}

    def note(self, subject: str, minute: int, decades: float) -> None:
        """Something was odd."""
        if decades < LEAST:
            return
        held = self._held.get(subject)
        if held is None:
            if len(self._held) >= _MOST:
                self._forget(minute)
            held = self._held.setdefault(subject, [])
        if held and minute - held[-1][1] <= BESIDE:
            held[-1][1:] = [max(held[-1][1], minute), max(held[-1][2], decades)]
            return
        held.append([minute, minute, decades])
        while held[0][1] < minute - DAYS * _DAY:
            held.pop(0)

    def usual(self, subject: str, minute: int) -> float:
        """The decades that are a habit of a subject at this time of day; 0 where it has none."""
        held = self._held.get(subject)
        if held is None:
            return 0.0
        best: dict[int, float] = {}
        for first, last, decades in held:
            days, into = divmod(minute - first + BESIDE, _DAY)
            if 1 <= days <= DAYS and into <= last - first + 2 * BESIDE:
                best[int(days)] = max(best.get(int(days), 0.0), decades)
        return sorted(best.values(), reverse=True)[_TIMES - 1] if len(best) >= _TIMES else 0.0

    def _forget(self, minute: int) -> None:
        """Subjects that were odd longest ago go: a tenth, at least what is out of date."""
        ranked = sorted(self._held, key=lambda subject: self._held[subject][-1][1])
        for i, subject in enumerate(ranked):
            if i < _MOST // 10 or self._held[subject][-1][1] < minute - DAYS * _DAY:
                del self._held[subject]

    def state(self) -> list[Any]:
        """What `load` takes: plain JSON."""
        return list(self._held.items())

    def load(self, state: Any) -> None:
        """Go on where `state` was taken."""
        self._held = {subject: [list(one) for one in held] for subject, held in state}
