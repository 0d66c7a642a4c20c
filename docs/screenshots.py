"""Pictures of the terminal UI's views over the demo's incident: `python docs/screenshots.py` writes docs/images/tui-*.svg.

The app runs without a terminal, driven by keys, over an engine of its own on a temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

import headwater
from headwater.demo import incident
from headwater.records import Record as Stored
from headwater.verbs import Verbs
from headwater_tui.app import HeadwaterApp
from headwater_tui.rows import Row, address_of
from headwater_tui.screens.ask import Ask
from headwater_tui.widgets.record_list import RecordList
from headwater_tui.widgets.table import Table

SIZE = (120, 34)  # columns and lines
_WAIT_S, _JUDGED_S = 60.0, 20.0
_IMAGES = Path(__file__).parent / "images"
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # they would be fetched from another site
_FAMILY = re.compile(r"font-family: [^;}]+;")
# Textual names ids after a number of its own; theirs make two pictures of one screen differ in every line.
_FOLDER = re.compile(r"/[^<\s]*headwater-screens-\w+")
_NUMBERED = re.compile(r"terminal-\d+")
Until = Callable[..., Awaitable[None]]


async def fill(verbs: Verbs, lines: int) -> datetime:
    """The incident, detectors, a watch and a pipeline over it; when it began."""
    start = incident.start_before(datetime.now(UTC))
    await verbs.create_topic("logs")
    await verbs.set_detecting("logs", budget="3/day")
    await verbs.add_watch('"pool exhausted"', name="pool", topics=["logs"])
    pipeline = {"topics": ["tickets"], "output": "tickets-clean", "steps": [{"name": "hide-personal-data", "redact": {}}]}
    await verbs.create_pipeline("clean", pipeline)
    for batch in incident.stream(start, lines=lines, batch_s=600.0):
        for topic in incident.TOPICS:
            drafts = [draft for name, draft in batch.entries if name == topic]
            if drafts:
                await verbs.append(topic, drafts)
    await verbs.append("chat", ["All clear: payments are healthy again, thank you."], wait="searchable", timeout_s=_WAIT_S)
    return start


async def take(app: HeadwaterApp, pilot: Pilot[None], until: Until, began: datetime) -> dict[str, str]:
    """Each view as it stands when it has something to show: SVG by the view's name."""
    pictures: dict[str, str] = {}

    async def picture(name: str) -> None:
        app.clear_notifications()
        await pilot.pause(0.3)
        pictures[name] = plain(app.export_screenshot(title=f"Headwater: {name}"))

    deployed = f"since:{incident.deploy_at(began):%Y-%m-%dT%H:%M:%SZ}"
    await until(lambda: rows(app))
    await picture("topics")
    app.open_live(["logs"])
    await until(lambda: isinstance(row(app), Stored))
    await pilot.press("k", "k", "E")
    await picture("live")
    app.open_search(f"payments time out {deployed}")
    await until(lambda: row(app))
    found = row(app)
    await picture("search")
    app.open_patterns("logs")
    await until(lambda: rows(app))
    await picture("patterns")
    app.open_record(address_of(found) or "" if found is not None else "")
    await until(lambda: row(app))
    await picture("record")
    app.pop_screen()
    await app.action_view(Ask.NAME)
    ask = app.screen
    assert isinstance(ask, Ask)
    ask.ask(incident.QUESTIONS[0].text)
    await until(lambda: ask.answer)
    await picture("ask")
    await app.action_view("Anomalies")
    await pilot.press("i")
    with contextlib.suppress(TimeoutError):  # a small incident has none
        await until(lambda: rows(app) and row(app), _JUDGED_S)
    await picture("anomalies")
    for name in ("Watches", "Pipelines", "Status"):
        await app.action_view(name)
        await pilot.pause(1.2)  # until the view has asked the daemon for the rest
        await picture(name.lower())
    return pictures


def row(app: HeadwaterApp) -> Row | None:
    """What is under the cursor of the first list of records in sight."""
    lists = list(app.screen.query(RecordList))
    return lists[0].row if lists else None


def rows(app: HeadwaterApp) -> int:
    """How many rows the first table in sight has."""
    tables = list(app.screen.query(Table))
    return tables[0].row_count if tables else 0


def plain(svg: str) -> str:
    """A picture that asks no other site for anything, with the same ids every time and no path of this machine."""
    svg = _FOLDER.sub(lambda found: "~/.local/share/headwater".ljust(len(found[0]), "\u00a0"), svg)
    svg = _FAMILY.sub('font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;', _FONTS.sub("", svg))
    return _NUMBERED.sub("t", svg)


async def pictures(lines: int, **settings: Any) -> dict[str, str]:
    """Every view over an incident of so many log lines."""
    with tempfile.TemporaryDirectory(prefix="headwater-screens-") as directory:
        async with headwater.aopen(directory, **settings) as verbs:
            began = await fill(verbs, lines)
            app = HeadwaterApp(verbs)
            async with app.run_test(size=SIZE) as pilot:

                async def until(condition: Callable[[], object], timeout_s: float = _WAIT_S) -> None:
                    end = asyncio.get_running_loop().time() + timeout_s
                    while not condition():
                        if asyncio.get_running_loop().time() > end:
                            raise TimeoutError(f"{app.screen} did not show what the picture is of")
                        await pilot.pause(0.05)

                return await take(app, pilot, until, began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=_IMAGES, help="folder to write to")
    parser.add_argument("--small", action="store_true", help="fewer records and no model: to see that this runs")
    options = parser.parse_args()
    made = pictures(1200, **{"embedding.model": "hash"}) if options.small else pictures(6000)
    options.to.mkdir(parents=True, exist_ok=True)
    for name, svg in asyncio.run(made).items():
        path = options.to / f"tui-{name}.svg"
        path.write_text(svg, encoding="utf-8")
        print(f"{path} {len(svg) / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
