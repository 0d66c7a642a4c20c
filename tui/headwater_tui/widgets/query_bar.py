"""A line for a query, with its history and completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.suggester import Suggester
from textual.widgets import Input

from headwater_tui.messages import Asked
from headwater_tui.vocabulary import Vocabulary


class Completion(Suggester):
    """The newest query that begins so; else the field, or the value of a field, that the last word begins."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.history: Sequence[str] = ()
        self.vocabulary = Vocabulary()

    async def get_suggestion(self, value: str) -> str | None:
        if not value.strip():
            return None
        for old in reversed(self.history):
            if old.startswith(value) and old != value:
                return old
        head, _, word = value.rpartition(" ")
        lead = f"{head} " if head else ""
        for candidate in self.vocabulary.words():
            if word and candidate.startswith(word) and candidate != word:
                return lead + candidate
        return None


class QueryBar(Input):
    """Enter asks; up and down go through earlier queries; right takes the completion."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "older", "Older query", show=False, id="query.older"),
        Binding("down", "newer", "Newer query", show=False, id="query.newer"),
    ]

    def __init__(self, *, placeholder: str = "", id: str | None = None) -> None:
        self.completion = Completion()
        super().__init__(placeholder=placeholder, id=id, suggester=self.completion)
        self._place: int | None = None

    def remember(self, history: Sequence[str], vocabulary: Vocabulary | None = None) -> None:
        """Earlier queries, oldest first, and what may be asked for."""
        self.completion.history, self.completion.vocabulary = history, vocabulary or Vocabulary()
        self._place = None

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._place = None
        self.post_message(Asked(self.value.strip()))

    def action_older(self) -> None:
        self._step(-1)

    def action_newer(self) -> None:
        self._step(1)

    def _step(self, by: int) -> None:
        history = self.completion.history
        at = len(history) if self._place is None else self._place
        at = min(max(at + by, 0), len(history))
        self._place = at
        self.value = history[at] if at < len(history) else ""
        self.cursor_position = len(self.value)
