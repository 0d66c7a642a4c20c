"""`huggingface:NAME`: Text Embeddings Inference (TEI), Inference Endpoints, and Hugging Face's own router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from headwater.embed.embedder import Kind
from headwater.embed.remote import RemoteEmbedder, Request

ROUTER = "https://router.huggingface.co/hf-inference/models"


class HuggingFaceEmbedder(RemoteEmbedder):
    """One wire format, `{"inputs": [...]}` to a matrix, at three places: TEI under `base_url` at `/embed`, an Inference
    Endpoint at its root, and without a `base_url` the router's feature-extraction of this model."""

    provider = "huggingface"
    default_url = ROUTER
    hosts = ("router.huggingface.co", "endpoints.huggingface.cloud")
    variables = ("HF_TOKEN",)
    most_texts = 32  # what TEI takes unless told otherwise

    def _endpoint(self, base_url: str | None) -> str:
        """Without the route, which people copy along with the address."""
        return super()._endpoint(base_url).rstrip("/").removesuffix("/embed").removesuffix("/v1")

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        body: dict[str, Any] = {"inputs": list(texts), "normalize": True, "truncate": True}
        if self.asked_dimension is not None:
            body["dimensions"] = self.asked_dimension
        return Request(self._path(), body)

    def _path(self) -> str:
        if self.url == ROUTER:
            return f"/{quote(self.model, safe='/')}/pipeline/feature-extraction"
        host = urlsplit(self.url).hostname or ""
        return "/" if host.endswith(".endpoints.huggingface.cloud") else "/embed"

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        if not isinstance(answer, list):
            raise ValueError("no list of vectors in it")
        if any(isinstance(row, list) and row and isinstance(row[0], list) for row in answer):
            raise ValueError("a vector for every token, not for every text; serve a sentence-embedding model")
        return answer
