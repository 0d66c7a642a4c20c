"""What may be stored as a vector, and how near two vectors are.

Every comparison in Headwater goes through `Space.closeness`, one row at a time (`numpy.vecdot`), so a score does not
depend on the block, batch, segment or thread that computed it: matrix products round differently for every shape, and
their thread pool stalls on a busy machine (10,000 x 384: 0.3 ms here against 0.7-15 ms).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headwater.config import Metric
from headwater.errors import UsageError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CHUNK_BYTES = 786_432
"""Rows gathered or compared at once: what stays in a core's second-level cache."""
_NEAR_UNIT = 2e-3
_CONSTANT_FROM = 16


@dataclass(frozen=True, slots=True)
class Space:
    """Vectors of one length under one metric."""

    dimension: int
    metric: Metric

    def accept(self, vectors: npt.ArrayLike) -> Floats:
        """The stored form of vectors: `(n, d)` float32 that float16 can hold, so an answer is the same after a restart.

        Cosine: rows are scaled to about unit length. Idempotent. Raises UsageError for a wrong length, NaN, infinity,
        components beyond float16, constant rows of 16 and more components (a failed model) and, for cosine, zero rows.
        """
        rows = self._rows(vectors)
        with np.errstate(over="ignore"):
            kept = rows.astype(np.float16).astype(np.float32)
        if self.metric == "cosine":
            lengths = _lengths(kept)
            far = ~(np.abs(lengths - 1) <= _NEAR_UNIT)
            if far.any():
                exact = rows[far].astype(np.float64)
                exact /= np.sqrt(np.vecdot(exact, exact))[:, None]
                kept[far] = exact.astype(np.float16).astype(np.float32)
        elif not np.isfinite(kept).all():
            raise UsageError("a vector has a component beyond 65504, the largest that is stored; scale the vectors down")
        return kept

    def queries(self, vectors: npt.ArrayLike) -> Floats:
        """Query vectors `(m, d)` float32, unit rows for cosine; refused like stored vectors."""
        rows = self._rows(vectors)
        if self.metric != "cosine":
            return rows
        exact = rows.astype(np.float64)
        unit: Floats = (exact / np.sqrt(np.vecdot(exact, exact))[:, None]).astype(np.float32)
        return unit

    def weights(self, rows: Floats) -> Floats | None:
        """`(n,)` factor of each row's product with a query: 1 / length for cosine, None for none."""
        if self.metric != "cosine":
            return None
        weights: Floats = (1 / np.sqrt(np.vecdot(rows, rows))).astype(np.float32)
        return weights

    def closeness(self, rows: Floats, weights: Floats | None, queries: Floats) -> Floats:
        """`(m, n)` float32, larger is nearer: the cosine, the product, or minus the euclidean distance."""
        near = np.empty((len(queries), len(rows)), np.float32)
        step = len(rows) if self.metric != "euclidean" and len(queries) == 1 else self.chunk
        for start in range(0, len(rows), max(step, 1)):
            part = rows[start : start + step]
            for query, out in zip(queries, near[:, start : start + step], strict=True):
                if self.metric == "euclidean":
                    apart = part - query
                    np.negative(np.sqrt(np.vecdot(apart, apart)), out=out)
                else:
                    np.vecdot(part, query, out=out)
        if weights is not None:
            near *= weights
            np.clip(near, -1, 1, out=near)
        return near

    def closeness_at(self, rows: Floats, weights: Floats | None, positions: Ints, queries: Floats) -> Floats:
        """Closeness of `rows[positions]` only; gathered in cache-sized pieces, so `rows` may be a mapped file."""
        near = np.empty((len(queries), len(positions)), np.float32)
        buffer = np.empty((min(self.chunk, len(positions)), self.dimension), np.float32)
        for start in range(0, len(positions), self.chunk):
            at = positions[start : start + self.chunk]
            part = np.take(rows, at, axis=0, out=buffer[: len(at)], mode="clip")
            factor = self.weights(part) if weights is None else weights[at]
            near[:, start : start + len(at)] = self.closeness(part, factor, queries)
        return near

    def measures(self, closeness: Floats) -> tuple[Floats, Floats]:
        """`(scores, distances)`. Cosine: cos and 1 - cos; dot: product and its negative; euclidean: 1 / (1 + L2) and L2."""
        if self.metric == "cosine":
            apart: Floats = 1 - closeness
            return closeness, apart
        if self.metric == "dot":
            return closeness, -closeness
        distances = -closeness
        scores: Floats = np.float32(1) / (np.float32(1) + distances)
        return scores, distances

    @property
    def chunk(self) -> int:
        """Rows that fit the cache together."""
        return max(16, CHUNK_BYTES // (4 * self.dimension))

    def _rows(self, vectors: npt.ArrayLike) -> Floats:
        try:
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise UsageError(f"vectors must be numbers, {self.dimension} each: {error}") from error
        if rows.ndim == 1:
            rows = rows[None, :] if len(rows) else np.empty((0, self.dimension), np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise UsageError(
                f"a vector has {rows.shape[-1]} components; this index holds {self.dimension}. "
                "Use the model the topic was indexed with, or rebuild the index with the new one"
            )
        if not np.isfinite(rows).all():
            raise UsageError("a vector holds NaN or infinity; check the model that made it")
        if self.metric == "cosine" and not rows.any(axis=1).all():
            raise UsageError("a vector is all zeros, which has no direction; check the model that made it")
        if self.dimension >= _CONSTANT_FROM and len(rows) and (np.ptp(rows, axis=1) == 0).any():
            raise UsageError("a vector has the same value in every component; check the model that made it")
        return rows


def as_ids(ids: npt.ArrayLike) -> Ints:
    """Ids as `(n,)` int64; UsageError for anything but whole numbers."""
    given = np.asarray(ids)
    if given.size and given.dtype.kind not in "iu":
        raise UsageError(f"ids must be integers, not {given.dtype}")
    return given.astype(np.int64, copy=False).reshape(-1)


def nearest(ids: Ints, closeness: Floats, k: int) -> tuple[Ints, Floats]:
    """The k nearest of `(n,)` ids, nearest first, ties by id; rows at minus infinity are left out."""
    if len(ids) > k:
        bound = np.partition(closeness, len(ids) - k)[len(ids) - k]
        within = np.flatnonzero(closeness >= bound)
        ids, closeness = ids[within], closeness[within]
    order = np.lexsort((ids, -closeness))[:k]
    order = order[np.isfinite(closeness[order])]
    return ids[order], closeness[order]


def _lengths(rows: Floats) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        squares: npt.NDArray[np.float64] = np.vecdot(rows, rows).astype(np.float64)
        return np.sqrt(squares)
