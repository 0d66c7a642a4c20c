"""What the vector index says of itself, and what it asks of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from headwater.vectors.shape import SegmentRow
from headwater.vectors.space import Floats, Ints

Blocks = Iterator[tuple[Ints, Floats]]
Why = Literal["seal", "merge", "worn", "damage", "settings"]
"""Why a segment is built: the tail is full, there are many segments, many of one's members are dead, something is wrong with
its files, or it was built for other settings."""


class Catalogue(Protocol):
    """What the log knows of one topic and model. Vectors come in blocks of `(ids int64 (n,), vectors float32 (n, d))`,
    each `Space.accept`ed, and only those that may be found (not those of purged or hidden passages)."""

    def segments(self) -> list[SegmentRow]:
        """The committed segments."""

    def tail(self) -> Blocks:
        """All vectors in no segment, by ascending id."""

    def members(self, name: str) -> Blocks:
        """The vectors of a segment."""

    def gone(self, ids: Ints) -> Ints:
        """Those of some ids (ascending), each a segment's member, that the log has let go of."""

    def commit_segment(self, row: SegmentRow, ids: Ints, replaces: Sequence[str]) -> bool:
        """In one transaction: store the row, move `ids` into it, forget `replaces`. False where the topic or its
        generation has gone; nothing is changed then."""

    def drop_segments(self, names: Sequence[str]) -> None:
        """Forget segments; their members are tail again."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest vectors, nearest first, ties by id; fewer than k where there are fewer.

    `ids` (k,) int64; `scores` (k,) float32, larger is nearer: cosine, product, or 1 / (1 + L2); `distances` (k,) float32:
    1 - cosine, minus the product, or L2. `exact` is False where a graph, cells or a narrow copy proposed the candidates.
    """

    ids: Ints
    scores: Floats
    distances: Floats
    exact: bool


@dataclass(frozen=True, slots=True)
class SegmentCount:
    """One segment: members that can be found, removed members still on disk, size, and recall@10 when built.

    `kind` is what it was built as; `ready` is False while its files are still being checked (searches are exact then);
    `due` says why it is built anew: for `damage` or for `settings`, None where it is as it should be. `narrow`: whether it has
    a narrow copy, by which many candidates are chosen from.
    """

    name: str
    living: int
    dead: int
    bytes: int
    recall: float
    kind: str = "hnsw"
    ready: bool = True
    due: Why | None = None
    narrow: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """What an index holds. `vectors` = living in tail and segments; `dead` = removed but not yet physically gone.

    Since it was opened: `built` segments, of these `rebuilt` for damage or changed settings, and `damaged` segments found.
    """

    vectors: int
    tail: int
    dead: int
    segments: tuple[SegmentCount, ...]
    problems: tuple[str, ...]
    built: int = 0
    rebuilt: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A segment in the making: its kind and why, in which stage, members done of all, and for how long.

    Stages: `write` (the members are written down; `total` is 0 until that is known), `build` (the child puts them in place,
    then checks them), `install` (hashes, renaming, the log).
    """

    kind: str
    why: Why
    stage: Literal["write", "build", "install"]
    done: int
    total: int
    elapsed_s: float
