"""Lists of records in the terminal UI: followed, wrapped, filtered, written to files; a daemon that goes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from textual.pilot import Pilot

from brokers import free_port
from headwater.client import Client
from headwater_tui.app import HeadwaterApp
from headwater_tui.screens.status import StatusView
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList
from serving import eventually, serving, settings_in
from tui_driving import answers, fill, run, sees, shown, text_of, view, written


@pytest.fixture
def url(tmp_path: Path) -> Any:
    with serving(settings_in(tmp_path)) as at:
        asyncio.run(fill(at))
        yield at


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


def test_status_shows_the_daemon_and_a_daemon_that_goes_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        with serving(settings_in(tmp_path)) as at:
            async with Client(at) as verbs, Client("http://127.0.0.1:9") as gone:
                app = HeadwaterApp(verbs)
                async with app.run_test(notifications=True) as pilot:
                    await shown(lambda: app.seen, pilot)
                    await view(app, pilot, StatusView)
                    await sees(app, pilot, "no problems", str(tmp_path))
                    app.verbs = gone
                    await sees(app, pilot, "no Headwater")

    asyncio.run(main())


def test_rows_are_written_by_the_ending_of_the_name(url: str, tmp_path: Path) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["chat"])
        await sees(app, pilot, "2 of 2", "payments")
        for ending in ("jsonl", "csv", "md"):
            await answers(app, pilot, "x", str(tmp_path / f"out.{ending}"))
            await shown(lambda ending=ending: written(tmp_path / f"out.{ending}"), pilot)  # type: ignore[misc]
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["value"] == "payments are slow"

    run(url, body)


def test_a_wrapped_record_takes_the_lines_it_needs_and_says_what_is_left_out(url: str) -> None:
    trace = "ERROR it broke\n" + "\n".join(f"  at frame {n}" for n in range(60))

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await app.verbs.append("traces", ["short", "漢字 " * 60, trace, "the last"])
        app.open_live(["traces"])
        await sees(app, pilot, "4 of 4", "ERROR it broke⏎  at frame 0", "›")
        await pilot.press("w", "g")
        await sees(app, pilot, "ERROR it broke", "  at frame 5", "more lines (Enter shows all)")
        shown_lines = text_of(app).splitlines()
        assert sum("漢" in line for line in shown_lines) == 4
        assert not any("›" in line for line in shown_lines)
        left = next(int(found[1]) for line in shown_lines if (found := re.search(r"… (\d+) more lines", line)))
        assert sum("at frame" in line for line in shown_lines) == 60 - left
        await pilot.press("G")
        await sees(app, pilot, "the last")
        listed = app.screen.query_one(RecordList)
        await pilot.press("k")
        await shown(lambda: listed.cursor == 2, pilot)
        await pilot.press("enter")
        await sees(app, pilot, "at frame 8")

    run(url, body, size=(100, 24))


def test_a_click_is_on_the_row_it_hits_also_where_rows_are_wrapped(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await app.verbs.append("traces", ["a\nb\nc", "d\ne", "f"])
        app.open_live(["traces"])
        await sees(app, pilot, "3 of 3")
        await pilot.press("w")
        await pilot.click(RecordList, offset=(5, 4))
        await shown(lambda: app.screen.query_one(RecordList).cursor == 1, pilot)

    run(url, body)


def test_a_stream_goes_on_where_it_stopped_when_the_daemon_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        stop = contextlib.ExitStack()
        with stop:
            there = settings_in(tmp_path, port=free_port())
            at = stop.enter_context(serving(there))
            await fill(at)
            async with Client(at, pause=lambda _: asyncio.sleep(0.01)) as verbs:
                app = HeadwaterApp(verbs)
                async with app.run_test(notifications=True) as pilot:
                    await shown(lambda: app.seen, pilot)
                    app.open_live(["logs", "chat"])
                    await sees(app, pilot, "payments are slow")
                    await asyncio.to_thread(stop.close)
                    await sees(app, pilot, "no Headwater daemon answers")
                    with serving(there):
                        async with Client(at) as other:
                            await other.append("chat", ["it is back"])
                        await sees(app, pilot, "it is back", timeout_s=240)
                        await shown(lambda: not app.trouble, pilot)

    asyncio.run(main())


def test_a_daemon_that_wants_a_token_says_so_and_answers_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        with serving(settings_in(tmp_path, api_key=SecretStr("k" * 32))) as at:
            for token, wanted in (("wrong" * 8, "HEADWATER_SERVER_API_KEY"), ("k" * 32, "no topics yet")):
                async with Client(at, token) as verbs:
                    app = HeadwaterApp(verbs)
                    async with app.run_test(notifications=True) as pilot:
                        await sees(app, pilot, wanted)

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_in_a_real_terminal_it_draws_takes_keys_and_leaves_the_terminal_as_it_was(url: str, tmp_path: Path) -> None:
    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", name, *arguments], capture_output=True, text=True, timeout=240, check=False)
        return done.stdout

    name = f"headwater-{os.getpid()}"
    command = f"env HOME={tmp_path} TERM=screen-256color {sys.executable} -m headwater_tui --url {url}; echo ended; sleep 60"
    try:
        tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", command)
        eventually(lambda: "1.2k" in tmux("capture-pane", "-p"))
        tmux("send-keys", "j", "Enter")
        eventually(lambda: "1,201 of 1,201" in tmux("capture-pane", "-p"))
        tmux("send-keys", "C-q")
        eventually(lambda: "ended" in tmux("capture-pane", "-p"))
        assert "Topics" not in tmux("capture-pane", "-p")
    finally:
        tmux("kill-server")
