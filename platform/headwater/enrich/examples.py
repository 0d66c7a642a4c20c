"""Labels learned from examples: the linear head, asked again among the nearest examples where it hesitates.

Each label's own text counts as one more example of it, which matters most where there are few. The two opinions err on
different texts, so the mean of both is better than either where the first is unsure. Confidence is calibrated on examples held
out in turn.
"""

from __future__ import annotations

import numpy as np

from headwater.enrich.calibration import scaled, temperature
from headwater.enrich.linear import Linear
from headwater.enrich.neighbours import Neighbours
from headwater.enrich.scores import Floats, Ints, margin

_HESITATES = 1 / 3  # margin of the linear head below which the neighbours are asked
_FOLDS = 3
_HELD_OUT = 1500  # most examples that confidence is calibrated on


class Examples:
    """`vectors` `(n, d)` unit rows with `truth` `(n,)`, and `texts` `(labels, d)`, the vectors of the labels' own texts."""

    def __init__(self, labels: tuple[str, ...], vectors: Floats, truth: Ints, texts: Floats) -> None:
        self.labels = labels
        self._degrees = _calibrated(labels, vectors, truth, texts)
        self._both = _Both(labels, vectors, truth, texts)

    def predict(self, vectors: Floats) -> Floats:
        """As Head.predict."""
        return scaled(self._both.predict(vectors), self._degrees)


class _Both:
    def __init__(self, labels: tuple[str, ...], vectors: Floats, truth: Ints, texts: Floats) -> None:
        vectors = np.concatenate([vectors, texts])
        truth = np.concatenate([truth, np.arange(len(labels))])
        self._linear = Linear(labels, vectors, truth)
        self._neighbours = Neighbours(labels, vectors, truth)

    def predict(self, vectors: Floats) -> Floats:
        found = self._linear.predict(vectors)
        unsure = np.flatnonzero(margin(found) < _HESITATES)
        if len(unsure):
            found[unsure] = 0.5 * found[unsure] + 0.5 * self._neighbours.predict(vectors[unsure])
        return found


def _calibrated(labels: tuple[str, ...], vectors: Floats, truth: Ints, texts: Floats) -> float:
    """The temperature for examples that are held out in turn; of many, some are enough."""
    chosen = np.arange(len(truth))
    if len(chosen) > _HELD_OUT:
        chosen = np.linspace(0, len(truth) - 1, _HELD_OUT).astype(np.int64)
    if len(chosen) < 2 * _FOLDS:
        return 1.0
    rows, of = vectors[chosen], truth[chosen]
    fold = np.empty(len(of), np.int64)
    fold[np.argsort(of, kind="stable")] = np.arange(len(of)) % _FOLDS  # each label's examples spread over the folds
    found = np.empty((len(of), len(labels)), np.float32)
    for n in range(_FOLDS):
        out = fold == n
        found[out] = _Both(labels, rows[~out], of[~out], texts).predict(rows[out])
    return temperature(found, of)
