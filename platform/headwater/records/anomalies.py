"""What surfaces are told of anomalies: each with its explanation, and how the detectors of a topic stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from headwater.records import Coverage
from headwater.records.tabular import Shown, Tabular

DetectorKind = Literal["rate", "new", "drift", "numeric", "silence", "sequence"]
Severity = Literal["low", "medium", "high", "critical"]
Sensitivity = Literal["low", "medium", "high"]
Verdict = Literal["not an anomaly", "anomaly"]
DetectState = Literal["off", "learning", "watching", "held up"]
KINDS: tuple[DetectorKind, ...] = get_args(DetectorKind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True, slots=True)
class Normal:
    """Something normal that an anomaly comes nearest to. `similarity` is 0 to 1 in meaning, None where meaning was not
    compared; `address` is that of its latest record, None where it is gone."""

    text: str
    similarity: float | None
    count: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Signal:
    """What one detector saw. `observed` and `expected` are in the detector's own measure (`unit`); `by_chance_days` is in how
    many days chance alone would bring one as odd, by the topic's own history."""

    kind: DetectorKind
    at: datetime
    subject: str
    what: str
    observed: float | None
    expected: float | None
    unit: str
    by_chance_days: float
    address: str | None


@dataclass(frozen=True, slots=True)
class Anomaly(Shown):
    """Something odd in a topic. `what` says it in a sentence, `kind` which detector saw it first, `start` and `end` when
    (event time), `found` when it was judged. `by_chance_days`: chance alone would bring one as odd once in so many days.
    `observed` and `expected` are in `unit`. `addresses` are the records that show it, `passage` the id of theirs and `text`
    its text, `normal` the nearest normal examples, `signals` everything that was seen of it, the oddest first. `alerted` is
    False where it was found in history, or where the alert budget was spent (`why_quiet` says which). `feedback` is a
    person's verdict."""

    id: str
    topic: str
    kind: DetectorKind
    severity: Severity
    what: str
    start: datetime
    end: datetime
    found: datetime
    by_chance_days: float
    observed: float | None
    expected: float | None
    unit: str
    passage: int | None
    text: str | None
    field: str | None
    session: str | None
    addresses: tuple[str, ...]
    normal: tuple[Normal, ...]
    signals: tuple[Signal, ...]
    alerted: bool
    why_quiet: str | None = None
    feedback: Verdict | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class AnomaliesReply(Tabular):
    """Anomalies, newest first: a sequence of them. `coverage.topics` are those whose detectors are on; its notes say which are
    still learning."""

    anomalies: tuple[Anomaly, ...]
    coverage: Coverage

    def __len__(self) -> int:
        return len(self.anomalies)

    def __iter__(self) -> Iterator[Anomaly]:
        return iter(self.anomalies)

    def __getitem__(self, index: int) -> Anomaly:
        return self.anomalies[index]


@dataclass(frozen=True, slots=True)
class Detecting(Shown):
    """How the detectors of one topic stand. `state` is `learning` until enough history is known to judge by, `held up` where
    `error` says why; `behind` counts records not judged yet; `found` counts its anomalies, those that
    `alerted` and those that people `dismissed`; `signals` what detectors saw, by kind; `alerts_24h` of
    `budget_per_day` are spent; `line_days` is the line now: only what chance brings less than once in so many days alerts."""

    topic: str
    state: DetectState
    budget_per_day: float
    sensitivity: Sensitivity
    detectors: tuple[DetectorKind, ...]
    fields: tuple[str, ...] | None
    session: str | None
    alert_topic: str | None
    behind: int
    history_days: float
    found: int
    alerted: int
    alerts_24h: int
    dismissed: int
    line_days: float
    signals: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
