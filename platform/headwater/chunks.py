"""Text -> chunks and sentences, as exact code-point spans of the text they came from.

`text[span.start:span.end]` IS the chunk or sentence: nothing is rewritten, so a citation can point at it. Everything
here is deterministic and linear in the length of the text. Markdown is understood (headings, fences, tables, lists)
and plain text is Markdown without marks.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_INK = re.compile(r"\S")
_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})")
_ATX = re.compile(r"[ \t]{0,3}(#{1,6})[ \t]+(\S[^\n]*)")
_SETEXT = re.compile(r"[ \t]{0,3}(={3,}|-{3,})[ \t]*\r?\n?$")
_RULE = re.compile(r"[ \t]{0,3}(?:[-*_=~+#][ \t]*){3,}\r?\n?$")
_ITEM = re.compile(r"[ \t]*(?:[-*+\u2022\u2023\u25e6\u2043]|\(?\d{1,4}[.)]|\(?[A-Za-z][.)](?=[ \t]+[^\W\d_]))[ \t]+(?=\S)")
_STAMPED = re.compile(r"[\[(<{|]|\d{2,4}[-/:.]\d{1,2}\b")
_TABLE = re.compile(r"[ \t]*\|[^\n]*\|[ \t]*\r?\n?$")
_STOP = re.compile(  # possessive and started once per run of stops, so that it stays linear
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019\u00bb)\]*_]*+(?=\s)|[\u3002\uff01\uff1f]++[\u300d\u300f\u201d\u2019\uff09]*+"
)
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'\u201c\u2018\u00ab]*$")
_WORD = re.compile(r"[^\W\d_]{1,20}")
_WORDY = re.compile(r"\w")
_OPENERS = "\"'\u201c\u2018\u00ab([*_"
_SPACES = " \t\n\r\x0b\x0c"

_ABBREVIATIONS = frozenset(
    {
        "mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "vs", "etc", "eg", "ie", "e.g", "i.e", "cf", "al", "approx",
        "ca", "inc", "ltd", "corp", "dept", "est", "gen", "sen", "rep", "gov", "capt", "lt", "col", "sgt", "rev", "hon",
        "mt", "ft", "resp", "viz", "a.m", "p.m", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct",
        "nov", "dec", "bzw", "z.b", "u.a", "d.h", "usw",
    }
)  # fmt: skip
_MEASURED = re.compile(r"\d ?(?:ms|ft)$")  # a unit there, whatever it abbreviates elsewhere
_BEFORE_NUMBERS = frozenset(
    {
        "no",
        "nos",
        "fig",
        "figs",
        "eq",
        "eqs",
        "sec",
        "ch",
        "vol",
        "pp",
        "p",
        "art",
        "ref",
        "nr",
        "tab",
        "op",
        "ver",
        "v",
    }
)
_STARTERS = frozenset(
    {
        "The",
        "A",
        "An",
        "It",
        "Its",
        "In",
        "On",
        "At",
        "He",
        "She",
        "They",
        "We",
        "I",
        "You",
        "This",
        "That",
        "These",
        "Those",
        "There",
        "If",
        "When",
        "While",
        "After",
        "Before",
        "As",
        "But",
        "And",
        "However",
        "For",
        "Since",
        "Although",
        "Because",
        "So",
        "To",
        "By",
        "From",
        "With",
        "Our",
        "Their",
        "His",
        "Her",
        "What",
        "Why",
        "How",
        "Where",
        "Who",
        "No",
        "Not",
    }
)


class _Kind(IntEnum):
    BLANK, TEXT, ITEM, HEADING, TABLE, CODE, RULE = range(7)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text: the code-point span `[start, end)`, never blank at either end. `heading` is the path of the
    sections its first character stands in, a heading that begins the chunk included: `Install > Linux`."""

    start: int
    end: int
    heading: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    end: int  # behind the newline
    kind: _Kind
    level: int = 0  # of a heading
    title: str = ""


def chunk(text: str, *, size: int = 1400, overlap: int = 150) -> list[Chunk]:
    """Chunks of at most `size` code points in order, which together hold every non-blank character of `text`.

    Each end is the best break within reach: a section, then a block, a sentence, a line of code, a word, and inside a
    longer word the edge of a character cluster. A break early in the window must be a better one to win. Neighbours
    share up to `overlap` code points of prose from a sentence or word on; nothing is shared across a section's start
    and at most half of a chunk is. A form feed begins a page, and every chunk lies on one. Raises ValueError where
    not 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and less than size, not {overlap} of {size}")
    lines = list(_lines(text))
    breaks = _breaks(text, lines)
    places = [place for place, _ in breaks]
    sections = _Sections(lines)
    found: list[Chunk] = []
    start = _ink(text, 0)
    while start is not None:
        page = text.find("\f", start, start + size + 1)
        end, weight = (page, _SECTION) if page >= 0 else _cut(text, start, size, breaks, places)
        ink_end = end
        while text[ink_end - 1].isspace():
            ink_end -= 1
        found.append(Chunk(start, ink_end, sections.at(start)))
        following = _ink(text, end)
        if following is None:
            break
        if weight < _SECTION:
            shared = min(overlap, (ink_end - start) // 2, size - 1)
            following = min(following, _overlap_start(text, ink_end - shared, ink_end, breaks, places) or following)
        start = following
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans `(start, end)` of the sentences of `text`, in order: disjoint, no blanks at their ends, and together every
    non-blank character. Headings, list items, table rows and lines of code are sentences of their own; a line of
    prose that was only wrapped is not."""
    return [span for line_run in _runs(text, list(_lines(text))) for span in _split(text, *line_run)]


# ------------------------------------------------------------------------------------------------ lines of Markdown
def _lines(text: str) -> Iterator[_Line]:
    """The lines of `text` with what each is in Markdown."""
    fence = ""
    held: _Line | None = None  # a line of text that the next line may turn into a heading
    after_text = False
    for match in _LINE.finditer(text):
        start, end = match.span()
        line = _line(text, start, end, after_text)
        opened = _FENCE.match(text, start, end)
        if fence or opened:
            closes = fence and opened and opened[1].startswith(fence) and not text[opened.end() : end].strip()
            if opened and not fence:
                fence = opened[1]
            elif closes:
                fence = ""
            line = _Line(start, end, _Kind.CODE)
        if held is not None:
            underline = _SETEXT.match(text, start, end) if line.kind in (_Kind.RULE, _Kind.TEXT) else None
            if underline:
                level = 1 if underline[1][0] == "=" else 2
                yield _Line(held.start, end, _Kind.HEADING, level, text[held.start : held.end].strip()[:200])
                held, after_text = None, False
                continue
            yield held
            held = None
        after_text = line.kind in (_Kind.TEXT, _Kind.ITEM)
        if line.kind is _Kind.TEXT and end - start <= 200:
            held = line
        else:
            yield line
    if held is not None:
        yield held


def _line(text: str, start: int, end: int, after_text: bool) -> _Line:
    """One line outside a fence. Indented text right below text is that text going on; elsewhere it is code."""
    ink = _INK.search(text, start, end)
    if ink is None:
        return _Line(start, end, _Kind.BLANK)
    first = ink[0]
    if first == "#" and (heading := _ATX.match(text, start, end)):
        return _Line(start, end, _Kind.HEADING, len(heading[1]), heading[2].strip().rstrip("#").rstrip()[:200])
    if first == "|" and end - start < 100_000 and _TABLE.match(text, start, end):
        return _Line(start, end, _Kind.TABLE)
    if first in "-*_=~+#" and end - start < 1000 and _RULE.match(text, start, end):
        return _Line(start, end, _Kind.RULE)
    if _ITEM.match(text, start, end):
        return _Line(start, end, _Kind.ITEM)
    indented = text[start] == "\t" or ink.start() - start >= 4
    return _Line(start, end, _Kind.CODE if indented and not after_text else _Kind.TEXT)


class _Sections:
    """Which headings a place stands under."""

    def __init__(self, lines: list[_Line]) -> None:
        self._starts: list[int] = []
        self._paths: list[str] = []
        stack: list[_Line] = []
        for line in lines:
            if line.kind is _Kind.HEADING:
                while stack and stack[-1].level >= line.level:
                    stack.pop()
                stack.append(line)
                self._starts.append(line.start)
                self._paths.append(" > ".join(h.title for h in stack))

    def at(self, place: int) -> str:
        i = bisect_right(self._starts, place)
        return self._paths[i - 1] if i else ""


# -------------------------------------------------------------------------------------------------------- sentences
def _runs(text: str, lines: list[_Line]) -> Iterator[tuple[int, int, _Kind]]:
    """Runs of lines that read on: each is split into sentences by itself."""
    cased = _is_cased(text)
    current: tuple[int, int, _Kind] | None = None
    previous: _Line | None = None
    for line in lines:
        if current and previous and _reads_on(text, previous, line, cased):
            current = (current[0], line.end, current[2])
        else:
            if current:
                yield current
            current = None if line.kind is _Kind.BLANK else (line.start, line.end, line.kind)
        previous = line
    if current:
        yield current


def _reads_on(text: str, above: _Line, line: _Line, cased: bool) -> bool:
    """Whether `line` is the rest of a wrapped paragraph: prose below prose, not stamped like a log line, and either
    starting small or below a line long enough to have been wrapped."""
    if line.kind is not _Kind.TEXT or above.kind not in (_Kind.TEXT, _Kind.ITEM):
        return False
    ink = _INK.search(text, line.start, line.end)
    assert ink is not None
    first = ink[0]
    if _STAMPED.match(text, ink.start()) or (above.kind is _Kind.TEXT and ink.start() - line.start >= 4):
        return False
    length = len(text[above.start : above.end].rstrip())
    return length >= 50 or (first.islower() and cased and length >= 20)


def _is_cased(text: str) -> bool:
    """Whether capitals mean something here: at least 1 in 200 letters of the first 20,000 characters is one."""
    sample = text[:20_000]
    return sum(map(str.isupper, sample)) * 200 >= len(sample)


def _split(text: str, start: int, end: int, kind: _Kind) -> Iterator[tuple[int, int]]:
    """Sentences of one run of lines. A piece without a letter or digit belongs to the sentence before it."""
    held: tuple[int, int] | None = None
    for begin, stop in _pieces(text, start, end, kind):
        span = _trim(text, begin, stop)
        if span is None:
            continue
        if held is not None and _WORDY.search(text, *span) is None:
            held = (held[0], span[1])
            continue
        if held is not None:
            yield held
        held = span
    if held is not None:
        yield held


def _pieces(text: str, start: int, end: int, kind: _Kind) -> Iterator[tuple[int, int]]:
    """One run of lines, cut behind every stop that ends a sentence."""
    begin = start
    if kind in (_Kind.TEXT, _Kind.ITEM):
        cased = _is_cased(text[start : min(end, start + 20_000)])
        item = _ITEM.match(text, start, end) if kind is _Kind.ITEM else None
        for stop in _STOP.finditer(text, item.end() if item else start, end):
            if _ends_sentence(text, stop, start, end, cased):
                yield begin, stop.end()
                begin = stop.end()
    yield begin, end


def _ends_sentence(text: str, stop: re.Match[str], start: int, end: int, cased: bool) -> bool:
    mark = stop[0]
    if mark[0] in "\u3002\uff01\uff1f":
        return True
    ahead = stop.end()
    for ahead in range(stop.end(), min(end, stop.end() + 200)):
        if text[ahead] not in _SPACES and text[ahead] not in _OPENERS:
            break
    following = text[ahead] if ahead < end else "A"
    word = _WORD_BEFORE.search(text[max(start, stop.start() - 40) : stop.start()])
    before = word[0].strip("*_`,;:") if word else ""
    if mark[0] != ".":
        return not (cased and following.islower())
    if mark.startswith("..") and cased and following.islower():
        return False
    low = before.lower()
    if low in _ABBREVIATIONS and not _MEASURED.search(text, max(start, stop.start() - 12), stop.start()):
        return low in ("etc", "a.m", "p.m", "usw", "al") and following.isupper()
    if low in _BEFORE_NUMBERS:
        return not following.isdigit()
    if len(before) == 1 and before.isupper() and before != "I":
        return False  # an initial
    if "." in before and all(len(part) <= 2 and part.isalpha() for part in before.split(".")):
        return _next_word(text, ahead, end) in _STARTERS  # U.S. and its kind
    return not (cased and following.islower() and len(before) <= 4 and before.isalpha())


def _next_word(text: str, start: int, end: int) -> str:
    match = _WORD.match(text, start, end)
    return match[0] if match else ""


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    first = _INK.search(text, start, end)
    if first is None:
        return None
    while text[end - 1].isspace():
        end -= 1
    return first.start(), end


# ----------------------------------------------------------------------------------------------------------- chunks
# A break's weight is what it may lie earlier, as a share of the window, and still win: a block's start at 30% of the
# window (.9 + .3) beats a line inside a table at its very end (.1 + 1), so code and tables that fit stay whole.
_SECTION, _BLOCK, _ITEM_START, _SENTENCE, _CODE_LINE = 1.4, 0.9, 0.6, 0.45, 0.1
_LEAST = 0.15  # no break is worth a chunk shorter than this share of the window


def _breaks(text: str, lines: list[_Line]) -> list[tuple[int, float]]:
    """Places `(start, weight)` where a chunk may begin, in order; words are looked for on demand."""
    found: dict[int, float] = {}
    above = _Kind.BLANK
    headed = False
    for line in lines:
        if line.kind is _Kind.BLANK:
            above = above if above is _Kind.HEADING else _Kind.BLANK
            continue
        if line.kind is _Kind.HEADING:
            weight = _CODE_LINE if headed else _SECTION
        elif headed:
            weight = _CODE_LINE  # never leave a heading alone at a chunk's end
        elif line.kind in (_Kind.TABLE, _Kind.CODE) and above is line.kind:
            weight = _CODE_LINE
        elif above is _Kind.BLANK or line.kind in (_Kind.TABLE, _Kind.CODE) or above in (_Kind.TABLE, _Kind.CODE):
            weight = _ITEM_START if line.kind is _Kind.ITEM else _BLOCK
        else:
            weight = _ITEM_START if line.kind is _Kind.ITEM else 0.0
        if weight:
            found[line.start] = weight
        above, headed = line.kind, line.kind is _Kind.HEADING
    for run in _runs(text, lines):
        if run[2] not in (_Kind.TABLE, _Kind.CODE, _Kind.HEADING):
            for begin, _ in _split(text, *run):
                if run[0] < begin or run[0] not in found:
                    found.setdefault(begin, _SENTENCE)
    return sorted(found.items())


def _cut(text: str, start: int, size: int, breaks: list[tuple[int, float]], places: list[int]) -> tuple[int, float]:
    """Where the chunk that begins at `start` ends, and the weight of that break."""
    limit = start + size
    if len(text) <= limit:
        return len(text), 0.0
    best, best_score, best_weight = 0, 0.0, 0.0
    for i in range(bisect_right(places, start), bisect_right(places, limit)):
        place, weight = breaks[i]
        share = (place - start) / size
        if share >= _LEAST and weight + share >= best_score:
            best, best_score, best_weight = place, weight + share, weight
    if best:
        return best, best_weight
    if text[limit].isspace():
        return limit, 0.0
    for place in range(limit, start + max(1, size // 4), -1):
        if text[place - 1].isspace():
            return place, 0.0
    return _cluster_edge(text, start, limit), 0.0


def _cluster_edge(text: str, start: int, limit: int) -> int:
    """The last place up to `limit` that does not part a mark from its base; `limit` where 64 steps back find none."""
    for place in range(limit, max(start + 1, limit - 64), -1):
        mark, before = text[place], text[place - 1]
        joined = before == "\u200d" or mark in "\u200d\ufe0e\ufe0f" or "\U0001f3fb" <= mark <= "\U0001f3ff"
        if not joined and not unicodedata.category(mark).startswith("M"):
            return place
    return limit


def _overlap_start(text: str, low: int, high: int, breaks: list[tuple[int, float]], places: list[int]) -> int | None:
    """The first sentence in `[low, high)`, else the first word of it; None inside code and where there is neither."""
    i = bisect_left(places, low)
    while i < len(places) and places[i] < high:
        if breaks[i][1] >= _SENTENCE and (first := _ink(text, places[i])) is not None and first < high:
            return first
        i += 1
    around = bisect_right(places, high - 1) - 1
    if around >= 0 and breaks[around][1] == _CODE_LINE:
        return None
    for place in range(max(low, 1), high):
        if text[place - 1].isspace() and not text[place].isspace():
            return place
    return None


def _ink(text: str, start: int) -> int | None:
    """The next character that is not blank."""
    match = _INK.search(text, start)
    return match.start() if match else None
