"""A reply within a budget of tokens: hits of one pattern are one, and what does not fit waits for the next page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from headwater import wire
from headwater.budget import clip, shape, tokens
from headwater.records import Hit, SearchReply

LEAST, MOST = 200, 200_000  # tokens of a reply
_NOTES = 120  # tokens that are kept for what is said of the cut


def within(reply: SearchReply, max_tokens: int, cursor: Callable[[int], str | None]) -> SearchReply:
    """The reply whose JSON takes at most about `max_tokens`. A hit whose words another hit has, with other numbers, is left
    out; the first hit comes always, its text cut where it must be. `cursor(n)` leads behind the first n hits, None where there
    is no further page. The coverage counts what was left out, its notes say why."""
    room = max_tokens - _NOTES - _cost(replace(reply, hits=()))
    shown: list[Hit] = []
    shapes: set[tuple[str, str]] = set()
    notes: list[str] = []
    alike = passed = 0
    for hit in reply:
        form = shape(hit)
        if form in shapes:
            alike, passed = alike + 1, passed + 1
            continue
        cost = _cost(hit)
        if cost > room and not shown:
            hit, left = _cut(hit, max(room, 0))
            notes.append(f"{left:,} characters of {hit.address} are cut to stay within max_tokens; read the record")
        elif cost > room:
            break
        shapes.add(form)
        shown.append(hit)
        room, passed = room - cost, passed + 1
    if alike:
        notes.append(f"{alike} hits with the words of one shown and other numbers are left out (max_tokens)")
    cover, cut = reply.coverage, len(reply) - passed
    if cut:
        notes.append(f"{cut} hits are left out to stay within max_tokens={max_tokens}")
        cover = replace(cover, truncated=True, next_cursor=cursor(passed))
    cover = replace(cover, omitted=cover.omitted + cut + alike, notes=(*cover.notes, *notes))
    return replace(reply, hits=tuple(shown), coverage=cover)


def _cost(value: Hit | SearchReply) -> int:
    return tokens(wire.encode(value).decode())


def _cut(hit: Hit, room: int) -> tuple[Hit, int]:
    """The hit with as much of its passage as fits, and how many characters of its value are not there."""
    start = hit.span.start if hit.span is not None else 0
    bare = replace(hit, value="", passage=replace(hit.passage, text=""), span=None)
    if _cost(bare) > room:
        bare = replace(bare, attributes={}, vector=None)
    left = max(room - _cost(bare), 0)
    text = clip(hit.value[start:], left * 2 // 3)  # as JSON it may be longer than as it stands
    short = replace(bare, value=text, passage=replace(hit.passage, text=clip(hit.passage.text, left // 4)))
    return short, len(hit.value) - len(text)
