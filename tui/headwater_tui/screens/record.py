"""One record: its text, what is known of it, what came before and after, and what is like it."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar, Literal, get_args

import orjson
from rich.table import Table as Grid
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
from headwater_tui.widgets.text_pane import TextPane

_AROUND = 50  # records before and after
_ALIKE = 100  # others with a passage of it
_SIMILAR = 20
_NAME = 16  # columns of the name of an attribute
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+')
Beside = Literal["neighbours", "occurrences", "similar"]


def pretty(value: str) -> str:
    """A record's text as it is read: JSON indented, every number and name in it as it is stored; what hides made visible."""
    if value.lstrip()[:1] in ("{", "["):
        try:
            orjson.loads(value)
        except orjson.JSONDecodeError:
            pass
        else:
            value = _indented(value)
    return visible(value)


def _indented(json: str) -> str:
    """JSON on a line for each member; only the blanks between its tokens are others."""
    out: list[str] = []
    depth, before = 0, ""
    for token in _TOKENS.findall(json):
        opened, closes = before in ("{", "["), token in ("}", "]")
        depth -= closes
        if before == "," or opened != closes:
            out.append(f"\n{'  ' * depth}")
        out.append(": " if token == ":" else token)
        depth += token in ("{", "[")
        before = token
    return "".join(out)


class Record(RecordsView):
    NAME = "Record"
    AUTO_FOCUS = "#neighbours"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "Back", id="record.back"),
        Binding("tab", "other", "Next list", id="record.other"),
        Binding("v", "live", "In the stream", id="record.live"),
        Binding("J", "text(1)", "Text down", show=False, id="record.text-down"),
        Binding("K", "text(-1)", "Text up", show=False, id="record.text-up"),
    ]

    def __init__(self, address: str, *, beside: Beside = "neighbours") -> None:
        super().__init__()
        self.address, self._beside = address, beside
        self.view: RecordView | None = None

    def body(self) -> ComposeResult:
        with Horizontal(id="whole"):
            yield TextPane(id="value")
            with VerticalScroll(id="facts"):
                yield Static(id="about")
        with TabbedContent(id="beside", initial=f"tab-{self._beside}"):
            with TabPane("Before and after", id="tab-neighbours"):
                yield RecordList(id="neighbours")
            with TabPane("Same passage", id="tab-occurrences"):
                yield RecordList(id="occurrences")
            with TabPane("Similar in meaning", id="tab-similar"):
                yield RecordList(id="similar", topics=True, score=True)
        yield Static(id="state", markup=False)

    @property
    def listed(self) -> RecordList:
        """The list of the tab in sight."""
        return self.query_one(f"#{self.query_one(TabbedContent).active.removeprefix('tab-')}", RecordList)

    def on_mount(self) -> None:
        self.read(self.address)
        self.listed.focus()

    @work(exclusive=True)
    async def read(self, address: str) -> None:
        """Read the record; what is like it may be missing where its topic has no index."""
        if (view := await self.calling(self.verbs.read(address, context=_AROUND, alike=_ALIKE))) is None:
            return
        record = view.record
        self.post_message(Read(view, None, await asyncio.to_thread(pretty, record.value)))
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
            self.query_one(TextPane).show(message.text)
            self._facts(record)
            around = [*view.before, record, *view.after]
            neighbours = self.query_one("#neighbours", RecordList)
            neighbours.marks = frozenset({record.address, *self.hw.kept.marks})
            neighbours.show(FixedRows(around), cursor=len(view.before))
            self.query_one("#occurrences", RecordList).show(FixedRows(view.alike))
        else:
            self.query_one("#similar", RecordList).show(FixedRows([Found(hit) for hit in message.similar]))
        self._state()

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        event.stop()
        self._state()

    def _state(self) -> None:
        """What the tab in sight has, in words."""
        listed, count = self.listed, self.listed.rows.count
        if listed.id == "neighbours":
            said = f"{max(count - 1, 0)} records around this one in {self.address.rpartition('/')[0]}"
        elif listed.id == "occurrences":
            most = ", the newest of them" if count == _ALIKE else ""
            said = f"{count} other records say the same{most}" if count else "no other record says the same"
        else:
            said = f"{count} passages near in meaning" if count else "nothing near in meaning, or not read yet"
        self.query_one("#state", Static).update(f"{said}  ·  Tab: the next list  ·  J K: the text  ·  v: in the stream")

    def _facts(self, record: Stored) -> None:
        grid = Grid.grid(padding=(0, 2, 0, 0))
        grid.add_column(style="dim", max_width=_NAME, overflow="fold")
        grid.add_column(overflow="fold")
        for name, value in about(record):
            grid.add_row(Text(name), Text(value))
        self.query_one("#about", Static).update(grid)

    def on_pointed(self, message: Pointed) -> None:
        message.stop()

    def action_close(self) -> None:
        self.app.pop_screen()

    def action_other(self) -> None:
        tabs = self.query_one(TabbedContent)
        order = [f"tab-{name}" for name in get_args(Beside)]
        tabs.active = order[(order.index(tabs.active) + 1) % len(order)]
        self.listed.focus()

    def action_text(self, by: int) -> None:
        """Half a page of the text on or back, whichever list has the keys."""
        pane = self.query_one(TextPane)
        pane.scroll_relative(y=by * max(pane.size.height // 2, 1), animate=False)

    def action_live(self) -> None:
        """Show the record where it stands in its topic."""
        if self.view is not None:
            record = self.view.record
            self.app.pop_screen()
            self.hw.open_live([record.topic], partition=record.partition, offset=record.offset)
