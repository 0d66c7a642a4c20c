"""The views of the terminal UI against a real daemon, driven by keys as a person drives it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from headwater.errors import UsageError
from headwater.records import Record as Stored
from headwater.records import Topic, Watermark
from headwater_tui import export
from headwater_tui.app import HeadwaterApp
from headwater_tui.kept import Kept
from headwater_tui.screens.anomalies import Anomalies
from headwater_tui.screens.ask import Ask, inert
from headwater_tui.screens.asking_for import Choose
from headwater_tui.screens.live import Live
from headwater_tui.screens.patterns import Patterns
from headwater_tui.screens.pipelines import Pipelines
from headwater_tui.screens.record import Record
from headwater_tui.screens.search import Scope, Search
from headwater_tui.screens.topics import Topics, health_of
from headwater_tui.screens.watches import Watches
from headwater_tui.widgets.query_bar import Completion, QueryBar
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table
from serving import serving, settings_in
from tui_driving import answers, fill, run, sees, shown, text_of, view


@pytest.fixture
def url(tmp_path: Path) -> Any:
    with serving(settings_in(tmp_path)) as at:
        asyncio.run(fill(at))
        yield at


def test_topics_are_listed_and_enter_shows_their_records(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await sees(app, pilot, "logs", "chat", "1.2k")
        await pilot.press("j", "enter")
        await sees(app, pilot, "request 1200", "1,201 of 1,201", "following")
        listed = app.screen.query_one(RecordList)
        await pilot.press("g")
        await sees(app, pilot, "request 0 took", "1 of 1,201")
        assert not listed.following
        await pilot.press("e")
        await shown(lambda: listed.cursor == 50, pilot)
        await pilot.press("E", "w")
        await shown(lambda: listed.cursor == 0 and listed.wrapped, pilot)

    run(url, body)


async def searching(app: HeadwaterApp, pilot: Pilot[None]) -> None:
    await view(app, pilot, Search)
    await shown(lambda: isinstance(app.focused, QueryBar), pilot)


def test_a_search_shows_hits_and_when_they_were_and_a_chosen_time_filters(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await searching(app, pilot)
        await pilot.press(*"took", "enter")
        await sees(app, pilot, "×1,201", "hits in 1,203 records", "1,201 records")
        await shown(lambda: isinstance(app.focused, RecordList), pilot)
        await pilot.press("i", "enter")
        await sees(app, pilot, "1 hit in 600 records", "Esc: all times")
        await pilot.press("escape", "escape")
        await sees(app, pilot, "hits in 1,203 records")
        await pilot.press("c")
        await sees(app, pilot, "mode keyword")
        await pilot.press("b")
        await shown(lambda: app.kept.searches == ["took"], pilot)
        await pilot.press("slash", "up")
        await shown(lambda: app.screen.query_one(QueryBar).value == "took", pilot)

    run(url, body)


def test_a_bad_query_is_told_with_its_place(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await searching(app, pilot)
        await pilot.press(*"since:nonsense", "enter")
        await sees(app, pilot, "nonsense", "time")

    run(url, body)


def test_a_record_shows_its_neighbours_and_what_is_like_it_and_no_markup_is_obeyed(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_record("chat/0/1")
        await sees(app, pilot, "[bold]not markup[/bold] \\x1b[31mred", "address", "chat/0/1", "payments are slow")
        await pilot.press("y")
        await shown(lambda: app.clipboard == "[bold]not markup[/bold] \x1b[31mred", pilot)
        await pilot.press("tab", "tab")
        await sees(app, pilot, "passages near in meaning")
        await pilot.press("m")
        await shown(lambda: len(app.kept.marks) == 1, pilot)
        await pilot.press("tab", "v")
        await sees(app, pilot, "chat/0", "2 of 2")
        await pilot.press("apostrophe")
        await shown(lambda: isinstance(app.screen, Choose), pilot)
        await pilot.press("enter")
        await shown(lambda: isinstance(app.screen, Record) and app.screen.address == app.kept.marks[0], pilot)

    run(url, body)


def test_an_answer_streams_and_its_citation_opens_the_record(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Ask)
        await pilot.press("slash", *"why are payments slow", "enter")
        await sees(app, pilot, "[1] chat/0/0", "confidence")
        await pilot.press("escape", "home", "enter")
        await shown(lambda: isinstance(app.screen, Record) and app.screen.address == "chat/0/0", pilot)
        await pilot.press("escape")
        await shown(lambda: isinstance(app.screen, Ask), pilot)

    run(url, body)


def test_patterns_are_listed_narrowed_and_lead_to_an_example(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_patterns("logs")
        await sees(app, pilot, "request <*> took <*> ms", "1.2k")
        await answers(app, pilot, "n", "2030-01-01")
        await sees(app, pilot, "0 patterns", "new since 2030-01-01")
        await answers(app, pilot, "d", "2030-01-01")
        await sees(app, pilot, "gone since 2030-01-01")
        await answers(app, pilot, "c", "2026-11-21T10:20")
        await sees(app, pilot, "changed since 2026-11-21T10:20")
        await answers(app, pilot, "c", "")
        await sees(app, pilot, "request <*> took <*> ms")
        await pilot.press("f")
        await sees(app, pilot, "100 other records say the same, the newest of them", "request 1200 took")
        await pilot.press("escape")
        await pilot.press("enter")
        await sees(app, pilot, "Before and after")

    run(url, body)


def test_a_watch_is_made_fires_and_is_removed(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Watches)
        await answers(app, pilot, "n", "disk")
        await sees(app, pilot, "w1", "watching")
        await app.verbs.append("chat", ["the disk is full"], wait="searchable", timeout_s=240)
        await sees(app, pilot, "the disk is full")
        app.screen.query_one(Table).focus()
        await pilot.press("d")
        await shown(lambda: isinstance(app.screen, Choose), pilot)
        await pilot.press("down", "enter")
        await shown(lambda: not app.screen.query_one(Table).row_count, pilot)
        assert await app.verbs.watches() == []

    run(url, body)


def test_what_is_odd_is_explained_and_a_verdict_is_one_key(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        began = (datetime.now(UTC) - timedelta(days=4)).replace(minute=0, second=0, microsecond=0)
        rows: list[dict[str, Any]] = [
            {"value": f"INFO all is well {m}", "timestamp": began + timedelta(minutes=m)} for m in range(0, 5700, 5)
        ]
        burst = [{"value": f"ERROR pool exhausted {n}", "timestamp": began + timedelta(days=3, minutes=n)} for n in range(20)]
        rows += [row for row in burst for _ in range(20)]
        await app.verbs.append("odd", sorted(rows, key=lambda row: row["timestamp"]))
        await view(app, pilot, Anomalies)
        await sees(app, pilot, "no detectors are on")
        await app.verbs.set_detecting("odd")
        async with asyncio.timeout(240):
            while not (await app.verbs.detecting("odd"))[0].found:
                await pilot.pause(0.1)
        await pilot.press("i")
        await sees(app, pilot, "odd: watching", "by chance", "found in history", "▲ 1 odd")
        await pilot.press("d")
        await sees(app, pilot, "said to be not an")
        await pilot.press("tab")
        screen = app.screen
        assert isinstance(screen, Anomalies)
        await shown(lambda: screen.listed.has_focus, pilot)
        await pilot.press("enter")
        await shown(lambda: isinstance(app.screen, Record) and "pool exhausted" in text_of(app), pilot)
        await pilot.press("escape", "tab", "right_square_bracket", "right_square_bracket", "enter")
        await sees(app, pilot, "Esc: all times", "pool exhausted", "×20")

    run(url, body)


def test_a_pipeline_shows_its_steps_and_is_stopped_and_started(url: str) -> None:
    spec = {
        "topics": ["chat"], "output": "marked",
        "steps": [{"name": "hidden", "redact": {}}],
    }  # fmt: skip

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await app.verbs.create_pipeline("clean", spec)
        await view(app, pilot, Pipelines)
        await sees(app, pilot, "clean", "running", "hidden", "redact")
        await pilot.press("space")
        await sees(app, pilot, "stopped")
        await pilot.press("space")
        await sees(app, pilot, "running")
        await pilot.press("v")
        await sees(app, pilot, "marked/0")

    run(url, body)


def test_a_conversation_is_gone_on_with(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Ask)
        screen = app.screen
        assert isinstance(screen, Ask)
        screen.ask("why are payments slow?")
        await sees(app, pilot, "confidence")
        first = screen.conversation
        await screen.action_new()
        await sees(app, pilot, "a new conversation")
        assert screen.conversation == ""
        await pilot.press("escape", "c")
        await shown(lambda: isinstance(app.screen, Choose), pilot)
        await pilot.press("enter")
        await sees(app, pilot, "why are payments slow?", "2 messages")
        assert screen.conversation == first

    run(url, body)


def test_cells_that_a_spreadsheet_would_run_are_quoted_and_a_fence_is_not_closed(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    rows = [Stored("t", 0, 0, 0, moment, moment, None, "=1+1\n```\nout", {"a": 1})]
    entries = export.of_rows(rows)
    assert export.write(entries, tmp_path / "a.csv") == 1
    assert "\"'=1+1" in (tmp_path / "a.csv").read_text()
    export.write(entries, tmp_path / "a.md")
    assert "````\n=1+1" in (tmp_path / "a.md").read_text()
    with pytest.raises(UsageError, match="exists"):
        export.write(entries, tmp_path / "a.md")
    with pytest.raises(UsageError, match="must end"):
        export.write(entries, tmp_path / "a.xls")


def test_what_is_kept_is_there_the_next_time_and_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state" / "tui.json"
    kept = Kept.load(path)
    kept.asked("one")
    kept.asked("two")
    kept.asked("one")
    assert kept.mark("t/0/1")
    assert kept.save_search("q")
    assert not kept.save_search("q")
    again = Kept.load(path)
    assert (again.history, again.marks, again.searches) == (["two", "one"], ["t/0/1"], [])
    path.write_text("{nonsense")
    assert Kept.load(path).history == []
    assert path.with_suffix(".damaged").read_text() == "{nonsense"


def test_links_and_images_of_an_answer_are_text() -> None:
    assert inert("see [here](http://evil.example/x) ![p](http://evil.example/p.png) <b>") == (
        "see here (http://evil.example/x) p (http://evil.example/p.png) \\<b>"
    )


def test_a_topic_says_how_it_stands_and_an_empty_daemon_what_to_do_next(url: str, tmp_path: Path) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await sees(app, pilot, "health", "well", "Enter shows the records")

    async def empty(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        for kind, hint in ((Topics, "headwater up FILE"), (Live, "headwater up FILE"), (Watches, "n makes one")):
            await view(app, pilot, kind)
            await sees(app, pilot, hint)
        await view(app, pilot, Pipelines)
        await sees(app, pilot, "headwater enrich create")
        await view(app, pilot, Patterns)
        await sees(app, pilot, "no topics yet")

    run(url, body)
    with serving(settings_in(tmp_path / "empty")) as at:
        run(at, empty)


def test_how_a_topic_stands_is_one_word() -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)

    def topic(stored: int, keyword: int, semantic: int, failed: int = 0) -> Topic:
        mark = Watermark(stored, keyword, semantic)
        return Topic("t", 1, {}, stored, 1, 1.0, 9, 0.0, moment, moment, mark, failed)

    assert health_of(topic(9, 9, 9)) == ("well", "green")
    assert health_of(topic(9, 5, 5)) == ("indexing", "yellow")
    assert health_of(topic(9, 9, 5)) == ("embedding", "yellow")
    assert health_of(topic(9, 9, 9, 1)) == ("failures", "red")
    assert health_of(topic(0, 0, 0)) == ("empty", "dim")


def test_a_query_is_completed_by_history_fields_and_values_that_were_seen() -> None:
    async def completed(text: str) -> str | None:
        return await completion.get_suggestion(text)

    completion = Completion()
    completion.history = ["payments slow"]
    completion.vocabulary.topics = ("orders",)
    completion.vocabulary.learn([{"service": "check out", "n": 3}, {"service": "cart", "nested": {"a": 1}}])
    said = [
        asyncio.run(completed(text)) for text in ("pay", "x ser", "service:ca", 'service:"ch', "topic:o", "n:", "a b", "nes")
    ]
    assert said == [
        "payments slow", "x service:", "service:cart", 'service:"check out"', "topic:orders", "n:3", None, "nested:",
    ]  # fmt: skip


def test_a_record_is_asked_about_and_a_stretch_of_time_searched_before_those_views_were_seen(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["chat"])
        await sees(app, pilot, "payments are slow")
        await pilot.press("g", "a")
        await shown(lambda: isinstance(app.screen, Ask) and app.screen.query(QueryBar), pilot)
        await shown(lambda: "payments are slow" in app.screen.query_one(QueryBar).value, pilot)
        app.open_search("payments", Scope(("chat",)))
        await sees(app, pilot, "hits in 2 records")

    run(url, body)


def test_what_is_copied_lies_in_a_file_too_for_terminals_that_do_not_take_it(url: str, tmp_path: Path) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["chat"])
        await sees(app, pilot, "payments are slow")
        await pilot.press("g", "y")
        await shown((tmp_path / "copied.txt").exists, pilot)
        assert (tmp_path / "copied.txt").read_text() == app.clipboard == "payments are slow"
        assert (tmp_path / "copied.txt").stat().st_mode & 0o077 == 0
        app.copy("long " * 20_000)
        assert app.clipboard == "payments are slow"
        assert len((tmp_path / "copied.txt").read_text()) == 100_000

    run(url, body, kept=Kept(tmp_path / "tui.json"))
