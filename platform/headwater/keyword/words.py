"""What is scored of a request's words: distinct stems, words side by side, identifiers; BM25 and its attainable sum.

A query is the disjunction of its stems (BM25 with tantivy's fixed k1 = 1.2, b = 0.75), plus PAIR_WEIGHT for each two words of
it that stand side by side in a text as well, plus IDENTIFIER_WEIGHT for an identifier (`10.0.0.1`, `req-9bc36dd9`) that stands
there whole. Stop words and the words of asking ("please tell me") do not score where others are left. Unknown words are left
out; of more than MAX_TERMS distinct known ones (a pasted log line) the rarest are kept, as they tell most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import tantivy
from tantivy import Occur
from tantivy import Query as TQuery

from headwater.keyword.schema import analyzer, camel_words, humps, prepared
from headwater.keyword.scope import phrase

MAX_TERMS = 64
MAX_CHARS = 20_000  # of a query; what is behind is not scored
PAIR_WEIGHT = 0.2
IDENTIFIER_WEIGHT = 0.3
POSITIONS_READ = 20_000  # a pair or identifier all of whose words are in more documents than this tells little and costs much
SATURATION = 2.0  # BM25's term-frequency factor at tf 12 in a text of average length; nothing reaches k1 + 1 = 2.2
_IDENTIFIER_TOKENS = 12
_IDENTIFIER = re.compile(r"\d|[^\W_][_.:@][^\W_]")  # a digit, or joined by what does not join words of prose
# Words that say how something is asked and not what. Words with a meaning of their own to operators (down, up, off, out, over,
# under, not, no, above, below, again, same, once) are missing on purpose.
_STOP = """
    a about after all also am an and any are aren as at be because been before being between both but by can could d
    did didn do does doesn doing don during each find for from had has have having he her here hers him his how i if in
    into is isn it its just know let ll m may me might must my need of on or our ours please re s shall she should show so
    such t tell than that the their theirs them themselves then there these they this those through to too until us ve very
    want was wasn we were what when where which while who whom why will with won would you your yours yourself
"""
_STOP_WORDS = frozenset(_STOP.split())


@dataclass(frozen=True, slots=True)
class Words:
    """The scored words of a request: `(stem, documents that have it)`, pairs of stems, identifiers as stems; `dropped`
    counts known stems beyond MAX_TERMS."""

    terms: tuple[tuple[str, int], ...]
    pairs: tuple[tuple[str, str], ...]
    identifiers: tuple[tuple[str, ...], ...]
    dropped: int = 0


class WordReader:
    """Reads requests' words the way texts were read."""

    def __init__(self) -> None:
        self.analyzer = analyzer()
        self._plain = analyzer(stem=False)

    def read(self, text: str, frequency: Callable[[str], int]) -> Words:
        """The words of `text`; `frequency` gives the number of documents that have a stem."""
        tokens: list[tuple[str, bool]] = []  # stem, whether it scores
        identifiers: dict[tuple[str, ...], None] = {}
        text = prepared(text[:MAX_CHARS])
        for chunk in text.split():
            stems = self.analyzer.analyze(chunk)
            plain = self._plain.analyze(chunk)
            tokens.extend((stem, word not in _STOP_WORDS) for stem, word in zip(stems, plain, strict=True))
            if 1 < len(stems) <= _IDENTIFIER_TOKENS and _IDENTIFIER.search(chunk):
                identifiers[tuple(stems)] = None
        for word in camel_words(text):
            tokens.extend((stem, True) for stem in self.analyzer.analyze(humps(word)))
        if not any(scores for _, scores in tokens):
            tokens = [(stem, True) for stem, _ in tokens]
        known = {stem: frequency(stem) for stem in dict.fromkeys(stem for stem, scores in tokens if scores)}
        known = {stem: documents for stem, documents in known.items() if documents}
        kept = dict(sorted(known.items(), key=lambda item: item[1])[:MAX_TERMS])
        scored = [stem if scores and stem in kept else None for stem, scores in tokens]
        pairs = {(a, b): None for a, b in pairwise(scored) if a and b and a != b and _few(known, (a, b))}
        return Words(
            tuple((stem, known[stem]) for stem in known if stem in kept),
            tuple(pairs)[:MAX_TERMS],
            tuple(i for i in identifiers if _few(kept, i))[:MAX_TERMS],
            len(known) - len(kept),
        )


def _few(frequencies: Mapping[str, int], stems: Sequence[str]) -> bool:
    """Whether one of the stems is known and in few enough documents to read positions for."""
    return any(0 < frequencies.get(stem, 0) <= POSITIONS_READ for stem in stems)


def scoring(words: Words, schema: tantivy.Schema) -> TQuery:
    """The query that scores `words`; matches every document that has one of them."""
    parts = [(Occur.Should, TQuery.term_query(schema, "text", stem, "freq")) for stem, _ in words.terms]
    for pair in words.pairs:
        parts.append((Occur.Should, TQuery.boost_query(phrase(schema, list(pair)), PAIR_WEIGHT)))
    for identifier in words.identifiers:
        parts.append((Occur.Should, TQuery.boost_query(phrase(schema, list(identifier)), IDENTIFIER_WEIGHT)))
    return TQuery.boolean_query(parts) if parts else TQuery.empty_query()


def attainable(words: Words, documents: int) -> float:
    """The upper end of the scores `words` reach among `documents`: SATURATION x (sum of idf over their stems, plus
    PAIR_WEIGHT x that of each pair and IDENTIFIER_WEIGHT x that of each identifier's stems), with
    idf(t) = ln(1 + (N - n_t + 0.5) / (n_t + 0.5)). Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25
    and Beyond", 2009, section 3.4: a term's weight is idf(t) x tf (k1 + 1) / (tf + K), K = k1 in a text of average length."""
    idf = {stem: math.log(1 + max(documents - n + 0.5, 0.0) / (n + 0.5)) for stem, n in words.terms}
    pairs = sum(idf[a] + idf[b] for a, b in words.pairs)
    identifiers = sum(idf.get(stem, 0.0) for identifier in words.identifiers for stem in identifier)
    return SATURATION * (sum(idf.values()) + PAIR_WEIGHT * pairs + IDENTIFIER_WEIGHT * identifiers)
