"""Embedders for tests, and what tests of embedders share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from headwater.embed import Embedder, Kind


def run(work: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await work

    return asyncio.run(main())


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class Scripted(Embedder):
    name = "scripted"

    def __init__(self, answer: Callable[[Sequence[str]], Any], dimension: int | None = None) -> None:
        super().__init__(dimension=dimension)
        self.answer = answer
        self.batches: list[list[str]] = []
        self.batch_size = 3

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Any:
        self.batches.append(list(texts))
        return self.answer(texts)


def spelled(texts: Sequence[str]) -> Any:
    return [[len(t), *hashlib.md5(t.encode()).digest()] for t in texts]
