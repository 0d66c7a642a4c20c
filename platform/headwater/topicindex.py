"""One topic's indexes, and how far each has come: written by the indexer, read by search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headwater.catalogue import Catalogue
from headwater.config import TopicConfig
from headwater.embed import Embedder, Fallback
from headwater.log import TopicRow
from headwater.passages import Mapper
from headwater.records import PassageForm, Watermark
from headwater.vectors import VectorIndex


@dataclass(slots=True, eq=False)
class Standby:
    """The index of what a local model embedded while the topic's own was down. It is emptied when that has caught up."""

    fallback: Fallback
    catalogue: Catalogue
    vectors: VectorIndex
    next_passage: int = 0


@dataclass(slots=True, eq=False)
class TopicIndex:
    """One topic's indexes and how far they have come. Written by the indexer, read by search."""

    row: TopicRow
    config: TopicConfig
    catalogue: Catalogue
    embedder: Embedder | None
    vectors: VectorIndex | None = None
    standby: Standby | None = None
    mapper: Mapper | None = None
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
    closed: bool = False

    @property
    def kind(self) -> PassageForm:
        """How records are cut; `exact` while `auto` has not decided."""
        kind = self.mapper.kind if self.mapper is not None else self.row.passages or self.config.passages
        return "template" if kind == "template" else "chunks" if kind == "chunks" else "exact"

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

    def close(self) -> None:
        """Let go of the vector indexes."""
        if self.vectors is not None:
            self.vectors.close()
        if self.standby is not None:
            self.standby.vectors.close()

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
