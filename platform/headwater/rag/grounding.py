"""Whether what a model said is in the records: each sentence is cited, or marked as unsupported. Holds whatever a model says.

A quote is shown only with the record's own characters (headwater.rag.speech) and is its own citation. A sentence without one
is cited by the sentence of the records that shares most of its words: of the records it names by `[n]`, or of all where it
names none. It is supported where that record says it:

    share    the part of the sentence's content words that its records have (their facts included: times, counts)
    meaning  (cosine - floor) / (1 - floor) of the sentence and the sentence it is cited by
    support  share where that decides alone, else (share + meaning) / 2; a number that no record has makes it 0

On 320 pairs of a written answer's sentence with its own or with another, similar passage (MTRAG) share alone has AUROC
.956, cosine alone .933, both .959 (bench_citations.py). Words decide while the answer streams; meaning, at its end, what
they leave open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headwater.chunks import sentences
from headwater.llm.extractive import LONGEST_SENTENCE, Embed, content_words
from headwater.rag.citations import find, page
from headwater.rag.packing import Entry
from headwater.rag.speech import Sentence
from headwater.records import Citation

if TYPE_CHECKING:
    from headwater.llm.extractive import Vectors

SURE, UNSURE = 0.7, 0.3  # shares from which, and up to which, words decide alone
SUPPORTED = 0.5  # of support
_BARE_SHARE = 0.6  # from which a sentence without any mark is cited by what it shares words with
_MOST_CITED = 3  # records of one sentence
Place = tuple[str, int, int]  # address, start, end


@dataclass(frozen=True, slots=True)
class Grounded:
    """A sentence with the places that back it. `supported` is None where it claims nothing, `open` where meaning has to decide
    (then over the places it might be `backed` by)."""

    sentence: Sentence
    places: tuple[Place, ...] = ()
    support: float = 0.0
    supported: bool | None = None
    open: bool = False
    backed: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence of an entry."""

    entry: int
    start: int
    end: int
    words: frozenset[str]


@dataclass(slots=True)
class Grounding:
    """The records of one answer. `asked` is the question: what it says needs no record."""

    entries: Sequence[Entry]
    asked: str = ""
    facts: str = ""  # what was counted for the question
    _units: list[_Unit] = field(default_factory=list)
    _words: list[frozenset[str]] = field(default_factory=list)
    _folded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for index, entry in enumerate(self.entries):
            value = entry.hit.value
            shown = value[entry.start : entry.end]
            spans = sentences(shown) if entry.kind != "template" else [m.span() for m in re.finditer(r"\S[^\n]*", shown)]
            for a, b in spans:
                start, end = entry.start + a, entry.start + min(b, a + LONGEST_SENTENCE)
                self._units.append(_Unit(index, start, end, frozenset(content_words(value[start:end]))))
            said = f"{entry.facts} {shown} {entry.hit.key or ''}"
            self._words.append(frozenset(content_words(said)))
            self._folded.append(_digits(said))

    def quoted(self, said: str) -> str | None:
        """A record's own text for a quote; None where none has it."""
        place = self._find(said, range(len(self.entries)))
        return None if place is None else self._text(place)

    def check(self, sentence: Sentence) -> Grounded:
        """The sentence judged by words."""
        if not _claims_something(sentence.text):
            return Grounded(sentence)
        words = frozenset(content_words(sentence.text)) - _GLUE
        named = [n - 1 for n in sentence.numbers if 0 < n <= len(self.entries)]
        quotes = [p for q in sentence.quotes if (p := self._find(q, named) or self._find(q, range(len(self.entries))))]
        among = list(dict.fromkeys([*named, *(self._index(p) for p in quotes)]))
        if not words:  # it is the quote, or says nothing of its own
            return Grounded(sentence, tuple(dict.fromkeys(quotes)), 1.0, True if quotes else None)
        if not among:
            among = self._likely(words)
            share = self._share(words, among)
            backed = tuple(self._best(words, i) for i in among)
            numbers = self._numbers_stand(sentence, among)
            if not numbers or share <= UNSURE or not backed:
                return Grounded(sentence, (), 0.0 if not numbers else share, False)
            if share >= _BARE_SHARE and len(words) > 2:
                return Grounded(sentence, backed, share, True)
            return Grounded(sentence, (), share, False, True, backed)
        more = [self._best(words, i) for i in self._telling(words, named) if i not in {self._index(p) for p in quotes}]
        places = tuple(dict.fromkeys([*quotes, *more]))[: _MOST_CITED + len(quotes)]
        share = self._share(words, among)
        if not self._numbers_stand(sentence, among):
            return Grounded(sentence, tuple(dict.fromkeys(quotes)), 0.0, False)
        if share >= SURE:
            return Grounded(sentence, places, share, True)
        if share <= UNSURE:
            return Grounded(sentence, tuple(dict.fromkeys(quotes)), share, False)
        return Grounded(sentence, places, share, share >= SUPPORTED, True, places)

    async def settle(self, judged: Sequence[Grounded], embed: Embed | None, floor: float) -> list[Grounded]:
        """The same, with what words left open decided by meaning (where there is a model for it), in one call."""
        waiting = [g for g in judged if g.open]
        texts = list(dict.fromkeys(t for g in waiting for t in (_outside(g.sentence.text), *map(self._text, g.backed))))
        if embed is None or not texts:
            return [replace(g, open=False) for g in judged]
        vectors: Vectors = await embed(texts, "passage")
        row = {text: vectors[k] for k, text in enumerate(texts)}
        return [self._decide(g, row, floor) if g.open else g for g in judged]

    def _decide(self, g: Grounded, row: dict[str, Vectors], floor: float) -> Grounded:
        own = row[_outside(g.sentence.text)]
        near = max((float(own @ row[self._text(p)]) - floor) / (1 - floor) for p in g.backed)
        support = (g.support + max(0.0, near)) / 2
        supported = support >= SUPPORTED
        return replace(g, places=g.backed if supported else g.places, support=support, supported=supported, open=False)

    # ------------------------------------------------------------------ where

    def _find(self, quote: str, among: Sequence[int]) -> Place | None:
        for index in among:
            entry = self.entries[index]
            if (span := find(quote, entry.hit.value[entry.start : entry.end])) is not None:
                return entry.address, entry.start + span[0], entry.start + span[1]
        return None

    def _index(self, place: Place) -> int:
        address, start, end = place
        at = (i for i, e in enumerate(self.entries) if e.address == address and e.start <= start and end <= e.end)
        return next(at)

    def _text(self, place: Place) -> str:
        address, start, end = place
        return next(e.hit.value[start:end] for e in self.entries if e.address == address)

    def _best(self, words: frozenset[str], index: int) -> Place:
        """The sentence of an entry that shares most words, the shortest of equals."""
        own = [u for u in self._units if u.entry == index]
        entry = self.entries[index]
        if not own:
            return entry.address, entry.start, min(entry.end, entry.start + LONGEST_SENTENCE)
        best = max(own, key=lambda u: (len(u.words & words), -len(u.words), -u.start))
        return entry.address, best.start, best.end

    def _telling(self, words: frozenset[str], named: Sequence[int]) -> list[int]:
        """Those of the entries a sentence names that have some of its words: small models name all they were shown."""
        shared = {i: len(words & self._words[i]) for i in named}
        most = max(shared.values(), default=0)
        return [i for i in named if shared[i] and 2 * shared[i] >= most]

    def _likely(self, words: frozenset[str]) -> list[int]:
        """The entry that shares most words with a sentence that names none."""
        shares = [(len(own & words), -i) for i, own in enumerate(self._words)]
        return [-max(shares)[1]] if shares and max(shares)[0] else []

    def _share(self, words: frozenset[str], among: Sequence[int]) -> float:
        known = frozenset().union(*(self._words[i] for i in among)) | frozenset(content_words(self.facts))
        new = words - frozenset(content_words(self.asked)) or words  # the question's own words prove nothing, but
        whole = len(words & known) / len(words) if words else 0.0  # a sentence that repeats them is about them
        return min(whole, (whole + len(new & known) / len(new)) / 2) if new else whole

    def _numbers_stand(self, sentence: Sentence, among: Sequence[int]) -> bool:
        """Whether every number of a sentence is in its records, in what was counted, or in the question."""
        known = " ".join([self.asked, _digits(self.asked), _digits(self.facts), *(self._folded[i] for i in among)])
        return all(_has(number, known) for number in _NUMBER.findall(_digits(_outside(sentence.text))))


_GLUE = frozenset(
    content_words(
        "log logs record records line lines entry entries say says said report reports reported show shows showed state states"
        " stated message messages according mention mentions tell tells"
    )
)
_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")


def _digits(text: str) -> str:
    """`1,204` as `1204`."""
    return _GROUPED.sub("", text)


def _has(number: str, known: str) -> bool:
    if len(number) == 1:  # "two reasons: 1." counts rather than tells
        return True
    return number in known and re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", known) is not None


def _outside(text: str) -> str:
    """A sentence without the quotes shown in it; the quotes where there is nothing else."""
    bare = _CODE.sub(" ", text)
    return bare if re.search(r"\w", bare) else text


def _claims_something(sentence: str) -> bool:
    """A heading that ends in a colon and a question claim nothing; everything else with a word does."""
    return bool(re.search(r"[^\W_]", sentence)) and not sentence.rstrip("*_ ").endswith((":", "?"))


@dataclass(slots=True)
class Bibliography:
    """Citations numbered as they come up: one number for each place."""

    entry_of: Callable[[str], Entry]
    numbers: dict[Place, int] = field(default_factory=dict)
    backs: dict[Place, bool] = field(default_factory=dict)

    def marks(self, judged: Grounded) -> tuple[str, list[Citation]]:
        """The marks behind a sentence, and the citations that are new."""
        new = []
        for place in judged.places:
            known = place in self.numbers
            n = self.numbers.setdefault(place, len(self.numbers) + 1)
            self.backs[place] = self.backs.get(place, True) and judged.supported is not False
            if not known:
                new.append(self.citation(place, n))
        marks = "".join(f"[{self.numbers[p]}]" for p in judged.places)
        return (f" {marks}" if marks else ""), new

    def citation(self, place: Place, n: int) -> Citation:
        address, start, end = place
        hit = self.entry_of(address).hit
        return Citation(n, address, hit.value[start:end], start, end, True, self.backs[place], hit.timestamp, *page(hit, start))

    def citations(self) -> tuple[Citation, ...]:
        """All, in order of their numbers."""
        return tuple(self.citation(place, n) for place, n in sorted(self.numbers.items(), key=lambda kv: kv[1]))
