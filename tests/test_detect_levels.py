"""Numeric fields by their level: a rise is found each time, at any height, and the usual ways of numbers are not."""

from __future__ import annotations

import math
import random

import orjson
import pytest

from headwater.detect.fields import Fields
from headwater.detect.judging import TopicJudge
from headwater.detect.level import Level
from headwater.detect.seen import MINUTE_MS, Item, Seen
from headwater.records.anomalies import KINDS

MONDAY = 29_540_160  # a minute of the epoch: Monday, 2026-03-02, 00:00
DAY = 1440
RISES = (
    3 * DAY + 600,
    3 * DAY + 1300,
    4 * DAY + 900,
)  # minutes at which the field is at five times its usual, for half an hour


def took(minute: int, rng: random.Random) -> float:
    """Slower by day than by night."""
    usual = 40 * (1 + 0.3 * math.sin(minute / DAY * 2 * math.pi)) * rng.lognormvariate(0, 0.5)
    return usual * 5 if any(at <= minute < at + 30 for at in RISES) else usual


def test_a_rise_alerts_each_time_and_nothing_else_does() -> None:
    rng, judge, alerts = random.Random(8), TopicJudge(per_day=3.0, sensitivity="medium", kinds=KINDS), dict[int, int]()
    for minute in range(5 * DAY):
        at = (MONDAY + minute) * MINUTE_MS
        made = [Item(minute, at, "shop", (1,), False, orjson.dumps({"took": f"{took(minute, rng):.1f}ms"})) for _ in range(5)]
        alerts |= {i.n: i.opened_ms // MINUTE_MS - MONDAY for i in judge.feed(made) if i.alerted}
    assert len(alerts) == len(RISES)
    assert all(at < found <= at + 15 for at, found in zip(RISES, alerts.values(), strict=True))


def scores(values: list[float], *, numbers: int = 20) -> list[float]:
    level = Level()
    return [level.score(5 * n, value, numbers, learn=True)[0] for n, value in enumerate(values)]


@pytest.mark.parametrize("height", [0.001, 1.0, 1e6])
def test_five_times_is_as_far_at_any_height_and_a_fall_is_no_rise(height: float) -> None:
    rng = random.Random(2)
    found = scores([height * rng.lognormvariate(0, 0.1) for _ in range(600)] + [height * 5, height / 5])
    assert max(found[:600]) < 5
    assert found[600] > 8
    assert found[601] < 1


def test_fewer_numbers_claim_less_and_few_values_nothing() -> None:
    rng, level = random.Random(2), Level()
    for n in range(300):
        level.score(5 * n, rng.lognormvariate(3, 0.1), 20, learn=True)
    few, many = (level.score(1500, 40.0, numbers, learn=False)[0] for numbers in (3, 30))
    assert 0 < few < many / 2
    assert scores([5.0] * 40 + [500.0])[-1] == 0


def test_a_level_that_stays_becomes_usual() -> None:
    rng = random.Random(4)
    found = scores([rng.lognormvariate(3, 0.1) * (1 if n < 600 else 3) for n in range(600 + 2 * 288)])
    assert found[600] > 8
    assert max(found[-100:]) < 4


def test_durations_are_numbers_whatever_their_unit_and_other_texts_are_none() -> None:
    fields = Fields()
    for n in range(4):
        fields.add(
            {"a": "12.5ms", "b": "0.25 s", "c": "900\u00b5s", "d": "3 items", "e": "ms", "f": "1e9s", "g": "", "h": True}, n
        )
    assert fields.state()["held"] == {"a": [12.5] * 4, "b": [250.0] * 4, "c": [pytest.approx(0.9)] * 4}


def test_fields_go_on_from_their_state_as_if_they_had_never_stopped() -> None:
    rng = random.Random(5)
    numbers = [took(minute, rng) for minute in range(1200)]

    def run(fields: Fields, minutes: range) -> list[Seen]:
        seen = []
        for minute in minutes:
            for n in range(3):
                fields.add({"took": numbers[minute] * (1 + n)}, minute)
            seen += fields.close(MONDAY + minute, learn=True)
        return seen

    whole, cut, again = Fields(), Fields(), Fields()
    expected = run(whole, range(1200))
    found = run(cut, range(803))
    again.load(orjson.loads(orjson.dumps(cut.state())))
    found += run(again, range(803, 1200))
    assert found == expected
    assert found
