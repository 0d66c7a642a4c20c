"""A table of rows under a cursor, with the keys of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import DataTable


class Table(DataTable[Text]):
    """Enter opens a row; `RowSelected` says which."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", id="table.open"),
        Binding("j,down", "cursor_down", "Down", show=False, id="table.down"),
        Binding("k,up", "cursor_up", "Up", show=False, id="table.up"),
        Binding("h,left", "cursor_left", "Left", show=False, id="table.left"),
        Binding("l,right", "cursor_right", "Right", show=False, id="table.right"),
        Binding("g,home", "scroll_top", "First", show=False, id="table.first"),
        Binding("G,end", "scroll_bottom", "Last", show=False, id="table.last"),
    ]

    def __init__(self, columns: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True, id=id)
        self._names = columns

    def on_mount(self) -> None:
        for name in self._names:
            self.add_column(name, key=name)

    def fill(self, rows: Sequence[tuple[str, Sequence[Text]]]) -> None:
        """Rows by key, their cells in place where the keys are the same; the cursor stays on its key."""
        if [key for key, _ in rows] == [str(key.value) for key in self.rows]:
            for key, cells in rows:
                for column, cell in zip(self._names, cells, strict=True):
                    if self.get_cell(key, column) != cell:
                        self.update_cell(key, column, cell, update_width=True)
            return
        here, at = self.here, self.cursor_row
        self.clear()
        for key, cells in rows:
            self.add_row(*cells, key=key)
        keys = [key for key, _ in rows]
        if rows:
            self.move_cursor(row=keys.index(here) if here in keys else min(at, len(rows) - 1))
        self.call_after_refresh(self._draw_anew)

    def _draw_anew(self) -> None:
        """DataTable widens columns for new rows when it has time, and keeps lines that it drew before that."""
        self._clear_caches()
        self.refresh()

    @property
    def here(self) -> str | None:
        """The key of the row under the cursor."""
        if not 0 <= self.cursor_row < self.row_count:
            return None
        return str(self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value)
