"""Whether keys that fell silent live on under new names: pods and instances that each deploy names anew.

Nothing tells what replaced what but the clock, the volume and the names. A key has successors where keys that began as it
ended, related to it by name, bring at least half of the records that are missed of all that ended with it. So a service of
which nothing came back is missed, and so is one whose new instances say little more than that they start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

OVERLAP = 30  # minutes for which old and new may both speak
_ENOUGH = 0.5  # of the records missed
_BREAK = re.compile(r"[^0-9A-Za-z]+")
_DIGIT = re.compile(r"\d")

Root = tuple[str | int, ...]


class Ended(NamedTuple):
    """A key that is silent: its last minute, and the records missed since."""

    key: str
    last: int
    missed: float


class Begun(NamedTuple):
    """A key that is new: its first minute, and its records since."""

    key: str
    began: int
    records: int


def roots(key: str) -> list[Root]:
    """What a key shares with its relatives, the nearest first: its leading words; else, where it has digits, its shape."""
    words = _BREAK.split(key)
    leading: list[Root] = [tuple(words[:n]) for n in range(len(words), 0, -1) if words[0]]
    return [*leading, tuple(map(len, words))] if _DIGIT.search(key) else leading


def succeeded(ended: Iterable[Ended], begun: Iterable[Begun]) -> set[str]:
    """The silent keys that live on under new names."""
    silent: dict[Root, list[Ended]] = {}
    for old in ended:
        for root in roots(old.key):
            silent.setdefault(root, []).append(old)
    fresh: dict[Root, list[Begun]] = {}
    for new in begun if silent else ():
        kin = next((root for root in roots(new.key) if any(_meet(old, new) for old in silent.get(root, ()))), None)
        if kin is not None:
            fresh.setdefault(kin, []).append(new)
    shares: dict[str, float] = {}
    for root, heirs in fresh.items():
        for old in silent[root]:
            missed = sum(other.missed for other in silent[root] if other.last >= old.last - OVERLAP)
            came = sum(new.records for new in heirs if _meet(old, new))
            shares[old.key] = shares.get(old.key, 0.0) + came / max(missed, 1e-9)
    return {key for key, share in shares.items() if share >= _ENOUGH}


def _meet(old: Ended, new: Begun) -> bool:
    return new.key != old.key and new.began >= old.last - OVERLAP
