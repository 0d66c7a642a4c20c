"""What every view has: the bar of views above, the keys below, the verbs, and how a call that fails is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Static

from headwater.errors import HeadwaterError
from headwater.verbs import Verbs
from headwater_tui import export
from headwater_tui.export import Entry
from headwater_tui.lines import number
from headwater_tui.messages import Failed, Looked, Opened
from headwater_tui.rows import Row, address_of, text_of
from headwater_tui.screens.asking_for import Prompt
from headwater_tui.widgets.record_list import RecordList

if TYPE_CHECKING:
    from headwater_tui.app import HeadwaterApp

T = TypeVar("T")
_ROOMY = 110  # columns from which the bar has blanks


class Views(Static):
    """The views by number, the one in sight marked, and the daemon at a glance."""

    def show(self, names: list[str], here: str, told: str, trouble: bool) -> None:
        text = Text(no_wrap=True, overflow="ellipsis")
        roomy = self.size.width >= _ROOMY
        text.append(" ?", "bold").apply_meta({"@click": "app.keys"}, 1)  # below it may have no place
        for n, name in enumerate(names, 1):
            text.append(f" {n}{' ' if roomy else ''}", "dim")
            shown = name if roomy or not trouble or name == here else ""  # what is wrong needs the place
            text.append(shown, "bold reverse" if name == here else "").apply_meta(
                {"@click": f"app.view('{name}')"}, len(text) - max(len(shown), 1)
            )
        text.append("   ").append(told, "bold red" if trouble else "dim")
        self.update(text)


class View(Screen[None]):
    """A view. `NAME` is its name in the bar."""

    NAME: ClassVar[str] = ""
    AUTO_FOCUS: ClassVar[str | None] = None

    @property
    def hw(self) -> HeadwaterApp:
        return cast("HeadwaterApp", self.app)

    @property
    def verbs(self) -> Verbs:
        return self.hw.verbs

    def compose(self) -> ComposeResult:
        yield Views(id="views")
        yield from self.body()
        yield Footer(show_command_palette=False, compact=True)

    def body(self) -> ComposeResult:
        """What stands between the bars."""
        yield Static()

    def on_screen_resume(self) -> None:
        self.bar()
        if self.hw.seen is not None:
            self.looked()

    def on_looked(self, message: Looked) -> None:
        self.bar()
        if message.fresh:
            self.looked()
        else:
            self.away()

    def away(self) -> None:
        """The daemon does not answer (`hw.trouble`)."""

    def looked(self) -> None:
        """The daemon has just said how it is (`hw.seen`): what this view shows may have changed."""

    def bar(self) -> None:
        """The bar of views, as things are."""
        seen, trouble = self.hw.seen, bool(self.hw.trouble)
        told = self.hw.trouble
        if seen is not None and not told:
            told = f"{number(sum(t.records for t in seen.topics))} records, {number(sum(t.rate for t in seen.topics))}/s"
            trouble = bool(seen.problems)
            told += f", {len(seen.problems)} problems" if trouble else ""
        self.query_one(Views).show(self.hw.names, self.NAME, told, trouble)

    async def calling(self, call: Awaitable[T]) -> T | None:
        """What a verb returns; None, and the reason posted, where it fails."""
        try:
            return await call
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return None

    async def exporting(self, entries: Sequence[Entry], what: str, name: str, note: str = "") -> None:
        """Ask for a file and write to it."""
        said = await self.app.push_screen_wait(Prompt(f"Write these {what} to (.jsonl, .csv, .md):", name))
        if not said:
            return
        try:
            count = await asyncio.to_thread(lambda: export.write(entries, Path(said).expanduser()))
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        self.notify(f"{count:,} {what} in {said}{note}", markup=False)

    def on_failed(self, message: Failed) -> None:
        message.stop()
        self.hw.failed(message.text)

    def on_opened(self, message: Opened) -> None:
        message.stop()
        self.hw.open_record(message.address)


class RecordsView(View):
    """A view with a list of records under its cursor: what can be done with any record is here."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", id="record.copy"),
        Binding("Y", "copy_address", "Copy address", show=False, id="record.copy-address"),
        Binding("m", "mark", "Mark", id="record.mark"),
        Binding("a", "ask", "Ask about this", show=False, id="record.ask"),
        Binding("s", "similar", "Similar", id="record.similar"),
        Binding("x", "export", "Export", show=False, id="record.export"),
    ]

    @property
    def listed(self) -> RecordList:
        """The list that the keys are for."""
        return self.query_one(RecordList)

    @property
    def _here(self) -> Row | None:
        return self.listed.row

    def action_copy(self) -> None:
        if (row := self._here) is not None and text_of(row):
            self.hw.copy(text_of(row))

    def action_copy_address(self) -> None:
        if (row := self._here) is not None and (address := address_of(row)):
            self.hw.copy(address)

    def action_mark(self) -> None:
        row = self._here
        if row is None or (address := address_of(row)) is None:
            return
        try:
            marked = self.hw.kept.mark(address)
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        self.notify(f"{address} is {'marked' if marked else 'no longer marked'}", timeout=2, markup=False)
        self.listed.marks = frozenset(self.hw.kept.marks)
        self.listed.refresh()

    def action_ask(self) -> None:
        row = self._here
        if row is not None and (address := address_of(row)) is not None:
            self.hw.ask_about(address, text_of(row))

    def action_similar(self) -> None:
        row = self._here
        if row is not None and (address := address_of(row)) is not None:
            self.hw.open_record(address, beside="similar")

    @work(group="export")
    async def action_export(self) -> None:
        """Write the rows that were read to a file."""
        rows = [self.listed.rows.row(n) for n in range(min(self.listed.rows.count, self.hw.MOST_EXPORTED))]
        left = sum(address_of(row) is None for row in rows) + max(self.listed.rows.count - len(rows), 0)
        note = f"; {left:,} that were not read are not in it" if left else ""
        await self.exporting(export.of_rows(rows), "records", "records.jsonl", note)
