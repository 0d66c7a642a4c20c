"""What was worked out of one commit of the keyword index, kept for the next request with the same scope."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


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
