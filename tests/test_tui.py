"""The terminal UI against a real daemon, driven by keys as a person drives it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from headwater.client import Client
from headwater.errors import ConfigError, UsageError
from headwater.records import Record as Stored
from headwater.verbs import Verbs
from headwater_tui import export
from headwater_tui.app import VIEWS, Actions, HeadwaterApp, bindings, keymap
from headwater_tui.kept import Kept
from headwater_tui.screens.anomalies import Anomalies
from headwater_tui.screens.ask import Ask, inert
from headwater_tui.screens.asking_for import Choose, Prompt
from headwater_tui.screens.pipelines import Pipelines
from headwater_tui.screens.record import Record
from headwater_tui.screens.status import StatusView
from headwater_tui.screens.view import View
from headwater_tui.screens.watches import Watches
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table
from serving import eventually, serving, settings_in

Body = Callable[[HeadwaterApp, "Pilot[None]"], Awaitable[None]]


async def shown(condition: Callable[[], Any], pilot: Pilot[None], timeout_s: float = 10.0) -> None:
    """Wait until `condition` holds in the app."""
    end = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, "not shown in time"
        await pilot.pause(0.02)


def run(url: str, body: Body, *, size: tuple[int, int] = (100, 30), kept: Kept | None = None) -> None:
    async def main() -> None:
        async with Client(url) as verbs:
            app = HeadwaterApp(verbs, kept)
            async with app.run_test(size=size, notifications=True) as pilot:
                await shown(lambda: app.seen, pilot)
                await body(app, pilot)

    asyncio.run(main())


@pytest.fixture
def url(tmp_path: Path) -> Any:
    with serving(settings_in(tmp_path)) as at:
        asyncio.run(_fill(at))
        yield at


async def _fill(url: str) -> None:
    async with Client(url) as hw:
        lines = [
            f"2026-11-21T10:00:{n % 60:02d}Z {'ERROR' if n % 50 == 0 else 'INFO'} request {n} took {n} ms" for n in range(1200)
        ]
        await hw.create_topic("logs", passages="template")
        await hw.append("logs", lines)
        await hw.append("chat", ["payments are slow", "[bold]not markup[/bold] \x1b[31mred"], wait="searchable")
        await hw.append("logs", ["2026-11-21T10:30:00Z INFO request 1200 took 1 ms"], wait="searchable")


def text_of(app: HeadwaterApp) -> str:
    """What stands on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def sees(app: HeadwaterApp, pilot: Pilot[None], *wanted: str) -> None:
    try:
        await shown(lambda: all(w in text_of(app) for w in wanted), pilot)
    except AssertionError:
        raise AssertionError(f"{wanted} not in\n{text_of(app)}") from None


async def view(app: HeadwaterApp, pilot: Pilot[None], kind: type[View]) -> None:
    app.set_focus(None)
    await pilot.press(str(1 + VIEWS.index(kind)))
    await shown(lambda: isinstance(app.screen, kind) and app.screen.is_mounted, pilot)


async def answers(app: HeadwaterApp, pilot: Pilot[None], key: str, text: str) -> None:
    """Press a key that asks for a line of text, and give it."""
    await pilot.press(key)
    await shown(lambda: isinstance(app.screen, Prompt) and isinstance(app.focused, Input), pilot)
    app.screen.query_one(Input).value = text
    await pilot.press("enter")
    await shown(lambda: not isinstance(app.screen, Prompt), pilot)


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
        assert listed.cursor == 50
        await pilot.press("E", "w")
        assert listed.cursor == 0
        assert listed.wrapped

    run(url, body)


def test_what_comes_is_followed_until_the_cursor_moves_and_pausing_holds_it(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["logs"])
        await sees(app, pilot, "1,201 of 1,201")
        await app.verbs.append("logs", ["2026-11-21T10:40:00Z INFO the newest of all"])
        await sees(app, pilot, "the newest of all", "1,202 of 1,202", "following")
        await pilot.press("k")
        await app.verbs.append("logs", ["2026-11-21T10:41:00Z INFO out of sight"])
        await sees(app, pilot, "1,201 of 1,203")
        await pilot.press("space", "f")
        await sees(app, pilot, "paused")
        await app.verbs.append("logs", ["2026-11-21T10:42:00Z INFO while paused"])
        await pilot.press("space")
        await sees(app, pilot, "while paused", "1,204 of 1,204")

    run(url, body)


def test_a_filter_makes_a_stream_of_what_matches_and_escape_ends_it(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["logs"])
        await sees(app, pilot, "1,201 of 1,201")
        await pilot.press("slash")
        await shown(lambda: isinstance(app.focused, QueryBar), pilot)
        await pilot.press(*"level:error", "enter")
        await sees(app, pilot, "filter: level:error", "request 1150 took", "19 of 19")
        await app.verbs.append("logs", ["2026-11-21T10:43:00Z ERROR another one", "2026-11-21T10:43:01Z INFO not this"])
        await sees(app, pilot, "another one", "20 of 20")
        await pilot.press("escape")
        await sees(app, pilot, "1,203 of 1,203")
        assert app.kept.history == ["level:error"]

    run(url, body)


def test_several_topics_are_one_stream_and_a_time_is_gone_to(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["logs", "chat"])
        await sees(app, pilot, "logs, chat", "payments are slow")
        app.open_live(["logs"])
        await sees(app, pilot, "1,201 of 1,201")
        await answers(app, pilot, "t", "2026-11-21T10:20")
        await sees(app, pilot, "1,201 of 1,201", "request 1200")
        await answers(app, pilot, "t", "nonsense")
        await sees(app, pilot, "is not a time")

    run(url, body)


def test_a_search_shows_hits_and_when_they_were_and_a_chosen_time_filters(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await pilot.press("3")
        await pilot.press(*"took", "enter")
        await sees(app, pilot, "×1,201", "hits in 1,203 records", "1,201 records")
        assert isinstance(app.focused, RecordList)
        await pilot.press("i", "enter")
        await sees(app, pilot, "hits in 600 records", "Esc: all times")
        await pilot.press("escape", "escape")
        await sees(app, pilot, "hits in 1,203 records")
        await pilot.press("c")
        await sees(app, pilot, "mode keyword")
        await pilot.press("b")
        assert app.kept.searches == ["took"]
        await pilot.press("slash", "up")
        assert app.screen.query_one(QueryBar).value == "took"

    run(url, body)


def test_a_bad_query_is_told_with_its_place(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await pilot.press("3", *"since:nonsense", "enter")
        await sees(app, pilot, "nonsense", "time")

    run(url, body)


def test_a_record_shows_its_neighbours_and_what_is_like_it_and_no_markup_is_obeyed(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_record("chat/0/1")
        await sees(app, pilot, "[bold]not markup[/bold] \\x1b[31mred", "address", "chat/0/1", "payments are slow")
        await pilot.press("y")
        await shown(lambda: app.clipboard == "[bold]not markup[/bold] \x1b[31mred", pilot)
        await pilot.press("tab")
        await shown(lambda: app.screen.query_one("#similar", RecordList).rows.count, pilot)
        await pilot.press("m")
        assert len(app.kept.marks) == 1
        await pilot.press("tab", "v")
        await sees(app, pilot, "chat/0", "2 of 2")

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
        await answers(app, pilot, "n", "")
        await sees(app, pilot, "request <*> took <*> ms")
        await pilot.press("enter")
        await sees(app, pilot, "Before and after")

    run(url, body)


def test_a_watch_is_made_fires_and_is_removed(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await view(app, pilot, Watches)
        await answers(app, pilot, "n", "disk")
        await sees(app, pilot, "w1", "watching")
        await app.verbs.append("chat", ["the disk is full"], wait="searchable")
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
        began = datetime.now(UTC) - timedelta(days=4)
        rows: list[dict[str, Any]] = [
            {"value": f"INFO all is well {m}", "timestamp": began + timedelta(minutes=m)} for m in range(0, 5700, 5)
        ]
        burst = [{"value": f"ERROR pool exhausted {n}", "timestamp": began + timedelta(days=3, minutes=n)} for n in range(20)]
        rows += [row for row in burst for _ in range(20)]
        await app.verbs.append("odd", sorted(rows, key=lambda row: row["timestamp"]))
        await view(app, pilot, Anomalies)
        await sees(app, pilot, "no detectors are on")
        await app.verbs.set_detecting("odd")
        for _ in range(300):
            if (await app.verbs.detecting("odd"))[0].found:
                break
            await pilot.pause(0.1)
        await pilot.press("i")
        await sees(app, pilot, "odd: watching", "by chance once in", "found in history")
        await pilot.press("d")
        await sees(app, pilot, "said to be not an anomaly")
        await pilot.press("enter")
        await shown(lambda: isinstance(app.screen, Record), pilot)

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


def test_status_shows_the_daemon_and_a_daemon_that_goes_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        with serving(settings_in(tmp_path)) as at:
            verbs = Client(at)
            app = HeadwaterApp(verbs)
            async with app.run_test(notifications=True) as pilot:
                await shown(lambda: app.seen, pilot)
                await view(app, pilot, StatusView)
                await sees(app, pilot, "no problems", str(tmp_path))
                await verbs.aclose()
                app.verbs = Client("http://127.0.0.1:9")
                await sees(app, pilot, "no Headwater")
                await app.verbs.aclose()

    asyncio.run(main())


def test_rows_are_written_by_the_ending_of_the_name(url: str, tmp_path: Path) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["chat"])
        await sees(app, pilot, "2 of 2", "payments")
        for ending in ("jsonl", "csv", "md"):
            await answers(app, pilot, "x", str(tmp_path / f"out.{ending}"))
            await shown(lambda ending=ending: (tmp_path / f"out.{ending}").exists(), pilot)  # type: ignore[misc]
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["value"] == "payments are slow"

    run(url, body)


def test_cells_that_a_spreadsheet_would_run_are_quoted_and_a_fence_is_not_closed(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    rows = [Stored("t", 0, 0, 0, moment, moment, None, "=1+1\n```\nout", {"a": 1})]
    assert export.write(rows, tmp_path / "a.csv") == 1
    assert "\"'=1+1" in (tmp_path / "a.csv").read_text()
    export.write(rows, tmp_path / "a.md")
    assert "````\n=1+1" in (tmp_path / "a.md").read_text()
    with pytest.raises(UsageError, match="exists"):
        export.write(rows, tmp_path / "a.md")
    with pytest.raises(UsageError, match="must end"):
        export.write(rows, tmp_path / "a.xls")


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


def test_it_fits_80_by_24_and_every_view_draws(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        for kind in VIEWS:
            await view(app, pilot, kind)
            await sees(app, pilot, kind.NAME)
            assert all(len(line) <= 80 for line in text_of(app).splitlines())

    run(url, body, size=(80, 24))


def test_every_key_does_something_is_in_the_help_and_the_palette_and_is_documented(url: str) -> None:
    page = (Path(__file__).parents[1] / "docs/reference/tui.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| `([^`]+)` \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted((b.key, b.description, name) for name, b in bindings().items())

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        seen = set()
        for kind in VIEWS:
            await view(app, pilot, kind)
            for widget in (None, *app.screen.query("RecordList, Table, Histogram, QueryBar")):
                app.screen.set_focus(widget)
                for active in app.screen.active_bindings.values():
                    name = re.match(r"(?:app\.|screen\.)?(\w+)", active.binding.action)
                    assert name is not None
                    assert any(hasattr(node, f"action_{name[1]}") for node in (active.node, app.screen, app)), active.binding
                    seen.add(active.binding.id)
            actions = Actions(app.screen)
            listed = [hit.text async for hit in actions.discover()]
            described = {b.binding.description for b in app.screen.active_bindings.values() if b.binding.description}
            assert all(any(str(text).startswith(d) for text in listed) for d in described)
            app.set_focus(None)
            await pilot.press("question_mark")
            await sees(app, pilot, "keys, what they do")
            await pilot.press("escape")
        of_records = {name for name in bindings() if not name.startswith(("prompt.", "choose.", "help.", "record."))}
        assert of_records <= seen

    run(url, body)


def test_keys_can_be_changed_and_an_unknown_one_names_the_nearest(url: str) -> None:
    assert keymap(["live.follow=F"]) == {"live.follow": "F"}
    with pytest.raises(ConfigError, match=r"did you mean 'live\.follow'"):
        keymap(["live.folow=F"])
    with pytest.raises(ConfigError, match="NAME=KEY"):
        keymap(["live.follow"])
    with pytest.raises(ConfigError, match="textual-light"):
        HeadwaterApp(cast(Verbs, None), theme="nonsense")

    async def main() -> None:
        async with Client(url) as verbs:
            app = HeadwaterApp(verbs, keys=["live.follow=F"])
            async with app.run_test() as pilot:
                await shown(lambda: app.seen, pilot)
                app.open_live(["logs"])
                await sees(app, pilot, "following")
                await pilot.press("F")
                await shown(lambda: "following" not in text_of(app), pilot)

    asyncio.run(main())


def test_links_and_images_of_an_answer_are_text() -> None:
    assert inert("see [here](http://evil.example/x) ![p](http://evil.example/p.png) <b>") == (
        "see here (http://evil.example/x) p (http://evil.example/p.png) \\<b>"
    )


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_in_a_real_terminal_it_draws_takes_keys_and_leaves_the_terminal_as_it_was(url: str, tmp_path: Path) -> None:
    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", name, *arguments], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    name = f"headwater-{os.getpid()}"
    command = f"env HOME={tmp_path} TERM=screen-256color {sys.executable} -m headwater_tui --url {url}; echo ended; sleep 60"
    try:
        tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", command)
        eventually(lambda: "1.2k" in tmux("capture-pane", "-p"), timeout_s=30)
        tmux("send-keys", "j", "Enter")
        eventually(lambda: "1,201 of 1,201" in tmux("capture-pane", "-p"), timeout_s=20)
        tmux("send-keys", "C-q")
        eventually(lambda: "ended" in tmux("capture-pane", "-p"), timeout_s=20)
        assert "Topics" not in tmux("capture-pane", "-p")
    finally:
        tmux("kill-server")
