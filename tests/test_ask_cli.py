"""`headwater chat`, `conversations`, `answers`, `summarize`, and `ask` in a conversation, run as people run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import headwater
from headwater.cli.app import app
from serving import serving, settings_in


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("cli")
    with serving(settings_in(folder)) as url:
        with headwater.connect(url) as hw:
            hw.append(
                "tickets",
                ["The refund of customer Ada was paid twice\x1b[31m", "Parking is free"],
                wait="searchable",
                timeout_s=240,
            )
        yield url


def call(url: str, *args: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, [*args, "--url", url], input=typed)


def test_a_chat_answers_obeys_and_leaves(url: str) -> None:
    typed = ["what of the refund of Ada?", "/topics tickets", "/since 2d", "/model extractive", "and was it paid?", "/nope",
             "/history", "/quit", "never read"]  # fmt: skip
    done = call(url, "chat", "--conversation", "c1", typed="\n".join(typed))
    assert done.exit_code == 0
    assert done.stdout.count("[1] tickets/0/0") == 2
    assert "\x1b[31m" not in done.stdout
    for told in ("conversation c1", "topics: tickets", "since: 2d", "model: extractive", "/nope is not known"):
        assert told in done.stderr
    again = call(url, "chat", "-c", "c1", typed="/quit\n")
    assert "> what of the refund of Ada?" in again.stdout  # what was said is recalled


def test_a_chat_refuses_what_cannot_be_looked_at_and_stays_as_it_was(url: str) -> None:
    typed = ("/topics tickets", "/topics nowhere", "/since nonsense", "what of the refund of Ada?")
    done = call(url, "chat", "--conversation", "c2", typed="\n".join(typed))
    assert done.exit_code == 0
    assert "no topic 'nowhere'" in done.stderr
    assert "'nonsense' is not a time" in done.stderr
    assert done.stderr.count("nothing is changed") == 2
    assert "[1] tickets/0/0" in done.stdout


def test_conversations_are_listed_shown_and_removed(url: str) -> None:
    call(url, "ask", "what of the refund of Ada?", "--conversation", "c2")
    listed = json.loads(call(url, "conversations", "list", "--json").stdout)
    assert "c2" in [talk["id"] for talk in listed]
    assert "what of the refund" in call(url, "conversations").stdout
    assert "> what of the refund of Ada?" in call(url, "conversations", "show", "c2").stdout
    assert call(url, "conversations", "rm", "c2", "--yes").exit_code == 0
    assert call(url, "conversations", "show", "c2").exit_code == 3


def test_answers_are_looked_up_and_asked_again(url: str) -> None:
    asked = json.loads(call(url, "ask", "what of the refund of Ada?", "--json").stdout)
    assert asked["id"][:8] in call(url, "answers").stdout
    shown = call(url, "answers", "show", asked["id"]).stdout
    assert "made from tickets/0/0" in shown
    with headwater.connect(url) as hw:
        hw.append("tickets", ["The second refund of Ada was taken back"], wait="searchable", timeout_s=240)
    again = call(url, "answers", "rerun", asked["id"]).stdout
    assert "1 record was stored since" in again
    assert any(line.startswith("+ ") for line in again.splitlines())
    past = json.loads(call(url, "ask", "what of the refund of Ada?", "--as-of", "2001-01-01", "--json").stdout)
    assert past["abstained"]


def test_a_summary_is_printed_with_what_it_rests_on(url: str) -> None:
    done = call(url, "summarize", "refund", "--topics", "tickets", "--max-tokens", "200")
    assert done.exit_code == 0
    assert "tickets/0/0" in done.stdout
    assert json.loads(call(url, "summarize", "--thread", "tickets/0/1", "--json").stdout)["citations"]
    assert call(url, "summarize", "--thread", "nonsense").exit_code == 2
