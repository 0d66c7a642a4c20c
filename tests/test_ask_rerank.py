"""The cross-encoder on this machine: what answers a question comes before what only sounds like it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import headwater
from headwater import Headwater
from headwater.config import EmbeddingSettings
from headwater.embed.rerank import MS_MARCO, CrossEncoder
from headwater.errors import EmbedError, UsageError

PRICE = "The monthly fee of the basic plan is nine euros."
NOISE = "Our plan this month: a basic tour of the fee office."


@pytest.fixture(scope="module")
def hw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    with headwater.open(tmp_path_factory.mktemp("rerank"), embedding={"model": "hash"}) as found:
        found.append("notes", [NOISE, PRICE, "The night shift starts at ten."], wait="searchable", timeout_s=240)
        yield found


def test_it_tells_an_answer_from_what_shares_its_words() -> None:
    async def work() -> tuple[list[float], list[float]]:
        reranker = CrossEncoder(EmbeddingSettings())
        texts = [NOISE, PRICE, "", "x" * 50_000]
        together = await reranker.scores("how much does the basic plan cost a month?", texts)
        alone = [(await reranker.scores("how much does the basic plan cost a month?", [t]))[0] for t in texts]
        await reranker.aclose()
        return together, alone

    together, alone = asyncio.run(work())
    assert together[1] > 0.9 > together[0]
    assert all(0 <= score <= 1 for score in together)
    assert together == alone  # a pair's score does not depend on its neighbours


def test_weights_that_are_not_there_are_an_error_that_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MS_MARCO.files, "model.onnx", "0" * 64)  # type: ignore[arg-type]
    with pytest.raises(EmbedError, match="ms-marco-minilm"):
        asyncio.run(CrossEncoder(EmbeddingSettings()).scores("a", ["b"]))


def test_a_search_and_a_question_can_be_read_again(hw: Headwater) -> None:
    q = "how much does the basic plan cost a month?"
    reply = hw.search(q, rerank=True, top_k=2)
    assert reply[0].value == PRICE
    assert reply[0].scores["rerank"] > 0.9
    assert len(reply) == 2
    assert reply.coverage.next_cursor is None
    with pytest.raises(UsageError):
        hw.search(q, rerank=True, cursor="2.20")
    assert "nine euros" in hw.ask(q, rerank=True).text
