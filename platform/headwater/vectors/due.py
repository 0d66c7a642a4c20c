"""Which segment is to be built next: one rule, looked at whenever the index is maintained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headwater.vectors.counting import Why
from headwater.vectors.segment import Segment

MOST_DEAD = 0.25
"""Share of a segment's members above which it is rewritten without the removed ones."""


@dataclass(frozen=True, slots=True)
class Due:
    """A segment to build from the members of `sources`, which it replaces; from the tail where there are none."""

    why: Why
    sources: tuple[Segment, ...] = ()


def next_due(segments: Sequence[Segment], tail: int, *, seal_at: int, max_segments: int) -> Due | None:
    """What is most urgent, None where nothing is due: damage, a full tail, too many segments, many dead, settings."""
    for segment in segments:
        if segment.flaw is not None:
            return Due("damage", (segment,))
    if tail >= seal_at:
        return Due("seal")
    if len(segments) > max_segments:
        return Due("merge", smallest(segments))
    for segment in segments:
        if segment.dead > MOST_DEAD * len(segment.ids):
            return Due("worn", (segment,))
    for segment in segments:
        if segment.outdated:
            return Due("settings", (segment,))
    return None


def smallest(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The two smallest, and further ones as long as each is no larger than those before it together.

    Merging all of them each time would copy every vector again for every few seals; so a vector is copied about as often
    as its segment can double (the geometric rule of log-structured merge trees).
    """
    ranked = sorted(segments, key=lambda one: (len(one.ids) - one.dead, one.name))
    chosen, together = ranked[:2], sum(len(one.ids) - one.dead for one in ranked[:2])
    for segment in ranked[2:]:
        if len(segment.ids) - segment.dead > together:
            break
        chosen.append(segment)
        together += len(segment.ids) - segment.dead
    return tuple(chosen)
