"""Traces and metrics as a collector gets them: over OTLP/HTTP, decoded with the protocol's own messages."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import headwater
from headwater import exporting, telemetry
from headwater.api.metrics import Metrics
from headwater.config import TelemetrySettings
from headwater.errors import ConfigError
from serving import answering, eventually, settings_in

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

SECRET, WORD = "s3cret-of-this-test", "zebrafish"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """An OTLP/HTTP receiver on a free port: everything that came, decoded."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.bodies.append((self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _of(self, path: str) -> list[bytes]:
        return [body for at, body in list(self.bodies) if at == path]

    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self._of("/v1/traces")]
        return [s for r in requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    def resources(self) -> list[dict[str, str]]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self._of("/v1/traces")]
        return [{a.key: a.value.string_value for a in rs.resource.attributes} for r in requests for rs in r.resource_spans]

    def metrics(self) -> dict[str, Any]:
        """The last state of each metric by name."""
        requests = [ExportMetricsServiceRequest.FromString(body) for body in self._of("/v1/metrics")]
        return {m.name: m for r in requests for rm in r.resource_metrics for sm in rm.scope_metrics for m in sm.metrics}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(exporting, "_END_S", 240.0)  # the last spans of this process are waited for
    made = Collector()
    yield made
    made.close()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_collector_gets_the_daemons_traces_and_metrics_and_no_text_of_records(tmp_path: Path, collector: Collector) -> None:
    settings = settings_in(tmp_path / "data")
    followed = tmp_path / "app.log"
    followed.write_text(f"2026-03-01T14:05:01Z the {WORD} swam off\n")
    environment = {
        **os.environ, "HEADWATER_EMBEDDING_MODEL": "hash", "HEADWATER_SERVER_API_KEY": SECRET,
        "HEADWATER_TELEMETRY_ENABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_RESOURCE_ATTRIBUTES": "team=water",
    }  # fmt: skip
    command = [sys.executable, "-m", "headwater.daemon", "--data-dir", settings.data_dir, "--port", "0", str(followed)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        runtime = answering(settings, process)
        with headwater.connect(runtime.url, runtime.token) as hw:
            hw.append("notes", [f"where is the {WORD}?"], wait="searchable", timeout_s=240)
            assert len(hw.search(f"a lost {WORD}", explain=True)) > 0
            hw.ask(f"who has seen the {WORD}?")
            with pytest.raises(headwater.NotFoundError):
                hw.topic("none-of-this-name")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "authorization": f"Bearer {SECRET}"}
        httpx.post(f"{runtime.url}/v1/search", json={"q": WORD}, headers=headers).raise_for_status()
        assert httpx.get(f"{runtime.url}/v1/status").status_code == 401
        metrics = {"headwater_records_appended", "headwater_request_seconds", "headwater_source_records"}
        wanted = {"headwater.append", "headwater.index", "headwater.embed", "headwater.search", "headwater.search.keyword",
                  "headwater.search.expand", "headwater.ask", "headwater.source", "POST /v1/search", "GET"}  # fmt: skip

        def all_came() -> bool:
            spans, sent = collector.spans(), collector.metrics()
            called = any(s.name == "POST /v1/search" and s.trace_id.hex() == TRACE for s in spans)
            return called and wanted <= {s.name for s in spans} and metrics <= sent.keys() and "notes" in _appended(sent)

        eventually(all_came)  # what comes at its end is lost where the collector is too slow
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    spans = collector.spans()
    called = next(s for s in spans if s.name == "POST /v1/search" and s.trace_id.hex() == TRACE)
    assert called.parent_span_id.hex() == PARENT
    assert attributes(called)["http.response.status_code"] == 200
    (below,) = [s for s in spans if s.parent_span_id == called.span_id]
    assert below.name == "headwater.search"
    assert attributes(below)["mode"] == "hybrid"
    stages = {s.name: s for s in spans if s.parent_span_id == below.span_id}
    assert {"headwater.embed", "headwater.search.scope", "headwater.search.fuse"} <= stages.keys()
    assert all(below.start_time_unix_nano <= s.end_time_unix_nano <= below.end_time_unix_nano for s in stages.values())
    missing = next(s for s in spans if s.name == "GET /v1/topics/{topic}")
    assert attributes(missing)["http.response.status_code"] == 404
    refused = next(s for s in spans if s.name == "GET")
    assert attributes(refused)["http.response.status_code"] == 401
    resource = collector.resources()[0]
    assert (resource["service.name"], resource["team"]) == ("headwater", "water")
    assert _appended(collector.metrics())["notes"] == 1
    for _, body in collector.bodies:
        for hidden in (WORD, SECRET, "none-of-this-name"):
            assert hidden.encode() not in body


def _appended(metrics: dict[str, Any]) -> dict[str, float]:
    """Records appended by topic."""
    points = metrics["headwater_records_appended"].sum.data_points
    return {p.attributes[0].value.string_value: p.as_int or p.as_double for p in points}


def test_what_is_off_costs_a_look_and_changes_nothing() -> None:
    @telemetry.traced("x")
    async def twice(n: int) -> int:
        telemetry.note(n=n)
        with telemetry.span("y", n=n):
            telemetry.stage("z", 0.0, n=n)
            return 2 * n

    assert asyncio.run(twice(2)) == 4
    assert telemetry.span("a") is telemetry.span("b")  # nothing is made


def test_a_failure_is_told_by_its_kind_alone(collector: Collector) -> None:
    @telemetry.traced("fails")
    async def fail() -> None:
        raise ValueError(f"the {WORD} is gone")

    async def run() -> None:
        async with exporting.traces(TelemetrySettings(enabled=True, endpoint=collector.url), "1"):
            with pytest.raises(ValueError, match=WORD):
                await fail()

    asyncio.run(run())
    (span,) = collector.spans()
    assert span.status.code == span.status.STATUS_CODE_ERROR
    assert attributes(span) == {"error.type": "ValueError"}
    assert not span.events
    assert WORD.encode() not in collector.bodies[0][1]


def test_spans_of_threads_and_tasks_lie_below_the_one_that_began_them(collector: Collector) -> None:
    async def run() -> None:
        async with exporting.traces(TelemetrySettings(enabled=True, endpoint=collector.url), "1"):
            with telemetry.span("outer"):
                await asyncio.gather(asyncio.to_thread(_inner), asyncio.create_task(_aside()))
            await asyncio.create_task(_aside())

    asyncio.run(run())
    spans = collector.spans()
    (outer,) = [s for s in spans if s.name == "outer"]
    assert [s.parent_span_id for s in spans if s.name == "inner"] == [outer.span_id]
    assert sorted(s.parent_span_id for s in spans if s.name == "aside") == sorted([outer.span_id, b""])


def _inner() -> None:
    with telemetry.span("inner"):
        pass


async def _aside() -> None:
    with telemetry.span("aside"):
        pass


def test_the_metrics_sent_are_those_of_the_page(collector: Collector) -> None:
    metrics = Metrics()
    for seconds in (0.0007, 0.003, 0.004, 99.0):
        metrics._of["search"].observe(seconds)

    async def families() -> Any:
        return metrics._registry.collect()

    async def run() -> None:
        settings = TelemetrySettings(enabled=True, endpoint=collector.url, traces=False, metrics_interval_s=3600)
        async with exporting.traces(settings, "1") as tracer, exporting.metrics(settings, "1", families):
            assert tracer is None

    asyncio.run(run())
    points = collector.metrics()["headwater_request_seconds"].histogram.data_points
    (point,) = [p for p in points if p.attributes[0].value.string_value == "search"]
    assert point.count == 4
    assert point.sum == pytest.approx(99.0077)
    assert list(point.bucket_counts) == [1, 0, 2, *[0] * 10, 1]
    assert len(point.explicit_bounds) == 13
    assert not collector.spans()


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        (TelemetrySettings(), {}),
        (TelemetrySettings(enabled=True), {"OTEL_SDK_DISABLED": "true"}),
        (TelemetrySettings(enabled=True), {"OTEL_TRACES_EXPORTER": "none"}),
        (TelemetrySettings(enabled=True, traces=False), {}),
    ],
)
def test_traces_are_off_where_the_settings_or_the_variables_say_so(
    settings: TelemetrySettings, environment: dict[str, str]
) -> None:
    async def run() -> Any:
        async with exporting.traces(settings, "1", environment) as tracer:
            return tracer

    assert asyncio.run(run()) is None


def test_a_share_that_is_none_is_refused() -> None:
    async def run() -> None:
        async with exporting.traces(TelemetrySettings(enabled=True, sample_ratio=2.0), "1"):
            pass

    with pytest.raises(ConfigError, match="sample_ratio"):
        asyncio.run(run())


def test_a_collector_that_is_away_holds_up_nothing_for_long_and_is_not_tried_again_behind_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")  # it would be tried again for half a minute

    async def run() -> None:
        settings = TelemetrySettings(enabled=True, endpoint="http://127.0.0.1:9", metrics=False)
        async with exporting.traces(settings, "1"):
            with telemetry.span("lost"):
                pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result(timeout=240)
    eventually(lambda: not any(thread.name.startswith("OtelBatch") for thread in threading.enumerate()), timeout_s=20)
