"""Changing a topic's embedding model without a gap: the new model's index is built beside the live one, compared with it, and
takes its place in one step that can be taken back.

    start -> building: passages get vectors of the second model, new ones of both; the live index answers
          -> ready: overlap and latency measured on queries (`compare`)
          -> cut over, when told or where the overlap reaches the threshold: the log's rows change places in one transaction,
             and the topic's TopicIndex is replaced as a whole, so that no search ever sees vectors of one model and a
             query of the other
          -> former: the old model's index, still kept up to date: `roll_back` is the same step again

All of it is in the log; after a crash it goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import anyio.to_thread
import apsw
import numpy as np
import orjson

from headwater.config import INDEX_SETTINGS, Settings, TopicConfig, topic_config
from headwater.embed import Embedder
from headwater.embed.cache import Cached
from headwater.errors import ConflictError, HeadwaterError, NotFoundError, UsageError
from headwater.index.embedding import home_of
from headwater.index.indexer import Indexer
from headwater.index.rebuilding import Rebuilding
from headwater.index.topic import Shadow, TopicIndex
from headwater.log import shadows
from headwater.log.catalogue import drop_vectors
from headwater.log.shadows import Asked, ShadowRow
from headwater.log.store import Log
from headwater.records import from_ms
from headwater.records.indexes import Comparison, Found, SideBySide, SwapStep
from headwater.search.searching import unit_score
from headwater.stock import Stock, given
from headwater.vectors import VectorIndex

logger = logging.getLogger(__name__)
TOP = 10
MOST_QUERIES = 100
_ENOUGH_RECORDED = 10  # queries people asked, below which phrases of passages are asked instead
_SAMPLES = 5
_PHRASE_WORDS = 6
_RETRY_S = 5.0
_EXPIRE_S = 60.0
_WORD = re.compile(r"[^\W_]{2,}")


class Swaps:
    """The second models of all topics. Methods are plain synchronous code, but for `run` and `compare`."""

    def __init__(
        self, log: Log, indexer: Indexer, stock: Stock, rebuilding: Rebuilding, asked: Asked, settings: Settings,
        directory: Path, *, clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._log, self._indexer, self._stock, self._asked = log, indexer, stock, asked
        self._settings, self._directory, self._clock_ms = settings, directory, clock_ms
        self._rebuilding = rebuilding

    # ------------------------------------------------------------------ what surfaces ask for

    def create(self, name: str, model: str | None, settings: Mapping[str, Any]) -> None:
        """Give a topic a vector index: of that model, or the one it has, or the default, with these settings."""
        topic = self._stock.find(name)
        held = self._log.topic(name).model
        self._check(topic, held, model)
        if settings:
            self._stock.change(name, _index_settings(settings))
        if held is None or topic.embedder is None:
            self._stock.set_model(name, model or held or self._settings.embedding.model)
        elif model is not None and model != held:
            self.start(name, model, 0.0)

    def rebuild(self, name: str, model: str | None, shadow: bool, threshold: float | None, settings: Mapping[str, Any]) -> None:
        """Build a topic's index anew; with a model, of that one, beside the live index. Without `shadow` the new model takes
        over as soon as its index is complete."""
        if model is None and (shadow or threshold is not None):
            raise UsageError("a shadow is the index of another model; name it with model")
        if threshold is not None and not shadow:
            raise UsageError("threshold says when a shadow takes over; give shadow as well")
        topic = self._stock.find(name)
        held = self._log.topic(name).model
        self._check(topic, held, model)
        if settings:
            self._stock.change(name, _index_settings(settings))
        if model is None or (model == held and not shadow):
            if not settings:
                self._rebuilding.begin(topic)
        elif topic.embedder is None:
            self._stock.set_model(name, model)
        else:
            self.start(name, model, threshold if shadow else 0.0)

    def _check(self, topic: TopicIndex, held: str | None, model: str | None) -> None:
        """Refuse a model that cannot be had, or cannot take the place of the one that is held, before anything is changed."""
        if model is None or model == held:
            return
        if held == "external":
            raise UsageError(
                f"vectors of {topic.row.name!r} come with the records, {model} cannot make them; a new topic can have {model}"
            )
        if held is not None and model == "external":
            raise UsageError(
                f"{topic.row.name!r} is embedded with {held}; vectors come with the records only where a topic began so"
            )
        self._stock.embedders.get(model, replace(topic.config, dimension=None))

    def step(self, name: str, step: SwapStep) -> None:
        """Cut over to the second model, roll back to the former one, drop the second, or cancel what is being built."""
        if step == "cut-over":
            self._exchange(name, "ready")
        elif step == "roll-back":
            self._exchange(name, "former")
        elif step == "drop":
            self.drop(name)
        elif step == "cancel":
            topic = self._stock.find(name)
            if self._rebuilding.progress(topic) is None and topic.shadow is not None:
                self.drop(name, only=("building", "ready"))
            else:
                self._rebuilding.cancel(topic)
        else:
            raise UsageError(f"a step is cut-over, roll-back, drop or cancel, not {step!r}")

    def start(self, name: str, model: str, threshold: float | None) -> None:
        """Begin to build an index of another model beside the live one. With a threshold it takes its place by itself once
        it is complete and the overlap is at least that."""
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"threshold must be between 0 and 1, not {threshold}")
        with self._indexer.busy:
            topic = self._stock.find(name)
            if topic.embedder is None:
                raise UsageError(f"{name!r} has no model that answers; `headwater index create {name} --model {model}`")
            if topic.row.model == model:
                raise UsageError(f"{name!r} answers with {model} already")
            self._check(topic, topic.row.model, model)
            if (shadow := topic.shadow) is not None:
                if shadow.row.name != model or shadow.row.state == "former":
                    raise ConflictError(
                        f"{name!r} has an index of {shadow.row.name} beside the live one; "
                        f"`headwater index rebuild {name} --drop-old` forgets it"
                    )
                self._log.write(lambda db: shadows.expect(db, topic.row.id, threshold))
                shadow.row = shadow.row._replace(threshold=threshold)
                return
            config = {"embedding_model": model, "dimension": None}
            stands_in = topic.standby is not None and topic.standby.fallback.local.name == model
            while self._log.write(lambda db: shadows.drop_step(db, topic.row.id)):
                pass  # what a crash left of an earlier one
            now = self._clock_ms()
            self._log.write(lambda db: shadows.begin(db, topic.row.id, model, config, threshold, now))
            if stands_in:
                topic.standby = None  # from now on its vectors are the shadow's
            self._indexer.embedding.open_shadow(topic, self._stock.embedders.get)
            self._indexer.wake()

    def drop(self, name: str, *, only: Sequence[str] = ("building", "ready", "former")) -> None:
        """Forget the second model and its vectors; one that is being built is given up."""
        with self._indexer.busy:
            topic = self._stock.find(name)
            shadow = self._shadow(topic)
            if shadow.row.state not in only:
                raise UsageError(f"the index of {shadow.row.name} is {shadow.row.state}, not {' or '.join(only)}")
            heir = replace(topic, shadow=None)
            self._indexer.exchange(topic, heir, lambda db: shadows.let_go(db, topic.row.id))
        if shadow.vectors is not None:
            shadow.vectors.close()
        shutil.rmtree(home_of(self._directory, topic.row, shadow.row.model), ignore_errors=True)
        while self._log.write(lambda db: shadows.drop_step(db, topic.row.id)):
            pass

    def expire(self) -> None:
        """Forget former models whose time is over."""
        for topic in self._stock.choose(None):
            row = None if topic.shadow is None else topic.shadow.row
            if row is None or row.state != "former":
                continue
            if self._clock_ms() - row.changed_ms > self._settings.index.keep_former_s * 1000:
                self.drop(topic.row.name, only=("former",))

    # ------------------------------------------------------------------ the exchange

    def _shadow(self, topic: TopicIndex) -> Shadow:
        if topic.shadow is None:
            name = topic.row.name
            raise NotFoundError(f"{name!r} has no second model; `headwater index rebuild {name} --model X --shadow` builds one")
        return topic.shadow

    def _exchange(self, name: str, wanted: Literal["ready", "former"]) -> None:
        with self._indexer.busy:
            topic = self._stock.find(name)
            shadow = self._shadow(topic)
            row = shadow.row
            if row.state != wanted:
                raise UsageError(_REFUSED[wanted, row.state].format(name=name, model=row.name))
            if shadow.embedder is None:
                raise UsageError(f"the index of {row.name} cannot answer: {shadow.error}")
            now = self._clock_ms()
            former = {"embedding_model": topic.config.embedding_model, "dimension": topic.config.dimension}
            settings = topic_config(row.config, base=topic.config)
            if topic.embedder is None or topic.catalogue.model is None or topic.row.model is None:
                self._replace_missing(topic, row, settings, former, now)
                return
            behind = ShadowRow(
                row.topic, topic.catalogue.model, topic.row.model, "former" if wanted == "ready" else "ready", former, None,
                topic.next_passage, row.started_ms, now, row.report,
            )  # fmt: skip
            heir = replace(
                topic, row=replace(topic.row, model=row.name, config=given(settings)), config=settings,
                embedder=shadow.embedder, catalogue=shadow.catalogue, vectors=shadow.vectors, pace=shadow.pace,
                next_passage=shadow.next_passage, semantic=0, error=None, retry_at=0.0, standby=None,
                shadow=Shadow(
                    behind, topic.embedder, topic.catalogue, topic.vectors, topic.next_passage, upto=topic.semantic,
                    pace=topic.pace,
                ),
            )  # fmt: skip
            live, standby = topic.row.model, topic.standby

            def write(db: apsw.Connection) -> None:
                shadows.exchange(db, row, live, given(settings), former, now)
                if standby is not None and standby.catalogue.model not in (row.model, behind.model):
                    drop_vectors(db, row.topic, standby.catalogue.model)

            self._indexer.exchange(topic, heir, write)
            self._indexer.embedding.stand_by(heir)
        logger.info("topic %s is searched with %s now; %s is kept beside it", name, row.name, live)

    def _replace_missing(
        self, topic: TopicIndex, row: ShadowRow, settings: TopicConfig, former: Mapping[str, Any], now: int
    ) -> None:
        """Exchange with a model that could not be loaded, so that nothing of it is open. `busy` is held."""
        live = self._log.topic(topic.row.name).model
        if live is None:
            raise UsageError(
                f"{topic.row.name!r} has no model that answers; `headwater index create {topic.row.name}` gives it one"
            )
        self._indexer.save_marks()
        self._indexer.rest(row.topic)
        try:
            self._log.write(lambda db: shadows.exchange(db, row, live, given(settings), former, now))
        finally:
            self._stock.reopen(topic.row.name)

    # ------------------------------------------------------------------ comparing

    async def run(self) -> None:
        """Compare models whose index is complete, and cut over where that was agreed, until cancelled."""
        due = time.monotonic() + _EXPIRE_S
        while True:
            if time.monotonic() >= due:
                due = time.monotonic() + _EXPIRE_S
                await self._tidy()
            did = failed = False
            for topic in list(self._indexer.topics.values()):
                shadow = topic.shadow
                if shadow is None or shadow.row.state != "building" or shadow.upto < 0 or topic.closed:
                    continue
                try:
                    await self._finish(topic, shadow)
                    did = True
                except Exception as error:  # the top of a loop that nothing may end
                    if not isinstance(error, HeadwaterError):
                        logger.warning("topic %s: its models cannot be compared", topic.row.name, exc_info=error)
                    shadow.error, failed = f"it cannot be compared: {error or type(error).__name__}", True
            if not did:
                try:
                    async with asyncio.timeout(_RETRY_S if failed else _EXPIRE_S):
                        await self._indexer.moved()
                except TimeoutError:
                    continue

    async def _tidy(self) -> None:
        """What is due once a minute: queries written down, former models forgotten."""
        try:
            await anyio.to_thread.run_sync(self._asked.flush)
            await anyio.to_thread.run_sync(self.expire)
        except HeadwaterError as error:
            logger.warning("former models wait: %s", error)

    async def _finish(self, topic: TopicIndex, shadow: Shadow) -> None:
        comparison = await self.compare(topic)
        id, model, now = topic.row.id, shadow.row.model, self._clock_ms()
        report = _stored(comparison)
        await anyio.to_thread.run_sync(lambda: self._log.write(lambda db: shadows.judge(db, id, model, report, now)))
        current = self._indexer.topics.get(id)  # the topic may have been opened anew meanwhile
        if current is None or current.shadow is None or current.shadow.row.model != model:
            return
        current.shadow.row = current.shadow.row._replace(state="ready", report=report, changed_ms=now)
        threshold = current.shadow.row.threshold
        if threshold is not None and comparison.overlap >= threshold:
            await anyio.to_thread.run_sync(self._exchange, current.row.name, "ready")

    async def compare(self, topic: TopicIndex) -> Comparison:
        """Both models' meaning search on the same queries, now."""
        shadow = self._shadow(topic)
        queries, source = await anyio.to_thread.run_sync(self._queries, topic)
        sides: dict[str, list[_Answered]] = {"live": [], "shadow": []}
        pairs = (("live", topic.embedder, topic.vectors), ("shadow", shadow.embedder, shadow.vectors))
        for at, query in enumerate([*queries[:1], *queries]):
            for side, embedder, vectors in pairs:
                if embedder is not None and vectors is not None:
                    found = await _answer(topic, embedder, vectors, query)
                    if at:  # the first is asked twice: what a model does at its first query is not its latency
                        sides[side].append(found)
        if len(sides["live"]) != len(sides["shadow"]):  # one of them holds nothing yet
            sides = {"live": [], "shadow": []}
        compared = [_side_by_side(*triple) for triple in zip(queries, sides["live"], sides["shadow"], strict=False)]
        overlaps = sorted(one.overlap for one in compared) or [1.0]
        tenth = overlaps[: math.ceil(len(overlaps) / 10)]
        return Comparison(
            round(sum(overlaps) / len(overlaps), 4),
            round(sum(tenth) / len(tenth), 4),
            len(compared),
            source,
            {side: _latency(answers) for side, answers in sides.items()},
            from_ms(self._clock_ms()),
            tuple(sorted(compared, key=lambda one: one.overlap)[:_SAMPLES]),
        )

    def _queries(self, topic: TopicIndex) -> tuple[list[str], Literal["recorded", "passages"]]:
        """What to ask: the latest queries of people, or, where there are few, phrases of the topic's own passages."""
        recorded = self._asked.latest(topic.row.id, MOST_QUERIES)
        if len(recorded) >= _ENOUGH_RECORDED:
            return recorded, "recorded"
        phrases = [_phrase(text) for text in shadows.spread(self._log, topic.row.id, MOST_QUERIES)]
        return list(dict.fromkeys(p for p in phrases if p)), "passages"


_REFUSED = {
    ("ready", "building"): "the index of {model} is still being built; `headwater index describe {name}` shows how far it is",
    ("ready", "former"): "{name!r} was cut over already; `headwater index rebuild {name} --roll-back` goes back to {model}",
    ("former", "building"): "{name!r} was not cut over, nothing needs to be rolled back",
    ("former", "ready"): "{name!r} was not cut over, nothing needs to be rolled back",
}


@dataclass(frozen=True, slots=True)
class _Answered:
    passages: list[tuple[int, float]]  # (passage, score), best first
    embed_ms: float
    search_ms: float


async def _answer(topic: TopicIndex, embedder: Embedder, vectors: VectorIndex, query: str) -> _Answered:
    """The first ten living passages for a query, asked of the model itself and not of a cache."""
    bare = embedder.inner if isinstance(embedder, Cached) else embedder
    began = time.perf_counter()
    vector = (await bare.embed([query], "query"))[0]
    embedded = time.perf_counter()

    def search() -> tuple[np.ndarray, np.ndarray]:
        near = vectors.search(vector, TOP * 2)
        return near.ids, near.scores

    ids, scores = await anyio.to_thread.run_sync(search)
    searched = time.perf_counter()
    living = await anyio.to_thread.run_sync(topic.catalogue.rows, [topic.resolve(int(id)) for id in ids])
    best: dict[int, float] = {}
    for id, score in zip(ids.tolist(), scores.tolist(), strict=True):
        passage = topic.resolve(id)
        if passage not in best and passage in living and living[passage].total > 0:
            best[passage] = round(unit_score(topic, embedder, score), 4)
    return _Answered(list(best.items())[:TOP], (embedded - began) * 1000, (searched - embedded) * 1000)


def _side_by_side(query: str, live: _Answered, shadow: _Answered) -> SideBySide:
    """Both answers to a query, without texts (`described` adds them)."""
    ranks = [{passage: at for at, (passage, _) in enumerate(side.passages, 1)} for side in (live, shadow)]
    most = max(len(ranks[0]), len(ranks[1]))
    overlap = len(ranks[0].keys() & ranks[1].keys()) / most if most else 1.0
    lists = [
        tuple(Found(passage, "", score, other.get(passage)) for passage, score in side.passages)
        for side, other in ((live, ranks[1]), (shadow, ranks[0]))
    ]
    return SideBySide(query, round(overlap, 4), lists[0], lists[1])


def _latency(answers: Sequence[_Answered]) -> dict[str, float]:
    """p50 and p99 of both steps, in ms."""
    out: dict[str, float] = {}
    for name, values in (("embed", [a.embed_ms for a in answers]), ("search", [a.search_ms for a in answers])):
        for part in (50, 99):
            out[f"{name}_p{part}"] = round(float(np.percentile(values, part)), 3) if values else 0.0
    return out


def _phrase(text: str) -> str:
    """A few words from the middle of a text, as somebody might search for it."""
    words = _WORD.findall(text)
    start = max((len(words) - _PHRASE_WORDS) // 2, 0)
    return " ".join(words[start : start + _PHRASE_WORDS])


def _stored(comparison: Comparison) -> dict[str, Any]:
    """A comparison as the log keeps it: passages by id alone, their texts are looked up when it is shown."""
    stored: dict[str, Any] = orjson.loads(orjson.dumps(asdict(comparison)))
    return stored


def _index_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(set(settings) - set(INDEX_SETTINGS)):
        raise UsageError(f"{unknown[0]!r} is no setting of an index; there are {', '.join(INDEX_SETTINGS)}")
    return dict(settings)
