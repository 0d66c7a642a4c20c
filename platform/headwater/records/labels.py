"""What surfaces are told of enrichment: labels and values given to texts, pipelines, and what their steps did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from headwater.records.models import Usage
from headwater.records.tabular import Shown, Tabular

Method = Literal["auto", "zero-shot", "examples", "neighbours", "llm", "cascade"]
By = Literal["regex", "llm", "both"]
PipelineState = Literal["running", "stopped", "held up"]
Cost = Literal["free", "local", "llm", "network"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its name, what it means, and texts that have it."""

    name: str
    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified:
    """The label of one text, None where no label was sure enough. `confidence` is a calibrated probability where there were
    examples; `scores` has the best labels; `by` says what decided."""

    label: str | None
    confidence: float
    scores: Mapping[str, float]
    by: str


@dataclass(frozen=True, slots=True)
class LabelCount:
    """A label over the records of a scope: how many records and passages have it, and the address of one."""

    label: str | None
    records: int
    passages: int
    example: str | None = None


@dataclass(frozen=True, slots=True)
class ClassifyReply(Tabular):
    """Labels of texts in their order, or over the passages of topics. `records` and `passages`
    count what was looked at, `model` embeds, `llm` answered `llm_calls` questions."""

    results: tuple[Classified, ...]
    labels: tuple[LabelCount, ...]
    method: str
    model: str | None
    records: int = 0
    passages: int = 0
    llm: str | None = None
    llm_calls: int = 0
    usage: Usage = Usage()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was found in one text. `by` says for each member what found it (regex or llm); `problem` why the value is not what
    the schema asks for, None where it is."""

    value: Mapping[str, Any]
    by: Mapping[str, str]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ExtractReply(Tabular):
    """Values in the order of their texts, and what the chat model `llm`, where one was asked, took for them in
    `llm_calls` calls."""

    results: tuple[Extracted, ...]
    llm: str | None = None
    llm_calls: int = 0
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class StepStatus:
    """What one step of a pipeline has done since the engine started. A decision that was known already is a hit."""

    name: str
    kind: str
    cost: Cost
    decided: int = 0
    hits: int = 0
    failed: int = 0
    usage: Usage = Usage()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pipeline(Shown):
    """A pipeline. `records` were processed and `written` written since it was made, `behind` wait; `passages` were decided;
    `error` says what holds it up. `dead_letters` failed; `rate` is records/s. `version` counts its changes; `spec` is what
    it was made of."""

    name: str
    state: PipelineState
    version: int
    topics: tuple[str, ...] | None
    output: str | None
    steps: tuple[StepStatus, ...]
    spec: Mapping[str, Any]
    created: datetime
    changed: datetime
    error: str | None = None
    records: int = 0
    written: int = 0
    passages: int = 0
    dead_letters: int = 0
    behind: int = 0
    rate: float = 0.0
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class StepTrace:
    """What one step did for one record: the text and fields it was given, what it made of them, whether that was known
    already, how long it took and what it cost. `skipped` says why it did nothing."""

    step: str
    kind: str
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    confidence: float | None = None
    cached: bool = False
    ms: float = 0.0
    usage: Usage = Usage()
    skipped: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ran(Shown):
    """A record run through a pipeline: its text as the pipeline leaves it, the fields it got, the topics it goes to. Nothing
    was written."""

    text: str
    fields: Mapping[str, Any]
    topics: tuple[str, ...]
    steps: tuple[StepTrace, ...]
    address: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a pipeline that is run on records: a Python step has yielded a `part` of its output, a `step` was done, or a
    record is `done`. `n` is the record's place."""

    event: Literal["part", "step", "done"]
    n: int
    step: StepTrace | None = None
    ran: Ran | None = None


@dataclass(frozen=True, slots=True)
class Backtest(Shown):
    """What a pipeline would make of the last records: of `records` with `passages`, in `seconds` and `llm_calls` calls;
    `failed` were not decided, `routed` counts records by topic. `fields` has the distribution of values of each field by
    records; `disagree` is the share of records whose fields differ from those of the version that runs, None where none
    does; `forecast` what all records of its topics would take; `stopped` says that a limit ended it early."""

    pipeline: str
    records: int
    passages: int
    samples: tuple[Ran, ...]
    fields: Mapping[str, Mapping[str, int]]
    routed: Mapping[str, int]
    disagree: float | None
    changes: tuple[Mapping[str, Any], ...]
    failed: int
    llm_calls: int
    usage: Usage
    seconds: float
    forecast: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None
