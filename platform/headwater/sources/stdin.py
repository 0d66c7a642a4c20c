"""Lines, events, JSON lines or rows from a pipe. What a pipe has delivered cannot be asked for again: there is no resume."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

from headwater.records import Draft
from headwater.sources import Batch, Condition, Fault, State
from headwater.sources.lines import LineCutter, codec
from headwater.sources.shapes import Form, Shape, shape_of

BLOCK_BYTES = 256 << 10


class Stdin:
    """Source of what comes through a file descriptor, until its end. Nothing is read ahead of the batch handed out,
    so a slow store stops the writer. After a crash the lines in the pipe and in the batch not yet stored are gone;
    `session` (the start in nanoseconds) keeps the positions of two runs apart."""

    kind = "stdin"

    def __init__(
        self,
        topic: str,
        *,
        descriptor: int = 0,
        form: Form = "log",
        batch_records: int = 2000,
        quiet_s: float = 1.0,
        session: Callable[[], int] = time.time_ns,
    ) -> None:
        self.topic = topic
        self._descriptor, self._form = descriptor, form
        self._batch_records, self._quiet_s, self._session = batch_records, quiet_s, session
        self._condition = Condition()

    @property
    def name(self) -> str:
        return f"stdin:{self.topic}"

    @property
    def condition(self) -> Condition:
        return self._condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Ends with the input. `state` is not used and the batches' states are empty."""
        stream = f"{self.name}#{self._session()}"
        cutter: LineCutter | None = None
        shape: Shape | None = None
        self._condition = Condition("following")
        first, open_ = b"", True
        while open_:
            data = await self._read(self._quiet_s if shape is not None and shape.holding else None)
            open_ = data != b""
            if shape is None or cutter is None:
                first += data or b""
                known = codec(first) or (None if open_ else ("utf-8", 0))
                if known is None:
                    continue
                cutter = LineCutter(known[1], known[0])
                shape = shape_of(self._form, known[1], known[0])
                data, first = first[known[1] :], b""
            lines = cutter.feed(data) if data else []
            found = [item for line in lines + ([] if open_ else cutter.flush()) for item, _ in shape.add(line)]
            if data is None or not open_:
                found += [item for item, _ in shape.flush()]
            for start in range(0, len(found), self._batch_records):
                part = found[start : start + self._batch_records]
                drafts = [item for item in part if isinstance(item, Draft)]
                yield Batch(drafts, {}, stream, faults=[item for item in part if isinstance(item, Fault)])
        self._condition = Condition("ended")

    async def _read(self, timeout_s: float | None) -> bytes | None:
        """What is there, once something is; b"" at the end, None after `timeout_s` of nothing."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:  # a regular file is always ready
            await asyncio.sleep(0)
            return os.read(self._descriptor, BLOCK_BYTES)
        try:
            await asyncio.wait_for(ready.wait(), timeout_s)
        except TimeoutError:
            return None
        finally:
            loop.remove_reader(self._descriptor)
        return os.read(self._descriptor, BLOCK_BYTES)
