"""Records taken out of the log and of every index: past their retention, or because somebody asks. One path for both.

A step deletes a few thousand records in one transaction of the log, with their occurrences and with the passages that
nothing refers to any more; from its commit on nobody is given them. The same transaction notes what the keyword index still
holds, so a crash behind it leaves no ghosts: the note is worked off at the next start. A deletion that was cut short is
finished by asking for it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from headwater.embed.cache import VectorCache
from headwater.errors import NotFoundError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex, Scope
from headwater.keyword.schema import analyzer, prepared
from headwater.log import catalogue, gone
from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log, Row, in_list
from headwater.matching import matches
from headwater.passages import embedding_text
from headwater.query import Filter, Query, parse
from headwater.records.removals import Deleted

if TYPE_CHECKING:
    import apsw

T = TypeVar("T")
STEP = 5000  # records in one transaction
_INDEXED_S = 10.0  # how long a deletion by query waits for the keyword index
_SETTLE = 10_000  # of them taken out of the keyword index by one commit


@dataclass(frozen=True, slots=True)
class Choice:
    """Which records are to go: those of a key (and of what a topic that redacts calls it), else those that a query matches."""

    keys: tuple[str, ...]
    query: Query
    scope: Scope


def choice(topic: int, keys: tuple[str, ...], q: str | None, *, now_ms: int) -> Choice:
    """The records of one key, given by all its names, or what `q` matches: all its words and phrases must occur. UsageError for
    a query that says nothing of the records, which would match them all."""
    if bool(keys) != (q is None):
        raise UsageError("say which records: an address, a key or a query, one of them")
    if keys:
        return Choice(keys, Query(""), Scope((topic,), filters=(Filter("key", "=", keys),), versions=True))
    query = parse(q or "", now_ms=now_ms)
    if any(f.field == "topic" for f in query.filters):
        raise UsageError("records are deleted from one topic at a time; leave topic: out of the query")
    needed = (*query.phrases, *query.text.split())
    analyse = analyzer().analyze
    for text in (*needed, *query.excluded):
        if not analyse(prepared(text)):
            raise UsageError(f"{text!r} has no letter or digit, so every record would match it; leave it out")
    if not (needed or query.excluded or query.filters or query.since_ms is not None or query.until_ms is not None):
        raise UsageError("an empty query would delete every record; `headwater topics delete` does that")
    since_ms, until_ms = query.since_ms, query.until_ms
    scope = Scope(
        (topic,), query.filters, phrases=needed, excluded=query.excluded, since_ms=since_ms, until_ms=until_ms, versions=True
    )
    return Choice((), query, scope)


async def delete(
    deletion: Deletion, indexer: Indexer, log: Log, topic: TopicIndex, *, partition: int, offset: int | None, key: str | None,
    q: str | None, dry_run: bool, limit: int | None, now_ms: int,
) -> Deleted:  # fmt: skip
    """As `Verbs.delete_records`: step by step, so that indexing goes on in between."""
    id, name = topic.row.id, topic.row.name
    if limit is not None and limit < 1:
        raise UsageError("limit must be at least 1")
    row = await _thread(log.topic, name)
    if offset is not None:
        if key is not None or q is not None:
            raise UsageError("say which records: an address, a key or a query, one of them")
        record = (await _thread(log.find, row, partition, offset)).id
        return Deleted(name, 1, 0 if dry_run else await _thread(deletion.remove_one, id, record), dry_run)
    chosen = choice(id, _names(topic, key), q, now_ms=now_ms)
    if not chosen.keys:  # what is not in the keyword index by then is compared word for word
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INDEXED_S):
                await indexer.wait(topic, row.next_seq, semantic=False)
    number, before = 0, row.next_seq
    while before > 0 and (limit is None or number < limit):
        most = STEP if limit is None else limit - number
        done, before = await _thread(lambda most=most, at=before: deletion.remove(id, chosen, at, limit=most, dry_run=dry_run))
        number += done
    return Deleted(name, number, 0 if dry_run else number, dry_run, before > 0)


async def _thread(work: Callable[..., T], *args: Any) -> T:
    return await anyio.to_thread.run_sync(work, *args)


class Deletion:
    """Plain synchronous code; each call of `remove` is one bounded step."""

    def __init__(self, log: Log, keyword: KeywordIndex, indexer: Indexer, cache: VectorCache | None) -> None:
        self._log, self._keyword, self._indexer, self._cache = log, keyword, indexer, cache
        self._tokens = analyzer()

    def remove_one(self, topic: int, record: int) -> int:
        """Delete one record (by id): how many there were."""
        with self._indexer.busy:
            return self.release(self._topic(topic), [record], on_request=True)

    def remove(self, topic: int, chosen: Choice, before: int, *, limit: int = STEP, dry_run: bool = False) -> tuple[int, int]:
        """Delete the newest of the chosen records with seq < `before`, at most `limit`: how many, and the seq below which
        to go on, 0 at the end. With `dry_run` they are only counted."""
        with self._indexer.busy:
            index = self._topic(topic)
            if dry_run and before <= index.keyword and not self._must_look(index, chosen):
                return self._keyword.count(_below(chosen.scope, topic, before)), 0
            records, below = self._find(index, chosen, before, min(limit, STEP))
            return (len(records) if dry_run or not records else self.release(index, records, on_request=True)), below

    def release(self, topic: TopicIndex, records: Collection[int], *, on_request: bool = False) -> int:
        """Delete records (by id) from everything: how many there were. `busy` is held. Passages that nothing refers to any more
        are hidden; their texts are forgotten, but for templates, which come back: only a purge takes those."""
        id, forget = topic.row.id, topic.kind != "template"

        def write(db: apsw.Connection) -> tuple[int, list[int], list[tuple[str, str | None]]]:
            number, dead = catalogue.release(db, id, records, on_request=on_request)
            chosen = "SELECT text, context FROM passage WHERE id IN (SELECT value FROM json_each(?))"
            texts = list(db.execute(chosen, (in_list(dead),))) if on_request and forget and dead else []
            if forget and dead:
                catalogue.forget_passages(db, dead)
            return number, dead, texts

        with self._indexer.embedding.storing:  # what is being embedded is not stored in between
            number, dead, texts = self._log.write(write, rows=len(records) or 1)
            if dead and forget:
                hide(topic, dead)
        if (texts or on_request) and self._cache is not None:
            self._cache.forget([embedding_text(topic.kind, text, context) for text, context in texts])
        self._settle(id)
        return number

    def retire(self, topic: TopicIndex, records: Mapping[int, int]) -> int:
        """Make records (by id, with the seq from which on) former versions; how many were none yet. `busy` is held."""
        id = topic.row.id
        with self._indexer.embedding.storing:
            number = self._log.write(lambda db: catalogue.retire(db, id, records), rows=len(records) or 1)
        self._settle(id)
        return number

    def settle(self) -> None:
        """Take from the keyword index what a crash, or a disk that refused, has left there of records that are gone."""
        with self._log.reading() as db:
            topics = [topic for (topic,) in db.execute("SELECT DISTINCT topic FROM unindexed")]
        for topic in topics:
            with self._indexer.busy:
                self._settle(topic)

    def _settle(self, topic: int) -> None:
        while True:
            with self._log.reading() as db:
                seqs = gone.unindexed(db, topic, _SETTLE)
            if not seqs:
                return
            self._keyword.delete_records(topic, seqs)
            if (index := self._indexer.topics.get(topic)) is not None:  # former versions come back as such, unmapped ones later
                kept = self._log.rows_of([topic << SEQ_BITS | seq for seq in seqs if seq < index.mapped])
                self._indexer.feed(index, [kept[record] for record in sorted(kept)])
            self._indexer.commit_keyword()
            self._log.write(lambda db, seqs=seqs: gone.unindex(db, topic, seqs))  # type: ignore[misc]  # a lambda's default

    def _topic(self, id: int) -> TopicIndex:
        topic = self._indexer.topics.get(id)
        if topic is None:
            raise NotFoundError("the topic was deleted meanwhile")
        return topic

    # ------------------------------------------------------------------ finding

    def _find(self, topic: TopicIndex, chosen: Choice, before: int, limit: int) -> tuple[list[int], int]:
        """The newest chosen records with seq < `before` (by id), and the seq below which to go on."""
        id = topic.row.id
        if before > topic.keyword:  # not in the keyword index yet: looked at one by one
            rows = [r for r in self._log.rows_before(id, before, limit) if r.seq >= topic.keyword]
            below = max(rows[0].seq if len(rows) == limit else 0, topic.keyword)
            return [r.id for r in rows if self._is_meant(topic, chosen, r)], below
        found = self._keyword.latest(_below(chosen.scope, id, before), limit=limit)
        below = min(m.seq for m in found) if len(found) == limit else 0
        records = [id << SEQ_BITS | m.seq for m in found]
        if self._must_look(topic, chosen):
            rows_of = self._log.rows_of(records)
            records = [r for r in records if r in rows_of and self._holds(chosen, rows_of[r])]
        return records, below

    @staticmethod
    def _must_look(topic: TopicIndex, chosen: Choice) -> bool:
        """Whether what the keyword index finds is to be checked: it knows keys up to their first characters and numbers by
        value, and of a document each chunk for itself."""
        return bool(chosen.keys) or (topic.kind == "chunks" and bool(chosen.query.excluded))

    def _holds(self, chosen: Choice, row: Row) -> bool:
        if chosen.keys:
            return row.key in chosen.keys
        tokens = f" {' '.join(self._tokens.analyze(prepared(row.value)))} "
        return not any(f" {' '.join(self._tokens.analyze(prepared(e)))} " in tokens for e in chosen.query.excluded)

    def _is_meant(self, topic: TopicIndex, chosen: Choice, row: Row) -> bool:
        return row.key in chosen.keys if chosen.keys else matches(chosen.query, row.record(topic.row.name))


def hide(topic: TopicIndex, dead: Sequence[int]) -> None:
    """Take passages that are no more out of a topic's vector indexes and its memory."""
    for vectors in topic.indexes():
        vectors.remove(dead)
    topic.known.clear()


def _names(topic: TopicIndex, key: str | None) -> tuple[str, ...]:
    """A key with what a topic that redacts calls it: records from before it did have it as it is."""
    return () if key is None else (key,) if topic.redacting is None else tuple(dict.fromkeys((key, topic.redacting.key(key))))


def _below(scope: Scope, topic: int, before: int) -> Scope:
    return replace(scope, before_seq={topic: before})
