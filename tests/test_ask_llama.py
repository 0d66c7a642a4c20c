"""LlamaIndex over topics: its retriever and its chat engine, with the real library."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater
from headwater import Headwater
from headwater.errors import UsageError
from headwater.rag.llama import chat_engine, retriever

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own import
    pytest.importorskip("llama_index.core", reason="the extra `llama` is not installed")


@pytest.fixture(scope="module")
def hw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    with headwater.open(tmp_path_factory.mktemp("llama"), embedding={"model": "hash"}) as found:
        found.append(
            "tickets",
            ["The refund of customer Ada was paid twice", "Parking is free on Sundays"],
            wait="searchable",
            timeout_s=240,
        )
        yield found


def test_hits_are_nodes_with_their_addresses(hw: Headwater) -> None:
    nodes = retriever(hw, topics=["tickets"], top_k=2).retrieve("refund of Ada")
    assert nodes[0].node.get_content() == "The refund of customer Ada was paid twice"
    assert nodes[0].node.metadata["address"] == "tickets/0/0"
    assert nodes[0].score is not None
    again = asyncio.run(retriever(hw, topics=["tickets"]).aretrieve("refund of Ada"))
    assert again[0].node.node_id == nodes[0].node.node_id


def test_a_query_engine_of_the_library_answers_from_them(hw: Headwater) -> None:
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine

    engine = RetrieverQueryEngine.from_args(retriever(hw, topics=["tickets"], top_k=1), llm=MockLLM())
    reply = engine.query("refund of Ada?")
    assert [n.node.metadata["address"] for n in reply.source_nodes] == ["tickets/0/0"]
    assert "paid twice" in str(reply)


def test_a_chat_is_a_conversation_whose_answers_are_checked(hw: Headwater) -> None:
    chat = chat_engine(hw, topics=["tickets"])
    reply = chat.chat("what happened to the refund of customer Ada?")
    assert "paid twice" in reply.response
    assert reply.source_nodes[0].node.metadata["address"] == "tickets/0/0"
    assert [m.role.value for m in chat.chat_history] == ["user", "assistant"]
    streamed = chat.stream_chat("and the refund of Ada, was it paid?")
    assert "paid twice" in "".join(streamed.response_gen)
    chat.reset()
    assert chat.chat_history == []
    assert "paid twice" in asyncio.run(chat.achat("refund of customer Ada?")).response


def test_over_asynchronous_verbs_it_is_awaited(tmp_path: Path) -> None:
    async def work() -> None:
        async with headwater.aopen(tmp_path, embedding={"model": "hash"}) as verbs:
            await verbs.append("tickets", ["The refund of customer Ada was paid twice"], wait="searchable", timeout_s=240)
            assert len(await retriever(verbs).aretrieve("refund")) == 1
            streamed = await chat_engine(verbs).astream_chat("refund of customer Ada?")
            assert "paid twice" in "".join([part async for part in streamed.async_response_gen()])
            with pytest.raises(UsageError):
                retriever(verbs).retrieve("refund")

    asyncio.run(work())
