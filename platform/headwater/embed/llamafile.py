"""`llamafile:NAME`: the model of a llamafile or of llama.cpp's server, started with embeddings on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.embed.embedder import Kind
from headwater.embed.fault import Fault
from headwater.embed.openai import OpenAIEmbedder
from headwater.embed.remote import RemoteEmbedder, Request

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors


class LlamafileEmbedder(OpenAIEmbedder):
    """Asks `/v1/embeddings`; a server of before that (404) is asked `/embedding` from then on, one text a request.

    Such a server holds one model: NAME only tells its vectors from another's, and says which prefixes it wants."""

    provider = "llamafile"
    default_url = "http://localhost:8080"
    hosts = ()
    variables = ()
    concurrency = 2

    def _endpoint(self, base_url: str | None) -> str:
        return super()._endpoint(base_url).rstrip("/").removesuffix("/v1")

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        return Request("/embedding", {"content": texts[0]}) if self.one_by_one else Request("/v1/embeddings", self.body(texts))

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        return [_only_row(answer)] if self.one_by_one else super().vectors(answer, count)

    async def call(self, texts: Sequence[str], kind: Kind) -> Vectors:
        try:
            return await super().call(texts, kind)
        except Fault as fault:
            if fault.status != 404 or self.one_by_one:
                raise
            self.one_by_one = True
            if len(texts) > 1:
                raise Fault(str(fault), passes=False, too_large=True) from fault
        return await super().call(texts, kind)

    def remedy(self, status: int, said: str) -> str:
        if status in (0, 404, 501):
            return f"./{self.model.removesuffix('.llamafile')}.llamafile --server --nobrowser --embedding"
        return RemoteEmbedder.remedy(self, status, said)


def _only_row(answer: Any) -> Any:
    """The vector in `{"embedding": [...]}`, or in a later server's `[{"embedding": [[...]]}]`. Raises ValueError."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    row = answer.get("embedding") if isinstance(answer, dict) else None
    if isinstance(row, list) and len(row) == 1 and isinstance(row[0], list):
        row = row[0]
    if not isinstance(row, list):
        raise ValueError("no embedding in it")
    return row
