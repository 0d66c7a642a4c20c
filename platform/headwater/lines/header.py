"""Where the header of a plain log line ends, and what in it names the level: judged by shape, never by the name of a system.

A line has a header when a timestamp stands among its first words. What is before the timestamp (hosts, labels, counters)
and what follows it up to the message (process ids, levels, threads, components) belong to the header. Without a timestamp
only a level at the very beginning makes one. Only the shape of digits is looked at, so one layout holds for every line of
the shape.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from headwater.lines.time import TimeSpan, match_time
from headwater.records.levels import WRITTEN

HEAD_CHARS = 256  # how far into a line its header is looked for
_CLOSING = {"[": "]", "(": ")", "<": ">"}
_TIMELESS_CHARS = 96  # fewer do not settle that a line has no timestamp

LETTERS = {"V": "trace", "D": "debug", "I": "info", "W": "warn", "E": "error", "F": "fatal"}

_UPPER = (
    "TRACE|VERBOSE|FINEST|FINER|FINE|DEBUG|DBG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|SEVERE|FAILURE|CRIT(?:ICAL)?|ALERT|FATAL"
    "|EMERG|PANIC"
)
_ANY = "(?i:" + _UPPER + "|INFORMATION|NOTE)"
_TOKEN = re.compile(r"[^\s|]+")
# Words of sentences: a timestamp behind one of them is part of the message.
_PROSE = re.compile(
    r"\b(?:at|from|on|to|in|until|till|since|is|was|of|for|by|the|a|an|and|with|before|after|between|due|finished|started)\b|[=\"'?!;{]"
)
_GAP = re.compile(r"(?:-|NULL|[^\s\[\]()\"'=]*[0-9_/@][^\s\[\]()\"'=]*|[A-Z0-9_]+)(?:\s+|$)")
_PRIORITY = re.compile(r"<([0-9]{1,3})>([0-9] )?\s*")
_RFC5424 = re.compile(r"\s\S+\s\S+\s\S+\s\S+\s(?:-|\[[^\]]*\](?:\[[^\]]*\])*)(?:\s+|$)")
_LEADING = re.compile(
    rf"\s*(?:[\[<(](?P<a>{_ANY})[\]>)]:?\s*(?:[-|]\s+)?|(?P<b>{_ANY}):\s+|(?P<c>{_UPPER})(?:\s{{2,}}|\s+(?=[\[|-]))(?:[-|]\s+)?)"
    rf"|(?P<d>[VDIWEF])/(?=[\w.-]+\s*(?:\([^)]*\))?:)"
)
# One element of what may stand between a timestamp and the message; the group that matched tells the sort.
_ELEMENT = re.compile(
    rf"""\s*(?:
      (?P<stop>-{{1,2}}(?=\s)(?!\s+\[))                                   # a dash alone
    | (?P<rule>-{{3}}(?=\s)|[-|,:]+(?=\s|$)|\|)
    | (?P<level>[\[<(](?:{_ANY})[\]>)]:?(?=\s|$)|(?:{_UPPER}|LOG):?(?=[\s|\[]|$)|{_ANY}(?=\s{{2}}|\s-\s|:\s))
    | (?P<bracket>\[(?:[^\[\]]|\[[^\[\]]*\])*\]:?(?=\s|$)|\([\w.:/\#-]+\):?(?=\s))  # [thread], [id=1/0:0], (thread)
    | (?P<number>-?[0-9]+:?(?=[\s|]))                        # process and thread ids
    | (?P<stream>(?:stdout|stderr)\s[FP](?=\s))                           # what container runtimes write
    | (?P<letter>[VDIWEF](?=\s+[\w.$/-]{{1,60}}\s*:\s|/\w))                                    # a level of one letter
    | (?P<component>[A-Za-z_][\w.$/@\#-]*(?:\([\w.-]*\))?(?:\[[\w.:/-]*\]|:[0-9]+\]?)?\s?:(?=\s)
        |[\w.-]+:[0-9]+\](?=\s)|[0-9]+\#[0-9]+:(?=\s))                                          # a.b.C: name[1]: f.cc:12] 1#2:
    | (?P<dotted>(?:[a-z_][\w$]*\.){{2,}}[\w$]+(?=\s))                    # a.b.c without a colon
    | (?P<column>[A-Z][A-Za-z]{{1,11}}(?=\s{{2,}})|[\w.-]+(?=\||\s-\s))
    | (?P<program>\S+\.(?i:exe)(?:\s\*[0-9]+)?(?=\s-\s))
    | (?P<mark>[*\#.](?=\s\S))
    )""",
    re.VERBOSE,
)
_ONCE = frozenset(("level", "letter", "bracket", "component", "dotted", "program", "stream", "mark"))
_SETTLING = frozenset(("level", "bracket", "component", "dotted", "program"))
_PROCESS = re.compile(r"\s*(?:[\w.:/@\#-]+\s+)?([\w./() -]{1,60}?(?:\[[\w.:-]*\])?(?:\s\([^()\s]*\))?):(?=\s|$)")
_REPEATED = re.compile(r"\s+[\w.-]+\s+(?=---\s)")
_UPTO_LEVEL = re.compile(rf"\s+(?:[A-Z0-9_][A-Z0-9_:.\-]*\s+){{1,4}}(?=(?:{_UPPER})\s)")
_INLINE = re.compile(
    rf"(?<![\w.])(?:({_UPPER})\b(?!\s*=)|[\[<(]({_ANY})[\]>)]|(?:^|(?<=\s))({_ANY}):(?=\s)|\b[a-z]*level=\"?({_ANY})\b)"
)

_LEVEL_WORDS = frozenset(WRITTEN)
_WORDS_ONLY = {code: " " for code in range(128) if not chr(code).isalnum() and code != 95}


class Layout(NamedTuple):
    """The parts of a line of one shape. `level` is the header's; `pri` the span of a syslog priority, `(0, 0)` for none."""

    time: TimeSpan | None
    level: str | None
    start: int
    pri: tuple[int, int]


def settled_by(head: str, found: Layout, chars: int) -> bool:
    """Whether the first `chars` characters of a line settle its layout, so that whatever follows them has no say."""
    if len(head) < chars:
        return True
    if found.time is None:
        return chars >= _TIMELESS_CHARS and layout(head[:chars]) == found
    # The first word of the message might have been a component's name, had it ended otherwise: it must be seen whole.
    end = head.find(_CLOSING.get(head[found.start], " "), found.start)
    if found.start > chars - 16 or not 0 < end < chars - 4 or found.start <= found.time.end + 1:
        return False
    return layout(head[:chars]) == found


def layout(head: str) -> Layout:
    """The layout of a line that begins with `head` (at most HEAD_CHARS; what is behind them is not looked at)."""
    pri, at, modern = (0, 0), 0, False
    if priority := _PRIORITY.match(head):
        pri, at, modern = priority.span(1), priority.end(), bool(priority[2])
    spans = _timestamps(head, at)
    if not spans:
        return _without_time(head, at, pri)
    last = spans[-1]
    end = last.end
    while head[end : end + 1] in ("]", ")", ">", ","):
        end += 1
    best = max(spans, key=lambda span: span.rank)
    if modern and (found := _RFC5424.match(head, end)):
        return Layout(best, None, _past_blanks(head, found.end()), pri)
    level, start = _after_time(head, end, last, spans[0].start)
    return Layout(best, level, start, pri)


def _timestamps(head: str, at: int) -> list[TimeSpan]:
    """The header's timestamps in order: the first among the first words, others close behind the one before."""
    spans: list[TimeSpan] = []
    begin = at
    for count, token in enumerate(_TOKEN.finditer(head, at, 160)):
        here = token.start()
        if here < begin:
            continue
        if count > (14 if spans else 6):
            break
        while head[here : here + 1] in ("[", "(", "<"):
            here += 1
        found = match_time(head, here)
        if found is None:
            continue
        before = head[begin : token.start()]
        if spans:
            if len(before.split()) > 2 or not all(_GAP.fullmatch(word) for word in before.split()):
                break
        elif before and not _is_prefix(before, found):
            continue
        spans.append(found)
        begin = found.end
    if len(spans) == 1 and spans[0].name == "epoch" and not head[spans[0].end :].strip():
        return []  # a bare number
    return spans


def _is_prefix(before: str, found: TimeSpan) -> bool:
    """Whether words before a timestamp may be a header: no sentence, and for weak forms a counter or a mark in front."""
    if _PROSE.search(before):
        return False
    return found.rank >= 4 or found.name in ("syslog", "date") or before[0] in "-[" or before[0].isdigit() or before.isupper()


def _after_time(head: str, end: int, last: TimeSpan, first: int) -> tuple[str | None, int]:
    """The level and the begin of the message behind a header's last timestamp."""
    at, level = end, LETTERS[head[last.start]] if last.name == "glog" else None
    if last.name in ("syslog", "syslog-year") or (first == 0 and head[end : end + 1] == " " and _is_host(head, end)):
        if found := _REPEATED.match(head, at):
            return None, found.end()
        if found := _PROCESS.match(head, at, at + 120):
            level, at = _level_at(head, found.end())
            return level, _past_blanks(head, at)
    seen: set[str] = set()
    if found := _UPTO_LEVEL.match(head, at, at + 160):
        at = found.end()
    while (found := _ELEMENT.match(head, at)) and (sort := found.lastgroup or "") not in seen:
        settled = not seen.isdisjoint(_SETTLING)
        if sort in ("number", "column", "mark") and settled and not head.startswith(" ---", found.end()):
            break
        if sort == "bracket" and "component" in seen:
            break
        if sort == "level":
            level = WRITTEN[found["level"].strip("[]<>():").lower()]
        elif sort == "letter":
            level = LETTERS[found["letter"]]
        at = found.end()
        if sort == "letter" and head[at : at + 1] == "/":
            at += 1
        if sort in ("stop", "rule") and sort == "stop" and settled:
            break
        if sort in _ONCE:
            seen.add(sort)
    return level, _past_blanks(head, at)


def _is_host(head: str, end: int) -> bool:
    """Whether behind a full timestamp a host and a process with its id follow, as syslog writes them."""
    found = re.match(r"\s([\w.-]+)\s[\w./-]+\[[0-9]+\]:\s", head[end:])
    return found is not None and found[1].lower() not in WRITTEN


def _level_at(head: str, at: int) -> tuple[str | None, int]:
    found = _LEADING.match(head, at)
    if found is None or not head[found.end() :].strip() or found["d"]:
        return None, at
    return WRITTEN[(found["a"] or found["b"] or found["c"]).lower()], found.end() if found["a"] or found["c"] else at


def _without_time(head: str, at: int, pri: tuple[int, int]) -> Layout:
    """A line without a timestamp: only a level at its very beginning is a header."""
    found = _LEADING.match(head, at)
    if found and head[found.end() :].strip():
        if found["d"]:
            tag = _ELEMENT.match(head, found.end())
            start = tag.end() if tag and tag.lastgroup == "component" else head.find(":", found.end()) + 1
            return Layout(None, LETTERS[found["d"]], _past_blanks(head, start), pri)
        level = WRITTEN[(found["a"] or found["b"] or found["c"]).lower()]
        return Layout(None, level, _past_blanks(head, found.end()), pri)
    return Layout(None, None, _past_blanks(head, at) if at else 0, pri)


def level_in_message(text: str, start: int, chars: int) -> str | None:
    """The level that the first `chars` characters of a message name, for lines whose header names none."""
    window = text[start : start + chars]
    if _LEVEL_WORDS.isdisjoint(window.lower().translate(_WORDS_ONLY).split()):
        return None
    found = _INLINE.search(text, start, start + chars)
    return WRITTEN[(found[1] or found[2] or found[3] or found[4]).lower()] if found else None


def _past_blanks(head: str, at: int) -> int:
    """Past blanks, unless nothing follows: a line that is all header is its own message."""
    end = len(head)
    while at < end and head[at] in " \t":
        at += 1
    return at if at < end else 0
