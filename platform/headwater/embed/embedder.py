"""The Embedder: what every model is to the rest of Headwater, and the checks every vector passes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headwater.errors import EmbedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

T = TypeVar("T")
Kind = Literal["passage", "query"]
BLANK = "(blank)"  # what a text without any visible character is embedded as: providers refuse empty input


class Embedder(ABC):
    """A model that turns texts into vectors. A plugin sets `name`, `floor`, `local` and writes `embed_batch`.

    `name` is what `load` was asked for; vectors of different names are never compared. `version` tells two sets of
    weights (or two endpoints) of one name apart; caches key by both. `floor` is the cosine that a query and a passage
    about something else typically reach with this model (the median over such pairs): scores are normalised against it.
    """

    name: str
    floor: float = 0.0
    local: bool = True
    version: str = ""
    batch_size: int = 64
    batch_bytes: int = 1 << 20  # most UTF-8 bytes in one call of embed_batch
    text_bytes: int = 1 << 15  # bytes of one text the model is shown; far beyond a local model's window
    concurrency: int = 1  # calls of embed_batch under way at once, within one embed

    def __init__(self, *, dimension: int | None = None) -> None:
        self._dimension = dimension

    @property
    def dimension(self) -> int | None:
        """Length of a vector; None until a remote model has answered once."""
        return self._dimension

    @abstractmethod
    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """`(n, d)`, one row per text in order, any scale. Texts are never empty and always valid Unicode."""

    async def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """`(n, d)` float32, unit rows, input order; no texts give `(0, d)`. Raises EmbedError.

        A blank text is embedded as "(blank)", lone surrogates as U+FFFD, and a text longer than the model is shown is
        cut: embedding never fails because of what a text holds."""
        import numpy as np

        shown = [_shown(text, self.text_bytes) for text in texts]
        order = sorted(range(len(shown)), key=lambda i: len(shown[i]))
        batches = self._batches(order, shown)
        gate = asyncio.Semaphore(self.concurrency)

        async def one(positions: list[int]) -> Vectors:
            async with gate:
                rows = await self.embed_batch([shown[i] for i in positions], kind)
            rows = unit_rows(rows, len(positions), dimension=self._dimension, who=self.name, positions=positions)
            self._dimension = rows.shape[1]
            return rows

        done = await _all([one(positions) for positions in batches])
        result = np.empty((len(shown), self._dimension or 0), np.float32)
        for positions, rows in zip(batches, done, strict=True):
            if rows.shape[1] != result.shape[1]:  # two first answers under way at once, of different lengths
                raise EmbedError(f"{self.name} answered with vectors of {rows.shape[1]} and of {result.shape[1]} numbers")
            result[positions] = rows
        return result

    def _batches(self, order: Sequence[int], shown: Sequence[str]) -> list[list[int]]:
        """Positions in batches of like length, none above batch_size texts or batch_bytes."""
        batches: list[list[int]] = []
        size = 0
        for position in order:
            length = len(shown[position].encode())
            if not batches or len(batches[-1]) >= self.batch_size or size + length > self.batch_bytes:
                batches.append([])
                size = 0
            batches[-1].append(position)
            size += length
        return batches

    async def aclose(self) -> None:
        """Release threads and connections; a closed embedder may not be used again."""
        return

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def unit_rows(rows: Any, count: int, *, dimension: int | None, who: str, positions: Sequence[int] | None = None) -> Vectors:
    """`rows` as `(count, d)` float32 unit rows. EmbedError, naming `who` and the position of the text, for another count
    or dimension, for NaN and infinity, and for zero and constant rows (they have no direction to search by)."""
    import numpy as np

    try:
        wide = np.asarray(rows, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise EmbedError(f"{who} answered with something that is not a matrix of numbers: {str(error)[:80]}") from error
    if wide.ndim != 2 or len(wide) != count:
        found = len(wide) if wide.ndim else 0
        raise EmbedError(f"{who} answered with {found} vectors for {count} texts")
    if wide.shape[1] == 0 or (dimension is not None and wide.shape[1] != dimension):
        raise EmbedError(
            f"{who} answered with vectors of {wide.shape[1]} numbers where {dimension or 'some'} were expected; "
            "vectors of different lengths cannot share an index: check the model, or create a topic for it"
        )
    with np.errstate(all="ignore"):
        finite = np.isfinite(wide).all(axis=1)
        largest = np.abs(wide).max(axis=1)
        scaled = wide / largest[:, None]  # squares of huge and tiny numbers leave float64
        flat = np.ptp(wide, axis=1) == 0 if wide.shape[1] > 1 else wide[:, 0] == 0
    for wrong, what in ((~finite, "NaN or infinity"), (~(largest > 1e-30), "only zeros"), (flat, "one repeated number")):
        if wrong.any():
            at = int(wrong.argmax())
            raise EmbedError(f"{who} answered with a vector of {what} for text {positions[at] if positions else at}")
    unit: Vectors = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _shown(text: str, limit: int) -> str:
    """The text as models are given it: valid Unicode, not blank, at most `limit` bytes of UTF-8."""
    if text.isascii():
        cut = text[:limit]
    else:
        raw = text[:limit].encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        cut = raw[:limit].decode("utf-8", "ignore")
    return cut if cut.strip("\x00 \t\r\n\f\v") and not cut.isspace() else BLANK


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
