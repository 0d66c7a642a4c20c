"""`external`: the vectors come with the records; Headwater only checks and keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.embed.embedder import Embedder, Kind, unit_rows
from headwater.errors import EmbedError, UsageError

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors


class ExternalEmbedder(Embedder):
    """Embeds nothing: `embed` of any text raises UsageError. `check` is what vectors pass before they are stored or
    searched with."""

    name = "external"
    floor = 0.0

    def __init__(self, *, dimension: int) -> None:
        super().__init__(dimension=dimension)

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        raise UsageError(
            "this topic's model is 'external': its vectors come with the records and no text can be embedded here; "
            "send `vector` with each record, and search by vector or by keyword"
        )

    def check(self, vectors: Any) -> Vectors:
        """`(n, d)` float32 unit rows of the vectors given, in order; UsageError, naming the position, for a wrong one."""
        try:
            return unit_rows(vectors, len(vectors), dimension=self._dimension, who="the request")
        except EmbedError as error:
            raise UsageError(str(error).replace("answered with", "has")) from error
