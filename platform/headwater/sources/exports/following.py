"""An export as a source that a daemon follows: read once, and again whenever it is exchanged for a later one."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from headwater.errors import HeadwaterError
from headwater.sources import Batch, Condition, State
from headwater.sources.exports.reading import Export, ExportReading, export_of

# Those that are written once and as a whole. A repository named to `up` is a folder of documents, and a journal goes on.
FOLLOWED: Sequence[Export] = ("slack", "mbox", "github", "sqlite", "jira", "zendesk", "discord", "parquet")
_POLL_S = 5.0


def followed_as(path: Path) -> Export | None:
    """The export that a path which is to be followed is; None for anything else. Raises what `export_of` raises."""
    if not path.exists() or (path.is_dir() and not any(path.glob("users.json")) and not any(path.glob("*/users.json"))):
        return None
    kind = export_of(path)
    return kind if kind in FOLLOWED else None


class ExportFollow:
    """Source of the records of an export, known by where it came from, as `ingest` knows them: what is stored already is not
    stored again. Looked at every `poll_s` seconds; one that cannot be read waits, with its error, for the next."""

    kind = "export"

    def __init__(self, path: Path, export: Export, topic: str, *, from_start: bool = True, poll_s: float = _POLL_S) -> None:
        self.path, self.topic = path, topic
        self._export, self._from_start, self._poll_s = export, from_start, poll_s
        self._condition = Condition()

    @property
    def name(self) -> str:
        return f"export:{self.topic}:{self.path}"

    @property
    def condition(self) -> Condition:
        return self._condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless. The state is what the export looked like when it had been read to its end."""
        seen = str((state or {}).get("stamp", ""))
        if state is None and not self._from_start:
            seen = await asyncio.to_thread(stamp, self.path)
        while True:
            now = await asyncio.to_thread(stamp, self.path)
            if now and now != seen:
                self._condition = Condition("reading")
                try:
                    async for batch in self._read(seen):
                        yield batch
                except HeadwaterError as error:
                    self._condition = Condition("waiting for another", str(error))
                else:
                    yield Batch([], {"stamp": now}, self.name)
                    self._condition = Condition("following")
                seen = now
            elif not now:
                self._condition = Condition("waiting", f"there is no {self.path}")
            elif self._condition.state != "waiting for another":
                self._condition = Condition("following")
            await asyncio.sleep(self._poll_s)

    async def _read(self, seen: str) -> AsyncIterator[Batch]:
        reading = await asyncio.to_thread(ExportReading, self.path, self._export)
        try:
            while (batch := await asyncio.to_thread(_next, reading)) is not None:
                yield Batch(batch.drafts, {**batch.state, "stamp": seen}, batch.stream, batch.lag_bytes, batch.faults)
        finally:
            await asyncio.to_thread(reading.close)


def stamp(path: Path) -> str:
    """What a file, or the files below a folder, look like from outside: it changes when they do. Empty where there is none."""
    digest = hashlib.blake2b(digest_size=12)
    count = 0
    for file in sorted(_files(path)):
        try:
            status = os.stat(file)
        except OSError:
            continue
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        count += 1
    return digest.hexdigest() if count else ""


def _files(path: Path) -> Iterator[str]:
    if not path.is_dir():
        yield str(path)
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)


def _next(reading: ExportReading) -> Batch | None:
    return next(reading, None)
