"""Detectors as pure judges: what they find odd and what not, without a look ahead, the same after their state was kept."""

from __future__ import annotations

import math
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from headwater.detect.budget import Budget
from headwater.detect.fields import Fields
from headwater.detect.judging import TopicJudge
from headwater.detect.novelty import Novelty
from headwater.detect.numeric import Alarm, Series
from headwater.detect.season import Season, cell_of
from headwater.detect.seen import MINUTE_MS, Item, Seen, counts_tail, normal_tail
from headwater.detect.sequence import Sequences
from headwater.detect.silence import Silence
from headwater.detect.tail import Histogram, Tail
from headwater.records.anomalies import KINDS

MONDAY = 29_540_160  # a minute of the epoch: Monday, 2026-03-02, 00:00


def day(n: int, rng: random.Random) -> list[float]:
    return [50 + 30 * math.sin(i / 144 * math.pi) + rng.gauss(0, 1) for i in range(n)]


def test_a_series_that_repeats_its_days_is_normal_and_a_day_of_another_shape_is_not() -> None:
    values = day(288 * 10, random.Random(1))
    alarm = Alarm()
    assert not any(alarm.alerts(v) for v in values)
    flat = [50.0 + random.Random(i).gauss(0, 1) for i in range(288)]
    assert any(alarm.alerts(v) for v in flat)


def test_a_jump_of_a_flat_series_is_an_alert_and_only_one() -> None:
    alarm = Alarm()
    alerts = [alarm.alerts(5.0) for _ in range(1500)] + [alarm.alerts(9.0) for _ in range(100)]
    assert alerts.index(True) == 1500
    assert sum(alerts) == 1


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=60))
@hypothesis_settings(max_examples=20, deadline=None)
def test_any_numbers_can_be_judged(values: list[float]) -> None:
    series = Series((1, 3), 64)
    assert all(math.isfinite(series.score(value)) for value in values)


def test_a_score_depends_on_nothing_that_comes_later() -> None:
    rng = random.Random(3)
    values = day(900, rng)
    whole, part = Series(), Series()
    assert [whole.score(v) for v in values][:600] == [part.score(v) for v in values[:600]]


def test_distances_kept_from_step_to_step_are_those_computed_anew() -> None:
    rng = random.Random(5)
    series, again = Series((2, 8), 128), Series((2, 8), 128)
    for _ in range(700):
        series.score(rng.gauss(0, 1))
    again.load(series.state())
    values = [rng.gauss(0, 1) for _ in range(50)]
    assert [series.score(v) for v in values] == pytest.approx([again.score(v) for v in values])


def test_a_histogram_forgets_and_keeps_its_state() -> None:
    held = Histogram(1.0, 0.0, 100.0, half_life=10)
    for _ in range(200):
        held.add(1.0)
    for _ in range(10):
        held.add(50.0)
    assert held.quantile(0.4, 0.6) == [2.0, 51.0]
    again = Histogram(1.0, 0.0, 100.0, half_life=10)
    again.load(held.state())
    assert again.quantile(0.4, 0.6) == [2.0, 51.0]
    assert again.total == pytest.approx(held.total)


def test_the_tail_says_once_in_as_many_blocks_as_a_score_came() -> None:
    rng, tail = random.Random(2), Tail(1e9)
    for _ in range(4000):
        tail.learn(rng.expovariate(math.log(10)))  # P(score > s) = 10**-s
    assert tail.blocks_between(1.0) == pytest.approx(10, rel=0.2)
    assert tail.blocks_between(3.0) == pytest.approx(1000, rel=0.6)
    assert 1e4 < tail.blocks_between(5.0) < 1e6


def test_little_history_claims_little() -> None:
    tail = Tail(1000.0)
    assert tail.blocks_between(10.0) == 1.0
    tail.learn(0.0)
    young = tail.blocks_between(3.0)
    for _ in range(500):
        tail.learn(0.0)
    assert young < tail.blocks_between(3.0)


def test_chances_of_counts() -> None:
    assert counts_tail(0, 3.0, 10.0) == 0.0
    assert counts_tail(3, 3.0, 1e9) == pytest.approx(
        -math.log10(1 - sum(math.exp(-3) * 3**k / math.factorial(k) for k in range(3))), abs=1e-4
    )
    assert counts_tail(30, 3.0, 1e9) > counts_tail(30, 3.0, 1.0) > 2
    assert normal_tail(0) == pytest.approx(0.301, abs=0.01)
    assert normal_tail(15.0) == pytest.approx(normal_tail(14.9999), abs=0.01)


def test_hours_are_of_a_day_and_weekends_apart() -> None:
    assert cell_of(MONDAY) == 0
    assert cell_of(MONDAY + 13 * 60) == 13
    assert cell_of(MONDAY + 5 * 1440 + 60) == 25


def test_a_season_learns_when_it_is_busy() -> None:
    season = Season()
    for minute in range(MONDAY, MONDAY + 5 * 1440):
        season.learn(minute, 20 if 8 <= minute // 60 % 24 < 18 else 2)
    noon, night = MONDAY + 7 * 1440 + 720, MONDAY + 7 * 1440 + 120
    assert season.rate * season.factor(noon) == pytest.approx(20, rel=0.1)
    assert season.rate * season.factor(night) == pytest.approx(2, rel=0.3)


def test_a_new_trouble_is_odder_the_rarer_new_ones_are_and_the_more_often_it_comes() -> None:
    novelty = Novelty()
    for minute in range(600):
        novelty.close(minute, learn=True)
    novelty.arrive(7, 600, 1, bad=True, rare=False)
    novelty.again(7, 1, 1)
    (once,) = novelty.close(600, learn=True)
    novelty.again(7, 40, 9)
    (often,) = novelty.close(601, learn=True)
    assert once.kind == "new"
    assert once.passage == 7
    assert often.score > once.score > 2
    assert often.seq == 9


def test_a_key_that_speaks_every_minute_is_missed_and_one_that_speaks_at_times_is_not() -> None:
    silence, season = Silence(), Season()
    for minute in range(MONDAY, MONDAY + 600):
        season.learn(minute, 4)
        counts = {"steady": (3, minute)} | ({"seldom": (1, minute)} if minute % 97 == 0 else {})
        assert not [s for s in silence.close(minute, counts, season, learn=True) if s.score > 3]
    seen = [s for minute in range(MONDAY + 600, MONDAY + 606) for s in silence.close(minute, {}, season, learn=True)]
    assert {s.subject for s in seen} == {"key:steady"}
    assert max(s.score for s in seen) > 5


def test_a_numeric_field_that_rises_is_seen_and_ids_are_no_fields() -> None:
    fields, rng = Fields(), random.Random(1)
    seen: list[Seen] = []
    for minute in range(3000):
        slow = 5.0 if minute > 2900 else 1.0
        for n in range(4):
            fields.add({"took_ms": rng.lognormvariate(3, 0.3) * slow, "order_id": n, "pid": 1, "ok": True}, minute)
        seen += [s for s in fields.close(minute, learn=True) if minute > 2900 and s.score > 4]
    assert fields.names == ("took_ms",)
    assert seen[0].field == "took_ms"
    assert seen[0].at_ms <= 2915 * MINUTE_MS


def test_a_session_without_its_end_is_odd() -> None:
    sequences = Sequences("request_id")
    worst = 0.0
    for n in range(400):
        for step in (1, 2, 3):
            sequences.add({"request_id": f"r{n}"}, (step,), n, n)
        worst = max([worst, *(s.score for s in sequences.close(n + 10, learn=True))])
    assert worst < 2
    for step in (1, 2):
        sequences.add({"request_id": "broken"}, (step,), 500, 900)
    (seen,) = sequences.close(520, learn=True)
    assert seen.session == "broken"
    assert seen.score > 2


def seen(minute: int, score: float, family: str = "new.bad", subject: str = "passage:1") -> Seen:
    return Seen("new", family, subject, (minute + 1) * MINUTE_MS, score, 1, 0.0, "new in 10 min", 1, 5)


def calm(budget: Budget, start: int, minutes: int) -> None:
    for minute in range(start, start + minutes):
        assert budget.close(minute, []) is None


def test_what_belongs_together_is_one_alert_and_the_budget_holds() -> None:
    budget = Budget(2.0, "medium")
    calm(budget, 0, 2000)
    found = {}
    for burst in range(4):
        for minute in range(2000 + burst * 60, 2006 + burst * 60):
            incident = budget.close(minute, [seen(minute, 25.0)])
            if incident is not None:
                found[incident.n] = incident
        calm_after = [budget.close(minute, []) for minute in range(2006 + burst * 60, 2060 + burst * 60)]
        assert not any(calm_after)
    assert [found[n].alerted for n in sorted(found)] == [True, True, False, False]
    assert found[3].why_quiet == "the budget was spent"


def test_what_was_called_no_anomaly_does_not_alert_again_and_may_be_taken_back() -> None:
    budget = Budget(3.0, "medium")
    calm(budget, 0, 2000)
    first = budget.close(2000, [seen(2000, 25.0)])
    assert first is not None
    budget.dismiss(first.n, {one.subject: decades for one, decades in first.signals})
    calm(budget, 2001, 100)
    assert budget.close(2101, [seen(2101, 25.0)]) is None
    assert budget.close(2102, [seen(2102, 25.0, subject="passage:2")]) is not None


def test_a_silence_called_no_anomaly_while_it_lasts_alerts_nobody_as_it_spreads() -> None:
    budget = Budget(9.0, "medium")
    calm(budget, 0, 2000)
    first = budget.close(2000, [seen(2000, 25.0, "silence", "key:a")])
    assert first is not None
    budget.dismiss(first.n, {one.subject: decades for one, decades in first.signals})
    again = budget.close(2001, [seen(2001, 25.0, "silence", "key:b")])
    assert again is not None
    assert (again.alerted, again.why_quiet) == (False, "what was called no anomaly goes on")
    kept = Budget(9.0, "medium")
    kept.load(budget.state())
    assert kept.state() == budget.state()
    calm(budget, 2002, 200)  # it is over
    later = budget.close(2202, [seen(2202, 25.0, "silence", "key:c")])
    assert later is not None
    assert later.alerted


def test_a_new_trouble_alerts_although_another_was_just_called_no_anomaly() -> None:
    for family in ("silence", "new.bad"):
        budget = Budget(9.0, "medium")
        calm(budget, 0, 2000)
        first = budget.close(2000, [seen(2000, 25.0, family, "key:a")])
        assert first is not None
        budget.dismiss(first.n, {one.subject: decades for one, decades in first.signals})
        other = budget.close(2001, [seen(2001, 25.0, "new.bad", "passage:2")])
        assert other is not None
        assert other.alerted


def test_nothing_alerts_while_it_learns() -> None:
    budget = Budget(3.0, "high")
    assert [budget.close(minute, [seen(minute, 25.0)]) for minute in range(40)] == [None] * 40


def items(minutes: range, rng: random.Random, extra: dict[int, int] | None = None) -> list[Item]:
    made: list[Item] = []
    for minute in minutes:
        for _ in range(10 + rng.randrange(5)):
            passage = rng.choice((1, 1, 1, 2, 2, 3))
            made.append(Item(len(made), minute * MINUTE_MS + len(made) % 50_000, f"service-{passage}", (passage,), False, None))
        for _ in range((extra or {}).get(minute, 0)):
            made.append(Item(len(made), minute * MINUTE_MS + 1000, "service-1", (99,), True, b'{"level":"error"}'))
    return made


def judge() -> TopicJudge:
    return TopicJudge(per_day=3.0, sensitivity="medium", kinds=KINDS)


def test_new_errors_that_repeat_are_found_within_minutes_and_nothing_else_is() -> None:
    trouble = MONDAY + 1200
    stream = items(range(MONDAY, MONDAY + 1300), random.Random(9), {trouble + n: 6 for n in range(20)})
    found = judge().feed(stream)
    assert {incident.n for incident in found} == {1}
    assert trouble * MINUTE_MS < found[0].opened_ms <= (trouble + 4) * MINUTE_MS
    assert found[0].signals[0][0].passage == 99


def test_a_judge_goes_on_from_its_state_as_if_it_had_never_stopped() -> None:
    trouble = MONDAY + 700
    stream = items(range(MONDAY, MONDAY + 800), random.Random(9), {trouble + n: 6 for n in range(20)})
    whole, cut = judge(), judge()
    expected = whole.feed(stream)
    found = cut.feed(stream[: len(stream) - 900])
    again = judge()
    assert again.load(cut.state())
    found += again.feed(stream[len(stream) - 900 :])
    assert [(i.n, i.opened_ms) for i in found] == [(i.n, i.opened_ms) for i in expected]
    assert orjson.loads(again.state()) == orjson.loads(whole.state())


def test_a_topic_that_falls_silent_is_noticed_by_the_clock() -> None:
    watcher = judge()
    assert not watcher.feed(items(range(MONDAY, MONDAY + 900), random.Random(4)))
    found = watcher.tick((MONDAY + 908) * MINUTE_MS)
    assert found
    assert found[0].signals[0][0].kind in ("silence", "rate")


def test_late_records_and_times_before_the_first_disturb_nothing() -> None:
    watcher = judge()
    watcher.feed(items(range(MONDAY, MONDAY + 100), random.Random(4)))
    late = [Item(9000, (MONDAY - 300_000) * MINUTE_MS, "old", (500,), True, None)]
    assert watcher.feed(late) == []
    assert watcher.minute == MONDAY + 99
    assert watcher.rates.knows(500)


def test_templates_that_generalise_are_no_news() -> None:
    trouble = MONDAY + 600
    watcher = judge()
    watcher.feed(items(range(MONDAY, trouble), random.Random(4)))
    watcher.rename({1: 77})
    again = [
        item._replace(passages=tuple(77 if p == 1 else p for p in item.passages))
        for item in items(range(trouble, trouble + 60), random.Random(5))
    ]
    assert watcher.feed(again) == []
