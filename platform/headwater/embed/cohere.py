"""`cohere:NAME`: Cohere's `POST /v2/embed`, which tells queries from passages by `input_type`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.embed.embedder import Kind
from headwater.embed.remote import RemoteEmbedder, Request


class CohereEmbedder(RemoteEmbedder):
    """`dimension` is sent as `output_dimension` where given (embed-v4.0 and later). Long texts are cut by the provider."""

    provider = "cohere"
    default_url = "https://api.cohere.com/v2"
    hosts = ("api.cohere.com", "api.cohere.ai")
    variables = ("CO_API_KEY", "COHERE_API_KEY")
    most_texts = 96

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        body: dict[str, Any] = {
            "model": self.model,
            "texts": list(texts),
            "input_type": "search_query" if kind == "query" else "search_document",
            "embedding_types": ["float"],
            "truncate": "END",
        }
        return Request("/embed", body if self.asked_dimension is None else body | {"output_dimension": self.asked_dimension})

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        found = answer.get("embeddings") if isinstance(answer, dict) else None
        rows = found.get("float") if isinstance(found, dict) else None
        if not isinstance(rows, list):
            raise ValueError("no embeddings.float in it")
        return rows
