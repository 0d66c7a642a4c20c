"""`fastembed:NAME`: any text model of the fastembed library (extra `fastembed`), which fetches it at its first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.embed.embedder import Kind
from headwater.embed.library import LibraryEmbedder


class FastembedEmbedder(LibraryEmbedder):
    """A prefix that is given, or that the model's family wants, is put before the texts here: for those models the library
    leaves it to its caller. For others its own way with queries and passages counts."""

    provider = "fastembed"
    extra = "fastembed"

    def open_model(self) -> Any:
        from fastembed import TextEmbedding

        return TextEmbedding(model_name=self.model, cache_dir=self._cache_dir, threads=self._threads)

    def run(self, model: Any, texts: Sequence[str], kind: Kind) -> Any:
        before = self._prefix.get(kind, "")
        if before:
            return list(model.embed([before + text for text in texts], batch_size=len(texts)))
        made = model.query_embed(list(texts)) if kind == "query" else model.passage_embed(texts, batch_size=len(texts))
        return list(made)
