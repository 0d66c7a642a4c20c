"""Hints from the operating system that something in a folder changed. Following is correct without them, only slower:
where they cannot be had (too many watches, a network file system) waiting takes its full time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_LEAST_S = 0.2  # between two wakes
_LOAD = 9  # so many times as long as it worked whoever waits is left alone: a folder that never rests costs a tenth of a core
_AGAIN_S = 5.0


class Hints:
    """A thread that watches a folder, if `deep` with all below it, as an async context; it has ended when the context has.

    `matters(path)` says of a file whether its changes are told."""

    def __init__(self, folder: Path, matters: Callable[[Path], bool] = lambda path: True, *, deep: bool = True) -> None:
        self._folder, self._matters, self._deep = folder, matters, deep
        self._event = asyncio.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="headwater-hints", daemon=True)

    async def __aenter__(self) -> Hints:
        self._loop, self._woken = asyncio.get_running_loop(), time.monotonic()
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    async def wake(self, timeout_s: float) -> None:
        """Return at a change since the last call, or after the time."""
        worked_s = time.monotonic() - self._woken
        pause_s = min(max(_LEAST_S, worked_s * _LOAD), timeout_s)
        await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(timeout_s - pause_s):  # wait_for would lose a cancellation that comes with the event
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()
        self._woken = time.monotonic()

    def _watch(self) -> None:
        from watchfiles import watch

        while not self._over.is_set():
            if self._folder.is_dir():
                try:
                    for changes in watch(
                        self._folder, watch_filter=None, debounce=100, step=10, stop_event=self._over, rust_timeout=500,
                        recursive=self._deep, ignore_permission_denied=True, raise_interrupt=False,
                    ):  # fmt: skip
                        if any(self._matters(Path(name)) for _, name in changes):
                            self._loop.call_soon_threadsafe(self._event.set)
                except OSError:
                    pass  # the folder went meanwhile, or the system has no more watches
            self._over.wait(_AGAIN_S)
