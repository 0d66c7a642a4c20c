"""What stands out on a timeline beside its counts: anomalies, events, troubles seen for the first time, and what came first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment of a topic: an `anomaly` (`severity`, its `id`), an `event` of a topic that has few records beside the others
    (deploys; its address as `id`), or a pattern of level warn or worse that was `new` then (its passage as `id`); of both
    the level, where there is one, is the `severity`."""

    at: datetime
    topic: str
    kind: Literal["anomaly", "event", "new"]
    text: str
    severity: str
    id: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A hint that counts of the topic `then` follow those of `first`, `buckets` of the timeline (`lag_s` seconds) later;
    `correlation` (0 to 1) says how closely. `what` says it in a sentence."""

    first: str
    then: str
    buckets: int
    lag_s: float
    correlation: float
    what: str
