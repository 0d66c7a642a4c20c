"""Queries on the command line: words that begin with a dash, words without quotes, and the stretch of a text that is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headwater.cli import output
from headwater.cli.app import app
from headwater.cli.words import excerpt, parted, pattern_of, terms_of

OPTIONS = dict.fromkeys(("--top-k", "-k", "--topics", "-t", "--filter", "-f"), True) | {"--json": False, "--help": False}


@pytest.mark.parametrize(
    ("line", "given", "words"),
    [
        ("timeout -healthcheck", [], ["timeout", "-healthcheck"]),
        ("-foo -tea", [], ["-foo", "-tea"]),
        ("-foo --json -k 5", ["--json", "-k", "5"], ["-foo"]),
        ("-k5 -foo", ["-k5"], ["-foo"]),
        ("--top-k=5 x --topics -t", ["--top-k=5", "--topics", "-t"], ["x"]),
        ("--json -- --help -k", ["--json"], ["--help", "-k"]),
        ("-1", [], ["-1"]),
        ("--topk x", ["--topk"], ["x"]),
    ],
)
def test_an_option_is_one_the_command_has_and_any_other_word_with_a_dash_is_part_of_the_query(
    line: str, given: list[str], words: list[str]
) -> None:
    assert parted(line.split(), OPTIONS) == (given, words)


def test_a_query_may_begin_with_a_dash_and_its_words_need_no_quotes(tmp_path: object) -> None:
    runner = CliRunner()
    data = ["--data", str(tmp_path)]
    assert runner.invoke(app, ["topics", "create", "t", "--passages", "exact", "--no-embed", *data]).exit_code == 0
    assert runner.invoke(app, ["append", "t", "the pool is full", "the door is shut", "--wait", *data]).exit_code == 0

    def found(*arguments: str) -> str:
        result = runner.invoke(app, [*arguments, *data])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    assert "searched" in found("search", "-door", "-t", "t")
    assert "pool" in found("search", "the", "-door", "--topics", "t")
    assert "door is shut" not in found("search", "the", "-door", "--topics", "t")
    assert found("patterns", "t", "-door").count("\nthe") <= 1
    assert found("timeline", "-door", "--json")
    assert found("ask", "is", "the", "pool", "full?")
    assert "the pool is full" in found("tail", "t", "-door", "--limit", "1")


def test_an_option_that_is_not_there_is_wrong_usage_that_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["search", "--topk", "5", "x"])
    assert result.exit_code == 2
    assert "--top-k" in result.stderr


LONG = " ".join(f"filler{n}" for n in range(100)) + " the payments were declined by the bank " + " ".join(["more"] * 200)


def test_a_long_text_is_shown_where_the_words_are_with_what_is_left_out_marked() -> None:
    shown = excerpt(LONG, pattern_of(terms_of("payment declined -refund level:error")), 120)
    assert "payments were declined by the bank" in shown
    assert shown[0] == shown[-1] == "…"
    assert len(shown) <= 120
    assert excerpt("short", pattern_of(["payment"]), 120) == "short"
    assert excerpt(LONG, None, 40).startswith("filler0 ")


def test_a_query_that_does_not_parse_marks_nothing() -> None:
    assert terms_of("offset:>=") == ()
    assert pattern_of(()) is None


@given(st.text(max_size=300), st.lists(st.text(min_size=1, max_size=8), max_size=4), st.integers(20, 100))
def test_what_is_shown_is_a_stretch_of_the_text_within_the_room(text: str, terms: list[str], room: int) -> None:
    shown = excerpt(text, pattern_of(terms), room)
    assert len(shown) <= max(room, 0)
    assert shown.removeprefix("…").removesuffix("…") in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "0.2 s"), (45, "45 s"), (60, "1 min"), (3600, "1 h"), (5400, "1 h 30 min"), (3605, "1 h"), (13 * 86400, "13 days"),
     (86400 + 7200, "1 day 2 h")],
)  # fmt: skip
def test_a_duration_is_said_in_the_units_that_matter(seconds: float, said: str) -> None:
    assert output.duration(seconds) == said
