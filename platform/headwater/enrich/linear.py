"""Labels by a linear head: multinomial logistic regression on the vectors of examples, fitted with L-BFGS in numpy.

The penalty on weights is that of a Gaussian prior of fixed width (ridge; Hastie, Tibshirani and Friedman 2009, section 4.4): it
weighs less the more examples there are. L-BFGS as in Nocedal and Wright 2006, algorithm 7.5, with backtracking (Armijo).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from headwater.enrich.scores import Floats, Ints, softmax

_PENALTY = 0.01  # of all examples together, as 1 / C of other libraries
_ROUNDS = 60
_MEMORY = 10
_ENOUGH = 1e-4  # relative gain of a round below which the fit is done
Loss = Callable[[Floats], tuple[float, Floats]]


class Linear:
    """A fitted head. `vectors` `(n, d)` unit rows, `truth` `(n,)` columns of `labels`; takes about a second for 10,000
    examples of 77 labels."""

    def __init__(self, labels: tuple[str, ...], vectors: Floats, truth: Ints) -> None:
        self.labels = labels
        self._weights, self._bias = _fit(vectors, truth, len(labels))

    def predict(self, vectors: Floats) -> Floats:
        """As Head.predict."""
        scores = vectors @ self._weights
        scores += self._bias
        return softmax(scores)


def _fit(vectors: Floats, truth: Ints, count: int) -> tuple[Floats, Floats]:
    """Weights `(d, count)` and bias `(count,)`."""
    middle = vectors.mean(axis=0)
    rows = np.ascontiguousarray(vectors - middle, np.float32)
    n, d = rows.shape
    penalty = _PENALTY / n
    at = np.arange(n)

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights, bias = flat[: d * count].reshape(d, count), flat[d * count :]
        scores = rows @ weights
        scores += bias
        scores -= scores.max(axis=1, keepdims=True)
        right = scores[at, truth].copy()
        np.exp(scores, out=scores)
        total = scores.sum(axis=1, keepdims=True)
        value = float((np.log(total[:, 0]) - right).mean()) + 0.5 * penalty * float(np.vdot(weights, weights))
        scores /= total
        scores[at, truth] -= 1.0
        scores /= n
        return value, np.concatenate([(rows.T @ scores + penalty * weights).ravel(), scores.sum(axis=0)])

    flat = _descend(loss, np.zeros(d * count + count, np.float32))
    weights = flat[: d * count].reshape(d, count)
    return np.ascontiguousarray(weights), (flat[d * count :] - middle @ weights).astype(np.float32)


def _descend(loss: Loss, x: Floats) -> Floats:
    """Where `loss` is least, by L-BFGS."""
    steps: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
    value, slope = loss(x)
    for _ in range(_ROUNDS):
        way = _way(slope, steps)
        falls, length = float(slope @ way), 1.0
        while True:
            there = x - length * way
            least, steep = loss(there)
            if least <= value - 1e-4 * length * falls or length < 1e-6:
                break
            length *= 0.5
        moved, bent = there - x, steep - slope
        if float(moved @ bent) > 1e-10:
            steps.append((moved, bent))
        gain = (value - least) / max(abs(value), 1e-9)
        x, value, slope = there, least, steep
        if gain < _ENOUGH:
            break
    return x


def _way(slope: Floats, steps: deque[tuple[Floats, Floats]]) -> Floats:
    """The slope times what the last steps say of the inverse Hessian (the two-loop recursion)."""
    way = slope.copy()
    if not steps:
        return way / max(float(np.linalg.norm(slope)), 1e-9)
    shares: list[float] = []
    for moved, bent in reversed(steps):
        share = float(moved @ way) / float(bent @ moved)
        way -= share * bent
        shares.append(share)
    moved, bent = steps[-1]
    way *= float(moved @ bent) / float(bent @ bent)
    for (moved, bent), share in zip(steps, reversed(shares), strict=True):
        way += moved * (share - float(bent @ way) / float(bent @ moved))
    return way
