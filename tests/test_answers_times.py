"""The times a question names, and the words that only look like times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.rag.times import clock_of, narrowed, read_times
from headwater.records import MAX_MS, MIN_MS, from_ms, to_ms

NOW = to_ms(datetime(2026, 11, 21, 13, 50, tzinfo=UTC))  # a Saturday


def said(question: str) -> list[tuple[str, str]]:
    """Since and until of each period, minutes of an ISO time, blank where open."""
    return [tuple("" if ms is None else f"{from_ms(ms):%Y-%m-%dT%H:%M}" for ms in (p.since_ms, p.until_ms))  # type: ignore[misc]
            for p in read_times(question, NOW)]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "since", "until"),
    [
        ("what is new since 14:05?", "2026-11-20T14:05", ""),
        ("what is new since 9:30?", "2026-11-21T09:30", ""),
        ("what happened after 2 pm", "2026-11-20T14:00", ""),
        ("what failed before noon", "", "2026-11-21T12:00"),
        ("errors at 10:30 pm", "2026-11-20T22:30", "2026-11-20T22:31"),
        ("errors around 14:05", "2026-11-20T13:55", "2026-11-20T14:15"),
        ("what was fixed in March?", "2026-03-01T00:00", "2026-04-01T00:00"),
        ("what was fixed in december", "2025-12-01T00:00", "2026-01-01T00:00"),
        ("what was fixed last November", "2025-11-01T00:00", "2025-12-01T00:00"),
        ("tickets of May of 2012", "2012-05-01T00:00", "2012-06-01T00:00"),
        ("who joined in 2025-03", "2025-03-01T00:00", "2025-04-01T00:00"),
        ("since March", "2026-03-01T00:00", ""),
        ("after March", "2026-04-01T00:00", ""),
        ("before March", "", "2026-03-01T00:00"),
        ("what broke yesterday", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("yesterday at 9 am", "2026-11-20T09:00", "2026-11-20T09:01"),
        ("what broke last week", "2026-11-09T00:00", "2026-11-16T00:00"),
        ("what broke this month", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("what broke last month", "2026-10-01T00:00", "2026-11-01T00:00"),
        ("what broke last year", "2025-01-01T00:00", "2026-01-01T00:00"),
        ("what broke last night", "2026-11-20T18:00", "2026-11-21T06:00"),
        ("errors in the last 3 hours", "2026-11-21T10:50", "2026-11-21T13:50"),
        ("errors in the last hour", "2026-11-21T12:50", "2026-11-21T13:50"),
        ("since two hours ago", "2026-11-21T11:50", ""),
        ("what failed 3 days ago", "2026-11-18T00:00", "2026-11-19T00:00"),
        ("what broke on Monday", "2026-11-16T00:00", "2026-11-17T00:00"),
        ("what broke last Saturday", "2026-11-14T00:00", "2026-11-15T00:00"),
        ("on 5 March at 14:05", "2026-03-05T14:05", "2026-03-05T14:06"),
        ("on March 5th, 2025", "2025-03-05T00:00", "2025-03-06T00:00"),
        ("between 14:05 and 14:30", "2026-11-20T14:05", "2026-11-20T14:30"),
        ("between 14:00 and 14:30 on 2026-03-01", "2026-03-01T14:00", "2026-03-01T14:30"),
        ("from 23:50 to 00:10 on 2026-03-02", "2026-03-01T23:50", "2026-03-02T00:10"),
        ("on 2026-03-01 between 14:00 and 14:30", "2026-03-01T14:00", "2026-03-01T14:30"),
        ("from 14:00 to 14:30 on March 1st", "2026-03-01T14:00", "2026-03-01T14:30"),
        ("from 23:00 to 01:00", "2026-11-20T23:00", "2026-11-21T01:00"),
        ("from December to March", "2025-12-01T00:00", "2026-04-01T00:00"),
        ("between 2026-11-01 and 2026-11-03", "2026-11-01T00:00", "2026-11-04T00:00"),
        ("since 2026-11-20T14:05:00Z", "2026-11-20T14:05", ""),
        ("since 2026-11-20 14:05:10+02:00", "2026-11-20T12:05", ""),
        ("what was in 2025", "2025-01-01T00:00", "2026-01-01T00:00"),
        ("was ist neu seit 14:05?", "2026-11-20T14:05", ""),
        ("quoi de neuf depuis 2026-11-20", "2026-11-20T00:00", ""),
    ],
)  # fmt: skip
def test_a_time_is_read_as_a_range(question: str, since: str, until: str) -> None:
    assert said(question) == [(since, until)]


@pytest.mark.parametrize(
    "question",
    [
        "may it fail", "it may fail, march on", "the second try", "port 1405", "error 2024", "a ratio of 16:10", "3:2",
        "in 12 of 12 pods", "on the tonight show", "is this for 2024?", "who is on call", "version 2.14", "10.0.14.05",
        "how much may 2007 cost", "build 2026-13-45", "after the second deploy", "mar the surface", "since forever",
    ],
)  # fmt: skip
def test_ordinary_words_and_numbers_are_no_times(question: str) -> None:
    assert said(question) == []


def test_an_open_day_or_year_says_so_and_a_said_year_too() -> None:
    (clock,) = read_times("since 14:05", NOW)
    (day,) = read_times("on 2026-03-05", NOW)
    assert (clock.floats, clock.dated, day.floats, day.dated) == (True, False, False, True)
    assert clock.phrase == "since 14:05"


def test_an_open_time_is_the_latest_that_is_not_after_the_moment_of_asking() -> None:
    then = to_ms(datetime(2008, 11, 11, 12, 0, tzinfo=UTC))
    (month,) = read_times("in November", then)
    assert f"{from_ms(month.since_ms or 0):%Y-%m}" == "2008-11"


def test_two_periods_are_one_where_they_overlap() -> None:
    both = narrowed(read_times("yesterday, since 2026-11-20T14:05:00", NOW))
    assert both is not None
    assert (from_ms(both.since_ms or 0).hour, from_ms(both.until_ms or 0).day) == (14, 21)
    assert narrowed([]) is None


def test_a_time_of_day_is_found_in_a_phrase() -> None:
    assert clock_of("the 14:05 deploy") == (50_700_000, 50_760_000)
    assert clock_of("the deploy") is None


@given(st.text(max_size=80), st.integers(MIN_MS, MAX_MS))
def test_whatever_is_asked_is_read_without_error_and_ranges_are_in_order(question: str, now_ms: int) -> None:
    for period in read_times(question, now_ms):
        assert question[period.start : period.end] == period.phrase
        if period.since_ms is not None and period.until_ms is not None:
            assert period.since_ms <= period.until_ms


_WORDS = ("since", "after", "between", "and", "14:05", "March", "5", "may", "2026-02-30", "yesterday", "last", "3", "hours")


@given(st.lists(st.sampled_from(_WORDS)), st.integers(MIN_MS, MAX_MS))
def test_words_of_time_in_any_order_are_read_without_error(words: list[str], now_ms: int) -> None:
    for period in read_times(" ".join(words), now_ms):
        assert period.since_ms is None or period.until_ms is None or period.since_ms <= period.until_ms
