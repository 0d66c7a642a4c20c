"""Topics: how much, how fast, how far behind."""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.records import Topic
from headwater_tui.lines import clock, flat, number, sized
from headwater_tui.screens.asking_for import Prompt
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_SPARKS = "▁▂▃▄▅▆▇█"
_LOOKS = 24  # of the rate that the line shows
# How a topic stands comes first: at 80 columns the rest is one key to the right.
_COLUMNS = ("topic", "health", "records", "rate", "minute", "behind", "failed", "last", "passages", "per passage", "size")


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
        Binding("slash", "filter", "Filter", id="topics.filter"),
        Binding("escape", "clear", "All topics", show=False, id="topics.clear"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._rates: dict[str, deque[float]] = {}
        self.part = ""  # of the names of those that are shown

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
        self._list()

    def _list(self) -> None:
        """The topics whose names have what is asked for."""
        topics = self.hw.seen.topics if self.hw.seen else ()
        shown = [topic for topic in topics if self.part.casefold() in topic.name.casefold()]
        self.query_one(Table).fill([(topic.name, self._cells(topic)) for topic in shown])
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
            if self.part:
                said = (
                    f"{self.query_one(Table).row_count} of {len(seen.topics)} topics, with {self.part!r} (Esc: all)  ·  {said}"
                )
        self.query_one("#state", Static).update(flat(said))

    def _cells(self, topic: Topic) -> list[Text]:
        mark = topic.watermark
        semantic = mark.stored - mark.semantic
        behind = max(mark.stored - mark.keyword, semantic)
        numbers = (number(topic.passages), f"{topic.collapse:g}", sized(topic.bytes))
        return [
            Text(topic.name, "bold"),
            Text(*health_of(topic)),
            Text(number(topic.records), justify="right"),
            Text(number(topic.rate), justify="right"),
            Text(spark(self._rates[topic.name]), "cyan"),
            Text(number(behind), "yellow" if behind else "dim", justify="right"),
            Text(number(topic.dead_letters), "red" if topic.dead_letters else "dim", justify="right"),
            Text(clock(topic.last) if topic.last else ""),
            *(Text(value, justify="right") for value in numbers),
        ]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_live([topic])

    @work(group="dialog")
    async def action_filter(self) -> None:
        """Only topics whose names have something in them."""
        said = await self.app.push_screen_wait(Prompt("Topics with (empty: all)", self.part, example="a part of their names"))
        if said is not None:
            self.part = said
            self._list()

    def action_clear(self) -> None:
        self.part = ""
        self._list()

    def action_patterns(self) -> None:
        if (topic := self.query_one(Table).here) is not None:
            self.hw.open_patterns(topic)
