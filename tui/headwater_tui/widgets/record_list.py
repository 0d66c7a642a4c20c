"""A list of records of any length: only the rows in sight are asked for and drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from headwater_tui.lines import flat, line
from headwater_tui.messages import Opened, Pointed
from headwater_tui.rows import FixedRows, Row, Rows, address_of, level_of, text_of

_WRAPPED = 4  # lines of a row when it is wrapped
_TROUBLE = {"error", "fatal"}
_LOOK_AHEAD = 20_000  # rows in which the next error is looked for


class RecordList(ScrollView, can_focus=True):
    """Rows under a cursor. `following` keeps the newest in sight; moving up or scrolling stops it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False, id="list.down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="list.up"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="list.page-down"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="list.page-up"),
        Binding("g,home", "first", "First", show=False, id="list.first"),
        Binding("G,end", "last", "Last", show=False, id="list.last"),
        Binding("h,left", "slide(-8)", "Left", show=False, id="list.left"),
        Binding("l,right", "slide(8)", "Right", show=False, id="list.right"),
        Binding("enter", "open", "Open", id="list.open"),
        Binding("w", "wrap", "Wrap", id="list.wrap"),
        Binding("e", "trouble(1)", "Next error", id="list.next-error"),
        Binding("E", "trouble(-1)", "Previous error", show=False, id="list.previous-error"),
        Binding("n", "match(1)", "Next match", show=False, id="list.next-match"),
        Binding("N", "match(-1)", "Previous match", show=False, id="list.previous-match"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"record-list--cursor"}
    DEFAULT_CSS = """
    RecordList { height: 1fr; overflow-x: hidden; }
    RecordList > .record-list--cursor { background: $primary 30%; }
    """

    cursor: reactive[int] = reactive(0)
    wrapped: reactive[bool] = reactive(False)
    following: reactive[bool] = reactive(False)

    @dataclass
    class Wanted(Message):
        """Rows `first` to `last` are in sight."""

        first: int
        last: int

    def __init__(self, *, id: str | None = None, topics: bool = False, score: bool = False) -> None:
        super().__init__(id=id)
        self.rows: Rows = FixedRows()
        self.words: Collection[str] = ()
        self.marks: Collection[str] = ()
        self.topics, self.score = topics, score
        self._left = 0
        self._asked = (-1, -1)

    # ------------------------------------------------------------------ what is shown

    def show(self, rows: Rows, *, words: Collection[str] = (), cursor: int | None = None) -> None:
        """Show other rows."""
        self.rows, self.words = rows, words
        self._asked = (-1, -1)
        self._left = 0
        self.grown()
        self.cursor = min(max(cursor or 0, 0), max(rows.count - 1, 0))
        self._reveal()
        self._tell()

    def grown(self, gone: int = 0) -> None:
        """The rows changed; `gone` of the first went."""
        height = self._row_height
        self.virtual_size = Size(0, self.rows.count * height)
        if gone:
            self.set_reactive(RecordList.cursor, max(self.cursor - gone, 0))
            self.scroll_to(y=max(self.scroll_offset.y - gone * height, 0), animate=False, immediate=True, force=True)
        if self.following and self.rows.count:
            self.cursor = self.rows.count - 1
            self._reveal()
        self._asked = (-1, -1)
        self.refresh()

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.rows.row(self.cursor) if 0 <= self.cursor < self.rows.count else None

    @property
    def _row_height(self) -> int:
        return _WRAPPED if self.wrapped else 1

    def render_line(self, y: int) -> Strip:
        index, within = divmod(self.scroll_offset.y + y, self._row_height)
        width = self.size.width
        if y == 0:
            self._want(index)
        if index >= self.rows.count:
            return Strip.blank(width, self.rich_style)
        row = self.rows.row(index)
        style = self.rich_style
        if index == self.cursor:
            style += self.get_component_rich_style("record-list--cursor", partial=True)
        strip = self._strip(row)
        start = within * width + (0 if self.wrapped else self._left)
        return strip.crop_extend(start, start + width, style).apply_style(style)

    def _strip(self, row: Row) -> Strip:
        address = address_of(row)
        text = line(row, words=self.words, topics=self.topics, marked=address in self.marks, score=self.score)
        return Strip([s for s in text.render(self.app.console) if isinstance(s, Segment)]).apply_style(Style())

    def _want(self, first: int) -> None:
        wanted = (first, first + max(self.size.height // self._row_height, 1))
        if wanted != self._asked:
            self._asked = wanted
            self.post_message(self.Wanted(*wanted))

    # ------------------------------------------------------------------ moving

    def watch_cursor(self, before: int, after: int) -> None:
        height = self._row_height
        for index in (before, after):
            self.refresh(Region(0, index * height - self.scroll_offset.y, self.size.width, height))
        self._tell()

    def watch_wrapped(self) -> None:
        self._left = 0
        self.grown()
        self._reveal()

    def on_resize(self) -> None:
        self.grown()

    def _tell(self) -> None:
        if (row := self.row) is not None:
            self.post_message(Pointed(row, self.cursor))

    def _reveal(self) -> None:
        """Scroll so that the cursor is in sight."""
        height, tall = self._row_height, max(self.size.height, 1)
        top = self.cursor * height
        if top < self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, immediate=True, force=True)
        elif top + height > self.scroll_offset.y + tall:
            self.scroll_to(y=top + height - tall, animate=False, immediate=True, force=True)

    def go(self, index: int) -> None:
        """Put the cursor on a row."""
        self.following = False
        self.cursor = min(max(index, 0), max(self.rows.count - 1, 0))
        self._reveal()

    def action_move(self, by: int) -> None:
        self.go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.go(self.cursor + by * max(self.size.height // self._row_height - 1, 1))

    def action_first(self) -> None:
        self.go(0)

    def action_last(self) -> None:
        self.go(self.rows.count - 1)

    def action_slide(self, by: int) -> None:
        self._left = max(self._left + by, 0)
        self.refresh()

    def action_wrap(self) -> None:
        self.wrapped = not self.wrapped

    def action_open(self) -> None:
        row = self.row
        if row is not None and (address := address_of(row)) is not None:
            self.post_message(Opened(address))

    def action_trouble(self, step: int) -> None:
        self._next(step, lambda row: level_of(row) in _TROUBLE, "error")

    def action_match(self, step: int) -> None:
        words = [w.casefold() for w in self.words]
        self._next(step, lambda row: any(w in flat(text_of(row)).casefold() for w in words), "match")

    def _next(self, step: int, wanted: Callable[[Row], bool], what: str) -> None:
        """The next row that is wanted, among those that are held."""
        end = self.rows.count if step > 0 else -1
        for index in range(self.cursor + step, end, step)[:_LOOK_AHEAD]:
            if wanted(self.rows.row(index)):
                self.go(index)
                return
        self.notify(f"no {what} {'below' if step > 0 else 'above'} among the records that were read", timeout=2)

    # ------------------------------------------------------------------ mouse

    def on_click(self, event: events.Click) -> None:
        index = (self.scroll_offset.y + event.y) // self._row_height
        if index < self.rows.count:
            again = index == self.cursor
            self.go(index)
            if again or event.chain > 1:
                self.action_open()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.following = False
