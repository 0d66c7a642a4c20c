"""Answers about what a question names: a ticket, a person, a kind of records, the thing that was spoken of before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import headwater
from headwater.blocking import Headwater
from headwater.llm.extractive import content_words
from headwater.rag.question import understand
from headwater.rag.standalone import Turn, contextualise
from headwater.records import Answer

T0 = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
NOW_MS = 1_774_000_000_000


@pytest.fixture(scope="module")
def office() -> Iterator[Headwater]:
    """A morning at an office: log lines, tickets with numbers, what people wrote, and a handbook."""
    wait: dict[str, Any] = {"wait": "searchable", "timeout_s": 240}
    with headwater.open(headwater.MEMORY) as verbs:
        lines = [(n, f"INFO door: badge {n * 31} let in at gate {n % 4}") for n in range(60)]
        lines += [(n, f"ERROR heating: boiler {n % 3} lost pressure after {n} s") for n in range(20, 44)]
        lines += [(n, "ERROR lift: cabin stuck between floors") for n in range(30, 36)]
        lines += [(n, f"WARN proxy: upstream said 429 for tenant {n}") for n in range(10, 22)]
        verbs.append("plant-logs", [_record(n, text) for n, text in sorted(lines)], **wait)
        verbs.append("help-tickets", [
            _record(25, "The whole third floor is cold. People wear coats.", "FAC-204"),
            _record(33, "I am stuck in the lift with two colleagues.", "FAC-205"),
            _record(50, "The coffee machine takes no coins.", "FAC-206"),
            _record(55, "We are stuck in the lift again, all three of us.", "FAC-207"),
        ], **wait)  # fmt: skip
        verbs.append("ops-chat", [
            _record(28, "The boiler loses pressure because the relief valve was left open after the inspection.", "mirela"),
            _record(34, "Technician for the lift arrives in ten minutes.", "joost"),
            _record(41, "The certificate of the lift expired in January, so the insurer asks.", "joost"),
        ], **wait)  # fmt: skip
        verbs.create_topic("handbook", passages="chunks")
        verbs.append("handbook", [
            "# Boiler pressure\n\nTo refill the boiler, close the relief valve and open the blue tap to two bar.\n\n"
            "# Lift\n\nA certificate of the lift expires after one year. The caretaker renews it.",
        ], **wait)  # fmt: skip
        yield verbs


def _record(minute: int, value: str, key: str | None = None) -> dict[str, object]:
    return {"value": value, "key": key, "timestamp": T0 + timedelta(minutes=minute)}


def quotes(verbs: Headwater, answer: Answer) -> list[str]:
    """What an answer quotes, after a look at every citation of it."""
    assert not answer.abstained
    assert answer.unsupported == ()
    for c in answer.citations:
        assert verbs.read(c.address).record.value[c.start : c.end] == c.quote
    return [c.quote for c in answer.citations]


# --------------------------------------------------------------------------------------------------------------- words
@pytest.mark.parametrize(
    "forms",
    [
        "expire expires expired expiring", "service services", "database databases", "failure failures", "node nodes",
        "drop drops dropped dropping", "add adds added", "cache caches cached", "carry carries carried", "page pages paged",
        "reply replies replied", "pass passes passed", "fill fills filled", "agree agrees agreed", "family families",
        "log logs logged logging", "string strings", "large largely",
    ],
)  # fmt: skip
def test_forms_of_a_word_are_one_word(forms: str) -> None:
    assert len({content_words(form)[0] for form in forms.split()}) == 1


def test_words_that_are_not_one_stay_apart() -> None:
    assert len({content_words(word)[0] for word in ("bring", "brings", "bread", "red", "reed", "string", "status")}) == 6


# ---------------------------------------------------------------------------------------------------------------- keys
def test_a_ticket_is_answered_by_its_number_however_it_is_written(office: Headwater) -> None:
    for question in ("what is the status of FAC-204?", "show me ticket fac-204", "who opened FAC-204?"):
        answer = office.ask(question)
        assert quotes(office, answer) == ["The whole third floor is cold. People wear coats."], question
        assert 'the records with key "FAC-204"' in answer.text
    assert office.ask("what is the status of FAC-999?").abstained


def test_what_somebody_said_is_found_by_who_said_it(office: Headwater) -> None:
    assert quotes(office, office.ask("what did Joost say?")) == [
        "Technician for the lift arrives in ten minutes.",
        "The certificate of the lift expired in January, so the insurer asks.",
    ]
    about = office.ask("what did joost write about the certificate?")
    assert quotes(office, about) == ["The certificate of the lift expired in January, so the insurer asks."]
    assert office.ask("what did joost say about the coffee machine?").abstained
    late = office.ask("what did joost say since 08:40?")
    assert quotes(office, late) == ["The certificate of the lift expired in January, so the insurer asks."]
    assert "2 records, the newest:" in office.ask("how many messages did joost write?").text


def test_the_key_of_log_lines_shuts_out_nothing() -> None:
    with headwater.open(headwater.MEMORY, embedding={"model": "none"}) as verbs:
        lines = [_record(n, f"ERROR web-7 request {n} failed with a timeout", "web-7") for n in range(40)]
        verbs.append("logs", lines)
        verbs.append(
            "tickets", [_record(50, "web-7 failed because its disk is broken", "T-1")], wait="searchable", timeout_s=240
        )
        assert "disk is broken" in verbs.ask("why has web-7 failed?").text


# -------------------------------------------------------------------------------------------------------------- counts
def test_records_are_counted_by_what_they_are_called(office: Headwater) -> None:
    assert office.ask("how many tickets were opened?").text.startswith("4 records in help-tickets:")
    assert office.ask("how many help tickets were there?").text.startswith("4 records in help-tickets:")
    assert '3 records in plant-logs with the words "429"' in office.ask("how many 429s were there since 08:19?").text


def test_records_are_looked_for_among_those_of_their_name_each_of_them_however_alike(office: Headwater) -> None:
    both = ["I am stuck in the lift with two colleagues.", "We are stuck in the lift again, all three of us."]
    for question in (
        "which tickets mention the lift?",
        "show all tickets about the lift",
        "are there any tickets about the lift?",
    ):
        answer = office.ask(question)
        assert sorted(quotes(office, answer)) == both, question
        assert answer.coverage.topics == ("help-tickets",)
    assert office.ask("which tickets are about parking?").abstained
    assert office.ask("which tickets are there?", since=T0).coverage.topics != ("help-tickets",)  # nothing else is asked
    office.ask("what happened to the lift?", conversation="stuck")
    assert sorted(quotes(office, office.ask("which tickets mention it?", conversation="stuck"))) == both


def test_the_most_frequent_errors_are_listed_with_their_counts(office: Headwater) -> None:
    answer = office.ask("what is the most common error?")
    assert answer.text.startswith("30 records in plant-logs with level error or worse:")
    assert [q.split(":")[0] for q in quotes(office, answer)] == ["ERROR heating", "ERROR lift"]


# ------------------------------------------------------------------------------------------------------- who can tell
def test_events_tell_when_and_documents_tell_how(office: Headwater) -> None:
    when = quotes(office, office.ask("when did the certificate of the lift expire?"))
    assert when == ["The certificate of the lift expired in January, so the insurer asks."]
    how = quotes(office, office.ask("how do I refill the boiler?"))
    assert how[0].startswith("To refill the boiler, close the relief valve")
    assert not any(q.startswith("#") for q in how)
    assert understand("when did it start?", NOW_MS).told_by == "events"
    assert understand("how can we renew it?", NOW_MS).told_by == "documents"
    assert understand("why did it stop?", NOW_MS).told_by is None


# ------------------------------------------------------------------------------------------------------- going on from
def test_a_chain_of_short_questions_keeps_what_it_is_about() -> None:
    asked = ["why did the boiler fail?", "when did that start?", "who fixed it?"]
    turns = [Turn(role, text) for q in asked for role, text in (("user", q), ("assistant", "It did [1]."))]  # type: ignore[arg-type]
    read = contextualise("and why?", turns, NOW_MS).text
    assert "boiler" in read
    assert "fail" in read
    moved = [*turns, Turn("user", "what about the lift?"), Turn("assistant", "It is stuck.")]
    assert "lift" in contextualise("how many times?", moved, NOW_MS).text
    assert "boiler" not in contextualise("how many times?", moved, NOW_MS).text


def test_short_questions_in_a_row_are_answered_of_the_same_thing(office: Headwater) -> None:
    first = office.ask("why did the boiler fail?", conversation="cold")
    assert "boiler" in first.text
    for question in ("when did that start?", "and why?"):
        assert any("boiler" in q for q in quotes(office, office.ask(question, conversation="cold"))), question
