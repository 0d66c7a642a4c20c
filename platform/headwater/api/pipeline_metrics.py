"""Pipelines and their steps as metric families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from headwater.records.labels import Pipeline, StepStatus


def families(pipelines: Sequence[Pipeline]) -> Iterator[Metric]:
    """What each has read, written, set aside and cost, how far behind it is, and what its steps decided or knew."""
    states = GaugeMetricFamily("headwater_pipelines", "Pipelines, by state.", labels=["state"])
    for state in ("running", "held up", "stopped"):
        states.add_metric([state], sum(one.state == state for one in pipelines))
    yield states
    yield from _whole(pipelines)
    yield from _steps([(one.name, step) for one in pipelines for step in one.steps])


def _whole(pipelines: Sequence[Pipeline]) -> Iterator[Metric]:
    labels = ["pipeline"]
    records = CounterMetricFamily("headwater_pipeline_records", "Records processed.", labels=labels)
    written = CounterMetricFamily("headwater_pipeline_written", "Records written.", labels=labels)
    passages = CounterMetricFamily("headwater_pipeline_passages", "Passages of blocks.", labels=labels)
    dead = CounterMetricFamily("headwater_pipeline_dead_letters", "Dead letters left.", labels=labels)
    rate = GaugeMetricFamily("headwater_pipeline_rate", "Records a second, over the last minute.", labels=labels)
    behind = GaugeMetricFamily("headwater_pipeline_behind_records", "Stored, not processed yet.", labels=labels)
    held = GaugeMetricFamily("headwater_pipeline_held_up", "1 while something holds it up.", labels=labels)
    tokens = CounterMetricFamily("headwater_pipeline_tokens", "Tokens of chat models.", labels=[*labels, "kind"])
    cost = CounterMetricFamily("headwater_pipeline_cost_dollars", "What they cost, where known.", labels=labels)
    for one in pipelines:
        of = [one.name]
        records.add_metric(of, one.records)
        written.add_metric(of, one.written)
        passages.add_metric(of, one.passages)
        dead.add_metric(of, one.dead_letters)
        rate.add_metric(of, one.rate)
        behind.add_metric(of, one.behind)
        held.add_metric(of, float(one.state == "held up"))
        tokens.add_metric([*of, "input"], one.usage.input_tokens)
        tokens.add_metric([*of, "output"], one.usage.output_tokens)
        if one.usage.cost is not None:
            cost.add_metric(of, one.usage.cost)
    yield from (records, written, passages, dead, rate, behind, held, tokens, cost)


def _steps(steps: Sequence[tuple[str, StepStatus]]) -> Iterator[Metric]:
    labels = ["pipeline", "step", "kind"]
    decided = CounterMetricFamily("headwater_step_decided", "Decisions made since the start.", labels=labels)
    known = CounterMetricFamily("headwater_step_known", "Decisions that were known already.", labels=labels)
    failed = CounterMetricFamily("headwater_step_failed", "Things a step failed on.", labels=labels)
    seconds = CounterMetricFamily("headwater_step_seconds", "Time spent deciding.", labels=labels)
    tokens = CounterMetricFamily("headwater_step_tokens", "Tokens of chat models.", labels=labels)
    cost = CounterMetricFamily("headwater_step_cost_dollars", "What they cost, where known.", labels=labels)
    for pipeline, step in steps:
        of = [pipeline, step.name, step.kind]
        decided.add_metric(of, step.decided)
        known.add_metric(of, step.hits)
        failed.add_metric(of, step.failed)
        seconds.add_metric(of, step.seconds)
        tokens.add_metric(of, step.usage.tokens)
        if step.usage.cost is not None:
            cost.add_metric(of, step.usage.cost)
    yield from (decided, known, failed, seconds, tokens, cost)
