"""What every classifier gives, and the arithmetic they share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Head(Protocol):
    """A classifier over vectors: pure, fitted once, the same answer for a vector in whatever batch it comes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names, in the order of the columns of `predict`."""

    def predict(self, vectors: Floats) -> Floats:
        """Probabilities `(n, labels)` float32, rows sum to 1. `vectors` `(n, d)` are unit rows."""


def softmax(scores: Floats) -> Floats:
    """Rows of `scores` as probabilities; it is worked on in place."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def margin(probabilities: Floats) -> Floats:
    """`(n,)`: how far the best label is before the second."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), np.float32)
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    result: Floats = two[:, 1] - two[:, 0]
    return result


def unit(rows: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: Floats = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result
