"""The query language: what is a filter, what is a word, and what every error points at."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.errors import QueryError, UsageError
from headwater.query import Filter, Query, as_filters, parse, parse_time
from headwater.records import to_ms
from headwater.records.levels import canonical_level

NOW = to_ms(datetime(2026, 3, 1, 16, 30, tzinfo=UTC))
HOUR = 3_600_000


def read(text: str) -> Query:
    return parse(text, now_ms=NOW)


def only(text: str) -> Filter:
    (condition,) = read(text).filters
    return condition


def test_free_words_stay_as_typed_and_in_order() -> None:
    assert read("  Payment   failed at checkout?") == Query("Payment failed at checkout?")


def test_an_empty_query_is_an_empty_query() -> None:
    assert read("") == read(" \n\t ") == Query("")


def test_a_phrase_must_occur_and_is_scored_too() -> None:
    assert read('why "connection reset" now') == Query("why connection reset now", phrases=("connection reset",))


def test_excluded_words_and_phrases_are_not_scored() -> None:
    assert read('timeout -staging -"health  check"') == Query("timeout", excluded=("staging", "health check"))


def test_a_backslash_in_quotes_protects_a_quote() -> None:
    assert read(r'"say \"hi\" \\now"').phrases == ('say "hi" \\now',)


def test_a_filter_is_a_name_and_a_value() -> None:
    query = read("status:500 disk level:error service:payments-api")
    assert query.text == "disk"
    assert query.filters == (
        Filter("status", "=", ("500",)),
        Filter("level", "=", ("error",)),
        Filter("service", "=", ("payments-api",)),
    )


def test_a_quoted_value_is_taken_literally() -> None:
    assert only('user:"Ann, Bob*"') == Filter("user", "=", ("Ann, Bob*",))


def test_values_of_one_field_are_alternatives() -> None:
    assert only("level:error,fatal") == only("level:error level:fatal") == Filter("level", "=", ("error", "fatal"))
    assert only('host:a,"b c",a') == Filter("host", "=", ("a", "b c"))


def test_a_minus_negates_a_filter() -> None:
    assert only("-level:debug") == only("level:!=debug") == Filter("level", "!=", ("debug",))
    assert only("-host:web*") == Filter("host", "!prefix", ("web",))
    assert only("-level:!=debug") == Filter("level", "=", ("debug",))


def test_a_star_asks_for_the_beginning_or_the_presence_of_a_value() -> None:
    assert only("host:web*,db*") == Filter("host", "prefix", ("web", "db"))
    assert only("trace_id:*") == Filter("trace_id", "prefix", ("",))


def test_comparisons_hold_numbers_and_add_up() -> None:
    assert read("latency:>=10 latency:<2.5e3 offset:>7").filters == (
        Filter("latency", ">=", (10,)),
        Filter("latency", "<", (2500.0,)),
        Filter("offset", ">", (7,)),
    )


def test_levels_compare_by_severity() -> None:
    condition = only("level:>=WARN")
    assert condition.levels() == ("warn", "error", "fatal")
    assert condition.accepts("ERROR")
    assert condition.accepts("warning")
    assert not condition.accepts("info")
    assert not condition.accepts("odd")


def test_times_become_milliseconds_and_the_narrower_holds() -> None:
    query = read("since:2h until:2026-03-01T16:00 since:1h")
    assert (query.since_ms, query.until_ms) == (NOW - HOUR, to_ms(datetime(2026, 3, 1, 16, tzinfo=UTC)))
    at = to_ms(datetime(2026, 3, 1, 14, 5, tzinfo=UTC))
    assert (read("time:>=14:05").since_ms, read("time:>14:05").since_ms) == (at, at + 1)
    assert (read("time:<14:05").until_ms, read("time:<=14:05").until_ms) == (at, at + 1)


def test_a_mode_is_one_of_three() -> None:
    assert read("x mode:keyword").mode == read("mode:Keyword x mode:keyword").mode == "keyword"


@pytest.mark.parametrize(
    "text",
    [
        "http://example.com/a?b=c", "12:30", "12:30:45.123", r"C:\dir", "C:/dir", "std::vector", "a::b", "cause: unknown",
        "x:=5", "main.c:12: error", "{\"level\":\"error\"}", "[core:notice]", "/10.0.0.1:8080", "-1", "--verbose", "->", "- a",
        "(http:foo)", "time: 3 key: 4", "don't", "a-b", "foo:",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_filter_stays_a_word(text: str) -> None:
    query = read(text)
    assert query.text == text
    assert query.filters == query.excluded == query.phrases == ()


def test_a_pasted_log_line_is_words() -> None:
    line = "1109 2036 148 INFO a.Node$Responder: Receiving block blk_-16 src: /10.0.0.1:54106 dest: /10.0.0.2:50010"
    assert read(line) == Query(line)


def test_an_open_quote_is_read_leniently_and_said() -> None:
    query = read('disk "full on level:error')
    assert (query.text, query.phrases) == ("disk full on", ())
    assert query.filters == (Filter("level", "=", ("error",)),)
    assert query.notes == ("the quote at character 6 is never closed; what follows was read as plain words",)


def test_a_filter_with_a_space_in_it_is_pointed_out() -> None:
    assert "level:value" in read("level: error").notes[0]


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("latency:>=fast", 10, "a number"),
        ("latency:>=nan", 10, "a number"),
        ("latency:>=1,2", 12, "a space"),
        ("latency:>", 9, "a value or a comparison"),
        ("a since:soon", 8, "an age"),
        ("since:>2h", 7, "an age"),
        ("since:2h,3h", 9, "a space"),
        ("until:", 6, "an age"),
        ("time:14:05", 5, "a comparison"),
        ("time:>=noon", 7, "an age"),
        ("mode:fuzzy", 5, "one of hybrid"),
        ("mode:hybrid mode:keyword", 17, "one of hybrid"),
        ('host:""', 5, "a value"),
        ("x level:", 8, "a value"),
        ('host:"web', 5, 'a closing "'),
        ("partition:one", 10, "an integer"),
        ("offset:1.5", 7, "an integer"),
        ("offset:1*", 8, "values that all end with *"),
        ("host:a*,b", 6, "values that all end with *"),
        ("level:>=loud", 8, "one of trace"),
        ("-latency:>10", 0, "the opposite comparison"),
        ("-since:2h", 0, "since:value without"),
        ("key:>3", 4, "a value"),
    ],
)
def test_an_error_points_at_the_character_and_says_what_was_expected(text: str, position: int, expected: str) -> None:
    with pytest.raises(QueryError) as caught:
        read(text)
    assert (caught.value.position, caught.value.query) == (position, text)
    assert caught.value.expected.startswith(expected)


PIECES = st.sampled_from(
    [
        '"',
        "-",
        ":",
        ">",
        "<=",
        "*",
        ",",
        "\\",
        " ",
        "\n",
        "level",
        "since",
        "mode",
        "time",
        "offset",
        "2h",
        "1e999",
        "a",
        "é",
        "\0",
        "\ud800",
    ]
)


@given(st.text(max_size=80) | st.lists(PIECES, max_size=25).map("".join))
@example("since:9999999999999999999w")
@example("until:0001-01-01T00:00+23:59")
@example("offset:٣")
def test_any_text_parses_or_points_inside_itself(text: str) -> None:
    try:
        query = read(text)
    except QueryError as error:
        inside = 0 <= error.position <= len(text) and error.expected
        assert inside  # most texts do parse
    else:
        assert all(text_part.strip() for text_part in (*query.phrases, *query.excluded))
        assert all(condition.values for condition in query.filters)


WORD = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
PHRASE = st.lists(st.text(alphabet='ab"\\:-,*é', min_size=1, max_size=6), min_size=1, max_size=3).map(" ".join)
FIELD = st.from_regex(r"[a-z_@][a-z0-9_.@-]{0,6}", fullmatch=True).filter(
    lambda n: n not in ("key", "partition", "offset", "level", "topic", "time", "since", "until", "mode")
)
OPERATOR = st.sampled_from(["=", "!=", ">", ">=", "<", "<=", "prefix", "!prefix"])


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(condition: Filter) -> str:
    name, op, value = condition.field, condition.op, condition.values[0]
    if op in ("prefix", "!prefix"):
        return f"{'-' if op[0] == '!' else ''}{name}:{value}*"
    if op in ("=", "!="):
        return f"{'-' if op == '!=' else ''}{name}:" + ",".join(quoted(str(v)) for v in condition.values)
    return f"{name}:{op}{value}"


@st.composite
def conditions(draw: st.DrawFn) -> Filter:
    op: Any = draw(OPERATOR)
    if op in ("=", "!="):
        return Filter(draw(FIELD), op, tuple(draw(st.lists(PHRASE, min_size=1, max_size=3, unique=True))))
    return Filter(draw(FIELD), op, (draw(WORD if "prefix" in op else st.integers(-(10**9), 10**9)),))


@given(
    st.lists(WORD),
    st.lists(PHRASE, max_size=3),
    st.lists(PHRASE, max_size=3),
    st.lists(conditions(), max_size=4, unique_by=lambda f: f.field),
)
def test_a_query_built_from_parts_reads_back_as_those_parts(
    words: list[str], phrases: list[str], excluded: list[str], filters: list[Filter]
) -> None:
    parts = [*words, *map(quoted, phrases), *("-" + quoted(e) for e in excluded), *map(written, filters)]
    assert read(" ".join(parts)) == Query(" ".join([*words, *phrases]), tuple(phrases), tuple(excluded), tuple(filters))


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (datetime(2026, 3, 1, 14, 5), to_ms(datetime(2026, 3, 1, 14, 5, tzinfo=UTC))),
        (datetime(2026, 3, 1, 14, 5, tzinfo=timezone(timedelta(hours=2))), to_ms(datetime(2026, 3, 1, 12, 5, tzinfo=UTC))),
        ("2026-03-01T14:05", to_ms(datetime(2026, 3, 1, 14, 5, tzinfo=UTC))),
        ("2026-03-01 14:05:01.250Z", to_ms(datetime(2026, 3, 1, 14, 5, 1, 250_000, tzinfo=UTC))),
        ("2026-03-01T14:05+02:00", to_ms(datetime(2026, 3, 1, 12, 5, tzinfo=UTC))),
        ("2026-02-28", to_ms(datetime(2026, 2, 28, tzinfo=UTC))),
        ("20260228", to_ms(datetime(2026, 2, 28, tzinfo=UTC))),
        ("14:05", to_ms(datetime(2026, 3, 1, 14, 5, tzinfo=UTC))),
        ("9:05", to_ms(datetime(2026, 3, 1, 9, 5, tzinfo=UTC))),
        ("today", to_ms(datetime(2026, 3, 1, tzinfo=UTC))),
        ("now", NOW),
        ("2h", NOW - 2 * HOUR),
        ("1h30m", NOW - 3 * HOUR // 2),
        ("now-2h", NOW - 2 * HOUR),
        ("2 h ago", NOW - 2 * HOUR),
        (1_767_225_600, 1_767_225_600_000),
        (1_767_225_600.5, 1_767_225_600_500),
        ("1767225600", 1_767_225_600_000),
        (1_767_225_600_123, 1_767_225_600_123),
        (0, 0),
    ],
)
def test_times_are_read_in_every_form(value: Any, ms: int) -> None:
    assert parse_time(value, now_ms=NOW) == ms


def test_a_clock_that_is_still_to_come_begins_yesterday_and_ends_today() -> None:
    night = to_ms(datetime(2026, 3, 1, 0, 30, tzinfo=UTC))
    late = to_ms(datetime(2026, 2, 28, 23, 40, tzinfo=UTC))
    for q in ("since:23:40", "time:>=23:40"):
        assert parse(q, now_ms=night).since_ms == late
    assert parse("since:00:10", now_ms=night).since_ms == to_ms(datetime(2026, 3, 1, 0, 10, tzinfo=UTC))
    assert parse("until:23:40", now_ms=night).until_ms == late + 86_400_000
    assert parse_time("23:40", now_ms=night, begins=True) == late
    assert parse_time("2026-03-01T23:40", now_ms=night, begins=True) == late + 86_400_000


@pytest.mark.parametrize(
    "value", ["soon", "", "25:00", "2026-13-01", "2h3", float("nan"), float("inf"), 1e300, "1e300", True, "9" * 90 + "w"]
)
def test_what_is_no_time_is_a_usage_error(value: Any) -> None:
    with pytest.raises(UsageError):
        parse_time(value, now_ms=NOW)


def test_filters_of_a_mapping() -> None:
    assert as_filters({"level": "error", "status": [500, 502], "latency": {">=": 10, "<": 20.5}, "ok": True}) == (
        Filter("level", "=", ("error",)),
        Filter("status", "=", (500, 502)),
        Filter("latency", ">=", (10,)),
        Filter("latency", "<", (20.5,)),
        Filter("ok", "=", (True,)),
    )


@pytest.mark.parametrize(
    "mapping",
    [
        {"a": None},
        {"a": []},
        {"a": {"~": 1}},
        {"a": {">": "x"}},
        {"a": {">": [1, 2]}},
        {"level": {">=": "loud"}},
        {"since": "2h"},
        {"offset": "x"},
    ],
)
def test_an_impossible_mapping_is_a_usage_error(mapping: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        as_filters(mapping)


@pytest.mark.parametrize(
    ("text", "accepted", "refused"),
    [
        ("status:500", (500, 500.0, "500"), ("0500", 50, None, True)),
        ("id:007", ("007", 7), ("07", 70)),
        ("id:9007199254740993", (9007199254740993, "9007199254740993"), (9007199254740992,)),
        ("ok:true", (True, "true"), (False, "True", 1)),
        ("level:warn", ("WARNING", "Warn"), ("error", None)),
        ("-level:warn", ("error", None), ("warning",)),
        ("host:web*", ("web", "web1"), ("Web1", None)),
        ("-host:web*", ("db", None), ("web1",)),
        ("host:*", ("", 0), (None,)),
        ("ms:>=10", (10, 10.5, "11", "1e3"), (9, "ten", None, True)),
        ("ms:<0", (-1, "-0.5"), (0, -0.0)),
    ],
)
def test_a_filter_accepts_the_values_it_means(text: str, accepted: tuple[Any, ...], refused: tuple[Any, ...]) -> None:
    condition = only(text)
    assert all(condition.accepts(value) for value in accepted)
    assert not any(condition.accepts(value) for value in refused)


def test_levels_have_one_name_each() -> None:
    assert [canonical_level(name) for name in ("WARNING", "err", "FATAL", "Informational", "Custom")] == [
        "warn",
        "error",
        "fatal",
        "info",
        "custom",
    ]


def test_a_very_long_query_is_read_in_one_pass() -> None:
    query = read('" ' * 1 + 'word "' * 60_000 + " a:b" * 1000)
    assert len(query.notes) <= 2


def test_the_query_language_imports_nothing_heavy() -> None:
    script = "import sys, headwater.query; print([m for m in ('tantivy', 'pydantic', 'numpy', 'chromadb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "[]"
