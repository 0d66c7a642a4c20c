"""Follow one file: every line once, over rotation, truncation, restarts and absence.

Rotation by rename: the old file is read to its end before the next one is begun, over as many rotations as there were
since the last look, as far as the rotated files still lie beside it (`app.log.1`, `app.log.2.gz`,
`app-2026-01-31.log`). An old file is left once a newer one holds something and the old one has been quiet for
`drain_s`; a writer that comes back to it later than that is not heard.

Truncation in place (copytruncate) is best effort: what was not yet read is looked for in the copy beside the file;
`condition.counts["truncations"]` counts those after which no copy was found, where lines may be missing.
`counts["gaps"]` counts restarts that no longer found the file they had read up to.

A last line without its newline is held until the newline comes, or until its file has been left. An event of several
lines (see `lines`) is held until the next event begins, or nothing came for `quiet_s`; a line that would have gone on
with an event handed out by then is a record of its own. A restart resumes behind the last event handed out.
Memory: one block, one line (up to 16 MiB) and one event or row. JSON lines and tables are read as `ingest` reads them (see
`shapes`), by the file's name.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from headwater.records import Draft
from headwater.sources import Batch, Condition, Fault, State
from headwater.sources.lines import Line, LineCutter, codec
from headwater.sources.rotation import BACK_BYTES, HEAD_BYTES, Opened, Place, Sibling, digest, last_line_start, locate, newer
from headwater.sources.shapes import Form, Shape, form_of, shape_of

BLOCK_BYTES = 256 << 10
HEADER_BYTES = 64 << 10  # of a table, in which its header is found again
PATIENCE_S = 60.0  # an old file that never falls quiet is left after this, so that the new one is not starved

Wake = Callable[[float], Awaitable[None]]


class FileTail:
    """Source of the lines (or events) of one file. `wake(timeout_s)` returns at a hint of change or after the timeout:
    hints only make it faster, polling alone is correct. `clock` is monotonic seconds."""

    kind = "file"

    def __init__(
        self,
        path: str | os.PathLike[str],
        topic: str,
        *,
        from_start: bool = True,
        poll_s: float = 0.2,
        batch_records: int = 2000,
        form: Form | None = None,
        quiet_s: float = 1.0,
        drain_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wake: Wake = asyncio.sleep,
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.topic = topic
        self.from_start, self.batch_records, self.form = from_start, batch_records, form or form_of(self.path)
        self.poll_s, self.quiet_s, self.drain_s = poll_s, quiet_s, drain_s
        self._clock, self._wake = clock, wake
        self._condition = Condition()
        self._counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return f"file:{self.topic}:{self.path}"

    @property
    def condition(self) -> Condition:
        return self._condition

    def note(self, state: str, error: str | None = None, count: str | None = None) -> None:
        """Say how it goes; `count` adds one to that count."""
        if count:
            self._counts[count] += 1
        self._condition = Condition(state, error, dict(self._counts))

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. The state is that of `rotation.Place`."""
        follower = _Follower(self, Place.from_state(state) if state else None)
        try:
            while True:
                try:
                    batch = follower.step(self._clock())
                except FileNotFoundError:
                    self.note("waiting for the file")
                    batch = None
                except OSError as error:
                    self.note("cannot read", str(error))
                    batch = None
                if batch is not None:
                    yield batch
                elif follower.busy:
                    await asyncio.sleep(0)
                else:
                    await self._wake(self.poll_s)
        finally:
            follower.close()


class _Follower:
    """The reading of one run: the file in hand and the place in it. Sync; a `step` does a bounded piece of work.

    `_place` is where the generation was begun; `_at` the next byte to read from the file; what is read and not yet
    handed out is in `_cutter` (a line), `_joiner` (an event) and `_ready`. `_first` and `_back` are the first 1,024
    bytes and the last 256 before `_at`, to know the file again by.
    """

    def __init__(self, tail: FileTail, place: Place | None) -> None:
        self._tail = tail
        self._sought = place  # to be found again
        self._place = Place()
        self._file: Opened | None = None
        self._ready: deque[Draft | Fault] = deque()
        self._skip_old = not tail.from_start
        self._over = False
        self.busy = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def step(self, now: float) -> Batch | None:
        """The next batch; None where there is none yet, with `busy` set where looking again at once may help."""
        self.busy = False
        if self._ready:
            return self._batch()
        if self._over:
            self.close()
            self._over = False
        if self._file is None:
            return self._find(now)
        data = self._file.read(self._at, BLOCK_BYTES)
        if not self._file.packed and not self._is_same():
            self._truncated(now)
        elif not (data and self._take(data, now)):
            self._at_end(now)
        if self._tail.condition.state != "following":
            self._tail.note("following")
        return self._batch() if self._ready else None

    # ------------------------------------------------------------------------------------------ which file to read
    def _find(self, now: float) -> Batch | None:
        """Open what was read before and, where that has gone, what came after it; or the followed file itself."""
        tail = self._tail
        if self._sought is not None:
            self._resume(self._sought, now)
            self._sought, self._skip_old = None, False
            return None
        try:
            found = Opened(tail.path)
        except FileNotFoundError:
            self._skip_old = False
            raise
        place = replace(self._place, stream="", offset=last_line_start(found) if self._skip_old else 0)
        self._begin(found, place, now)
        self._skip_old = False
        return self._batch()  # no drafts: so that a restart before the first record knows the file, too

    def _resume(self, place: Place, now: float) -> None:
        found = locate(self._tail.path, place) if place.head_bytes else None  # an inode alone may be used again
        if found is None:
            following = newer(self._tail.path, None, place)
            if not following:
                raise FileNotFoundError(self._tail.path)
            found = Opened(following[0].path, packed=following[0].packed)
            self._tail.note("following", count="gaps" if place.head_bytes else None)
            place = Place(generation=place.generation + 1)
        self._begin(found, place, now)

    def _begin(self, found: Opened, place: Place, now: float) -> None:
        """Go on with `found` from `place.offset`."""
        self.close()
        self._file = found
        self._place = replace(place, inode=found.identity[1])
        self._at = place.offset
        self._first = found.read(0, HEAD_BYTES)[: place.offset]
        back_bytes = 0 if found.packed else min(BACK_BYTES, place.offset)
        self._back = found.read(place.offset - back_bytes, back_bytes) if back_bytes else b""
        self._cutter: LineCutter | None = None
        self._shape: Shape | None = None
        self._mtime_ns = found.status.st_mtime_ns
        self._quiet_since = now
        self._rotated_since: float | None = None
        self.busy = True

    def _is_same(self) -> bool:
        """Whether the file still holds what was read from it."""
        assert self._file is not None
        status = self._file.status
        if status.st_size < self._at:
            return False
        head = self._file.read(0, len(self._first))
        if head != self._first or self._file.read(self._at - len(self._back), len(self._back)) != self._back:
            return False
        self._mtime_ns = status.st_mtime_ns
        return True

    def _truncated(self, now: float) -> None:
        """Go on in the copy of what was cut away; without one hand out what is held and begin anew."""
        assert self._file is not None
        copy = locate(self._tail.path, replace(self._here(self._at), inode=-1))
        self.busy = True
        if copy is not None:
            self.close()
            self._file = copy
            self._quiet_since = now
            return
        self._flush(partial=True)
        self._over = True
        if not self._ready:
            self._place = Place(generation=self._place.generation + 1)
        self._tail.note("following", count="truncations")

    # --------------------------------------------------------------------------------------------------- reading it
    def _take(self, data: bytes, now: float, *, last: bool = False) -> bool:
        """Take what was read; False where its encoding cannot be told yet."""
        if self._cutter is None or self._shape is None:
            known = codec(self._first + data) or (("utf-8", 0) if last else None)
            if known is None:
                return False
            encoding, mark_bytes = known
            start = max(self._at, mark_bytes)
            self._cutter = LineCutter(start, encoding)
            self._shape = self._begun(start, encoding, mark_bytes)
        if len(self._first) < HEAD_BYTES:
            self._first = (self._first + data)[:HEAD_BYTES] if self._at == len(self._first) else self._first
        self._back = (self._back + data)[-BACK_BYTES:]
        fresh = data[self._cutter.at - self._at :]
        self._at += len(data)
        self._quiet_since = now
        self._join(self._cutter.feed(fresh))
        self.busy = not self._ready
        return True

    def _begun(self, start: int, encoding: str, mark_bytes: int) -> Shape:
        """The shape that goes on at `start`; a table's header is read again."""
        assert self._file is not None
        form = self._tail.form
        header = self._file.read(0, HEADER_BYTES)[mark_bytes:start] if form == "table" and start > mark_bytes else b""
        delimiter = "\t" if ".tsv" in self._tail.path.suffixes else None
        return shape_of(form, start, encoding, header=header, delimiter=delimiter)

    def _join(self, lines: list[Line]) -> None:
        assert self._shape is not None
        for line in lines:
            self._ready.extend(item for item, _ in self._shape.add(line))

    def _flush(self, *, partial: bool) -> None:
        """Hand out the event held and, with `partial`, the incomplete last line."""
        if self._cutter is None or self._shape is None:
            return
        if partial:
            self._join(self._cutter.flush())
        self._ready.extend(item for item, _ in self._shape.flush())

    def _at_end(self, now: float) -> None:
        """Nothing more to read now: end what has been quiet, and see whether the file was rotated away."""
        assert self._file is not None
        if self._shape is not None and self._shape.holding and now - self._quiet_since >= self._tail.quiet_s:
            self._flush(partial=False)
            return
        try:
            status = os.stat(self._tail.path)
            if (status.st_dev, status.st_ino) == self._file.identity:
                self._rotated_since = None
                return
        except FileNotFoundError:
            pass
        following = newer(self._tail.path, self._file.identity, self._here(self._at))
        if following and self._may_leave(following, now):
            self._leave(following[0], now)

    def _may_leave(self, following: list[Sibling], now: float) -> bool:
        if self._rotated_since is None:
            self._rotated_since = now
        assert self._file is not None
        if self._file.packed or len(following) > 1:
            return True
        quiet = now - max(self._quiet_since, self._rotated_since) >= self._tail.drain_s
        return following[0].size > 0 and (quiet or now - self._rotated_since >= PATIENCE_S)

    def _leave(self, following: Sibling, now: float) -> None:
        """Hand out all that is held, then go on with the next file."""
        assert self._file is not None
        rest = self._file.read(self._at, BLOCK_BYTES)
        if rest:
            self._take(rest, now, last=True)
            return
        self._flush(partial=True)
        if self._ready:
            return
        found = Opened(following.path, packed=following.packed)
        if found.identity != following.identity:  # names moved meanwhile: look again
            found.close()
            return
        self._begin(found, Place(generation=self._place.generation + 1), now)

    # ------------------------------------------------------------------------------------------------- handing out
    def _batch(self) -> Batch:
        found = [self._ready.popleft() for _ in range(min(len(self._ready), self._tail.batch_records))]
        drafts = [item for item in found if isinstance(item, Draft)]
        faults = [item for item in found if isinstance(item, Fault)]
        resume = self._place.offset if self._shape is None else self._shape.resume
        if self._ready:
            assert self._ready[0].position is not None
            resume = self._ready[0].position
        place = self._here(resume)
        assert self._file is not None
        lag = None if self._file.packed else max(0, self._file.status.st_size - resume)
        if self._over and not self._ready:
            self._place = Place(generation=self._place.generation + 1)
        elif place.stream != self._place.stream:
            self._place = replace(self._place, stream=place.stream)
        return Batch(drafts, place.to_state(), place.stream or self._tail.name, lag, faults)

    def _here(self, offset: int) -> Place:
        """The place at `offset`, at or before `_at`, with the print to find it again by."""
        assert self._file is not None
        head = self._first
        if len(head) < HEAD_BYTES and not self._over:  # what is not yet taken tells the file apart just as well
            head = self._file.read(0, HEAD_BYTES)
        back = self._back
        if self._file.packed:
            back = b""
        elif offset != self._at:
            length = min(BACK_BYTES, offset)
            back = self._file.read(offset - length, length)
        stream = self._place.stream
        if not stream and offset:
            line = digest(self._first.split(b"\n", 1)[0])
            stream = f"{self._tail.name}#{self._place.generation}-{self._place.inode:x}-{line}"
        return Place(
            generation=self._place.generation,
            stream=stream,
            inode=self._file.identity[1],
            offset=offset,
            head=digest(head) if head else "",
            head_bytes=len(head),
            back=digest(back) if back else "",
            back_bytes=len(back),
            mtime_ns=self._mtime_ns,
        )
