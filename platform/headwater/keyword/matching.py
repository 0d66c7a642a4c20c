"""What a scored query found, as occurrences in a fixed order: all of them, or the best of each passage."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tantivy

Hits = Sequence[tuple[Any, tantivy.DocAddress]]


class Match(NamedTuple):
    """An occurrence found, with its BM25 (0 where nothing was scored)."""

    topic: int
    seq: int
    n: int
    passage: int
    score: float


def columns(searcher: tantivy.Searcher, hits: Hits, *names: str) -> list[tuple[int, ...]]:
    """The values of some columns for each hit."""
    return list(zip(*_values(searcher, hits, names), strict=True))


def ranked(searcher: tantivy.Searcher, hits: Hits) -> list[Match]:
    """All hits by BM25 (to four digits), best first, equal ones by (topic, seq, n)."""
    places = columns(searcher, hits, "topic", "seq", "n", "passage")
    matches = [Match(t, seq, n, p, score) for (t, seq, n, p), (score, _) in zip(places, hits, strict=True)]
    return sorted(matches, key=lambda m: (-round(m.score, 4), m.topic, m.seq, m.n))


def best(searcher: tantivy.Searcher, hits: Hits) -> list[Match]:
    """The first of each passage in the order of `ranked`; a record without passages is one of its own. A few patterns may
    have thousands of hits, so they are not made into objects one by one (a quarter of the time)."""
    if not hits:
        return []
    names = ("topic", "seq", "n", "passage")
    topic, seq, n, passage = (np.array(values, np.int64) for values in _values(searcher, hits, names))
    scores = np.fromiter(map(itemgetter(0), hits), np.float64, len(hits))
    falling = -np.rint(scores * 1e4)
    own = np.where(passage > 0, passage, -1 - seq)
    order = np.lexsort((n, seq, falling, topic, own))
    changes = (np.diff(own[order]) != 0) | (np.diff(topic[order]) != 0)
    first: npt.NDArray[np.int64] = order[np.concatenate(([True], changes))]
    first = first[np.lexsort((n[first], seq[first], topic[first], falling[first]))]
    found = zip(*(values[first].tolist() for values in (topic, seq, n, passage, scores)), strict=True)
    return [Match(*place) for place in found]


def _values(searcher: tantivy.Searcher, hits: Hits, names: Sequence[str]) -> list[list[Any]]:
    addresses = [address for _, address in hits]
    return [searcher.fast_field_values(name, addresses) for name in names]
