"""`sentence-transformers:NAME`: a model of that library, by name or directory (extra `sentence-transformers`, with torch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.embed.embedder import Kind
from headwater.embed.library import LibraryEmbedder
from headwater.embed.prefixes import prefixes

_PROMPTS: dict[Kind, tuple[str, ...]] = {"query": ("query",), "passage": ("passage", "document")}


class SentenceTransformersEmbedder(LibraryEmbedder):
    """Before a text stands the prefix given, else the model's own prompt for its kind, else the prefix of its family."""

    provider = "sentence-transformers"
    extra = "sentence-transformers"

    def open_model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(self.model, cache_folder=self._cache_dir)

    def run(self, model: Any, texts: Sequence[str], kind: Kind) -> Any:
        prompts = getattr(model, "prompts", None) or {}
        own = next((prompts[name] for name in _PROMPTS[kind] if prompts.get(name)), prefixes(self.model)[kind])
        prompt = self._prefix.get(kind, own)
        return model.encode(list(texts), batch_size=len(texts), show_progress_bar=False, prompt=prompt or None)
