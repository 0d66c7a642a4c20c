"""What Headwater can do, as one protocol.

`Engine` (in this process) and `Client` (over HTTP) implement it; the sync SDK, the CLI, the MCP server and the TUI
call nothing else. All verbs raise HeadwaterError. Times are accepted as aware datetimes, ISO 8601 text, epoch seconds,
or an age such as `2h`; `q` is in the query language (`headwater.query`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from headwater.batches import Delivered, Fault
from headwater.composed import LiveEvent
from headwater.errors import HeadwaterError
from headwater.records import (
    Appended,
    DeadLetter,
    Draft,
    Embedded,
    IndexInfo,
    Mode,
    Page,
    PatternsReply,
    Record,
    RecordView,
    SearchReply,
    SourceInfo,
    Status,
    Timeline,
    Topic,
)
from headwater.records.drifts import Drift
from headwater.records.indexes import Shadow, SwapStep
from headwater.records.removals import Deleted, Purged
from headwater.records.watches import Watch, WatchHit, Woken
from headwater.verbs.ask import AskVerbs
from headwater.verbs.audit import AuditVerbs
from headwater.verbs.detect import DetectVerbs
from headwater.verbs.enrich import EnrichVerbs
from headwater.verbs.investigate import InvestigateVerbs
from headwater.verbs.models import ModelVerbs
from headwater.verbs.webhooks import WebhookVerbs

When = datetime | str | float | int
Entry = Draft | Mapping[str, Any] | str


class WatchVerbs(Protocol):
    """Standing queries."""

    async def add_watch(
        self,
        q: str = "",
        *,
        name: str | None = None,
        topics: Sequence[str] | None = None,
        mode: Mode | None = None,
        min_score: float | None = None,
        like: str | None = None,
        more_than: int | None = None,
        within: float | str | None = None,
        ttl: float | str | None = None,
        since: When | None = None,
        owner: str | None = None,
    ) -> Watch:
        """A standing query, from now on or from the records stored `since`. It fires once for each record that matches: by its
        filters and words, or in meaning by `min_score` (0 to 1); `like` an address, for records of the same pattern or
        near to it in meaning. With `more_than` it fires when more than so many match `within` a time (`10m`, or seconds; event
        time), and again once they were fewer. `ttl` ends it. LimitError where there are too many, or `owner` has."""

    async def watches(self) -> list[Watch]:
        """Every watch, oldest first."""

    async def watch(self, id: int | str) -> Watch:
        """The watch of that id or name; NotFoundError."""

    async def remove_watch(self, id: int | str) -> None:
        """Forget a watch and its hits; NotFoundError."""

    async def wait(self, id: int | str, *, cursor: str | None = None, timeout: float | None = 25.0, limit: int = 100) -> Woken:
        """The hits of a watch behind `cursor` (without one all that are kept), as soon as there are any; none when `timeout`
        seconds (None: no end) are up. Give the reply's cursor the next time, and nothing is missed in between."""

    def watch_events(self, id: int | str, *, cursor: str | None = None) -> AsyncIterator[WatchHit]:
        """The hits of a watch behind `cursor` as they are fired, until it expires or goes. A hit's id is `WATCH-CURSOR`."""


class Verbs(AskVerbs, InvestigateVerbs, WatchVerbs, AuditVerbs, EnrichVerbs, ModelVerbs, DetectVerbs, WebhookVerbs, Protocol):
    """Everything that Headwater can do, in one: what `Engine` and `Client` implement."""

    async def append(
        self,
        topic: str,
        records: Sequence[Entry],
        *,
        idempotency_key: str | None = None,
        wait: Literal["stored", "searchable"] = "stored",
        timeout_s: float = 10.0,
    ) -> Appended:
        """Store records durably; the topic is created with defaults where there is none. An entry is text, a Draft or
        `{value, key?, timestamp?, attributes?, partition?, vector?}`; all are stored or none. The same
        `idempotency_key` again returns the first receipts; with another body ConflictError."""

    async def deliver(
        self,
        topic: str,
        source: str,
        records: Sequence[Draft] = (),
        *,
        stream: str = "",
        state: Mapping[str, Any] | None = None,
        faults: Sequence[Fault] = (),
    ) -> Delivered:
        """Store a batch of the source of that name together with the state that resumes behind it. A (stream, position)
        seen before is not stored again; `faults`, and records that cannot be stored, become dead letters. Without a
        state none is kept; a call with nothing to deliver returns the one kept last."""

    async def topics(self) -> list[Topic]:
        """All topics, by name."""

    async def topic(self, name: str) -> Topic:
        """One topic; NotFoundError."""

    async def create_topic(self, name: str, **config: Any) -> Topic:
        """A new topic with settings of TopicConfig; ConflictError where it exists with others."""

    async def set_topic(self, name: str, **config: Any) -> Topic:
        """Change settings; UsageError for those that are fixed once records exist."""

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records and indexes."""

    async def purge_topic(self, name: str, *, markers: Sequence[str] = ()) -> Purged:
        """Remove from the disk what deleted records of a topic left there, and say in which files `markers`, texts that
        should be gone, are still found. Backups are not reached."""

    async def delete_records(
        self,
        topic: str,
        *,
        partition: int = 0,
        offset: int | None = None,
        key: str | None = None,
        q: str | None = None,
        dry_run: bool = False,
        limit: int | None = None,
    ) -> Deleted:
        """Delete one record (NotFoundError), those of a key, or those that `q` matches (all its words must occur), for every
        reader at once; with `dry_run` they are counted. Those stored after the call began stay. `limit` ends it early."""

    async def records(
        self,
        topic: str,
        *,
        partition: int | None = None,
        offset: int | None = None,
        limit: int = 100,
        since: When | None = None,
        until: When | None = None,
        cursor: str | None = None,
        versions: bool = False,
    ) -> Page:
        """Records in arrival order, from `offset` of `partition` or from the start; at most 1000 a page. With `versions` also
        former ones of documents, which have an attribute `replaced`."""

    async def read(self, address: str, *, context: int = 0, alike: int = 0) -> RecordView:
        """The record at `topic/partition/offset`, up to `context` (at most 100) records either side, and up to `alike` (at most
        100) of the newest others in which a passage of it occurs; NotFoundError."""

    def tail(self, topic: str, q: str = "", *, after: str | None = None, from_start: bool = False) -> AsyncIterator[Record]:
        """Records as they are stored, filtered by `q`, endlessly: new ones only, all with `from_start`, or those behind
        the address `after`."""

    async def search(
        self,
        q: str,
        *,
        topics: Sequence[str] | None = None,
        top_k: int = 10,
        mode: Mode | None = None,
        since: When | None = None,
        until: When | None = None,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        explain: bool = False,
        include: Sequence[str] = (),
        cursor: str | None = None,
        as_of: When | Mapping[str, int] | None = None,
        rerank: bool = False,
        max_tokens: int | None = None,
    ) -> SearchReply:
        """The best passages for `q`, each with its best record. `filters` maps attribute (or key, partition, level) to a
        value or a list of values; `include` may hold `vector`. `as_of` is a time, or maps topics to sequence numbers as
        `coverage.watermark` has them in `stored`: what was stored before is searched, in the versions of then. With
        `rerank` a cross-encoder on this machine reads the best hits again; there is one page then. `max_tokens` bounds the
        reply as JSON: hits that differ in numbers alone are one, and what does not fit is on the next page."""

    async def search_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[SearchReply | HeadwaterError]:
        """A reply for each query (`{"q": ..., and the other parameters of search}`), or the error that it alone would have
        raised, in their order; at most 100. Their texts are embedded together."""

    async def search_vector(
        self,
        vector: Sequence[float],
        *,
        topics: Sequence[str] | None = None,
        top_k: int = 10,
        model: str | None = None,
        since: When | None = None,
        until: When | None = None,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        explain: bool = False,
        include: Sequence[str] = (),
        cursor: str | None = None,
    ) -> SearchReply:
        """The passages nearest to a vector of your own, in topics whose vectors have its length (of `model` alone where it is
        given). UsageError where a topic that is named has others, and for a vector that cannot be compared."""

    def live(
        self,
        q: str,
        *,
        topics: Sequence[str] | None = None,
        mode: Mode | None = None,
        filters: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        after: str | None = None,
    ) -> AsyncIterator[LiveEvent]:
        """Records that match `q` as they arrive, endlessly, each once: by words where all occur, by meaning where the passage
        scores `min_score`. `after`, the cursor of an earlier event, goes on behind it."""

    async def similar(
        self, topic: str, *, offset: int, partition: int = 0, top_k: int = 10, topics: Sequence[str] | None = None
    ) -> SearchReply:
        """Passages nearest in meaning to those of one record, itself left out."""

    async def patterns(
        self,
        topic: str,
        *,
        q: str = "",
        since: When | None = None,
        until: When | None = None,
        new_since: When | None = None,
        gone_since: When | None = None,
        changed_since: When | None = None,
        fields: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> PatternsReply:
        """The passages of a topic with counts in a window; with `new_since` only those first seen since then, with `gone_since`
        those that came regularly and do not since then, with `changed_since` those that come significantly more or less often
        since then than before (each with its `change`). With `fields` each says what its varying places and attributes hold, by
        its newest records; there are at most 100 patterns then. Words of `q` must occur."""

    async def drift(
        self, topic: str, *, since: When, until: When | None = None, before: When | None = None, q: str = "", limit: int = 10
    ) -> Drift:
        """Whether a topic says other things since a time than before it, by what its records mean: how far apart the mixes are,
        how unusual that is by stretches of the time before, and the patterns that rose and fell. The time before begins at
        `before`, or is four times as long. UsageError where there are too few records to compare."""

    async def timeline(
        self,
        q: str = "",
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        buckets: int = 60,
    ) -> Timeline:
        """How many records match, by time and level, with what stands out meanwhile and hints which topic's surge came first.
        Words of `q` must occur."""

    async def indexes(self) -> list[IndexInfo]:
        """The index of every topic."""

    async def index(self, topic: str) -> IndexInfo:
        """The index of one topic."""

    async def create_index(self, topic: str, model: str | None = None, **settings: Any) -> IndexInfo:
        """Give a topic a vector index, or change its settings (index_kind, metric, hnsw_m, hnsw_ef_construction,
        hnsw_ef_search, ivf_cells, ivf_n_probe). What is stored is embedded in the background; another model than the one it
        has is built beside it, as `rebuild_index` does."""

    async def rebuild_index(
        self, topic: str, model: str | None = None, *, shadow: bool = False, threshold: float | None = None, **settings: Any
    ) -> IndexInfo:
        """Build the keyword and vector index anew from the log; stored vectors are used again. With another `model` its
        index is built beside the live one and takes over when it is complete; as a `shadow` only when told
        (`swap_index`), or where its overlap with the live one reaches `threshold` (0 to 1). `settings` as for
        `create_index`."""

    async def swap_index(self, topic: str, step: SwapStep) -> IndexInfo:
        """Let the second model answer (`cut-over`), the one before it again (`roll-back`), forget the second one's vectors
        (`drop`), or give up what is being built (`cancel`)."""

    async def shadow(self, topic: str) -> Shadow:
        """The second model of a topic: how far its index is, and how it compares; NotFoundError where it has none."""

    async def delete_index(self, topic: str) -> IndexInfo:
        """Switch meaning search off and drop the topic's vectors; keyword search stays."""

    async def embed(self, texts: Sequence[str], *, model: str | None = None) -> Embedded:
        """Unit vectors of texts."""

    async def dead_letters(self, topic: str | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """What could not be processed, newest first."""

    async def replay_dead_letter(self, id: int) -> None:
        """Try a dead letter again; it is removed when that succeeds."""

    async def drop_dead_letter(self, id: int) -> None:
        """Forget a dead letter."""

    async def sources(self) -> list[SourceInfo]:
        """Every source: those of the settings, of the paths a daemon was started with, and those added. A daemon runs them."""

    async def add_source(self, **settings: Any) -> list[SourceInfo]:
        """Add a source: the settings of one `[[sources]]` entry (`path`, or `type` and what that takes). It starts at once in a
        daemon and is kept over restarts. ConfigError; ConflictError where its name is taken."""

    async def pause_source(self, name: str) -> list[SourceInfo]:
        """Stop a source until it is resumed, also over restarts. It goes on where it was; what is pushed is put off."""

    async def resume_source(self, name: str) -> list[SourceInfo]:
        """Let a paused source go on."""

    async def remove_source(self, name: str) -> None:
        """Forget a source that was added; UsageError for those of the settings. Its records stay, and so does the place it had
        reached: added again it goes on there."""

    async def status(self) -> Status:
        """Topics, sources, watermarks and problems at a glance."""

    async def aclose(self) -> None:
        """Let go of everything; safe to call twice."""
