"""A text of any length: wrapped once for its width, drawn where it is in sight."""

from __future__ import annotations

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip


class TextPane(ScrollView, can_focus=True):
    """Text that scrolls. It is shown as it is, so what hides in it must have been made visible."""

    DEFAULT_CSS = "TextPane { height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.text = ""
        self._lines: list[str] = []

    def show(self, text: str) -> None:
        """Show another text, from its beginning."""
        self.text = text
        self._wrap()
        self.scroll_to(y=0, animate=False, immediate=True)

    def _wrap(self) -> None:
        width = max(self.scrollable_content_region.width, 1)
        self._lines = [part for line in self.text.split("\n") for part in folded(line, width)]
        self.virtual_size = Size(0, len(self._lines))
        self.refresh()

    def on_resize(self) -> None:
        self._wrap()

    def render_line(self, y: int) -> Strip:
        width, style = self.scrollable_content_region.width, self.rich_style
        row = round(self.scroll_offset.y) + y
        if row >= len(self._lines):
            return Strip.blank(width, style)
        line = self._lines[row]
        segments = [Segment(line, style)]
        if (chosen := self.text_selection) is not None and (span := chosen.get_span(row)) is not None:
            start, end = span[0], len(line) if span[1] == -1 else span[1]
            marked = style + self.screen.get_component_rich_style("screen--selection")
            segments = [Segment(line[:start], style), Segment(line[start:end], marked), Segment(line[end:], style)]
        return Strip(segments).extend_cell_length(width, style).apply_offsets(0, row)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(self._lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()


def folded(line: str, width: int) -> list[str]:
    """A line in parts that are at most so many cells wide, broken at blanks where there are some."""
    if len(line) <= width and line.isascii():
        return [line]
    parts, start = [], 0
    while start < len(line):
        end = _fitting(line, start, width)
        if end < len(line) and (blank := line.rfind(" ", start + 1, end + 1)) > 0:
            end = blank + 1 if blank < end else blank
        parts.append(line[start:end])
        start = end + (line[end : end + 1] == " " and len(parts[-1]) > 0)
    return parts or [""]


def _fitting(line: str, start: int, width: int) -> int:
    """Where the part of a line that begins at `start` ends: a character at least."""
    if line.isascii():
        return min(start + width, len(line))
    end, used = start, 0
    while end < len(line):
        used += get_character_cell_size(line[end])
        if used > width and end > start:
            break
        end += 1
    return end
