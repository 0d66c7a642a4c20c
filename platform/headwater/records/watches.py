"""What surfaces are told of watches: the watches themselves, what they fired, and what a wait came to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from headwater.records import Mode, Record
from headwater.records.tabular import Shown, Tabular

Why = Literal["words", "meaning", "pattern", "filters"]
WatchState = Literal["watching", "held up", "expired"]


@dataclass(frozen=True, slots=True)
class Watch(Shown):
    """A standing query. `min_score` is 0 to 1. `more_than` records within `within_s` seconds of event time fire it once,
    else every record that matches does. `error` says what holds it up; `behind` counts records it has not judged yet;
    `cursor` lies behind all it has fired so far."""

    id: int
    name: str
    q: str
    topics: tuple[str, ...] | None
    mode: Mode
    min_score: float
    like: str | None
    more_than: int | None
    within_s: float | None
    created: datetime
    expires: datetime | None
    owner: str | None
    state: WatchState
    error: str | None
    fired: int
    last_fired: datetime | None
    behind: int
    cursor: str


@dataclass(frozen=True, slots=True)
class WatchHit(Shown):
    """What a watch fired: the record, why, and how near (`score`, 0 to 1). `id` is the same however often it is read.
    `record` is None once the record was deleted or expired; `count` is how many records were within the window, for a watch
    that counts."""

    id: str
    watch: str
    address: str
    record: Record | None
    why: Why
    score: float
    count: int | None
    fired: datetime


@dataclass(frozen=True, slots=True)
class Woken(Tabular):
    """The reply to a wait: hits in the order they were fired, and the cursor behind the last. Without hits the time was up (or
    the watch has expired) and the cursor is the one that was given. `missed` hits before these are no longer kept; `more`
    says that further ones are there already."""

    watch: str
    hits: tuple[WatchHit, ...]
    cursor: str
    timed_out: bool = False
    missed: int = 0
    more: bool = False
    state: WatchState = "watching"
