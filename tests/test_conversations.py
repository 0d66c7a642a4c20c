"""Conversations: questions that go on from each other, what is kept of them, and answers asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater
from headwater import Headwater
from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.rag.standalone import Turn, contextualise
from serving import eventually

NOW = 1_772_500_000_000
ERROR = "ERROR checkout: gateway timeout for order 12"


@pytest.fixture(scope="module")
def hw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Headwater]:
    with headwater.open(tmp_path_factory.mktemp("talk"), embedding={"model": "hash"}) as found:
        found.append("logs", [{"value": f"{ERROR}{n}", "timestamp": f"2026-03-01T14:0{n}:10Z"} for n in range(8)])
        found.append("tickets", ["The refund of customer Ada was paid twice", "Ada got the second refund on Monday"])
        found.append("logs", ["INFO payments: settled batch 7"], wait="searchable", timeout_s=240)
        yield found


def alone(question: str, *before: str) -> str:
    turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(before)]
    return contextualise(question, turns, NOW).text


# ------------------------------------------------------------------------------------------------- standalone questions
def test_a_question_that_says_what_it_wants_is_left_as_it_is() -> None:
    question = "which customers were charged twice by the payment gateway?"
    assert alone(question, "how many tickets since Monday?", "7") == question
    assert contextualise(question, [], NOW).wordings[0].text == question


def test_what_a_short_turn_leaves_out_is_that_of_the_question_before() -> None:
    assert alone("and in payments?", "how many errors were there since 14:05?", "12") == (
        "how many errors were there in payments since 14:05?"
    )
    assert alone("what about yesterday?", "how many tickets since Monday?", "7") == "how many tickets yesterday?"
    assert "refund" in alone("why was it paid twice?", "what happened to the refund of Ada?", "It was paid.")


def test_a_turn_is_searched_for_alone_and_with_what_was_said_the_turn_counting_most() -> None:
    read = contextualise("did it happen again?", [Turn("user", "refund of Ada?"), Turn("assistant", "It was paid [1].")], NOW)
    own, *context = read.wordings
    assert (own.text, own.weight) == ("did it happen again?", 1.0)
    assert [w.text for w in context] == ["refund of Ada? did it happen again?", "It was paid. did it happen again?"]
    assert sum(w.weight for w in context) <= own.weight
    firm = contextualise("which customers were charged twice by the payment gateway?", [Turn("user", "refund of Ada?")], NOW)
    assert firm.wordings[1].weight < sum(w.weight for w in context)


def test_a_turn_without_words_of_its_own_is_searched_for_by_its_context_only() -> None:
    read = contextualise("why?", [Turn("user", "when did the checkout time out?")], NOW)
    assert [w.text for w in read.wordings] == ["when did the checkout time out? why?"]


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_any_conversation_gives_a_question_and_something_to_search_for(question: str, before: list[str]) -> None:
    read = contextualise(question, [Turn("assistant" if n % 2 else "user", t) for n, t in enumerate(before)], NOW)
    assert isinstance(read.text, str)
    assert all(w.weight > 0 for w in read.wordings)


# ------------------------------------------------------------------------------------------------------- conversations
def test_a_conversation_is_made_by_its_first_question_and_listed_with_it(hw: Headwater) -> None:
    answer = hw.ask("what happened to the refund of Ada?", conversation="ada")
    talk = hw.conversation("ada")
    assert (talk.title, talk.messages, talk.persist) == ("what happened to the refund of Ada?", 2, True)
    said = hw.messages("ada")
    assert [m.role for m in said] == ["user", "assistant"]
    assert said[1].answer == answer.id
    assert said[1].text == answer.text
    assert "ada" in [c.id for c in hw.conversations()]


def test_the_next_question_is_read_in_the_light_of_the_last(hw: Headwater) -> None:
    hw.ask("how many errors were there in logs since 2026-03-01T14:03?", conversation="count")
    answer = hw.ask("and until 14:05?", conversation="count")
    assert hw.answer(answer.id).standalone != "and until 14:05?"
    assert "errors" in hw.answer(answer.id).standalone


def test_conversations_are_changed_removed_and_refused_as_they_should_be(hw: Headwater) -> None:
    made = hw.create_conversation("mine", system="Answer in French.", max_context_tokens=500, ttl="2d")
    assert (made.system, made.max_context_tokens, made.ttl_s) == ("Answer in French.", 500, 172_800.0)
    assert hw.set_conversation("mine", title="Mine", model="extractive", ttl=None).title == "Mine"
    assert hw.conversation("mine").expires is None
    with pytest.raises(ConflictError):
        hw.create_conversation("mine")
    for wrong in ({"max_context_tokens": 3}, {"ttl": "soon"}, {"colour": "red"}, {"title": "x" * 300}):
        with pytest.raises(UsageError):
            hw.set_conversation("mine", **wrong)
    with pytest.raises(UsageError):
        hw.create_conversation("../etc")
    hw.remove_conversation("mine")
    for verb in (hw.conversation, hw.remove_conversation, hw.messages):
        with pytest.raises(NotFoundError):
            verb("mine")


def test_one_that_is_not_to_persist_is_gone_when_the_engine_is(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("logs", [ERROR], wait="searchable", timeout_s=240)
        hw.create_conversation("whisper", persist=False)
        answer = hw.ask("gateway timeout for order?", conversation="whisper")
        hw.ask("gateway timeout for order?", conversation="aloud")
        assert hw.answer(answer.id).answer == answer
        assert len(hw.messages("whisper")) == 2
        assert not hw.conversation("whisper").persist
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        assert [c.id for c in hw.conversations()] == ["aloud"]
        assert all(a.answer.id != answer.id for a in hw.answers())


def test_one_whose_end_has_come_is_gone(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("logs", [ERROR], wait="searchable", timeout_s=240)
        hw.create_conversation("brief", ttl=0.001)
        hw.create_conversation("other")
        eventually(lambda: [c.id for c in hw.conversations()] == ["other"])  # a thousandth of a second may still be to come
        with pytest.raises(NotFoundError):
            hw.conversation("brief")


def test_what_does_not_fit_into_the_window_is_summarised(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    say = [{"if": "", "say": "The gateway timeout hit order 12 again and again [1]."}]
    script.write_text(json.dumps(say))
    llm = {"provider": "rehearsal", "model": str(script)}
    with headwater.open(tmp_path / "data", embedding={"model": "hash"}, llm=llm) as hw:
        hw.append("logs", [ERROR], wait="searchable", timeout_s=240)
        hw.create_conversation("long", max_context_tokens=120)
        for n in range(6):
            hw.ask(f"what hit order 12 with a gateway timeout, time {n}?", conversation="long")
        talk = hw.conversation("long")
        assert talk.summary
        assert talk.messages == 12
        hw.set_conversation("long", model="extractive")
        for n in range(6):
            hw.ask(f"what hit order 12 with a gateway timeout, once more {n}?", conversation="long")
        assert "Q: " in hw.conversation("long").summary


# ---------------------------------------------------------------------------------------------------- answers are kept
def test_an_answer_is_kept_with_what_it_was_made_of(hw: Headwater) -> None:
    answer = hw.ask("refund of customer Ada?", topics=["tickets"], top_k=5)
    kept = hw.answer(answer.id)
    assert kept.answer == answer
    assert (kept.arguments["topics"], kept.arguments["top_k"]) == (["tickets"], 5)
    assert {r.address for r in kept.read} == {c.address for c in answer.citations}
    assert kept.settings["embedding"] == "hash"
    assert hw.answers()[0].answer.id == answer.id
    with pytest.raises(NotFoundError):
        hw.answer("nothing")


def test_asked_again_an_answer_says_what_changed(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("tickets", ["The refund of customer Ada was paid twice"], wait="searchable", timeout_s=240)
        first = hw.ask("refund of customer Ada?")
        same = hw.rerun(first.id)
        assert same.summary.startswith("the answer is the same; nothing was stored since")
        hw.append("tickets", ["The second refund of customer Ada was taken back by the bank"], wait="searchable", timeout_s=240)
        again = hw.rerun(first.id)
        assert again.new_records == {"tickets": 1}
        assert again.found == ("tickets/0/1",)
        assert any(c.kind == "added" and "taken back" in c.text for c in again.changes)
        assert any(line.startswith("+ ") for line in again.diff.splitlines())
        assert hw.answer(again.after.id).rerun_of == first.id


def test_as_of_answers_from_the_log_as_it_was(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("tickets", ["The refund of customer Ada was paid twice"], wait="searchable", timeout_s=240)
        first = hw.ask("refund of customer Ada?")
        hw.append("tickets", ["The second refund of customer Ada was taken back by the bank"], wait="searchable", timeout_s=240)
        assert len(hw.ask("refund of customer Ada?").citations) == 2
        marks = {topic: mark.stored for topic, mark in first.coverage.watermark.items()}
        past = hw.ask("refund of customer Ada?", as_of=marks)
        assert past.text == first.text
        assert past.coverage.watermark["tickets"].stored == 1
        assert hw.ask("refund of customer Ada?", as_of="2001-01-01").abstained
        with pytest.raises(UsageError):
            hw.ask("refund of customer Ada?", as_of={"ghosts": 3})


def test_a_purge_forgets_answers_made_of_deleted_records(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("tickets", ["The refund of customer Ada was paid twice", "Parking is free"], wait="searchable", timeout_s=240)
        told = hw.ask("what of the refund?", conversation="c", topics=["tickets"])
        other = hw.ask("is parking free?", topics=["tickets"])
        assert not told.abstained
        assert not other.abstained
        hw.delete_records("tickets", offset=0)
        purged = hw.purge_topic("tickets", markers=["customer Ada was paid"])
        assert purged.found == {"customer Ada was paid": ()}
        with pytest.raises(NotFoundError):
            hw.answer(told.id)
        assert hw.answer(other.id).answer == other
        assert hw.messages("c")[1].text.startswith("(removed")


def test_a_topic_that_is_deleted_takes_its_answers_with_it(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.append("tickets", ["The refund of customer Ada was paid twice"], wait="searchable", timeout_s=240)
        told = hw.ask("what of the refund?")
        hw.delete_topic("tickets")
        with pytest.raises(NotFoundError):
            hw.answer(told.id)
