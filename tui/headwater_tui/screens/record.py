"""One record: its text, what is known of it, what came before and after, and what is like it."""

from __future__ import annotations

from typing import ClassVar

import orjson
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Static, TabbedContent, TabPane

from headwater.errors import HeadwaterError
from headwater.records import Record as Stored
from headwater.records import RecordView
from headwater.visible import visible
from headwater_tui.lines import about
from headwater_tui.messages import Failed, Pointed, Read
from headwater_tui.rows import FixedRows, Found
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.record_list import RecordList

_AROUND = 50  # records before and after
_SIMILAR = 20


def pretty(value: str) -> str:
    """A record's text as it is read: JSON indented, what hides made visible."""
    if value[:1] in "{[":
        try:
            value = orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
        except orjson.JSONDecodeError:
            pass
    return visible(value)


class Record(RecordsView):
    NAME = "Record"
    AUTO_FOCUS = "#neighbours"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="record.back"),
        Binding("tab", "other", "Neighbours / similar", show=False, id="record.other"),
        Binding("v", "live", "In the stream", id="record.live"),
    ]

    def __init__(self, address: str, *, similar: bool = False) -> None:
        super().__init__()
        self.address, self._similar_first = address, similar
        self.view: RecordView | None = None

    def body(self) -> ComposeResult:
        with Horizontal(id="whole"):
            with VerticalScroll(id="value"):
                yield Static(id="text")
            with VerticalScroll(id="facts"):
                yield Static(id="about")
        with TabbedContent(id="beside", initial="tab-similar" if self._similar_first else "tab-neighbours"):
            with TabPane("Before and after", id="tab-neighbours"):
                yield RecordList(id="neighbours")
            with TabPane("Similar", id="tab-similar"):
                yield RecordList(id="similar", topics=True, score=True)

    @property
    def listed(self) -> RecordList:
        """The list of the tab in sight."""
        tab = self.query_one(TabbedContent).active
        return self.query_one("#similar" if tab == "tab-similar" else "#neighbours", RecordList)

    def on_mount(self) -> None:
        self.read(self.address)
        if self._similar_first:
            self.query_one("#similar").focus()

    @work(exclusive=True)
    async def read(self, address: str) -> None:
        """Read the record; what is like it may be missing where its topic has no index."""
        try:
            view = await self.verbs.read(address, context=_AROUND)
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        self.post_message(Read(view, None))
        record = view.record
        try:
            similar = await self.verbs.similar(record.topic, partition=record.partition, offset=record.offset, top_k=_SIMILAR)
        except HeadwaterError as error:
            self.post_message(Failed(f"similar records: {error}"))
        else:
            self.post_message(Read(view, similar))

    def on_read(self, message: Read) -> None:
        view, record = message.view, message.view.record
        if message.similar is None:
            self.view, self.address = view, record.address
            self.query_one("#text", Static).update(Text(pretty(record.value)))
            self._facts(record)
            around = [*view.before, record, *view.after]
            neighbours = self.query_one("#neighbours", RecordList)
            neighbours.marks = frozenset({record.address, *self.hw.kept.marks})
            neighbours.show(FixedRows(around), cursor=len(view.before))
            return
        self.query_one("#similar", RecordList).show(FixedRows([Found(hit) for hit in message.similar]))

    def _facts(self, record: Stored) -> None:
        facts = about(record)
        wide = max((len(name) for name, _ in facts), default=0)
        text = Text()
        for name, value in facts:
            text.append(f"{name:<{wide}}  ", "dim").append(f"{value}\n")
        self.query_one("#about", Static).update(text)

    def on_pointed(self, message: Pointed) -> None:
        message.stop()

    def action_close(self) -> None:
        self.app.pop_screen()

    def action_other(self) -> None:
        tabs = self.query_one(TabbedContent)
        tabs.active = "tab-neighbours" if tabs.active == "tab-similar" else "tab-similar"
        self.listed.focus()

    def action_live(self) -> None:
        """Show the record where it stands in its topic."""
        if self.view is not None:
            record = self.view.record
            self.app.pop_screen()
            self.hw.open_live([record.topic], partition=record.partition, offset=record.offset)
