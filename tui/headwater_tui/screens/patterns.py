"""Patterns: what a topic says, each thing once, with how often and since when."""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.records import Pattern
from headwater_tui import export
from headwater_tui.lines import LEVEL_STYLES, bar, clock, flat, number, plural
from headwater_tui.messages import Drifted, Listed, Opened
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.view import View
from headwater_tui.widgets.table import Table

_LIMIT = 500
_CHARS = 300
_COLUMNS = ("share", "count", "change", "level", "first", "last", "pattern")
_MOVED = 50  # patterns that rose, and that fell, of a drift
Mark = Literal["new", "gone", "changed", "drift"]
_MARKS: dict[Mark, str] = {
    "new": "Patterns first seen since (empty: all patterns)",
    "gone": "Patterns that came regularly and do not since (empty: all patterns)",
    "changed": "Patterns that come more or less often since (empty: all patterns)",
    "drift": "Whether it says other things since than before (empty: all patterns)",
}


class Patterns(View):
    NAME = "Patterns"
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "mark('new')", "New since", id="patterns.new-since"),
        Binding("d", "mark('gone')", "Gone since", id="patterns.gone-since"),
        Binding("c", "mark('changed')", "Changed since", id="patterns.changed-since"),
        Binding("D", "mark('drift')", "Drift since", show=False, id="patterns.drift-since"),
        Binding("t", "window", "Since", id="patterns.window"),
        Binding("slash", "words", "With words", id="patterns.words"),
        Binding("o", "topic", "Topic", id="patterns.topic"),
        Binding("f", "records", "Its records", id="patterns.records"),
        Binding("y", "copy", "Copy", show=False, id="patterns.copy"),
        Binding("x", "export", "Export", show=False, id="patterns.export"),
        Binding("r", "refresh", "Refresh", show=False, id="patterns.refresh"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.topic = ""
        self.q, self.since = "", ""
        self.mark: Mark = "new"
        self.mark_since = ""
        self._patterns: tuple[Pattern, ...] = ()

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS)
        yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self.looked()
        self.look()

    def looked(self) -> None:
        """Begin with the topic that patterns say most about."""
        if self.topic or self.hw.seen is None:
            return
        if self.hw.seen.topics:
            self.open(max(self.hw.seen.topics, key=lambda t: t.collapse).name)
        else:
            self.query_one("#state", Static).update("no topics yet; `headwater up FILE` follows a log")

    def open(self, topic: str) -> None:
        """Show the patterns of another topic."""
        self.topic, self.q, self.since, self.mark_since = topic, "", "", ""
        if self.is_mounted:
            self.look()

    @work(group="patterns", exclusive=True)
    async def look(self) -> None:
        if not self.topic:
            return
        if self.mark == "drift" and self.mark_since:
            drift = self.verbs.drift(self.topic, since=self.mark_since, q=self.q, limit=_MOVED)
            if (found := await self.calling(drift)) is not None:
                self.post_message(Drifted(found))
            return
        new, gone, changed = ((self.mark_since or None) if self.mark == mark else None for mark in ("new", "gone", "changed"))
        call = self.verbs.patterns(
            self.topic, q=self.q, since=self.since or None, new_since=new, gone_since=gone, changed_since=changed, limit=_LIMIT
        )
        if (reply := await self.calling(call)) is not None:
            self.post_message(Listed(reply))

    def on_drifted(self, message: Drifted) -> None:
        found = message.drift
        self._fill((*found.rose, *found.fell))
        counts = f"{found.records_before:,} records before and {found.records_after:,} since {flat(self.mark_since)}"
        said = [found.topic, found.what, counts] + ([f"with {flat(self.q)}"] if self.q else [])
        self.query_one("#state", Static).update("  ·  ".join(flat(part) for part in (*said, *found.coverage.notes)))

    def _fill(self, patterns: tuple[Pattern, ...]) -> None:
        self._patterns = patterns
        most = max((p.count for p in patterns), default=0) or 1
        self.query_one(Table).fill([(str(p.passage.id), _cells(p, most)) for p in patterns])

    def on_listed(self, message: Listed) -> None:
        coverage = message.reply.coverage
        self._fill(message.reply.patterns)
        said = [self.topic, f"{plural(len(self._patterns), 'pattern')} in {plural(coverage.searched, 'record')}"]
        said += [f"{self.mark} since {flat(self.mark_since)}"] if self.mark_since else []
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

    def action_records(self) -> None:
        """Its records, the newest first."""
        if self.here is not None:
            self.hw.open_record(self.here.example, beside="occurrences")

    def action_copy(self) -> None:
        if self.here is not None:
            self.hw.copy(self.here.passage.text)

    @work(group="dialog")
    async def action_export(self) -> None:
        """Write the patterns in sight to a file."""
        await self.exporting([export.of_pattern(p) for p in self._patterns], "patterns", f"{self.topic}-patterns.csv")

    def action_refresh(self) -> None:
        self.look()

    @work(group="dialog")
    async def action_mark(self, mark: Mark) -> None:
        """Only patterns that are new, gone or changed since a time."""
        since = self.mark_since if self.mark == mark else ""
        said = await self.app.push_screen_wait(Prompt(_MARKS[mark], since, example="14:05, 2h, yesterday"))
        if said is not None:
            self.mark, self.mark_since = mark, said
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


def change_of(pattern: Pattern) -> tuple[str, str]:
    """What became of a pattern since the mark, in a word, and that word's colour."""
    change = pattern.change
    if pattern.new:
        return "new", "bold green"
    if change is None:
        return "", ""
    if change.after == 0:
        return "gone", "bold red"
    return (f"×{change.times:.3g}", "bold yellow") if change.times >= 1 else (f"÷{1 / change.times:.3g}", "bold blue")


def _cells(pattern: Pattern, most: int) -> list[Text]:
    passage, level = pattern.passage, pattern.level or ""
    return [
        Text(bar(pattern.count / most, 8), "cyan"),
        Text(number(pattern.count), justify="right"),
        Text(*change_of(pattern)),
        Text(flat(level), LEVEL_STYLES.get(level, "")),
        Text(clock(passage.first_seen), "bold green" if pattern.new else ""),
        Text(clock(passage.last_seen)),
        Text(flat(passage.text)[:_CHARS], no_wrap=True),
    ]
