"""How many records, by time: a bar for each bucket; a stretch of it can be chosen."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.widget import Widget

from headwater.records import Timeline
from headwater_tui.lines import clock, number
from headwater_tui.messages import Picked

_BARS = " ▁▂▃▄▅▆▇█"
_HIGH = 3  # lines of bars


class Histogram(Widget, can_focus=True):
    """Left and right move over the buckets, shift widens, Enter filters by what is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h,left", "move(-1)", "Earlier", show=False, id="histogram.earlier"),
        Binding("l,right", "move(1)", "Later", show=False, id="histogram.later"),
        Binding("H,shift+left", "widen(-1)", "Shorter", show=False, id="histogram.shorter"),
        Binding("L,shift+right", "widen(1)", "Longer", show=False, id="histogram.longer"),
        Binding("enter", "pick", "Only this time", id="histogram.pick"),
    ]
    DEFAULT_CSS = """
    Histogram { height: 4; padding: 0 1; }
    Histogram:focus { background: $surface; }
    """
    timeline: reactive[Timeline | None] = reactive(None)
    at: reactive[int] = reactive(0)
    wide: reactive[int] = reactive(1)

    def render(self) -> Text:
        timeline = self.timeline
        if timeline is None or not timeline.buckets:
            return Text("no records in this time", "dim")
        buckets = timeline.buckets
        most = max(b.count for b in buckets) or 1
        text = Text(no_wrap=True)
        for level in range(_HIGH - 1, -1, -1):
            for index, bucket in enumerate(buckets):
                eighths = round(bucket.count / most * _HIGH * 8) - level * 8
                if bucket.count and level == 0:
                    eighths = max(eighths, 1)
                text.append(
                    _BARS[min(max(eighths, 0), 8)], "reverse cyan" if self._chosen(index) and self.has_focus else "cyan"
                )
            text.append("\n")
        first, last = buckets[self.at], buckets[min(self.at + self.wide, len(buckets)) - 1]
        chosen = sum(b.count for b in buckets[self.at : self.at + self.wide])
        until = last.start + timedelta(seconds=timeline.interval_s)
        total = sum(b.count for b in buckets)
        if self.has_focus:
            text.append(f"{clock(first.start).strip()} to {clock(until).strip()}: {chosen:,} of {total:,} records", "bold")
        else:
            ends = f"{clock(buckets[0].start).strip()} to {clock(buckets[-1].start).strip()}"
            text.append(f"{ends}: {total:,} records, at most {number(most)} in {timeline.interval_s:g} s", "dim")
        return text

    def _chosen(self, index: int) -> bool:
        return self.at <= index < self.at + self.wide

    def watch_timeline(self) -> None:
        self.at, self.wide = 0, 1

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_move(self, by: int) -> None:
        count = len(self.timeline.buckets) if self.timeline else 0
        self.at = min(max(self.at + by, 0), max(count - 1, 0))

    def action_widen(self, by: int) -> None:
        count = len(self.timeline.buckets) if self.timeline else 0
        self.wide = min(max(self.wide + by, 1), max(count - self.at, 1))

    def action_pick(self) -> None:
        if self.timeline is None or not self.timeline.buckets:
            return
        buckets = self.timeline.buckets
        last = buckets[min(self.at + self.wide, len(buckets)) - 1]
        until = last.start + timedelta(seconds=self.timeline.interval_s)
        self.post_message(Picked(buckets[self.at].start.astimezone(UTC).isoformat(), until.astimezone(UTC).isoformat()))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self.timeline is not None and offset.x < len(self.timeline.buckets):
            self.at, self.wide = offset.x, 1
            self.action_pick()
