"""The terminal UI: how soon it shows something, and how long a key takes while records stream in.

A daemon in a process of its own is fed at a steady rate; the app runs without a terminal, driven by keys. The floor is
the same app over the same daemon with nothing coming in. Memory is the app's process while it follows.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
import time
from typing import Any

from textual.pilot import Pilot

from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.client import Client
from headwater.config import load
from headwater_tui.app import HeadwaterApp
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


async def measure(runtime: launch.Runtime, rate: int, presses: int, seconds: float) -> dict[str, Any]:
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
    with tempfile.TemporaryDirectory() as directory:
        settings = load(None, {"data_dir": directory, "server.port": 0, "embedding.model": "hash"}).settings
        os.environ["HEADWATER_EMBEDDING_MODEL"] = "hash"
        runtime = launch.find_or_start(settings)
        say(f"a daemon at {runtime.url}; {presses} keys, {rate} records/s")
        try:
            metrics = asyncio.run(measure(runtime, rate, presses, seconds))
        finally:
            os.kill(runtime.pid, signal.SIGTERM)
    report(args, before, metrics)


if __name__ == "__main__":
    main()
