"""Numbers for Prometheus: what is counted as it happens, and what is read off the engine when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headwater.api import pipeline_metrics
from headwater.records import IndexInfo, Status
from headwater.records.labels import Pipeline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._seconds = Histogram(
            "headwater_request_seconds", "Time to answer, by verb.", ["verb"], buckets=_BUCKETS, registry=self._registry
        )
        self._of = {verb: self._seconds.labels(verb) for verb in ("append", "search", "ask", "complete")}

    @contextmanager
    def timed(self, verb: str) -> Iterator[None]:
        """Time what happens inside, failed or not."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._of[verb].observe(time.perf_counter() - started)

    def families(self, status: Status, indexes: Sequence[IndexInfo], pipelines: Sequence[Pipeline]) -> Iterator[Metric]:
        """What the page says, as families."""
        yield from self._registry.collect()
        yield from _Snapshot(status, indexes, pipelines).collect()

    def page(self, status: Status, indexes: Sequence[IndexInfo], pipelines: Sequence[Pipeline]) -> bytes:
        """The whole page: own numbers first, then those of the engine as its verbs of these names tell them."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Snapshot(status, indexes, pipelines))
        return generate_latest(self._registry) + generate_latest(registry)


class _Snapshot:
    """An engine's status as metric families."""

    def __init__(self, status: Status, indexes: Sequence[IndexInfo], pipelines: Sequence[Pipeline]) -> None:
        self._status, self._indexes, self._pipelines = status, indexes, pipelines

    def collect(self) -> Iterator[Metric]:
        status = self._status
        up = GaugeMetricFamily("headwater_uptime_seconds", "Time since the engine opened.")
        up.add_metric([], status.uptime_s)
        problems = GaugeMetricFamily("headwater_problems", "Problems the status lists.")
        problems.add_metric([], len(status.problems))
        yield from (up, problems, *self._topics(), *self._vectors(), *self._models(), *self._sources(), *self._watches())
        yield from (*self._detectors(), *self._webhooks())
        yield from pipeline_metrics.families(self._pipelines)

    def _topics(self) -> Iterator[Metric]:
        appended = CounterMetricFamily("headwater_records_appended", "Records ever stored.", labels=["topic"])
        retained = GaugeMetricFamily("headwater_records", "Records retained.", labels=["topic"])
        stored_bytes = GaugeMetricFamily("headwater_stored_bytes", "Text retained.", labels=["topic"])
        passages = GaugeMetricFamily("headwater_passages", "Distinct passages.", labels=["topic"])
        backlog = GaugeMetricFamily("headwater_backlog_records", "Stored, not yet searchable by meaning.", labels=["topic"])
        lag = GaugeMetricFamily("headwater_watermark_lag_records", "Behind the log, by index.", labels=["topic", "index"])
        dead = GaugeMetricFamily("headwater_dead_letters", "Input that could not be processed.", labels=["topic"])
        for topic in self._status.topics:
            mark = topic.watermark
            appended.add_metric([topic.name], mark.stored)
            retained.add_metric([topic.name], topic.records)
            stored_bytes.add_metric([topic.name], topic.bytes)
            passages.add_metric([topic.name], topic.passages)
            backlog.add_metric([topic.name], max(mark.stored - mark.semantic, 0))
            lag.add_metric([topic.name, "keyword"], max(mark.stored - mark.keyword, 0))
            lag.add_metric([topic.name, "semantic"], max(mark.stored - mark.semantic, 0))
            dead.add_metric([topic.name], topic.dead_letters)
        yield from (appended, retained, stored_bytes, passages, backlog, lag, dead)

    def _vectors(self) -> Iterator[Metric]:
        vectors = GaugeMetricFamily("headwater_index_vectors", "Vectors that searches find.", labels=["topic"])
        tail = GaugeMetricFamily("headwater_index_tail_vectors", "Of these, in the tail in memory.", labels=["topic"])
        dead = GaugeMetricFamily("headwater_index_dead_vectors", "Removed, not yet physically gone.", labels=["topic"])
        segments = GaugeMetricFamily("headwater_index_segments", "Sealed segments.", labels=["topic"])
        held = GaugeMetricFamily("headwater_index_segment_bytes", "Size of the segments on disk.", labels=["topic"])
        problems = GaugeMetricFamily("headwater_index_problems", "What is wrong now, rebuilt soon.", labels=["topic"])
        damaged = CounterMetricFamily("headwater_index_damaged", "Segments found damaged.", labels=["topic"])
        rebuilt = CounterMetricFamily("headwater_index_rebuilt", "Segments built anew.", labels=["topic"])
        for index in self._indexes:
            vectors.add_metric([index.topic], index.count_vectors)
            tail.add_metric([index.topic], index.tail)
            dead.add_metric([index.topic], index.dead)
            segments.add_metric([index.topic], len(index.segments))
            held.add_metric([index.topic], sum(int(segment["bytes"]) for segment in index.segments))
            problems.add_metric([index.topic], len(index.problems))
            damaged.add_metric([index.topic], index.damaged)
            rebuilt.add_metric([index.topic], index.rebuilt)
        yield from (vectors, tail, dead, segments, held, problems, damaged, rebuilt)

    def _detectors(self) -> Iterator[Metric]:
        seen = self._status.detectors
        on = GaugeMetricFamily("headwater_detectors", "Topics whose detectors are on.")
        on.add_metric([], seen.get("on", 0))
        found = GaugeMetricFamily("headwater_anomalies", "Anomalies there are, by what became of them.", labels=["state"])
        for state in ("found", "alerted", "dismissed"):
            found.add_metric([state], seen.get(state, 0))
        behind = GaugeMetricFamily("headwater_detectors_behind_records", "Records not judged by the detectors furthest behind.")
        behind.add_metric([], seen.get("behind", 0))
        yield from (on, found, behind)

    def _watches(self) -> Iterator[Metric]:
        seen = self._status.watches
        watches = GaugeMetricFamily("headwater_watches", "Watches, by state.", labels=["state"])
        for state in ("watching", "held up", "expired"):
            watches.add_metric([state], seen.get(state, 0))
        hits = GaugeMetricFamily("headwater_watch_hits", "Hits ever fired by the watches there are.")
        hits.add_metric([], seen.get("fired", 0))
        waiting = GaugeMetricFamily("headwater_watch_waiting", "Clients that wait for a watch.")
        waiting.add_metric([], seen.get("waiting", 0))
        behind = GaugeMetricFamily("headwater_watch_behind_records", "Records not judged by the watch furthest behind.")
        behind.add_metric([], seen.get("behind", 0))
        yield from (watches, hits, waiting, behind)

    def _webhooks(self) -> Iterator[Metric]:
        seen = self._status.webhooks
        hooks = GaugeMetricFamily("headwater_webhooks", "Webhooks, by state.", labels=["state"])
        for state in ("ready", "failing", "paused"):
            hooks.add_metric([state], seen.get(state, 0))
        calls = GaugeMetricFamily("headwater_webhook_calls", "Calls of webhooks, by their state.", labels=["state"])
        for state in ("sent", "waiting", "given up", "dropped"):
            calls.add_metric([state], seen.get(state, 0))
        yield from (hooks, calls)

    def _models(self) -> Iterator[Metric]:
        labels = ["topic", "model"]
        waiting = GaugeMetricFamily("headwater_index_waiting", "Passages still to embed.", labels=labels)
        rate = GaugeMetricFamily("headwater_index_embedding_rate", "Passages embedded a second.", labels=labels)
        overlap = GaugeMetricFamily("headwater_index_shadow_overlap", "Overlap@10 with the live model.", labels=labels)
        for index in self._indexes:
            shelves = [(index.model, index.progress)] if index.model is not None else []
            if (shadow := index.shadow) is not None:
                shelves.append((shadow.model, shadow.progress))
                if shadow.comparison is not None:
                    overlap.add_metric([index.topic, shadow.model], shadow.comparison.overlap)
            for model, progress in shelves:
                left = 0 if progress is None else progress.total - progress.done
                waiting.add_metric([index.topic, str(model)], left)
                rate.add_metric([index.topic, str(model)], 0.0 if progress is None or not left else progress.rate)
        yield from (waiting, rate, overlap)

    def _sources(self) -> Iterator[Metric]:
        labels = ["source", "topic"]
        stored = CounterMetricFamily("headwater_source_records", "Records stored since the start.", labels=labels)
        rate = GaugeMetricFamily("headwater_source_rate", "Records a second, over the last minute.", labels=labels)
        lag = GaugeMetricFamily("headwater_source_lag", "Bytes or messages not yet read.", labels=labels)
        failing = GaugeMetricFamily("headwater_source_failing", "1 while a source has an error.", labels=labels)
        paused = GaugeMetricFamily("headwater_source_paused", "1 while a source is paused.", labels=labels)
        counts = GaugeMetricFamily("headwater_source_counts", "What may have cost records.", labels=[*labels, "what"])
        for source in self._status.sources:
            of = [source.name, source.topic]
            stored.add_metric(of, source.records)
            rate.add_metric(of, source.rate)
            if source.lag is not None:
                lag.add_metric(of, source.lag)
            failing.add_metric(of, float(source.error is not None))
            paused.add_metric(of, float(source.paused))
            for what, count in source.counts.items():
                counts.add_metric([*of, what], count)
        yield from (stored, rate, lag, failing, paused, counts)
