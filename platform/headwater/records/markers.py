"""What stands out on a timeline beside its counts: anomalies, and troubles seen for the first time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment of a topic: an `anomaly` (`severity`, its `id`), or a pattern of level warn or worse that was `new` then, with
    its level as `severity` and its passage as `id`."""

    at: datetime
    topic: str
    kind: Literal["anomaly", "new"]
    text: str
    severity: str
    id: str
