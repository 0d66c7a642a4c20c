"""After a restart, or when the machine slept: what nobody could see is no silence, and what comes then is no surge."""

from __future__ import annotations

import random

import pytest

from headwater.detect.budget import Incident
from headwater.detect.judging import TopicJudge
from headwater.detect.seen import MINUTE_MS, Item
from headwater.records.anomalies import KINDS

MONDAY = 29_540_160  # a minute of the epoch: Monday, 2026-03-02, 00:00
STOP, BACK = MONDAY + 1500, MONDAY + 1740  # the daemon was away for four hours


def items(first: int, last: int, seed: int = 3) -> list[Item]:
    rng, made = random.Random(seed), list[Item]()
    for minute in range(first, last):
        for n in range(8 + rng.randrange(5)):
            passage = rng.choice((1, 1, 1, 2, 2, 3))
            made.append(Item(len(made), minute * MINUTE_MS + n, f"service-{passage}", (passage,), False, None))
    return made


def alerts(found: list[Incident]) -> set[int]:
    return {incident.n for incident in found if incident.alerted}


@pytest.fixture
def judge() -> TopicJudge:
    """One that has seen a day, was kept, and comes back."""
    before = TopicJudge(per_day=3.0, sensitivity="high", kinds=KINDS)
    assert not alerts(before.feed(items(MONDAY, STOP)))
    before.live = True
    kept = TopicJudge(per_day=3.0, sensitivity="high", kinds=KINDS)
    assert kept.load(before.state())
    assert kept.live
    return kept


def test_hours_without_the_daemon_are_no_silence(judge: TopicJudge) -> None:
    judge.away(BACK * MINUTE_MS)
    found = judge.tick((BACK + 1) * MINUTE_MS) + judge.feed(items(BACK + 1, BACK + 90))
    assert not alerts(found)


def test_without_that_they_were_one() -> None:
    watching = TopicJudge(per_day=3.0, sensitivity="high", kinds=KINDS)
    assert alerts(watching.feed(items(MONDAY, STOP) + items(BACK + 1, BACK + 90)))


def test_what_was_held_back_meanwhile_is_no_surge(judge: TopicJudge) -> None:
    judge.away((STOP + 12) * MINUTE_MS)
    found = judge.feed(items(STOP + 12, STOP + 13) + items(STOP, STOP + 12) + items(STOP + 13, STOP + 60))
    assert not alerts(found)


def test_what_was_read_from_a_file_meanwhile_is_judged(judge: TopicJudge) -> None:
    judge.away(BACK * MINUTE_MS)
    trouble = [Item(9_000 + n, (STOP + 60 + n // 6) * MINUTE_MS, "service-1", (99,), True, None) for n in range(90)]
    assert alerts(judge.feed(sorted([*items(STOP, BACK), *trouble], key=lambda item: item.time_ms)))


def test_what_is_still_silent_afterwards_alerts(judge: TopicJudge) -> None:
    judge.away(BACK * MINUTE_MS)
    assert alerts(judge.tick((BACK + 15) * MINUTE_MS))
