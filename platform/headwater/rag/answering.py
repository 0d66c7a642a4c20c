"""A question answered by a chat model: records found and packed, the model's words checked while they stream.

    question -> alone (rules, and the model in a conversation) -> its time and event -> what rules answer exactly, and hits
    -> entries within a budget -> fenced -> the model's words, made safe -> each sentence cited -> meaning settles the rest

Whatever the model says, every quote that is shown stands in a record that was retrieved, every sentence is cited or listed as
unsupported, and no more is said than the model said. Where nothing supports an answer there is none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from headwater.composed import AskEvent
from headwater.errors import LimitError, ModelError
from headwater.llm.chat import Chat
from headwater.llm.extractive import Embed
from headwater.rag import prompts
from headwater.rag.chain import MODEL, Reading, by_rules, nothing_found, read_as
from headwater.rag.grounding import Bibliography, Grounded, Grounding
from headwater.rag.packing import Entry, pack, tokens, told
from headwater.rag.place import Placed, Scope, place
from headwater.rag.retrieval import Retrieval
from headwater.rag.speech import Sentence, Speech
from headwater.rag.standalone import Standalone, Turn, Wording
from headwater.records import Answer, Coverage, Hit, PassageForm, from_ms
from headwater.records.answers import Read
from headwater.records.models import Completion, Message

T = TypeVar("T")
WEAK = 0.12  # score of the best hit below which nothing is asked of the model: no record is near
_OF_FINDINGS = 0.6  # of the budget that what rules found may take
_MOST_MARKER = 40
_SHORTEST = 20  # characters of a sentence that may not come twice
_MOST_REWRITTEN = 400  # characters


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What was said before the question: the newest `turns` that fit, a `summary` of those before them, and what the people who
    run the conversation tell the model."""

    turns: tuple[Turn, ...] = ()
    summary: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What an answer was made of, for the record."""

    answer: Answer
    standalone: str
    read: tuple[Read, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers by one chat model. `look_at` gives the scope of a question; `embed` and its `floor` judge meaning (None: words
    alone decide); `clock` gives monotonic seconds, `now_ms` the time of asking, `marker` a text no record can know."""

    chat: Chat
    kind_of: Callable[[str], PassageForm]
    embed: Embed | None
    floor: float
    clock: Callable[[], float]
    now_ms: int
    marker: Callable[[], str]
    context_tokens: int
    answer_tokens: int

    async def rewritten(self, standalone: Standalone, question: str, dialogue: Dialogue) -> Standalone:
        """The question as the model makes it stand alone, searched for besides the wordings of the rules. Where the model fails
        or says something else than a question, the rules' own."""
        messages = prompts.rewriting(question, dialogue.turns, dialogue.summary)
        try:
            said = (await self.chat.complete(messages, temperature=0.0, max_tokens=120)).text
        except (ModelError, LimitError):
            return standalone
        lines = [line.strip(" \t\"'`*-") for line in said.splitlines() if line.strip()]
        if len(lines) != 1 or not 2 < len(lines[0]) <= _MOST_REWRITTEN or not _akin(lines[0], question, dialogue.turns):
            return standalone
        return replace(standalone, text=lines[0], wordings=(*standalone.wordings, Wording(lines[0], 1.0)))

    async def widened(self, standalone: Standalone, count: int) -> Standalone:
        """The same, searched for by other wordings of the model's too."""
        try:
            said = (await self.chat.complete(prompts.widening(standalone.text, count), temperature=0.0, max_tokens=160)).text
        except (ModelError, LimitError):
            return standalone
        lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s*", "", line).strip(" \"'`") for line in said.splitlines()]
        more = [Wording(line[:_MOST_REWRITTEN], 0.5) for line in dict.fromkeys(lines) if len(line) > 2][:count]
        own = standalone.wordings or (Wording(standalone.text, 1.0),)
        return replace(standalone, wordings=(*own, *more))

    async def events(
        self, id: str, question: str, standalone: Standalone, scope: Scope, retrieval: Retrieval, top_k: int,
        dialogue: Dialogue,
    ) -> AsyncGenerator[AskEvent | Made, None]:  # fmt: skip
        """`retrieval`, tokens and citations as the model speaks, and what was made, last. ModelError where the model fails."""
        began = self.clock()
        placed = await place(standalone.text, await scope.knowing_documents(), self.now_ms)
        basis = await self._basis(placed, standalone, retrieval, top_k)
        searched = self.clock()
        yield AskEvent("retrieval", basis.coverage)
        telling = _Telling(id, question, standalone.text, self.chat.name, basis, began, searched, self.clock)
        if basis.refusal:
            for event in telling.refused(basis.refusal):
                yield event
            return
        async with aclosing(self._speak(telling, placed, standalone, dialogue)) as spoken:
            async for event in spoken:
                yield event

    async def _basis(self, placed: Placed, standalone: Standalone, retrieval: Retrieval, top_k: int) -> _Basis:
        """What the model is to be shown; or the refusal, where there is nothing to show it."""
        scope, budget = placed.scope, min(self.context_tokens, self.chat.context_tokens // 2)
        reading = await by_rules(placed, self.embed, self.now_ms)
        if reading is not None and reading.abstained:
            return _Basis((), reading.coverage, refusal=f"{read_as(placed)}{reading.why_not}")
        first, findings = self._findings(reading, scope, round(budget * _OF_FINDINGS)) if reading else ((), "")
        words = standalone.text if placed.as_words else placed.question.words or standalone.text
        within = scope.within(None, None) if placed.as_words else scope
        topics = None
        if placed.reading and not placed.as_words:
            every = (await scope.covered()).topics
            topics = scope.events(every) or None
        reply = await retrieval.run(within, words, top_k, self.now_ms, topics=topics)
        coverage = reading.coverage if reading else reply.coverage
        if not first and (not len(reply) or max(h.score for h in reply) < WEAK):
            return _Basis((), coverage, hits=tuple(reply), refusal=f"{read_as(placed)}{nothing_found(coverage, tuple(reply))}")
        entries = pack(
            tuple(reply), self.kind_of, budget - tokens(findings), first=first, since_ms=scope.since_ms, until_ms=scope.until_ms
        )
        return _Basis(entries, coverage, tuple(reply), findings, opening=read_as(placed).strip(), exact=reading)

    def _findings(self, reading: Reading, scope: Scope, budget: int) -> tuple[tuple[Entry, ...], str]:
        """What rules found as entries, and its text with their numbers."""
        checked = reading.page.checked()
        records = {c.address: reading.page.records[c.address] for c in checked.citations}
        entries = told(((r, self.kind_of(r.address.split("/")[0])) for r in records.values()), budget)  # type: ignore[misc]
        number = {e.address: e.n for e in entries}
        of = {c.n: number.get(c.address) for c in checked.citations}
        text = re.sub(r"\[(\d+)\]", lambda m: f"[{n}]" if (n := of.get(int(m[1]))) else "", checked.text)
        return entries, text

    async def _speak(
        self, telling: _Telling, placed: Placed, standalone: Standalone, dialogue: Dialogue
    ) -> AsyncGenerator[AskEvent | Made, None]:
        basis = telling.basis
        messages = self._messages(basis, standalone, dialogue, telling.question)
        for event in telling.opened(basis.opening):
            yield event
        completion: Completion | None = None
        async with aclosing(_closing(self.chat.stream(messages, max_tokens=self.answer_tokens))) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    completion = piece
                    break
                for event in telling.heard(piece.text):
                    yield event
        if completion is None:
            raise ModelError(f"{self.chat.name} ended its answer without saying that it is whole; ask again")
        for event in telling.ended():
            yield event
        checking = self.clock()
        judged = await telling.grounding.settle(telling.judged, self.embed, self.floor)
        for last in telling.done(judged, completion, checking):
            yield last

    def _messages(self, basis: _Basis, standalone: Standalone, dialogue: Dialogue, question: str) -> list[Message]:
        marker = self.marker()[:_MOST_MARKER]
        asked = question if standalone.text == question else f"{question}\n(That is: {standalone.text})"
        return prompts.answering(
            asked, basis.entries, marker=marker, before=dialogue.turns, summary=dialogue.summary, system=dialogue.system,
            findings=basis.findings, now=f"{from_ms(self.now_ms):%Y-%m-%d %H:%M} UTC" if basis.opening else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an answer is made from. `refusal` says why there can be none; `exact` is what rules found, which needs no model."""

    entries: tuple[Entry, ...]
    coverage: Coverage
    hits: tuple[Hit, ...] = ()
    findings: str = ""
    opening: str = ""
    refusal: str = ""
    exact: Reading | None = None


@dataclass(slots=True)
class _Telling:
    """One answer while it is told: what was shown so far, and what its sentences rest on."""

    id: str
    question: str
    standalone: str
    model: str
    basis: _Basis
    began: float
    searched: float
    clock: Callable[[], float]
    grounding: Grounding = field(init=False)
    speech: Speech = field(init=False)
    sources: Bibliography = field(init=False)
    judged: list[Grounded] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    length: int = 0  # of what was shown
    first: float | None = None
    opening: str = ""

    def __post_init__(self) -> None:
        entries = self.basis.entries
        by_address = {e.address: e for e in entries}
        self.grounding = Grounding(entries, self.question, f"{self.basis.findings} {self.basis.opening}")
        self.speech = Speech(self.grounding.quoted, frozenset(by_address))
        self.sources = Bibliography(by_address.__getitem__)

    def opened(self, opening: str) -> list[AskEvent]:
        """How the question was read, before the model says anything."""
        self.opening = f"{opening}\n" if opening else ""
        return [self._token(self.opening)] if self.opening else []

    def heard(self, piece: str) -> list[AskEvent]:
        return self._told(self.speech.feed(piece))

    def ended(self) -> list[AskEvent]:
        return self._told(self.speech.end())

    def _told(self, said: Sequence[str | Sentence]) -> list[AskEvent]:
        events = []
        for part in said:
            if isinstance(part, str):
                self.first = self.clock() if self.first is None else self.first
                events.append(self._token(part))
                continue
            judged = self.grounding.check(part)
            self.judged.append(judged)
            marks, new = self.sources.marks(judged)
            events += [AskEvent("citation", citation, self._place()) for citation in new]
            if marks:
                events.append(self._token(marks))
        return events

    def _token(self, text: str) -> AskEvent:
        self.shown.append(text)
        self.length += len(text)
        return AskEvent("token", text, self._place())

    def _place(self) -> str:
        return f"{self.id}.{self.length}"

    def refused(self, why: str, completion: Completion | None = None) -> list[AskEvent | Made]:
        """No answer: what was searched instead."""
        answer = Answer(
            id=self.id, question=self.question, text=why, citations=(), unsupported=(), abstained=True, confidence=0.0,
            coverage=self.basis.coverage, model=completion.model if completion else self.model, usage=self._usage(completion),
            timings=self._timings(self.clock()),
        )  # fmt: skip
        events: list[AskEvent | Made] = [] if self.shown else [self._token(why)]
        return [*events, Made(answer, self.standalone, self._read(), "".join(self.shown))]

    def exactly(self, reading: Reading, completion: Completion, checking: float) -> list[AskEvent | Made]:
        """What rules found, in their words: what the model made of it is backed by nothing."""
        checked, coverage = reading.page.checked(), self.basis.coverage
        notes = (*coverage.notes, f"told as it was counted: what {completion.model} said of it is not backed by the records")
        answer = Answer(
            id=self.id, question=self.question, text=checked.text, citations=checked.citations, unsupported=checked.unsupported,
            abstained=False, confidence=round(reading.confidence, 4), coverage=replace(coverage, notes=notes), model=MODEL,
            usage=self._usage(completion), timings=self._timings(checking),
        )  # fmt: skip
        events: list[AskEvent | Made] = [AskEvent("citation", citation, self._place()) for citation in checked.citations]
        if not self.shown:
            events.append(self._token(checked.text))
        return [*events, Made(answer, self.standalone, self._read(), "".join(self.shown))]

    def done(self, judged: Sequence[Grounded], completion: Completion, checking: float) -> list[AskEvent | Made]:
        """The whole answer, checked; what was said before is not said again."""
        judged = _once(judged)
        claims = [g for g in judged if g.supported is not None]
        held = [g for g in claims if g.supported]
        if self.speech.refused or not held:
            if self.basis.exact is not None:
                return self.exactly(self.basis.exact, completion, checking)
            return self.refused(nothing_found(self.basis.coverage, self.basis.hits), completion)
        text, sources = [self.opening], Bibliography(self.sources.entry_of, dict(self.sources.numbers))
        for g in judged:
            text.append(f"{g.sentence.gap}{g.sentence.text}{sources.marks(g)[0]}")
        used = {p for g in judged for p in g.places}
        sources.numbers = {p: n for p, n in sources.numbers.items() if p in used}
        notes = self.basis.coverage.notes
        if completion.finish != "stop":
            notes = (*notes, f"the model's answer was cut ({completion.finish}); more is allowed with ask.answer_tokens")
        strength = max((h.score for h in self.basis.hits), default=1.0) if not self.basis.findings else 1.0
        answer = Answer(
            id=self.id,
            question=self.question,
            text="".join(text).strip(),
            citations=sources.citations(),
            unsupported=tuple(g.sentence.text for g in claims if not g.supported),
            abstained=False,
            confidence=round(len(held) / len(claims) * min(1.0, sum(g.support for g in held) / len(held)) * strength**0.5, 4),
            coverage=replace(self.basis.coverage, notes=notes),
            model=completion.model,
            usage=self._usage(completion),
            timings=self._timings(checking),
        )
        return [Made(answer, self.standalone, self._read(), "".join(self.shown))]

    def _read(self) -> tuple[Read, ...]:
        scores = {h.address: (h.score, h.passage.id) for h in self.basis.hits}
        return tuple(Read(e.address, *scores.get(e.address, (1.0, 0))) for e in self.basis.entries)

    def _usage(self, completion: Completion | None) -> dict[str, int]:
        usage = {"records": len(self.basis.entries)}
        if completion is not None:
            usage |= {"input_tokens": completion.usage.input_tokens, "output_tokens": completion.usage.output_tokens}
        return usage

    def _timings(self, checking: float) -> dict[str, float]:
        now = self.clock()
        spans = {
            "search_ms": self.searched - self.began,
            "first_token_ms": (self.first or checking) - self.began,
            "model_ms": max(0.0, checking - self.searched),
            "check_ms": now - checking,
            "total_ms": now - self.began,
        }
        return {name: round(seconds * 1000, 3) for name, seconds in spans.items()}


async def _closing(pieces: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The same pieces; closing this closes their source."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


def _once(judged: Sequence[Grounded]) -> list[Grounded]:
    """Each sentence once: small models go in circles."""
    first: dict[str, Grounded] = {}
    for k, g in enumerate(judged):
        plain = " ".join(g.sentence.text.casefold().split())
        first.setdefault(plain if len(plain) > _SHORTEST else f"{k} {plain}", g)
    return list(first.values())


def _akin(rewritten: str, question: str, turns: Sequence[Turn]) -> bool:
    """Whether a rewritten question is made of what was said: a model that answers, or obeys somebody, uses other words."""
    from headwater.llm.extractive import content_words

    said = {w for text in (question, *(t.text for t in turns)) for w in content_words(text)}
    words = content_words(rewritten)
    return bool(words) and sum(w in said for w in words) >= 0.6 * len(words)
