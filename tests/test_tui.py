"""The terminal UI against a real daemon, driven by keys as a person drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable

from headwater.client import Client
from headwater_tui.app import HeadwaterApp
from headwater_tui.kept import Kept
from serving import serving, settings_in

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
            async with app.run_test(size=size) as pilot:
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


def test_topics_are_listed_and_enter_shows_their_records(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        await shown(lambda: app.screen.query_one(DataTable).row_count == 2, pilot)
        await pilot.press("j", "enter")
        listed = app.screen.query_one("#records")
        await shown(lambda: listed.rows.count == 1201 and listed.cursor == 1200, pilot)
        await shown(lambda: "request 1200" in str(listed.render_line(listed.size.height - 1).text), pilot)
        await pilot.press("g")
        await shown(lambda: "request 0 " in listed.render_line(0).text, pilot)
        assert not listed.following

    run(url, body)
