"""Question -> what it asks for, when -> search or patterns -> sentences -> checked citations -> answer, without a model.

Record text is untrusted: an answer shows it only as a code span, with hidden and control characters as escapes, and
every quote passes the same check (`headwater.rag.citations`) that a model's answer would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from headwater.errors import UsageError
from headwater.llm.extractive import ABSTAIN_BELOW, FLOOR, Embed, Evidence, Extract, Sentence, extract
from headwater.rag.news import last_day, whats_new
from headwater.rag.place import Look, Placed, Scope, place
from headwater.rag.say import Page, bounds, how_often, quote, stretch
from headwater.records import Answer, Coverage, PassageForm, SearchReply, to_ms

MODEL = "extractive"
_WORST = ("error", "fatal")


@dataclass(slots=True)
class _Reading:
    """An answer on its way. `found` is what the extractive reader said where it was asked."""

    page: Page
    coverage: Coverage
    abstained: bool = False
    confidence: float = 1.0
    found: Extract = field(default_factory=lambda: Extract((), 0.0, True))
    evidence: Sequence[Evidence] = ()
    why_not: str = ""
    searched: float = 0.0


async def ask(
    question: str,
    *,
    look: Look,
    kind_of: Callable[[str], PassageForm],
    embed: Embed | None,
    clock: Callable[[], float],
    now_ms: int,
    new_id: Callable[[], str],
    topics: Sequence[str] | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    top_k: int = 12,
    limit_sentences: int = 4,
    floor: float = FLOOR,
    threshold: float = ABSTAIN_BELOW,
) -> Answer:
    """The records' own best sentences as an answer, each cited; abstains where support is weak.

    Times and events that the question names limit what is looked at, and the answer says how they were read; those given
    as arguments win. `look` are the verbs, `kind_of` the form of a topic's passages; `embed` and its model's `floor` judge
    meaning (None: words alone); `clock` gives monotonic seconds, `now_ms` the time of asking. `usage` counts records,
    sentences considered and embedded; `timings` are ms. UsageError for a blank question; errors of the verbs pass through.
    """
    if not question.strip():
        raise UsageError("the question is empty; ask about what the records say")
    began = clock()
    placed = await place(question, Scope(look, kind_of, topics, since_ms, until_ms), now_ms)
    if placed.missing:
        reading = await _no_such_event(placed)
    elif placed.question.intent == "new-since":
        reading = await _news(placed, embed)
    else:
        judge = _Judge(embed, top_k, limit_sentences, floor, threshold, clock)
        reading = await _find(placed, judge)
    read = clock()
    searched = reading.searched or read
    text, checked = "", reading.page.checked()
    text = checked.text
    if reading.abstained:
        text = reading.why_not or _nothing_found(reading.found, reading.evidence, reading.coverage)
        text = f"{placed.reading}. {text}" if placed.reading and placed.event is None else text
    done = clock()
    return Answer(
        id=new_id(),
        question=question,
        text=text,
        citations=() if reading.abstained else checked.citations,
        unsupported=() if reading.abstained else checked.unsupported,
        abstained=reading.abstained,
        confidence=round(reading.confidence, 4),
        coverage=reading.coverage,
        model=MODEL,
        usage={"records": len(reading.evidence), "sentences": reading.found.considered, "embedded": reading.found.embedded},
        timings={
            "search_ms": _ms(began, searched),
            "read_ms": _ms(searched, read),
            "check_ms": _ms(read, done),
            "total_ms": _ms(began, done),
        },
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """How sentences are judged."""

    embed: Embed | None
    top_k: int
    limit: int
    floor: float
    threshold: float
    clock: Callable[[], float]

    async def extract(self, question: str, evidence: Sequence[Evidence]) -> Extract:
        return await extract(
            question, evidence, embed=self.embed, limit_sentences=self.limit, floor=self.floor, threshold=self.threshold
        )


# ------------------------------------------------------------------------------------------------------ what is new
async def _news(placed: Placed, embed: Embed | None) -> _Reading:
    """What is new since the question's time, or since a day before the newest record."""
    scope, notes = placed.scope, ()
    if scope.since_ms is None:
        newest = await scope.newest()
        if newest is not None:
            since = last_day(to_ms(newest.timestamp))
            placed = replace(placed, scope=scope.within(since, scope.until_ms))
            scope = placed.scope
            if not placed.reading:
                placed = replace(placed, reading=f"I read it as {bounds(since, None)}, a day before the newest record")
    page = _opened(placed)
    coverage = (await scope.search("", 1)).coverage
    news = await whats_new(placed, page, embed=embed)
    coverage = replace(
        coverage,
        omitted=news.left_out,
        truncated=news.left_out > 0,
        next_cursor=None,
        notes=(*coverage.notes, *notes, *news.notes),
    )
    if news.shown:
        return _Reading(page, coverage)
    what = "nothing that went wrong" if placed.question.trouble else "nothing"
    why = f"No answer: {what} was first seen {bounds(scope.since_ms, scope.until_ms)} among the patterns of {', '.join(news.topics)}."
    return _Reading(page, coverage, abstained=True, confidence=0.0, why_not=why)


def _opened(placed: Placed) -> Page:
    """A page that begins with how the question's time was read, where it named one."""
    page = Page()
    event = placed.event
    if event is not None:
        start, end = _first_sentence(event.value)
        at = stretch(event.timestamp, event.timestamp)
        page.lines.append(
            f"{placed.reading} {quote(event.value, start, end)} ({event.topic}, {at}) {page.cite(event, start, end)}."
        )
    elif placed.reading:
        page.lines.append(f"{placed.reading}:")
    return page


def _first_sentence(value: str) -> tuple[int, int]:
    match = re.search(r"\S[^\n]{0,199}", value)
    if match is None:
        return 0, len(value)
    end = re.search(r"[.!?](?=\s)", match.group())
    stop = match.start() + (end.end() if end else len(match.group().rstrip()))
    return match.start(), stop


async def _no_such_event(placed: Placed) -> _Reading:
    coverage = (await placed.scope.search("", 1)).coverage
    where = ", ".join(coverage.topics)
    why = f'No answer: no record of {where} tells when "{placed.missing}" is; name a time, such as "since 14:05".'
    return _Reading(Page(), coverage, abstained=True, confidence=0.0, why_not=why)


# ------------------------------------------------------------------------------------------------------------- find
async def _find(placed: Placed, judge: _Judge) -> _Reading:
    """The best supporting sentences of what a search finds, within the question's time."""
    asked = placed.question
    words = asked.text if placed.as_words else asked.words or asked.text
    reading = await _search(placed, words, judge)
    nowadays = asked.period is not None and asked.period.present
    if reading.abstained and nowadays:  # "who runs the shop today?" asks a document of any age
        wider = replace(placed, scope=placed.scope.within(None, None), reading="", as_words=True)
        other = await _search(wider, asked.text, judge)
        reading = reading if other.abstained else other
    return reading


async def _search(placed: Placed, words: str, judge: _Judge) -> _Reading:
    scope, asked = placed.scope, placed.question
    reply = await scope.search(words, judge.top_k)
    evidence = _evidence(reply, scope.kind_of)
    if placed.as_words:  # only documents speak of times that are not their records' own
        evidence = [e for e in evidence if e.kind == "chunks"]
    searched = judge.clock()
    found = await judge.extract(words, evidence)
    page = _opened(placed)
    said = found.sentences
    if asked.intent == "seen-before" and said:
        page.lines.append("Seen before, the oldest first:")
        said = tuple(sorted(said, key=lambda s: _began(evidence[s.index])))
    lines = [_line(page, evidence[s.index], s) for s in said]
    page.lines += [f"- {line}" for line in lines] if len(lines) > 1 or page.lines else lines
    return _Reading(page, reply.coverage, found.abstained, found.confidence, found, evidence, searched=searched)


def _evidence(reply: SearchReply, kind_of: Callable[[str], PassageForm]) -> list[Evidence]:
    return [Evidence.of(hit, kind_of(hit.topic)) for hit in reply]


def _began(item: Evidence) -> datetime:
    return item.passage.first_seen if item.kind == "template" else item.timestamp


def _line(page: Page, item: Evidence, sentence: Sentence) -> str:
    """The sentence as a code span and, for a pattern, how often and when it was seen."""
    said = quote(item.value, sentence.start, sentence.end)
    mark = page.cite(item, sentence.start, sentence.end)
    return f"{said} {mark}" if item.kind == "chunks" else f"{said} ({how_often(item.passage, item.timestamp)}) {mark}"


def _nothing_found(found: Extract, evidence: Sequence[Evidence], coverage: Coverage) -> str:
    """What was searched, and what to try."""
    where = f" of {', '.join(coverage.topics)}" if coverage.topics else ""
    if coverage.since and coverage.until:
        where += f" from {stretch(coverage.since, coverage.until)}"
    elif coverage.since or coverage.until:
        bound = coverage.since or coverage.until
        assert bound is not None
        where += f" {'since' if coverage.since else 'until'} {stretch(bound, bound)}"
    if not evidence:
        said = [f"No answer: nothing matches among the {coverage.searched:,} records{where}."]
    else:
        said = [f"No answer: the {coverage.searched:,} records{where} were searched and none supports one well enough."]
    if found.nearest is not None:
        said.append(f"The nearest is {evidence[found.nearest.index].address}.")
    if coverage.backlog:
        said.append(f"{coverage.backlog:,} records are not searchable by meaning yet; ask again when they are.")
    said.append("Try the words the records would use, a wider time range or other topics; a search shows what comes near.")
    return " ".join(said)


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
