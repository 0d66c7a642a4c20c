"""What comes again at its time of day, and what stays, is told once or twice and not for ever."""

from __future__ import annotations

import random

from headwater.detect.budget import Budget
from headwater.detect.habit import Habits
from headwater.detect.judging import TopicJudge
from headwater.detect.seen import MINUTE_MS, Item, Seen
from headwater.detect.silence import Silence
from headwater.records.anomalies import KINDS

MONDAY = 29_540_160  # a minute of the epoch: Monday, 2026-03-02, 00:00
DAY = 1440


def odd(minute: int, family: str = "rate.bad", subject: str = "passage:1") -> Seen:
    return Seen("rate", family, subject, (minute + 1) * MINUTE_MS, 25.0, 9, 0.1, "in 5 min", 1, 5)


def test_what_came_on_two_days_before_at_that_time_is_a_habit_and_nothing_else_is() -> None:
    held = Habits()
    for day in (0, 3):
        for minute in range(180, 200):
            held.note("topic", day * DAY + minute, 8.0 + day)
    assert held.usual("topic", 3 * DAY + 190) == 0  # once before
    assert held.usual("topic", 4 * DAY + 190) == 8.0
    assert held.usual("topic", 4 * DAY + 170) == 8.0  # a little early
    assert held.usual("topic", 4 * DAY + 300) == 0
    assert held.usual("other", 4 * DAY + 190) == 0
    assert held.usual("topic", 40 * DAY + 190) == 0  # long ago
    again = Habits()
    again.load(held.state())
    assert again.usual("topic", 4 * DAY + 190) == 8.0


def test_a_nightly_batch_alerts_twice_at_most_and_another_trouble_at_its_time_still_does() -> None:
    budget, alerts = Budget(3.0, "medium"), []
    for minute in range(7 * DAY):
        batch = minute >= DAY and 180 <= minute % DAY < 190
        seen = [odd(minute)] if batch else []
        if minute == 6 * DAY + 185:
            seen.append(odd(minute, subject="passage:2"))
        incident = budget.close(minute, seen)
        if incident is not None and incident.alerted and incident.opened_ms == (minute + 1) * MINUTE_MS:
            alerts.append(minute)
    assert [at // DAY for at in alerts] == [1, 2, 6]
    assert alerts[-1] == 6 * DAY + 185


def test_what_stays_is_told_once_and_what_is_new_meanwhile_alerts() -> None:
    budget, alerts = Budget(3.0, "medium"), []
    for minute in range(5 * DAY):
        seen = [odd(minute, "silence", "key:a")] if 2 * DAY <= minute < 4 * DAY + 300 else []
        if minute == 3 * DAY + 300:
            seen.append(odd(minute, "silence", "key:b"))
        incident = budget.close(minute, seen)
        if incident is not None and incident.alerted and incident.opened_ms == (minute + 1) * MINUTE_MS:
            alerts.append(minute)
    assert alerts == [2 * DAY, 3 * DAY + 300]


def test_what_stays_is_still_known_after_a_restart() -> None:
    budget = Budget(3.0, "medium")
    for minute in range(2 * DAY + 400):
        budget.close(minute, [odd(minute, "silence", "key:a")] if minute >= 2 * DAY else [])
    again = Budget(3.0, "medium")
    again.load(budget.state())
    assert again.state() == budget.state()
    assert all(again.close(minute, [odd(minute, "silence", "key:a")]) is None for minute in range(2 * DAY + 400, 2 * DAY + 800))


def test_a_job_that_ends_within_hours_is_not_missed() -> None:
    silence, season = Silence(), TopicJudge(per_day=3.0, sensitivity="medium", kinds=KINDS).rates.season
    for minute in range(600):
        season.learn(minute, 5)
    for minute in range(600, 2000):
        counts = {"steady": (3, minute)} | ({"job": (20, minute)} if minute < 700 else {})
        assert not silence.close(minute, counts, season, learn=True)


def test_working_hours_become_usual_within_three_days() -> None:
    rng, judge = random.Random(6), TopicJudge(per_day=3.0, sensitivity="medium", kinds=KINDS)
    days = set[int]()
    for minute in range(MONDAY, MONDAY + 5 * DAY):
        many = 6 if 480 <= minute % DAY < 1080 else int(rng.random() < 0.1)
        made = [Item(minute, minute * MINUTE_MS + n, "service", (rng.randrange(1, 4),), False, None) for n in range(many)]
        found = judge.feed(made) if made else judge.tick(minute * MINUTE_MS)
        days |= {(i.opened_ms // MINUTE_MS - MONDAY) // DAY for i in found if i.alerted}
    assert days <= {0, 1, 2}
