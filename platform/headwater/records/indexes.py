"""What is told of an index in the making: how far it has come, and how two models' indexes compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from headwater.records.tabular import Shown

Work = Literal["embedding", "keywords", "segments"]
ShadowState = Literal["building", "ready", "former"]
SwapStep = Literal["cut-over", "roll-back", "drop", "cancel"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a background work has come: `done` of `total` (passages, or records for `keywords`), at `rate` a second over the
    last minute; `eta_s` is None while no rate is known."""

    work: Work
    done: int
    total: int
    rate: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """One of the passages a model finds for a query: `score` on the scale of hits, `other_rank` its place (from 1) in the
    other model's list, None where it is not among the first ten there."""

    passage: int
    text: str
    score: float
    other_rank: int | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One query answered by both models, each list best first; `overlap` is the share of passages that are in both."""

    query: str
    overlap: float
    live: tuple[Found, ...]
    shadow: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models' meaning search on the same queries.

    `overlap` is the mean share of the first ten passages that both find (overlap@10), `overlap_low` that of the tenth of the
    queries where they agree least. It measures agreement, not quality: a better model finds other things too. `queries` says
    how many were asked, `source` whether people had asked them (`recorded`) or they are phrases of the topic's own
    passages (`passages`). `latency_ms` has for `live` and `shadow` what embedding a query and searching took: `embed_p50`,
    `embed_p99`, `search_p50`, `search_p99`.
    """

    overlap: float
    overlap_low: float
    queries: int
    source: Literal["recorded", "passages"]
    latency_ms: Mapping[str, Mapping[str, float]]
    measured: datetime
    samples: tuple[SideBySide, ...] = ()


@dataclass(frozen=True, slots=True)
class Shadow(Shown):
    """Another model's index beside the one that answers (`live`). `building`: not every passage has its vector yet; `ready`:
    complete and compared; `former`: the model that answered until the cut-over, kept up to date until `kept_until`.
    With a `threshold` the cut-over happens by itself where the overlap reaches it, else when told."""

    topic: str
    model: str
    live: str
    state: ShadowState
    threshold: float | None
    progress: Progress
    comparison: Comparison | None
    started: datetime
    changed: datetime
    kept_until: datetime | None = None
    error: str | None = None
