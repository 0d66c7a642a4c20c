"""The vector index of one topic and model: an exact tail and sealed segments, searched as one.

The catalogue (in the log) is the truth; everything here is rebuilt from it. Searches take no lock: they read `_view`, one
attribute that changes hold of a tail and segments are swapped in as a whole. `_write` orders adds and removals, `_change` the
swaps, `_maintenance` the building. The next planner stands on `search(..., among=)` and `counts`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headwater.config import Metric
from headwater.errors import DamageError, StorageError, UsageError
from headwater.vectors.chroma import Clients
from headwater.vectors.segment import Building, Hnsw, Segment, SegmentRow, sweep
from headwater.vectors.space import Floats, Ints, Space, as_ids, nearest
from headwater.vectors.tail import Tail

__all__ = ["Catalogue", "Counts", "Hnsw", "Neighbours", "SegmentCount", "SegmentRow", "VectorIndex"]

_MOST_DEAD = 0.25
_FEW = 4096
Blocks = Iterator[tuple[Ints, Floats]]


class Catalogue(Protocol):
    """What the log knows of one topic and model. Vectors come in blocks of `(ids int64 (n,), vectors float32 (n, d))`,
    each `Space.accept`ed, and only those that may be found (not those of purged or hidden passages)."""

    def segments(self) -> list[SegmentRow]:
        """The committed segments."""

    def tail(self) -> Blocks:
        """All vectors in no segment, by ascending id."""

    def members(self, name: str) -> Blocks:
        """The vectors of a segment."""

    def commit_segment(self, row: SegmentRow, ids: Ints, replaces: Sequence[str]) -> bool:
        """In one transaction: store the row, move `ids` into it, forget `replaces`. False where the topic or its
        generation has gone; nothing is changed then."""

    def drop_segments(self, names: Sequence[str]) -> None:
        """Forget segments; their members are tail again."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest vectors, nearest first, ties by id; fewer than k where there are fewer.

    `ids` (k,) int64; `scores` (k,) float32, larger is nearer: cosine, product, or 1 / (1 + L2); `distances` (k,) float32:
    1 - cosine, minus the product, or L2. `exact` is False where a graph proposed the candidates.
    """

    ids: Ints
    scores: Floats
    distances: Floats
    exact: bool


@dataclass(frozen=True, slots=True)
class SegmentCount:
    """One segment: members that can be found, removed members still on disk, size, and recall@10 when built."""

    name: str
    living: int
    dead: int
    bytes: int
    recall: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What an index holds. `vectors` = living in tail and segments; `dead` = removed but not yet physically gone."""

    vectors: int
    tail: int
    dead: int
    segments: tuple[SegmentCount, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _View:
    tail: Tail
    segments: tuple[Segment, ...]


class VectorIndex:
    """Vectors by id, found by nearness. Thread-safe; `maintain` is called now and then from a worker thread.

    `directory` belongs to this index alone; None keeps everything in the tail. `clients` may be shared between indexes;
    `builder_nice` is the builder's priority (19 is the lowest: on a machine without idle time it hardly gets on).
    """

    def __init__(
        self,
        directory: Path | None,
        catalogue: Catalogue,
        *,
        dimension: int,
        metric: Metric,
        hnsw: Hnsw,
        seal_at: int,
        max_segments: int,
        clients: Clients | None = None,
        builder_nice: int = 19,
    ) -> None:
        self.space = Space(dimension, metric)
        self._directory, self._catalogue = directory, catalogue
        self._hnsw, self._seal_at, self._max_segments = hnsw, seal_at, max_segments
        self._builder_nice = builder_nice
        self._clients = clients or Clients()
        self._write, self._change, self._maintenance = threading.Lock(), threading.Lock(), threading.Lock()
        self._view = _View(Tail(self.space), ())
        self._problems: dict[str, str] = {}
        self._compared: set[str] = set()
        self._building: Building | None = None
        self._closed = False

    def open(self) -> None:
        """Load the tail, open the segments and remove what no catalogue row names; what is in both counts as tail.

        A damaged segment is dropped: its members are searched in the tail until `maintain` seals them again.
        """
        segments: list[Segment] = []
        for row in self._catalogue.segments():
            try:
                if self._directory is None:
                    raise DamageError(f"segment {row.name}: this index has no directory; it is searched in memory")
                segments.append(Segment(self._directory, row, self.space, self._clients))
            except (DamageError, OSError, ValueError) as error:
                self._problems[row.name] = str(error)
        if self._problems:
            self._catalogue.drop_segments(list(self._problems))
        tail = Tail(self.space)
        for ids, rows in self._usable(self._catalogue.tail()):
            tail.add(ids, rows)
            for segment in segments:
                segment.hide(ids)
        self._view = _View(tail, tuple(segments))
        if self._directory is not None and self._directory.exists():
            sweep(self._directory, {segment.name for segment in segments})

    def add(self, ids: npt.ArrayLike, vectors: npt.ArrayLike) -> None:
        """Make vectors findable at once. An id that is present keeps its vector; a removed one comes back with it.

        All are added or none: raises UsageError for a bad vector (see `Space.accept`) or unequal lengths.
        """
        wanted, rows = as_ids(ids), self.space.accept(vectors)
        if len(wanted) != len(rows):
            raise UsageError(f"{len(wanted)} ids came with {len(rows)} vectors")
        if not (wanted[1:] > wanted[:-1]).all():
            wanted, first = np.unique(wanted, return_index=True)
            rows = rows[first]
        with self._write:
            view = self._view
            here = view.tail.now.lookup.positions(wanted) >= 0
            for segment in view.segments:
                if wanted.size and wanted.min() <= segment.row.max_id:
                    held = segment.holds(wanted) & ~here
                    segment.show(wanted[held])
                    wanted, rows, here = wanted[~held], rows[~held], here[~held]
            view.tail.add(wanted, rows)

    def remove(self, ids: npt.ArrayLike) -> None:
        """Hide vectors at once; they are physically gone after the next rewrite. Unknown ids are ignored."""
        unwanted = as_ids(ids)
        with self._write:
            view = self._view
            view.tail.remove(unwanted)
            for segment in view.segments:
                segment.hide(unwanted)

    def vectors(self, ids: npt.ArrayLike) -> Floats:
        """`(n, d)` stored vectors in the order of `ids`; a row of NaN for an id that is unknown or removed."""
        wanted = as_ids(ids)
        while True:
            view = self._view
            rows = np.full((len(wanted), self.space.dimension), np.nan, np.float32)
            now = view.tail.now
            at = now.lookup.positions(wanted)
            here = np.flatnonzero(at >= 0)
            here = here[now.alive[at[here]]]
            rows[here] = now.rows(at[here])
            try:
                for segment in view.segments:
                    found, held = segment.rows(wanted)
                    rows[found] = held
            except DamageError as error:
                self._fall_back(segment, error)
                continue
            return rows

    def search(self, vector: npt.ArrayLike, k: int, *, among: npt.ArrayLike | None = None) -> Neighbours:
        """The k nearest to `(d,)`; with `among` exactly the nearest of those ids. Raises UsageError for a bad vector."""
        query = np.asarray(vector)
        if query.ndim != 1:
            raise UsageError("search takes one vector; search_many takes several")
        return self.search_many(query[None, :], k, among=among)[0]

    def search_many(self, vectors: npt.ArrayLike, k: int, *, among: npt.ArrayLike | None = None) -> list[Neighbours]:
        """The k nearest to each of `(m, d)`, in order; each result is the same as `search` gives."""
        if k < 1:
            raise UsageError(f"k must be at least 1, not {k}")
        queries = self.space.queries(vectors)
        chosen = None if among is None else as_ids(among)
        while True:
            view = self._view
            parts = [view.tail.now.nearest(queries, k, chosen)]
            exact = True
            try:
                for segment in view.segments:
                    found, proven = segment.nearest(queries, k, chosen)
                    parts.append(found)
                    exact = exact and proven
            except DamageError as error:
                self._fall_back(segment, error)
                continue
            return [self._merged([part[i] for part in parts], k, exact) for i in range(len(queries))]

    def maintain(self) -> bool:
        """One step of what is due: check, drop, seal, rewrite. True if something was done, so call again.

        Blocks for as long as a build takes; searches and adds go on. Raises DamageError or StorageError where a build
        failed (nothing is lost by it; it is due again at the next call, so wait before that).
        """
        with self._maintenance:
            if self._directory is None or self._closed:
                return False
            view = self._view
            for segment in view.segments:
                if segment.name not in self._compared:
                    self._compare(segment)
                    return True
            gone = [segment for segment in view.segments if segment.dead == len(segment.ids)]
            if gone:
                self._drop(gone)
                return True
            if view.tail.count >= self._seal_at:
                return self._build([])
            worn = [segment for segment in view.segments if segment.dead > _MOST_DEAD * len(segment.ids)]
            if len(view.segments) > self._max_segments:
                return self._build(list(view.segments))
            if worn:
                return self._build(worn[:1])
            if view.tail.dead > max(_FEW, view.tail.count):
                with self._write:
                    self._view = _View(view.tail.without(np.empty(0, np.int64)), view.segments)
                return True
            self._mended()
            return False

    @property
    def counts(self) -> Counts:
        """What the index holds now."""
        view = self._view
        segments = tuple(
            SegmentCount(one.name, len(one.ids) - one.dead, one.dead, one.bytes, one.recall) for one in view.segments
        )
        tail = view.tail.count
        living = tail + sum(one.living for one in segments)
        dead = view.tail.dead + sum(one.dead for one in segments)
        return Counts(living, tail, dead, segments, tuple(self._problems.values()))

    def close(self) -> None:
        """Stop a running build and let go of the databases. Safe to call twice."""
        self._closed = True
        if (building := self._building) is not None:
            building.cancel()
        with self._maintenance:
            for segment in self._view.segments:
                segment.close()

    def _merged(self, parts: list[tuple[Ints, Floats]], k: int, exact: bool) -> Neighbours:
        ids = np.concatenate([ids for ids, _ in parts])
        ids, near = nearest(ids, np.concatenate([near for _, near in parts]), k)
        scores, distances = self.space.measures(near)
        return Neighbours(ids, scores, distances, exact)

    def _mended(self) -> None:
        """Forget damaged segments: their members are in the tail for good, or sealed again."""
        for name in [name for name in self._problems if name != "vectors"]:
            del self._problems[name]

    def _usable(self, blocks: Blocks) -> Blocks:
        """Vectors of the log, checked. Bad ones (another program wrote them) are left out, and that is said."""
        for ids, vectors in blocks:
            try:
                yield ids, self.space.accept(vectors)
            except UsageError as error:
                self._problems["vectors"] = f"some stored vectors cannot be used: {error}"
                for i in range(len(ids)):
                    with suppress(UsageError):
                        yield ids[i : i + 1], self.space.accept(vectors[i])

    def _fall_back(self, segment: Segment, error: DamageError) -> None:
        """Serve a damaged segment's members from the tail. Does nothing where the segment was replaced meanwhile."""
        with self._change:
            if segment not in self._view.segments:
                return
            members = list(self._usable(self._catalogue.members(segment.name)))
            self._catalogue.drop_segments([segment.name])
            with self._write:
                view = self._view
                for ids, rows in members:
                    hidden = segment.holds(ids) & ~segment.living(ids)
                    view.tail.add(ids[~hidden], rows[~hidden])
                self._view = _View(view.tail, tuple(one for one in view.segments if one is not segment))
                self._problems[segment.name] = str(error)
        segment.retire()

    def _compare(self, segment: Segment) -> None:
        """Check a segment's files, and hide the members that the log has let go of since it was sealed."""
        try:
            segment.warm()
        except DamageError as error:
            self._fall_back(segment, error)
            return
        kept = [ids for ids, _ in self._catalogue.members(segment.name)]
        gone = np.setdiff1d(segment.ids, np.concatenate([np.empty(0, np.int64), *kept]))
        with self._write:
            segment.hide(gone)
        self._compared.add(segment.name)

    def _drop(self, segments: list[Segment]) -> None:
        with self._change:
            self._catalogue.drop_segments([segment.name for segment in segments])
            with self._write:
                view = self._view
                self._view = _View(view.tail, tuple(one for one in view.segments if one not in segments))
        for segment in segments:
            segment.retire()

    def _build(self, sources: list[Segment]) -> bool:
        """Build one segment from the members of `sources`, or from the tail where there are none, and swap it in."""
        assert self._directory is not None
        building = self._building = Building(self._directory, self.space, self._hnsw, nice=self._builder_nice)
        try:
            if self._closed:
                return False
            ids = building.write(self._members(sources))
            if not len(ids):
                building.discard()
                return False
            building.run()
            row = building.finish(ids)
            made = Segment(self._directory, row, self.space, self._clients)
            made.warm()
            with self._change:
                if not self._catalogue.commit_segment(row, ids, [one.name for one in sources]):
                    made.retire()
                    return False
                self._swap(made, sources)
        except (DamageError, StorageError):
            building.discard()
            if self._closed:
                return False
            raise
        finally:
            self._building = None
        for segment in sources:
            segment.retire()
        return True

    def _members(self, sources: list[Segment]) -> Blocks:
        """What the log holds of the sources, without what was removed here and what cannot be used."""
        streams = [self._catalogue.members(one.name) for one in sources] or [self._catalogue.tail()]
        for stream in streams:
            for ids, rows in self._usable(stream):
                stays = ~self._hidden(ids, self._view)
                yield ids[stays], rows[stays]

    def _hidden(self, ids: Ints, view: _View) -> npt.NDArray[np.bool_]:
        """Which ids were removed and not added again; an id not seen here yet is not."""
        now = view.tail.now
        at = now.lookup.positions(ids)
        known = at >= 0
        living = known.copy()
        living[known] = now.alive[at[known]]
        for segment in view.segments:
            known |= segment.holds(ids)
            living |= segment.living(ids)
        return known & ~living

    def _swap(self, made: Segment, sources: list[Segment]) -> None:
        with self._write:
            view = self._view
            made.hide(made.ids[self._hidden(made.ids, view)])
            here = view.tail.now.lookup.positions(made.ids) >= 0
            tail = view.tail.without(made.ids) if here.any() else view.tail
            stay = tuple(one for one in view.segments if one not in sources)
            self._view = _View(tail, (*stay, made))
            self._compared.add(made.name)
            if not sources:
                self._mended()
