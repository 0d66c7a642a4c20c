"""The keyword index: one tantivy index for all topics of a data directory. Derived from the log, rebuilt when damaged.

A document is one occurrence of a passage in a record (`Doc`); those with n = 0 stand for their record in counts. tantivy wants
one owner of its writer, so one thread has it and does what it is handed in order; searches use the state of the last commit
and never wait. A commit is durable: after a crash the index opens at the last one, and the caller feeds it again from there.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import tantivy
from tantivy import Occur, Order
from tantivy import Query as TQuery

from headwater.errors import HeadwaterError, StorageError, UsageError
from headwater.keyword.files import deleted_by_segment, reading, verify, writing
from headwater.keyword.held import Lists, View
from headwater.keyword.listing import BUCKETS, matches, passage_ids, residents
from headwater.keyword.matching import Hits, Match, best, columns, ranked
from headwater.keyword.schema import FORMER, NUL, Doc, Encoder, chunked, field_name, schema
from headwater.keyword.scope import Clause, Scope, clauses, column_range, combined, ids, reads_text
from headwater.keyword.words import WordReader, Words, attainable, scoring

__all__ = ["Doc", "KeywordIndex", "Match", "Scope", "Words"]

_QUEUED = 8  # chunks that wait for the owner thread before `add` blocks
_CHUNK = 2_000  # documents
_VALUES = 50_000  # distinct values of a field that `field_values` counts
_TERMS = 10_000  # in one set query


class KeywordIndex:
    """Add, delete, commit; match, count, list and aggregate. Threads may share it. A context manager."""

    def __init__(self, path: Path | None, *, memory_bytes: int = 64_000_000) -> None:
        """Open or create the index at `path`; None keeps it in memory. DamageError where it cannot be read or was made
        by another version: delete the directory and feed it again. `memory_bytes` is the writer's buffer. The checksums
        of all files are compared (about 1 s per GB): a damaged one could otherwise answer wrongly."""
        self._schema = schema()
        self._words = WordReader()
        self._path = path
        self._memory_bytes = max(memory_bytes, 15_000_000)  # tantivy's least
        with reading(path):
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)
                verify(path)
            self._index = tantivy.Index(self._schema, None if path is None else str(path))
            self._index.register_tokenizer("words", self._words.analyzer)
            self._index.config_reader("manual")
            self._index.reload()
            searcher = self._index.searcher()
            by_topic = {"terms": {"field": "topic", "size": BUCKETS}, "aggs": {"last": {"max": {"field": "seq"}}}}
            held = searcher.aggregate(TQuery.all_query(), {"t": by_topic})["t"]["buckets"]
            self._ends = {int(bucket["key"]): int(bucket["last"]["value"]) + 1 for bucket in held}
            self._deletions = 0
            self._topics = set(self._ends)
            self._view = View(searcher, frozenset(self._topics), dict(self._ends), 0)
            self._writer: tantivy.IndexWriter | None = self._index.writer(self._memory_bytes, 1)
        self._lists = Lists()
        self._lister = ThreadPoolExecutor(1, "keyword-lister")
        self._encoder = Encoder()
        self._failure: Exception | None = None
        self._work: queue.Queue[Callable[[], bool]] = queue.Queue(_QUEUED)
        self._gate = threading.Lock()  # nothing is handed over behind the stop
        self._closed = False
        self._owner = threading.Thread(target=self._own, name="keyword-writer", daemon=True)
        self._owner.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------ writing

    def add(self, docs: Sequence[Doc]) -> None:
        """Hand documents over; returns when they are accepted, blocks while too many wait. Searchable after `commit`,
        which is also where an error shows."""
        for chunk in chunked(docs, _CHUNK):
            self._hand(lambda chunk=chunk: self._add(chunk))  # type: ignore[misc]  # mypy cannot infer a lambda's default

    def delete_from(self, topic: int, seq: int) -> None:
        """Delete the topic's documents with this seq or a later one."""
        self._delete(topic, lambda: [column_range(self._schema, "seq", seq, None)])

    def delete_before(self, topic: int, seq: int) -> None:
        """Delete the topic's documents with an earlier seq."""
        self._delete(topic, lambda: [column_range(self._schema, "seq", None, seq)])

    def delete_between(self, topic: int, start: int, end: int) -> None:
        """Delete the topic's documents with `start` <= seq < `end`."""
        self._delete(topic, lambda: [column_range(self._schema, "seq", start, end)])

    def delete_records(self, topic: int, seqs: Sequence[int]) -> None:
        """Delete the documents of these records."""
        for start in range(0, len(seqs), _TERMS):
            self._delete(topic, lambda start=start: [ids(self._schema, "seq", seqs[start : start + _TERMS])])  # type: ignore[misc]

    def delete_topic(self, topic: int) -> None:
        """Delete all documents of a topic."""
        self._delete(topic, lambda: [TQuery.all_query()])
        self._hand(lambda: self._attempt(lambda _: self._topics.discard(topic)))

    def worn(self) -> dict[str, int]:
        """The segments, by name, that still hold documents deleted before the last commit, and how many."""
        held = {} if self._path is None else deleted_by_segment(self._path)
        return {name: deleted for name, deleted in held.items() if deleted}

    def beside_deleted(self, limit: int) -> Iterator[tuple[int, list[int]]]:
        """(topic, seqs) of the records that share a segment with deleted documents, as it is after `settle`, at most `limit` at
        once: when all of them have been deleted and added again, these segments are gone, whatever is merged meanwhile."""
        view, held = self._view, {} if self._path is None else deleted_by_segment(self._path)
        worn = {at for at, deleted in enumerate(held.values()) if deleted}
        return chain.from_iterable(residents(view.searcher, self._schema, topic, worn, limit) for topic in sorted(view.topics))

    def settle(self) -> None:
        """Commit, and wait for merges under way, which may bring along documents that were deleted since they began."""
        self.commit()
        done: Future[None] = Future()

        def settled() -> bool:
            self._attempt(lambda writer: self._end(writer))
            return self._commit(done)

        self._hand(settled)
        done.result()

    def commit(self) -> None:
        """Make what was handed over durable and searchable. Raises the first error since the last commit (StorageError
        where the disk refuses); nothing since then is kept, and the index stays usable."""
        done: Future[None] = Future()
        self._hand(lambda: self._commit(done))
        done.result()

    def close(self) -> None:
        """Let go of the index; what was not committed is forgotten. Safe to call twice."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._work.put(self._stop)
        self._owner.join()
        self._lister.shutdown(cancel_futures=True)

    def _hand(self, work: Callable[[], bool]) -> None:
        with self._gate:
            if self._closed:
                raise StorageError("the keyword index is closed; open it again")
            self._work.put(work)

    def _own(self) -> None:
        while self._work.get()():
            pass

    def _end(self, writer: tantivy.IndexWriter) -> None:
        """Wait for the writer's merges; it is of no use afterwards, and the next step makes a new one."""
        self._writer = None
        writer.wait_merging_threads()

    def _stop(self) -> bool:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(ValueError):
                writer.rollback()
                writer.wait_merging_threads()
        return False

    def _attempt(self, work: Callable[[tantivy.IndexWriter], None]) -> bool:
        """Run a step of writing unless one before it failed; the commit reports."""
        if self._failure is None:
            try:
                with writing(self._path):
                    if self._writer is None:
                        self._writer = self._index.writer(self._memory_bytes, 1)
                    work(self._writer)
            except Exception as error:  # the owner's top loop: whoever commits is told
                self._failure = error
        return True

    def _add(self, docs: Sequence[Doc]) -> bool:
        def add(writer: tantivy.IndexWriter) -> None:
            encode = self._encoder.encode
            for doc in docs:
                writer.add_json(encode(doc))
                self._ends[doc.topic] = max(self._ends.get(doc.topic, 0), doc.seq + 1)
            self._topics.update({doc.topic for doc in docs})

        return self._attempt(add)

    def _delete(self, topic: int, which: Callable[[], list[TQuery]]) -> None:
        def delete(writer: tantivy.IndexWriter) -> None:
            self._deletions += 1
            for query in which():
                both = [(Occur.Must, ids(self._schema, "topic", [topic])), (Occur.Must, query)]
                writer.delete_documents_by_query(TQuery.boolean_query(both))

        self._hand(lambda: self._attempt(delete))

    def _commit(self, done: Future[None]) -> bool:
        def commit(writer: tantivy.IndexWriter) -> None:
            writer.commit()
            self._index.reload()
            self._view = View(self._index.searcher(), frozenset(self._topics), dict(self._ends), self._deletions)

        self._attempt(commit)
        failure, self._failure = self._failure, None
        if failure is None:
            done.set_result(None)
            return True
        self._topics |= self._view.topics
        self._ends = dict(self._view.ends)
        if self._writer is not None:
            try:
                with writing(self._path):
                    self._writer.rollback()
            except HeadwaterError:
                self._writer = None  # beyond use; the next step makes a new one
        done.set_exception(failure)
        return True

    # ------------------------------------------------------------------ scoring

    def match(
        self, words: str, scope: Scope, *, limit: int, exclude_passages: Sequence[int] = (),
        passages: Sequence[int] | None = None,
    ) -> list[Match]:  # fmt: skip
        """The occurrences in scope that have at least one of `words`, by BM25, best first, equal ones by (topic, seq);
        empty where no word is known. `passages` restricts them to some, `exclude_passages` leaves some out."""
        with self._scored(words, scope, limit, passages, exclude_passages) as (searcher, hits):
            return ranked(searcher, hits)

    def best(
        self, words: str, scope: Scope, *, limit: int, exclude_passages: Sequence[int] = (),
        passages: Sequence[int] | None = None,
    ) -> tuple[list[Match], bool]:  # fmt: skip
        """The first occurrence of each passage (and of each record without any) among what `match` gives; and whether there
        may be others beyond these `limit`."""
        with self._scored(words, scope, limit, passages, exclude_passages) as (searcher, hits):
            return best(searcher, hits), 0 < limit <= len(hits)

    @contextlib.contextmanager
    def _scored(
        self, words: str, scope: Scope, limit: int, passages: Sequence[int] | None, exclude_passages: Sequence[int]
    ) -> Iterator[tuple[tantivy.Searcher, Hits]]:
        view = self._view
        with reading(self._path):
            read = self._read(words, view)
            if not read.terms or limit <= 0:
                yield view.searcher, ()
                return
            found = self._clauses(scope, view, passages, exclude_passages)
            query = combined([(Occur.Must, scoring(read, self._schema)), *found])
            yield view.searcher, view.searcher.search(query, limit, count=False).hits

    def words(self, words: str) -> Words:
        """What is scored of `words`, with document frequencies, and how many were dropped."""
        view = self._view
        with reading(self._path):
            return self._read(words, view)

    def attainable(self, words: str) -> float:
        """The upper end of the BM25 that `words` reach in this index (`headwater.keyword.words`); 0 where none is known.
        min(1, score / attainable) compares between queries."""
        view = self._view
        with reading(self._path):
            return attainable(self._read(words, view), view.searcher.num_docs)

    # ------------------------------------------------------------------ without scoring

    @property
    def documents(self) -> int:
        """Occurrences that can be searched."""
        return self._view.searcher.num_docs

    def count(self, scope: Scope, *, passages: Sequence[int] | None = None) -> int:
        """Records in scope."""
        if passages is None:
            return sum(self.counts(scope).values())
        view = self._view
        with reading(self._path):
            query, distinct = self._records(scope, view, passages)
            if distinct:
                return len(set(self._list(view, query, "topic", "seq")))
            return self._total(view, query)

    def counts(self, scope: Scope) -> dict[int, int]:
        """topic -> its records in scope, for those that have some."""
        view, key = self._view, repr(scope)
        if (known := view.counts.get(key)) is not None:
            return known
        with reading(self._path):
            query, distinct = self._records(scope, view, None)
            if distinct:
                found = dict(Counter(topic for topic, _ in set(self._list(view, query, "topic", "seq"))))
            else:
                reply = view.searcher.aggregate(query, {"t": {"terms": {"field": "topic", "size": BUCKETS}}})
                found = {int(bucket["key"]): int(bucket["doc_count"]) for bucket in reply["t"]["buckets"]}
        view.counts.keep(key, found, 200 + len(key) + 100 * len(found))
        return found

    def latest(
        self,
        scope: Scope,
        *,
        limit: int,
        passages: Sequence[int] | None = None,
        oldest: bool = False,
        by: Literal["seq", "time"] = "seq",
    ) -> list[Match]:
        """The newest (or oldest) records in scope, by arrival or by event time, each with one occurrence in scope."""
        view, key = self._view, repr((scope, limit, passages, oldest, by))
        if (known := view.latest.get(key)) is not None:
            return list(known)
        order, wanted = (Order.Asc if oldest else Order.Desc), limit
        with reading(self._path):
            query, distinct = self._records(scope, view, passages)
            while limit > 0:
                hits = view.searcher.search(query, wanted, count=False, order_by_field=by, order=order).hits
                places = columns(view.searcher, hits, by, "topic", "seq", "n", "passage")
                sign = 1 if oldest else -1
                places.sort(key=lambda p: (sign * p[0], p[1], sign * p[2], p[3]))
                first = {(p[1], p[2]): Match(p[1], p[2], p[3], p[4], 0.0) for p in reversed(places)}
                found = [first[key] for key in dict.fromkeys((p[1], p[2]) for p in places)]
                if not distinct or len(found) >= limit or len(hits) < wanted:
                    view.latest.keep(key, found[:limit], 200 + len(key) + 200 * min(limit, len(found)))
                    return found[:limit]
                wanted *= 4
        return []

    def passages(self, scope: Scope, *, limit: int, passages: Sequence[int] | None = None) -> dict[int, int]:
        """passage -> its occurrences in scope, most frequent first: exact counts, of at most `limit` passages. As many
        as `limit` mean that there may be more."""
        if limit <= 0:
            return {}
        view = self._view
        with reading(self._path):
            query = combined(self._clauses(scope, view, passages))
            size = min(limit, BUCKETS)
            terms = {"field": "passage", "size": size, "segment_size": BUCKETS}
            reply = view.searcher.aggregate(query, {"p": {"terms": terms}})["p"]
            # Counts are partial where a segment had more than fits; then, or when more are wanted, every match is read.
            if reply["doc_count_error_upper_bound"] or (reply["sum_other_doc_count"] and limit > size):
                return dict(Counter(p for (p,) in self._list(view, query, "passage")).most_common(limit))
            return {int(bucket["key"]): int(bucket["doc_count"]) for bucket in reply["buckets"]}

    def passage_ids(self, scope: Scope, *, distinct: int, gently: bool = False) -> npt.NDArray[np.int64]:
        """`(n,)` int64: every passage with an occurrence in the scope of one topic, ascending. `distinct` is about how many
        passages the topic has, and `gently` lists in small parts (`headwater.keyword.listing`)."""
        view = self._view

        def since(seq: int) -> npt.NDArray[np.int64]:
            later = [(Occur.Must, column_range(self._schema, "seq", seq, None))] if seq else []
            query = combined([*self._clauses(scope, view), *later])
            return passage_ids(view.searcher, self._schema, query, distinct=distinct, gently=gently)

        with reading(self._path):
            return self._lists.ids(scope, view, since)

    def holds_passage_ids(self, scope: Scope) -> bool:
        """Whether `passage_ids` of this scope is known, but for what came lately, and costs next to nothing."""
        return self._lists.holds(scope, self._view)

    def list_soon(self, scope: Scope, *, distinct: int) -> None:
        """Note that a scope was asked for. The second time its passages are listed in the background: filters come again, and a
        list makes the next search with this one cost less."""
        if self._lists.again(scope, self._view):
            with self._gate:
                if not self._closed:
                    self._lister.submit(self.passage_ids, scope, distinct=distinct, gently=True)

    def newest(self, scope: Scope, passages: Sequence[int]) -> dict[int, tuple[int, int]]:
        """passage -> (its occurrences in scope, the seq of the newest), for those of at most 10,000 that have some."""
        if not passages:
            return {}
        view = self._view
        with reading(self._path):
            query = combined(self._clauses(scope, view, passages))
            terms = {"field": "passage", "size": len(passages), "segment_size": max(len(passages), 100)}
            last = {"s": {"max": {"field": "seq"}}}
            reply = view.searcher.aggregate(query, {"p": {"terms": terms, "aggs": last}})["p"]
        return {int(b["key"]): (int(b["doc_count"]), int(b["s"]["value"])) for b in reply["buckets"]}

    def has_field(self, scope: Scope, name: str) -> bool:
        """Whether a record in scope has a field (key, level or an attribute) of that name."""
        view, prefix = self._view, field_name(name) + NUL
        with reading(self._path):
            query, _ = self._records(scope, view, None)
            return any(number for _, number in view.searcher.terms_with_prefix("field", prefix, query, 1))

    def seqs(self, scope: Scope, *, limit: int) -> list[tuple[int, int]]:
        """(topic, seq) of records in scope, at most `limit`, lowest seq first."""
        return [(m.topic, m.seq) for m in self.latest(scope, limit=limit, oldest=True)]

    def time_range(self, scope: Scope) -> tuple[int, int] | None:
        """The first and last event time in scope, ms; None where nothing is."""
        view = self._view
        with reading(self._path):
            query = combined(self._clauses(scope, view))
            reply = view.searcher.aggregate(query, {"a": {"min": {"field": "time"}}, "b": {"max": {"field": "time"}}})
        first, last = reply["a"]["value"], reply["b"]["value"]
        return None if first is None else (int(first), int(last))

    def histogram(
        self, scope: Scope, *, interval_ms: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[tuple[int, int, int]]:
        """(start_ms, topic, records) of the buckets that have some, oldest first. Buckets begin at multiples of
        `interval_ms` from `start_ms`, or from the epoch; records before `start_ms` or from `end_ms` on are left out."""
        if interval_ms <= 0:
            raise UsageError(f"a histogram's interval must be positive, not {interval_ms} ms")
        view = self._view
        base = 0 if start_ms is None else start_ms % interval_ms
        with reading(self._path):
            query, distinct = self._records(scope, view, None)
            if start_ms is not None or end_ms is not None:
                query = combined([(Occur.Must, query), (Occur.Must, column_range(self._schema, "time", start_ms, end_ms))])
            counts: Counter[tuple[int, int]] = Counter()
            if distinct:
                times = {(topic, seq): at for topic, seq, at in self._list(view, query, "topic", "seq", "time")}
                counts.update(((at - base) // interval_ms * interval_ms + base, topic) for (topic, _), at in times.items())
            else:
                topics = {"terms": {"field": "topic", "size": 1000}}
                bars = {"field": "time", "interval": float(interval_ms), "offset": float(base), "min_doc_count": 1}
                reply = view.searcher.aggregate(query, {"h": {"histogram": bars, "aggs": {"t": topics}}})
                for bar in reply["h"]["buckets"]:
                    for bucket in bar["t"]["buckets"]:
                        counts[int(bar["key"]), int(bucket["key"])] = int(bucket["doc_count"])
        return sorted((at, topic, number) for (at, topic), number in counts.items())

    def field_values(self, scope: Scope, field: str, *, limit: int) -> dict[str, int]:
        """The values of a field (key, level or an attribute) among records in scope, most frequent first, equal ones by
        name. A field with more than 50,000 distinct values is counted over some of them."""
        view = self._view
        name = field_name(field) + NUL
        with reading(self._path):
            query, _ = self._records(scope, view, None)
            found = view.searcher.terms_with_prefix("field", name, query, _VALUES)
        ranked = sorted(((term[len(name) :], number) for term, number in found if number), key=lambda t: (-t[1], t[0]))
        return dict(ranked[:limit])

    # ------------------------------------------------------------------ parts

    def _read(self, words: str, view: View) -> Words:
        if (known := view.words.get(words)) is None:
            most = view.searcher.num_docs  # deleted documents count in frequencies until their files go, and not in this
            known = self._words.read(words, lambda stem: min(view.searcher.doc_freq("text", stem), most))
            view.words.keep(words, known, 1000 + 8 * len(words))
        return known

    def _clauses(
        self, scope: Scope, view: View, passages: Sequence[int] | None = None, exclude_passages: Sequence[int] = ()
    ) -> list[Clause]:
        return clauses(
            scope, self._index, self._schema, self._words.analyzer,
            known_topics=view.topics, passages=passages, exclude_passages=exclude_passages,
            former=view.searcher.doc_freq("field", FORMER) > 0,
        )  # fmt: skip

    def _records(self, scope: Scope, view: View, passages: Sequence[int] | None) -> tuple[TQuery, bool]:
        """A query of records in scope, and whether one may match more than once (and must be counted by its seq)."""
        found = self._clauses(scope, view, passages)
        if not self._has_later(view):
            return combined(found), False
        if reads_text(scope) or passages is not None:
            later = (Occur.Must, column_range(self._schema, "n", 1, None))
            if self._total(view, combined([*found, later])):
                return combined(found), True
        first = (Occur.Must, TQuery.const_score_query(column_range(self._schema, "n", 0, 1), 0.0))
        return combined([*found, first]), False

    def _has_later(self, view: View) -> bool:
        """Whether any record has more than one passage."""
        if (known := view.counts.get("later")) is None:
            total = self._total(view, column_range(self._schema, "n", 1, None))
            view.counts.keep("later", known := {1: total} if total else {}, 200)
        return bool(known)

    @staticmethod
    def _total(view: View, query: TQuery) -> int:
        return matches(view.searcher, query)

    def _list(self, view: View, query: TQuery, *names: str) -> list[tuple[int, ...]]:
        total = self._total(view, query)
        return columns(view.searcher, view.searcher.search(query, total, count=False).hits, *names) if total else []
