"""What was worked out of the keyword index, kept for the next request with the same scope: of one commit, or, for lists of
passages, from commit to commit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import tantivy

from headwater.keyword.matching import Match
from headwater.keyword.scope import Scope
from headwater.keyword.words import Words

Ints = npt.NDArray[np.int64]
T = TypeVar("T")
_COUNTS_BYTES = 1_000_000
_LISTS_BYTES = 64_000_000
_ASKED_BYTES = 100_000
_FEW = 20_000  # records since a list was made that cost next to nothing to look through


class Held(Generic[T]):
    """A bounded store, least recently used out first. Threads may share it."""

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
    """What searches see: the state of one commit. `topics` are all it may hold; `ends`: topic -> the seq after its last
    document; `deletions`: how many had been asked for by then. The others are kept by what was asked, and go with it."""

    searcher: tantivy.Searcher
    topics: frozenset[int]
    ends: Mapping[int, int]
    deletions: int
    counts: Held[dict[int, int]] = field(default_factory=lambda: Held(_COUNTS_BYTES))
    words: Held[Words] = field(default_factory=lambda: Held(_COUNTS_BYTES))
    latest: Held[list[Match]] = field(default_factory=lambda: Held(_COUNTS_BYTES))


@dataclass(frozen=True, slots=True)
class _Listed:
    ids: Ints
    end: int
    deletions: int


class Lists:
    """Passages by the scope of one topic, ascending. Between two commits records are added behind the others, so a list is
    carried on with what came since; after a deletion it is made anew. Threads may share it."""

    def __init__(self) -> None:
        self._held: Held[_Listed] = Held(_LISTS_BYTES)
        self._asked: Held[int] = Held(_ASKED_BYTES)  # -1, or the deletions when `again` was last true

    def again(self, scope: Scope, view: View) -> bool:
        """Whether a scope without a list is asked for again: True once, until something is deleted."""
        key = repr(scope)
        if self.holds(scope, view) or (before := self._asked.get(key)) == view.deletions:
            return False
        self._asked.keep(key, -1 if before is None else view.deletions, 200 + len(key))
        return before is not None

    def holds(self, scope: Scope, view: View) -> bool:
        """Whether a list costs next to nothing."""
        known = self._known(scope, view)
        return known is not None and view.ends.get(scope.topics[0], 0) - known.end <= _FEW

    def ids(self, scope: Scope, view: View, since: Callable[[int], Ints]) -> Ints:
        """`(n,)` int64: the list; `since(seq)` gives that of the records from there on."""
        known, end = self._known(scope, view), view.ends.get(scope.topics[0], 0)
        if known is not None and known.end >= end:
            return known.ids
        found = since(0) if known is None else _joined(known.ids, since(known.end))
        found.flags.writeable = False
        self._held.keep(repr(scope), _Listed(found, end, view.deletions), found.nbytes + len(repr(scope)) + 200)
        return found

    def _known(self, scope: Scope, view: View) -> _Listed | None:
        known = self._held.get(repr(scope))
        return known if known is not None and known.deletions == view.deletions else None


def _joined(ids: Ints, more: Ints) -> Ints:
    """Two ascending lists as one."""
    at = np.searchsorted(ids, more)
    new = np.ones(len(more), bool)
    new[at < len(ids)] = ids[at[at < len(ids)]] != more[at < len(ids)]
    return np.insert(ids, at[new], more[new])
