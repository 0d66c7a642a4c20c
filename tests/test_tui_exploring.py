"""What is looked at in the terminal UI beyond lists: a part of many topics, drift, long texts, whom the daemon calls."""

from __future__ import annotations

import asyncio
import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from headwater.client import Client
from headwater.records import Bucket, Coverage, Timeline
from headwater.records.markers import Lead, Marker
from headwater_tui.app import HeadwaterApp
from headwater_tui.screens.ask import Ask
from headwater_tui.screens.asking_for import Prompt
from headwater_tui.screens.patterns import Patterns
from headwater_tui.screens.record import Record, pretty
from headwater_tui.screens.search import Search
from headwater_tui.screens.status import StatusView
from headwater_tui.screens.topics import Topics
from headwater_tui.widgets.histogram import Histogram
from headwater_tui.widgets.table import Table
from headwater_tui.widgets.text_pane import TextPane, folded
from serving import serving, settings_in
from tui_driving import answers, run, sees, shown, text_of, view, written


@pytest.fixture
def url(tmp_path: Path) -> Any:
    with serving(settings_in(tmp_path)) as at:
        yield at


async def fill(url: str, topic: str, drafts: list[Any]) -> None:
    async with Client(url) as hw:
        await hw.append(topic, drafts, wait="searchable", timeout_s=240)


def test_of_many_topics_those_with_a_part_of_a_name_are_listed(url: str) -> None:
    for name in ("orders-berlin", "orders-paris", "payments"):
        asyncio.run(fill(url, name, ["one"]))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await sees(app, pilot, "orders-berlin", "orders-paris", "payments", "health", "behind", "failed")
        assert isinstance(app.screen, Topics)
        await answers(app, pilot, "slash", "ORDERS")
        await sees(app, pilot, "2 of 3 topics, with 'ORDERS' (Esc: all)")
        await shown(lambda: app.screen.query_one(Table).row_count == 2, pilot)
        await pilot.press("escape")
        await sees(app, pilot, "payments")
        before = app.screen.query_one(Table).scroll_offset.x
        await pilot.press("l", "l")
        await shown(lambda: app.screen.query_one(Table).scroll_offset.x > before, pilot)
        await pilot.press("h", "h")
        await shown(lambda: app.screen.query_one(Table).scroll_offset.x == before, pilot)

    run(url, body, size=(80, 24))


def test_whether_a_topic_says_other_things_is_shown_with_what_makes_the_difference(url: str, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    usual = [{"value": f"payment {n} was accepted", "timestamp": now - timedelta(minutes=300 - n)} for n in range(240)]
    other = [{"value": f"disk {n} is full", "timestamp": now - timedelta(seconds=3000 - 10 * n)} for n in range(200)]
    asyncio.run(fill(url, "logs", usual + other))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Patterns)
        await sees(app, pilot, "2 patterns in 440 records")
        await answers(app, pilot, "D", "1h")
        await sees(app, pilot, "apart", "records before and", "disk <*> is full", "payment <*> was accepted")
        file = tmp_path / "patterns.csv"
        await answers(app, pilot, "x", str(file))
        await shown(lambda: written(file), pilot)
        rows = list(csv.DictReader(file.read_text().splitlines()))
        assert {row["pattern"] for row in rows} == {"disk <*> is full", "payment <*> was accepted"}
        assert all(row["topic"] == "logs" and row["times"] and row["example"].startswith("logs/0/") for row in rows)
        await answers(app, pilot, "D", "")
        await sees(app, pilot, "2 patterns in 440 records")

    run(url, body, size=(140, 30))


def test_the_answers_of_a_conversation_are_written_with_what_they_cite(url: str, tmp_path: Path) -> None:
    asyncio.run(fill(url, "chat", ["payments are slow since the deploy", "the pool of connections is empty"]))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Ask)
        screen = app.screen
        assert isinstance(screen, Ask)
        for question in ("why are payments slow?", "what is empty?"):
            screen.ask(question)
            await shown(lambda question=question: screen.answer and screen.answer.question == question, pilot)  # type: ignore[misc]
        await pilot.press("escape")
        for ending in ("jsonl", "md"):
            await answers(app, pilot, "x", str(tmp_path / f"out.{ending}"))
            await shown(lambda ending=ending: written(tmp_path / f"out.{ending}"), pilot)  # type: ignore[misc]
        told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [one["question"] for one in told] == ["why are payments slow?", "what is empty?"]
        assert told[0]["citations"][0]["address"] == "chat/0/0"
        assert "payments are slow since the deploy" in (tmp_path / "out.md").read_text()

    run(url, body)


def test_status_shows_whom_the_daemon_calls_and_how_that_goes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", "whsec_" + "c2VjcmV0" * 4)

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, StatusView)
        await sees(app, pilot, "Webhooks: none", "Sources: none")
        await app.verbs.add_webhook("http://127.0.0.1:9/hook", name="pager", alerts=["*"], allow_private=True)
        await sees(app, pilot, "pager", "alerts of all", "ready")

    run(url, body, size=(120, 40))


def test_a_long_text_is_shown_from_its_beginning_and_gone_through_by_keys(url: str) -> None:
    asyncio.run(fill(url, "notes", ["\n".join(f"line {n}" for n in range(40_000)), "[bold]\x1b[31m " + "漢字 " * 20_000]))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_record("notes/0/0")
        await sees(app, pilot, "line 0", "line 5", "J K: the text")
        await pilot.press("J")
        await sees(app, pilot, "line 11")
        assert "line 1 " not in text_of(app)
        await pilot.press("K")
        await sees(app, pilot, "line 0")
        pane = app.screen.query_one(TextPane)
        pane.scroll_end(animate=False)
        await sees(app, pilot, "line 39999")
        await pilot.press("escape")
        app.open_record("notes/0/1")
        await shown(lambda: isinstance(app.screen, Record) and app.screen.view, pilot)
        await sees(app, pilot, "[bold]\\x1b[31m", "漢字")
        assert all(cell_len(line) <= 100 for line in text_of(app).splitlines())

    run(url, body)


@settings(max_examples=200, deadline=None)
@given(st.text("ab  漢é\u0301👩", max_size=60), st.integers(2, 12))
def test_a_line_is_folded_to_a_width_and_loses_nothing_but_blanks(line: str, width: int) -> None:
    parts = folded(line, width)
    assert all(cell_len(part.rstrip(" ")) <= width for part in parts)
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")


def test_json_is_indented_and_every_number_and_name_in_it_is_as_it_is_stored() -> None:
    stored = '{"n":123456789012345678901234567890,"n":2.50, "e":"\\u00e9,{}[]:\\"", "a":[],"o":{},"deep":[{"x":[1,null]}]}'
    assert pretty(stored).splitlines() == [
        "{", '  "n": 123456789012345678901234567890,', '  "n": 2.50,', '  "e": "\\u00e9,{}[]:\\"",', '  "a": [],', '  "o": {},',
        '  "deep": [', "    {", '      "x": [', "        1,", "        null", "      ]", "    }", "  ]", "}",
    ]  # fmt: skip
    assert pretty("{not json") == "{not json"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(json_values, max_size=4) | st.dictionaries(st.text(), json_values, max_size=4))
def test_indented_json_is_laid_out_as_others_do_it(value: Any) -> None:
    assert pretty(json.dumps(value)) == json.dumps(value, indent=2)


def test_what_stands_out_on_a_timeline_has_its_sign_and_is_said_on_one_line(url: str) -> None:
    start = datetime(2026, 11, 21, 14, tzinfo=UTC)
    coverage = Coverage(topics=("logs",), searched=3)
    markers = (
        Marker(start, "deploys", "event", "v2.14 rolled out", "", "deploys/0/3"),
        Marker(start + timedelta(minutes=1), "logs", "anomaly", "the pool is empty " * 20, "high", "logs-1"),
        Marker(start + timedelta(minutes=2), "logs", "new", "got no answer", "error", "7"),
    )
    lead = Lead("deploys", "logs", 1, 60.0, 0.9, "deploys come before logs, by a minute")
    buckets = tuple(Bucket(start + timedelta(minutes=n), n + 1, {"logs": n + 1}) for n in range(60))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Search)
        histogram = app.screen.query_one(Histogram)
        histogram.timeline = Timeline(buckets, 60.0, coverage, markers, (lead,))
        await sees(app, pilot, "●▲◆", "▲ 1 odd  ·  ● 1 events  ·  ◆ 1 new", "deploys come before logs")
        tall = histogram.size.height
        histogram.focus()
        await sees(app, pilot, "deploys event: v2.14 rolled out")
        await pilot.press("right_square_bracket")
        await sees(app, pilot, "logs anomaly: the pool is empty", "…")
        assert histogram.size.height == tall == 6

    run(url, body, size=(80, 24))


def test_a_prompt_is_given_up_without_a_change(url: str) -> None:
    asyncio.run(fill(url, "orders", ["one"]))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await sees(app, pilot, "orders")
        await pilot.press("slash")
        await shown(lambda: isinstance(app.screen, Prompt) and isinstance(app.focused, Input), pilot)
        await pilot.press(*"nothing has this", "escape")
        await shown(lambda: isinstance(app.screen, Topics), pilot)
        assert app.screen.query_one(Table).row_count == 1

    run(url, body)
