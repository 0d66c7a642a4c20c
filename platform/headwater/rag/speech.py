"""What a model says, made safe to show while it is being said: a machine of text in, text and whole sentences out.

No I/O. However a reply is cut into pieces, the same comes out. On the way

    marks        `[3]` and `[1, 2]` leave the text; a sentence says which it had, and its citations come behind its end
    quotes       text between quotation marks or back-ticks is shown as a quote (a code span of the record's own text) only
                 where a record has it; otherwise it goes on as the model's words, without the quotation marks
    addresses    of records that were not retrieved are cut down to their topic
    links        Markdown links and images, HTML tags and URLs are broken up, so that no viewer follows or loads them

A piece is held back only while it may still become one of these: plain words pass at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from headwater.chunks import sentences
from headwater.rag.say import code_span
from headwater.visible import visible

NO_ANSWER = "NO ANSWER"  # what a model is told to say where the records do not answer
_LONGEST_QUOTE = 600
_MOST = 60_000  # characters of a reply that are read


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that is complete: `text` as shown, the `numbers` of its marks, the record texts it `quotes`. `gap` stands
    before it (blanks, line ends)."""

    gap: str
    text: str
    numbers: tuple[int, ...]
    quotes: tuple[str, ...]


Said = str | Sentence  # a piece to show, or the end of the sentence shown last


@dataclass(slots=True)
class Speech:
    """`feed` pieces as they come, `end` when there are no more. `quoted` gives a record's own text for a quote, None where no
    record has it; `known` are the addresses that may be named. Sentences joined with their gaps are all that was shown."""

    quoted: Callable[[str], str | None]
    known: Collection[str] = frozenset()
    refused: bool = False  # the model said that the records hold no answer
    _buffer: str = ""
    _passed: str = ""  # of the word at the buffer's start, what was shown already
    _gap: str = ""
    _space: str = ""  # held until it is known what follows
    _marked: bool = False  # a mark stood here
    _text: str = ""  # the sentence so far
    _plain: str = ""  # the same, quotes blotted out
    _numbers: list[int] = field(default_factory=list)
    _quotes: list[str] = field(default_factory=list)
    _begun: bool = False
    _read: int = 0

    def feed(self, piece: str) -> list[Said]:
        """What can be shown now."""
        if self.refused or self._read >= _MOST:
            return []
        self._buffer += piece[: _MOST - self._read]
        self._read += len(piece)
        return self._take(final=False)

    def end(self) -> list[Said]:
        """What is left."""
        if self.refused:
            return []
        out = self._take(final=True)
        return [*out, *self._close()]

    # ------------------------------------------------------------------ one item after the other

    def _take(self, *, final: bool) -> list[Said]:
        out: list[Said] = []
        if not self._begun and not self._begins(final=final):
            return out
        while self._buffer and not self.refused:
            before = len(self._buffer), self._passed
            first = self._buffer[0]
            if self._passed or (first not in _SPECIAL and not first.isspace()):
                out += self._word(final=final)
            elif first.isspace():
                out += self._blank()
            elif first == "[":
                out += self._mark(final=final)
            else:
                out += self._quote(final=final)
            if (len(self._buffer), self._passed) == before:
                break
        return out

    def _begins(self, *, final: bool) -> bool:
        """Whether it is clear if the reply is a refusal."""
        self._buffer = self._buffer.lstrip()
        head = self._buffer.lstrip("*_\"'`[ ")[: len(NO_ANSWER)]
        if not final and len(head) < len(NO_ANSWER) and NO_ANSWER.startswith(head):
            return False
        self._begun = True
        self.refused = head == NO_ANSWER
        return not self.refused

    def _blank(self) -> list[Said]:
        match = _BLANK.match(self._buffer)
        assert match is not None
        self._space += match.group()
        self._buffer = self._buffer[match.end() :]
        return self._close() if "\n" in self._space else []

    def _mark(self, *, final: bool) -> list[Said]:
        match = _MARK.match(self._buffer)
        if match is not None:
            self._numbers += [int(n) for n in re.findall(r"\d+", match.group())]
            self._buffer, self._marked = self._buffer[match.end() :], True
            return []
        if not final and _MAY_BE_MARK.fullmatch(self._buffer):
            return []
        return self._word(final=final)

    def _quote(self, *, final: bool) -> list[Said]:
        opening = _OPENING.match(self._buffer)
        assert opening is not None
        if not final and opening.end() == len(self._buffer):  # more of the run may come
            return []
        closing = _CLOSING.get(opening.group(), opening.group())
        line_end = self._buffer.find("\n", opening.end())
        end = self._buffer.find(closing, opening.end(), line_end if line_end >= 0 else None)
        if end < 0:
            if not final and line_end < 0 and len(self._buffer) < _LONGEST_QUOTE:
                return []
            self._buffer = self._buffer[opening.end() :]  # it never closes: no quotation
            return []
        said = self._buffer[opening.end() : end]
        own = self.quoted(said) if said.strip() else None
        if own is None:
            self._buffer = f"{_bare(said)}{self._buffer[end + len(closing) :]}"
            return []
        self._buffer = self._buffer[end + len(closing) :]
        self._quotes.append(own)
        shown = code_span(visible(own, newlines="mark"))
        ends = "." if own[-1:] in ".!?" else "x"
        return self._show(shown, "x" * (len(shown) - 1) + ends)

    def _word(self, *, final: bool) -> list[Said]:
        match = _WORD.match(self._buffer)
        length = match.end() if match is not None else 1
        whole = final or length < len(self._buffer)
        if whole:
            word, self._buffer = self._passed + self._buffer[:length], self._buffer[length:]
            told = self._harmless(word)
            told, self._passed = told[len(self._passed) :] if told.startswith(self._passed) else "", ""
            return self._show(told, told) if told else []
        if "www".startswith((self._passed + self._buffer)[:3].lower()):
            return []
        safe = _SAFE.match(self._buffer)
        if safe is None or (safe.end() < length):
            return []
        told, self._buffer = self._buffer, ""
        shown = self._show(told, told)
        self._passed += told
        return shown

    def _harmless(self, word: str) -> str:
        """A word that no viewer follows or loads; of the address of a record that was not retrieved the topic stays."""
        word = _ADDRESS.sub(lambda m: m.group() if m[1] in self.known else m[1].split("/")[0], word)
        word = _SCHEME.sub("[:]//", word)
        word = _WWW.sub("www[.]", word)
        return visible(_MARKDOWN.sub(r"\1 \2", _TAG.sub("< ", word)))

    # ------------------------------------------------------------------ sentences

    def _show(self, text: str, plain: str) -> list[Said]:
        """Text at the end of the sentence, which is ended before it where a new one begins with it."""
        out: list[Said] = []
        if self._space and self._text:
            gap = "" if self._marked and text[0] in ".,;:!?)" else _plain_gap(self._space)
            if gap and _ends(self._plain, gap, plain[0]):
                out += self._close()
                self._space = gap
            else:
                self._space, text, plain = "", gap + text, gap + plain
        elif (self._text[-1:], text[0]) in (("!", "["), ("`", "`")):  # an image; two quotes that would be one
            text, plain = f" {text}", f" {plain}"
        if not self._text:
            self._gap += _plain_gap(self._space) if self._space else ""
            self._space = ""
            if self._gap:
                out.append(self._gap)
        self._text += text
        self._plain += plain
        self._marked = False
        out.append(text)
        return out

    def _close(self) -> list[Said]:
        """The sentence ends here; what marks stand behind it belong to it."""
        if not self._text:
            self._numbers = []
            return []
        done = Sentence(self._gap, self._text, tuple(dict.fromkeys(self._numbers)), tuple(dict.fromkeys(self._quotes)))
        self._gap, self._text, self._plain, self._numbers, self._quotes = "", "", "", [], []
        return [done]


def _ends(plain: str, gap: str, following: str) -> bool:
    """Whether a new sentence begins behind `plain`."""
    if _STOPPED.search(plain[-8:]) is None:
        return False
    before = plain[-_LOOKED_BACK:]
    found = sentences(f"{before}{gap}{following}")
    return len(found) > 1 and found[-1][0] == len(before) + len(gap)


def _plain_gap(space: str) -> str:
    """Blanks as one, line ends as one or two, with the indentation of what follows."""
    if "\n" not in space:
        return " "
    return ("\n\n" if space.count("\n") > 1 else "\n") + " " * min(len(space.rpartition("\n")[2]), 8)


def _bare(said: str) -> str:
    """Text that is no quote: without what would open another one."""
    return _QUOTATION.sub("", said)


_LOOKED_BACK = 300  # characters that tell whether a stop ends a sentence
_STOPPED = re.compile(r"[.!?。！？…]\W*$")
_SPECIAL = '["“”«»„`'
_QUOTATION = re.compile('["“”«»„`]')
_OPENING = re.compile('`+|["“”«»„]')
_CLOSING = {"“": "”", "«": "»", "„": "“"}
_BLANK = re.compile(r"\s+")
_MARK = re.compile(r"\[\s*\d{1,4}(?:\s*[,;]\s*\d{1,4}){0,9}\s*\]")
_MAY_BE_MARK = re.compile(r"\[[\s\d,;]{0,60}")
_WORD = re.compile(r"\[?[^\s\[\"“”«»„`]*")
_SAFE = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ADDRESS = re.compile(r"(?<![\w./-])((?=[\d._-]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{0,99}/\d{1,18}/\d{1,18})(?!\d)")
_SCHEME = re.compile(r":/{2,}")
_WWW = re.compile(r"\bwww\.", re.IGNORECASE)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_MARKDOWN = re.compile(r"(\]|!)(?=[(\[:])()")
