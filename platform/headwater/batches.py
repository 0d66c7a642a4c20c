"""What a source hands over beside records, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """A piece of input that is no record: its `position` in the batch's stream, why, and its text (cut at 2,000
    characters). It never stops what follows."""

    position: int
    reason: str
    payload: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a batch: records `stored`, `duplicates` that were there already, input set aside as `dead_letters`.
    `state` is where the source resumes, None for one that has delivered none."""

    stored: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    state: Mapping[str, Any] | None = None
