"""One topic's indexes, and how far each has come: written by the indexer, read by search."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from headwater.config import TopicConfig
from headwater.embed import Embedder, Fallback
from headwater.log.catalogue import Catalogue
from headwater.log.secrets import PSEUDONYMS, secret
from headwater.log.shadows import ShadowRow
from headwater.log.store import Log, TopicRow
from headwater.passages import Mapper
from headwater.records import PassageForm, Watermark
from headwater.redacting import Redacting
from headwater.vectors import VectorIndex

_PACE_S = 60.0


class Pace:
    """How many things a second were done over the last minute. Written by one thread at a time."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque(maxlen=4096)

    def step(self, count: int) -> None:
        """So many were done since the last step; `step(0)` begins to count."""
        self._steps.append((time.monotonic(), count))

    @property
    def rate(self) -> float:
        """Per second; 0.0 while nothing is known."""
        now = time.monotonic()
        steps = [step for step in tuple(self._steps) if now - step[0] <= _PACE_S]
        if len(steps) < 2:
            return 0.0
        return round(sum(count for _, count in steps[1:]) / max(now - steps[0][0], 1e-3), 3)


@dataclass(slots=True, eq=False)
class Standby:
    """The index of what a local model embedded while the topic's own was down. It is emptied when that has caught up."""

    fallback: Fallback
    catalogue: Catalogue
    vectors: VectorIndex
    next_passage: int = 0


@dataclass(slots=True, eq=False)
class Shadow:
    """The index of a second model, made and kept up to date beside the live one; it answers no search. `upto` is the seq
    below which every record's passages have been looked at; `refused` counts texts that the model would not embed."""

    row: ShadowRow
    embedder: Embedder | None
    catalogue: Catalogue
    vectors: VectorIndex | None = None
    next_passage: int = 0
    upto: int = -1
    refused: int = 0
    error: str | None = None
    retry_at: float = 0.0
    pace: Pace = field(default_factory=Pace)


@dataclass(slots=True, eq=False)
class TopicIndex:
    """One topic's indexes and how far they have come. Written by the indexer, read by search."""

    row: TopicRow
    config: TopicConfig
    catalogue: Catalogue
    embedder: Embedder | None
    vectors: VectorIndex | None = None
    standby: Standby | None = None
    shadow: Shadow | None = None
    mapper: Mapper | None = None
    redacting: Redacting | None = None
    aliases: dict[int, int] = field(default_factory=dict)
    families: dict[int, list[int]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    stored: int = 0
    mapped: int = 0
    keyword: int = 0
    semantic: int = 0
    next_passage: int = 0
    error: str | None = None
    retry_at: float = 0.0
    waiting_since: float | None = None
    asked: float = 0.0  # when it was last searched, by the monotonic clock
    closed: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def kind(self) -> PassageForm:
        """How records are cut; `exact` while `auto` has not decided."""
        kind = self.mapper.kind if self.mapper is not None else self.row.passages or self.config.passages
        return "template" if kind == "template" else "chunks" if kind == "chunks" else "exact"

    def configure(self, config: TopicConfig, log: Log) -> None:
        """Let settings hold: those that its indexes do not depend on."""
        self.config = config
        self.redacting = Redacting(config.redact, secret(log, PSEUDONYMS)) if config.redact else None

    def watermark(self) -> Watermark:
        return Watermark(self.stored, self.keyword, self.semantic if self.embedder is not None else self.keyword)

    def shelves(self) -> Iterator[tuple[Embedder, VectorIndex]]:
        """The vector indexes that hold something of this topic, each with the model that made it."""
        if self.embedder is not None and self.vectors is not None:
            yield self.embedder, self.vectors
        if self.standby is not None and self.standby.vectors.counts.vectors:
            yield self.standby.fallback.local, self.standby.vectors

    @property
    def wants_vectors(self) -> bool:
        """Whether mapped records wait for the meaning of a passage, or a standby waits to be emptied."""
        if self.embedder is None or self.closed:
            return False
        return self.semantic < self.mapped or (self.standby is not None and bool(self.standby.vectors.counts.vectors))

    @property
    def shadow_wants(self) -> bool:
        """Whether mapped records wait for vectors of the second model."""
        shadow = self.shadow
        return shadow is not None and shadow.embedder is not None and not self.closed and shadow.upto < self.mapped

    def indexes(self) -> list[VectorIndex]:
        """Every vector index of this topic that is open, the shadow's too."""
        standby = None if self.standby is None else self.standby.vectors
        shadow = None if self.shadow is None else self.shadow.vectors
        return [index for index in (self.vectors, standby, shadow) if index is not None]

    def embedders(self) -> list[Embedder]:
        """The models whose vectors this topic waits for: its own, and the shadow's."""
        second = None if self.shadow is None else self.shadow.embedder
        return [embedder for embedder in (self.embedder, second) if embedder is not None]

    def close(self) -> None:
        """Let go of the vector indexes."""
        for index in self.indexes():
            index.close()

    def resolve(self, passage: int) -> int:
        """The surviving passage."""
        return self.aliases.get(passage, passage)

    def family(self, passage: int) -> list[int]:
        """A surviving passage with all that are aliases of it."""
        return [passage, *self.families.get(passage, ())]

    def learn_aliases(self, aliases: dict[int, int]) -> None:
        for old, new in aliases.items():
            moved = [old, *self.families.pop(old, ())]
            for member in moved:
                self.aliases[member] = new
            self.families.setdefault(new, []).extend(moved)
        if aliases:
            self.known = {text: aliases.get(id, id) for text, id in self.known.items()}
