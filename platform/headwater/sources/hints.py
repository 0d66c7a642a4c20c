"""Hints from the operating system that something in a folder changed. Following is correct without them, only slower:
where they cannot be had (too many watches, a network file system) waiting takes its full time."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import TracebackType

from headwater.sources.tail import Wake


class Hints:
    """One thread that watches the folders of all sources, as an async context; it has ended when the context has.

    `wake(path)` is the `wake` of the source that follows `path`: it returns at a change beside it, or after the time.
    """

    def __init__(self) -> None:
        self._events: dict[Path, list[asyncio.Event]] = {}
        self._again = threading.Event()  # ends the present watch, to begin another
        self._closed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Hints:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, name="headwater-hints", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed = True
        self._again.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def wake(self, path: Path) -> Wake:
        event = asyncio.Event()
        folder = path if path.is_dir() else path.parent
        self._events.setdefault(folder.resolve(), []).append(event)
        self._again.set()

        async def wait(timeout_s: float) -> None:
            try:
                await asyncio.wait_for(event.wait(), timeout_s)
            except TimeoutError:
                return
            event.clear()

        return wait

    def _watch(self) -> None:
        from watchfiles import watch

        while True:
            self._again.clear()
            if self._closed:  # asked after the clear, so that a close is never missed
                return
            folders = [folder for folder in list(self._events) if folder.is_dir()]
            if folders:
                try:
                    for changes in watch(
                        *folders, watch_filter=None, debounce=100, step=10, stop_event=self._again,
                        recursive=False, ignore_permission_denied=True, raise_interrupt=False,
                    ):  # fmt: skip
                        self._tell({Path(name).parent for _, name in changes} | {Path(name) for _, name in changes})
                except OSError:
                    pass  # a folder went meanwhile, or the system has no more watches: try again below
            self._again.wait(5.0)

    def _tell(self, folders: set[Path]) -> None:
        for folder in folders:
            for event in self._events.get(folder, []):
                if self._loop is not None and not self._closed:
                    self._loop.call_soon_threadsafe(event.set)
