"""Questions to an engine: the verbs of headwater.verbs.ask that end in an answer, and the answers that are kept."""

from __future__ import annotations

import hashlib
import hmac
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from headwater import telemetry, wire
from headwater.composed import AskEvent, events_of
from headwater.config import Settings, TopicConfig, duration_s
from headwater.embed import Embedder
from headwater.errors import ConfigError, LimitError, ModelError, NotFoundError, UsageError
from headwater.llm.chat import Chat
from headwater.llm.extractive import Embed
from headwater.llm.models import Models
from headwater.log import conversations as store
from headwater.log.conversations import AnswerRow, ConversationRow, MessageRow, Shelf
from headwater.log.store import Log, TopicRow
from headwater.rag import summary
from headwater.rag.answering import Answerer, Dialogue, Made
from headwater.rag.chain import ask as extractive
from headwater.rag.changes import compared
from headwater.rag.conversations import Conversations, threaded
from headwater.rag.place import Look, Scope
from headwater.rag.retrieval import Rerank, Retrieval
from headwater.rag.standalone import Standalone, alone, contextualise
from headwater.records import Answer, from_ms, parse_address
from headwater.records.answers import Read, Rerun, StoredAnswer
from headwater.search.planning import now_ms, seqs_of, window
from headwater.stock import Stock
from headwater.verbs.ask import When

_LONGEST = 4000  # characters of a question
_MOST_ANSWERS = 1000
_ARGUMENTS = ("topics", "since", "until", "top_k", "model", "rerank", "recency")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question with all it takes to answer it."""

    id: str
    question: str
    standalone: Standalone
    dialogue: Dialogue
    scope: Scope
    retrieval: Retrieval
    top_k: int
    chat: Chat | None
    arguments: Mapping[str, Any]
    home: tuple[ConversationRow, Shelf] | None = None
    rerun_of: str | None = None


class Asking:
    """Questions over the topics of an engine. `look` are its verbs, `past` gives them as of an earlier time, `secret` is what
    the markers around records are drawn from."""

    def __init__(
        self, look: Look, past: Callable[[Mapping[str, int]], Look], log: Log, stock: Stock, models: Models, settings: Settings,
        conversations: Conversations, *, rerank: Rerank, secret: bytes,
    ) -> None:  # fmt: skip
        self._look, self._past, self._log, self._stock, self._models = look, past, log, stock, models
        self._settings, self._conversations, self._rerank, self._secret = settings, conversations, rerank, secret

    # ------------------------------------------------------------------ verbs

    @telemetry.traced("headwater.ask")
    async def ask(self, question: str, **scope: Any) -> Answer:
        """As Verbs.ask."""
        return await self._whole(await self._prepared(question, **scope))

    async def _whole(self, asked: _Asked) -> Answer:
        async with aclosing(self._told(asked)) as events:
            async for event in events:
                if isinstance(event.data, Answer):
                    return event.data
        raise AssertionError("the last event is the answer")

    async def events(self, question: str, *, place: str | None = None, **scope: Any) -> AsyncIterator[AskEvent]:
        """As Verbs.ask_events."""
        if place is not None and (rest := await self._rest(place)) is not None:
            for event in rest:
                yield event
            return
        asked = await self._prepared(question, **scope)
        async with aclosing(self._told(asked)) as events:
            async for event in events:
                yield event

    async def answers(self, *, conversation: str | None = None, limit: int = 50) -> list[StoredAnswer]:
        """As Verbs.answers."""
        if not 1 <= limit <= _MOST_ANSWERS:
            raise UsageError(f"limit must be between 1 and {_MOST_ANSWERS}")
        found: list[AnswerRow] = []
        for shelf in self._conversations.shelves:
            found += await threaded(store.answers, shelf, conversation=conversation, limit=limit)
        found.sort(key=lambda row: (-row.created_ms, row.id))
        return [_stored(row) for row in found[:limit]]

    async def answer(self, id: str) -> StoredAnswer:
        """As Verbs.answer."""
        return _stored((await self._kept(id))[0])

    async def rerun(self, id: str, *, model: str | None = None) -> Rerun:
        """As Verbs.rerun."""
        before = await self.answer(id)
        scope = {name: before.arguments[name] for name in _ARGUMENTS if before.arguments.get(name) is not None}
        if model is not None:
            scope["model"] = model
        asked = await self._prepared(before.standalone, **scope)
        after = await self._whole(replace(asked, question=before.answer.question, rerun_of=id))
        return compared(before, await self.answer(after.id))

    async def summarize(
        self,
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        q: str = "",
        thread: str | None = None,
        max_tokens: int = 400,
        model: str | None = None,
    ) -> Answer:
        """As Verbs.summarize."""
        if not 20 <= max_tokens <= 8000:
            raise UsageError("max_tokens must be between 20 and 8,000")
        began, (since_ms, until_ms) = time.perf_counter(), window(since, until)
        chat, id = self._models.get(model), uuid.uuid4().hex
        scope = Scope(self._look, lambda topic: self._stock.find(topic).kind, topics, since_ms, until_ms)
        gathered = await summary.gather(scope, q, thread)
        searched = time.perf_counter()
        if chat is None or not gathered.tellings:
            answer = summary.without_model(gathered, max_tokens, id)
        else:
            try:
                answer = await summary.by_model(gathered, self._answerer(chat, gathered.about), max_tokens, id)
            except (ModelError, LimitError) as error:
                if not self._models.or_extractive:
                    raise
                answer = summary.without_model(gathered, max_tokens, id)
                notes = (*answer.coverage.notes, f"made without a model: {error}")
                answer = replace(answer, coverage=replace(answer.coverage, notes=notes))
        end = time.perf_counter()
        timings = {"search_ms": (searched - began) * 1000, "total_ms": (end - began) * 1000}
        return replace(answer, timings={name: round(ms, 3) for name, ms in timings.items()})

    # ------------------------------------------------------------------ from a question to its answer

    async def _prepared(
        self,
        question: str,
        *,
        conversation: str | None = None,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        top_k: int = 12,
        as_of: When | Mapping[str, int] | None = None,
        model: str | None = None,
        rerank: bool | None = None,
        recency: float | str | None = None,
    ) -> _Asked:
        """The question with its conversation, its scope and its model. Raises UsageError, NotFoundError, ConfigError."""
        if not question.strip():
            raise UsageError("the question is empty; ask about what the records say")
        if len(question) > _LONGEST:
            raise UsageError(f"a question has at most {_LONGEST:,} characters")
        if not 1 <= top_k <= 100:
            raise UsageError("top_k must be between 1 and 100")
        settings, (since_ms, until_ms), now = self._settings.ask, window(since, until), now_ms()
        self._models.get(model)  # what is wrong with it is told before anything is made
        home = None if conversation is None else await self._home(conversation, model)
        chat = self._models.get(model if home is None else home[0].model)
        dialogue = Dialogue() if home is None else await self._conversations.dialogue(*home)
        standalone = contextualise(question, dialogue.turns, now) if dialogue.turns else alone(question)
        seqs = None if as_of is None else await threaded(seqs_of, self._stock, self._stock.choose(topics), as_of)
        rerank = settings.rerank if rerank is None else rerank
        retrieval = Retrieval(
            standalone.wordings if dialogue.turns else (),
            settings.per_source if chat is not None else 0,
            None if recency is None else _recency_ms(recency),
            self._rerank if rerank else None,
        )
        given = {"topics": None if topics is None else list(topics), "since": _plain(since), "until": _plain(until),
                 "top_k": top_k, "as_of": seqs, "model": model, "rerank": rerank, "recency": recency}  # fmt: skip
        look = self._look if seqs is None else self._past(seqs)
        scope = Scope(look, lambda topic: self._stock.find(topic).kind, topics, since_ms, until_ms)
        return _Asked(uuid.uuid4().hex, question, standalone, dialogue, scope, retrieval, top_k, chat, given, home)

    async def _home(self, id: str, model: str | None) -> tuple[ConversationRow, Shelf]:
        """The conversation of that id, made where there is none; a model given answers in it from now on."""
        found = await threaded(self._conversations.find, id)
        if found is None:
            await self._conversations.create(id, model=model)
        elif model is not None and model != found[0].model:
            await self._conversations.change(id, model=model)
        else:
            return found
        return await self._conversations.known(id)

    async def _told(self, asked: _Asked) -> AsyncGenerator[AskEvent, None]:
        """The events of an answer; it is kept before `done`. Where the model fails before it said anything, and the settings'
        fallbacks end with `extractive`, the answer is made without it."""
        made: Made | None = None
        begun = False
        if asked.chat is not None:
            try:
                async with aclosing(self._by_model(asked, asked.chat)) as events:
                    async for event in events:
                        if isinstance(event, Made):
                            made = event
                        else:
                            begun = begun or event.event != "retrieval"
                            yield event
            except (ModelError, LimitError) as error:
                if begun or not self._models.or_extractive:
                    raise
                asked = replace(asked, chat=None)
                note = f"answered without a model: {error}"
                async for event in self._without(asked, note):
                    yield event
                return
        if made is None:
            async for event in self._without(asked, ""):
                yield event
            return
        await self._keep(asked, made)
        yield AskEvent("done", made.answer, f"{asked.id}.end")

    async def _by_model(self, asked: _Asked, chat: Chat) -> AsyncGenerator[AskEvent | Made, None]:
        settings, answerer = self._settings.ask, self._answerer(chat, asked.standalone.text)
        standalone = asked.standalone
        if asked.dialogue.turns and settings.rewrite:
            standalone = await answerer.rewritten(standalone, asked.question, asked.dialogue)
        if settings.wordings:
            standalone = await answerer.widened(standalone, min(settings.wordings, 4))
        wordings = standalone.wordings if standalone is not asked.standalone else asked.retrieval.wordings
        retrieval = replace(asked.retrieval, wordings=wordings)
        events = answerer.events(
            asked.id, asked.question, standalone, asked.scope, retrieval, asked.top_k, asked.dialogue
        )  # fmt: skip
        async with aclosing(events) as spoken:
            async for event in spoken:
                yield event

    def _answerer(self, chat: Chat, about: str) -> Answerer:
        settings, reader = self._settings.ask, self._reader()
        return Answerer(
            chat, lambda topic: self._stock.find(topic).kind, None if reader is None else reader.embed,
            0.0 if reader is None else reader.floor, time.perf_counter, now_ms(), lambda: self._marker(about),
            settings.context_tokens, settings.answer_tokens,
        )  # fmt: skip

    async def _without(self, asked: _Asked, note: str) -> AsyncGenerator[AskEvent, None]:
        """The answer without a model, as events."""
        reader, scope = self._reader(), asked.scope
        answer = await extractive(
            asked.standalone.text,
            look=scope.look,
            kind_of=scope.kind_of,
            topics=scope.topics,
            since_ms=scope.since_ms,
            until_ms=scope.until_ms,
            embed=None if reader is None else reader.embed,
            clock=time.perf_counter,
            now_ms=now_ms(),
            new_id=lambda: asked.id,
            top_k=asked.top_k,
            floor=0.0 if reader is None else reader.floor,
            retrieval=asked.retrieval,
        )
        coverage = replace(answer.coverage, notes=(*answer.coverage.notes, note)) if note else answer.coverage
        answer = replace(answer, question=asked.question, coverage=coverage)
        read = tuple(dict.fromkeys(Read(c.address, 1.0) for c in answer.citations))
        await self._keep(asked, Made(answer, asked.standalone.text, read, answer.text))
        for event in events_of(answer):
            yield event

    # ------------------------------------------------------------------ what is kept

    async def _keep(self, asked: _Asked, made: Made) -> None:
        """Keep an answer, and say it in its conversation."""
        now, home, answer = now_ms(), asked.home, made.answer
        shelf: Shelf = self._log if home is None else home[1]
        told = {
            "arguments": asked.arguments, "standalone": made.standalone, "read": [asdict(r) for r in made.read],
            "settings": {"embedding": self._settings.embedding.model, **asdict(self._settings.ask)}, "rerun_of": asked.rerun_of,
        }  # fmt: skip
        id = None if home is None else home[0].id
        row = AnswerRow(asked.id, id, now, wire.encode(answer), orjson.dumps(told), made.shown)

        def keep() -> None:
            records = self._records([r.address for r in made.read])
            shelf.write(lambda db: store.keep(db, row, records, self._settings.ask.answers_kept))

        await threaded(keep)
        if home is not None:
            said = [
                MessageRow(0, "user", asked.question, now),
                MessageRow(0, "assistant", answer.text, now, answer.id, answer.model),
            ]
            await self._conversations.say(home[0].id, shelf, said, asked.chat)

    def _records(self, addresses: Sequence[str]) -> list[int]:
        """The ids of records; those that went meanwhile are left out."""
        found, topics = [], dict[str, TopicRow]()
        for address in addresses:
            name, partition, offset = parse_address(address)
            try:
                topic = topics[name] = topics.get(name) or self._log.topic(name)
                found.append(self._log.find(topic, partition, offset).id)
            except NotFoundError:
                continue
        return found

    async def _kept(self, id: str) -> tuple[AnswerRow, Shelf]:
        for shelf in self._conversations.shelves:
            if (row := await threaded(store.answer, shelf, id)) is not None:
                return row, shelf
        raise NotFoundError(f"no answer {id[:100]!r} is kept; `headwater answers` lists those that are")

    async def _rest(self, place: str) -> list[AskEvent] | None:
        """What came behind a place of an answer that is kept; None where it is not, so that it has to be made anew."""
        id, _, at = place.partition(".")
        try:
            row, _ = await self._kept(id)
        except NotFoundError:
            return None
        answer = wire.decode(Answer, row.body)
        if at == "end":
            return []
        shown = row.shown[int(at) if at.isdigit() else 0 :]
        tokens = [AskEvent("token", shown, f"{id}.{len(row.shown)}")] if shown else []
        citations = [AskEvent("citation", c) for c in answer.citations]
        return [AskEvent("retrieval", answer.coverage), *citations, *tokens, AskEvent("done", answer, f"{id}.end")]

    # ------------------------------------------------------------------ small things

    def _reader(self) -> Embedder | None:
        """The model that judges meaning; None where there is none."""
        name = self._settings.embedding.model
        return None if name in ("none", "external") else self._stock.embedders.get(name, TopicConfig())

    def reading(self) -> tuple[Embed | None, float]:
        """What embeds texts to judge meaning, None where nothing does, and its floor."""
        reader = self._reader()
        return (None, 0.0) if reader is None else (reader.embed, reader.floor)

    def _marker(self, text: str) -> str:
        """What stands around the records of one call: nobody who writes records can know it, and the same question has the
        same, so that the cache of model answers serves it."""
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:20]


def _plain(when: When | None) -> str | float | int | None:
    return when.isoformat() if isinstance(when, datetime) else when


def _recency_ms(recency: float | str) -> float:
    try:
        seconds = duration_s(recency) if isinstance(recency, str) else float(recency)
    except ConfigError as error:
        raise UsageError(f"recency: {error}") from error
    if not 0 < seconds < 1e10:
        raise UsageError("recency is a time, such as 7d")
    return seconds * 1000


def _stored(row: AnswerRow) -> StoredAnswer:
    made = orjson.loads(row.made)
    read = tuple(Read(**r) for r in made["read"])
    answer = wire.decode(Answer, row.body)
    return StoredAnswer(answer, from_ms(row.created_ms), made["arguments"], made["standalone"], read, made["settings"],
                        made["rerun_of"])  # fmt: skip
