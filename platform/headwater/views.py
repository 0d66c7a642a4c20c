"""Topics with their numbers, and descriptions of their indexes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from headwater.config import IndexSettings, TopicConfig
from headwater.errors import NotFoundError
from headwater.index.indexer import Indexer
from headwater.index.topic import Pace, TopicIndex
from headwater.log import shadows
from headwater.log.store import Log, TopicRow
from headwater.records import IndexInfo, Topic, from_ms
from headwater.records.indexes import Comparison, Found, Progress, Shadow, SideBySide


class Rates:
    """Records per second of each topic over the last minute, from how far it had come at earlier looks."""

    def __init__(self) -> None:
        self._looks: dict[int, deque[tuple[float, int]]] = {}

    def look(self, topic: int, seq: int) -> float:
        now = time.monotonic()
        looks = self._looks.setdefault(topic, deque(maxlen=600))
        while looks and now - looks[0][0] > 60:
            looks.popleft()
        rate = (seq - looks[0][1]) / max(now - looks[0][0], 1e-3) if looks else 0.0
        if not looks or now - looks[-1][0] >= 0.1:
            looks.append((now, seq))
        return round(max(rate, 0.0), 3)


def problems(stock: Iterable[str], indexer: Indexer) -> tuple[str, ...]:
    """What is wrong now, in words: of the stock, of the indexer as a whole, of each topic."""
    topics = (f"{topic.row.name}: {topic.error}" for topic in indexer.topics.values() if topic.error)
    return (*stock, *filter(None, [indexer.problem]), *topics)


def topic_view(log: Log, row: TopicRow, topic: TopicIndex, rates: Rates, dead: int) -> Topic:
    """One topic with its numbers."""
    config = topic.config
    passages, first_ms, last_ms = topic.catalogue.span()
    oldest, newest = log.rows(row.id, row.first_seq, 1), log.rows_before(row.id, row.next_seq, 1)
    # records need not come in the order of their times; where some have gone, what passages remember may be theirs
    times = [one.time_ms for one in (*oldest, *newest)]
    times += [ms for ms in (first_ms, last_ms) if ms is not None] if row.records == row.next_seq else []
    settings = {name: getattr(config, name) for name in TopicConfig.__dataclass_fields__}
    settings["passages_in_use"], settings["model_in_use"] = row.passages, row.model
    return Topic(
        row.name,
        config.partitions,
        settings,
        row.records,
        passages,
        round(row.records / passages, 2) if passages else 0.0,
        row.bytes,
        rates.look(row.id, row.next_seq),
        from_ms(min(times)) if times else None,
        from_ms(max(times)) if times else None,
        replace(topic.watermark(), stored=row.next_seq),
        dead,
        log.heads(row.id, config.partitions),
    )


def index_view(log: Log, topic: TopicIndex, settings: IndexSettings, rebuild: Progress | None = None) -> IndexInfo:
    """The index of one topic, with how far a rebuild of it has come; its second model without samples."""
    mark, config, embedder = topic.watermark(), topic.config, topic.embedder
    counts = topic.vectors.counts if topic.vectors is not None else None
    problems = () if counts is None else counts.problems
    behind = mark.semantic < mark.stored
    state = "off" if embedder is None else "stalled" if topic.error else "building" if behind else "ready"
    if state == "ready" and problems:
        state = "damaged"
    progress = _embedding_progress(log, topic.row.id, topic.next_passage, topic.pace) if state in _GROWING else rebuild
    if state == "ready" and (progress := rebuild or _segments_progress(topic)) is not None:
        state = "building"
    return IndexInfo(
        topic=topic.row.name,
        model=None if embedder is None else embedder.name,
        dimension=None if embedder is None else embedder.dimension,
        metric=config.metric,
        passages=topic.kind,
        hnsw={"m": config.hnsw_m, "ef_construction": config.hnsw_ef_construction, "ef_search": config.hnsw_ef_search},
        count_passages=topic.catalogue.count(),
        count_vectors=0 if counts is None else counts.vectors,
        tail=0 if counts is None else counts.tail,
        segments=()
        if counts is None
        else tuple(
            {
                "name": s.name,
                "kind": s.kind,
                "count": s.living,
                "dead": s.dead,
                "bytes": s.bytes,
                "recall": s.recall,
                "ready": s.ready,
            }
            for s in counts.segments
        ),
        state=state,
        error=topic.error or "; ".join(problems) or None,
        kind=config.index_kind,
        ivf={"cells": config.ivf_cells, "n_probe": config.ivf_n_probe},
        dead=0 if counts is None else counts.dead,
        progress=progress,
        problems=problems,
        rebuilt=0 if counts is None else counts.rebuilt,
        damaged=0 if counts is None else counts.damaged,
        shadow=None if topic.shadow is None else shadow_view(log, topic, settings, samples=False),
    )


_GROWING = ("building", "stalled")


def _segments_progress(topic: TopicIndex) -> Progress | None:
    """Segments that are to be built for changed settings; None where all are as they should be."""
    segments = () if topic.vectors is None else topic.vectors.counts.segments
    if not any(one.due == "settings" for one in segments):
        return None
    return Progress("segments", sum(one.due is None for one in segments), len(segments), 0.0, None)


def _embedding_progress(log: Log, topic: int, start: int, pace: Pace) -> Progress:
    waiting, total = shadows.counted(log, topic, start)
    rate = pace.rate
    return Progress("embedding", total - waiting, total, rate, round(waiting / rate, 1) if rate else None)


def shadow_view(log: Log, topic: TopicIndex, settings: IndexSettings, *, samples: bool) -> Shadow:
    """The second model of a topic; NotFoundError where it has none. With `samples` answers of both side by side."""
    shadow, name = topic.shadow, topic.row.name
    if shadow is None:
        raise NotFoundError(f"{name!r} has no second model; `headwater index rebuild {name} --model X --shadow` builds one")
    row = shadow.row
    former = row.state == "former"
    error = shadow.error
    if error is None and shadow.refused:
        error = f"{shadow.refused} texts were refused by {row.name}; they are found by words alone with it"
    return Shadow(
        topic=name,
        model=row.name,
        live=topic.row.model or "none",
        state="former" if former else "ready" if row.state == "ready" else "building",
        threshold=row.threshold,
        progress=_embedding_progress(log, topic.row.id, shadow.next_passage, shadow.pace),
        comparison=None if row.report is None else _comparison(topic, row.report, samples=samples),
        started=from_ms(row.started_ms),
        changed=from_ms(row.changed_ms),
        kept_until=from_ms(row.changed_ms + int(settings.keep_former_s * 1000)) if former else None,
        error=error,
    )


def _comparison(topic: TopicIndex, report: Mapping[str, Any], *, samples: bool) -> Comparison:
    """As it was stored; the texts of its passages are looked up, those that are gone stay empty."""
    chosen = report["samples"] if samples else ()
    ids = {found["passage"] for one in chosen for side in ("live", "shadow") for found in one[side]}
    rows = topic.catalogue.rows(ids)

    def side(found: Sequence[Mapping[str, Any]]) -> tuple[Found, ...]:
        texts = (rows[f["passage"]].text if f["passage"] in rows else "" for f in found)
        return tuple(Found(f["passage"], text, f["score"], f["other_rank"]) for f, text in zip(found, texts, strict=True))

    shown = tuple(SideBySide(one["query"], one["overlap"], side(one["live"]), side(one["shadow"])) for one in chosen)
    measured = datetime.fromisoformat(report["measured"])
    numbers = {name: report[name] for name in ("overlap", "overlap_low", "queries", "source", "latency_ms")}
    return Comparison(**numbers, measured=measured, samples=shown)
