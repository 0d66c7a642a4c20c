"""A narrow copy of a segment's vectors: a quarter as many numbers, which tell the candidates worth comparing from the others.

Comparing 120,000 scattered vectors of 384 components takes 35 ms of one core, half of it for fetching them from memory. Their
products with the 96 directions along which a sample of the vectors is longest (principal components, not centred: nearness is
not) take 10, and the foremost thirtieth by these is compared in full, 1.5. On vectors like those of texts that found every one
of the ten nearest, also where filter and meaning shun each other; with 64 directions some were missed.

Vectors that vary alike in all directions cannot be told apart like this: the builder tries it, and leaves the copy out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headwater.errors import DamageError
from headwater.vectors.space import Floats, Ints, Space
from headwater.vectors.stored import Stored

FILES = ("axes.npy", "narrow.npy")
NARROWED_FROM = 16_384
"""Candidates from which on it pays; a segment of fewer members has no narrow copy."""
_LEAST_DIMENSION, _NARROWER = 256, 4
_LEAST, _ONE_IN, _FOR_EACH = 2048, 32, 64
_SAMPLE, _STEP = 8192, 4096
_TRIED, _AMONG, _DEPTH, _LEAST_FOUND = 32, 65_536, 10, 0.98


class Narrow:
    """The narrow copy of a segment's rows: `axes` (a, d), and the rows' products with them (n, a)."""

    def __init__(self, directory: Path, space: Space, rows: int) -> None:
        """Raises OSError, ValueError, and DamageError for files that do not belong to so many rows."""
        self._axes: Floats = np.load(directory / "axes.npy")
        self._rows = Stored(directory / "narrow.npy")
        if self._axes.shape[1:] != (space.dimension,) or self._rows.shape != (rows, len(self._axes)):
            raise DamageError("the narrow copy does not fit the vectors")
        self._space = Space(len(self._axes), space.metric)

    def foremost(self, weights: Floats | None, positions: Ints, query: Floats, k: int) -> Ints:
        """The part of the ascending positions worth comparing for the k nearest to `(d,)`, ascending; all where they are few.
        `weights` are those of the full rows."""
        keep = max(_LEAST, len(positions) // _ONE_IN, _FOR_EACH * k)
        if len(positions) < max(NARROWED_FROM, 4 * keep):
            return positions
        near = self._rows.closeness_at(self._space, weights, positions, np.vecdot(self._axes, query)[None])[0]
        best = np.argpartition(near, len(near) - keep)[len(near) - keep :]
        return positions[np.sort(best)]


def write(directory: Path, space: Space, weights: Floats | None) -> None:
    """Write the narrow copy of the vectors in a directory, unless they are few or short or it tells too little of them."""
    vectors = Stored(directory / "vectors.npy")
    rows, dimension = vectors.shape
    if rows < NARROWED_FROM or dimension < _LEAST_DIMENSION:
        return
    number, random = dimension // _NARROWER, np.random.default_rng(rows)
    sample = vectors.rows(_some(random, rows, _SAMPLE))
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -number:].T.astype(np.float32)
    np.save(directory / "axes.npy", axes)
    narrow = np.lib.format.open_memmap(directory / "narrow.npy", mode="w+", dtype="<f2", shape=(rows, number))
    for start in range(0, rows, _STEP):
        stop = min(start + _STEP, rows)
        narrow[start:stop] = vectors.block(start, stop) @ axes.T
    narrow.flush()
    del narrow
    if _found(Narrow(directory, space, rows), space, vectors, weights, random) < _LEAST_FOUND:
        for name in FILES:
            (directory / name).unlink()


def _found(narrow: Narrow, space: Space, vectors: Stored, weights: Floats | None, random: np.random.Generator) -> float:
    """The share of the ten nearest to noisy members, among many, that are in the foremost part."""
    rows, dimension = vectors.shape
    members = vectors.rows(_some(random, rows, _TRIED))
    spread = 0.3 * np.linalg.norm(members, axis=1, keepdims=True) / np.sqrt(dimension)
    queries, among = space.queries(members + spread * random.standard_normal(members.shape)), _some(random, rows, _AMONG)
    near, good = vectors.closeness_at(space, weights, among, queries), 0
    for query, all_of_them in zip(queries, near, strict=True):
        foremost = np.searchsorted(among, narrow.foremost(weights, among, query, _DEPTH))
        bound = np.partition(all_of_them, -_DEPTH)[-_DEPTH]
        good += min(int((all_of_them[foremost] >= bound).sum()), _DEPTH)
    return good / (_DEPTH * len(queries))


def _some(random: np.random.Generator, rows: int, most: int) -> Ints:
    """At most so many positions, drawn evenly, ascending."""
    return np.sort(random.choice(rows, min(rows, most), replace=False)).astype(np.int64)
