"""Purging a topic: what deleted records left behind goes from the disk, and a look into the files proves it.

A deleted record is gone for every reader at once, but its bytes may stand on in freed pages of the database, in files of the
keyword index and of vector segments, and its words in templates that it alone fed. A purge forgets those templates, takes
the vectors of dead passages out of segments and caches, writes the keyword index and the log's file anew and empties its
write-ahead log. Backups, and copies that others made, are out of its reach.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headwater import catalogue, watch_store
from headwater.deletion import hide
from headwater.embed.cache import VectorCache
from headwater.errors import UsageError
from headwater.indexer import Indexer
from headwater.keyword import KeywordIndex
from headwater.log import Log, in_list
from headwater.passages import embedding_text
from headwater.removals import Purged
from headwater.schema import SEQ_BITS
from headwater.shadows import Asked
from headwater.stock import Stock
from headwater.templates import pruned
from headwater.topicindex import TopicIndex

if TYPE_CHECKING:
    import apsw

logger = logging.getLogger(__name__)
MOST_MARKERS = 100
_LEAST_MARKER = 4  # characters; fewer are found everywhere by chance
_FED = 4000  # records handed to the keyword index at once
_READ = 1 << 20
_NOTES = (
    "backups, and copies made elsewhere, are not reached; purge them where they are",
    "no answers or conversations are kept by this version",
    "the words that watches look for are kept; `headwater watch rm` removes a watch",
)
_LIVE = "SELECT 1 FROM passage WHERE topic = ? AND digest = ?"


@dataclass(slots=True)
class Leftovers:
    """What a purge has taken: ids and texts to be embedded of dead passages, and counts for the report."""

    passages: list[int] = field(default_factory=list)
    texts: list[tuple[str, str | None]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


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
        while the log's file is written anew, indexing also while the keyword index is. Raises UsageError, StorageError;
        cut short, it is finished by asking again."""
        began = time.monotonic()
        check_markers(markers)
        self._stock.find(name)
        self._stock.deletion.settle()
        self._asked.flush()
        with self._indexer.busy:
            topic = self._stock.find(name)
            with self._indexer.embedding.storing:
                left = self._log.write(lambda db: _forget(db, topic))
                hide(topic, left.passages)
            self._indexer.relearn(topic)
        left.counts["vectors in segments"] = self._rewrite_segments(name)
        if self._cache is not None:
            kind = topic.kind
            self._cache.forget([*(embedding_text(kind, text, context) for text, context in left.texts), *markers])
            self._cache.compact()
        with self._indexer.busy:
            left.counts["keyword documents"] = self._rewrite_keyword()
        sizes = self._log.compact()
        files = list(self._files())
        found = {marker: tuple(self._name(f) for f in files if _holds(f, marker)) for marker in markers}
        seconds = round(time.monotonic() - began, 3)
        logger.info("purged %s in %.1f s", name, seconds)
        return Purged(name, left.counts, sizes, found, len(files), seconds, _NOTES)

    def _rewrite_segments(self, name: str) -> int:
        """Build segments with dead members anew from the log, which has forgotten them; how many members those were. Each
        answers until its successor does."""
        dead = 0
        for index in self._stock.find(name).indexes():
            if number := sum(segment.dead for segment in index.counts.segments):
                dead += number
                index.renew()
                while any(segment.due is not None for segment in index.counts.segments) and index.maintain():
                    continue
        return dead

    def _rewrite_keyword(self) -> int:
        """Write the keyword index anew from the log: how many documents its files still held of records that are gone.
        Searches see the old one until it is done. `busy` is held."""
        self._indexer.commit_keyword()
        deleted = self._deleted_documents()
        self._keyword.clear()
        for topic in self._indexer.topics.values():
            at = 0
            while rows := self._log.rows(topic.row.id, at, _FED, before=topic.mapped):
                self._indexer.feed(topic, rows)
                at = rows[-1].seq + 1
        self._indexer.commit_keyword()
        return deleted

    def _deleted_documents(self) -> int:
        """Documents that the files of the keyword index hold and no search finds."""
        meta = json.loads((self._directory / "keyword" / "meta.json").read_bytes())
        return sum(int((segment.get("deletes") or {}).get("num_deleted_docs", 0)) for segment in meta["segments"])

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._directory) if path.is_relative_to(self._directory) else path)

    def _files(self) -> Iterator[Path]:
        yield from (path for path in sorted(self._directory.rglob("*")) if path.is_file() and not path.is_symlink())
        if self._cache is not None and not self._cache.path.is_relative_to(self._directory):
            yield self._cache.path


def check_markers(markers: Sequence[str]) -> None:
    """UsageError for what cannot be looked for."""
    if len(markers) > MOST_MARKERS:
        raise UsageError(f"at most {MOST_MARKERS} marker texts")
    for marker in markers:
        if not isinstance(marker, str) or len(marker) < _LEAST_MARKER:
            raise UsageError(f"a marker text needs at least {_LEAST_MARKER} characters; shorter ones are found by chance")


def _forget(db: apsw.Connection, topic: TopicIndex) -> Leftovers:
    """Delete what nothing refers to any more: passages and their vectors, aliases, the miner's words, dead letters, and the
    queries of every topic that were kept to compare models by."""
    id, left = topic.row.id, Leftovers()
    unused = "count = 0 AND NOT EXISTS (SELECT 1 FROM occurrence o WHERE o.passage = p.id)"
    dead = list(db.execute(f"SELECT id, text, context FROM passage p WHERE topic = ? AND {unused}", (id,)))
    left.passages = [passage for passage, _, _ in dead]
    left.texts = [(text, context) for _, text, context in dead]
    chosen = (in_list(left.passages),)
    among = "(SELECT value FROM json_each(?1))"
    db.execute(f"DELETE FROM alias WHERE old IN {among} OR new IN {among}", chosen)
    catalogue.forget_passages(db, left.passages)
    db.execute("DELETE FROM vector WHERE topic = ?1 AND passage NOT IN (SELECT id FROM passage WHERE topic = ?1)", (id,))
    left.counts = {"passages": len(dead), "orphaned vectors": db.changes()}
    state = list(db.execute("SELECT text, state FROM template WHERE topic = ?", (id,)))
    changes = pruned(state, lambda text: db.execute(_LIVE, (id, catalogue.digest(text))).get is not None)
    for name, row in changes.items():
        if row is None:
            db.execute("DELETE FROM template WHERE topic = ? AND text = ?", (id, name))
        else:
            db.execute("UPDATE template SET state = ? WHERE topic = ? AND text = ?", (row, id, name))
    left.counts["templates"] = len(changes)
    orphan = f"NOT EXISTS (SELECT 1 FROM record r WHERE r.id = ({id} << {SEQ_BITS}) + seq)"
    db.execute(f"DELETE FROM dead_letter WHERE topic = ? AND seq IS NOT NULL AND {orphan}", (id,))
    left.counts["dead letters"] = db.changes()
    left.counts["texts of watches"] = watch_store.purge(db, id)
    db.execute("DELETE FROM asked")  # of every topic: most are asked of all of them
    left.counts["kept queries"] = db.changes()
    db.execute("UPDATE shadow SET report = json_set(report, '$.samples', json('[]')) WHERE report IS NOT NULL")
    return left


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
