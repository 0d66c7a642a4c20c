"""The verbs of detectors: what is odd in a topic, how many alerts a day it may cost, and what people said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting, DetectorKind, Sensitivity, Severity, Verdict

When = datetime | str | float | int


class DetectVerbs(Protocol):
    """Anomalies and their detectors."""

    async def anomalies(
        self,
        topics: Sequence[str] | None = None,
        *,
        since: When | None = None,
        until: When | None = None,
        kind: DetectorKind | None = None,
        severity: Severity | None = None,
        quiet: bool = False,
        dismissed: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> AnomaliesReply:
        """What was found odd, newest first, each with its explanation; by event time. `severity` is the least one; `quiet` also
        lists what did not alert (found in history, or over the budget), `dismissed` what people called no anomaly.
        Without `topics` those of all topics whose detectors are on. UsageError for a topic whose detectors never were."""

    async def anomaly(self, id: str) -> Anomaly:
        """One anomaly; NotFoundError."""

    async def detecting(self, topic: str | None = None) -> list[Detecting]:
        """How detectors stand: of one topic (`off` where they are), or of every topic where they are on."""

    async def set_detecting(
        self,
        topic: str,
        *,
        enabled: bool = True,
        budget: float | str | None = None,
        sensitivity: Sensitivity | None = None,
        detectors: Sequence[DetectorKind] | None = None,
        fields: Sequence[str] | None = None,
        session: str | None = None,
        alert_topic: str | None = None,
    ) -> Detecting:
        """Switch the detectors of a topic on (they learn from what is stored, which alerts nobody) or off, or change their
        settings; what is None stays. `budget` is the most alerts a day (`3/day`, or a number), `fields` the numeric fields to
        judge (by default the first dozen), `session` the attribute that names a request or an instance, `alert_topic` a topic
        that gets each alert as a record; an empty text or list takes a choice back. UsageError."""

    async def judge_anomaly(self, id: str, verdict: Verdict | None, *, note: str | None = None) -> Anomaly:
        """Say what an anomaly was. `not an anomaly` hides it, and keeps what is like it from alerting again; `anomaly`
        confirms it; None takes it back. NotFoundError."""

    def anomaly_events(self, topics: Sequence[str] | None = None, *, cursor: str | None = None) -> AsyncIterator[Anomaly]:
        """Alerts as they are raised, endlessly; with `cursor`, an anomaly's id, those raised behind it first."""
