"""`fastembed:NAME`: any text model of the fastembed library (extra `fastembed`), which fetches it at its first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.embed.embedder import Kind
from headwater.embed.library import LibraryEmbedder


class FastembedEmbedder(LibraryEmbedder):
    """Query and passage prefixes are put before the texts here: the library leaves that to its caller."""

    provider = "fastembed"
    extra = "fastembed"

    def open_model(self) -> Any:
        from fastembed import TextEmbedding

        return TextEmbedding(model_name=self.model, cache_dir=self._cache_dir, threads=self._threads)

    def run(self, model: Any, texts: Sequence[str], kind: Kind) -> Any:
        before = self._prefix.get(kind, "")
        return list(model.embed([before + text for text in texts], batch_size=len(texts)))
