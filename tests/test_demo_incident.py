"""The self-made incident tells one true story, and the synthetic lines are as many kinds as asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from headwater.demo.incident import (
    FINDINGS,
    QUESTIONS,
    TOPICS,
    deploy_at,
    incident,
    start_before,
    stream,
)
from headwater.demo.synthetic import LAYOUTS, mixed_lines
from headwater.records import Draft, from_ms, to_ms

START = datetime(2026, 11, 21, 12, 55, tzinfo=UTC)
NEW_IN_PAYMENTS = (
    "payments-pool - Connection is not available",
    "Bank gateway authorize attempt",
    "Duplicate charge guard tripped",
)


def _all(**options: int) -> list[tuple[str, Draft]]:
    return list(incident(START, **options))


def _minutes(found: list[tuple[str, Draft]], text: str) -> list[float]:
    deploy = to_ms(deploy_at(START))
    return [((draft.time_ms or 0) - deploy) / 60_000 for topic, draft in found if topic == "logs" and text in draft.value]


def test_the_same_arguments_give_the_same_records() -> None:
    assert _all(seed=3, lines=500) == _all(seed=3, lines=500)
    assert _all(seed=3, lines=500) != _all(seed=4, lines=500)


def test_records_come_in_time_order_and_in_the_number_asked_for() -> None:
    found = _all(lines=800)
    times = [draft.time_ms or 0 for _, draft in found]
    assert times == sorted(times)
    counts = Counter(topic for topic, _ in found)
    assert set(counts) == set(TOPICS)
    assert counts["logs"] == 800


@pytest.mark.parametrize("text", NEW_IN_PAYMENTS)
def test_the_three_patterns_of_the_cause_are_new_after_the_deploy_grow_and_end_with_the_rollback(text: str) -> None:
    minutes = _minutes(_all(), text)
    assert min(minutes) > 3
    assert max(minutes) < 41
    halves = Counter(minute > 20 for minute in minutes if minute < 36)
    assert halves[True] > halves[False] > 0


def test_every_part_of_the_story_is_there_even_in_a_short_one() -> None:
    found = _all(lines=100)
    for text in (*NEW_IN_PAYMENTS, "payments answered 503", "504", "upstream timed out", "pending_payment"):
        assert _minutes(found, text), text


def test_services_write_in_formats_of_their_own_with_the_times_of_their_records() -> None:
    by_service: dict[str, list[Draft]] = {}
    for topic, draft in _all(lines=2000):
        if topic == "logs":
            by_service.setdefault(str(draft.key), []).append(draft)
    assert len(by_service) == 9
    for draft in by_service["checkout"]:
        assert json.loads(draft.value)["ts"][:19] == from_ms(draft.time_ms or 0).isoformat()[:19]
    assert all("level=" in draft.value for draft in by_service["orders"])
    assert any("\n\tat " in draft.value for draft in by_service["payments"])
    assert not any("{" in draft.value for service, drafts in by_service.items() if service != "checkout" for draft in drafts)


def test_the_ticket_of_march_is_eight_months_older_and_among_older_ones() -> None:
    tickets = [draft for topic, draft in _all(lines=100) if topic == "tickets"]
    march = next(draft for draft in tickets if draft.key == "T-2291")
    assert 240 < (START - from_ms(march.time_ms or 0)).days < 260
    assert sum(from_ms(t.time_ms or 0) < START - timedelta(days=1) for t in tickets) > 60
    assert len({t.key for t in tickets}) == len(tickets)


def test_each_question_has_its_facts_in_the_record_it_names() -> None:
    found = _all()
    for question in QUESTIONS:
        texts = [draft.value.lower() for topic, draft in found if (topic, draft.key) == (question.topic, question.key)]
        assert any(all(any(w in text for w in wordings) for wordings in question.facts) for text in texts), question.text


def test_what_is_to_be_found_by_meaning_shares_no_telling_word_with_its_target() -> None:
    found = _all()
    common = {"a", "of", "the", "no", "has", "when", "by", "to", "payments"}
    for finding in FINDINGS:
        text = next(draft.value for topic, draft in found if topic == finding.topic and finding.text in draft.value)
        assert not (_words(finding.q) & _words(text)) - common, finding.q


def test_people_name_the_clock_times_of_their_own_story() -> None:
    later = list(incident(START + timedelta(hours=2), lines=100))
    assert any("we did until 16:05" in draft.value for topic, draft in later if topic == "chat")
    assert not any("{t:" in draft.value for _, draft in later)


def test_a_start_before_now_gives_an_incident_that_is_over_with_its_deploy_at_five_past_two() -> None:
    for now in (datetime(2026, 11, 21, 9, tzinfo=UTC), datetime(2026, 11, 21, 23, tzinfo=UTC)):
        start = start_before(now)
        assert f"{deploy_at(start):%H:%M}" == "14:05"
        assert max(draft.time_ms or 0 for _, draft in incident(start, lines=100)) <= to_ms(now)


def test_a_live_show_is_the_whole_story_in_batches_that_come_due_one_after_another() -> None:
    batches = list(stream(START, lines=400, batch_s=30))
    assert [entry for batch in batches for entry in batch.entries] == _all(lines=400)
    due = [batch.after_s for batch in batches]
    assert due == sorted(set(due))
    assert due[0] == 0
    assert due[-1] <= 135 * 60 + 30


def test_an_incident_too_short_to_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        list(incident(START, lines=99))


@pytest.mark.parametrize("per_passage", [20, 160, 1000])
def test_synthetic_lines_are_of_as_many_kinds_as_asked_for(per_passage: int) -> None:
    lines = list(mixed_lines(20_000, seed=1, per_passage=per_passage))
    assert len(lines) == 20_000
    kinds = {_shape(line) for line in lines}
    assert len(kinds) == 20_000 // per_passage


def test_synthetic_lines_are_deterministic_mixed_and_uneven() -> None:
    lines = list(mixed_lines(5000, seed=1, per_passage=20))
    assert lines == list(mixed_lines(5000, seed=1, per_passage=20))
    assert lines != list(mixed_lines(5000, seed=2, per_passage=20))
    assert len(LAYOUTS) >= 16
    counts = [count for _, count in Counter(map(_shape, lines)).most_common()]
    assert counts[0] > 20 * counts[len(counts) // 2]
    assert not any("{" in line for line in lines if not line.startswith("{"))
    assert all(json.loads(line) for line in lines if line.startswith("{"))


def test_two_kinds_of_synthetic_lines_differ_in_most_of_their_words() -> None:
    shapes = sorted({_shape(line) for line in mixed_lines(6000, seed=5, per_passage=20)})
    messages = [set(re.findall(r"[a-z][a-z-]{3,}", shape)) for shape in shapes]
    close = sum(len(a & b) > 0.5 * min(len(a), len(b)) for i, a in enumerate(messages) for b in messages[:i])
    assert close < 0.002 * len(messages) ** 2 / 2


def _words(text: str) -> set[str]:
    return {re.sub(r"(ing|ed|e|s)$", "", word) for word in re.findall(r"[a-z]+", text.lower())}


def _shape(line: str) -> str:
    """The words of a line: everything with a digit in it is a value, and so are weekday, month and directory names."""
    line = re.sub(r"/var/lib/[a-z-]+|\b[0-9a-f]{8}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "", line)
    return re.sub(r"[^\s\"=:{},]*\d[^\s\"=:,}]*", "", line)
