"""The verbs of enrichment: labels and values for texts, and pipelines that give them to records as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from headwater.enrich_records import By, ClassifyReply, ExtractReply, Label, Method

When = datetime | str | float | int
Labels = Sequence[str | Label | Mapping[str, Any]] | Mapping[str, Any] | None
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
