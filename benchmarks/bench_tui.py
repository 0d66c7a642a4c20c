"""The terminal UI: how soon it shows something, and how long a key takes while records stream in.

A daemon in a process of its own is fed at a steady rate; the app runs without a terminal, driven by keys. The floor is
the same app over the same daemon with nothing coming in. Memory is the app's process while it follows;
a second measure shows it the records of half an hour as fast as it takes them. A long topic is jumped about in.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from textual.pilot import Pilot

from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.client import Client
from headwater.config import load
from headwater.records import Record, Status, Topic, Watermark
from headwater.verbs import Verbs
from headwater_tui.app import HeadwaterApp
from headwater_tui.rows import PAGE, PENDING
from headwater_tui.screens.live import Live
from headwater_tui.widgets.record_list import RecordList

RATE = 5000  # records a second
BATCH = 500


async def feed(url: str, token: str | None, rate: int, stop: asyncio.Event) -> int:
    """Append at a steady rate until told to stop; how many."""
    sent, began = 0, time.monotonic()
    async with Client(url, token) as hw:
        while not stop.is_set():
            await hw.append("logs", [f"INFO worker {n % 97} did {n} in {n % 1000} ms" for n in range(sent, sent + BATCH)])
            sent += BATCH
            await asyncio.sleep(max(began + sent / rate - time.monotonic(), 0))
    return sent


async def keys(pilot: Pilot[None], presses: int) -> list[float]:
    """Milliseconds from a key to its effect, moving up and following again in turn."""
    listed = pilot.app.screen.query_one(RecordList)
    took = []
    for n in range(presses):
        before = listed.cursor
        started = time.perf_counter()
        pilot.app.simulate_key("k")
        while listed.cursor == before:  # noqa: ASYNC110 - what is timed sets no event
            await asyncio.sleep(0.0005)
        took.append((time.perf_counter() - started) * 1000)
        if n % 10 == 9:
            await pilot.press("f")
        await asyncio.sleep(0.02)
    return took


async def read(listed: RecordList, deadline_s: float = 240.0) -> None:
    """Wait until every row in sight is a record."""
    end = time.monotonic() + deadline_s
    top = round(listed.scroll_offset.y)
    while any(listed.rows.row(n) is PENDING for n in range(top, min(top + listed.size.height, listed.rows.count))):
        if time.monotonic() > end:
            raise TimeoutError("the rows in sight were not read")
        await asyncio.sleep(0.0005)
        top = round(listed.scroll_offset.y)


async def travel(pilot: Pilot[None], rows: int, times: int) -> dict[str, list[float]]:
    """Milliseconds until a key or a time has brought other records into sight, in a long topic, from places not read yet."""
    live = pilot.app.screen
    listed = live.query_one(RecordList)
    took: dict[str, list[float]] = {"page_down": [], "end": [], "go_to_time": []}
    generator = random.Random(7)
    last = listed.rows.row(listed.rows.count - 1)
    listed.go(0)
    await read(listed)
    first = listed.rows.row(0)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    for _ in range(times):
        listed.go(generator.randrange(rows))
        await read(listed)
        for name, go in (("page_down", "pagedown"), ("end", "G")):
            before, started = listed.cursor, time.perf_counter()
            pilot.app.simulate_key(go)
            while listed.cursor == before and before < rows - 1:  # noqa: ASYNC110 - what is timed sets no event
                await asyncio.sleep(0.0005)
            await read(listed)
            took[name].append((time.perf_counter() - started) * 1000)
        moment = first.timestamp + (last.timestamp - first.timestamp) * generator.random()
        started = time.perf_counter()
        await live.go_to(moment)
        await read(listed)
        took["go_to_time"].append((time.perf_counter() - started) * 1000)
    return took


async def long_topic(verbs: Client, rows: int, times: int) -> dict[str, Any]:
    """How soon a topic of so many records shows another place of it."""
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for begin in range(0, rows, 1000):
        await verbs.append(
            "long",
            [
                {"value": f"INFO worker {n % 97} did {n} in {n % 1000} ms", "timestamp": start + timedelta(seconds=n)}
                for n in range(begin, min(begin + 1000, rows))
            ],
        )
    app = HeadwaterApp(verbs)
    async with app.run_test(size=(120, 40)) as pilot:
        while app.seen is None:
            await pilot.pause(0)
        app.open_live(["long"])
        while not app.screen.query(RecordList) or app.screen.query_one(RecordList).rows.count < rows:
            await pilot.pause(0.01)
        await read(app.screen.query_one(RecordList))
        took = await travel(pilot, rows, times)
    took["page_read"] = []
    for _ in range(times):  # the floor: a page asked for and nothing shown
        started = time.perf_counter()
        await verbs.records("long", partition=0, offset=random.randrange(rows), limit=PAGE)
        took["page_read"].append((time.perf_counter() - started) * 1000)
    return {f"tui_{name}_ms": percentiles(values) for name, values in took.items()}


class Endless:
    """A topic into which records come as fast as they are taken, without a daemon: what the app's own process keeps."""

    def __init__(self, most: int) -> None:
        self.most, self.sent = most, 0
        self._start = datetime(2026, 11, 1, tzinfo=UTC)

    def _topic(self) -> Topic:
        mark = Watermark(self.sent, self.sent, self.sent)
        start = self._start
        return Topic("logs", 1, {}, self.sent, 97, 1.0, self.sent * 80, 2000.0, start, start, mark, 0, (self.sent,))

    async def status(self) -> Status:
        return Status("0", True, "", None, 1, 1.0, None, (self._topic(),), (), ())

    async def topic(self, name: str) -> Topic:
        return self._topic()

    async def tail(self, topic: str, q: str = "", **_: object) -> AsyncIterator[Record]:
        while self.sent < self.most:
            n, self.sent = self.sent, self.sent + 1
            at = self._start + timedelta(milliseconds=n / 2)
            level = "error" if n % 97 == 0 else "info"
            yield Record(topic, 0, n, n, at, at, None, f"worker {n % 97} did {n} in {n % 1000} ms", {"level": level})
            if n % 200 == 0:
                await asyncio.sleep(0.002)
        await asyncio.Event().wait()


async def soak(most: int) -> list[float]:
    """Memory of the app's process in MiB while it shows so many records, one after the other: at ten points from the first
    tenth on (half an hour at 2,000 a second is 3.6 million)."""
    verbs = Endless(most)
    app = HeadwaterApp(cast(Verbs, verbs))
    held: list[float] = []
    async with app.run_test(size=(120, 40)) as pilot:
        app.open_live(["logs"])
        while not isinstance(app.screen, Live) or not app.screen.is_mounted:
            await pilot.pause(0.01)
        app.screen.open(["logs"], "did")
        for tenth in range(1, 11):
            while verbs.sent < most * tenth // 10:  # noqa: ASYNC110 - what is waited for sets no event
                await asyncio.sleep(0.01)
            held.append(round(_memory_mib(), 1))
    return held


async def measure(runtime: launch.Runtime, rate: int, presses: int, seconds: float, rows: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    async with Client(runtime.url, runtime.token) as verbs:
        await verbs.append("logs", [f"INFO worker {n} starts" for n in range(1000)], wait="searchable")
        started = time.perf_counter()
        app = HeadwaterApp(verbs)
        async with app.run_test(size=(120, 40)) as pilot:
            while app.seen is None:
                await pilot.pause(0)
            metrics["tui_first_paint_s"] = round(time.perf_counter() - started, 3)
            app.open_live(["logs"])
            await pilot.pause(0.5)
            metrics["tui_key_idle_ms"] = percentiles(await keys(pilot, presses))
            feeding = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--feed", runtime.url, runtime.token or "", str(rate)
            )
            await asyncio.sleep(1)
            await pilot.press("f")
            head = (await verbs.topic("logs")).heads[0]
            before, began = _memory_mib(), time.monotonic()
            metrics["tui_key_streaming_ms"] = percentiles(await keys(pilot, presses))
            await asyncio.sleep(max(seconds - (time.monotonic() - began), 0))
            fed = (await verbs.topic("logs")).heads[0] - head
            metrics["tui_streamed_per_s"] = round(fed / (time.monotonic() - began))
            metrics["tui_memory_growth_mib"] = round(_memory_mib() - before, 1)
            feeding.terminate()
            await feeding.wait()
        metrics |= await long_topic(verbs, rows, presses)
    return metrics


def _memory_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    if sys.argv[1:2] == ["--feed"]:
        url, token, rate = sys.argv[2:5]
        asyncio.run(feed(url, token or None, int(rate), asyncio.Event()))
        return
    args = options(__doc__).parse_args()
    before = machine()
    presses, seconds, rate = (20, 1.0, 500) if args.small else (300, 60.0, RATE)
    rows, soaked = (20_000, 20_000) if args.small else (1_000_000, 3_600_000)
    held = asyncio.run(soak(soaked))  # first, while this process is small
    with tempfile.TemporaryDirectory() as directory:
        settings = load(None, {"data_dir": directory, "server.port": 0, "embedding.model": "hash"}).settings
        os.environ["HEADWATER_EMBEDDING_MODEL"] = "hash"
        runtime = launch.find_or_start(settings)
        say(f"a daemon at {runtime.url}; {presses} keys, {rate} records/s")
        try:
            metrics = asyncio.run(measure(runtime, rate, presses, seconds, rows))
        finally:
            os.kill(runtime.pid, signal.SIGTERM)
    metrics |= {"tui_soak_records": soaked, "tui_soak_mib": held, "tui_soak_growth_mib": round(held[-1] - held[0], 1)}
    report(args, before, metrics)


if __name__ == "__main__":
    main()
