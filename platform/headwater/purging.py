"""Purging a topic: what deleted records left behind goes from the disk, and a look into the files proves it.

A deleted record is gone for every reader at once, but its bytes may stand on in freed pages of the database, in files of the
keyword index and of vector segments, and its words in templates that it alone fed. A purge forgets those templates, takes
the vectors of dead passages out of segments and caches, feeds the keyword index anew what shares a file with deleted
documents, writes the log's file anew and empties its write-ahead log. All but the last goes in steps, so that indexing goes on
in between. Backups, and copies that others made, are out of its reach.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from headwater.deletion import hide
from headwater.embed.cache import VectorCache
from headwater.errors import StorageError, UsageError
from headwater.index.indexer import Indexer
from headwater.keyword.index import KeywordIndex
from headwater.log import remains
from headwater.log.schema import SEQ_BITS
from headwater.log.shadows import Asked
from headwater.log.store import Log
from headwater.passages import embedding_text
from headwater.records.removals import Purged
from headwater.stock import Stock

logger = logging.getLogger(__name__)
MOST_MARKERS = 100
_LEAST_MARKER = 4  # characters; fewer are found everywhere by chance
_FED = 4000  # records handed to the keyword index at once
_LOOKED = 10_000  # passages looked at in one step
_PAUSE_S = 0.05  # at most, between two steps
_READ = 1 << 20
_NOTES = (
    "backups, and copies made elsewhere, are not reached; purge them where they are",
    "what people asked is kept, without the answers made of deleted records; `headwater conversations rm` removes it",
    "the words that watches look for are kept; `headwater watch rm` removes a watch",
)


class Purge:
    """Plain synchronous code."""

    def __init__(
        self, log: Log, keyword: KeywordIndex, indexer: Indexer, stock: Stock, cache: VectorCache | None, asked: Asked,
        directory: Path,
    ) -> None:  # fmt: skip
        self._log, self._keyword, self._indexer, self._stock = log, keyword, indexer, stock
        self._cache, self._asked, self._directory = cache, asked, directory

    def topic(self, name: str, markers: Sequence[str] = ()) -> Purged:
        """Purge the topic of that name; then look for the `markers`, texts that should be gone, in every file. Appends wait
        while the log's file is written anew. Raises UsageError, StorageError; cut short, it is finished by asking again."""
        began = time.monotonic()
        check_markers(markers)
        self._stock.find(name)
        self._stock.deletion.settle()
        self._asked.flush()
        counts = {"passages": self._forget_passages(name), "orphaned vectors": self._forget_strays(name)}
        with self._indexer.busy:
            topic = self._stock.find(name)
            with self._indexer.embedding.storing:
                counts |= self._log.write(lambda db: remains.forget(db, topic.row.id))
            self._indexer.relearn(topic)
        counts["vectors in segments"] = sum(index.cleanse() for index in self._stock.find(name).indexes())
        if self._cache is not None:
            self._cache.forget(markers)
            self._cache.compact()
        counts["keyword documents"] = self._feed_anew()
        sizes = self._log.compact()
        files = sorted(self._files())
        found = {marker: tuple(self._name(f) for f in files if _holds(f, marker)) for marker in markers}
        seconds = round(time.monotonic() - began, 3)
        logger.info("purged %s in %.1f s", name, seconds)
        return Purged(name, counts, sizes, found, len(files), seconds, _NOTES)

    def _forget_passages(self, name: str) -> int:
        """Delete the passages that nothing refers to any more, with their vectors and aliases: how many there were."""
        at: int | None = 0
        number, id = 0, self._stock.find(name).row.id
        while at is not None:
            with self._log.reading() as db:
                dead, at = remains.dead_passages(db, id, at, _LOOKED)
            if not dead:
                continue
            with self._indexer.busy:
                topic = self._stock.find(name)
                with self._indexer.embedding.storing:
                    taken = self._log.write(partial(remains.take, ids=dead))
                    hide(topic, [passage for passage, _, _ in taken])
            if self._cache is not None:
                self._cache.forget([embedding_text(topic.kind, text, context) for _, text, context in taken])
            number += len(taken)
            time.sleep(_PAUSE_S)
        return number

    def _forget_strays(self, name: str) -> int:
        """Delete vectors that belong to no passage: how many there were."""
        at: int | None = 0
        number, id = 0, self._stock.find(name).row.id
        while at is not None:
            with self._log.reading() as db:
                strays, at = remains.stray_vectors(db, id, at, _LOOKED)
            if strays:
                self._log.write(partial(remains.forget_vectors, topic=id, vectors=strays))
                number += len(strays)
        return number

    def _feed_anew(self) -> int:
        """Feed the keyword index anew what shares a file with deleted documents, so that the file goes: how many deleted ones
        there were. A batch goes and comes back in one commit: searches miss nothing."""
        with self._indexer.busy:
            self._indexer.commit_keyword()
            self._keyword.settle()
            worn, parts = self._keyword.worn(), self._keyword.beside_deleted(_FED)
        for topic, seqs in parts if worn else ():
            began = time.monotonic()
            self._feed_batch(topic, seqs)
            time.sleep(min(time.monotonic() - began, _PAUSE_S))  # else nobody who waits for `busy` would get it
        if worn.keys() & self._keyword.worn().keys():
            raise StorageError("the keyword index still has files with documents that were deleted; ask for the purge again")
        return sum(worn.values())

    def _feed_batch(self, topic: int, seqs: Sequence[int]) -> None:
        with self._indexer.busy:
            rows = self._log.rows_of([topic << SEQ_BITS | seq for seq in seqs])
            self._keyword.delete_records(topic, seqs)
            if (index := self._indexer.topics.get(topic)) is not None:
                self._indexer.feed(index, [rows[id] for id in sorted(rows)])
            self._indexer.commit_keyword()

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._directory) if path.is_relative_to(self._directory) else path)

    def _files(self) -> Iterator[Path]:
        for folder, _, names in os.walk(self._directory):  # it passes over what goes meanwhile, such as a segment put away
            yield from (path for name in names if (path := Path(folder, name)).is_file() and not path.is_symlink())
        if self._cache is not None and not self._cache.path.is_relative_to(self._directory):
            yield self._cache.path


def check_markers(markers: Sequence[str]) -> None:
    """UsageError for what cannot be looked for."""
    if len(markers) > MOST_MARKERS:
        raise UsageError(f"at most {MOST_MARKERS} marker texts")
    for marker in markers:
        if not isinstance(marker, str) or len(marker) < _LEAST_MARKER:
            raise UsageError(f"a marker text needs at least {_LEAST_MARKER} characters; shorter ones are found by chance")


def _holds(path: Path, text: str) -> bool:
    """Whether a file's bytes have the text (as UTF-8) in them, as it is or in small letters."""
    wanted = {form.encode("utf-8", "surrogatepass") for form in (text, text.lower())}
    overlap, rest = max(map(len, wanted)) - 1, b""
    try:
        with path.open("rb") as file:
            while block := file.read(_READ):
                rest += block
                if any(form in rest for form in wanted):
                    return True
                rest = rest[-overlap:]
    except FileNotFoundError:
        return False
    return False
