"""Patterns that are gone or come at another rate, and timelines with as many bars as asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headwater
from headwater.blocking import Headwater
from headwater.errors import UsageError
from headwater.records.changes import Change, Windows, adjusted, chance, compare, matters, ratio
from serving import serving, settings_in

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MARK = START + timedelta(hours=4)
HOURS = Windows(0, 4 * 3_600_000, 5 * 3_600_000)


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "none"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def test_equal_rates_are_no_change_and_unequal_ones_are() -> None:
    assert chance(40, 10, HOURS) > 0.5
    assert chance(40, 40, HOURS) < 1e-8
    assert chance(40, 0, HOURS) < 0.01
    assert chance(0, 0, HOURS) == 1.0
    assert chance(4000, 1000, HOURS) > 0.5 > 1e-6 > chance(4000, 1400, HOURS)
    assert ratio(40, 40, HOURS) == pytest.approx(4, rel=0.05)


def test_the_exact_chance_is_the_sum_of_the_binomial() -> None:
    terms = [math.comb(12, k) * 0.2**k * 0.8 ** (12 - k) for k in range(13)]
    assert chance(5, 7, HOURS) == pytest.approx(2 * sum(terms[7:]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_chances_keep_their_order_and_are_never_smaller(chances: list[float]) -> None:
    found = adjusted(chances)
    assert all(a >= c for a, c in zip(found, chances, strict=True))
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    assert [found[i] for i in order] == sorted(found)


def test_of_many_patterns_that_do_not_change_hardly_any_is_told() -> None:
    counts = [(40 + n % 9, 10 + n % 5) for n in range(500)] + [(40, 60)]
    told = [i for i, change in enumerate(compare(counts, HOURS)) if matters(change)]
    assert told == [500]


def fill(hw: Headwater) -> None:
    hw.create_topic("logs", passages="exact")
    records = []
    for minute in range(300):
        at = START + timedelta(minutes=minute)
        late = at >= MARK
        texts = ["the usual thing happened"]
        texts += ["the cache was warm"] * (minute % 3 == 0 and not late)
        texts += ["a retry was needed"] * (4 if late else minute % 10 == 0)
        records += [{"value": text, "timestamp": at} for text in texts]
    hw.append("logs", records, wait="searchable", timeout_s=240)


def test_what_is_gone_and_what_comes_more_often_is_told_and_the_usual_is_not(hw: Headwater) -> None:
    fill(hw)
    gone = hw.patterns("logs", gone_since=MARK)
    assert [p.passage.text for p in gone.patterns] == ["the cache was warm"]
    changed = hw.patterns("logs", changed_since=MARK, since=START)
    assert {p.passage.text for p in changed.patterns} == {"the cache was warm", "a retry was needed"}
    more = next(p.change for p in changed.patterns if p.passage.text == "a retry was needed")
    assert more is not None
    assert (more.before, more.after) == (24, 240)
    assert more.after_s == pytest.approx(3540, abs=1)
    assert more.times > 20
    assert more.chance < 1e-9
    assert changed.coverage.since == START
    assert [p.change for p in hw.patterns("logs").patterns] == [None] * 3


def test_a_record_of_a_wrong_clock_does_not_stretch_the_time_that_is_compared(hw: Headwater) -> None:
    fill(hw)

    def changes() -> list[tuple[str, Change | None]]:
        found = (*hw.patterns("logs", gone_since=MARK).patterns, *hw.patterns("logs", changed_since=MARK).patterns)
        return [(p.passage.text, p.change) for p in found]

    before = changes()
    far = datetime.now(UTC) + timedelta(days=3000)
    hw.append("logs", [{"value": "the usual thing happened", "timestamp": far}], wait="searchable", timeout_s=240)
    assert changes() == before
    assert len(before) == 3


def test_rates_that_differ_by_any_factor_are_ranked_and_none_becomes_zero(hw: Headwater) -> None:
    fill(hw)
    found = hw.patterns("logs", changed_since=MARK, until=MARK + timedelta(days=3000)).patterns
    assert {p.passage.text for p in found} >= {"the cache was warm", "the usual thing happened"}
    assert all(p.change is not None and p.change.times > 0 for p in found)


def test_where_nothing_came_since_the_mark_all_that_came_regularly_is_gone(hw: Headwater) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    hw.create_topic("logs", passages="exact")
    records = [{"value": "heartbeat", "timestamp": now - timedelta(minutes=400 - n)} for n in range(200)]
    rare = {"value": "seen once", "timestamp": now - timedelta(minutes=300)}
    hw.append("logs", [*records, rare], wait="searchable", timeout_s=240)
    mark = now - timedelta(hours=2)
    for found in (hw.patterns("logs", gone_since=mark), hw.patterns("logs", changed_since=mark)):
        assert [p.passage.text for p in found.patterns] == ["heartbeat"]
        assert found.coverage.since == now - timedelta(minutes=400)


def test_one_mark_at_a_time(hw: Headwater) -> None:
    fill(hw)
    with pytest.raises(UsageError, match="contradict"):
        hw.patterns("logs", gone_since=MARK, new_since=MARK)
    with pytest.raises(UsageError, match="outside"):
        hw.patterns("logs", changed_since=MARK, since=MARK + timedelta(minutes=1))


@pytest.mark.parametrize("buckets", [1, 2, 3, 5, 7, 40])
def test_a_timeline_has_at_most_the_bars_asked_for_and_all_records(hw: Headwater, buckets: int) -> None:
    fill(hw)
    for since in (None, START + timedelta(minutes=37)):
        reply = hw.timeline(since=since, buckets=buckets)
        assert 1 <= len(reply.buckets) <= buckets
        assert sum(b.count for b in reply.buckets) == hw.search("", since=since).coverage.searched
