"""Coarse cells: vectors grouped around centroids, so that a search scans the few groups nearest to it (IVF).

The inverted file of Jégou, Douze and Schmid, "Product quantization for nearest neighbor search" (2011), without the
quantization: what is scanned is scanned exactly. Centroids come from Lloyd's k-means over a sample, of directions for
cosine (Dhillon and Modha 2001), and are computed in the builder child, where matrix products run on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headwater.errors import DamageError
from headwater.vectors.space import Floats, Ints, Space, nearest
from headwater.vectors.stored import Stored

Bools = npt.NDArray[np.bool_]
_SAMPLES_PER_CELL = 64
_ROUNDS = 10
_STEP = 8192
_WIDEN_FROM = 10


class Cells:
    """The cells of a segment whose rows lie cell by cell: `centroids` (c, d), and `bounds` (c + 1,) where each begins."""

    def __init__(self, directory: Path, space: Space, rows: int) -> None:
        """Raises OSError, ValueError, and DamageError for files that do not belong to so many rows."""
        self.centroids: Floats = np.load(directory / "centroids.npy")
        self.bounds: Ints = np.load(directory / "bounds.npy")
        shapes = (self.centroids.shape, self.bounds.shape)
        if shapes != ((len(self.bounds) - 1, space.dimension), (len(self.centroids) + 1,)) or self.bounds[-1] != rows:
            raise DamageError("the cells do not fit the vectors")
        self._space = space
        self._weights = space.weights(self.centroids)

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(
        self, ids: Ints, vectors: Stored, weights: Floats | None, alive: Bools, query: Floats, k: int, n_probe: int
    ) -> tuple[Ints, Floats, bool]:
        """Ids and closeness of the k nearest living rows to `(d,)` in the `n_probe` nearest cells (in more where these do not
        have k), nearest first, ties by id; and whether every cell was scanned."""
        near = self._space.closeness(self.centroids, self._weights, query[None])[0]
        order = np.argsort(-near, kind="stable").astype(np.int64, copy=False)
        probes = self._probes(n_probe, k)
        parts: list[tuple[Ints, Floats]] = []
        found, done, room = 0, 0, vectors.buffer()
        while done < len(order) and (found < k or not done):
            for start, stop in _ranges(self.bounds, order[done:probes]):
                close = vectors.closeness(self._space, weights, start, stop, query[None], room)[0]
                here = alive[start:stop]
                part = (ids[start:stop], close) if here.all() else (ids[start:stop][here], close[here])
                parts.append(part)
                found += len(part[0])
            done, probes = probes, min(len(order), 2 * probes)
        best = nearest(np.concatenate([part for part, _ in parts]), np.concatenate([close for _, close in parts]), k)
        return *best, done == len(order)

    def _probes(self, n_probe: int, k: int) -> int:
        """How many cells to scan for k results: more for more than ten, since the farther ones of many lie in more cells."""
        return min(len(self), max(1, round(n_probe * float(np.sqrt(max(k, _WIDEN_FROM) / _WIDEN_FROM)))))


def _ranges(bounds: Ints, cells: Ints) -> Iterator[tuple[int, int]]:
    """Where the rows of cells are; neighbouring cells in one piece."""
    first = last = -1
    for cell in np.sort(cells).tolist():
        if cell != last:
            if last > first:
                yield int(bounds[first]), int(bounds[last])
            first = cell
        last = cell + 1
    if last > first:
        yield int(bounds[first]), int(bounds[last])


def arrange(vectors: Stored, space: Space, cells: int) -> tuple[Floats, Ints, Ints]:
    """`(centroids, bounds, order)`: `order` are the rows cell by cell. `cells` 0: about the square root of their number."""
    n = vectors.shape[0]
    wanted = min(n, cells or max(1, round(np.sqrt(n))))
    centroids = _train(vectors, space, wanted)
    cell = np.empty(n, np.int64)
    for start in range(0, n, _STEP):
        stop = min(start + _STEP, n)
        cell[start:stop] = _assign(_trained(space, vectors.block(start, stop)), centroids)
    order = np.argsort(cell, kind="stable").astype(np.int64, copy=False)
    counts = np.bincount(cell, minlength=len(centroids))
    kept = np.flatnonzero(counts)
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[kept])]).astype(np.int64)
    return np.ascontiguousarray(centroids[kept]), bounds, order


def _train(vectors: Stored, space: Space, cells: int) -> Floats:
    n = vectors.shape[0]
    random = np.random.default_rng(n)
    chosen = np.sort(random.choice(n, min(n, cells * _SAMPLES_PER_CELL), replace=False)).astype(np.int64)
    sample = _trained(space, vectors.rows(chosen))
    centroids = sample[random.choice(len(sample), cells, replace=False)]
    for _ in range(_ROUNDS):
        cell = np.concatenate([_assign(sample[i : i + _STEP], centroids) for i in range(0, len(sample), _STEP)])
        by_cell = np.argsort(cell, kind="stable")
        counts = np.bincount(cell, minlength=cells)
        full = np.flatnonzero(counts)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])[full]
        moved = np.add.reduceat(sample[by_cell], starts, axis=0) / counts[full, None]
        full, moved = full[moved.any(axis=1)], moved[moved.any(axis=1)]  # opposite directions may cancel out
        centroids[full] = _trained(space, moved.astype(np.float32))
        empty = np.flatnonzero(counts == 0)
        centroids[empty] = sample[random.choice(len(sample), len(empty), replace=False)]
    return centroids


def _trained(space: Space, rows: Floats) -> Floats:
    """Rows as k-means sees them: directions for cosine."""
    if space.metric != "cosine":
        return rows
    lengths = np.sqrt(np.vecdot(rows, rows))[:, None]
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)


def _assign(rows: Floats, centroids: Floats) -> Ints:
    """The nearest centroid of each row, by euclidean distance (the same order as the cosine for directions)."""
    near = rows @ centroids.T
    near -= np.vecdot(centroids, centroids) / 2
    cell: Ints = np.argmax(near, axis=1).astype(np.int64, copy=False)
    return cell
