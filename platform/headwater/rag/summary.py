"""What many records say, in short: of topics, of a time, of a thread.

    patterns with their counts, and representative records -> as many as fit into calls of the model (map) -> the records
    it found worth citing -> one call over those (reduce) -> the same check as of answers

Without a model the most telling records are the summary: trouble first, then what is most like the others and not yet said.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headwater.chunks import sentences
from headwater.llm.extractive import LONGEST_SENTENCE, content_words, tells_trouble
from headwater.rag import prompts
from headwater.rag.answering import Answerer
from headwater.rag.grounding import Bibliography, Grounded, Grounding
from headwater.rag.packing import Entry, Shown, cut, tokens
from headwater.rag.place import Scope
from headwater.rag.retrieval import as_words
from headwater.rag.say import Page, bounds, how_often, quote, stretch
from headwater.rag.speech import Sentence, Speech
from headwater.records import Answer, Citation, Coverage, PassageForm, Pattern, Record
from headwater.records.levels import LEVELS, canonical_level
from headwater.records.models import Completion, Message

_MOST_PATTERNS = 60  # of one topic
_MOST_RECORDS = 120
_MOST_THREAD = 200
_MOST_CALLS = 8  # of the model, for parts
_WORDS_A_TOKEN = 0.6
_SAME = 0.7  # share of words from which two records say the same
_THREADS = ("thread", "thread_ts", "thread_id", "conversation", "subject", "issue", "ticket", "in_reply_to", "reply_to")


@dataclass(frozen=True, slots=True)
class Telling:
    """A record that may go into a summary: what is known of it, and how much it matters."""

    record: Shown
    kind: PassageForm
    facts: str
    weight: float
    words: frozenset[str]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is to be summarised. `records` were in scope, of which `tellings` stand for all, the weightiest first."""

    tellings: tuple[Telling, ...]
    coverage: Coverage
    about: str


async def gather(scope: Scope, q: str, thread: str | None) -> Gathered:
    """The records that stand for those in scope."""
    if thread is not None:
        return await _thread(scope, thread)
    coverage = (await scope.search(q, 1)).coverage
    about = f"{' of ' + ', '.join(coverage.topics[:5]) if coverage.topics else ''}"
    if scope.since_ms is not None or scope.until_ms is not None:
        about += f" from {bounds(scope.since_ms, scope.until_ms)}"
    found: list[Telling] = []
    parts = [_of_topic(scope, topic, q) for topic in coverage.topics]
    for part in await asyncio.gather(*parts):
        found += part
    return Gathered(_ranked(found), coverage, about)


async def _of_topic(scope: Scope, topic: str, q: str) -> list[Telling]:
    kind = scope.kind_of(topic)
    if kind != "template":
        reply = await scope.search(q, _MOST_RECORDS, topics=[topic])
        return [_telling(hit, kind, f"{hit.address} | {stretch(hit.timestamp, hit.timestamp)}", _trouble(hit)) for hit in reply]
    from headwater.rag.place import when

    seen = await scope.look.patterns(
        topic, q=as_words(q), since=when(scope.since_ms), until=when(scope.until_ms), limit=_MOST_PATTERNS
    )
    views = await asyncio.gather(*(scope.look.read(p.example) for p in seen.patterns), return_exceptions=True)
    found = []
    for pattern, view in zip(seen.patterns, views, strict=True):
        if isinstance(view, BaseException):  # deleted meanwhile
            continue
        found.append(_telling(view.record, kind, _pattern_facts(pattern, view.record, scope), _loud(pattern)))
    return found


async def _thread(scope: Scope, address: str) -> Gathered:
    """The records that belong together with the one at an address: of its key, of its thread, or around it."""
    view = await scope.look.read(address, context=20)
    record, topic = view.record, view.record.topic
    kind = scope.kind_of(topic)
    records: tuple[Shown, ...] = (*view.before, record, *view.after)
    how = f" around {address}"
    for name in _THREADS:
        if (value := record.attributes.get(name)) is not None and isinstance(value, str | int):
            reply = await scope.look.search(f'{name}:"{value}"'.replace("\n", " "), topics=[topic], top_k=_MOST_THREAD)
            records, how = tuple(reply), f" of {name} {value}"
            break
    else:
        if record.key:
            reply = await scope.look.search(f'key:"{record.key}"', topics=[topic], top_k=_MOST_THREAD)
            records, how = tuple(reply) or records, f" of {record.key}"
    ordered = sorted(records, key=lambda r: (r.timestamp, r.address))
    found = [_telling(r, kind, f"{r.address} | {stretch(r.timestamp, r.timestamp)}", _trouble(r)) for r in ordered]
    coverage = (await scope.look.search("", topics=[topic], top_k=1)).coverage
    return Gathered(_ranked(found), replace(coverage, searched=len(ordered), next_cursor=None), how)


def _telling(record: Shown, kind: PassageForm, facts: str, weight: float) -> Telling:
    return Telling(record, kind, facts, weight, frozenset(content_words(record.value[:2000])))


def _trouble(record: Shown) -> float:
    """1 for what tells of trouble, .5 for the rest."""
    level = record.attributes.get("level")
    loud = isinstance(level, str) and canonical_level(level) in ("error", "fatal")
    return 1.0 if loud or tells_trouble(record.value[:2000]) else 0.5


def _loud(pattern: Pattern) -> float:
    """How much a pattern matters: by its level, then by how often it is there."""
    level = canonical_level(pattern.level) if pattern.level else None
    place = LEVELS.index(level) / (len(LEVELS) - 1) if level in LEVELS else 0.3
    return 0.2 + 0.6 * place + 0.2 * min(1.0, math.log10(1 + pattern.count) / 5)


def _pattern_facts(pattern: Pattern, record: Record, scope: Scope) -> str:
    seen = replace(pattern.passage, count=pattern.count)
    level = f" | {pattern.level}" if pattern.level else ""
    return f"{pattern.example}{level} | {how_often(seen, record.timestamp, scope.since_ms, scope.until_ms)}"


def _ranked(found: Sequence[Telling]) -> tuple[Telling, ...]:
    """Weight times how much a record is like the others, what was said already put off (maximal marginal relevance, Carbonell
    and Goldstein, SIGIR 1998)."""
    counts = Counter(word for t in found for word in t.words)
    common = {word: math.log(1 + n) / math.log(2 + len(found)) for word, n in counts.items()}
    central = [sum(common[w] for w in t.words) / math.sqrt(1 + len(t.words)) for t in found]
    most = max(central, default=1.0) or 1.0
    left = sorted(range(len(found)), key=lambda i: (-found[i].weight * (0.5 + central[i] / most), i))
    first: list[Telling] = []
    again: list[Telling] = []
    for i in left:
        told = found[i]
        same = any(_alike(told.words, other.words) for other in first[-40:])
        (again if same else first).append(told)
    return (*first, *again)


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one) and len(one & other) >= _SAME * min(len(one), len(other) or 1)


# ------------------------------------------------------------------------------------------------------ without a model
def without_model(gathered: Gathered, max_tokens: int, id: str) -> Answer:
    """The most telling records themselves, as many as fit."""
    page, left, said = Page(), max_tokens, 0
    for t in gathered.tellings:
        spans = sentences(t.record.value[:4000]) if t.kind != "template" else []
        start, end = spans[0] if spans else (0, len(t.record.value.rstrip()))
        end = min(end, start + LONGEST_SENTENCE)
        if end <= start:
            continue
        line = f"- {quote(t.record.value, start, end)} ({t.facts.partition(' | ')[2]})"
        left -= tokens(line)
        if left < 0 and said:
            break
        page.lines.append(f"{line} {page.cite(t.record, start, end)}")
        said += 1
    checked = page.checked()
    left = len(gathered.tellings) - said
    return _answer(id, gathered, checked.text, checked.citations, (), "extractive", {}, 1.0, not said, left)


# ---------------------------------------------------------------------------------------------------------- by a model
async def by_model(gathered: Gathered, answerer: Answerer, max_tokens: int, id: str) -> Answer:
    """In the model's words, checked. ModelError where it fails; what it says without any record is left out."""
    budget = min(answerer.context_tokens, answerer.chat.context_tokens // 2)
    parts = _parts(gathered.tellings, budget)
    usage: Counter[str] = Counter()
    chosen = parts[0] if parts else ()
    if len(parts) > 1:
        cited: list[Telling] = []
        for part in parts[:_MOST_CALLS]:
            judged, _, completion = await _said(part, gathered.about, answerer, max_tokens)
            _count(usage, completion)
            places = {p[0] for g in judged if g.supported for p in g.places}
            cited += [t for t in part if t.record.address in places]
        chosen = (_parts(cited, budget) or [chosen])[0]
    if not chosen:
        return without_model(gathered, max_tokens, id)
    judged, grounding, completion = await _said(chosen, gathered.about, answerer, max_tokens)
    _count(usage, completion)
    judged = [g for g in judged if g.supported is not False]
    if not any(g.supported for g in judged):
        return replace(without_model(gathered, max_tokens, id), usage=dict(usage))
    entries = {e.address: e for e in grounding.entries}
    sources = Bibliography(entries.__getitem__)
    text = "".join(f"{g.sentence.gap}{g.sentence.text}{sources.marks(g)[0]}" for g in judged).strip()
    support = [g.support for g in judged if g.supported]
    left = len(gathered.tellings) - sum(len(p) for p in parts[:_MOST_CALLS])
    return _answer(
        id, gathered, text, sources.citations(), (), completion.model, usage, sum(support) / len(support), False, left
    )


def _parts(tellings: Sequence[Telling], budget: int) -> list[tuple[Telling, ...]]:
    """Tellings in parts that each fit into a call."""
    parts: list[list[Telling]] = []
    left = 0
    for t in tellings:
        size = min(tokens(t.facts) + tokens(t.record.value[:4000]), budget // 4) + 6
        if not parts or size > left:
            parts.append([])
            left = budget
        parts[-1].append(t)
        left -= size
    return [tuple(part) for part in parts]


async def _said(
    part: Sequence[Telling], about: str, answerer: Answerer, max_tokens: int
) -> tuple[list[Grounded], Grounding, Completion]:
    """What the model says of some records, judged."""
    room = min(answerer.context_tokens, answerer.chat.context_tokens // 2) // 4
    entries = [
        Entry(n, t.record, t.kind, t.facts, 0, cut(t.record.value, 0, len(t.record.value), room)) for n, t in enumerate(part, 1)
    ]
    grounding = Grounding(entries)
    speech = Speech(grounding.quoted, frozenset(e.address for e in entries))
    messages: list[Message] = prompts.summarising(
        entries, marker=answerer.marker(), about=about, most_words=max(20, round(max_tokens * _WORDS_A_TOKEN))
    )
    completion = await answerer.chat.complete(messages, max_tokens=max_tokens)
    said = [*speech.feed(completion.text), *speech.end()]
    judged = [grounding.check(s) for s in said if isinstance(s, Sentence)]
    return await grounding.settle(judged, answerer.embed, answerer.floor), grounding, completion


def _count(usage: Counter[str], completion: Completion) -> None:
    usage["input_tokens"] += completion.usage.input_tokens
    usage["output_tokens"] += completion.usage.output_tokens
    usage["calls"] += 1


def _answer(
    id: str, gathered: Gathered, text: str, citations: tuple[Citation, ...], unsupported: tuple[str, ...], model: str,
    usage: Counter[str] | dict[str, int], confidence: float, abstained: bool, left: int,
) -> Answer:  # fmt: skip
    coverage = gathered.coverage
    left = max(0, left)
    notes = (*coverage.notes, *([f"records and patterns not looked at: {left:,}"] if left else []))
    coverage = replace(coverage, omitted=left, truncated=left > 0, next_cursor=None, notes=notes)
    if abstained:
        text = f"No summary: there are no records{gathered.about}."
    return Answer(
        id, f"summary{gathered.about}", text, citations, unsupported, abstained, round(confidence, 4), coverage, model,
        {"records": len(gathered.tellings), **usage}, {},
    )  # fmt: skip
