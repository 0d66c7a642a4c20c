"""Replies about watches and counts by time, as compact text for a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from headwater.records import Timeline
from headwater.records.markers import Marker
from headwater.records.watches import Watch, WatchHit, Woken
from headwater.visible import visible
from headwater_mcp.budget import Item, fit
from headwater_mcp.render import Fence, Page, counted, fenced, framed, headline, instant, one_line

_BAR = 20


def timeline(found: Timeline, page: Page) -> str:
    """A line for each stretch of time that has records; runs of empty ones are one line."""
    most = max((bucket.count for bucket in found.buckets), default=0)
    lines: list[str] = []
    for bucket in found.buckets:
        if bucket.count:
            lines.append(f"{instant(bucket.start)} {bucket.count} {'#' * max(1, round(bucket.count / most * _BAR))}")
        elif not lines or lines[-1] != "...":
            lines.append("...")
    total = sum(bucket.count for bucket in found.buckets)
    head = f"timeline: {counted(total, 'record')} in buckets of {found.interval_s:g} s (... is none)"
    fence = page.fence() if found.markers or found.leads else None
    marks = [partial(_mark, fence, marker) for marker in found.markers] if fence is not None else []
    hints = [partial(_line, f"hint: {lead.what}") for lead in found.leads]
    items = [Item(draw, 0) for draw in [*(partial(_line, line) for line in lines), *hints, *marks][page.skip :]]
    count = len(lines) + len(hints) + len(marks)
    return framed(fence, head, items, page, count, found.coverage, "" if total else "Nothing matched.")


def _mark(fence: Fence, marker: Marker, _limit: int) -> str:
    """What stands out at a moment: an anomaly, an event, a trouble seen for the first time."""
    id = f" {marker.id}" if marker.kind != "new" else ""
    severity = f" {marker.severity}" if marker.severity else ""
    return f"{instant(marker.at)} {marker.topic} {marker.kind}{id}{severity} {fence(one_line(marker.text))}"


def made(watch: Watch) -> str:
    """A new watch, and how to go on."""
    ends = f" until {instant(watch.expires)}" if watch.expires else ""
    held = f"\nheld up: {one_line(watch.error)[:200]}" if watch.error else ""
    return f"watch {watch.id}: {_looks_for(watch)}{ends}. Now call wait with id={watch.id}; it fires from now on.{held}"


def watches(found: Sequence[Watch], page: Page) -> str:
    """A line for each watch; what it looks for is somebody's words."""
    fence = page.fence()
    items = [Item(partial(_watch_line, fence, watch), 60) for watch in found[page.skip :]]
    hint = "" if found else "No watches yet: give q, or like and an address."
    return framed(fence, f"{len(found)} watch{'' if len(found) == 1 else 'es'}", items, page, len(found), None, hint)


def woken(told: Woken, page: Page) -> str:
    """What a watch has fired, oldest first, and the cursor behind what is shown."""
    if not told.hits:
        why = "it has expired" if told.state == "expired" else "nothing yet; call wait again with this cursor"
        return f"{visible(told.watch)}: {why}\nnext_cursor={told.cursor}"
    fence = page.fence()
    head = f"{visible(told.watch)}: {counted(len(told.hits), 'hit')}\n{fence.legend}"
    if told.missed:
        head += f"\n{counted(told.missed, 'older hit')} no longer kept"
    first = int(told.cursor) - len(told.hits)
    items = [Item(partial(_hit_block, fence, page, hit), page.shown) for hit in told.hits]

    def foot(shown: int) -> str:
        more = len(told.hits) - shown + told.more
        return ("more wait behind the cursor\n" if more else "") + f"next_cursor={first + shown}"

    return fit(head, items, foot, page.max_tokens)


def _line(line: str, _limit: int) -> str:
    return line


def _looks_for(watch: Watch) -> str:
    parts = [f"like {watch.like}"] if watch.like else []
    parts += ["the query given"] if watch.q else []
    if watch.more_than is not None and watch.within_s is not None:
        parts.append(f"more than {watch.more_than} within {watch.within_s:g} s")
    return ", ".join(parts) or "every record"


def _watch_line(fence: Fence, watch: Watch, limit: int) -> str:
    ends = f" until {instant(watch.expires)}" if watch.expires else ""
    line = f"{watch.id} {watch.state}, fired {watch.fired}{ends}, cursor {watch.cursor}, {_looks_for(watch)}"
    return f"{line} {fence(one_line(f'{watch.name} {watch.q}')[: limit * 3])}"


def _hit_block(fence: Fence, page: Page, hit: WatchHit, limit: int) -> str:
    why = f"{hit.why} {hit.score:.2f}" if hit.why == "meaning" else hit.why
    within = f" {hit.count} within the window" if hit.count is not None else ""
    if hit.record is None:
        return f"[{hit.id}] {hit.address} {why}{within} fired {instant(hit.fired)} (the record is gone)"
    record = hit.record
    head = f"[{hit.id}] {headline(record.address, record.timestamp, record.attributes)} {why}{within}"
    return f"{head} {fenced(fence, record.value, limit, page, record.address, len(record.value), '')}"
