"""The nearest normal neighbourhood of a passage: what came before it and means nearly the same."""

from __future__ import annotations

import numpy as np

from headwater.index.topic import TopicIndex

_NEAR = 24  # passages looked at for the nearest that were before


def nearest_before(topic: TopicIndex, passage: int, vector: np.ndarray) -> list[tuple[int, float]]:
    """The passages nearest in meaning to one that came before it, best first, with their similarity (cosine)."""
    if topic.vectors is None:
        return []
    near = topic.vectors.search(vector, _NEAR)
    own = set(topic.family(topic.resolve(passage)))
    pairs = zip(near.ids.tolist(), near.scores.tolist(), strict=True)
    return [(id, float(score)) for id, score in pairs if id < passage and id not in own]
