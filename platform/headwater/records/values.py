"""What the places of a pattern hold: the values that vary from one of its records to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value, and how many of the records looked at have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class FieldValues:
    """One varying place of a pattern (`name` is `<*>1`, `<*>2` ... in order, `context` the words around it) or one attribute of
    its records. Of the `records` looked at that have it (the newest), `top` are the most frequent values; `distinct` is an
    estimate for all of the pattern's records (Chao 1984), exact where all were looked at. `least`, `median` and `most` are
    there where the values are numbers, in `unit` where they share one."""

    name: str
    kind: Literal["place", "attribute"]
    context: str
    records: int
    distinct: int
    top: tuple[ValueCount, ...]
    least: float | None = None
    median: float | None = None
    most: float | None = None
    unit: str | None = None
