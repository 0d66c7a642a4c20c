"""`hash`: a deterministic stand-in for tests. It knows spelling, not meaning: do not serve searches with it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headwater.embed.embedder import Embedder, Kind

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors

_WORD = re.compile(r"\w+")


class HashEmbedder(Embedder):
    """Signed feature hashing of words and their letter trigrams (Weinberger et al. 2009). FOR TESTS ONLY: texts are near
    when they share words or parts of words, never because they mean the same. Same text, same vector, on any machine."""

    name = "hash"
    floor = 0.0

    def __init__(self, *, dimension: int | None = None, batch_size: int = 64, name: str | None = None) -> None:
        super().__init__(dimension=dimension or 256)
        self.batch_size, self.name = batch_size, name or self.name

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        import numpy as np

        width = self._dimension or 256
        rows = np.zeros((len(texts), width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for feature, weight in _features(text):
                mark = zlib.crc32(feature.encode())
                row[mark % width] += weight if mark & 0x8000_0000 else -weight
            if not row.any() or np.ptp(row) == 0:  # nothing but punctuation, or marks that cancel out
                row[zlib.crc32(text.encode()) % width] += 1.0
        return rows


def _features(text: str) -> list[tuple[str, float]]:
    features: list[tuple[str, float]] = []
    for word in _WORD.findall(text.lower()):
        features.append((word, 1.0))
        padded = f"<{word}>"
        features += [(padded[i : i + 3], 0.3) for i in range(len(padded) - 2)]
    return features
