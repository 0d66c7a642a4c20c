"""What was worked out of one commit of the keyword index, kept for the next request with the same scope."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import tantivy

from headwater.keyword.matching import Match
from headwater.keyword.words import Words

T = TypeVar("T")
_COUNTS_BYTES = 1_000_000
_PASSAGES_BYTES = 64_000_000


class Held(Generic[T]):
    """A bounded store, least recently used out first. It belongs to one commit and goes with it, so it is never stale.
    Threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._values: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def keep(self, key: str, value: T, size_bytes: int) -> None:
        """Keep a value; one larger than a quarter of the store is not kept."""
        if size_bytes > self._most_bytes // 4:
            return
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._values[key] = (value, size_bytes)
            self._bytes += size_bytes - before
            while self._bytes > self._most_bytes:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed


@dataclass(frozen=True, slots=True)
class View:
    """What searches see: the state of one commit. `topics` are all it may hold; the others are kept by what was asked."""

    searcher: tantivy.Searcher
    topics: frozenset[int]
    counts: Held[dict[int, int]] = field(default_factory=lambda: Held(_COUNTS_BYTES))
    words: Held[Words] = field(default_factory=lambda: Held(_COUNTS_BYTES))
    latest: Held[list[Match]] = field(default_factory=lambda: Held(_COUNTS_BYTES))
    passages: Held[npt.NDArray[np.int64]] = field(default_factory=lambda: Held(_PASSAGES_BYTES))
