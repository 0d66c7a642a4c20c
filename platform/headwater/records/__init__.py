"""The value types of Headwater: what goes in, what is stored, what comes back.

All are frozen. Times are aware UTC datetimes on the outside and integer milliseconds since the epoch
(`*_ms`) on the inside. A record's address is `topic/partition/offset`. The wire form (JSON) of every type
is the one pydantic derives from its fields; nothing else defines it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from headwater.records.changes import Change
from headwater.records.indexes import Progress, Shadow
from headwater.records.markers import Lead, Marker
from headwater.records.tabular import Shown, Tabular
from headwater.records.values import FieldValues

Scalar = str | int | float | bool
Mode = Literal["hybrid", "keyword", "semantic"]
PassageForm = Literal["template", "exact", "chunks"]
PassageKind = Literal["auto", "template", "exact", "chunks"]

TOPIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MIN_MS = -62_135_596_800_000  # 0001-01-01T00:00:00Z, the first instant a datetime can name
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_ms(ms: int) -> datetime:
    """The aware UTC datetime of `ms` milliseconds since the epoch, clamped to years 1..9999."""
    return _EPOCH + timedelta(0, 0, 0, min(max(ms, MIN_MS), MAX_MS))


def to_ms(when: datetime) -> int:
    """Milliseconds since the epoch; a naive datetime is taken as UTC."""
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    delta = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


class Draft(NamedTuple):
    """A record before it is stored. `time_ms` None means: the time found in the text, else the time of the append.

    `position` is the place in the source this draft came from (monotonic within one source; a second delivery of
    the same place is not stored twice). `raw` holds the original bytes where `value` is not their exact decoding.
    `vector` is a bring-your-own embedding, `(d,)` floats. `body` is where the message begins behind a line's header, None
    where nobody looked or a field has it.
    """

    value: str
    key: str | None = None
    time_ms: int | None = None
    attributes: Mapping[str, Scalar] = MappingProxyType({})
    partition: int | None = None
    position: int | None = None
    raw: bytes | None = None
    vector: Sequence[float] | None = None
    body: int | None = None


class Receipt(NamedTuple):
    """What an append acknowledges: where one draft is stored. `duplicate` is True where it already was."""

    topic: str
    partition: int
    offset: int
    seq: int
    duplicate: bool = False

    @property
    def address(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Appended(Shown):
    """The reply to an append. `wait` says how far the records had come when the reply was made; `stored` is durable."""

    records: tuple[Receipt, ...]
    wait: Literal["stored", "searchable"] = "stored"
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class Record(Shown):
    """One immutable entry of a topic. `seq` counts arrivals over all partitions, from 0."""

    topic: str
    partition: int
    offset: int
    seq: int
    timestamp: datetime
    appended: datetime
    key: str | None
    value: str
    attributes: Mapping[str, Any]

    @property
    def address(self) -> str:
        """`topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class RecordView(Tabular):
    """A record with the records around it in its topic (oldest first); `alike` are others in which a passage of it occurs,
    newest first."""

    record: Record
    before: tuple[Record, ...] = ()
    after: tuple[Record, ...] = ()
    alike: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A distinct unit of meaning. `count` is within the request's scope, `count_total` over all retained records."""

    id: int
    text: str
    count: int
    count_total: int
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """A code-point span `[start, end)` of a record's value."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit(Shown):
    """A search result: a passage's best record. `score` is 0 to 1, `scores` has each part's share on its own 0-1 scale;
    `distance` is in the topic's metric and None where no vector took part; `span` is the passage's place in `value`."""

    address: str
    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: str | None
    value: str
    attributes: Mapping[str, Any]
    score: float
    scores: Mapping[str, float]
    distance: float | None
    passage: Passage
    span: Span | None = None
    vector: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a topic has come, each as the next seq to do: records below it are `stored`, found by
    words (`keyword`), found by meaning (`semantic`)."""

    stored: int
    keyword: int
    semantic: int


@dataclass(frozen=True, slots=True)
class Coverage(Shown):
    """What a reply says of itself. `backlog` counts stored records not yet searchable by meaning, `searched` the
    records in scope (after filters), `omitted` what matched and is not in the reply; `notes` are for people."""

    watermark: Mapping[str, Watermark] = field(default_factory=dict)
    backlog: int = 0
    topics: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    searched: int = 0
    omitted: int = 0
    truncated: bool = False
    next_cursor: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchReply(Tabular):
    """Hits, best first, and what was searched: a sequence of hits. `explain` is filled on request: plan, candidates,
    timings in ms."""

    hits: tuple[Hit, ...]
    coverage: Coverage
    explain: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, index: int) -> Hit:
        return self.hits[index]

    def timeline(self) -> Any:
        """An altair.Chart of when the hits were; UsageError where altair is not installed."""
        from headwater.records import plots

        return plots.timeline(self)


@dataclass(frozen=True, slots=True)
class Page(Tabular):
    """Records in seq order and the cursor of the next page, None at the end."""

    records: tuple[Record, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A passage with its numbers in a time window: `count` in the window, `new` when first seen at or after the mark; `change`
    where rates before and after a mark are compared."""

    passage: Passage
    topic: str
    count: int
    new: bool
    level: str | None
    example: str  # address of its latest record
    change: Change | None = None
    fields: tuple[FieldValues, ...] = ()  # what its places hold, where that was asked for


@dataclass(frozen=True, slots=True)
class PatternsReply(Tabular):
    """Patterns, most frequent first (new ones first when a mark was given)."""

    patterns: tuple[Pattern, ...]
    coverage: Coverage


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bar of a histogram: the `count` of records from `start` on, over all topics and for each; `levels` counts those
    that have a level."""

    start: datetime
    count: int
    topics: Mapping[str, int]
    levels: Mapping[str, int] = field(default_factory=dict)  # of records that have one


@dataclass(frozen=True, slots=True)
class Timeline(Tabular):
    """Records that match, by time: equal buckets of `interval_s` seconds, oldest first; `markers` are what stands out in these
    topics meanwhile, `leads` hints which of them came first, none where that is not clear."""

    buckets: tuple[Bucket, ...]
    interval_s: float
    coverage: Coverage
    markers: tuple[Marker, ...] = ()
    leads: tuple[Lead, ...] = ()

    def plot(self) -> Any:
        """An altair.Chart of the counts, coloured by topic; UsageError where altair is not installed."""
        from headwater.records import plots

        return plots.timeline(self)


@dataclass(frozen=True, slots=True)
class Embedded(Shown):
    """Unit vectors of texts, in their order: `vectors` is `(n, dimension)`."""

    model: str
    dimension: int
    vectors: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Citation:
    """A quote and where it stands: the code-point span `[start, end)` of the record's stored value. `verified` means
    located there byte for byte; `supported` is the separate judgement that it backs the sentence citing it. `page` (from 1) and
    what it counts are those of a document that has pages."""

    n: int
    address: str
    quote: str
    start: int
    end: int
    verified: bool
    supported: bool = True
    timestamp: datetime | None = None
    page: int | None = None
    page_kind: Literal["page", "slide", "sheet"] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A cited reply. `text` carries `[n]` marks that refer to `citations`; `unsupported` lists its sentences without
    a verified citation; `abstained` is True where support was too weak to answer. `confidence` is 0 to 1; `usage` counts what
    it took (tokens, records, sentences), `timings` are in ms by step."""

    id: str
    question: str
    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    abstained: bool
    confidence: float
    coverage: Coverage
    model: str
    usage: Mapping[str, int]
    timings: Mapping[str, float]

    def __str__(self) -> str:
        from headwater.records import frames

        return frames.answer_text(self.text, self.citations, self._made())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        from headwater.records import frames

        return frames.answer_html(self.text, self.citations, self._made())

    def _made(self) -> str:
        unsupported = f"; {len(self.unsupported)} sentences without support" if self.unsupported else ""
        return f"{self.model}, confidence {self.confidence:.2f}{unsupported}"


@dataclass(frozen=True, slots=True)
class IndexInfo(Shown):
    """The index of one topic: how it is made, how large it is, and its state: `off` (keyword only), `building` (`progress`
    says how far), `ready`, `damaged` (a segment is, its passages are searched exactly until it is rebuilt), `stalled`
    (`error` says why). `dimension` is the length of its vectors; of `count_vectors` for `count_passages`, `tail` are in no
    segment yet. `kind` is that of segments: hnsw, flat or ivf; `dead` counts removed vectors that still take up space;
    `rebuilt` and `damaged` count segments since the start."""

    topic: str
    model: str | None
    dimension: int | None
    metric: str
    passages: str
    hnsw: Mapping[str, int]
    count_passages: int
    count_vectors: int
    tail: int
    segments: tuple[Mapping[str, Any], ...]
    state: str
    error: str | None = None
    kind: str = "hnsw"
    ivf: Mapping[str, int] = field(default_factory=dict)
    dead: int = 0
    progress: Progress | None = None
    problems: tuple[str, ...] = ()
    rebuilt: int = 0
    damaged: int = 0
    shadow: Shadow | None = None


@dataclass(frozen=True, slots=True)
class Topic(Shown):
    """A topic with its configuration and counts of `records`, `passages`, `partitions` and `dead_letters`; `collapse` is
    records per passage, `bytes` the stored text, `rate` records/s over the last minute, `heads` the next offset of each
    partition."""

    name: str
    partitions: int
    config: Mapping[str, Any]
    records: int
    passages: int
    collapse: float  # records per passage
    bytes: int
    rate: float
    first: datetime | None
    last: datetime | None
    watermark: Watermark
    dead_letters: int
    heads: tuple[int, ...] = ()  # the next offset of each partition


@dataclass(frozen=True, slots=True)
class DeadLetter(Shown):
    """A record or input that could not be processed; nothing else waits for it."""

    id: int
    topic: str
    stage: str
    reason: str
    address: str | None
    source: str | None
    payload: str
    created: datetime


@dataclass(frozen=True, slots=True)
class SourceInfo(Shown):
    """One source: what it reads, how far behind it is (`lag`, bytes or messages) and its last error. `entry` is the name it
    is paused, resumed and removed by, which the files of one glob share; `origin` says where that entry is kept: settings,
    argument, live (added while the daemon ran, kept in the data directory) or default. `rate` is records/s over the last
    minute, `counts` what may have cost records (`dropped`, `bad_signature` ...)."""

    name: str
    kind: str
    topic: str
    state: str
    records: int
    lag: int | None
    error: str | None = None
    entry: str = ""
    origin: str = "settings"
    paused: bool = False
    rate: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status(Shown):
    """One look at a running engine: whether verbs can be called (`ready`), its topics and sources, and what is wrong in words
    that say how to mend it (`problems`). `pid` is its process; `watches`, `detectors`, `pipelines` and `webhooks` count by
    state. `model` embeds, `chat_model` answers."""

    version: str
    ready: bool
    data_dir: str
    url: str | None
    pid: int
    uptime_s: float
    model: str | None
    topics: tuple[Topic, ...]
    sources: tuple[SourceInfo, ...]
    problems: tuple[str, ...]
    watches: Mapping[str, int] = field(default_factory=dict)
    detectors: Mapping[str, int] = field(default_factory=dict)
    pipelines: Mapping[str, int] = field(default_factory=dict)
    chat_model: str | None = None
    webhooks: Mapping[str, int] = field(default_factory=dict)


def address(topic: str, partition: int, offset: int) -> str:
    """`topic/partition/offset`."""
    return f"{topic}/{partition}/{offset}"


def parse_address(text: str) -> tuple[str, int, int]:
    """`(topic, partition, offset)` of `topic/partition/offset`; UsageError for anything else."""
    from headwater.errors import UsageError

    parts = text.strip().removeprefix("headwater://records/").split("/")
    if len(parts) == 3 and TOPIC_NAME.fullmatch(parts[0]) and all(re.fullmatch(r"[0-9]{1,18}", p) for p in parts[1:]):
        return parts[0], int(parts[1]), int(parts[2])
    raise UsageError(f"{text!r} is not a record address; write topic/partition/offset, as in logs/0/42")
