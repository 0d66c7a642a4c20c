"""LlamaIndex at the edge: a retriever over topics, and a chat engine whose answers are checked as those of `ask`.

The one file that imports llama_index (extra `llama`), and only when called: it takes seconds to load.

    from headwater.rag.llama import retriever, chat_engine

    async with headwater.aconnect() as verbs:
        nodes = await retriever(verbs, topics=["logs"]).aretrieve("why did payments fail?")
        reply = await chat_engine(verbs, topics=["logs"]).achat("why did payments fail?")

Over the synchronous SDK (`headwater.connect()`, `headwater.open()`) both work without `await` too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from headwater.errors import UsageError
from headwater.records import Answer, Citation, Hit

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.chat_engine.types import BaseChatEngine
    from llama_index.core.schema import NodeWithScore

    from headwater.blocking import Headwater
    from headwater.verbs import Verbs

MEND = "pip install 'headwater[llama]'"


def retriever(verbs: Verbs | Headwater, *, topics: Sequence[str] | None = None, top_k: int = 10, **scope: Any) -> BaseRetriever:
    """A LlamaIndex retriever: each hit of a search as a node, with its address, times and counts as metadata. `scope` is that
    of `search` (since, until, mode, filters, min_score). UsageError where llama-index-core is not installed."""
    _look()
    from llama_index.core.base.base_retriever import BaseRetriever

    class TopicRetriever(BaseRetriever):
        """Retrieves records of Headwater."""

        def _retrieve(self, query_bundle: Any) -> list[NodeWithScore]:
            reply = _now(verbs.search(query_bundle.query_str, topics=topics, top_k=top_k, **scope))
            return [node(hit) for hit in reply]

        async def _aretrieve(self, query_bundle: Any) -> list[NodeWithScore]:
            reply = await _soon(verbs, lambda: verbs.search(query_bundle.query_str, topics=topics, top_k=top_k, **scope))
            return [node(hit) for hit in reply]

    made: BaseRetriever = TopicRetriever()
    return made


def node(hit: Hit) -> NodeWithScore:
    """A hit as a node: the passage found is its text, the record's address its id."""
    from llama_index.core.schema import NodeWithScore, TextNode

    text = hit.value[hit.span.start : hit.span.end] if hit.span is not None else hit.value
    metadata = {
        "address": hit.address, "topic": hit.topic, "timestamp": hit.timestamp.isoformat(), "key": hit.key or "",
        "count": hit.passage.count, "first_seen": hit.passage.first_seen.isoformat(),
        "last_seen": hit.passage.last_seen.isoformat(),
        **{f"attributes.{name}": value for name, value in hit.attributes.items() if isinstance(value, str | int | float)},
    }  # fmt: skip
    kept = ["address", "timestamp", "count"]
    hidden = [name for name in metadata if name not in kept]
    made = TextNode(
        id_=f"{hit.address}#{hit.passage.id}", text=text, metadata=metadata, excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=list(metadata),
    )  # fmt: skip
    return NodeWithScore(node=made, score=hit.score)


def chat_engine(verbs: Verbs | Headwater, *, conversation: str | None = None, **scope: Any) -> BaseChatEngine:
    """A LlamaIndex chat engine over `ask`: the conversation is one of Headwater's (made at the first message where none is
    named), answers are checked, and their citations are the source nodes. `scope` is that of `ask`."""
    _look()
    from llama_index.core.base.llms.types import ChatMessage, MessageRole
    from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse

    class TopicChatEngine(BaseChatEngine):
        """Chats about records of Headwater."""

        def __init__(self) -> None:
            self.conversation = conversation
            self._history: list[ChatMessage] = []

        def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
            self._begin(None if self.conversation else _now(verbs.create_conversation()).id)
            return self._said(message, _now(verbs.ask(message, conversation=self.conversation, **scope)))

        async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
            self._begin(None if self.conversation else (await _soon(verbs, verbs.create_conversation)).id)
            return self._said(message, await _soon(verbs, lambda: verbs.ask(message, conversation=self.conversation, **scope)))

        def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> StreamingAgentChatResponse:
            self._begin(None if self.conversation else _now(verbs.create_conversation()).id)
            events = verbs.ask_events(message, conversation=self.conversation, **scope)
            if not isinstance(events, Iterator):
                raise UsageError("over asynchronous verbs stream with astream_chat")
            response = StreamingAgentChatResponse(sources=[])
            for event in events:
                if isinstance(event.data, str):
                    response.put_in_queue(event.data)
                elif isinstance(event.data, Answer):
                    response.source_nodes = _sources(event.data.citations)
                    response.response = self._said(message, event.data).response
            response.queue.put_nowait("")
            response.is_done = True
            return response

        async def astream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> StreamingAgentChatResponse:
            self._begin(None if self.conversation else (await _soon(verbs, verbs.create_conversation)).id)
            response = StreamingAgentChatResponse(sources=[])
            response._ensure_async_setup()  # it has no public way
            events = verbs.ask_events(message, conversation=self.conversation, **scope)
            if not isinstance(events, AsyncIterator):
                raise UsageError("over synchronous verbs stream with stream_chat")
            async for event in events:
                if isinstance(event.data, str):
                    response.aput_in_queue(event.data)
                elif isinstance(event.data, Answer):
                    response.source_nodes = _sources(event.data.citations)
                    response.response = self._said(message, event.data).response
            response.is_done = True
            return response

        def reset(self) -> None:
            """Begin another conversation."""
            self.conversation, self._history = None, []

        @property
        def chat_history(self) -> list[ChatMessage]:
            return list(self._history)

        def _begin(self, made: str | None) -> None:
            self.conversation = made or self.conversation

        def _said(self, message: str, answer: Answer) -> AgentChatResponse:
            self._history.append(ChatMessage(role=MessageRole.USER, content=message))
            self._history.append(ChatMessage(role=MessageRole.ASSISTANT, content=answer.text))
            return AgentChatResponse(
                response=answer.text, source_nodes=_sources(answer.citations), metadata={"answer": answer.id}
            )

    return TopicChatEngine()


def _sources(citations: Sequence[Citation]) -> list[NodeWithScore]:
    """Citations as nodes: the quote, with its place."""
    from llama_index.core.schema import NodeWithScore, TextNode

    return [
        NodeWithScore(
            node=TextNode(
                id_=f"{c.address}#{c.start}-{c.end}", text=c.quote,
                metadata={"n": c.n, "address": c.address, "start": c.start, "end": c.end, "supported": c.supported},
            ),
            score=1.0 if c.supported else 0.0,
        )
        for c in citations
    ]  # fmt: skip


def _look() -> None:
    """UsageError where the library is not there."""
    try:
        import llama_index.core  # noqa: F401
    except ImportError as error:
        raise UsageError(f"llama-index-core is not installed; {MEND}") from error


def _now(made: Any) -> Any:
    """The result of a verb of the synchronous SDK; UsageError for a coroutine, which needs `await`."""
    if inspect.iscoroutine(made):
        made.close()
        raise UsageError("these verbs are asynchronous; await aretrieve or achat")
    return made


async def _soon(verbs: Verbs | Headwater, call: Callable[[], Any]) -> Any:
    """The result of a call of asynchronous verbs, or of the synchronous SDK, which would hold up the loop, in a thread."""
    return await call() if hasattr(verbs, "aclose") else await asyncio.to_thread(call)
