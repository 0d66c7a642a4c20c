"""A list of records of any length: only the rows in sight are asked for and drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from headwater.records import Record
from headwater_tui.lines import flat, line, stripped, windowed, wrapped
from headwater_tui.messages import Opened, Pointed
from headwater_tui.rows import FixedRows, Row, Rows, address_of, level_of, text_of

_MOST_LINES = 20  # of one wrapped row, and never more than half of what is in sight
_TROUBLE = {"error", "fatal"}
_LOOK_AHEAD = 20_000  # rows in which the next error is looked for
_DRAWN = 500  # rows kept as they were drawn


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
    RecordList { height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; }
    RecordList > .record-list--cursor { background: $primary 30%; }
    """

    cursor: reactive[int] = reactive(0)
    wrapped: reactive[bool] = reactive(False)
    following: reactive[bool] = reactive(False)
    marks: reactive[frozenset[str]] = reactive(frozenset())

    @dataclass
    class Wanted(Message):
        """Rows `first` to `last` are in sight, or a page away."""

        first: int
        last: int

    def __init__(self, *, id: str | None = None, topics: bool = False, score: bool = False) -> None:
        super().__init__(id=id)
        self.rows: Rows = FixedRows()
        self.words: Collection[str] = ()
        self.topics, self.score = topics, score
        self._left = 0
        self._asked = (-1, -1)
        self._drawn: dict[str, list[Strip]] = {}
        self._sight: list[tuple[int, Strip]] | None = None

    # ------------------------------------------------------------------ what is shown

    def show(self, rows: Rows, *, words: Collection[str] = (), cursor: int | None = None) -> None:
        """Show other rows."""
        self.rows, self.words = rows, words
        self._left = 0
        self._drawn.clear()
        self.grown()
        self.cursor = min(max(cursor or 0, 0), max(rows.count - 1, 0))
        self._reveal()
        self._tell()

    def grown(self, gone: int = 0) -> None:
        """The rows changed; `gone` of the first went."""
        self._sight, self._asked = None, (-1, -1)
        tall = max(self.size.height, 1)
        self.virtual_size = Size(0, self._top_showing(self.rows.count - 1) + min(tall, self.rows.count))
        if gone:
            self.set_reactive(RecordList.cursor, max(self.cursor - gone, 0))
            self._scroll(self.scroll_offset.y - gone)
        if self.following and self.rows.count:
            self.cursor = self.rows.count - 1
            self._reveal()
        self.refresh()

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.rows.row(self.cursor) if 0 <= self.cursor < self.rows.count else None

    def render_line(self, y: int) -> Strip:
        if self._sight is None:
            self._sight = self._in_sight()
        if y >= len(self._sight):
            return Strip.blank(self._width, self.rich_style)
        index, strip = self._sight[y]
        style = self.rich_style
        if index == self.cursor:
            style += self.get_component_rich_style("record-list--cursor", partial=True)
        return strip.extend_cell_length(self._width, style).apply_style(style)

    def _in_sight(self) -> list[tuple[int, Strip]]:
        """The lines in sight, each with its row; what must be read for them is asked for."""
        first, tall = round(self.scroll_offset.y), max(self.size.height, 1)
        seen: list[tuple[int, Strip]] = []
        index = first
        while len(seen) < tall and index < self.rows.count:
            seen += [(index, strip) for strip in self._strips(index)]
            index += 1
        if (wanted := (max(first - tall, 0), index + tall)) != self._asked:  # a page either way, before it is turned to
            self._asked = wanted
            self.post_message(self.Wanted(*wanted))
        return seen[:tall]

    def _strips(self, index: int) -> list[Strip]:
        """The lines of a row; a record is drawn once."""
        row = self.rows.row(index)
        if not isinstance(row, Record):
            return self._draw(row)
        drawn = self._drawn.get(row.address)
        if drawn is None:
            if len(self._drawn) >= _DRAWN:
                self._drawn.clear()
            drawn = self._drawn[row.address] = self._draw(row)
        return drawn

    def _draw(self, row: Row) -> list[Strip]:
        width, console, marked = self._width, self.app.console, address_of(row) in self.marks
        text = line(row, words=self.words, topics=self.topics, marked=marked, score=self.score, whole=self.wrapped)
        if not self.wrapped:
            return [windowed(text, console, self._left, width)]
        most = max(min(_MOST_LINES, self.size.height // 2), 3)
        return [stripped(part, console) for part in wrapped(text, console, width, most)]

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width

    # ------------------------------------------------------------------ where it is scrolled to: the first row in sight

    def _top_showing(self, index: int) -> int:
        """The first row in sight when the row `index` is the last that fits."""
        tall = max(self.size.height, 1)
        if not self.wrapped:
            return max(index - tall + 1, 0)
        top, used = max(index, 0), len(self._strips(index)) if 0 <= index < self.rows.count else 0
        while top > 0 and (used := used + len(self._strips(top - 1))) <= tall:
            top -= 1
        return top

    def _scroll(self, top: int) -> None:
        self.scroll_to(y=max(top, 0), animate=False, immediate=True, force=True)

    def _reveal(self) -> None:
        """Scroll so that the cursor is in sight."""
        top = round(self.scroll_offset.y)
        wanted = self.cursor if self.cursor < top else max(top, self._top_showing(self.cursor))
        if wanted != top:
            self._scroll(wanted)

    def _redraw(self) -> None:
        """Everything looks different: it is wide in another way, or marked."""
        self._drawn.clear()
        self.grown()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._sight = None

    def watch_cursor(self) -> None:
        self.refresh()
        self._tell()

    def watch_marks(self) -> None:
        self._redraw()

    def watch_wrapped(self) -> None:
        self._left = 0
        self._redraw()
        self._reveal()

    def on_resize(self) -> None:
        self._redraw()
        self._reveal()

    def _tell(self) -> None:
        if (row := self.row) is not None:
            self.post_message(Pointed(row, self.cursor))

    # ------------------------------------------------------------------ moving

    def go(self, index: int) -> None:
        """Put the cursor on a row."""
        self.following = False
        self.cursor = min(max(index, 0), max(self.rows.count - 1, 0))
        self._reveal()

    def action_move(self, by: int) -> None:
        self.go(self.cursor + by)

    def action_page(self, by: int) -> None:
        seen = {index for index, _ in self._sight or ()}
        self.go(self.cursor + by * max(len(seen) - 1, 1))

    def action_first(self) -> None:
        self.go(0)

    def action_last(self) -> None:
        self.go(self.rows.count - 1)

    def action_slide(self, by: int) -> None:
        self._left = 0 if self.wrapped else max(self._left + by, 0)
        self._redraw()

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
        if self._sight is not None and 0 <= event.y < len(self._sight):
            index, _ = self._sight[event.y]
            again = index == self.cursor
            self.go(index)
            if again or event.chain > 1:
                self.action_open()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.following = False
