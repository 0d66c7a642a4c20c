"""What makes passages findable by meaning: those without a vector go to the topic's model, vectors to log and index.

While a remote model is down and the settings name a fallback, a local model embeds what waits into an index of its own
(`Standby`); vectors of the two are never compared. When the topic's model is back it embeds everything from its own cursor,
and the standby is emptied once it has caught up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import apsw
import numpy as np

from headwater import telemetry
from headwater.config import Settings, TopicConfig
from headwater.embed import Embedder, Fallback
from headwater.errors import ConfigError, EmbedError, HeadwaterError, UsageError
from headwater.index.topic import Shadow, Standby, TopicIndex
from headwater.log import shadows
from headwater.log.catalogue import SEMANTIC, Catalogue, PassageRow, drop_vectors, model_id, store_vectors
from headwater.log.store import Log, TopicRow, add_dead_letter, set_cursor
from headwater.passages import embedding_text
from headwater.vectors import Clients, Hnsw, Ivf, VectorIndex

logger = logging.getLogger(__name__)
_STEP = 256  # passages between two semantic commits
_NEVER = 1 << 60
_ASKED_S, _LEFT = 5.0, 2  # for so long after a search, a second model leaves others that many times the time it took


class Embedding:
    """Embeds the passages of topics. `step` is called over and over by the indexer."""

    def __init__(
        self,
        log: Log,
        settings: Settings,
        directory: Path,
        *,
        fallback_of: Callable[[Embedder], Fallback | None],
        clock_ms: Callable[[], int],
    ) -> None:
        self._log, self._settings, self._directory = log, settings, directory
        self._fallback_of, self._clock_ms = fallback_of, clock_ms
        self._clients = Clients()
        self.storing = threading.Lock()  # none are stored for a topic that is being closed, nor while passages go

    def open(self, topic: TopicIndex) -> None:
        """Open the topic's vector index from what the log holds, and its standby where the settings name one."""
        assert topic.embedder is not None
        self.stand_by(topic)
        dimension = topic.embedder.dimension or topic.catalogue.dimension()
        if dimension is not None:  # else a remote model tells it with the first vectors
            topic.vectors = self._opened(topic.row, topic.config, topic.catalogue, dimension)

    def stand_by(self, topic: TopicIndex) -> None:
        """Open the index of the local model that embeds while the topic's own is down, where the settings name one."""
        if topic.embedder is None or topic.standby is not None:
            return
        fallback, second = self._fallback_of(topic.embedder), shadows.read(self._log, topic.row.id)
        if fallback is not None and (second is None or second.name != fallback.local.name):  # else its vectors are the shadow's
            topic.standby = self._open_standby(topic, fallback)

    def configure(self, topic: TopicIndex) -> None:
        """Tell the topic's vector indexes of its settings; they serve as they are until segments have been built anew."""
        config = topic.config
        hnsw = Hnsw(config.hnsw_m, config.hnsw_ef_construction, config.hnsw_ef_search)
        for index in topic.indexes():
            index.configure(kind=config.index_kind, hnsw=hnsw, ivf=Ivf(config.ivf_cells, config.ivf_n_probe))

    def _opened(self, row: TopicRow, config: TopicConfig, catalogue: Catalogue, dimension: int) -> VectorIndex:
        assert catalogue.model is not None
        vectors = VectorIndex(
            home_of(self._directory, row, catalogue.model),
            catalogue,
            dimension=dimension,
            metric=config.metric,
            kind=config.index_kind,
            hnsw=Hnsw(config.hnsw_m, config.hnsw_ef_construction, config.hnsw_ef_search),
            ivf=Ivf(config.ivf_cells, config.ivf_n_probe),
            seal_at=self._settings.index.seal_at,
            max_segments=self._settings.index.max_segments,
            clients=self._clients,
        )
        vectors.open()
        return vectors

    def _open_standby(self, topic: TopicIndex, fallback: Fallback) -> Standby:
        """The standby index lies in memory alone; its vectors are in the log like all others."""
        name, dimension = fallback.local.name, fallback.local.dimension
        assert dimension is not None
        model = self._log.write(lambda db: model_id(db, name))
        catalogue = Catalogue(self._log, topic.row.id, model, topic.row.generation)
        hnsw = Hnsw(topic.config.hnsw_m, topic.config.hnsw_ef_construction, topic.config.hnsw_ef_search)
        vectors = VectorIndex(
            None, catalogue, dimension=dimension, metric=topic.config.metric, hnsw=hnsw, seal_at=_NEVER, max_segments=1
        )
        vectors.open()
        return Standby(fallback, catalogue, vectors)

    async def step(self, topic: TopicIndex) -> bool:
        """Embed the next passages that have no vector; False when there is nothing to do or the model is not answering."""
        assert topic.embedder is not None
        if topic.embedder.name == "external":
            return await anyio.to_thread.run_sync(self._take_external, topic)
        upto = topic.mapped
        rows = await anyio.to_thread.run_sync(topic.catalogue.pending, topic.next_passage, _STEP)
        if not rows:
            if topic.standby is not None and topic.standby.vectors.counts.vectors:
                await anyio.to_thread.run_sync(self._clear_standby, topic)
            moved = topic.semantic < min(upto, topic.keyword)
            topic.semantic = max(topic.semantic, min(upto, topic.keyword))
            return moved
        kind = topic.kind
        texts = [embedding_text(kind, r.text, r.context) for r in rows]
        try:
            vectors = await self._embed(topic, texts)
        except EmbedError as error:
            topic.error = str(error)
            topic.retry_at = time.monotonic() + min(max(error.retry_after_s or 1.0, 0.2), 60.0)
            logger.warning("topic %s: meaning search is held up: %s", topic.row.name, error)
            return await self._stand_in(topic)
        except HeadwaterError as error:
            await self._embed_singly(topic, rows, texts, error)
            return True
        await anyio.to_thread.run_sync(self._store_vectors, topic, [r.id for r in rows], vectors, rows[-1].id + 1)
        topic.error = None
        return True

    @telemetry.traced("headwater.embed")
    async def _embed(self, topic: TopicIndex, texts: Sequence[str]) -> np.ndarray:
        """`(n, d)` by the topic's own model, and no other."""
        assert topic.embedder is not None
        telemetry.note(topic=topic.row.name, model=topic.embedder.name, texts=len(texts))
        if topic.standby is not None:
            return await topic.standby.fallback.embed_as(topic.embedder.name, texts, "passage")
        return await topic.embedder.embed(texts, "passage")

    async def _stand_in(self, topic: TopicIndex) -> bool:
        """The topic's model is down: let the local one embed what waits, into an index of its own."""
        if (standby := topic.standby) is None:
            return False
        worked, start = False, max(topic.next_passage, standby.next_passage)
        while rows := await anyio.to_thread.run_sync(standby.catalogue.pending, start, _STEP):
            texts = [embedding_text(topic.kind, r.text, r.context) for r in rows]
            vectors = await standby.fallback.local.embed(texts, "passage")
            await anyio.to_thread.run_sync(self._store_standby, topic, standby, [r.id for r in rows], vectors)
            start = standby.next_passage = rows[-1].id + 1
            worked = True
        return worked

    def _store_standby(self, topic: TopicIndex, standby: Standby, ids: list[int], vectors: np.ndarray) -> None:
        model = standby.catalogue.model
        assert model is not None
        with self.storing:
            if topic.closed:
                return
            self._log.write(lambda db: store_vectors(db, topic.row.id, model, ids, vectors, None), rows=len(ids))
            standby.vectors.add(*_kept(standby.catalogue, ids, vectors))

    def _clear_standby(self, topic: TopicIndex) -> None:
        """The topic's own model has caught up: what stood in for it goes."""
        assert topic.standby is not None
        standby = topic.standby
        self._log.write(lambda db: drop_vectors(db, topic.row.id, standby.catalogue.model))
        topic.standby = self._open_standby(topic, standby.fallback)
        standby.vectors.close()

    async def _embed_singly(
        self, topic: TopicIndex, rows: Sequence[PassageRow], texts: Sequence[str], first: HeadwaterError
    ) -> None:
        """One text of a batch is refused: find it, set it aside as a dead letter, embed the others."""
        assert topic.embedder is not None
        for row, text in zip(rows, texts, strict=True):
            if topic.closed:
                return
            try:
                vectors = await self._embed(topic, [text])
            except UsageError as error:
                await anyio.to_thread.run_sync(self._set_aside, topic, row, f"{topic.embedder.name}: {error}")
            else:
                await anyio.to_thread.run_sync(self._store_vectors, topic, [row.id], vectors, row.id + 1)

    def _set_aside(self, topic: TopicIndex, row: PassageRow, reason: str) -> None:
        write = _dead_passage(topic.row.id, reason, row.text[:4096], self._clock_ms(), row.first_seq, row.id + 1)
        with self.storing:
            if not topic.closed:
                self._log.write(write)
                topic.next_passage = row.id + 1

    def _store_vectors(self, topic: TopicIndex, ids: list[int], vectors: np.ndarray, upto: int) -> None:
        assert topic.catalogue.model is not None
        model = topic.catalogue.model
        with self.storing:
            if topic.closed:
                return  # deleted, or opened anew with other settings, while the model was at work
            self._log.write(lambda db: store_vectors(db, topic.row.id, model, ids, vectors, upto), rows=len(ids) or 1)
            if topic.vectors is None:
                self.open(topic)
            elif vectors.size:
                topic.vectors.add(*_kept(topic.catalogue, ids, vectors))
            topic.next_passage = upto
        topic.pace.step(len(ids))
        self.measure(topic)

    # ------------------------------------------------------------------ a second model

    def open_shadow(self, topic: TopicIndex, embedder_of: Callable[[str, TopicConfig], Embedder]) -> None:
        """Open the index of the topic's second model, where the log names one, to go on where it was."""
        row = shadows.read(self._log, topic.row.id)
        if row is None or row.state == "dropping":
            return
        catalogue = Catalogue(self._log, topic.row.id, row.model, topic.row.generation)
        topic.shadow = shadow = Shadow(row, None, catalogue, next_passage=row.next_passage)
        try:
            shadow.embedder = embedder_of(row.name, replace(topic.config, dimension=row.config.get("dimension")))
        except (ConfigError, EmbedError) as error:
            shadow.error = str(error)
            return
        shadow.pace.step(0)
        dimension = shadow.embedder.dimension or catalogue.dimension()
        if dimension is not None:
            shadow.vectors = self._opened(topic.row, topic.config, catalogue, dimension)

    async def step_shadow(self, topic: TopicIndex) -> bool:
        """Embed the next passages that have no vector of the second model; False when there is nothing to do or that model
        is not answering. The live index goes on whatever happens here; while the topic is searched, a pause follows."""
        shadow = topic.shadow
        if shadow is None or shadow.embedder is None:
            return False
        upto, began = topic.mapped, time.monotonic()
        rows = await anyio.to_thread.run_sync(shadow.catalogue.pending, shadow.next_passage, _STEP)
        if not rows:
            moved, shadow.upto = shadow.upto < upto, upto
            return moved
        texts = [embedding_text(topic.kind, r.text, r.context) for r in rows]
        ids: list[int] = [r.id for r in rows]
        try:
            try:
                vectors = await shadow.embedder.embed(texts, "passage")
            except UsageError:  # one text of them is refused
                ids, vectors = await self._acceptable(shadow, ids, texts)
        except HeadwaterError as error:
            wait_s = error.retry_after_s if isinstance(error, EmbedError) else None
            shadow.error, shadow.retry_at = str(error), time.monotonic() + min(max(wait_s or 1.0, 0.2), 60.0)
            return False
        await anyio.to_thread.run_sync(self._store_shadow, topic, shadow, ids, vectors, rows[-1].id + 1)
        shadow.error = None
        if (now := time.monotonic()) - topic.asked < _ASKED_S:
            shadow.retry_at = now + _LEFT * (now - began)
        return True

    async def _acceptable(self, shadow: Shadow, ids: list[int], texts: Sequence[str]) -> tuple[list[int], np.ndarray]:
        """Those passages that the second model embeds, one by one, and their vectors; the refused are counted."""
        assert shadow.embedder is not None
        kept: list[int] = []
        made: list[np.ndarray] = []
        for id, text in zip(ids, texts, strict=True):
            try:
                made.append(await shadow.embedder.embed([text], "passage"))
            except UsageError:
                shadow.refused += 1
            else:
                kept.append(id)
        return kept, np.concatenate(made) if made else np.empty((0, 0), np.float32)

    def _store_shadow(self, topic: TopicIndex, shadow: Shadow, ids: list[int], vectors: np.ndarray, upto: int) -> None:
        model = shadow.row.model
        with self.storing:
            if topic.closed or topic.shadow is not shadow:
                return  # given up, cut over, or opened anew, while the model was at work
            self._log.write(lambda db: shadows.store(db, topic.row.id, model, ids, vectors, upto), rows=len(ids) or 1)
            if shadow.vectors is None and vectors.size:
                shadow.vectors = self._opened(topic.row, topic.config, shadow.catalogue, vectors.shape[1])
            elif shadow.vectors is not None and vectors.size:
                shadow.vectors.add(*_kept(shadow.catalogue, ids, vectors))
            shadow.next_passage = upto
        shadow.pace.step(len(ids))

    def _take_external(self, topic: TopicIndex) -> bool:
        """Vectors that came with their records: read them back from the first record of each new passage."""
        rows = topic.catalogue.pending(topic.next_passage, _STEP)
        if not rows:
            moved = topic.semantic < topic.keyword
            topic.semantic = max(topic.semantic, topic.keyword)
            return moved
        places = {r.id: place.record for r in rows for place in topic.catalogue.latest([r.id])}
        blobs = self._log.vectors_of(list(places.values()))
        ids = [id for id, record in places.items() if record in blobs]  # the others came before the topic took vectors
        matrix = np.stack([np.frombuffer(blobs[places[id]], np.float32) for id in ids]) if ids else np.empty((0, 0), np.float32)
        if topic.config.metric == "cosine" and ids:
            matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        self._store_vectors(topic, ids, matrix, rows[-1].id + 1)
        return True

    def measure(self, topic: TopicIndex) -> None:
        if topic.embedder is None:
            topic.semantic = topic.keyword
            return
        waiting = topic.catalogue.pending(topic.next_passage, 1)
        topic.semantic = max(topic.semantic, min(waiting[0].first_seq if waiting else topic.mapped, topic.keyword))


def home_of(directory: Path, row: TopicRow, model: int) -> Path:
    """Where the segments of a topic's vectors of one model lie."""
    return directory / f"{row.id}-{row.generation}-{model}"


def _kept(catalogue: Catalogue, ids: Sequence[int], vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors that the log has kept, by passage: not those of passages that were forgotten meanwhile."""
    there = catalogue.rows(ids)
    stays = [i for i, id in enumerate(ids) if id in there]
    return np.asarray(ids, np.int64)[stays], _as_stored(vectors)[stays]


def _as_stored(vectors: np.ndarray) -> np.ndarray:
    """Vectors as they will be read back after a restart, so that results do not change then."""
    return vectors.astype(np.float16).astype(np.float32)


def _dead_passage(topic: int, reason: str, payload: str, now: int, seq: int, upto: int) -> Callable[[apsw.Connection], None]:
    def write(db: apsw.Connection) -> None:
        add_dead_letter(db, topic, "embed", reason, payload, now, seq=seq)
        set_cursor(db, topic, SEMANTIC, upto)

    return write
