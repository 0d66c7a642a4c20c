"""The topics of an engine: opened, made, changed, deleted; their models, retention and dead letters.

Plain synchronous code. Whatever takes a topic's indexes away holds `indexer.busy`, so that the indexer is not feeding them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import apsw

from headwater.config import INDEX_SETTINGS, EmbeddingSettings, Settings, TopicConfig, topic_config
from headwater.deletion import Deletion
from headwater.embed import Embedder, Fallback
from headwater.embed.cache import VectorCache
from headwater.embed.lookup import load
from headwater.errors import ConfigError, ConflictError, DamageError, EmbedError, NotFoundError, StorageError, UsageError
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log import catalogue, dropping, shadows
from headwater.log import conversations as conversation_store
from headwater.log.store import Log, Row, TopicRow, add_dead_letter, set_columns, set_cursor
from headwater.log.watches import seq_since
from headwater.passages import Mapper
from headwater.records import TOPIC_NAME

logger = logging.getLogger(__name__)
_FIXED = ("partitions", "passages", "field", "text_template", "dimension")
_LIGHT = {"semantic_weight", "retention_s", "retention_bytes", "retention_records", "oversize", "redact"}  # no index is touched
_SHAPE = set(INDEX_SETTINGS) - {"metric"}  # segments of other settings answer until they are built anew
_RELEASE_STEP = 5000
_FORGET_STEP = 10_000  # vectors deleted by one commit


class Embedders:
    """The embedders in use, each loaded once."""

    def __init__(self, settings: EmbeddingSettings, cache: VectorCache | None) -> None:
        self._settings, self.cache = settings, cache
        self._held: dict[tuple[str, int | None], Embedder] = {}
        self._fallbacks: dict[str, Fallback] = {}

    def get(self, name: str, config: TopicConfig) -> Embedder:
        """The embedder of that name; ConfigError or EmbedError says how to mend it."""
        key = (name, config.dimension)
        if key not in self._held:
            self._held[key] = load(name, self._settings, cache=self.cache, dimension=config.dimension)
        return self._held[key]

    def fallback(self, primary: Embedder) -> Fallback | None:
        """What stands in for a remote embedder while it is down, where the settings name one."""
        name = self._settings.fallback
        if name is None or primary.local or primary.name == name:
            return None
        if primary.name not in self._fallbacks:
            self._fallbacks[primary.name] = Fallback(primary, self.get(name, TopicConfig()))
        return self._fallbacks[primary.name]

    async def warm(self, name: str) -> None:
        """Load a local model before the first question needs it. What is wrong with it is said at its first use."""
        with contextlib.suppress(ConfigError, EmbedError):
            if name != "none" and (model := self.get(name, TopicConfig())).local:
                await model.embed(["ready"], "query")

    async def aclose(self) -> None:
        for embedder in self._held.values():
            await embedder.aclose()
        self._held.clear()


class Stock:
    """All topics. `problems` says what is wrong with which, for `status`."""

    def __init__(
        self, log: Log, keyword: KeywordIndex, indexer: Indexer, settings: Settings, vectors: Path, embedders: Embedders
    ) -> None:
        self._log, self._keyword, self._indexer, self._settings = log, keyword, indexer, settings
        self._vectors, self.embedders = vectors, embedders
        self.problems: dict[str, str] = {}
        self.deletion = Deletion(log, keyword, indexer, embedders.cache)

    # ------------------------------------------------------------------ finding

    def find(self, name: str) -> TopicIndex:
        """The topic of that name; NotFoundError."""
        for topic in list(self._indexer.topics.values()):
            if topic.row.name == name:
                return topic
        raise NotFoundError(f"no topic {name!r}; `headwater topics` lists them")

    def seq_at(self, topic: TopicIndex, at_ms: int) -> int:
        """The seq of a topic's first record that was appended at a time or later, else the next one."""
        return seq_since(self._log, topic.row.id, topic.row.first_seq, topic.stored, at_ms)

    def choose(self, names: Sequence[str] | None) -> tuple[TopicIndex, ...]:
        """The topics of those names, or all by name; NotFoundError."""
        if names is None:
            return tuple(sorted(self._indexer.topics.values(), key=lambda t: t.row.name))
        return tuple(self.find(name) for name in dict.fromkeys([names] if isinstance(names, str) else names))

    # ------------------------------------------------------------------ opening

    def open_all(self) -> None:
        """Bring every topic to where its cursors say, and finish deletions that a crash cut short."""
        while self._log.write(dropping.sweep):
            pass
        for row in self._log.topics():
            self._open(row)
            while self._log.write(functools.partial(shadows.drop_step, topic=row.id)):
                pass
        self.deletion.settle()
        known = {"-".join(map(str, home)) for home in shadows.homes(self._log)}
        for directory in self._vectors.glob("*") if self._vectors.is_dir() else ():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)

    def _open(self, row: TopicRow) -> None:
        config = topic_config(row.config)
        self.problems.pop(row.name, None)
        try:
            self._indexer.open(row, config)
        except (ConfigError, EmbedError) as error:
            # a missing model must not keep the records from being read: meaning search waits, everything else serves
            self.problems[row.name] = f"{row.name}: {error}"
            self._indexer.open(replace(row, model=None), config)

    def reopen(self, name: str) -> None:
        """Open a topic's indexes by what the log now says; until then the old ones serve. The caller holds `busy`."""
        self._open(self._log.topic(name))
        self._indexer.wake()

    # ------------------------------------------------------------------ changing

    def create(self, name: str, config: Mapping[str, Any]) -> None:
        """A new topic. UsageError for a bad name or setting; ConflictError where it exists with other settings."""
        if not TOPIC_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a topic; use letters, digits, dot, dash and underscore (at most 100)")
        settings = topic_config(config)
        model = settings.embedding_model or self._settings.embedding.model
        if model != "none":
            self.embedders.get(model, settings)  # an unknown model fails now, not at the first record
        with self._indexer.busy:
            try:
                row = self._log.create_topic(name, given(settings), None if model == "none" else model)
            except ConflictError:
                if topic_config(self._log.topic(name).config) == settings:
                    return
                raise
            self._open(row)

    def declare(self, name: str, config: TopicConfig) -> None:
        """Make a topic as the settings say, or change it so. What cannot be changed is kept and told as a problem."""
        try:
            self.create(name, asdict(config))
        except ConflictError:
            try:
                self.change(name, asdict(config))
            except UsageError as error:
                self.problems[name] = f"{name}: the settings cannot be applied: {error}"

    def change(self, name: str, config: Mapping[str, Any]) -> None:
        """Change settings; UsageError for those fixed once records exist."""
        topic = self.find(name)
        settings = topic_config(config, base=topic.config)
        if self._log.topic(name).next_seq:
            for fixed in _FIXED:
                if getattr(settings, fixed) != getattr(topic.config, fixed):
                    raise UsageError(f"{fixed} of {name!r} is fixed once records exist; make a new topic and ingest again")
        if settings.embedding_model != topic.config.embedding_model:
            mend = "delete {0}` takes it away" if settings.embedding_model == "none" else "rebuild {0} --model {1}` changes it"
            raise UsageError("the model is not a setting: `headwater index " + mend.format(name, settings.embedding_model))
        if settings.metric != topic.config.metric and topic.row.model == "external" and self._log.topic(name).next_seq:
            raise UsageError(f"metric of {name!r} is fixed once records with vectors of their own exist; make a new topic")
        with self._indexer.busy:
            topic = self.find(name)
            changed = {key for key, value in asdict(settings).items() if getattr(topic.config, key) != value}
            if changed <= _LIGHT | _SHAPE:
                self._log.update_topic(topic.row.id, config=given(settings))
                topic.configure(settings, self._log)
                if changed & _SHAPE:
                    self._indexer.embedding.configure(topic)
                return
            row = self._log.topic(name)
            self._indexer.save_marks().result()
            self._indexer.rest(row.id)
            try:  # segments of another metric are searched exactly until they have been built anew
                self._log.update_topic(row.id, config=given(settings))
            finally:
                self.reopen(name)

    def delete(self, name: str) -> None:
        """Delete a topic: gone for every reader at once, then its rows in steps."""
        with self._indexer.busy:
            topic = self.find(name)
            id = topic.row.id
            self._indexer.rest(id)
            try:
                # A crash before the last step leaves the topic whole: its words are fed again from the log.
                self._log.write(lambda db: set_cursor(db, id, catalogue.KEYWORD, 0))
                self._keyword.delete_topic(id)
                self._indexer.commit_keyword()
                self._log.write(lambda db: dropping.delete_topic(db, id))
            except StorageError:
                self.reopen(name)
                raise
            self._indexer.close_topic(id)
        self.problems.pop(name, None)
        self._remove(topic.row)
        while self._log.write(dropping.sweep):
            pass
        self._log.write(lambda db: conversation_store.purge(db, id))

    def set_model(self, name: str, model: str | None) -> None:
        """Embed a topic with another model, or with none. Its passages are read again; old vectors go."""
        topic = self.find(name)
        if model is not None and model != "none":
            self.embedders.get(model, topic.config)
            if topic.row.model == model and topic.embedder is not None:
                return  # it has this index already
        settings = replace(topic.config, embedding_model=model or "none")
        with self._indexer.busy:
            row = self._log.topic(name)
            columns = {
                "config": given(settings),
                "generation": row.generation + 1,
                "model": None if model == "none" else model,
            }
            self._indexer.save_marks().result()
            self._indexer.rest(row.id)
            try:
                self._log.write(lambda db: _begin_to_forget(db, row.id))
                while self._log.write(lambda db: catalogue.drop_vectors(db, row.id, None, limit=_FORGET_STEP)):
                    pass  # appends go on in between
                self._log.write(lambda db: set_columns(db, row.id, columns))
            finally:
                self.reopen(name)
        self._remove(row)

    def _remove(self, row: TopicRow) -> None:
        """Remove what lies on disk of a generation of a topic's vector indexes."""
        for directory in self._vectors.glob(f"{row.id}-{row.generation}-*"):
            shutil.rmtree(directory, ignore_errors=True)

    # ------------------------------------------------------------------ retention

    def expire(self) -> None:
        """Let go of what is past its retention, and of idempotency keys past their horizon."""
        now_ms = time.time_ns() // 1_000_000
        horizon = now_ms - self._settings.ingest.idempotency_days * 86_400_000
        self._log.write(lambda db: db.execute("DELETE FROM delivery WHERE created_ms < ?", (horizon,)).get)
        self.deletion.settle()
        for topic in self.choose(None):
            while (until := self._expired_until(topic, now_ms)) is not None:
                self._release_before(topic, until)

    def _expired_until(self, topic: TopicIndex, now_ms: int) -> int | None:
        """The seq below which at most one step's worth of records is past the topic's retention; None when none is."""
        row, config = self._log.topic(topic.row.name), topic.config
        oldest = self._log.rows(row.id, row.first_seq, _RELEASE_STEP, before=topic.keyword)
        gone = 0
        excess_records = row.records - config.retention_records if config.retention_records else 0
        excess_bytes = row.bytes - config.retention_bytes if config.retention_bytes else 0
        for record in oldest:
            too_old = config.retention_s is not None and record.appended_ms < now_ms - config.retention_s * 1000
            if not (too_old or excess_records > gone or excess_bytes > 0):
                break
            gone += 1
            excess_bytes -= len(record.value)
        return oldest[gone - 1].seq + 1 if gone else None

    def _release_before(self, topic: TopicIndex, seq: int) -> None:
        with self._indexer.busy:
            self.deletion.release(topic, [r.id for r in self._log.rows(topic.row.id, 0, _RELEASE_STEP, before=seq)])

    # ------------------------------------------------------------------ dead letters

    def set_aside(self, topic: TopicIndex, stage: str, reason: str, payload: str) -> None:
        """Keep input that cannot become a record."""
        now_ms = time.time_ns() // 1_000_000
        self._log.write(lambda db: add_dead_letter(db, topic.row.id, stage, reason, payload, now_ms))

    def replay(self, id: int) -> None:
        """Try a dead letter again; it goes when that succeeds, else the error is raised and it stays."""
        name, seq = self._log.dead_letter(id)
        if seq is None:
            raise UsageError(f"dead letter {id} holds input that never became a record; mend it and append it again")
        with self._indexer.busy:  # from before its record is read: nobody deletes it meanwhile
            topic = self.find(name)
            if rows := self._log.rows(topic.row.id, seq, 1, before=seq + 1):
                self._index_again(topic, rows)
        self._log.drop_dead_letter(id)
        self._indexer.wake()

    def _index_again(self, topic: TopicIndex, rows: Sequence[Row]) -> None:
        self._keyword.delete_records(topic.row.id, [r.seq for r in rows])
        if topic.catalogue.places([rows[0].id]):  # cut already, it is the model that refused it
            self._indexer.feed(topic, rows)
        else:
            self._cut_again(topic, rows)
        self._indexer.commit_keyword()
        topic.next_passage = 0
        self._log.write(lambda db: set_cursor(db, topic.row.id, catalogue.SEMANTIC, 0))

    def _cut_again(self, topic: TopicIndex, rows: Sequence[Row]) -> None:
        mapper = topic.mapper or Mapper(topic.kind, topic.config, self._settings.ingest, clock_ms=lambda: 0)
        batch = mapper.batch(rows, self._log.vectors_of([r.id for r in rows]))
        if batch.poison:
            self._indexer.feed(topic, rows)
            raise UsageError(f"it fails again: {batch.poison[0].reason}")
        self._indexer.store(topic, rows, batch, upto=topic.mapped)()

    async def aclose(self) -> None:
        for id in list(self._indexer.topics):
            self._indexer.close_topic(id)
        await self.embedders.aclose()


def open_keyword(log: Log, path: Path, memory_bytes: int) -> KeywordIndex:
    """The keyword index at `path`; one that is damaged or missing is built anew as the topics are opened."""
    if (path / "meta.json").exists():
        try:
            return KeywordIndex(path, memory_bytes=memory_bytes)
        except DamageError as error:
            logger.warning("%s; it is built anew from the log", error)
    # The cursors first: a crash in between must not leave an empty index that passes for a full one.
    log.write(lambda db: db.execute("DELETE FROM cursor WHERE name = ?", (catalogue.KEYWORD,)).get)
    shutil.rmtree(path, ignore_errors=True)
    return KeywordIndex(path, memory_bytes=memory_bytes)


def given(settings: TopicConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, and the partitions always: the log reads them."""
    plain = TopicConfig()
    return {"partitions": settings.partitions, **{k: v for k, v in asdict(settings).items() if v != getattr(plain, k)}}


def _begin_to_forget(db: apsw.Connection, topic: int) -> None:
    """Before a topic's vectors are deleted: a crash while they are leaves passages to embed, not gaps."""
    db.execute("DELETE FROM segment WHERE topic = ?", (topic,))
    db.execute("DELETE FROM shadow WHERE topic = ?", (topic,))
    set_cursor(db, topic, catalogue.SEMANTIC, 0)
