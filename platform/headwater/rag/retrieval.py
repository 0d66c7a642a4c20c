"""How a question is searched for: by several wordings at once, no source crowding out the others, newer first on request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from headwater.rag.place import Scope
from headwater.rag.standalone import Wording
from headwater.records import Hit, PassageForm, SearchReply, to_ms

RERANKED = 30  # hits that a cross-encoder reads
_WIDER = 2  # times as many hits as are wanted, where a source is capped or hits are read again
_DEEP = 60  # hits of each of several wordings: what one of them does not find scores 0 there
_MOST = 100
Rerank = Callable[[str, Sequence[str]], Awaitable[Sequence[float]]]  # (question, texts) -> scores, 0 to 1


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`wordings`, where there are any, are searched for instead of the words asked for. `per_source` records of one key (of
    one topic, for records without keys) come before further ones of it; 0 for no limit. A hit that is `recency_ms` old
    counts three quarters. `rerank` reads the best again."""

    wordings: tuple[Wording, ...] = ()
    per_source: int = 0
    recency_ms: float | None = None
    rerank: Rerank | None = None

    async def run(
        self, scope: Scope, words: str, top_k: int, now_ms: int, *, topics: Sequence[str] | None = None, alone: bool = False
    ) -> SearchReply:
        """The best hits for `words` (with `alone` for them only), best first; the coverage is that of the first search."""
        more = () if alone or not words.strip() else self.wordings
        plain = not more and not self.per_source and self.recency_ms is None and self.rerank is None
        if plain:
            return await scope.search(words, top_k, topics=topics)
        wide = min(_MOST, max(top_k * _WIDER, RERANKED if self.rerank else 0, _DEEP if more else 0))
        asked = [replace(w, text=as_words(w.text)) for w in more]
        asked = [w for w in asked if w.weight > 0 and w.text] or [Wording(words, 1.0)]
        replies = await asyncio.gather(*(scope.search(w.text, wide, topics=topics) for w in asked))
        hits = _fused(asked, replies, scope.kind_of)
        if self.recency_ms is not None:
            hits = sorted((_aged(h, self.recency_ms, now_ms) for h in hits), key=_order)
        if self.rerank is not None and words.strip():
            hits = await reread(words, hits, self.rerank)
        if self.per_source:
            hits = _spread(hits, self.per_source)
        first = replies[0].coverage
        left = max(first.omitted + len(replies[0]) - top_k, len(hits) - top_k, 0)
        told = replace(first, omitted=left, truncated=left > 0, next_cursor=None)
        return SearchReply(tuple(hits[:top_k]), told, replies[0].explain)


async def reread(words: str, hits: Sequence[Hit], rerank: Rerank) -> list[Hit]:
    """The best hits in the order of a cross-encoder and their own scores, half of each; the rest behind them."""
    best, rest = list(hits[:RERANKED]), list(hits[RERANKED:])
    read = await rerank(words, [_passage(h) for h in best])
    pairs = zip(best, read, strict=True)
    scored = [replace(h, score=(h.score + s) / 2, scores={**h.scores, "rerank": round(s, 6)}) for h, s in pairs]
    return sorted(scored, key=_order) + rest


def as_words(text: str) -> str:
    """Text without what would be an operator of the query language."""
    return " ".join(_OPERATORS.sub(" ", text).split())


_OPERATORS = re.compile(r'["“”:]|(?<!\S)-+(?=\S)')


def _fused(asked: Sequence[Wording], replies: Sequence[SearchReply], kind_of: Callable[[str], PassageForm]) -> list[Hit]:
    """Hits by the weighted mean of their scores over all wordings; where one is not found it scores 0. A document is one hit
    whichever of its passages was found: the one that the wording with most weight found."""
    whole = sum(w.weight for w in asked)
    best: dict[tuple[str, int | str], Hit] = {}
    sums: dict[tuple[str, int | str], float] = {}
    for wording, reply in zip(asked, replies, strict=True):
        for hit in reply:
            one = not hit.passage.id or kind_of(hit.topic) == "chunks"
            key = (hit.topic, hit.address if one else hit.passage.id)
            best.setdefault(key, hit)
            sums[key] = sums.get(key, 0.0) + wording.weight * hit.score / whole
    return sorted((replace(hit, score=sums[key]) for key, hit in best.items()), key=_order)


def _order(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.address, hit.passage.id


def _aged(hit: Hit, recency_ms: float, now_ms: int) -> Hit:
    """A hit that counts down to half with its age."""
    age = max(0, now_ms - max(to_ms(hit.timestamp), to_ms(hit.passage.last_seen) if hit.passage.count > 1 else 0))
    return replace(hit, score=hit.score * (0.5 + 0.5 * 2.0 ** (-age / recency_ms)))


def _spread(hits: Sequence[Hit], most: int) -> list[Hit]:
    """The first `most` of each source before the rest, both in their order."""
    counts: dict[tuple[str, str | None], int] = {}
    first: list[Hit] = []
    rest: list[Hit] = []
    for hit in hits:
        source = (hit.topic, hit.key)
        counts[source] = counts.get(source, 0) + 1
        (first if counts[source] <= most else rest).append(hit)
    return first + rest


def _passage(hit: Hit) -> str:
    """The text of a hit's passage as people wrote it."""
    return hit.value[hit.span.start : hit.span.end] if hit.span is not None else hit.value
