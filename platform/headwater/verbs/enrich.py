"""The verbs of enrichment: labels and values for texts, and pipelines that give them to records as they are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from headwater.records.labels import Backtest, By, ClassifyReply, ExtractReply, Label, Method, Pipeline, Ran, RunEvent

When = datetime | str | float | int
Labels = Sequence[str | Label | Mapping[str, Any]] | Mapping[str, Any] | None
Specification = str | Mapping[str, Any]  # YAML or JSON text, or plain values
Shots = Mapping[str, Sequence[str]] | Sequence[Mapping[str, str]] | None


class EnrichVerbs(Protocol):
    """Labels, values and pipelines."""

    async def classify(
        self,
        texts: Sequence[str] | None = None,
        *,
        labels: Labels = None,
        examples: Shots = None,
        topics: Sequence[str] | None = None,
        q: str = "",
        since: When | None = None,
        until: When | None = None,
        method: Method = "auto",
        model: str | None = None,
        margin: float = 0.2,
        min_confidence: float = 0.0,
        about: str = "",
        limit: int = 20_000,
    ) -> ClassifyReply:
        """The label of each text, or, of `topics`, how many records have which: at most `limit` passages are judged once each,
        its records inherit. `labels` are names, `{name: description}` or objects with examples; `examples` are `{label: texts}`
        or `{text, label}` each. `auto`: by the examples, else by the labels' names; with a chat `model` that is asked where the
        best two labels are less than `margin` apart (cascade). Below `min_confidence` there is no label."""

    async def extract(
        self,
        texts: Sequence[str],
        *,
        schema: Any,
        by: By = "both",
        patterns: Mapping[str, str] | None = None,
        model: str | None = None,
        about: str = "",
    ) -> ExtractReply:
        """What each text holds of a JSON schema of an object (or a pydantic model): by regular expressions (`patterns`, else
        `pattern` or `format` of the schema's properties), by a chat model, or by both, patterns first."""

    async def create_pipeline(self, name: str, spec: Specification, *, start: bool = True, rerun: bool = False) -> Pipeline:
        """A pipeline that gives records labels, values and routes as they are stored, and those stored before (`since` in its
        specification). One of that name is changed: it goes on where it was, or with `rerun` from its beginning; only steps
        that changed decide anew. UsageError says what is wrong, in which line, and the nearest right name."""

    async def pipelines(self) -> list[Pipeline]:
        """Every pipeline, by name."""

    async def pipeline(self, name: str) -> Pipeline:
        """One: its state, how far it is, what each step has done and cost; NotFoundError."""

    async def start_pipeline(self, name: str) -> Pipeline:
        """Let it go on where it stopped."""

    async def stop_pipeline(self, name: str) -> Pipeline:
        """Stop it until it is started, also over restarts."""

    async def delete_pipeline(self, name: str) -> None:
        """Forget a pipeline. What it wrote stays."""

    async def backtest_pipeline(
        self,
        name: str,
        spec: Specification | None = None,
        *,
        records: int = 1000,
        samples: int = 5,
        max_tokens: int | None = None,
        max_cost: float | None = None,
    ) -> Backtest:
        """What it would make of the last records of its topics; with a `spec` what that would, and where it differs from the
        one at work. Nothing is written but decisions. Models take no more than `max_tokens` tokens, `max_cost` US dollars."""

    def run_pipeline(self, name: str, records: Sequence[Any], *, spec: Specification | None = None) -> AsyncIterator[RunEvent]:
        """Run records, given as for `append`, through a pipeline (or `spec`): an event behind each step, then each result.
        Nothing is written."""

    async def trace_pipeline(self, name: str, address: str) -> Ran:
        """What each step makes of a stored record: input, output, whether it was known, time and cost."""
