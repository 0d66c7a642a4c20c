"""Confidence that means what it says: temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks").

One number divides the logarithms of all probabilities, chosen where held-out examples are best explained. It changes how sure
a classifier says it is, never which label is best.
"""

from __future__ import annotations

import numpy as np

from headwater.enrich.scores import Floats, Ints, softmax

_LEAST = 1e-6
_CHOICES = np.geomspace(0.2, 5.0, 41)


def temperature(probabilities: Floats, truth: Ints) -> float:
    """The temperature at which `truth` `(n,)` has the least log loss under `probabilities` `(n, labels)`; 1.0 without any."""
    if not len(truth):
        return 1.0
    logs = np.log(np.maximum(probabilities, _LEAST))
    at = np.arange(len(truth))
    losses = [-float(np.log(np.maximum(cooled(logs, t)[at, truth], _LEAST)).mean()) for t in _CHOICES]
    return float(_CHOICES[int(np.argmin(losses))])


def cooled(logs: Floats, degrees: float) -> Floats:
    """Probabilities of logarithms at a temperature."""
    return softmax((logs / degrees).astype(np.float32))


def scaled(probabilities: Floats, degrees: float) -> Floats:
    """Probabilities at a temperature."""
    return probabilities if degrees == 1.0 else cooled(np.log(np.maximum(probabilities, _LEAST)), degrees)
