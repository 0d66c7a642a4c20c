"""Topics: how much, how fast, how far behind."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.records import Topic
from headwater_tui.lines import clock, flat, number, sized
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_SPARKS = "▁▂▃▄▅▆▇█"
_LOOKS = 24  # of the rate that the line shows
_COLUMNS = ("topic", "records", "rate", "minute", "passages", "per passage", "size", "behind", "failed", "health", "last")


def health_of(topic: Topic) -> tuple[str, str]:
    """How a topic stands, in a word, and that word's colour."""
    mark = topic.watermark
    if topic.dead_letters:
        return "failures", "red"  # `headwater dlq list` shows them
    if mark.stored > max(mark.keyword, 0):
        return "indexing", "yellow"
    if mark.stored > mark.semantic:
        return "embedding", "yellow"
    return ("well", "green") if topic.records else ("empty", "dim")


def spark(values: deque[float]) -> str:
    """The course of a rate, its highest a full bar."""
    most = max(values, default=0.0)
    return "".join(_SPARKS[min(int(v / most * 7.999), 7)] if most else _SPARKS[0] for v in values)


class Topics(View):
    NAME = "Topics"
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "patterns", "Patterns", id="topics.patterns"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rates: dict[str, deque[float]] = {}

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS)
        yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self._state()

    def looked(self) -> None:
        """The topics as they are, each rate a step on."""
        topics = self.hw.seen.topics if self.hw.seen else ()
        self._rates = {t.name: self._rates.get(t.name, deque(maxlen=_LOOKS)) for t in topics}
        for topic in topics:
            self._rates[topic.name].append(topic.rate)
        self.query_one(Table).fill([(topic.name, self._cells(topic)) for topic in topics])
        self._state()

    def away(self) -> None:
        self._state()

    def _state(self) -> None:
        seen = self.hw.seen
        if seen is None:
            said = self.hw.trouble or "asking the daemon ..."
        elif not seen.topics:
            said = "no topics yet; `headwater up FILE` follows a log, `headwater demo --keep` streams an incident"
        else:
            said = "; ".join(seen.problems) or "Enter shows the records of a topic, p what it says"
        self.query_one("#state", Static).update(flat(said))

    def _cells(self, topic: Topic) -> list[Text]:
        mark = topic.watermark
        semantic = mark.stored - mark.semantic
        behind = max(mark.stored - mark.keyword, semantic)
        right = [number(topic.records), number(topic.rate)]
        rest = [number(topic.passages), f"{topic.collapse:g}", sized(topic.bytes)]
        cells = [
            Text(topic.name, "bold"),
            *(Text(t, justify="right") for t in right),
            Text(spark(self._rates[topic.name]), "cyan"),
        ]
        cells += [Text(t, justify="right") for t in rest]
        cells.append(Text(number(behind), "yellow" if behind else "dim", justify="right"))
        cells.append(Text(number(topic.dead_letters), "red" if topic.dead_letters else "dim", justify="right"))
        health, style = health_of(topic)
        return [*cells, Text(health, style), Text(clock(topic.last) if topic.last else "")]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_live([topic])

    def action_patterns(self) -> None:
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_patterns(topic)
