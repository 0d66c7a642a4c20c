"""Keys of the terminal UI: each does something, is in the help, the palette and the documentation, and can be changed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from headwater.client import Client
from headwater.errors import ConfigError
from headwater.verbs import Verbs
from headwater_tui.app import VIEWS, Actions, HeadwaterApp, bindings, keymap, own_bindings
from headwater_tui.screens.record import Record
from headwater_tui.screens.view import RecordsView
from headwater_tui.widgets.histogram import Histogram
from headwater_tui.widgets.query_bar import QueryBar
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table
from serving import serving, settings_in
from tui_driving import fill, run, sees, shown, text_of, view


@pytest.fixture
def url(tmp_path: Path) -> Any:
    with serving(settings_in(tmp_path)) as at:
        asyncio.run(fill(at))
        yield at


def test_it_fits_80_by_24_and_every_view_draws(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        for kind in VIEWS:
            await view(app, pilot, kind)
            await sees(app, pilot, kind.NAME)
            assert all(len(line) <= 80 for line in text_of(app).splitlines())
            assert text_of(app).startswith(" ? 1")
            own = [b.description for b in own_bindings(kind) if b.show] or ["Quit"]
            await shown(lambda own=own: any(does in text_of(app).splitlines()[-1] for does in own), pilot)  # type: ignore[misc]

    run(url, body, size=(80, 24))


def test_every_key_does_something_is_in_the_help_and_the_palette_and_is_documented(url: str) -> None:
    page = (Path(__file__).parents[1] / "docs/reference/tui.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| `([^`]+)` \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted((b.key, b.description, name) for name, b in bindings().items())

    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        held, offered, told = set(), set(), set()
        for kind in (*VIEWS, Record):
            if kind is Record:
                app.open_record("logs/0/5")
                await shown(lambda: isinstance(app.screen, Record) and app.screen.view, pilot)
            else:
                await view(app, pilot, kind)
            for widget in (None, *app.screen.query("RecordList, Table, Histogram, QueryBar")):
                app.screen.set_focus(widget)
                for active in app.screen.active_bindings.values():
                    name = re.match(r"(?:app\.|screen\.)?(\w+)", active.binding.action)
                    assert name is not None
                    assert any(hasattr(node, f"action_{name[1]}") for node in (active.node, app.screen, app)), active.binding
                    held.add(active.binding.id)
            offered |= {str(hit.text) async for hit in Actions(app.screen).discover()}
            app.set_focus(None)
            await pilot.press("f1")
            await sees(app, pilot, "keys, what they do")
            told |= set(re.findall(r"[a-z]+\.[a-z0-9-]+", app.screen.query_one("#keys", Static).content.plain))
            await pilot.press("escape")
            await shown(lambda kind=kind: isinstance(app.screen, kind), pilot)  # type: ignore[misc]
        of_views = {name: b for name, b in bindings().items() if not name.startswith(("prompt.", "choose.", "help."))}
        assert of_views.keys() <= held
        assert of_views.keys() <= told
        assert {b.description for b in of_views.values()} <= {text.partition(" (")[0] for text in offered}

    run(url, body)


def test_every_action_that_there_is_has_a_key() -> None:
    for kind in (HeadwaterApp, *VIEWS, RecordsView, Record, RecordList, Table, Histogram, QueryBar):
        bound = {match[1] for b in bindings().values() if (match := re.match(r"(\w+)", b.action))}
        made = {name.removeprefix("action_") for name in vars(kind) if name.startswith("action_")}
        assert made <= bound, kind


def test_the_palette_runs_what_a_widget_out_of_focus_can_do(url: str) -> None:
    async def body(app: HeadwaterApp, pilot: Pilot[None]) -> None:
        app.open_live(["logs"])
        await sees(app, pilot, "1,201 of 1,201")
        app.screen.set_focus(None)
        await pilot.press("colon")
        await shown(lambda: isinstance(app.focused, Input), pilot)
        await pilot.press(*"Previous error")
        await sees(app, pilot, "Previous error (E)")
        await pilot.press("enter")
        if isinstance(app.focused, Input):  # the first Enter chose, the second takes
            await pilot.press("enter")
        await sees(app, pilot, "1,151 of 1,201")

    run(url, body)


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "ansi-light"])
def test_themes_draw_and_the_cursor_is_told_from_other_rows(url: str, theme: str) -> None:
    async def main() -> None:
        async with Client(url) as verbs:
            app = HeadwaterApp(verbs, theme=theme)
            async with app.run_test(size=(80, 24)) as pilot:
                await shown(lambda: app.seen, pilot)
                app.open_live(["chat"])
                await sees(app, pilot, "payments are slow", "2 of 2")
                rows = app.screen.query_one(RecordList)
                assert [s.style for s in rows.render_line(0)] != [s.style for s in rows.render_line(1)]

    asyncio.run(main())


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


@pytest.mark.slow
def test_pictures_of_every_view_are_made_and_ask_no_other_site_for_anything(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    command = [sys.executable, str(root / "docs/screenshots.py"), "--small", "--to", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=800)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {f"tui-{kind.NAME.lower()}.svg" for kind in (*VIEWS, Record)}
    for path in tmp_path.iterdir():
        svg = ElementTree.parse(path).getroot()
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert "url(http" not in path.read_text()
    page = (root / "docs/reference/tui.md").read_text()
    assert all(f"../images/{name}" in page and (root / "docs/images" / name).exists() for name in made)
