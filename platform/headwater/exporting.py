"""Traces and metrics sent to a collector over OTLP/HTTP: what the daemon starts where `telemetry.enabled` says so.

The metrics are those of `/metrics`, read from the same place each time they are sent. What the settings leave open, the
variables of OpenTelemetry say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER ...).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from headwater import telemetry
from headwater.errors import ConfigError, HeadwaterError

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from starlette.types import ASGIApp

    from headwater.config import TelemetrySettings

logger = logging.getLogger(__name__)
_END_S = 3.0  # for the last spans and numbers, when the daemon stops
_EXTRA = "telemetry.enabled needs an extra: pip install 'headwater[otel]'"
Families = Callable[[], Awaitable[Iterable["Metric"]]]


@contextlib.asynccontextmanager
async def traces(settings: TelemetrySettings, version: str, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Any]:
    """Inside, spans are sent; gives the tracer, None where none is wanted. ConfigError without the extra."""
    if not (settings.traces and _wanted("TRACES", settings, environment)):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    exporter = OTLPSpanExporter(_endpoint(settings, "traces"))
    provider = _provider(_resource(version, environment), exporter, settings, environment)
    tracer = provider.get_tracer("headwater", version)
    try:
        with telemetry.tracing(tracer):
            yield tracer
    finally:
        await anyio.to_thread.run_sync(_within, provider.shutdown, exporter.shutdown)


@contextlib.asynccontextmanager
async def metrics(
    settings: TelemetrySettings, version: str, families: Families, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Inside, what `families` gives is sent every so often, and once more at the end. ConfigError without the extra."""
    if not (settings.metrics and _wanted("METRICS", settings, environment)):
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    exporter, resource = OTLPMetricExporter(_endpoint(settings, "metrics")), _resource(version, environment)
    since_ns, every_s = time.time_ns(), _interval_s(settings, environment)

    async def send() -> None:
        try:
            data = otlp(await families(), resource, version, since_ns, time.time_ns())
        except HeadwaterError as error:
            logger.warning("metrics could not be read: %s", error)
        else:
            await anyio.to_thread.run_sync(exporter.export, data, abandon_on_cancel=True)

    async def again_and_again() -> None:
        while True:
            await asyncio.sleep(every_s)
            await send()

    task = asyncio.create_task(again_and_again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await send()
        await anyio.to_thread.run_sync(exporter.shutdown)


def requests(app: ASGIApp, tracer: Any) -> ASGIApp:
    """The app with a span for each request, where there is a tracer."""
    if tracer is None:
        return app
    from headwater.api.tracing import Traced

    return Traced(app, tracer)


def _wanted(what: str, settings: TelemetrySettings, environment: Mapping[str, str]) -> bool:
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return settings.enabled and not off and environment.get(f"OTEL_{what}_EXPORTER") != "none"


def _endpoint(settings: TelemetrySettings, what: str) -> str | None:
    """None leaves it to the variables of OpenTelemetry."""
    return f"{settings.endpoint.rstrip('/')}/v1/{what}" if settings.endpoint else None


def _resource(version: str, environment: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.resources import Resource

    own = {"service.version": version, "service.instance.id": f"{os.uname().nodename}-{os.getpid()}"}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        own["service.name"] = "headwater"
    return Resource.create(own)


def _provider(resource: Any, exporter: Any, settings: TelemetrySettings, environment: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    if not 0 <= settings.sample_ratio <= 1:
        raise ConfigError(f"telemetry.sample_ratio must be between 0 and 1, not {settings.sample_ratio}")
    own = None if environment.get("OTEL_TRACES_SAMPLER") else ParentBased(TraceIdRatioBased(settings.sample_ratio))
    provider = TracerProvider(resource=resource, sampler=own, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _interval_s(settings: TelemetrySettings, environment: Mapping[str, str]) -> float:
    given = environment.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    return max(int(given) / 1000 if given.isdecimal() else settings.metrics_interval_s, 0.1)


def _within(end: Callable[[], object], give_up: Callable[[], object]) -> None:
    """Send what is left, for as long as the daemon may take to stop; then give up, so that nothing is tried again behind it."""
    thread = threading.Thread(target=end, name="headwater-telemetry", daemon=True)
    thread.start()
    thread.join(_END_S)
    if thread.is_alive():
        give_up()
        thread.join(_END_S)


def otlp(families: Iterable[Metric], resource: Any, version: str, since_ns: int, now_ns: int) -> Any:
    """Prometheus families as OTLP metrics under the same names: counters as cumulative sums, histograms, gauges."""
    from opentelemetry.sdk.metrics import export
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    def numbers(family: Metric, suffix: str) -> list[Any]:
        """Its samples that end so, as points."""
        name = family.name + suffix
        return [
            export.NumberDataPoint(s.labels, since_ns if suffix else 0, now_ns, s.value)
            for s in family.samples
            if s.name == name
        ]

    metrics = []
    for family in families:
        cumulative = export.AggregationTemporality.CUMULATIVE
        data: Any
        if family.type == "counter":
            data = export.Sum(numbers(family, "_total"), cumulative, is_monotonic=True)
        elif family.type == "histogram":
            data = export.Histogram(list(_histograms(family, since_ns, now_ns)), cumulative)
        else:
            data = export.Gauge(numbers(family, ""))
        if data.data_points:
            metrics.append(export.Metric(family.name, family.documentation, family.unit, data))
    scope = export.ScopeMetrics(InstrumentationScope("headwater", version), metrics, "")
    return export.MetricsData([export.ResourceMetrics(resource, [scope], "")])


def _histograms(family: Metric, since_ns: int, now_ns: int) -> Iterable[Any]:
    """Buckets as counts of their own: Prometheus adds them up."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    series: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        one = series.setdefault(tuple(labels.items()), {"bounds": [], "counts": [], "sum": 0.0})
        if sample.name.endswith("_bucket"):
            one["bounds"].append(float(sample.labels["le"]))
            one["counts"].append(int(sample.value))
        elif sample.name.endswith("_sum"):
            one["sum"] = sample.value
    for pairs, one in series.items():
        counts = [after - before for before, after in pairwise([0, *one["counts"]])]
        yield HistogramDataPoint(
            dict(pairs), since_ns, now_ns, sum(counts), one["sum"], counts, one["bounds"][:-1], None, None, []
        )  # fmt: skip
