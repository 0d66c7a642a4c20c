"""What surfaces are told of an investigation: its steps as they are taken, and the report at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headwater.records import Answer
from headwater.records.models import Usage

Ended = Literal["done", "steps", "tokens", "cost", "time", "model"]


@dataclass(frozen=True, slots=True)
class Step:
    """One look at the records, `n` from 1: which tool with which arguments, why (in the words of the model, empty without
    one), and what came back: a line about it, how many records it names, how many tokens it took. `error` says why it
    failed."""

    n: int
    tool: str
    arguments: Mapping[str, Any]
    why: str
    found: str
    records: int
    tokens: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Investigation:
    """A question looked into. `report` is an answer whose every sentence cites records, or is listed as unsupported. `ended`
    says why no more was looked at: it was `done`, a bound on steps, tokens, cost or time was reached, or the `model` failed.
    `usage` is what the model took."""

    id: str
    question: str
    report: Answer
    steps: tuple[Step, ...]
    ended: Ended
    usage: Usage

    def __str__(self) -> str:
        return str(self.report)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@dataclass(frozen=True, slots=True)
class InvestigateEvent:
    """A step as it was taken, or the whole at the end."""

    event: Literal["step", "done"]
    data: Step | Investigation
