"""What is new since a moment, and who has seen it before: answered from patterns, not from whatever shares the words.

What is new are the passages first seen since then in topics of logs, errors first, then the most frequent; each is shown by
its first record. What resembles them is looked for by meaning in what people wrote and in documents: before that moment as
what is known of it, since then as what is being said of it. A record that tells several of the new patterns counts more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from headwater.chunks import sentences
from headwater.llm.extractive import LONGEST_SENTENCE, Embed, Evidence, content_words, tells_trouble
from headwater.rag.keyed import besides, named_topics
from headwater.rag.place import Placed, Scope, when
from headwater.rag.say import Page, bounds, how_often, quote, whose
from headwater.records import Hit, Mode, Pattern, Record, to_ms
from headwater.records.levels import LEVELS, canonical_level

MOST_NEW = 8  # patterns shown
MOST_EVENTS = 20  # that a question may mean
MOST_SEEN = 3  # records shown that resemble them
LIKE = 0.4  # similarity (0-1 above unrelated texts) from which a text tells of the same trouble; half that by words alone
NEAR = 0.15  # from which it is worth a look where nothing is alike
WRITTEN = 1.25  # times as much for a document: among many passages about everything some come near anything
HINT = 0.3  # from which it counts as telling of one more of the patterns
SAME = 0.9  # of two log lines, which are alike in form however different their matter
_MOST_PATTERNS = 200
_MOST_NEAR = 2
_MOST_LOOKED_AT = 40  # of what is near
_MOST_COUNTED = 5  # patterns shown of a count
_MOST_QUERY = 300  # characters of a pattern that are searched for
_IDENTIFIER = re.compile(r"\b(?=\w*[a-z][A-Z]|\w*[^\W_]_[^\W_])\w{6,}")
_WILDCARD = re.compile(r"<[^<>\s]{0,20}>")
_REMEDY = re.compile(
    r"\b(?:fix(?:ed)?|solved|resolved|mended|rolled? back|rolling back|root cause|worked around|workaround)\b", re.IGNORECASE
)
_REMEDY_HEADING = re.compile(
    r"#{1,6}\s*(?:the\s+)?(?:remedy|fix|resolution|mitigation|solution|workaround|what to do)\s*:?", re.IGNORECASE
)
WARN = LEVELS.index("warn")


@dataclass(frozen=True, slots=True)
class Found:
    """A pattern that is new, by its first record."""

    pattern: Pattern
    record: Record


@dataclass(slots=True)
class Known:
    """A record that resembles new patterns: how much each (by their places)."""

    hit: Hit
    like: dict[int, float] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        return sum(max(0.0, score - HINT) for score in self.like.values())


@dataclass(frozen=True, slots=True)
class News:
    """The answer as far as it got: nothing is new where `shown` is 0. `left_out` patterns are new and not shown."""

    page: Page
    shown: int
    left_out: int
    topics: tuple[str, ...]
    notes: tuple[str, ...]


async def whats_new(placed: Placed, page: Page, *, embed: Embed | None) -> News:
    """Write what is new in the scope of a question, and what is known of it where that is asked too."""
    asked, scope = placed.question, placed.scope
    every = (await scope.within(None, None).covered()).topics
    named = named_topics(asked.subject, every)
    topics = [t for t in (named or every) if scope.kind_of(t) == "template"] or list(named or every)
    words = besides(asked.subject, named)
    patterns, notes = await _patterns(scope, topics, " ".join(f'"{w}"' for w in words), fresh=asked.fresh)
    if words and not patterns:
        notes.append(f"nothing that is new has the words {' '.join(words)!r}, so they are left out")
        patterns, more = await _patterns(scope, topics, "", fresh=asked.fresh)
        notes += more
    ranked = sorted(patterns, key=lambda p: (-rank(p), -p.count, p.topic, p.passage.id))
    if asked.trouble:
        ranked = [p for p in ranked if rank(p) >= WARN]
    shown = [Found(p, await first_record(scope, p, first=asked.fresh)) for p in ranked[:MOST_NEW]]
    if shown:
        where = ", ".join(dict.fromkeys(f.pattern.topic for f in shown))
        time = "" if page.lines else f" {bounds(scope.since_ms, scope.until_ms)}"
        page.lines.append(f"{'New' if asked.fresh else 'Seen'}{time} in {where}, the worst first:")
        page.lines += [bullet(page, f, scope) for f in shown]
    if shown and asked.seen_before:
        await _tell_known(placed, page, shown, embed)
    left = len(ranked) - len(shown)
    if left:
        notes.append(f"patterns not shown: {left:,}; `patterns` lists all")
    return News(page, len(shown), left, tuple(topics), tuple(notes))


async def count_words(scope: Scope, topics: Sequence[str], words: str, level: str, page: Page) -> int:
    """Write how many records of some topics have all words, and a level or a worse one, with their most frequent patterns;
    returns the number."""
    q = f"{words} level:>={level}" if level else words
    since, until = when(scope.since_ms), when(scope.until_ms)
    replies = await asyncio.gather(*(scope.look.patterns(t, q=q, since=since, until=until, limit=1000) for t in topics))
    patterns = sorted((p for r in replies for p in r.patterns), key=lambda p: (-p.count, p.topic, p.passage.id))
    total = sum(p.count for p in patterns)
    if total:
        where = ", ".join(dict.fromkeys(p.topic for p in patterns))
        having = [f'the words "{words}"'] * bool(words) + [f"level {level} or worse"] * bool(level)
        what = "records" if total > 1 else "record"
        page.lines.append(f"{total:,} {what} in {where}{' with ' * bool(having)}{' and '.join(having)}:")
        shown = [Found(p, await first_record(scope, p, first=False)) for p in patterns[:_MOST_COUNTED]]
        page.lines += [bullet(page, f, scope) for f in shown]
    return total


async def busiest(placed: Placed) -> Placed:
    """The question with the event, of those it may mean, after which and before the next one most trouble began."""
    assert placed.event is not None
    events = sorted([placed.event, *placed.others[:MOST_EVENTS]], key=lambda h: h.timestamp)
    scope = placed.at(events[0]).scope
    every = (await scope.covered()).topics
    topics = [t for t in every if scope.kind_of(t) == "template"]
    patterns, _ = await _patterns(scope, topics, "", fresh=True)
    begun = sorted(p.passage.first_seen for p in patterns if rank(p) >= WARN)
    ends = [*(e.timestamp for e in events[1:]), None]
    counts = [sum(e.timestamp <= at and (end is None or at < end) for at in begun) for e, end in zip(events, ends, strict=True)]
    most = max(range(len(events)), key=lambda i: (counts[i], i))
    return placed.at(events[most]) if counts[most] else placed


async def _patterns(scope: Scope, topics: Sequence[str], q: str, *, fresh: bool) -> tuple[list[Pattern], list[str]]:
    """The patterns of some topics in scope, `fresh` those first seen in it; and which topics began in it, so that all of
    theirs are new."""
    since, until = when(scope.since_ms), when(scope.until_ms)
    within = since if scope.until_ms is not None or q or not fresh else None  # else all of a new pattern is in scope
    mark = since if fresh else None
    replies = await asyncio.gather(
        *(scope.look.patterns(t, q=q, since=within, until=until, new_since=mark, limit=_MOST_PATTERNS) for t in topics)
    )
    patterns = [p for reply in replies for p in reply.patterns]
    began = [t for t in dict.fromkeys(p.topic for p in patterns) if fresh and scope.since_ms is not None
             and not (await scope.within(None, scope.since_ms).search("", 1, topics=[t])).coverage.searched]  # fmt: skip
    return patterns, [f"{t} has no records from before, so all of it is new" for t in began]


def rank(pattern: Pattern) -> int:
    """The place of its level among LEVELS; where it has none, by whether its words tell of trouble."""
    level = canonical_level(pattern.level) if pattern.level else ""
    if level in LEVELS:
        return LEVELS.index(level)
    return WARN if tells_trouble(pattern.passage.text) else WARN - 1


async def first_record(scope: Scope, pattern: Pattern, *, first: bool) -> Record:
    """The first record of a pattern, or any that is in scope."""
    passage = pattern.passage
    low, words = to_ms(passage.first_seen), plain(passage.text)
    hit = await scope.at_instant(low, pattern.topic, passage.id) if first else None
    for place in (scope.within(low, low + 1), scope) if first else (scope,):  # many lines may have one time
        if hit is None:
            near = await place.search(words, 30, mode="keyword", topics=[pattern.topic])
            hit = next((h for h in near if h.passage.id == passage.id), None)
    return (await scope.look.read(pattern.example if hit is None else hit.address)).record


def bullet(page: Page, found: Found, scope: Scope) -> str:
    """The first line of its record, the cause at the bottom of a stack trace, level, count and time."""
    record, pattern = found.record, found.pattern
    marks, said = [], []
    for start, end in _telling_lines(record.value):
        said.append(quote(record.value, start, end))
        marks.append(page.cite(record, start, end))
    seen = how_often(pattern.passage, record.timestamp, scope.since_ms, scope.until_ms)
    level = f"{canonical_level(pattern.level)}, " if pattern.level else ""
    return f"- {' ... '.join(said)} ({level}{seen}) {''.join(marks)}"


def _telling_lines(value: str) -> list[tuple[int, int]]:
    lines = [_cut(value, *m.span()) for m in re.finditer(r"\S[^\n]*", value)]
    causes = [span for span in lines[1:] if re.match(r"\s*Caused by\b", value[slice(*span)])]
    return [*lines[:1], *causes[-1:]]


def _cut(value: str, start: int, end: int) -> tuple[int, int]:
    end = min(end, start + LONGEST_SENTENCE)
    return start, start + len(value[start:end].rstrip())


# ------------------------------------------------------------------------------------------------ seen before
async def _tell_known(placed: Placed, page: Page, new: Sequence[Found], embed: Embed | None) -> None:
    """Write what is known of the new patterns from before, which of them nobody told of, and what is said of them since."""
    scope = placed.scope
    mark = {i: f"[{_claim_of(page, f.record.address)}]" for i, f in enumerate(new)}
    texts = [plain(f.pattern.passage.text) for f in new]
    homes = {f.pattern.topic for f in new}
    earlier = scope.within(None, scope.since_ms)
    before = await known(earlier, texts, homes, by_meaning=embed is not None)
    page.lines += ["Seen before:"] * bool(before)
    page.lines += [await known_bullet(page, k, texts, mark, embed, scope.documents) for k in before]
    told = {i for k in before for i, score in k.like.items() if score >= HINT}
    left = {i for i in mark if i not in told}
    rest = "".join(mark[i] for i in sorted(left))
    if left and not await _tell_nearest(earlier, page, texts, homes, mark, embed, left, rest if before else ""):
        page.lines.append(f"No earlier record resembles {rest}." if before else f"Nothing like it is known from before {rest}.")
    since = await known(scope, texts, homes, by_meaning=embed is not None, documents=False)
    event = None if placed.event is None else placed.event.address
    since = [k for k in since if k.hit.address != event]
    page.lines += ["Said of it since:"] * bool(since)
    page.lines += [await known_bullet(page, k, texts, mark, embed, scope.documents) for k in since]


async def _tell_nearest(
    scope: Scope, page: Page, texts: Sequence[str], homes: set[str], mark: Mapping[int, str], embed: Embed | None,
    wanted: Collection[int], which: str = "",
) -> bool:  # fmt: skip
    """Write what comes nearest where nothing is clearly the same, one record for each of the wanted texts (`which` says which
    these are, where not all); whether anything does. A document must share an identifier with it: among many passages about
    everything some come near anything."""
    cited = {c.address for c in page.claims}
    near: dict[int, Known] = {}
    for k in await known(scope, texts, homes, by_meaning=embed is not None, least=NEAR, most=_MOST_LOOKED_AT):
        best = max(k.like, key=lambda i: k.like[i])
        if best not in wanted:
            continue
        shares = k.hit.topic not in scope.documents or not identifiers(texts[best]).isdisjoint(identifiers(k.hit.value))
        if k.hit.address not in cited and shares and best not in near and len(near) < _MOST_NEAR:
            near[best] = k
    page.lines += [f"Nothing earlier is clearly the same{f' as {which}' * bool(which)}; the nearest:"] * bool(near)
    page.lines += [await known_bullet(page, k, texts, mark, embed, scope.documents) for k in near.values()]
    return bool(near)


def identifiers(text: str) -> set[str]:
    """The names of things in programs that a text has: `serialVersionUID`, `flow_ctrl`."""
    return set(_IDENTIFIER.findall(text))


async def tell_of(scope: Scope, page: Page, words: str, patterns: Sequence[Evidence], embed: Embed | None) -> bool:
    """Write what people and documents tell of some words and of patterns that the page cites already; whether they do."""
    texts = [plain(words), *(plain(item.passage.text) for item in patterns)]
    mark = {i: f"[{_claim_of(page, item.address)}]" for i, item in enumerate(patterns, 1)}
    cited = {c.address for c in page.claims}
    homes = {item.address.rsplit("/", 2)[0] for item in patterns}
    found = [k for k in await known(scope, texts, homes, by_meaning=embed is not None) if k.hit.address not in cited]
    page.lines += ["Told of it, the most alike first:"] * bool(found)
    page.lines += [await known_bullet(page, k, texts, mark, embed, scope.documents) for k in found]
    if patterns and not found:
        await _tell_nearest(scope, page, texts, homes, mark, embed, range(len(texts)))
    return bool(found)


def _claim_of(page: Page, address: str) -> int:
    return next(c.n for c in page.claims if c.address == address)


async def known(
    scope: Scope, texts: Sequence[str], homes: set[str], *, by_meaning: bool, least: float = LIKE, most: int = MOST_SEEN,
    documents: bool = True,
) -> list[Known]:  # fmt: skip
    """The records in scope that resemble some texts, those that resemble more of them first. Log lines count only where
    they are nearly the same; documents whenever they were delivered, or not at all."""
    scale = 1.0 if by_meaning else 0.5
    mode: Mode = "semantic" if by_meaning else "keyword"
    ever = scope.within(None, None) if documents and scope.documents else None
    hits: dict[int, list[Hit]] = {}
    for i, reply in enumerate(await asyncio.gather(*(scope.search(text, 40, mode=mode) for text in texts))):
        hits[i] = [hit for hit in reply if hit.topic not in scope.documents]
    if ever is not None:
        named = sorted(scope.documents)
        for i, reply in enumerate(await asyncio.gather(*(ever.search(text, 10, mode=mode, topics=named) for text in texts))):
            hits[i] += reply
    found: dict[str, Known] = {}
    for i, near in hits.items():
        for hit in near:
            lines, like = scope.kind_of(hit.topic) == "template", hit.score / scale
            if like >= (SAME if lines else min(HINT, least)) and not (lines and hit.topic in homes):
                found.setdefault(hit.address, Known(hit)).like[i] = like
    alike = [k for k in found.values() if max(k.like.values()) >= least * (WRITTEN if k.hit.topic in scope.documents else 1)]
    return sorted(alike, key=lambda k: (-k.weight, -max(k.like.values()), k.hit.address))[:most]


def plain(text: str) -> str:
    """A pattern's words without its wildcards and without what the query language would read as operators."""
    words = re.findall(r"\w[\w.'/-]*", _WILDCARD.sub(" ", text))
    return " ".join(words)[:_MOST_QUERY]


async def known_bullet(
    page: Page, item: Known, texts: Sequence[str], mark: Mapping[int, str], embed: Embed | None, documents: frozenset[str]
) -> str:
    """Its most telling sentence, and how it was mended where it says so; of a document no time: that is its delivery's."""
    hit = item.hit
    best = max(item.like, key=lambda i: item.like[i])
    spans = await telling_sentences(hit, texts[best], embed)
    quoted = [(quote(hit.value, *span), page.cite(hit, *span)) for span in spans]
    said = "".join(f"{text} {cited} ... " for text, cited in quoted[:-1]) + quoted[-1][0]
    marks = quoted[-1][1]
    like = "".join(mark[i] for i in sorted(item.like) if i in mark and (item.like[i] >= HINT or i == best))
    time = "" if hit.topic in documents else f", {hit.timestamp:%Y-%m-%d %H:%M} UTC"
    return f"- {said} ({whose(hit)}{time}) {marks}{f', like {like}' if like else ''}"


def remedy(item: Hit | Evidence) -> tuple[int, int] | None:
    """The sentence of a passage that says how it was mended."""
    spans = _spans(item)
    at = _mended([item.value[slice(*span)] for span in spans])
    return None if at is None else spans[at]


def _spans(item: Hit | Evidence) -> list[tuple[int, int]]:
    """The first sentences of a passage."""
    low, high = (item.span.start, item.span.end) if item.span else (0, len(item.value))
    spans = [_cut(item.value, low + a, low + b) for a, b in sentences(item.value[low:high])][:24]
    return spans or [_cut(item.value, low, high)]


def _mended(said: Sequence[str]) -> int | None:
    """The place of the sentence that says how it was mended: the first below such a heading, else the first that says so."""
    headed = (i for i in range(1, len(said)) if _REMEDY_HEADING.fullmatch(said[i - 1]))
    return next(headed, None) or next((i for i, sentence in enumerate(said) if _REMEDY.search(sentence)), None)


async def telling_sentences(hit: Hit, text: str, embed: Embed | None) -> list[tuple[int, int]]:
    spans = _spans(hit)
    if len(spans) == 1:
        return spans
    values = [hit.value[slice(*span)] for span in spans]
    if embed is not None:
        vectors = await embed([text, *values], "passage")
        scores = (vectors[1:] @ vectors[0]).tolist()
    else:
        wanted = set(content_words(text))
        scores = [len(wanted & set(content_words(value))) for value in values]
    best = max(range(len(spans)), key=lambda i: (scores[i], -i))
    mended = _mended(values)
    return [spans[i] for i in sorted({best, best if mended is None else mended})]


def last_day(newest_ms: int) -> int:
    """Since when things are new where a question names no time: a day before the newest record."""
    return newest_ms - round(timedelta(days=1).total_seconds() * 1000)
