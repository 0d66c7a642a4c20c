"""Question -> what it asks for, when -> search or patterns -> sentences -> checked citations -> answer, without a model.

Record text is untrusted: an answer shows it only as a code span, with hidden and control characters as escapes, and
every quote passes the same check (`headwater.rag.citations`) that a model's answer would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from headwater.chunks import sentences
from headwater.errors import UsageError
from headwater.llm.extractive import ABSTAIN_BELOW, FLOOR, Embed, Evidence, Extract, Sentence, Sort, content_words, extract
from headwater.rag.citations import Quotable
from headwater.rag.keyed import besides, named_topics, numbered
from headwater.rag.news import busiest, count_words, last_day, remedy, tell_of, whats_new
from headwater.rag.place import Look, Placed, Scope, find_events, place
from headwater.rag.retrieval import Retrieval
from headwater.rag.say import Page, bounds, how_often, quote, stretch, whose
from headwater.records import Answer, Coverage, PassageForm, SearchReply, to_ms

MODEL = "extractive"
PLAIN = Retrieval()
NOTHING = "No answer: "  # how an abstention begins, behind how the question was read
_MOST_LISTED = 10  # newest records of a topic in a time
# How the records of a topic come to be: "how many tickets were opened?" counts all of them.
_COMING = frozenset(content_words("opened filed created raised reported posted sent written received submitted made added"))


@dataclass(slots=True)
class Reading:
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
    retrieval: Retrieval = PLAIN,
) -> Answer:
    """The records' own best sentences as an answer, each cited; abstains where support is weak.

    Times and events that the question names limit what is looked at, and the answer says how they were read; those given
    as arguments win. `look` are the verbs, `kind_of` the form of a topic's passages, `retrieval` how they are searched;
    `embed` and its model's `floor` judge meaning (None: words alone); `clock` gives monotonic seconds, `now_ms` the time
    of asking. `usage` counts records, sentences considered and embedded; `timings` are ms. UsageError for a blank question;
    errors of the verbs pass through.
    """
    if not question.strip():
        raise UsageError("the question is empty; ask about what the records say")
    began = clock()
    scope = await Scope(look, kind_of, topics, since_ms, until_ms).knowing_documents()
    placed = await place(question, scope, now_ms)
    judge = _Judge(embed, top_k, limit_sentences, floor, threshold, clock, retrieval, now_ms)
    reading = await by_rules(placed, embed, now_ms) or await _find(placed, judge)
    read = clock()
    searched = reading.searched or read
    checked = reading.page.checked()
    text = checked.text
    if reading.abstained:
        why = reading.why_not or nothing_found(reading.coverage, reading.evidence, reading.found)
        text = f"{read_as(placed)}{why}"
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


def read_as(placed: Placed) -> str:
    """How the question's time or event was read, as a sentence; blank where it names none."""
    if placed.event is not None:
        at = stretch(placed.event.timestamp, placed.event.timestamp)
        return f"{placed.reading} {placed.event.address} ({at}). "
    return f"{placed.reading}. " if placed.reading else ""


async def by_rules(placed: Placed, embed: Embed | None, now_ms: int) -> Reading | None:
    """What rules answer exactly: what is new, an event, a count, a list. None for what has to be searched for."""
    if placed.missing:
        return await _no_such_event(placed)
    if placed.scope.key:
        return await _keyed(placed)
    if placed.question.intent == "new-since" and await _has_events(placed):
        return await _news(placed, embed)
    return await _event(placed, now_ms) or await _count(placed) or await _list(placed)


@dataclass(frozen=True, slots=True)
class _Judge:
    """How sentences are judged."""

    embed: Embed | None
    top_k: int
    limit: int
    floor: float
    threshold: float
    clock: Callable[[], float]
    retrieval: Retrieval
    now_ms: int

    async def extract(
        self, question: str, evidence: Sequence[Evidence], *, chosen: bool, each: bool, prefer: Sort | None
    ) -> Extract:
        limit = _MOST_LISTED if each else self.limit
        return await extract(
            question, evidence, embed=self.embed, limit_sentences=limit, floor=self.floor, threshold=self.threshold,
            timed=chosen, each=each, prefer=prefer,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ what is new
async def _has_events(placed: Placed) -> bool:
    """Whether anything but documents may be looked at: nothing is new in a book."""
    topics = (await placed.scope.covered()).topics
    return bool(placed.scope.events(topics))


async def _news(placed: Placed, embed: Embed | None) -> Reading:
    """What is new since the question's time, or since a day before the newest record."""
    if placed.others and (placed.question.trouble or placed.question.fresh):
        placed = await busiest(placed)
    scope = placed.scope
    if scope.since_ms is None and scope.until_ms is None:
        newest = await scope.newest()
        if newest is not None:
            since = last_day(to_ms(newest.timestamp))
            placed = replace(placed, scope=scope.within(since, scope.until_ms))
            scope = placed.scope
            if not placed.reading:
                placed = replace(placed, reading=f"I read it as {bounds(since, None)}, a day before the newest record")
    page = _opened(placed)
    coverage = await scope.covered()
    news = await whats_new(placed, page, embed=embed)
    notes = (*coverage.notes, *news.notes)
    coverage = replace(coverage, omitted=news.left_out, truncated=news.left_out > 0, notes=notes)
    if news.shown:
        return Reading(page, coverage)
    what = "nothing that went wrong" if placed.question.trouble else "nothing"
    seen = f"{'first ' if placed.question.fresh else ''}seen {bounds(scope.since_ms, scope.until_ms)}"
    why = f"No answer: {what} was {seen} among the patterns of {', '.join(news.topics)}."
    return Reading(page, coverage, abstained=True, confidence=0.0, why_not=why)


def _opened(placed: Placed) -> Page:
    """A page that begins with how the question's time was read, where it named one."""
    page = Page()
    event = placed.event
    if event is not None:
        start, end = _first_sentence(event.value)
        at = stretch(event.timestamp, event.timestamp)
        page.lines.append(
            f"{placed.reading} {quote(event.value, start, end)} ({whose(event)}, {at}) {page.cite(event, start, end)}."
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


async def _no_such_event(placed: Placed) -> Reading:
    coverage = await placed.scope.covered()
    where = ", ".join(coverage.topics)
    why = f'No answer: no record of {where} tells when "{placed.missing}" is; name a time, such as "since 14:05".'
    return Reading(Page(), coverage, abstained=True, confidence=0.0, why_not=why)


# ------------------------------------------------------------------------------------------------------- count, find
async def _event(placed: Placed, now_ms: int) -> Reading | None:
    """The event a question asks for, where a record tells of it."""
    asked, scope = placed.question, placed.scope
    found = [] if asked.asks_for is None else await find_events(asked.asks_for, scope, now_ms)
    if not found:
        return None
    page, hit = Page(), found[0]
    said = [(start, end) for start, end in sentences(hit.value)[:3]] if scope.kind_of(hit.topic) == "exact" else []
    for start, end in said or [_first_sentence(hit.value)]:
        at = stretch(hit.timestamp, hit.timestamp)
        page.lines.append(f"- {quote(hit.value, start, end)} ({whose(hit)}, {at}) {page.cite(hit, start, end)}")
    return Reading(page, await scope.covered())


async def _count(placed: Placed) -> Reading | None:
    """How many records there are of a topic, of a level, or with the words counted; None where none has them, or where
    only documents are asked: then what a search finds is the answer."""
    asked, scope = placed.question, placed.scope
    if asked.intent != "count" or placed.as_words:
        return None
    coverage = await scope.covered()
    events = scope.events(coverage.topics)
    topics = named_topics(asked.counted, events)
    rest = [w for w in besides(asked.counted, topics) if not topics or not set(content_words(w)) <= _COMING]
    if not events or not (topics or rest or asked.counted_level):
        return None
    page = _opened(placed)
    total = await count_words(scope, topics or events, " ".join(rest), asked.counted_level, page)
    if not total and asked.counted_level:  # nothing has such a level; something may say the word
        total = await count_words(scope, topics or events, " ".join((*rest, asked.counted_word)), "", page)
    return Reading(page, coverage, confidence=1.0) if total else None


async def _find(placed: Placed, judge: _Judge) -> Reading:
    """The best supporting sentences of what a search finds, within the question's time."""
    asked = placed.question
    words = asked.text if placed.as_words else asked.words or asked.text
    reading = await _search(placed, words, judge)
    period = asked.period
    if reading.abstained and period is not None and placed.reading and (period.present or not await _has_events(placed)):
        # documents speak of times that are not their records' own: "who runs the shop today?", "the last three minutes"
        wider = replace(placed, scope=placed.scope.within(None, None), reading="", as_words=True)
        other = await _search(wider, asked.text, judge, saying="" if period.present else period.phrase)
        reading = reading if other.abstained else other
    return reading


async def _search(placed: Placed, words: str, judge: _Judge, saying: str = "") -> Reading:
    """What a search for `words` supports; as words, only documents do, whose passages say the content words of `saying`."""
    scope, asked = placed.scope, placed.question
    topics = await _events_only(scope) if placed.reading and not placed.as_words else None
    reply = await judge.retrieval.run(scope, words, judge.top_k, judge.now_ms, topics=topics)
    evidence = _evidence(reply, scope.kind_of)
    if placed.as_words:
        needed = set(content_words(saying))
        evidence = [e for e in evidence if e.kind == "chunks" and needed <= set(content_words(e.passage.text))]
    searched = judge.clock()
    chosen = scope.since_ms is not None or scope.until_ms is not None or bool(scope.key) or scope.listed
    prefer = None if placed.as_words else asked.told_by
    found = await judge.extract(words, evidence, chosen=chosen, each=scope.listed, prefer=prefer)
    page = _opened(placed)
    said = found.sentences
    if said and asked.intent == "seen-before":
        page.lines.append("Seen, the oldest first:")
        said = tuple(sorted(said, key=lambda s: _began(evidence[s.index])))
    if asked.intent == "seen-before":
        said = tuple(_with_remedies(said, evidence))
    lines = [_line(page, scope, evidence[s.index], s) for s in said]
    page.lines += [f"- {line}" for line in lines] if len(lines) > 1 or page.lines else lines
    if asked.intent == "seen-before" and not placed.as_words:
        patterns = [evidence[s.index] for s in said if evidence[s.index].kind == "template"]
        told = await tell_of(scope, page, words, patterns, judge.embed)
        if told and found.abstained:
            return Reading(page, reply.coverage, False, judge.threshold, found, evidence, searched=searched)
    return Reading(page, reply.coverage, found.abstained, found.confidence, found, evidence, searched=searched)


def _with_remedies(said: Sequence[Sentence], evidence: Sequence[Evidence]) -> Iterator[Sentence]:
    """Sentences, each with the one of its record that says how it was mended, where another does."""
    told = {(evidence[s.index].address, s.start) for s in said}
    for s in said:
        yield s
        item = evidence[s.index]
        if item.kind != "template" and (span := remedy(item)) is not None and (item.address, span[0]) not in told:
            told.add((item.address, span[0]))
            yield replace(s, start=span[0], end=span[1])


async def _events_only(scope: Scope) -> list[str] | None:
    """The topics that are not of documents, whose time is that of their delivery; None where there are no others."""
    topics = (await scope.covered()).topics
    return scope.events(topics) or None


async def _list(placed: Placed) -> Reading | None:
    """The records of a topic in a time, where the question has nothing else: "what was deployed between 13:00 and 14:00?"
    None for other questions, and for logs and documents."""
    asked, scope = placed.question, placed.scope
    if not (placed.reading and asked.subject) or asked.intent not in ("find", "when", "seen-before"):
        return None
    every = (await scope.covered()).topics
    topics = [t for t in named_topics(asked.subject, scope.events(every)) if scope.kind_of(t) != "template"]
    if not topics or besides(asked.subject, topics):
        return None
    return await _listed(placed, topics)


async def _keyed(placed: Placed) -> Reading | None:
    """The records with the key a question names, where it asks for nothing else of a person: "what did Ines say?"; and always
    those of one thing, such as a ticket."""
    if placed.question.subject and not numbered(placed.scope.key):
        return None
    return await _listed(placed, None)


async def _listed(placed: Placed, topics: Sequence[str] | None) -> Reading | None:
    """The newest records in scope, the oldest of them first; None where there are none."""
    scope = placed.scope
    reply = await scope.search("", _MOST_LISTED, topics=topics)
    if not len(reply):
        return None
    page = _opened(placed)
    if placed.question.intent == "count":
        page.lines.append(f"{reply.coverage.searched:,} record{'s' * (reply.coverage.searched > 1)}, the newest:")
    for hit in sorted(reply, key=lambda h: (h.timestamp, h.address)):
        line = re.search(r"\S[^\n]{0,299}", hit.value)
        start, end = line.span() if line else (0, len(hit.value))
        at = stretch(hit.timestamp, hit.timestamp)
        page.lines.append(f"- {quote(hit.value, start, end)} ({whose(hit)}, {at}) {page.cite(hit, start, end)}")
    left = max(reply.coverage.searched - len(reply), 0)
    notes = (*reply.coverage.notes, *([f"older records not shown: {left:,}"] if left else []))
    return Reading(page, replace(reply.coverage, omitted=left, truncated=left > 0, notes=notes), confidence=1.0)


def _evidence(reply: SearchReply, kind_of: Callable[[str], PassageForm]) -> list[Evidence]:
    return [Evidence.of(hit, kind_of(hit.topic)) for hit in reply]


def _began(item: Evidence) -> datetime:
    return item.passage.first_seen if item.kind == "template" else item.timestamp


def _line(page: Page, scope: Scope, item: Evidence, sentence: Sentence) -> str:
    """The sentence as a code span and, for a pattern, how often and when it was seen."""
    said = quote(item.value, sentence.start, sentence.end)
    mark = page.cite(item, sentence.start, sentence.end)
    if item.kind == "chunks":
        return f"{said} {mark}"
    return f"{said} ({how_often(item.passage, item.timestamp, scope.since_ms, scope.until_ms)}) {mark}"


def nothing_found(coverage: Coverage, evidence: Sequence[Quotable], found: Extract | None = None) -> str:
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
    if found is not None and found.nearest is not None:
        said.append(f"The nearest is {evidence[found.nearest.index].address}.")
    if coverage.backlog:
        said.append(f"{coverage.backlog:,} records are not searchable by meaning yet; ask again when they are.")
    said.append("Try the words the records would use, a wider time range or other topics; a search shows what comes near.")
    return " ".join(said)


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
