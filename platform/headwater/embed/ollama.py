"""`ollama:NAME`: a model served by Ollama, by its own `POST /api/embed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.embed.embedder import Kind
from headwater.embed.remote import RemoteEmbedder, Request


class OllamaEmbedder(RemoteEmbedder):
    """Long texts are cut by the server at the model's window. The address is embedding.base_url, else `OLLAMA_HOST`."""

    provider = "ollama"
    default_url = "http://localhost:11434"

    def _endpoint(self, base_url: str | None) -> str:
        """Without the `/v1` or `/api` that other clients want in the address."""
        return super()._endpoint(base_url).rstrip("/").removesuffix("/v1").removesuffix("/api")

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        body: dict[str, Any] = {"model": self.model, "input": list(texts), "truncate": True}
        return Request("/api/embed", body if self.asked_dimension is None else body | {"dimensions": self.asked_dimension})

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        rows = answer.get("embeddings") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ValueError("no embeddings in it")
        return rows

    def remedy(self, status: int, said: str) -> str:
        if status == 0:
            return "ollama serve"
        return f"ollama pull {self.model}" if status == 404 else super().remedy(status, said)


def host_url(host: str) -> str | None:
    """The address in `OLLAMA_HOST`, which may lack the scheme or the port, or be what a server binds to; None if empty."""
    if not host.strip():
        return None
    scheme, mark, rest = host.strip().rstrip("/").rpartition("://")
    scheme = scheme if mark else "http"
    if rest.startswith(":"):
        rest = f"localhost{rest}"
    name, colon, port = rest.rpartition(":")
    if not colon or not port.isdecimal() or (rest.startswith("[") and rest.endswith("]")):
        name, port = rest, {"https": "443", "http": "80"}[scheme] if mark and scheme in ("http", "https") else "11434"
    name = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)
    return f"{scheme}://{name}:{port}"
