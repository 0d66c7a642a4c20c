"""`max_tokens` of a search: its reply fits, hits of one pattern are one, nothing is lost or told twice, all cuts are said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headwater
from headwater import wire
from headwater.blocking import Headwater
from headwater.budget import collapsed, shape, tokens
from headwater.errors import UsageError

WORDS = ("refund", "invoice", "gateway", "pool", "cache", "ledger", "quota", "replica", "webhook", "shipment", "coupon")


@pytest.fixture(scope="module")
def hw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    with headwater.open(tmp_path_factory.mktemp("budget"), embedding={"model": "none"}) as opened:
        opened.create_topic("notes", passages="exact")
        rows = [f"payment of {word} failed for order {n * 7919}" for n in range(6) for word in WORDS]
        opened.append("notes", rows, wait="searchable", timeout_s=240)
        opened.create_topic("long", passages="exact")
        opened.append("long", ["thesis " + "lorem ipsum dolor " * 4000], wait="searchable", timeout_s=240)
        yield opened


def cost(reply: headwater.SearchReply) -> int:
    return tokens(wire.encode(reply).decode())


@given(budget=st.integers(900, 4000), top_k=st.integers(1, 80))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reply_stays_within_its_budget_and_its_pages_have_every_pattern_once(hw: Headwater, budget: int, top_k: int) -> None:
    seen: list[str] = []
    patterns: set[tuple[str, str]] = set()
    cursor = None
    for _ in range(100):
        reply = hw.search("payment failed", topics=["notes"], top_k=top_k, max_tokens=budget, cursor=cursor)
        assert cost(reply) <= budget
        assert len({shape(hit) for hit in reply}) == len(reply)
        seen += [hit.address for hit in reply]
        patterns |= {shape(hit) for hit in reply}
        cursor = reply.coverage.next_cursor
        assert reply.coverage.truncated == (cursor is not None)
        if cursor is None:
            break
    assert cursor is None
    assert len(patterns) == len(WORDS)
    assert len(seen) == len(set(seen))


def test_what_is_left_out_is_counted_and_said(hw: Headwater) -> None:
    whole = hw.search("payment failed", topics=["notes"], top_k=66)
    assert len(whole) == 66
    short = hw.search("payment failed", topics=["notes"], top_k=66, max_tokens=1500)
    assert 0 < len(short) < len(WORDS)
    assert short.coverage.omitted == 66 - len(short)
    assert any("max_tokens=1500" in note for note in short.coverage.notes)
    every = hw.search("payment failed", topics=["notes"], top_k=66, max_tokens=50_000)
    assert [hit.address for hit in every] == [group[0].address for group in collapsed(whole.hits)]
    assert every.coverage.next_cursor is None
    assert any("other numbers" in note for note in every.coverage.notes)


def test_a_hit_that_alone_is_too_large_is_cut_and_says_so(hw: Headwater) -> None:
    reply = hw.search("thesis", topics=["long"], max_tokens=800)
    assert cost(reply) <= 800
    assert reply[0].value.startswith("thesis lorem")
    left = len(hw.read(reply[0].address).record.value) - len(reply[0].value)
    assert f"{left:,} characters of long/0/0 are cut" in reply.coverage.notes[-1]


def test_each_search_of_a_batch_has_a_budget_of_its_own(hw: Headwater) -> None:
    asked = {"q": "payment failed", "topics": ["notes"], "top_k": 66}
    short, whole = hw.search_batch([{**asked, "max_tokens": 900}, asked])
    assert isinstance(short, headwater.SearchReply)
    assert isinstance(whole, headwater.SearchReply)
    assert cost(short) <= 900 < cost(whole)


@pytest.mark.parametrize("budget", [0, 199, 200_001])
def test_a_budget_out_of_bounds_is_refused(hw: Headwater, budget: int) -> None:
    with pytest.raises(UsageError, match="max_tokens must be between 200 and 200,000"):
        hw.search("payment", max_tokens=budget)


def test_the_command_line_has_the_budget_too(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from headwater.cli.app import app

    with headwater.open(tmp_path, embedding={"model": "none"}) as opened:
        opened.append("notes", [f"payment failed for order {n}" for n in range(20)], wait="searchable", timeout_s=240)
    done = CliRunner().invoke(
        app, ["search", "payment", "--data", str(tmp_path), "--top-k", "20", "--max-tokens", "700", "--json"]
    )
    assert done.exit_code == 0, done.output
    reply = json.loads(done.stdout)
    assert tokens(done.stdout) <= 1000  # it is printed with blanks
    assert len(reply["hits"]) >= 1
