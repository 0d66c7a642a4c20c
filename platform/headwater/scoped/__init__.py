"""Verbs within a token's scope: what is outside it does not exist for whoever shows the token.

A verb that is not named here is refused, so a verb that is added later is closed until somebody has thought about it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from headwater.batches import Delivered
from headwater.composed import AskEvent
from headwater.errors import AuthError, HeadwaterError, NotFoundError
from headwater.records import (
    Answer,
    Coverage,
    DeadLetter,
    IndexInfo,
    RecordView,
    SearchReply,
    SourceInfo,
    Status,
    Topic,
    parse_address,
)
from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting, Verdict
from headwater.records.investigations import InvestigateEvent, Investigation
from headwater.records.labels import ClassifyReply
from headwater.records.watches import Watch, WatchHit, Woken
from headwater.scoped.conversations import OwnConversations
from headwater.scoped.pipelines import LOCAL, OwnPipelines
from headwater.tokens import Token, Tokens
from headwater.verbs import Verbs

T = TypeVar("T")
_OF_A_TOPIC = frozenset(
    {"topic", "records", "patterns", "drift", "index"}
)  # read the one topic that their first argument names
_STREAM_OF_A_TOPIC = frozenset({"tail"})
_WRITING = frozenset({"append"})  # writes to the topic that its first argument names
_OF_TOPICS = frozenset({"search_vector", "timeline"})  # read those that `topics` names, all in scope without it
_OF_NO_TOPIC = frozenset({"embed", "complete", "complete_stream"})  # by the configured models alone: others may cost
_ASKING = frozenset({"conversation", "since", "until", "top_k", "as_of", "rerank", "recency"})  # nothing of others, no model
_INVESTIGATING = frozenset({"since", "until", "steps", "timeout_s"})


def scoped(verbs: Verbs, token: Token | None, tokens: Tokens | None = None) -> Verbs:
    """`verbs` as the bearer of a token may call them; as they are for None, which stands for the API key or no key at all.
    Streams end when `tokens` no longer have it."""
    return verbs if token is None else cast(Verbs, _Scoped(verbs, token, tokens))


class _Scoped:
    """A few verbs by hand, most by the tables above, everything else refused."""

    def __init__(self, verbs: Verbs, token: Token, tokens: Tokens | None = None) -> None:
        self._verbs, self._token, self._tokens = verbs, token, tokens
        self._owner = f"token:{token.name}"
        self._talk = talk = OwnConversations(verbs, token)
        self.create_conversation, self.conversations, self.conversation = talk.create, talk.all, talk.one
        self.set_conversation, self.remove_conversation, self.messages = talk.change, talk.remove, talk.messages
        self.answers = talk.answers
        pipes = OwnPipelines(verbs, token, self._check)
        self.create_pipeline, self.pipelines, self.pipeline = pipes.create, pipes.all, pipes.one
        self.start_pipeline, self.stop_pipeline, self.delete_pipeline = pipes.start, pipes.stop, pipes.delete
        self.backtest_pipeline, self.run_pipeline, self.trace_pipeline = pipes.backtest, pipes.run, pipes.trace
        self.extract = pipes.extract

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        verb = getattr(self._verbs, name)
        if name in _STREAM_OF_A_TOPIC:
            return self._stream(verb)
        if name in _OF_A_TOPIC or name in _WRITING:
            return self._one_topic(verb, writing=name in _WRITING)
        if name in _OF_TOPICS:
            return self._many_topics(verb)
        return self._by_default_model(verb) if name in _OF_NO_TOPIC else self._refused(name)

    def _refused(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def refuse(*_: Any, **__: Any) -> Any:
            raise AuthError(f"the token {self._token.name!r} may not do this ({name}); it needs the API key")

        return refuse

    def _stream(self, verb: Callable[..., AsyncIterator[T]]) -> Callable[..., AsyncIterator[T]]:
        def call(topic: str, *args: Any, **kwargs: Any) -> AsyncIterator[T]:
            self._check(topic)
            return self._while_held(verb(topic, *args, **kwargs))

        return call

    async def _while_held(self, events: AsyncIterator[T]) -> AsyncIterator[T]:
        """The events until the token is revoked or expires: what was begun with it does not outlive it. Raises AuthError."""
        try:
            async for event in events:
                self._must_hold()
                yield event
        finally:
            if (close := getattr(events, "aclose", None)) is not None:
                await close()

    def _must_hold(self) -> None:
        if self._tokens is not None and not self._tokens.hold(self._token):
            raise AuthError(f"the token {self._token.name!r} was revoked or has expired")

    def _by_default_model(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(given: Any, *, model: str | None = None, **how: Any) -> Any:
            if model is not None:
                raise AuthError(f"the token {self._token.name!r} may not choose a model; that needs the API key")
            return verb(given, **how)

        return call

    def _one_topic(self, verb: Callable[..., Awaitable[Any]], *, writing: bool) -> Callable[..., Awaitable[Any]]:
        async def call(topic: str, *args: Any, **kwargs: Any) -> Any:
            self._check(topic, writing=writing)
            return await verb(topic, *args, **kwargs)

        return call

    def _many_topics(self, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, topics: Sequence[str] | None = None, **kwargs: Any) -> Any:
            return await verb(*args, topics=await self._chosen(topics), **kwargs)

        return call

    # ------------------------------------------------------------------ what is in scope

    def _check(self, topic: str, *, writing: bool = False) -> None:
        """NotFoundError as for a topic that is not there; AuthError where the token may only read."""
        if writing and not self._token.write:
            raise AuthError(f"the token {self._token.name!r} may read and not write; `headwater tokens create` makes another")
        if not self._token.sees(topic):
            if writing:
                raise AuthError(f"the token {self._token.name!r} is not for a topic {topic[:100]!r}")
            raise NotFoundError(f"no topic {topic!r}; `headwater topics` lists them")

    async def _chosen(self, topics: Sequence[str] | None) -> list[str]:
        """The topics asked for, all in scope; without any, every topic in scope that there is: never none, which is all."""
        if not topics:
            if not (found := [topic.name for topic in await self.topics()]):
                raise NotFoundError("there is no topic yet that this token is for")
            return found
        for topic in topics:
            self._check(topic)
        return list(topics)

    # ------------------------------------------------------------------ topics and records

    async def topics(self) -> list[Topic]:
        """Those in scope. Whoever follows what changes asks for them again and again."""
        self._must_hold()
        return [topic for topic in await self._verbs.topics() if self._token.sees(topic.name)]

    async def indexes(self) -> list[IndexInfo]:
        return [index for index in await self._verbs.indexes() if self._token.sees(index.topic)]

    async def create_topic(self, name: str, **config: Any) -> Topic:
        self._check(name, writing=True)
        model = config.get("embedding_model")
        if model is not None and model not in LOCAL:
            raise AuthError(f"the token {self._token.name!r} may not choose that embedding model; that needs the API key")
        return await self._verbs.create_topic(name, **config)

    async def read(self, address: str, *, context: int = 0, alike: int = 0) -> RecordView:
        self._check(parse_address(address)[0])
        return await self._verbs.read(address, context=context, alike=alike)

    async def deliver(self, topic: str, source: str, *args: Any, **kwargs: Any) -> Delivered:
        """The state of a source is kept by its name, which is therefore the token's own."""
        self._check(topic, writing=True)
        return await self._verbs.deliver(topic, f"{self._owner}:{source}", *args, **kwargs)

    # ------------------------------------------------------------------ searching and asking

    async def search(self, q: str, *, topics: Sequence[str] | None = None, **scope: Any) -> SearchReply:
        return await self._verbs.search(q, topics=await self._chosen(topics), **scope)

    async def search_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply | HeadwaterError]:
        """A query that leaves the scope gets its own error, as in Verbs.search_batch."""
        replies: list[SearchReply | HeadwaterError | None] = []
        allowed: list[Mapping[str, Any]] = []
        for query in queries:
            try:
                given = query.get("topics") if isinstance(query, Mapping) else None
                chosen = await self._chosen([given] if isinstance(given, str) else given)
                allowed.append({**query, "topics": chosen} if isinstance(query, Mapping) else query)
                replies.append(None)
            except (AuthError, NotFoundError) as error:
                replies.append(error)
        found = iter(await self._verbs.search_batch(allowed) if allowed else [])
        return [next(found) if reply is None else reply for reply in replies]

    async def live(self, q: str, *, topics: Sequence[str] | None = None, **scope: Any) -> AsyncIterator[Any]:
        async for event in self._while_held(self._verbs.live(q, topics=await self._chosen(topics), **scope)):
            yield event

    async def similar(
        self, topic: str, *, offset: int, partition: int = 0, top_k: int = 10, topics: Sequence[str] | None = None
    ) -> SearchReply:
        self._check(topic)
        chosen = await self._chosen(topics) if topics else [topic]
        return await self._verbs.similar(topic, offset=offset, partition=partition, top_k=top_k, topics=chosen)

    async def ask(self, question: str, *, topics: Sequence[str] | None = None, **scope: Any) -> Answer:
        scope = await self._asking(scope)
        return await self._verbs.ask(question, topics=await self._chosen(topics), **scope)

    async def ask_events(self, question: str, *, topics: Sequence[str] | None = None, **scope: Any) -> AsyncIterator[AskEvent]:
        scope = await self._asking(scope)
        async for event in self._verbs.ask_events(question, topics=await self._chosen(topics), **scope):
            yield event

    async def _asking(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a question, in a conversation of the token's own. Other kept answers are everybody's, and models
        cost."""
        self._check_arguments(scope, _ASKING)
        conversation = scope.get("conversation")
        return {**scope, **({} if conversation is None else {"conversation": await self._talk.spoken_in(conversation)})}

    async def investigate(self, question: str, *, topics: Sequence[str] | None = None, **scope: Any) -> Investigation:
        self._check_arguments(scope, _INVESTIGATING)
        return await self._verbs.investigate(question, topics=await self._chosen(topics), **scope)

    async def investigate_events(
        self, question: str, *, topics: Sequence[str] | None = None, **scope: Any
    ) -> AsyncIterator[InvestigateEvent]:
        self._check_arguments(scope, _INVESTIGATING)
        async for event in self._verbs.investigate_events(question, topics=await self._chosen(topics), **scope):
            yield event

    def _check_arguments(self, scope: Mapping[str, Any], allowed: frozenset[str]) -> None:
        for name, value in scope.items():
            if value not in (None, False) and (name not in allowed or isinstance(value, Mapping)):
                raise AuthError(f"the token {self._token.name!r} may not ask with {name}; that needs the API key")

    async def classify(
        self, texts: Sequence[str] | None = None, *, topics: Sequence[str] | None = None, model: str | None = None, **how: Any
    ) -> ClassifyReply:
        """By embeddings alone: what a chat model costs is not a token's to spend."""
        if model is not None:
            raise AuthError(f"the token {self._token.name!r} may not use a chat model; that needs the API key")
        chosen = None if texts is not None and topics is None else await self._chosen(topics)
        return await self._verbs.classify(texts, topics=chosen, **how)

    # ------------------------------------------------------------------ watches

    async def add_watch(
        self, q: str = "", *, name: str | None = None, topics: Sequence[str] | None = None, like: str | None = None,
        owner: str | None = None, **rest: Any,
    ) -> Watch:  # fmt: skip
        """A watch of the token's own: over the topics in scope now, named apart from those of others."""
        if like is not None:
            self._check(home := parse_address(like)[0])
            topics = topics or [home]
        chosen = await self._chosen(topics)
        own = None if name is None else f"{self._token.name}.{name}"[:100]
        return await self._verbs.add_watch(q, name=own, topics=chosen, like=like, owner=self._owner, **rest)

    async def watches(self) -> list[Watch]:
        return [watch for watch in await self._verbs.watches() if self._owns(watch)]

    async def watch(self, id: int | str) -> Watch:
        """NotFoundError also for a watch of somebody else."""
        for name in (str(id), f"{self._token.name}.{id}"):
            try:
                found = await self._verbs.watch(name)
            except NotFoundError:
                continue
            if self._owns(found):
                return found
        raise NotFoundError(f"no watch {str(id)[:100]!r}; `headwater watch list` shows them")

    def _owns(self, watch: Watch) -> bool:
        """Its own, and of topics that are still in scope."""
        return watch.owner == self._owner and all(self._token.sees(topic) for topic in watch.topics or ())

    async def remove_watch(self, id: int | str) -> None:
        await self._verbs.remove_watch((await self.watch(id)).id)

    async def wait(self, id: int | str, **how: Any) -> Woken:
        woken = await self._verbs.wait((await self.watch(id)).id, **how)
        self._must_hold()
        return woken

    async def watch_events(self, id: int | str, *, cursor: str | None = None) -> AsyncIterator[WatchHit]:
        found = await self.watch(id)
        async for hit in self._while_held(self._verbs.watch_events(found.id, cursor=cursor)):
            yield hit

    # ------------------------------------------------------------------ the daemon

    async def anomalies(self, topics: Sequence[str] | None = None, **scope: Any) -> AnomaliesReply:
        if not topics and not (topics := [d.topic for d in await self.detecting()]):
            return AnomaliesReply((), Coverage())
        return await self._verbs.anomalies(await self._chosen(topics), **scope)

    async def anomaly(self, id: str) -> Anomaly:
        self._check(id.rpartition("-")[0])
        return await self._verbs.anomaly(id)

    async def judge_anomaly(self, id: str, verdict: Verdict | None, *, note: str | None = None) -> Anomaly:
        self._check(id.rpartition("-")[0], writing=True)
        return await self._verbs.judge_anomaly(id, verdict, note=note)

    async def set_detecting(self, topic: str, *, alert_topic: str | None = None, **how: Any) -> Detecting:
        """Alerts are written, too: the topic that gets them must be in scope."""
        self._check(topic, writing=True)
        if alert_topic:
            self._check(alert_topic, writing=True)
        return self._told(await self._verbs.set_detecting(topic, alert_topic=alert_topic, **how))

    async def detecting(self, topic: str | None = None) -> list[Detecting]:
        if topic is not None:
            self._check(topic)
        return [self._told(d) for d in await self._verbs.detecting(topic) if self._token.sees(d.topic)]

    def _told(self, found: Detecting) -> Detecting:
        """Without the topic that gets its alerts, where that is outside."""
        named = found.alert_topic
        return found if named is None or self._token.sees(named) else replace(found, alert_topic=None)

    async def anomaly_events(self, topics: Sequence[str] | None = None, *, cursor: str | None = None) -> AsyncIterator[Anomaly]:
        async for anomaly in self._while_held(self._verbs.anomaly_events(await self._chosen(topics), cursor=cursor)):
            yield anomaly

    async def note_call(self, who: str, tool: str, **call: Any) -> None:
        """Under the token's own name."""
        own = who == self._owner or who.startswith(f"{self._owner} ")
        await self._verbs.note_call(who if own else f"{self._owner} {who}", tool, **call)

    async def sources(self) -> list[SourceInfo]:
        return [source for source in await self._verbs.sources() if self._token.sees(source.topic)]

    async def dead_letters(self, topic: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        if topic is not None:
            self._check(topic)
            return await self._verbs.dead_letters(topic, limit=limit)
        found = [letter for t in await self.topics() for letter in await self._verbs.dead_letters(t.name, limit=limit)]
        return sorted(found, key=lambda letter: -letter.id)[:limit]

    async def status(self) -> Status:
        """Without the problems, which may name what is outside, and without places on the machine."""
        whole = await self._verbs.status()
        topics = tuple(topic for topic in whole.topics if self._token.sees(topic.name))
        sources = tuple(source for source in whole.sources if self._token.sees(source.topic))
        own = await self.watches()
        states = {state: sum(w.state == state for w in own) for state in ("watching", "held up", "expired")}
        counts = {**states, "fired": sum(w.fired for w in own), "waiting": 0, "behind": max((w.behind for w in own), default=0)}
        judged = await self.detecting()
        detectors = {name: sum(getattr(d, name) for d in judged) for name in ("found", "alerted", "dismissed")}
        detectors |= {"on": len(judged), "behind": max((d.behind for d in judged), default=0)}
        seen = await self.pipelines()
        pipelines = {state: sum(one.state == state for one in seen) for state in ("running", "stopped", "held up")}
        pipelines["behind"] = max((one.behind for one in seen), default=0)
        return replace(
            whole, data_dir="", topics=topics, sources=sources, problems=(), watches=counts, detectors=detectors,
            pipelines=pipelines, webhooks={},
        )  # fmt: skip

    async def aclose(self) -> None:
        """Nothing: the verbs are somebody else's to close."""
