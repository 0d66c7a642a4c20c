"""Keys of the terminal UI: each does something, is in the help, the palette and the documentation, and can be changed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot

from headwater.client import Client
from headwater.errors import ConfigError
from headwater.verbs import Verbs
from headwater_tui.app import VIEWS, Actions, HeadwaterApp, bindings, keymap
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
