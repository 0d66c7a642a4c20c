"""How the records of a topic become passages, judged from the first of them.

Prose and chat must never be templated ("change my passcode" would merge with "unblock my PIN"), so the benefit of the
doubt is `exact`. Each text votes by what it looks like; many texts are also judged by how far they collapse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from headwater.lines.reading import LineReader
from headwater.records import PassageKind
from headwater.templates.masking import fold, loose, mask

_LOOKED_AT = 300
_LOOK_CHARS = 4000
_LONG_CHARS = 600  # prose longer than this is a document
_LATEST_MS = 4_102_444_800_000  # any timestamp before 2100 is one
_CHAT = re.compile(
    r"\s*\[?(?:[0-9T:. /-]{4,25}(?:[AaPp][Mm])?)?\]?\s*(?:<[@+~&% ]?[\w\[\]\\`^{}|-]{1,30}>\s|\*\s\S+\s)"
    r"|\s*(?:===|-->|<--|-!-)\s"
)
_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
_FOREIGN = re.compile(r"[^\W\d_\u0000-\u024f]")  # letters of other scripts than the Latin
_COMMON = frozenset(
    re.split(
        r"\s+",
        """the a an is are was were be been am do does did have has had will would can could should may i me my mine you your
        we us our they them their he she it its this that these those there here who what when where why how which and or
        but if so because of in on at to from with for about not no yes don't can't isn't it's i'm i've just than then as by
        der das den dem und ist sind nicht ein eine einen ich wir sie mit für auf von zu noch auch sich wie wird
        el los las la que una por para con se su mi pero está muy desde hace cuando como
        le les des est une pour pas avec sur dans je nous vous qui que ce cette
        não uma das meu minha você são quando il di che sono della nel mio het een niet van ik mijn voor""",
    )
)
_ADDRESSED = frozenset(
    re.split(
        r"\s+",
        """i i'm i've i'd i'll me my mine you your you're we we're us our please thanks thank hello hi hey sorry lol ok okay
        yes yeah ich mir mich mein meine bitte danke hallo hola gracias buenos buenas mi favor je merci bonjour
        olá obrigado obrigada meu minha ciao grazie mio ik mijn bedankt""",
    )
)
_SIGNS = (  # what machine lines have, and how much it counts
    (1.2, re.compile(r"(?:^|[\s,;(\[{])[\w.-]+=\S")),
    (0.8, re.compile(r"[\[\]{}<>|\\#=]|\w_\w|::")),
    (0.8, re.compile(r"\b[a-z]+[A-Z]\w*|\b[A-Z][a-z]+[A-Z]\w*")),  # identifiers with humps
    (0.8, re.compile(r"\b[A-Za-z_]\w+(?:\.[A-Za-z_]\w+){2,}|\w\(\w*\)")),  # a.b.c, call()
    (0.8, re.compile(r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b|\b0x[0-9a-fA-F]+|\b[0-9a-fA-F]*[0-9][0-9a-fA-F]{7,}\b")),
    (0.5, re.compile(r"(?:^|[\s\"'=(])/[\w.-]+/[\w./-]*")),
    (0.6, re.compile(r"(?<![\w.])[0-9]+(?![\w,.]*[?!])")),
    (0.5, re.compile(r"^\S+(?:\s\S+){0,3}\s?:(?:\s|$)")),
    (0.5, re.compile(r"\b[A-Z]{3,}\b")),
    (0.5, re.compile(r"(?i)\b(?:error|fail(?:ed|ure)|exception|timed? ?out|warning|connection|started|stopped|exited)\b")),
    (0.5, re.compile(r"(?i)\b(?:succeeded|session|thread|server|queue|socket|interrupt(?:ed)?|kernel|packet)\b")),
)  # fmt: skip


def decide(values: Sequence[str], *, written: bool = False, levelled: bool = False) -> PassageKind:
    """`template` for machine lines, `chunks` for long texts, `exact` for anything else (prose, chat, names).

    Judges up to 300 values, and is meant to be right from one value on. `written`: it is known that people wrote them, which
    are no machine lines however they look. `levelled`: they came with levels beside them, as lines of structured logs do,
    whose texts may read like prose; those that collapse are machine lines then."""
    texts = [value[:_LOOK_CHARS] for value in values[: 4 * _LOOKED_AT] if value and not value.isspace()][:_LOOKED_AT]
    if not texts:
        return "exact"
    if sum(_CHAT.match(text) is not None for text in texts) * 4 > len(texts):
        return "exact"
    reader = LineReader(lambda: _LATEST_MS)
    enough = 0.8 if len(texts) >= 5 else 1.3  # few texts must speak more plainly
    votes = [_vote(text, reader, enough) for text in texts]
    machine = sum(vote == "template" for vote in votes)
    prose = sum(vote == "prose" for vote in votes)
    if written:
        machine, levelled = 0, False
    alike = not written and len(texts) >= 20 and _collapse(texts) < 0.6
    if machine * 2 > len(texts) or (alike and (levelled or prose * 4 < len(texts))):
        return "template"
    long = sum(len(text) > _LONG_CHARS or (len(text) > _LONG_CHARS // 2 and text.count("\n") > 3) for text in texts)
    return "chunks" if long * 3 > len(texts) else "exact"


def _vote(text: str, reader: LineReader, enough: float) -> str:
    """`template`, `prose`, or nothing where a text tells neither; a line without header needs a score of `enough`."""
    reading = reader.read(text)
    body = reading.message
    shares = _shares(body)
    if reading.time_ms is not None or (reading.start and reading.level is not None):
        spoken = shares > 0.5 or (shares > 0.3 and len(body) > _LONG_CHARS)
        return "prose" if spoken and reading.level is None else "template"
    if reading.attributes:
        return "template" if reading.level is not None or _machine(body) > 0 or shares == 0 else "prose"
    if len(text) > 1500 or text.count("\n") > 3 or (len(text) > 300 and shares > 0.2):
        return "prose"
    score = _machine(body)
    return "template" if score >= enough + max(0, len(text) - 300) / 400 else "prose" if score < -1 else ""


def _shares(text: str) -> float:
    words = _WORD.findall(text[:1000].lower())
    return sum(word in _COMMON for word in words) / len(words) if words else 0.0


def _machine(text: str) -> float:
    """How much a text looks written by a program: above 0 rather so, below 0 rather by a person."""
    words = _WORD.findall(text[:1000].lower())
    if not words:
        return 0.5 if any(map(str.isdigit, text)) else -0.5
    score = 0.3 - 5 * sum(word in _COMMON for word in words) / len(words)
    score -= 1.5 * min(2, sum(word in _ADDRESSED for word in words))
    if text.rstrip().endswith("?"):
        score -= 2
    if len(_FOREIGN.findall(text[:1000])) * 3 > sum(map(len, words)):
        score -= 1  # its words are not known here: the benefit of the doubt
    return score + sum(weight for weight, sign in _SIGNS if sign.search(text[:1000]))


def _collapse(texts: Sequence[str]) -> float:
    """Distinct masked shapes over distinct texts: near 1 for prose, and for the same few texts over and over, which need no
    templates; small for machine lines."""
    distinct = set(texts)
    return len({mask(loose(fold(text))[0].decode()) for text in distinct}) / len(distinct)
