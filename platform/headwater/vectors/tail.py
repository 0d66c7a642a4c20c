"""The newest vectors, in memory, searched exactly.

One writer at a time, any number of readers, and no lock while reading: a reader takes `Tail.now`, a snapshot of arrays
that only ever grow. Rows are kept in blocks, so growing never copies them (a copy of 100,000 x 384 holds a writer up
for 50 ms and doubles the memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headwater.vectors.space import Floats, Ints, Space, nearest

Bools = npt.NDArray[np.bool_]
BLOCK_BYTES = 3_145_728
"""Below the 4 MiB from which NumPy asks for huge pages: the first write into one takes 5 ms, which an add would wait for."""
_MOST_HOLES = 4
_MARKED_FROM = 64
_T = TypeVar("_T", bound=np.generic)


class Lookup:
    """Where each id is in an array of distinct ids; free while the ids ascend, which passage ids do.

    `lasting`: worth a table (4 bytes for each id between the least and the greatest), if that has few holes.
    """

    __slots__ = ("_ascending", "_least", "_order", "_table", "ids")

    def __init__(self, ids: Ints, *, ascending: bool | None = None, lasting: bool = False) -> None:
        self.ids = ids
        self._ascending = bool((ids[1:] > ids[:-1]).all()) if ascending is None else ascending
        self._order: Ints | None = None
        self._table: npt.NDArray[np.int32] | None = None
        if lasting and len(ids) and int(ids.max()) - int(ids.min()) < _MOST_HOLES * len(ids):
            self._least = int(ids.min())
            self._table = np.full(int(ids.max()) - self._least + 3, -1, np.int32)  # one more at each end, for all others
            self._table[ids - (self._least - 1)] = np.arange(len(ids), dtype=np.int32)

    def positions(self, ids: Ints) -> Ints:
        """`(n,)` position of each id, -1 where it is unknown."""
        if self._table is not None:
            within = np.clip(ids, self._least - 1, self._least + len(self._table) - 2) - (self._least - 1)
            return self._table[within].astype(np.int64)
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        if self._ascending:
            at = np.searchsorted(self.ids, ids)
            at[at == len(self.ids)] = 0
        else:
            if self._order is None:
                self._order = np.argsort(self.ids, kind="stable")
            at = np.searchsorted(self.ids, ids, sorter=self._order)
            at[at == len(self.ids)] = 0
            at = self._order[at]
        return np.where(self.ids[at] == ids, at, -1).astype(np.int64, copy=False)

    def found(self, ids: Ints) -> Ints:
        """The positions of the ids that are known: ascending, each once."""
        at = self.positions(ids)
        if not (known := at >= 0).all():
            at = at[known]
        if (at[1:] > at[:-1]).all():
            return at
        if len(at) * _MARKED_FROM < len(self.ids):
            return np.unique(at)
        marked = np.zeros(len(self.ids), np.bool_)
        marked[at] = True
        return np.flatnonzero(marked).astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tail as it was at one moment; only `alive` may still lose rows (a removal is seen by running searches too)."""

    space: Space
    blocks: tuple[Floats, ...]
    block_rows: int
    ids: Ints
    weights: Floats | None
    alive: Bools
    lookup: Lookup

    def nearest(self, queries: Floats, k: int, among: Ints | None = None) -> list[tuple[Ints, Floats]]:
        """For each of `(m, d)` queries the ids and closeness of the k nearest living rows, of `among` only if given."""
        if among is None:
            ids, alive = self.ids, self.alive
            near = np.empty((len(queries), len(ids)), np.float32)
            for rows, start, stop in self._parts():
                near[:, start:stop] = self.space.closeness(rows, self._weights(start, stop), queries)
        else:
            at = self.lookup.found(among)
            ids, alive, near = self.ids[at], self.alive[at], self._near_at(at, queries)
        if not alive.all():
            near[:, ~alive] = -np.inf
        return [nearest(ids, row, k) for row in near]

    def rows(self, positions: Ints) -> Floats:
        """The vectors at positions, `(n, d)`."""
        rows = np.empty((len(positions), self.space.dimension), np.float32)
        order = np.argsort(positions, kind="stable")
        for block, within, where in self._split(positions[order]):
            rows[order[where]] = self.blocks[block][within]
        return rows

    def living(self) -> Iterator[tuple[Ints, Floats]]:
        """All living rows, in order, in blocks of `(ids, vectors)`."""
        for rows, start, stop in self._parts():
            alive = self.alive[start:stop]
            yield self.ids[start:stop][alive], rows[alive]

    def _near_at(self, positions: Ints, queries: Floats) -> Floats:
        near = np.empty((len(queries), len(positions)), np.float32)
        for block, within, where in self._split(positions):
            weights = self._weights(block * self.block_rows, (block + 1) * self.block_rows)
            near[:, where] = self.space.closeness_at(self.blocks[block], weights, within, queries)
        return near

    def _parts(self) -> Iterator[tuple[Floats, int, int]]:
        for number, block in enumerate(self.blocks):
            start = number * self.block_rows
            stop = min(start + self.block_rows, len(self.ids))
            if start < stop:
                yield block[: stop - start], start, stop

    def _split(self, ascending: Ints) -> Iterator[tuple[int, Ints, slice]]:
        """Positions block by block: the block, positions within it, and which part of the given ones they are."""
        bounds = np.searchsorted(ascending, np.arange(len(self.blocks) + 1) * self.block_rows).tolist()
        for block, (start, stop) in enumerate(pairwise(bounds)):
            if start < stop:
                yield block, ascending[start:stop] - block * self.block_rows, slice(start, stop)

    def _weights(self, start: int, stop: int) -> Floats | None:
        return None if self.weights is None else self.weights[start:stop]


class Tail:
    """A growing set of vectors by id. Callers see to it that one thread at a time writes."""

    def __init__(self, space: Space, *, block_rows: int | None = None) -> None:
        self._space = space
        self._block_rows = block_rows or max(64, BLOCK_BYTES // (4 * space.dimension))
        self._blocks: list[Floats] = []
        self._ids = np.empty(0, np.int64)
        self._alive = np.empty(0, np.bool_)
        self._weights = np.empty(0, np.float32) if space.metric == "cosine" else None
        self._ascending = True
        self._dead = 0
        self._count = 0
        self._publish()

    @property
    def now(self) -> Snapshot:
        """What can be searched at this moment."""
        return self._now

    @property
    def count(self) -> int:
        """Living rows."""
        return self._count - self._dead

    @property
    def dead(self) -> int:
        """Removed rows that still take up memory."""
        return self._dead

    def add(self, ids: Ints, vectors: Floats) -> None:
        """Append accepted vectors with distinct ids. An id already here is kept as it is, and comes back if removed."""
        at = self._now.lookup.positions(ids)
        known = at[at >= 0]
        if len(known):
            self._dead -= int((~self._alive[known]).sum())
            self._alive[known] = True
            ids, vectors = ids[at < 0], vectors[at < 0]
        if not len(ids):
            return
        start, stop = self._count, self._count + len(ids)
        self._reserve(stop)
        done = start
        while done < stop:
            block, within = divmod(done, self._block_rows)
            if block == len(self._blocks):
                self._blocks.append(np.empty((self._block_rows, self._space.dimension), np.float32))
            n = min(stop - done, self._block_rows - within)
            self._blocks[block][within : within + n] = vectors[done - start : done - start + n]
            done += n
        last = self._ids[start - 1] if start else None
        self._ascending = self._ascending and bool((ids[1:] > ids[:-1]).all()) and (last is None or ids[0] > last)
        self._ids[start:stop] = ids
        self._alive[start:stop] = True
        if self._weights is not None:
            self._weights[start:stop] = self._space.weights(vectors)
        self._count = stop
        self._publish()

    def remove(self, ids: Ints) -> None:
        """Hide rows; unknown ids are ignored. Their memory is free when the tail is next sealed."""
        at = self._now.lookup.found(ids)
        self._dead += int(self._alive[at].sum())
        self._alive[at] = False

    def without(self, ids: Ints) -> Tail:
        """A new tail of the living rows whose id is not in `ids`."""
        rest = Tail(self._space, block_rows=self._block_rows)
        for block_ids, rows in self._now.living():
            stay = np.isin(block_ids, ids, assume_unique=True, invert=True)
            if stay.any():
                rest.add(block_ids[stay], rows[stay])
        return rest

    def _reserve(self, rows: int) -> None:
        """Grow the small arrays by doubling into new ones: running searches keep theirs."""
        if rows <= len(self._ids):
            return
        size = max(rows, 2 * len(self._ids), 256)
        self._ids = _grown(self._ids, self._count, size)
        self._alive = _grown(self._alive, self._count, size)
        if self._weights is not None:
            self._weights = _grown(self._weights, self._count, size)

    def _publish(self) -> None:
        n = self._count
        ids = self._ids[:n]
        weights = None if self._weights is None else self._weights[:n]
        lookup = Lookup(ids, ascending=self._ascending)
        self._now = Snapshot(self._space, tuple(self._blocks), self._block_rows, ids, weights, self._alive[:n], lookup)


def _grown(array: npt.NDArray[_T], used: int, size: int) -> npt.NDArray[_T]:
    grown = np.empty(size, array.dtype)
    grown[:used] = array[:used]
    return grown
