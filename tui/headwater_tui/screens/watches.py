"""Watches: the standing queries, what they wait for, and their hits as they come."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Static

from headwater.errors import HeadwaterError, UnreachableError
from headwater.records.watches import Watch
from headwater_tui.lines import clock, flat, number
from headwater_tui.messages import Failed, Fired, Watched
from headwater_tui.rows import StreamRows
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table

_COLUMNS = ("watch", "waits for", "topics", "hits", "last hit", "state")
_WAIT_S = 25.0
_AGAIN_S = 1.0


class Watches(RecordsView):
    NAME = "Watches"
    AUTO_FOCUS = "Table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "add", "New watch", id="watches.add"),
        Binding("d", "remove", "Remove", id="watches.remove"),
        Binding("tab", "other", "Hits / watches", show=False, id="watches.other"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._watches: list[Watch] = []
        self._open: int | None = None

    def body(self) -> ComposeResult:
        yield Table(_COLUMNS, id="table")
        yield Static("Hits", classes="title", id="of", markup=False)
        yield RecordList(id="hits", topics=True)
        yield Static(id="state", markup=False)

    def looked(self) -> None:
        self.look()

    @work(group="watches", exclusive=True)
    async def look(self) -> None:
        if (watches := await self.calling(self.verbs.watches())) is not None:
            self.post_message(Watched(watches))

    def on_watched(self, message: Watched) -> None:
        self._watches = message.watches
        self.query_one(Table).fill([(str(w.id), _cells(w)) for w in self._watches])
        fired = sum(w.fired for w in self._watches)
        said = f"{len(self._watches)} watches, {fired:,} hits" if self._watches else "no watches yet; n makes one"
        self.query_one("#state", Static).update(said)
        self._follow()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._follow()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.listed.focus()

    @property
    def here(self) -> Watch | None:
        """The watch under the cursor."""
        key = self.query_one(Table).here
        return next((w for w in self._watches if str(w.id) == key), None)

    def _follow(self) -> None:
        """Show the hits of the watch under the cursor."""
        watch = self.here
        if watch is None or watch.id == self._open:
            if watch is None:
                self._open = None
                self.listed.show(StreamRows())
            return
        self._open = watch.id
        self.query_one("#of", Static).update(f"Hits of {watch.name}")
        self.listed.show(StreamRows())
        self.wait(watch.id)

    @work(group="wait", exclusive=True)
    async def wait(self, id: int) -> None:
        """The hits that are kept, and those that come."""
        cursor: str | None = None
        while True:
            try:
                reply = await self.verbs.wait(id, cursor=cursor, timeout=_WAIT_S)
            except UnreachableError as error:  # a daemon that comes back is waited for again
                self.post_message(Failed(str(error)))
                await asyncio.sleep(_AGAIN_S)
                await self.hw.answering()
                continue
            except HeadwaterError as error:
                self.post_message(Failed(str(error)))
                return
            cursor = reply.cursor
            if reply.hits:
                self.post_message(Fired(reply))
            elif not reply.timed_out:
                return

    def on_fired(self, message: Fired) -> None:
        watch = self.here
        rows = self.listed.rows
        if watch is None or message.reply.watch != watch.name or not isinstance(rows, StreamRows):
            return
        new = [hit.record for hit in message.reply.hits if hit.record is not None]
        at_end = self.listed.cursor >= rows.count - 1
        self.listed.grown(rows.add(new))
        if at_end:
            self.listed.go(rows.count - 1)

    def action_other(self) -> None:
        (self.query_one(Table) if self.listed.has_focus else self.listed).focus()

    @work(group="dialog")
    async def action_add(self) -> None:
        """Watch for something from now on."""
        q = await self.app.push_screen_wait(
            Prompt(
                "Watch for (words and filters; hits come by words, or by meaning)", example='"connection refused" level:error'
            )
        )
        if not q:
            return
        if (watch := await self.calling(self.verbs.add_watch(q))) is None:
            return
        self.hw.remember(q)
        self.notify(f"{watch.name} watches from now on", markup=False)
        self.look()

    @work(group="dialog")
    async def action_remove(self) -> None:
        """Forget the watch under the cursor, once that is confirmed."""
        watch = self.here
        if watch is None or await self.app.push_screen_wait(Choose(f"Forget {watch.name} and its hits?", ["no", "yes"])) != [
            "yes"
        ]:
            return
        await self.calling(self.verbs.remove_watch(watch.id))
        self.look()


def _cells(watch: Watch) -> list[Text]:
    waits = watch.q or (f"like {watch.like}" if watch.like else "everything")
    if watch.more_than is not None:
        waits += f", more than {watch.more_than} within {watch.within_s:g} s"
    return [
        Text(watch.name, "bold"),
        Text(flat(waits)[:200]),
        Text(", ".join(watch.topics or ("all",))),
        Text(number(watch.fired), justify="right"),
        Text(clock(watch.last_fired) if watch.last_fired else ""),
        Text(watch.state, "" if watch.state == "watching" else "yellow"),
    ]
