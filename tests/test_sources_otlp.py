"""Logs over OTLP/HTTP: a stock exporter of OpenTelemetry, both forms, packed, in part, and only what is committed answered."""

from __future__ import annotations

import asyncio
import base64
import gzip
import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from headwater.config import SecretStr, ServerSettings
from headwater.errors import StorageError
from headwater.records import Draft
from headwater.source_settings import OtlpSettings
from headwater.sources import otlp
from sources_api import running, until

AT_NS = 1_767_225_600_123_456_789


def pairs(**values: Any) -> list[dict[str, Any]]:
    """Attributes as OTLP's JSON has them; `_` in a name stands for a dot."""
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": k.replace("_", "."), "value": {kinds[type(v)]: str(v) if type(v) is int else v}} for k, v in values.items()]


def export(*records: dict[str, Any], service: str | None = "checkout") -> dict[str, Any]:
    resource = pairs(service_name=service, host_name="web-1") if service else []
    scope = {"name": "shop.payments", "version": "2"}
    return {"resourceLogs": [{"resource": {"attributes": resource}, "scopeLogs": [{"scope": scope, "logRecords": records}]}]}


LOG = {
    "timeUnixNano": str(AT_NS), "observedTimeUnixNano": str(AT_NS + 5_000_000_000), "severityNumber": 17,
    "severityText": "ERROR", "body": {"stringValue": "payment failed"},
    "attributes": pairs(order=7, retry=True, took_s=1.5, host_name="pod-9"),
    "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
}  # fmt: skip


def as_protobuf(request: dict[str, Any]) -> bytes:
    """The same request in protobuf: its JSON mapping has ids in base64, OTLP's in hex."""
    from google.protobuf import json_format

    copied = json.loads(json.dumps(request))
    for of in copied["resourceLogs"]:
        for scope in of["scopeLogs"]:
            for record in scope["logRecords"]:
                for name in ("traceId", "spanId"):
                    if name in record:
                        record[name] = base64.b64encode(bytes.fromhex(record[name])).decode()
    return bytes(json_format.ParseDict(copied, ExportLogsServiceRequest()).SerializeToString())


def read(request: dict[str, Any], kind: str) -> list[Draft]:
    body = json.dumps(request).encode() if kind == otlp.JSON else as_protobuf(request)
    return [draft for drafts in otlp.drafts(body, kind).of.values() for draft in drafts]


# ---------------------------------------------------------------------- one request


@pytest.mark.parametrize("kind", [otlp.JSON, otlp.PROTOBUF])
def test_a_log_gives_its_body_time_level_and_the_attributes_of_record_resource_and_scope(kind: str) -> None:
    (draft,) = read(export(LOG), kind)
    assert (draft.value, draft.time_ms) == ("payment failed", AT_NS // 1_000_000)
    assert draft.attributes == {
        "level": "error", "order": 7, "retry": True, "took.s": 1.5, "host.name": "pod-9", "service.name": "checkout",
        "scope.name": "shop.payments", "scope.version": "2", "trace_id": "5b8efff798038103d269b633813fc60c",
        "span_id": "eee19b7ec3c1b174",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [otlp.JSON, otlp.PROTOBUF])
def test_a_structured_body_is_json_and_nested_attributes_are_flattened(kind: str) -> None:
    nested = {"kvlistValue": {"values": [{"key": "id", "value": {"intValue": "3"}}, {"key": "tags", "value": {
        "arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}}}]}}  # fmt: skip
    (draft,) = read(export({"body": nested, "attributes": [{"key": "user", "value": nested}]}), kind)
    assert json.loads(draft.value) == {"id": 3, "tags": ["a", 1]}
    assert (draft.attributes["user.id"], draft.attributes["user.tags"]) == (3, '["a",1]')
    assert draft.time_ms is None


def test_what_happened_at_no_known_time_was_observed_and_an_event_without_a_body_is_its_name() -> None:
    (draft,) = read(export({"observedTimeUnixNano": AT_NS, "eventName": "device.crashed"}), otlp.JSON)
    assert (draft.value, draft.time_ms) == ("device.crashed", AT_NS // 1_000_000)


@pytest.mark.parametrize(
    ("number", "text", "level"),
    [(1, "", "trace"), (8, "", "debug"), (9, "", "info"), (14, "", "warn"), (17, "", "error"), (24, "", "fatal"),
     (0, "WARNING", "warn"), ("SEVERITY_NUMBER_WARN2", "", "warn"), (0, "", None), (99, "", "info")],
)  # fmt: skip
def test_the_level_is_that_of_the_number_else_of_the_text(number: Any, text: str, level: str | None) -> None:
    (draft,) = read(export({"body": {"stringValue": "x"}, "severityNumber": number, "severityText": text}), otlp.JSON)
    assert draft.attributes.get("level") == level


# ---------------------------------------------------------------------- over HTTP


HEADERS = {"content-type": otlp.JSON}


def test_both_forms_plain_and_packed_are_stored_before_they_are_answered(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path) as (engine, http):
            for kind in (otlp.JSON, otlp.PROTOBUF):
                body = json.dumps(export(LOG)).encode() if kind == otlp.JSON else as_protobuf(export(LOG))
                for encoding, sent in ((None, body), ("gzip", gzip.compress(body))):
                    headers = {"content-type": kind} | ({"content-encoding": encoding} if encoding else {})
                    reply = await http.post("/v1/logs", content=sent, headers=headers)
                    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
                    empty = json.loads(reply.content) == {} if kind == otlp.JSON else reply.content == b""
                    assert empty, "all was taken"
            page = await engine.records("otlp")
            assert [r.value for r in page.records] == ["payment failed"] * 4
            (source,) = [s for s in await engine.sources() if s.kind == "otlp"]
            assert (source.records, source.state, source.origin, source.error) == (4, "listening", "default", None)

    asyncio.run(check())


def test_a_topic_for_each_service_is_bounded(tmp_path: Path) -> None:
    async def check() -> None:
        settings = OtlpSettings(topic="otlp.{service}", max_topics=2)
        async with running(tmp_path, settings) as (engine, http):
            for service in ("check out", "cart", "ads", None):
                request = export({"body": {"stringValue": "x"}}, service=service)
                assert (await http.post("/v1/logs", json=request)).status_code == 200
            assert [t.name for t in await engine.topics()] == ["otlp.cart", "otlp.check-out", "otlp.other"]

    asyncio.run(check())


def test_what_cannot_be_kept_is_partial_success_and_what_is_no_request_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with running(tmp_path) as (engine, http):
            await engine.create_topic("otlp", embedding_model="external", dimension=2)  # takes records with vectors alone
            reply = await http.post("/v1/logs", json=export(LOG, {}))
            assert reply.json()["partialSuccess"]["rejectedLogRecords"] == "2"
            packed = await http.post("/v1/logs", content=as_protobuf(export(LOG)), headers={"content-type": otlp.PROTOBUF})
            assert ExportLogsServiceResponse.FromString(packed.content).partial_success.rejected_log_records == 1
            assert [d.payload for d in await engine.dead_letters("otlp")][:1] == ["payment failed"]
            for content, headers, status in (
                (b"{", HEADERS, 400), (b"[1]", HEADERS, 400), (b'{"resourceLogs": [3]}', HEADERS, 400),
                (b"\xff\xff", {"content-type": otlp.PROTOBUF}, 400), (b"x", HEADERS | {"content-encoding": "gzip"}, 400),
                (json.dumps(export({"body": {"stringValue": "x"}, "severityText": 5})).encode(), HEADERS, 400),
                (json.dumps(export({"body": {"stringValue": "x"}, "eventName": ["x"]})).encode(), HEADERS, 400),
                (b"x", HEADERS | {"content-encoding": "br"}, 400), (b"x", {"content-type": "text/plain"}, 415),
                (gzip.compress(b" " * (65 << 20)), HEADERS | {"content-encoding": "gzip"}, 413),
            ):  # fmt: skip
                reply = await http.post("/v1/logs", content=content, headers=headers)
                assert reply.status_code == status, (content[:20], reply.text)

    asyncio.run(check())


def test_a_number_beyond_the_format_is_kept_as_text_wherever_it_stands() -> None:
    far = {"intValue": "9" * 30}
    body = {"kvlistValue": {"values": [{"key": "n", "value": far}]}}
    (log,) = read(export({"body": body, "attributes": [{"key": "far", "value": far}]}), otlp.JSON)
    assert (log.value, log.attributes["far"]) == ('{"n":"' + "9" * 30 + '"}', "9" * 30)


def test_a_full_disk_and_a_pause_ask_the_exporter_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with running(tmp_path) as (engine, http):

            async def full(*_: object, **__: object) -> None:
                raise StorageError("no space")

            with monkeypatch.context() as patch:
                patch.setattr(engine.doors, "_append", full)
                reply = await http.post("/v1/logs", json=export(LOG))
                assert (reply.status_code, "retry-after" in reply.headers) == (503, True)
            await engine.pause_source("otlp")
            assert (await http.post("/v1/logs", json=export(LOG))).status_code == 503
            await engine.resume_source("otlp")
            assert (await http.post("/v1/logs", json=export(LOG))).status_code == 200
            assert (await engine.topic("otlp")).records == 1

    asyncio.run(check())


def test_the_guard_asks_for_the_key_and_does_not_slow_exports_down(tmp_path: Path) -> None:
    async def check() -> None:
        server = ServerSettings(api_key=SecretStr("k3y"), requests_per_s=1)
        async with running(tmp_path, server=server) as (_, http):
            assert (await http.post("/v1/logs", json=export(LOG))).status_code == 401
            for _n in range(5):
                reply = await http.post("/v1/logs", json=export(LOG), headers={"authorization": "Bearer k3y"})
                assert reply.status_code == 200

    asyncio.run(check())


# ---------------------------------------------------------------------- a stock exporter


def send_with_the_sdk(endpoint: str, texts: Sequence[str], compressed: bool) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    provider = LoggerProvider(resource=Resource.create({"service.name": "shop"}))
    packed = Compression.Gzip if compressed else Compression.NoCompression
    exporter = OTLPLogExporter(endpoint=endpoint, compression=packed, timeout=240)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    handler, logger = LoggingHandler(logger_provider=provider), logging.getLogger("shop.orders")
    logger.addHandler(handler)
    try:
        for text in texts:
            logger.error("%s failed", text, extra={"order": 7})
        provider.shutdown()
    finally:
        logger.removeHandler(handler)


@pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is None, reason="the exporter is not installed"
)
@pytest.mark.filterwarnings("ignore:.*LoggingHandler:DeprecationWarning")
@pytest.mark.parametrize("compressed", [False, True])
def test_a_stock_exporter_of_opentelemetry_delivers_to_a_port_of_its_own(tmp_path: Path, compressed: bool) -> None:
    async def check() -> None:
        async with running(tmp_path, OtlpSettings(port=0)) as (engine, _):

            async def open_() -> bool:
                return (await engine.sources())[0].state.startswith("listening on")

            await until(open_)
            port = int((await engine.sources())[0].state.rsplit(" ", 1)[1])
            texts = [f"order {n}" for n in range(30)]
            await asyncio.to_thread(send_with_the_sdk, f"http://127.0.0.1:{port}/v1/logs", texts, compressed)
            records = (await engine.records("otlp")).records
            assert sorted(r.value for r in records) == sorted(f"{text} failed" for text in texts)
            about = records[0].attributes
            assert (about["service.name"], about["order"], about["level"], about["scope.name"]) == (
                "shop",
                7,
                "error",
                "shop.orders",
            )
            assert (await engine.sources())[0].records == 30

    asyncio.run(check())
