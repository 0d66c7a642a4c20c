"""The verbs of investigations: a question looked into step by step, with a cited report at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from headwater.records.investigations import InvestigateEvent, Investigation

When = datetime | str | float | int


class InvestigateVerbs(Protocol):
    """Investigations."""

    async def investigate(
        self,
        question: str,
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        model: str | None = None,
        steps: int | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        timeout_s: float | None = None,
    ) -> Investigation:
        """Look into a question ("why is checkout failing since 14:05?") and report, every sentence with citations that are
        checked as those of `ask`. The chat `model` chooses what to look at with the tools that agents have, the reading ones
        alone; without one (`extractive`) a fixed plan does: what is new since, what is odd, what changed just before, what
        is like it from before. Bounded in `steps`, and for a model in `max_tokens`, `max_cost` (US dollars) and `timeout_s`;
        by default as the settings say. A bound that is reached ends the looking, not the report."""

    def investigate_events(self, question: str, **scope: Any) -> AsyncIterator[InvestigateEvent]:
        """The same as it goes: each `step` when it is taken, `done` last. Closing the iterator ends it. `scope` is that of
        `investigate`."""
