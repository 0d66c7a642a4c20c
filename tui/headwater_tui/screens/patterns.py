"""Patterns: what a topic says, each thing once, with how often and since when."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.errors import HeadwaterError
from headwater.records import Pattern
from headwater_tui.lines import LEVEL_STYLES, bar, clock, flat, number
from headwater_tui.messages import Failed, Listed, Opened
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_LIMIT = 500
_CHARS = 300
_COLUMNS = ("share", "count", "level", "first", "last", "pattern")


class Patterns(View):
    NAME = "Patterns"
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new_since", "New since", id="patterns.new-since"),
        Binding("t", "window", "Since", id="patterns.window"),
        Binding("slash", "words", "With words", id="patterns.words"),
        Binding("o", "topic", "Topic", id="patterns.topic"),
        Binding("f", "search", "Its records", id="patterns.search"),
        Binding("y", "copy", "Copy", show=False, id="patterns.copy"),
        Binding("r", "refresh", "Refresh", show=False, id="patterns.refresh"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.topic = ""
        self.q, self.since, self.new_since = "", "", ""
        self._patterns: tuple[Pattern, ...] = ()

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS)
        yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        if not self.topic and self.hw.seen and self.hw.seen.topics:
            self.topic = max(self.hw.seen.topics, key=lambda t: t.collapse).name
        self.look()

    def open(self, topic: str) -> None:
        """Show the patterns of another topic."""
        self.topic, self.q, self.since, self.new_since = topic, "", "", ""
        if self.is_mounted:
            self.look()

    @work(group="patterns", exclusive=True)
    async def look(self) -> None:
        if not self.topic:
            return
        try:
            reply = await self.verbs.patterns(
                self.topic, q=self.q, since=self.since or None, new_since=self.new_since or None, limit=_LIMIT
            )
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
        else:
            self.post_message(Listed(reply))

    def on_listed(self, message: Listed) -> None:
        self._patterns, coverage = message.reply.patterns, message.reply.coverage
        most = max((p.count for p in self._patterns), default=1)
        self.query_one(Table).fill([(str(p.passage.id), _cells(p, most)) for p in self._patterns])
        said = [self.topic, f"{len(self._patterns):,} patterns in {coverage.searched:,} records"]
        said += [f"new since {self.new_since}"] if self.new_since else []
        said += [f"since {self.since}"] if self.since else []
        said += [f"with {flat(self.q)}"] if self.q else []
        said += [f"{coverage.omitted:,} rarer ones not shown"] if coverage.omitted else []
        self.query_one("#state", Static).update("  ·  ".join([*said, *coverage.notes]))

    @property
    def here(self) -> Pattern | None:
        """The pattern under the cursor."""
        key = self.query_one(Table).here
        return next((p for p in self._patterns if str(p.passage.id) == key), None)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if self.here is not None:
            self.post_message(Opened(self.here.example))

    def action_search(self) -> None:
        """Its records: those like its example."""
        if self.here is not None:
            self.hw.open_record(self.here.example, similar=True)

    def action_copy(self) -> None:
        if self.here is not None:
            self.hw.copy(self.here.passage.text)

    def action_refresh(self) -> None:
        self.look()

    @work(group="dialog")
    async def action_new_since(self) -> None:
        """Only patterns first seen since a time."""
        said = await self.app.push_screen_wait(Prompt("New since (empty: all)", self.new_since, example="14:05, 2h, yesterday"))
        if said is not None:
            self.new_since = said
            self.look()

    @work(group="dialog")
    async def action_window(self) -> None:
        """Count since a time."""
        said = await self.app.push_screen_wait(Prompt("Count since (empty: ever)", self.since, example="14:05, 2h, yesterday"))
        if said is not None:
            self.since = said
            self.look()

    @work(group="dialog")
    async def action_words(self) -> None:
        """Only patterns of records with these words."""
        said = await self.app.push_screen_wait(Prompt("Records with (empty: all)", self.q, example="timeout level:error"))
        if said is not None:
            self.q = said
            self.look()

    @work(group="dialog")
    async def action_topic(self) -> None:
        """Choose the topic."""
        names = [t.name for t in self.hw.seen.topics] if self.hw.seen else []
        if chosen := await self.app.push_screen_wait(Choose("Topic", names)):
            self.open(chosen[0])


def _cells(pattern: Pattern, most: int) -> list[Text]:
    passage, level = pattern.passage, pattern.level or ""
    return [
        Text(bar(pattern.count / most, 8), "cyan"),
        Text(number(pattern.count), justify="right"),
        Text(flat(level), LEVEL_STYLES.get(level, "")),
        Text(clock(passage.first_seen), "bold green" if pattern.new else ""),
        Text(clock(passage.last_seen)),
        Text(flat(passage.text)[:_CHARS], no_wrap=True),
    ]
