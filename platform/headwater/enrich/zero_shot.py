"""Labels by their names and descriptions alone: the label whose text is nearest in meaning.

All label texts share a direction (they are labels, of one subject), and so do all texts of an embedding model (Mu and
Viswanath 2018, "All-but-the-Top"). What labels share tells none from another: their mean is taken from labels and texts before
they are compared. It depends on the labels alone, so a text is judged the same in whatever batch it comes.
"""

from __future__ import annotations

import numpy as np

from headwater.enrich.scores import Floats, softmax, unit

_SHARPNESS = 0.05  # difference of centred cosines that makes one label e times as likely as another


def label_text(name: str, description: str) -> str:
    """What of a label is embedded: its name as words, and what it means."""
    words = name.replace("_", " ").replace("-", " ").replace("/", " ").replace(".", " ").strip() or name
    return f"{words}: {description.strip()}" if description.strip() else words


class ZeroShot:
    """Labels of which nothing is known but a text. `vectors` `(labels, d)` are those of `label_text`, unit rows."""

    def __init__(self, labels: tuple[str, ...], vectors: Floats) -> None:
        self.labels = labels
        self._mean = vectors.mean(axis=0) if len(labels) > 2 else np.zeros(vectors.shape[1], np.float32)
        self._directions = unit(vectors - self._mean)

    def predict(self, vectors: Floats) -> Floats:
        """As Head.predict. Probabilities are a ranking made comparable, not calibrated: nothing is known to calibrate by."""
        scores = (vectors - self._mean) @ self._directions.T
        return softmax(np.ascontiguousarray(scores / _SHARPNESS, np.float32))
