"""Quotes located in records, and answers cleaned of every citation that is not there. Serves any answering model.

Spans are code points into the record's stored value. Whatever a model claims, a citation that leaves this module has
`value[start:end] == quote`: a quote that only nearly matches is replaced by the record's own text or removed.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from headwater.chunks import sentences
from headwater.errors import UsageError
from headwater.records import Citation, parse_address
from headwater.search.hits import page_of


class Quotable(Protocol):
    """A record that may be quoted."""

    @property
    def address(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """What a model says of one mark: mark `[n]` in its text stands for `quote` in the record at `address`. `start` says
    which of several equal quotes is meant; where it does not stand there, it is looked for."""

    n: int
    address: str
    quote: str
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer text after the check: marks renumbered 1.. in order of appearance, each backed by verified citations.
    `unsupported` are its sentences without one; `removed` says of each claim that went why."""

    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    removed: tuple[str, ...]


def locate(quote: str, value: str) -> tuple[int, int] | None:
    """The first span with `value[start:end] == quote`, or None; a blank quote stands nowhere. Linear time."""
    start = value.find(quote) if quote.strip() else -1
    return None if start < 0 else (start, start + len(quote))


def find(quote: str, value: str) -> tuple[int, int] | None:
    """The span the quote means: where it stands exactly, else where it first stands but for white space, case, width,
    accents' encoding, and the shapes of quotation marks and dashes. None where it does not. Linear time.

    The span covers whole characters with their combining marks; show `value[start:end]`, never the quote given.
    """
    return locate(quote, value) or _find_folded(quote, value, _fold(value))


def _find_folded(quote: str, value: str, fold: tuple[str, list[int]]) -> tuple[int, int] | None:
    folded, origin = fold
    for wanted in dict.fromkeys((_fold(quote)[0], _fold(quote.strip(_AROUND))[0])):
        wanted = wanted.strip(" ")
        at = folded.find(wanted) if any(map(str.isalnum, wanted)) else -1
        if at >= 0:
            start, end = origin[at], origin[at + len(wanted) - 1] + 1
            while end < len(value) and unicodedata.combining(value[end]):
                end += 1
            while start > 0 and unicodedata.combining(value[start]):
                start -= 1
            return start, end
    return None


_AROUND = " \t\r\n\"'“”‘’«»„`….*_"
_SAME = str.maketrans("“”„‟«»″‘’‚‛‹›′`´‐‑‒–—―−﹣－", '"""""""' + "'''''''''" + "---------")
_NOTHING = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")


def _fold(text: str) -> tuple[str, list[int]]:
    """`text` in one spelling, and for each of its characters the index in `text` it came from."""
    known: dict[str, str] = {}
    out: list[str] = []
    origin: list[int] = []
    blank = False
    for index, char in enumerate(text):
        if char.isspace():
            if not blank:
                out.append(" ")
                origin.append(index)
            blank = True
            continue
        spelt = known.get(char)
        if spelt is None:
            spelt = "" if char in _NOTHING else unicodedata.normalize("NFKD", char.translate(_SAME)).casefold()
            known[char] = spelt = spelt.translate(_SAME)
        if spelt:
            blank = False
            out.extend(spelt)
            origin.extend([index] * len(spelt))
    return "".join(out), origin


def check(
    text: str,
    claims: Sequence[Claim],
    evidence: Sequence[Quotable],
    *,
    supports: Callable[[str, str], bool] | None = None,
) -> Checked:
    """The text with only those `[n]` marks whose claim is true: its address is among the evidence and its quote is
    found there. Marks inside back-ticks or quotation marks are quoted text and stay as they are.

    `supports(sentence, quote)` judges whether a quote backs the sentence that cites it; by default they must share a
    content word. Linear in the text and in each cited record.
    """
    supports = supports or shares_words
    marks = _marks(text)
    found, removed = _verify(claims, evidence, {n for _, _, numbers in marks for n in numbers})
    claimed = {claim.n for claim in claims}
    unknown = dict.fromkeys(n for _, _, numbers in marks for n in numbers if n not in claimed)
    removed += [f"[{n}]: no such citation" for n in unknown]
    number: dict[tuple[str, int, int], int] = {}
    cleaned, places = _rewrite(text, marks, found, number)
    spans = _sentences(cleaned, [(at, at + len(mark)) for at, mark, _ in places])
    starts = [start for start, _ in spans]
    cited: set[int] = set()
    backing: dict[int, list[str]] = {}
    for at, _, numbers in places:
        sentence = max(bisect_right(starts, at) - 1, 0)
        cited.add(sentence)
        for n in numbers:
            backing.setdefault(n, []).append(cleaned[slice(*spans[sentence])] if spans else cleaned)
    values = {record.address: record for record in evidence}
    citations = []
    for (address, start, end), n in number.items():
        record = values[address]
        quote = record.value[start:end]
        backs = all(supports(sentence, quote) for sentence in backing[n])
        citations.append(Citation(n, address, quote, start, end, True, backs, record.timestamp, *page(record, start)))
    bare = [cleaned[a:b].strip() for i, (a, b) in enumerate(spans) if i not in cited]
    return Checked(cleaned, tuple(citations), tuple(filter(_claims_something, bare)), tuple(removed))


def page(record: Quotable, start: int) -> tuple[int, Literal["page", "slide", "sheet"]] | tuple[None, None]:
    """The page on which a quote begins and what such a page is called; nothing where the record is no document with pages."""
    about = record.attributes
    if "pages" not in about or "format" not in about:
        return None, None
    return page_of(record.value, start), _KINDS.get(about["format"], "page")


_KINDS: Mapping[str, Literal["page", "slide", "sheet"]] = {"pptx": "slide", "xlsx": "sheet"}


def shares_words(sentence: str, quote: str) -> bool:
    """Whether a sentence quotes the quote or shares a word of four letters or a number with it."""
    return quote in sentence or bool(_telling(quote) & _telling(_MARK.sub("", sentence)))


_WORD = re.compile(r"\w+")


def _telling(text: str) -> set[str]:
    return {w.casefold() for w in _WORD.findall(text) if len(w) > 3 or w.isdigit()}


def _claims_something(sentence: str) -> bool:
    """A heading that ends in a colon and a question claim nothing; everything else with a word does."""
    return any(map(str.isalnum, sentence)) and not sentence.rstrip("*_ ").endswith((":", "?"))


_Found = dict[int, list[tuple[str, int, int]]]


def _verify(claims: Sequence[Claim], evidence: Sequence[Quotable], used: set[int]) -> tuple[_Found, list[str]]:
    """The located spans of each mark, and a sentence on each claim that is not true."""
    records = {record.address: record for record in evidence}
    found: _Found = {}
    removed: list[str] = []
    folds: dict[str, tuple[str, list[int]]] = {}
    for claim in dict.fromkeys(claims):
        address = _canonical(claim.address)
        record = records.get(address)
        if claim.n not in used:
            removed.append(f"[{claim.n}]: the text does not refer to it")
        elif record is None:
            removed.append(f"[{claim.n}]: {claim.address[:200]!r} is not among the records retrieved")
        elif (span := _locate_claim(claim, record, folds)) is None:
            removed.append(f"[{claim.n}]: the quote does not stand in {address}")
        elif (address, *span) not in found.setdefault(claim.n, []):
            found[claim.n].append((address, *span))
    return found, removed


def _locate_claim(claim: Claim, record: Quotable, folds: dict[str, tuple[str, list[int]]]) -> tuple[int, int] | None:
    """`find`, folding each record at most once however many quotes are claimed of it."""
    quote, value, start = claim.quote, record.value, claim.start
    if start is not None and start >= 0 and quote.strip() and value.startswith(quote, start):
        return start, start + len(quote)
    if (exact := locate(quote, value)) is not None:
        return exact
    if record.address not in folds:
        folds[record.address] = _fold(value)
    return _find_folded(quote, value, folds[record.address])


def _canonical(text: str) -> str:
    try:
        return "{}/{}/{}".format(*parse_address(text.strip().strip("[]()")))
    except UsageError:
        return text


_MARK = re.compile(r"\[\s*\d{1,6}(?:\s*[,;]\s*\d{1,6})*\s*\]")
_QUOTED = re.compile(r'"[^"\n]*"|“[^“”\n]*”')


def _marks(text: str) -> list[tuple[int, int, list[int]]]:
    """`(start, end, numbers)` of each `[n]` or `[n, m]` outside quoted text."""
    plain = _hide(text)
    return [(m.start(), m.end(), [int(n) for n in re.findall(r"\d+", m.group())]) for m in _MARK.finditer(plain)]


def _hide(text: str) -> str:
    """`text` with what stands in back-ticks or quotation marks blotted out, length kept."""
    out: list[str] = []
    at = 0
    for start, end in _code(text):
        out += _QUOTED.sub(_blot, text[at:start]), "x" * (end - start)
        at = end
    out.append(_QUOTED.sub(_blot, text[at:]))
    return "".join(out)


def _blot(found: re.Match[str]) -> str:
    quoted = found.group()
    kept = 2 if quoted[-2] in ".!?" else 0  # a full stop inside the quotation still ends the sentence
    return "x" * (len(quoted) - kept) + quoted[len(quoted) - kept :]


def _code(text: str) -> list[tuple[int, int]]:
    """Code spans as Markdown has them: from a run of back-ticks to the next run of the same length."""
    runs = [(m.start(), m.end()) for m in re.finditer("`+", text)]
    following: dict[int, list[int]] = {}
    for index in range(len(runs) - 1, -1, -1):
        following.setdefault(runs[index][1] - runs[index][0], []).append(index)  # a stack, the first run on top
    spans, index = [], 0
    while index < len(runs):
        same = following[runs[index][1] - runs[index][0]]
        while same and same[-1] <= index:
            same.pop()
        closing = same[-1] if same else None
        if closing is not None:
            spans.append((runs[index][0], runs[closing][1]))
            index = closing
        index += 1
    return spans


def _rewrite(
    text: str, marks: list[tuple[int, int, list[int]]], found: _Found, number: dict[tuple[str, int, int], int]
) -> tuple[str, list[tuple[int, str, list[int]]]]:
    """The text with true marks renumbered into `number` and false ones gone, and `(position, mark, numbers)` of each."""
    out: list[str] = []
    places: list[tuple[int, str, list[int]]] = []
    length, at, last = 0, 0, ""
    for start, end, numbers in marks:
        spans = list(dict.fromkeys(span for n in numbers for span in found.get(n, [])))
        before = text[at:start] if spans else text[at:start].rstrip(" \t")
        new = [number.setdefault(span, len(number) + 1) for span in spans]
        mark = "".join(f"[{n}]" for n in new)
        if mark:
            places.append((length + len(before), mark, new))
        last = (before or last)[-1:]
        gap = _gap(last, text[start:end], mark, text[end : end + 1])
        out += before, mark, gap
        last = gap or mark or last
        length += len(before) + len(mark) + len(gap)
        at = end
    out.append(text[at:])
    return "".join(out), places


def _gap(before: str, old: str, mark: str, after: str) -> str:
    """What must stay where a mark went, so that the text around it means what it meant: a line's end, or a blank between
    back-ticks, which as one run would begin or end other code spans."""
    if "\n" in old:
        return "\n"
    return " " if not mark and before == after == "`" else ""


def _sentences(text: str, marks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sentence spans, a new one at least on each line; a mark behind the full stop belongs to the sentence before it."""
    plain = list(_hide(text))
    for start, end in marks:
        if start and text[start - 1] != "\n":
            plain[start:end] = " " * (end - start)
    spans = [
        (line.start() + start, line.start() + end)
        for line in re.finditer(r"[^\n]+", "".join(plain))
        for start, end in sentences(line.group())
    ]
    # Blanked marks lie between two spans; each span reaches to the next, so that a mark counts for the one before.
    ends = [start for start, _ in spans[1:]] + [len(text)]
    return [(start, end) for (start, _), end in zip(spans, ends, strict=False)]
