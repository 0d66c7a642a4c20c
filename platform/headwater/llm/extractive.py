"""Answers without a model: the sentences of the retrieved records that best support an answer, or abstention.

The reader looks at records only as text to quote. Work is bounded: however much was retrieved, at most `MOST_EMBEDDED`
sentences are embedded for one question, chosen by shared words and retrieval rank.

A sentence's support (0-1) is `W_MEANING * meaning + W_WORDS * words + W_RETRIEVAL * retrieval`:
    meaning    (cosine - floor) / (1 - floor) of question and sentence; the sentence before it in the same record lends
               its context (a sentence that says "it" is about what the one before named)
    words      share of the question's content words in the sentence, rare words counting more (idf over the candidates)
    retrieval  the record's own search score
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from headwater.chunks import sentences
from headwater.records import Hit, Passage, Span
from headwater.records.levels import canonical_level

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Kind = Literal["query", "passage"]
Sort = Literal["events", "documents"]
Embed = Callable[[Sequence[str], Kind], Awaitable["Vectors"]]

MOST_EMBEDDED = 24  # 16 to 96 find the same sentences; embedding is nearly all of the time
MOST_CHARS = 20_000  # of one record that are read
LONGEST_SENTENCE = 500  # characters quoted of one; a longer one is cut at a word
FLOOR = 0.5  # cosine that unrelated texts reach with bge-small, the default model

W_MEANING, W_WORDS, W_RETRIEVAL = 0.4, 0.3, 0.3
CONTEXT_MEANING, CONTEXT_WORDS = 0.35, 0.25
WORTH_SAYING, WORTH_TELLING = 0.85, 0.75  # of the best sentence's support, for an answer and for a course of events
SAME_MEANING, SAME_WORDS, PART_WORDS = 0.93, 0.75, 0.9
# Confidence is a logistic of C_BEST * best sentence + (1 - C_BEST) * its record's score, centred where answerable
# questions and questions about other things are equally likely. Few and round, set from sweeps over four collections, over
# which the outcome is flat; they were not held out, so other data is the real check.
C_BEST, C_CENTRE, C_SLOPE = 0.7, 0.31, 16.0
ABSTAIN_BELOW = 0.5
NAMED = 0.6  # least meaning of a sentence that has the identifiers asked about; models see little in blk_-75714920
TROUBLE = 0.2  # more meaning and words for an error where the question asks what went wrong: "what broke?" shares neither


@dataclass(frozen=True, slots=True)
class Evidence:
    """A retrieved record, its passage and its search score (0-1). `span` is the passage's place in `value`."""

    address: str
    value: str
    score: float
    timestamp: datetime
    key: str | None
    attributes: Mapping[str, Any]
    passage: Passage
    span: Span | None
    kind: Literal["template", "exact", "chunks"]
    level: str | None = None

    @classmethod
    def of(cls, hit: Hit, kind: Literal["template", "exact", "chunks"]) -> Evidence:
        """A hit of a topic whose passages are of this kind."""
        level = hit.attributes.get("level")
        return cls(
            hit.address,
            hit.value,
            hit.score,
            hit.timestamp,
            hit.key,
            hit.attributes,
            hit.passage,
            hit.span,
            kind,
            None if level is None else str(level),
        )


@dataclass(frozen=True, slots=True)
class Sentence:
    """`evidence[index].value[start:end]`, and how well it supports an answer (0-1)."""

    index: int
    start: int
    end: int
    support: float


@dataclass(frozen=True, slots=True)
class Extract:
    """What was found: sentences in the order to show them; none where the reader abstained. `considered` sentences were
    compared by words, `embedded` of them by meaning; `nearest` is the best one even when it was too weak to say."""

    sentences: tuple[Sentence, ...]
    confidence: float
    abstained: bool
    considered: int = 0
    embedded: int = 0
    nearest: Sentence | None = None


@dataclass(slots=True)
class _Unit:
    """A candidate sentence. `before` is the unit before it in the same record, when that is a candidate too."""

    index: int
    start: int
    end: int
    text: str  # what is embedded
    words: frozenset[str]
    before: int | None
    named: bool = False  # it has every identifier the question asks about, or is the trouble that is all it asks about
    asks: bool = False  # it is a question itself
    heads: bool = False  # it is a heading, which says nothing but what the next sentences are about
    bonus: float = 0.0
    share: float = 0.0
    meaning: float = 0.0
    support: float = 0.0
    row: int = -1


async def extract(
    question: str,
    evidence: Sequence[Evidence],
    *,
    embed: Embed | None,
    limit_sentences: int = 4,
    floor: float = FLOOR,
    threshold: float = ABSTAIN_BELOW,
    timed: bool = False,
    each: bool = False,
    prefer: Sort | None = None,
) -> Extract:
    """The best supporting sentences of `evidence` (best record first) for `question`; abstains below `threshold`.

    `embed(texts, kind)` gives `(n, d)` unit float32 rows and `floor` is its model's cosine of unrelated texts; without
    it words alone decide. `timed`: what the question names besides, as its time, chose the evidence, so that a sentence with
    all its other words answers it ("what was fixed in March?"). `each`: records are asked for, a sentence of each. `prefer`:
    what only events or only documents can tell is said by them alone, where they support it nearly as well as the others.
    Order is by support, or by time where the question asks for a course of events. Same input, same result.
    """
    units = _units(evidence)
    if not units or not question.strip():
        return Extract((), 0.0, True, len(units))
    weights = _idf(frozenset(content_words(question)), units)
    _note_names_and_trouble(question, units, evidence, all_words=frozenset(weights) if timed else frozenset())
    for unit in units:
        unit.share = min(1.0, max(_share(unit.words, weights), NAMED * unit.named) + unit.bonus)
    chosen = _preselect(units, evidence)
    vectors = await _meanings(question, chosen, embed, floor) if embed else None
    _support(chosen, evidence, weights, vectors is not None)
    ranked = sorted([u for u in chosen if not u.heads] or chosen, key=lambda u: (-u.support, u.index, u.start))
    ranked = _preferred(ranked, evidence, prefer)
    best = ranked[0]
    nearest = Sentence(best.index, best.start, best.end, best.support)
    worth = WORTH_TELLING if _COURSE.search(question) else WORTH_SAYING
    picked = _pick(ranked, vectors, limit_sentences, worth, each=each)
    confidence = _confidence(best, evidence[best.index].score, vectors is not None)
    counts = (len(units), len(chosen) if vectors is not None else 0)
    if not _names_found(question, evidence):
        confidence = min(confidence, threshold / 2)
    if confidence < threshold:
        return Extract((), confidence, True, *counts, nearest)
    if asks_for_a_course(question) and all(evidence[u.index].kind != "chunks" for u in picked):  # documents are no events
        last = bool(_LAST.search(question))
        picked.sort(key=lambda u: _when(evidence[u.index], last=last), reverse=last)
    said = tuple(Sentence(u.index, u.start, u.end, u.support) for u in picked)
    return Extract(said, confidence, False, *counts, nearest)


# ---------------------------------------------------------------------------------------------------- candidates
def _units(evidence: Sequence[Evidence]) -> list[_Unit]:
    """The sentences of all records, each text once, in retrieval order."""
    units: list[_Unit] = []
    seen: set[object] = set()
    for index, item in enumerate(evidence):
        if item.kind != "chunks":
            if item.passage.id in seen:  # another record of a pattern that is already here
                continue
            seen.add(item.passage.id)
        before = None
        for start, end in _spans(item):
            text = item.value[start:end]
            key = (" ".join(text.split()).casefold(),)
            if key in seen:
                continue
            seen.add(key)
            words = frozenset(content_words(text))
            if item.kind == "template" and before is None:
                text = _WILDCARD.sub(" ", item.passage.text)  # the line without its header and its numbers
            units.append(_Unit(index, start, end, text, words, before))
            before = len(units) - 1
    return units


def _spans(item: Evidence) -> list[tuple[int, int]]:
    """Sentences of one record's passage; a line of a log is one, whatever full stops it has."""
    low, high = (item.span.start, item.span.end) if item.span and item.kind == "chunks" else (0, len(item.value))
    text = item.value[low : min(high, low + MOST_CHARS)]
    found = [m.span() for m in re.finditer(r"\S[^\n]*", text)] if item.kind == "template" else sentences(text)
    found = [span for span in found if not _FRAME.match(text, *span)] or found
    return [(low + start, low + _cut(text, start, end)) for start, end in found]


_WILDCARD = re.compile(r"<[^<>\s]{0,20}>")


_HEADING = re.compile(r"#{1,6}\s[^\n]*")
_FRAME = re.compile(r"at [\w.$/<>]+\([^)]*\)|\.\.\. \d+ (?:common frames|more)|File \"[^\"]+\", line \d+")  # of a stack trace


def _cut(text: str, start: int, end: int) -> int:
    if end - start > LONGEST_SENTENCE:
        blank = text.rfind(" ", start + LONGEST_SENTENCE // 2, start + LONGEST_SENTENCE)
        end = blank if blank > 0 else start + LONGEST_SENTENCE
    return start + len(text[start:end].rstrip())


def _preselect(units: list[_Unit], evidence: Sequence[Evidence]) -> list[_Unit]:
    """At most MOST_EMBEDDED units, by shared words and their record's score, in their first order."""
    order = sorted(range(len(units)), key=lambda i: (-units[i].share - evidence[units[i].index].score / 2, i))
    kept = sorted(order[:MOST_EMBEDDED])
    place = {old: new for new, old in enumerate(kept)}
    for i in kept:
        before = units[i].before
        units[i].before = None if before is None else place.get(before)
    return [units[i] for i in kept]


# ------------------------------------------------------------------------------------------------------- support
def _note_names_and_trouble(
    question: str, units: list[_Unit], evidence: Sequence[Evidence], *, all_words: frozenset[str]
) -> None:
    """Set `named`, `asks` and `bonus`: what meaning and shared words miss of identifiers, of questions like "what broke?",
    and of records that ask themselves. A sentence with `all_words` is named too."""
    names, troubled = identifiers(question), bool(_TROUBLE.search(question))
    nothing_else = troubled and not set(content_words(_TROUBLE.sub(" ", question))) - _VAGUE
    for unit in units:
        item = evidence[unit.index]
        trouble = troubled and item.level is not None and canonical_level(item.level) in ("error", "fatal")
        unit.bonus = TROUBLE * trouble
        unit.asks = unit.text.rstrip().endswith(("?", "？"))
        unit.heads = item.kind == "chunks" and _HEADING.fullmatch(unit.text) is not None
        unit.named = (nothing_else and trouble) or (bool(all_words) and all_words <= unit.words)
        if names and not unit.named:
            unit.named = all(name.search(item.value, unit.start, unit.end) for name in names)


async def _meanings(question: str, units: list[_Unit], embed: Embed, floor: float) -> Vectors:
    """Set each unit's meaning; returns the units' vectors."""
    import numpy as np

    asked = (await embed([question], "query"))[0]
    vectors = await embed([unit.text for unit in units], "passage")
    with_context = vectors.copy()
    for row, unit in enumerate(units):
        unit.row = row
        if unit.before is not None:
            with_context[row] += CONTEXT_MEANING * vectors[unit.before]
    with_context /= np.maximum(np.linalg.norm(with_context, axis=1, keepdims=True), 1e-9)
    for unit, cosine in zip(units, (with_context @ asked).tolist(), strict=True):
        unit.meaning = min(max((cosine - floor) / (1 - floor), NAMED * unit.named) + unit.bonus, 1.0)
    return vectors


def _support(units: list[_Unit], evidence: Sequence[Evidence], weights: Mapping[str, float], by_meaning: bool) -> None:
    """Set each unit's support."""
    meaning, whole = (W_MEANING, 1.0) if by_meaning else (0.0, W_WORDS + W_RETRIEVAL)
    for unit in units:
        words = unit.share
        if unit.before is not None:
            around = _share(unit.words | units[unit.before].words, weights)
            words = (1 - CONTEXT_WORDS) * words + CONTEXT_WORDS * around
        known = W_WORDS * words + W_RETRIEVAL * evidence[unit.index].score
        unit.support = min(1.0, (meaning * unit.meaning + known) / whole)


def _pick(ranked: list[_Unit], vectors: Vectors | None, limit: int, worth: float, *, each: bool) -> list[_Unit]:
    """The best units that are worth saying and say something new. Where the best is a question itself, the best statement
    near it sets what is worth saying, and comes first: "maybe the bank is down?" tells less than "it was never down"."""
    bar = ranked[0].support
    if ranked[0].asks:
        bar = next((u.support for u in ranked if not u.asks and u.support >= WORTH_TELLING * bar), bar)
    picked: list[_Unit] = []
    for unit in sorted(ranked, key=lambda u: u.asks):
        if len(picked) == limit or unit.support < worth * bar:
            continue
        if not any(unit.index == o.index if each else _same(unit, o, vectors) for o in picked):
            picked.append(unit)
    return picked


def _preferred(ranked: list[_Unit], evidence: Sequence[Evidence], prefer: Sort | None) -> list[_Unit]:
    """Those of the preferred sort, where the best of them is worth telling beside the best of all."""
    bar = WORTH_TELLING * ranked[0].support
    fitting = [u for u in ranked if (evidence[u.index].kind == "chunks") == (prefer == "documents")] if prefer else []
    return fitting if fitting and fitting[0].support >= bar else ranked


def _same(one: _Unit, other: _Unit, vectors: Vectors | None) -> bool:
    shared = len(one.words & other.words)
    if shared >= SAME_WORDS * max(1, len(one.words | other.words)):
        return True
    if shared >= PART_WORDS * max(1, min(len(one.words), len(other.words))):  # the one says nothing the other does not
        return True
    return vectors is not None and float(vectors[one.row] @ vectors[other.row]) > SAME_MEANING


def _confidence(best: _Unit, retrieval: float, by_meaning: bool) -> float:
    """How likely the records hold an answer (0-1), from the best sentence and the score of its record."""
    told = best.meaning if by_meaning else best.share
    raw = C_BEST * told + (1 - C_BEST) * retrieval
    return 1 / (1 + math.exp(-C_SLOPE * (raw - C_CENTRE)))


# --------------------------------------------------------------------------------------------------------- words
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_EMPTY_TEXT = """
a about am an and are as at be been being but by can could did do does for from had has have how i if in into is it its
may me might my no not of on or our s should so such t than that the their then there these they this to was we were
what when where which who whom whose why will with would you your
"""
_EMPTY = frozenset(_EMPTY_TEXT.split())
_ENDINGS = (("sses", "ss"), ("ies", "y"), ("ied", "y"), ("ing", ""), ("ed", ""), ("ly", ""), ("es", ""), ("s", ""), ("e", ""))
_VOWEL = re.compile("[aeiouy]")  # what is left without one is no word: of "string", "str"
_DOUBLED = re.compile(r"(?<=[aeiouy])([b-df-hjkmnp-rtvwx])\1$")  # "dropped" is of "drop"; but "fill", "pass"


def content_words(text: str) -> list[str]:
    """The words of a text that carry meaning, lower case, English endings off; Chinese and Japanese by character."""
    return [_stem(word) for word in _WORD.findall(text.casefold()) if word not in _EMPTY]


_TROUBLE = re.compile(
    r"\b(?:fail\w*|br[eo]ak\w*|broken?|error\w*|wrong|problem\w*|crash\w*|outage\w*|incident\w*|trouble|went down)\b",
    re.IGNORECASE,
)
_VAGUE = frozenset({"all", "any", "happen", "happened", "last", "latest", "log", "new", "now", "recent", "recently", "today"})
_NAMED_THING = re.compile(r"\w[\w.:/-]{3,}\w")
_ORDINARY = re.compile(r"\d+[a-z]{0,3}|\D+|[\d.:/-]{1,10}(?:T[\d:.]+Z?)?", re.IGNORECASE)


def tells_trouble(text: str) -> bool:
    """Whether a text says that something went wrong."""
    return bool(_TROUBLE.search(text))


def identifiers(question: str) -> list[re.Pattern[str]]:
    """What a question names by an identifier, to be found as a whole word."""
    return [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in named_things(question)]


def named_things(question: str) -> list[str]:
    """The identifiers of a question (`blk_-7571492`, `node-69`, `10.250.14.38`); numbers, dates and times of day are none."""
    found = dict.fromkeys(m.group() for m in _NAMED_THING.finditer(question))
    return [n for n in found if not _ORDINARY.fullmatch(n) or (n.isdigit() and len(n) > 5)][:8]


def _names_found(question: str, evidence: Sequence[Evidence]) -> bool:
    """Whether any record has any long identifier that is asked about: of another's fate nothing follows for it."""
    names = [n for n in identifiers(question) if len(n.pattern) > _LONG_NAME and re.search(r"\d", n.pattern)]
    if any(item.kind == "chunks" for item in evidence):  # a document may answer without the name
        return True
    return not names or any(n.search(item.value) for n in names for item in evidence)


_LONG_NAME = 26  # of a pattern, whose look-arounds have 16 characters


@functools.lru_cache(maxsize=16_384)  # the same words come over and over
def _stem(word: str) -> str:
    """A word without its ending, so that "expire", "expires", "expired" and "expiring" are one."""
    for ending, instead in () if word.endswith("ss") else _ENDINGS:
        rest = word[: -len(ending)]
        least = 5 if ending == "ly" else 3  # "reply" and "family" are whole
        if word.endswith(ending) and len(rest) >= least and _VOWEL.search(rest):
            return _stem(rest) if ending == "ly" else _DOUBLED.sub(r"\1", rest + instead)
    return _DOUBLED.sub(r"\1", word)


def _idf(asked: Iterable[str], units: Sequence[_Unit]) -> dict[str, float]:
    """Weight of each word asked for, from how many candidates have it (Lucene's idf)."""
    total = len(units)
    counts = {word: sum(word in unit.words for unit in units) for word in sorted(asked)}
    return {word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in counts.items()}


def _share(words: frozenset[str], weights: Mapping[str, float]) -> float:
    whole = sum(weights.values())
    return sum(weight for word, weight in weights.items() if word in words) / whole if whole else 0.0


_COURSE = re.compile(
    r"\b(?:happen(?:ed|ing|s)?|timeline|sequence|chronolog\w*|history|course|order of|leading up)\b",
    re.IGNORECASE,
)
_WHEN = re.compile(r"\bwhen\b", re.IGNORECASE)


_LAST = re.compile(r"\b(?:last|latest|most recent(?:ly)?)\b", re.IGNORECASE)


def _when(item: Evidence, *, last: bool) -> datetime:
    """When a record's text first, or last, was true: a pattern has more records than the one at hand."""
    if item.kind != "template":
        return item.timestamp
    return item.passage.last_seen if last else item.passage.first_seen


def asks_for_a_course(question: str) -> bool:
    """Whether an answer reads best in order of time."""
    return bool(_COURSE.search(question) or _WHEN.search(question))
