"""The terminal UI driven by keys as a person drives it, without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from headwater.client import Client
from headwater_tui.app import VIEWS, HeadwaterApp
from headwater_tui.kept import Kept
from headwater_tui.screens.asking_for import Prompt
from headwater_tui.screens.view import View

Body = Callable[[HeadwaterApp, "Pilot[None]"], Awaitable[None]]


async def shown(condition: Callable[[], Any], pilot: Pilot[None], timeout_s: float = 240.0) -> None:
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


async def fill(url: str) -> None:
    async with Client(url) as hw:
        lines = [
            f"2026-11-21T10:00:{n % 60:02d}Z {'ERROR' if n % 50 == 0 else 'INFO'} request {n} took {n} ms" for n in range(1200)
        ]
        await hw.create_topic("logs", passages="template")
        await hw.append("logs", lines)
        await hw.append("chat", ["payments are slow", "[bold]not markup[/bold] \x1b[31mred"], wait="searchable", timeout_s=240)
        await hw.append("logs", ["2026-11-21T10:30:00Z INFO request 1200 took 1 ms"], wait="searchable", timeout_s=240)


def written(path: Path) -> bool:
    """Whether a file has been written: what is as short as here is put into it at once."""
    return path.exists() and path.stat().st_size > 0


def text_of(app: HeadwaterApp) -> str:
    """What stands on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def sees(app: HeadwaterApp, pilot: Pilot[None], *wanted: str, timeout_s: float = 240.0) -> None:
    """Wait until all of this stands on the screen."""
    try:
        await shown(lambda: all(w in text_of(app) for w in wanted), pilot, timeout_s)
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
