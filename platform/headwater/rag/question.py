"""What a question asks for, by rules: its intent, the times and the event it names, and the words that are left.

new-since    what is new, changed or different since|after T; `what broke after the 14:05 deploy?`; `what is new?`
seen-before  has anyone seen this, did it happen before, similar incidents; alone or behind a new-since question
count        how many, how often, the number of
when         when did, at what time
find         everything else, and every language but English
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from headwater.llm.extractive import Sort, content_words
from headwater.rag.times import Period, clock_of, narrowed, read_times

Intent = Literal["new-since", "seen-before", "count", "when", "find"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, named in `text[start:end]` as the bound of a time: `since the 14:05 deploy`. `clock` is its
    time of day in ms `(low, high)`, `day` the period it is in, `about` words its record must have, `newest` says it is the
    last one."""

    start: int
    end: int
    phrase: str
    kind: str
    before: bool
    clock: tuple[int, int] | None
    day: Period | None
    about: tuple[str, ...]
    newest: bool = False

    @property
    def open(self) -> bool:
        """Whether any of several such events may be meant: `after the deploy`."""
        return not (self.newest or self.before or self.about) and self.clock is None and self.day is None


@dataclass(frozen=True, slots=True)
class Question:
    """A question as read. `words` is its text without times, event and the frame of its intent; `subject` the content
    words among them. `trouble`: only what went wrong is asked for. `fresh`: only what is new, not all that happened.
    `asks_for` is an event that is itself the answer ("what was the last deploy?"). `counted` are the words behind "how
    many", `counted_level` the level that one more of them, `counted_word`, names."""

    text: str
    intent: Intent
    words: str
    subject: tuple[str, ...]
    period: Period | None = None
    event: Event | None = None
    seen_before: bool = False
    trouble: bool = False
    fresh: bool = False
    asks_for: Event | None = None
    counted: tuple[str, ...] = ()
    counted_level: str = ""
    counted_word: str = ""

    @property
    def matter(self) -> tuple[str, ...]:
        """The subject with what went wrong with it: "invoices fail" of "why did invoices fail?"."""
        words = dict.fromkeys(re.findall(r"[\w][\w.:/@-]*\w|\w", self.words)) if self.subject else ()
        return tuple(w for w in words if w in self.subject or _TROUBLED.fullmatch(w))

    @property
    def told_by(self) -> Sort | None:
        """What tells of it, where there is a choice: documents neither happen nor count, and events instruct nobody."""
        if self.intent in ("when", "count"):
            return "events"
        return "documents" if _HOW_TO.search(self.text) else None


def understand(text: str, now_ms: int) -> Question:
    """What `text` asks for; open days and years are the latest not after `now_ms`."""
    event = _event(text, now_ms)
    held = [] if event is None else [(event.start, event.end)]
    periods = [p for p in read_times(text, now_ms) if not any(p.start < e and s < p.end for s, e in held)]
    held += [(p.start, p.end) for p in periods]
    seen = _SEEN.search(_without(text, held, keep=True))
    words = _without(text, held)
    asked = _without(text, [*held, *([seen.span()] if seen else [])])
    period = narrowed(periods)
    open_ended = (period is not None and period.since_ms is not None) or (event is not None and not event.before)
    subject = _subject(asked)
    trouble = bool(_TROUBLED.search(asked))
    bounded = period is not None and period.until_ms is not None
    fresh = bool(_NEW.search(asked)) or (open_ended and not bounded and trouble)
    intent: Intent = "find"
    if _is_news(asked, subject, open_ended=open_ended, timed=period is not None or event is not None):
        intent = "new-since"
    elif seen and not subject and "?" in text:  # "has this happened before?" asks of whatever goes wrong now
        intent, trouble, fresh = "new-since", True, True
    elif seen:
        intent, words = "seen-before", asked
    elif _COUNT.search(asked):
        intent = "count"
    elif _WHEN.search(asked):
        intent = "when"
    return Question(text, intent, words, subject, period, event, seen is not None, trouble, fresh, _event_asked(text),
                    *_counted(asked))  # fmt: skip


# ------------------------------------------------------------------------------------------------------- intents
_SEEN = re.compile(
    r"[,;.?!]?\s*(?:\b(?:and|or|but)\s+)?\b(?:"
    r"(?:has|have|had|did|does|do)\s+(?:any\s?(?:one|body)|some\s?(?:one|body)|we|you|they|others?)\s+(?:else\s+)?"
    r"(?:ever\s+|already\s+|previously\s+)?(?:see|seen|saw|had|have|hit|report(?:ed)?|notice[d]?|encounter(?:ed)?|know[n]?)\b"
    r"(?=.*\b(?:before|already|earlier|ever|previously|in the past|seen|similar)\b)"
    r"(?:\s+(?:it|this|that|these|those|them|such|any of (?:it|this|that|these|those|them)|something like (?:it|this|that)|"
    r"(?:these|those|this|that|similar|the same)\s+(?:errors?|problems?|issues?|patterns?|things?|failures?)))?"
    r"(?:\s+(?:before|already|earlier|ever|previously|in the past))?"
    r"|(?:has|have|did|was|were|had|is|are)\s+(?:they|(?:any of )?(?:it|this|that|these|those|them))\s+"
    r"(?:ever\s+|already\s+|also\s+|all\s+)?"
    r"(?:(?:been\s+)?(?:seen|reported|known|noticed)|happen(?:ed)?|occur(?:red)?|come up|been)\b"
    r"(?:\s+(?:before|already|earlier|previously|in the past))?"
    r"|(?:happened|occurred|seen|reported|came up)\s+(?:before|earlier|previously|in the past)\b"
    r"|(?:are|were|is|was|have)\s+there\s+(?:been\s+)?(?:any\s+|an?\s+)?(?:similar|earlier|previous|comparable)\s+"
    r"(?:incidents?|issues?|problems?|tickets?|outages?|cases?|reports?)(?:\s+(?:like\s+(?:it|this|that)|before))?"
    r"|(?:any|show|find|list)\s+(?:me\s+)?(?:the\s+)?similar\s+(?:past\s+)?(?:incidents?|issues?|problems?|tickets?|outages?|cases?)"
    r"|(?<=\s)(?:before|previously|in the past)(?=\s*\?)"
    r"|(?:is|was)\s+(?:it|this|that)\s+(?:an?\s+)?known(?:\s+(?:issue|problem|bug))?"
    r")\s*[?.!]*",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"^\s*(?:what|which|when)\b.{0,20}?\b(?:last|latest|newest|most recent)\s+(?P<about>(?:[\w.-]+\s+){0,2}?)"
    r"(?P<kind>deploy(?:ment)?|release|rollout|rollback|restart|reboot|incident|outage)\b(?P<of>\s+of\s+[\w.-]+)?\s*\??\s*$",
    re.IGNORECASE,
)
_NEW = re.compile(
    r"\b(?:what|what's|whats|which|anything|any|something|there|show|list|tell)\b.{0,60}?"
    r"\b(?:new|newly|chang\w+|differ\w*|appear\w*|first seen|unseen|never seen|started)\b",
    re.IGNORECASE | re.DOTALL,
)
_ASKS = re.compile(r"\b(?:what|what's|which|anything|any|something|show|list|tell|summar\w+)\b", re.IGNORECASE)
_COUNT = re.compile(r"\bhow (?:many|often)\b|\b(?:number|count) of\b|^\s*count\b|\bmost (?:frequent|common)\b", re.IGNORECASE)
_WHEN = re.compile(r"\bwhen (?:did|was|were|has|have|is|does)\b|\b(?:at )?(?:what|which) time\b|\bsince when\b", re.IGNORECASE)
_HOW_TO = re.compile(r"^\W*how (?:do|can|could|should|would|to)\b|\bwhat (?:should|must|do) (?:i|we|one) do\b", re.IGNORECASE)
_TROUBLED = re.compile(
    r"\b(?:fail\w*|br[eo]ak\w*|broken?|errors?|wrong|problems?|crash\w*|outages?|incidents?|trouble|went down|exceptions?)\b",
    re.IGNORECASE,
)
_BROKEN_IN = re.compile(  # what broke in checkout, what is wrong with the mailer
    rf"\W*(?:what|which|anything|any)\b.{{0,40}}?{_TROUBLED.pattern}.{{0,20}}?\b(?:in|with|on|at|inside|within)\s+\w",
    re.IGNORECASE,
)
# What stands in a question for new things without saying which: the patterns are looked for by their newness alone.
_FRAME = frozenset(content_words(
    "new newly change changed changes different differ differs difference appear appeared appears start started starts first "
    "seen unseen never show list tell anything something everything thing things kind kinds pattern patterns line lines log "
    "logs message messages record records event events entry entries happen happened happening go went going get come came "
    "fail failed failing failure failures break broke broken breaking error errors wrong problem problems crash crashed issue "
    "issues exception exceptions warning warnings outage incident trouble bad all any else now then since after just recently "
    "recent latest last only please also system systems service services us me here out up down type types sort sorts "
    "everywhere anywhere ever still got logged reported unusual strange odd interesting many much often number "
    "count times before already earlier say said says told write wrote arrive arrived s"
))  # fmt: skip


def _subject(asked: str) -> tuple[str, ...]:
    """The words of a question that say what it is about, as typed."""
    found = dict.fromkeys(re.findall(r"[\w][\w.:/@-]*\w|\w", asked))
    return tuple(w for w in found if (stems := content_words(w)) and not set(stems) <= _FRAME)


def _counted(asked: str) -> tuple[tuple[str, ...], str, str]:
    """The words counted, and the level of records that one of them names with that word (blank where none does)."""
    match = _COUNT.search(asked)
    words = [w.lower() for w in re.findall(r"\w[\w./-]*\w|\w", asked[match.end() :])] if match else []
    named = [(w, level) for w in words for name, level in _LEVELS if re.fullmatch(name, w)]
    word, level = named[0] if named else ("", "")
    words = [re.sub(r"(?<=\d)s$", "", w) for w in words]  # "429s" are many of 429
    rest = (w for w in words if w != word and (stems := content_words(w)) and not set(stems) <= _UNCOUNTED)
    return tuple(rest), level, word


_LEVELS = (("errors?", "error"), ("warnings?", "warn"))
_UNCOUNTED = frozenset(content_words(
    "times time records record lines line entries entry messages message events event there seen see happened happen occur "
    "occurred come came get got total all different now so far logs log"
))  # fmt: skip


def _is_news(asked: str, subject: tuple[str, ...], *, open_ended: bool, timed: bool) -> bool:
    if open_ended and _NEW.search(asked) and len(subject) <= 3:
        return True
    if open_ended and len(subject) <= 2 and _BROKEN_IN.match(asked) and not any(c.isdigit() for w in subject for c in w):
        return True
    if subject or _COUNT.search(asked) or _WHEN.search(asked) or re.search(r"\b(?:why|how|who)\b", asked, re.IGNORECASE):
        return False
    return (timed and bool(_ASKS.search(asked))) or bool(_NEW.search(asked))


# -------------------------------------------------------------------------------------------------------- events
EVENTS = {
    "deploy": r"deploy\w*|releas\w*|roll(?:ed|ing|s)?[ -]?out|rollouts?|shipp?(?:ed|ing)|went live|upgrad\w*",
    "rollback": r"roll(?:ed|ing|s)?[ -]?back|rollbacks?|revert\w*",
    "restart": r"restart\w*|reboot\w*|start(?:ed|ing|up)\b|booted",
    "upgrade": r"upgrad\w*|updat\w*|migrat\w*|install\w*",
    "incident": r"incident\w*|outages?|crash\w*|went down|failover|failed over|post-?mortem|maintenance",
}
_KINDS = {
    "deploy": ("deploy", "deployment", "release", "rollout", "roll-out"),
    "rollback": ("rollback", "roll-back", "revert"),
    "restart": ("restart", "reboot"),
    "upgrade": ("upgrade", "update", "migration"),
    "incident": ("incident", "outage", "crash", "failover", "maintenance"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_EVENT = re.compile(
    r"\b(?P<side>since|after|following|before|until)\s+(?P<mid>(?:[^\s,;?!]+\s+){0,5}?)"
    rf"(?P<kind>{'|'.join(sorted(map(re.escape, _KIND_OF), key=len, reverse=True))})s?\b"
    r"(?:\s+of\s+(?P<of>(?!the\b|a\b)[\w.-]+))?",
    re.IGNORECASE,
)
_ARTICLE_TEXT = "the our that this my their your last latest most recent previous newest first new today's yesterday's"
_ARTICLES = frozenset(_ARTICLE_TEXT.split())
_NEWEST = frozenset(("last", "latest", "newest", "recent"))
_INDEFINITE = frozenset(("a", "an", "any", "each", "every", "some", "all", "such", "no", "what", "which"))


def _event(text: str, now_ms: int) -> Event | None:
    match = _EVENT.search(text)
    if match is None:
        return None
    middle = match["mid"].replace("’", "'").lower().split()
    if set(middle) & _INDEFINITE:
        return None
    end, day = match.end(), None
    plain = match["mid"].replace("'s", "").replace("’s", "")
    times = read_times(f"on {plain}", now_ms)
    behind = [p for p in read_times(text, now_ms) if match.end() <= p.start <= match.end() + 1]
    clock = clock_of(match["mid"])
    for period in behind:
        end = period.end
        clock = clock or clock_of(period.phrase)
        if not (period.floats and clock_of(period.phrase)):
            day = period
    if day is None:
        day = next((p for p in times if not (p.floats and clock)), None)
    words = [*re.findall(r"\w[\w.-]*", plain), *([match["of"]] if match["of"] else [])]
    timed = {w.lower() for p in times for w in re.findall(r"\w[\w.-]*", p.phrase)}
    about = tuple(
        w for w in words
        if w.lower() not in _ARTICLES and w.lower() not in timed and not re.fullmatch(r"[\d:.]+|[ap]m|at|on|in", w.lower())
    )  # fmt: skip
    kind = _KIND_OF[match["kind"].lower()]
    before = match["side"].lower() in ("before", "until")
    return Event(match.start(), end, text[match.start() : end], kind, before, clock, day, about, bool(set(middle) & _NEWEST))


def _event_asked(text: str) -> Event | None:
    match = _ASKED.search(text)
    if match is None:
        return None
    words = re.findall(r"\w[\w.-]*", f"{match['about']} {match['of'] or ''}")
    about = tuple(w for w in words if w.lower() not in {*_ARTICLES, "of"})
    return Event(*match.span(), text, _KIND_OF[match["kind"].lower()], False, None, None, about, True)


def _without(text: str, spans: list[tuple[int, int]], *, keep: bool = False) -> str:
    """`text` without some spans (with `keep`, blanked at their places), its blanks single and no comma left over."""
    out = list(text)
    for start, end in spans:
        out[start:end] = " " * (end - start)
    if keep:
        return "".join(out)
    words = re.sub(r"\s+([,;?!.])", r"\1", " ".join("".join(out).split()))
    return re.sub(r"^[\s,;]+|[,;]+(?=[?!.]?$)", "", words).strip()
