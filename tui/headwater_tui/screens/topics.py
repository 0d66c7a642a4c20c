"""Topics: how much, how fast, how far behind."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from headwater.records import Topic
from headwater_tui.lines import clock, number, sized
from headwater_tui.messages import Looked
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_SPARKS = "▁▂▃▄▅▆▇█"
_LOOKS = 24  # of the rate that the line shows
_COLUMNS = ("topic", "records", "rate", "minute", "passages", "per passage", "size", "behind", "failed", "last")


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
        self._rates: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LOOKS))

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self._show()

    def on_looked(self, message: Looked) -> None:
        super().on_looked(message)
        for topic in message.status.topics:
            self._rates[topic.name].append(topic.rate)
        self._show()

    def _show(self) -> None:
        topics = self.hw.seen.topics if self.hw.seen else ()
        self.query_one(Table).fill([(topic.name, self._cells(topic)) for topic in topics])

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
        return [*cells, Text(clock(topic.last) if topic.last else "")]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_live([topic])

    def action_patterns(self) -> None:
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_patterns(topic)
