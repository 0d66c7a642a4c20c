"""How many records, by time: a bar for each bucket; a stretch of it can be chosen."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.reactive import reactive
from textual.widget import Widget

from headwater.records import Timeline
from headwater.records.markers import Marker
from headwater_tui.lines import clock, flat, number, plural
from headwater_tui.messages import Picked

_BARS = " ▁▂▃▄▅▆▇█"
_HIGH = 3  # lines of bars
_SIGNS = {"anomaly": "▲", "event": "●", "new": "◆"}  # the first of them is shown where several fall together
_MANY = {"anomaly": "odd", "event": "events", "new": "new"}


class Histogram(Widget, can_focus=True):
    """Left and right move over the buckets, shift widens, Enter filters by what is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h,left", "move(-1)", "Earlier", show=False, id="histogram.earlier"),
        Binding("l,right", "move(1)", "Later", show=False, id="histogram.later"),
        Binding("H,shift+left", "widen(-1)", "Shorter", show=False, id="histogram.shorter"),
        Binding("L,shift+right", "widen(1)", "Longer", show=False, id="histogram.longer"),
        Binding("left_square_bracket", "marker(-1)", "Previous marker", show=False, id="histogram.previous-marker"),
        Binding("right_square_bracket", "marker(1)", "Next marker", id="histogram.next-marker"),
        Binding("enter", "pick", "Only this time", id="histogram.pick"),
    ]
    DEFAULT_CSS = """
    Histogram { height: auto; padding: 0 1; }
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
            start = len(text)
            text.append("".join(_column(bucket.count / most, level) for bucket in buckets), "cyan")
            if self.has_focus:
                text.stylize("reverse", start + self.at, start + self.at + self.wide)
            text.append("\n")
        if timeline.markers:
            text.append_text(self._marks()).append("\n")
        text.append_text(self._caption(timeline))
        if timeline.markers or timeline.leads:
            text.append("\n").append_text(self._standing_out(timeline))
        return Text("\n", no_wrap=True).join(self._cut(line) for line in text.split("\n", allow_blank=True))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines however wide it is: what is too long is cut, so that the list below stays where it is."""
        timeline = self.timeline
        if timeline is None or not timeline.buckets:
            return 1
        return _HIGH + 1 + bool(timeline.markers) + bool(timeline.markers or timeline.leads)

    def _cut(self, line: Text) -> Text:
        if width := self.content_size.width:
            line.truncate(width, overflow="ellipsis")
        return line

    def _caption(self, timeline: Timeline) -> Text:
        """The time that is shown or chosen, and how many records came in it."""
        buckets = timeline.buckets
        first, last = buckets[self.at], buckets[min(self.at + self.wide, len(buckets)) - 1]
        chosen = sum(b.count for b in buckets[self.at : self.at + self.wide])
        until = last.start + timedelta(seconds=timeline.interval_s)
        total = sum(b.count for b in buckets)
        if self.has_focus:
            return Text(f"{_short(first.start)} to {_short(until)}: {chosen:,} of {total:,} records", "bold")
        most = max(b.count for b in buckets)
        ends = f"{_short(buckets[0].start)} to {_short(buckets[-1].start)}"
        return Text(f"{ends}: {plural(total, 'record')}, at most {number(most)} in {timeline.interval_s:g} s", "dim")

    def _standing_out(self, timeline: Timeline) -> Text:
        """What stands out: of the time that is chosen each in words, else how much, and what came first."""
        if self.has_focus:
            said = [f"{m.topic} {m.kind}: {flat(m.text)}" for m in timeline.markers if self._chosen(self._place(m))]
        else:
            counts = {kind: sum(m.kind == kind for m in timeline.markers) for kind in _SIGNS}
            said = [f"{_SIGNS[kind]} {count} {_MANY[kind]}" for kind, count in counts.items() if count]
            said += [flat(lead.what) for lead in timeline.leads]
        return Text("  ·  ".join(said), "yellow")

    def _marks(self) -> Text:
        """A line with a sign under every bucket in which something stands out."""
        signs = [" "] * len(self.timeline.buckets if self.timeline else ())
        order = list(_SIGNS)
        for marker in sorted(self.timeline.markers if self.timeline else (), key=lambda m: -order.index(m.kind)):
            if 0 <= (place := self._place(marker)) < len(signs):
                signs[place] = _SIGNS[marker.kind]
        text = Text(no_wrap=True)
        for index, sign in enumerate(signs):
            style = "bold red" if sign == "▲" else "bold yellow"
            text.append(sign, f"reverse {style}" if self.has_focus and self._chosen(index) else style)
        return text

    def _place(self, marker: Marker) -> int:
        """The bucket of a marker."""
        timeline = self.timeline
        if timeline is None or not timeline.buckets or not timeline.interval_s:
            return -1
        return math.floor((marker.at - timeline.buckets[0].start).total_seconds() / timeline.interval_s)

    def _chosen(self, index: int) -> bool:
        return self.at <= index < self.at + self.wide

    def watch_timeline(self) -> None:
        self.at, self.wide = 0, 1
        self.refresh(layout=True)

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

    def action_marker(self, step: int) -> None:
        """To the next bucket in which something stands out."""
        places = sorted({self._place(m) for m in self.timeline.markers} if self.timeline else ())
        ahead = [p for p in places if (p - self.at) * step > 0]
        if ahead:
            self.at, self.wide = ahead[0] if step > 0 else ahead[-1], 1

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


def _column(share: float, level: int) -> str:
    """The part of a bar that stands in a line, counted from below; what is not nothing shows."""
    eighths = round(share * _HIGH * 8) - level * 8
    if share and level == 0:
        eighths = max(eighths, 1)
    return _BARS[min(max(eighths, 0), 8)]


def _short(moment: datetime) -> str:
    return clock(moment).strip().removesuffix(".000")
