"""`openai:NAME`: embeddings from any server that speaks OpenAI's `POST /embeddings`, hosted or local."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from headwater.embed.embedder import Kind
from headwater.embed.remote import RemoteEmbedder, Request


class OpenAIEmbedder(RemoteEmbedder):
    """`dimension` is sent as `dimensions` where given. Queries and passages are sent alike: the models make no difference."""

    provider = "openai"
    default_url = "https://api.openai.com/v1"
    hosts: ClassVar[tuple[str, ...]] = ("api.openai.com",)
    variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        return Request("/embeddings", self.body(texts))

    def body(self, texts: Sequence[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        return body if self.asked_dimension is None else body | {"dimensions": self.asked_dimension}

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        return indexed_rows(answer, count)


def indexed_rows(answer: Any, count: int) -> list[Any]:
    """The vectors in order of their `index` (servers may answer in any order; some leave it out). Raises ValueError."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(d, dict) and isinstance(d.get("embedding"), list) for d in data):
        raise ValueError("no list of embeddings in it")
    if len(data) != count:
        raise ValueError(f"{len(data)} vectors for {count} texts")
    if any("index" in d for d in data):
        places = {d.get("index"): d["embedding"] for d in data if isinstance(d.get("index"), int)}
        if places.keys() != set(range(count)):
            raise ValueError("its indexes are not 0 to n-1, once each")
        return [places[i] for i in range(count)]
    return [d["embedding"] for d in data]
