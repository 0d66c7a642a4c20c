"""`static`: a table of word-piece vectors, averaged. A hundred times faster than a transformer, and less apt.

The weights are those of wordllama's l2_supercat_256 (MIT). The package is a carrier only, never imported: importing it
configures the root logger and wants an HTTP library.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.embed.embedder import Embedder, Kind
from headwater.errors import EmbedError

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors

FLOOR = 0.09  # measured as those in lookup.py


class StaticEmbedder(Embedder):
    """The mean of the vectors of a text's word pieces: `(n, 256)`. Order and context of words do not count."""

    name = "static"
    floor = FLOOR

    def __init__(self, weights: Path, tokenizer: Path, *, version: str = "", batch_size: int = 64) -> None:
        super().__init__(dimension=256)
        self.version, self.batch_size = version, batch_size
        self._files = (weights, tokenizer)
        self._opening = threading.Lock()
        self._open: tuple[Any, Any] | None = None

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        return await asyncio.to_thread(self._run, texts)

    def _run(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        with self._opening:
            if self._open is None:
                self._open = _read(*self._files)
        table, tokenizer = self._open
        encoded = [tokenizer.encode(t, add_special_tokens=False).ids or [0] for t in texts]
        lengths = np.array([len(e) for e in encoded])
        ids = np.minimum(np.concatenate([np.array(e) for e in encoded]), len(table) - 1)
        sums = np.add.reduceat(table[ids], np.concatenate([[0], lengths.cumsum()[:-1]]), axis=0)
        means: Vectors = (sums / lengths[:, None]).astype(np.float32)
        return means


def _read(weights: Path, tokenizer: Path) -> tuple[Any, Any]:
    """The table, float32, and the tokenizer. The format: 8 bytes of header length, a JSON header, the raw tensor."""
    import numpy as np
    from tokenizers import Tokenizer

    try:
        raw = weights.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        entry = json.loads(raw[8 : 8 + size])["embedding.weight"]
        start, end = entry["data_offsets"]
        table = np.frombuffer(raw[8 + size + start : 8 + size + end], {"F16": np.float16, "F32": np.float32}[entry["dtype"]])
        table = table.reshape(entry["shape"]).astype(np.float32)
        pieces = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # tokenizers raises Exception itself, a broken table KeyError or ValueError
        raise EmbedError(f"static: the weights in {weights.parent} cannot be read: {error}") from error
    pieces.no_padding()
    pieces.no_truncation()
    return table, pieces
