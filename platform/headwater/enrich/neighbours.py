"""Labels by the nearest examples: k nearest neighbours, each weighted by its likeness (Dudani 1976, distance-weighted k-NN)."""

from __future__ import annotations

import numpy as np

from headwater.enrich.scores import Floats, Ints, unit

_K = 20
_SHARPNESS = 0.03  # of cosine, within which an example counts e times as much
_KEPT = 2048  # examples kept; of more, each label's are drawn together into their centres
_ROUNDS = 5
_BLOCK = 1024  # vectors compared at once: their scores stay in cache


class Neighbours:
    """Examples and their labels. `vectors` `(n, d)` unit rows, `truth` `(n,)` columns of `labels`."""

    def __init__(self, labels: tuple[str, ...], vectors: Floats, truth: Ints) -> None:
        self.labels = labels
        self._vectors, self._truth = _condensed(vectors, truth, max(1, _KEPT // max(len(labels), 1)))
        self._k = min(_K, len(self._vectors))

    def predict(self, vectors: Floats) -> Floats:
        """As Head.predict."""
        blocks = [self._votes(vectors[at : at + _BLOCK]) for at in range(0, len(vectors), _BLOCK)]
        return np.concatenate(blocks) if blocks else np.empty((0, len(self.labels)), np.float32)

    def _votes(self, vectors: Floats) -> Floats:
        count = len(self.labels)
        scores = vectors @ self._vectors.T
        cut = scores.shape[1] - self._k
        nearest = np.argpartition(scores, cut, axis=1)[:, cut:]
        likeness = np.take_along_axis(scores, nearest, axis=1)
        weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / _SHARPNESS)
        weights /= weights.sum(axis=1, keepdims=True)
        cells = self._truth[nearest] + np.arange(len(vectors))[:, None] * count
        votes = np.bincount(cells.ravel(), weights.ravel(), len(vectors) * count)
        return votes.reshape(len(vectors), count).astype(np.float32)


def _condensed(vectors: Floats, truth: Ints, most: int) -> tuple[Floats, Ints]:
    """At most `most` rows of each label: the centres of its examples where it has more (Lloyd's k-means from evenly spaced
    examples: the same examples give the same centres)."""
    kept: list[Floats] = []
    of: list[Ints] = []
    for label in np.unique(truth):
        rows = vectors[truth == label]
        if len(rows) > most:
            rows = _centres(rows, most)
        kept.append(rows)
        of.append(np.full(len(rows), label, np.int64))
    return np.concatenate(kept), np.concatenate(of)


def _centres(rows: Floats, count: int) -> Floats:
    centres: Floats = rows[np.linspace(0, len(rows) - 1, count).astype(int)].copy()
    for _ in range(_ROUNDS):
        nearest = (rows @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, rows)
        filled = np.bincount(nearest, minlength=count) > 0
        centres[filled] = unit(sums[filled])
    return centres
