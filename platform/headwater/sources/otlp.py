"""OTLP logs: an export request of OpenTelemetry, as protobuf or JSON, becomes drafts.

One log record, one draft. The body is the text (JSON where it is structured); attributes are those of the resource, the scope
(`scope.name`, `scope.version`) and the record, flattened with dots, the record's winning; `trace_id` and `span_id` in hex;
the level from the severity's number, else its text; the time when it happened, else when it was observed.
Source: opentelemetry.io/docs/specs/otlp and .../specs/otel/logs/data-model.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from headwater.errors import LimitError, UsageError
from headwater.records import Draft, Scalar
from headwater.records.levels import LEVELS, canonical_level

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_NS_PER_MS = 1_000_000
_DEEPEST = 32  # nested values; deeper ones become null, as an attack on the stack has them


class Logs(NamedTuple):
    """The drafts of one request by the name of the service that sent them (None where it has none), and how many records
    had nothing to keep."""

    of: dict[str | None, list[Draft]]
    empty: int


def decompressed(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body of a request, unpacked. LimitError for one that unpacks to more than `most_bytes`; UsageError."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise UsageError(f"Content-Encoding {encoding!r} is not known; send gzip, deflate or none")
    unpacking = zlib.decompressobj(31 if encoding == "gzip" else 15)
    try:
        out = unpacking.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise UsageError(f"the body is not {encoding}: {error}") from error
    if len(out) > most_bytes:
        raise LimitError(f"the body unpacks to more than {most_bytes} bytes; send less at once")
    if not unpacking.eof:
        raise UsageError(f"the body is not whole {encoding}")
    return out


def drafts(body: bytes, kind: str) -> Logs:
    """What an ExportLogsServiceRequest holds; UsageError where it is none. `kind` is the Content-Type."""
    return _gathered(_of_protobuf(body) if kind == PROTOBUF else _of_json(body))


def reply(rejected: int, message: str, kind: str) -> bytes:
    """An ExportLogsServiceResponse; with nothing rejected and no message it says that all is well."""
    if kind == PROTOBUF:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

        response = ExportLogsServiceResponse()
        if rejected or message:
            response.partial_success.rejected_log_records = rejected
            response.partial_success.error_message = message
        return bytes(response.SerializeToString())
    partial = {"rejectedLogRecords": str(rejected), "errorMessage": message}
    return orjson.dumps({"partialSuccess": partial} if rejected or message else {})


def refusal(message: str, kind: str) -> bytes:
    """A google.rpc.Status with that message, as OTLP has its errors."""
    if kind != PROTOBUF:
        return orjson.dumps({"message": message})
    text = message.encode("utf-8", "replace")[:2000]
    size = bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
    return b"\x12" + size + text  # field 2, a string


# ---------------------------------------------------------------------- both forms, as the same plain parts


class _Log(NamedTuple):
    """One log record in plain values."""

    service: str | None
    above: Mapping[str, Scalar]
    body: Any
    own: Mapping[str, Any]
    time_ns: int
    severity: int
    severity_text: str
    trace: str
    span: str
    event: str


def _gathered(logs: Iterable[_Log]) -> Logs:
    of: dict[str | None, list[Draft]] = {}
    empty = 0
    for log in logs:
        draft = _draft(log)
        if draft is None:
            empty += 1
        else:
            of.setdefault(log.service, []).append(draft)
    return Logs(of, empty)


def _draft(log: _Log) -> Draft | None:
    value = log.body if isinstance(log.body, str) else None if log.body is None else orjson.dumps(log.body).decode()
    if not value:
        value = log.event or (orjson.dumps(dict(log.own)).decode() if log.own else "")
    if not value:
        return None
    attributes: dict[str, Scalar] = {}
    if log.severity or log.severity_text:
        attributes["level"] = level = _level(log.severity, log.severity_text)
        if log.severity_text and canonical_level(log.severity_text) != level:
            attributes["severity_text"] = log.severity_text
    for name, text in (("trace_id", log.trace), ("span_id", log.span), ("event.name", log.event)):
        if text:
            attributes[name] = text
    for name, value_of in (*_flat(log.own).items(), *log.above.items()):
        attributes.setdefault(name, value_of)
    return Draft(value, None, log.time_ns // _NS_PER_MS if log.time_ns else None, attributes)


def _level(number: int, text: str) -> str:
    """1-4 trace, 5-8 debug, 9-12 info, 13-16 warn, 17-20 error, 21-24 fatal."""
    return LEVELS[(number - 1) // 4] if 1 <= number <= 24 else canonical_level(text) or "info"


def _flat(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Nested values by dotted names, lists as JSON text, without those that are null."""
    out: dict[str, Scalar] = {}
    stack = list(values.items())[::-1]
    while stack:
        name, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{name}.{inner}", v) for inner, v in list(value.items())[::-1])
        elif isinstance(value, list):
            out[name] = orjson.dumps(value).decode()
        elif value is not None:
            out[name] = value
    return out


def _above(resource: Mapping[str, Any], scope: str, version: str) -> dict[str, Scalar]:
    above = _flat(resource)
    if scope:
        above["scope.name"] = scope
    if version:
        above["scope.version"] = version
    return above


def _service(resource: Mapping[str, Any]) -> str | None:
    name = resource.get("service.name")
    return str(name) if name not in (None, "") else None


# ---------------------------------------------------------------------- protobuf


def _of_protobuf(body: bytes) -> Iterator[_Log]:
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise UsageError("the body is no ExportLogsServiceRequest in protobuf") from error
    yield from _walked(request)


def _walked(request: ExportLogsServiceRequest) -> Iterator[_Log]:
    for of_resource in request.resource_logs:
        resource = _values(of_resource.resource.attributes)
        service = _service(resource)
        for of_scope in of_resource.scope_logs:
            above = _above(resource, of_scope.scope.name, of_scope.scope.version)
            for log in of_scope.log_records:
                yield _Log(
                    service, above, _value(log.body), _values(log.attributes),
                    log.time_unix_nano or log.observed_time_unix_nano, log.severity_number,
                    log.severity_text, log.trace_id.hex(), log.span_id.hex(), log.event_name,
                )  # fmt: skip


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(any_value: Any, depth: int = 0) -> Any:
    kind = any_value.WhichOneof("value")
    if kind == "string_value" or kind is None:
        return any_value.string_value if kind else None
    if kind == "kvlist_value":
        pairs = any_value.kvlist_value.values if depth < _DEEPEST else ()
        return {pair.key: _value(pair.value, depth + 1) for pair in pairs}
    if kind == "array_value":
        return [_value(v, depth + 1) for v in any_value.array_value.values] if depth < _DEEPEST else None
    value = getattr(any_value, kind)
    return base64.b64encode(value).decode() if kind == "bytes_value" else value


# ---------------------------------------------------------------------- JSON


def _of_json(body: bytes) -> list[_Log]:
    """The JSON mapping of protobuf, except that ids are hex; numbers of 64 bits may be text, unknown fields are passed over."""
    try:
        request = orjson.loads(body)
        return list(_walked_json(request))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the body is not valid JSON: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError("the body is no ExportLogsServiceRequest in JSON") from error


def _walked_json(request: Any) -> Iterator[_Log]:
    for of_resource in _some(request, "resourceLogs"):
        resource = _values_json(_some(of_resource.get("resource") or {}, "attributes"))
        service = _service(resource)
        for of_scope in _some(of_resource, "scopeLogs"):
            scope = of_scope.get("scope") or {}
            above = _above(resource, _str(scope, "name"), _str(scope, "version"))
            for log in _some(of_scope, "logRecords"):
                time_ns = int(log.get("timeUnixNano") or 0) or int(log.get("observedTimeUnixNano") or 0)
                number = log.get("severityNumber") or 0
                yield _Log(
                    service, above, _value_json(log.get("body")), _values_json(_some(log, "attributes")), time_ns,
                    number if isinstance(number, int) else _numbered(number), _str(log, "severityText"),
                    _hex(_str(log, "traceId")), _hex(_str(log, "spanId")), _str(log, "eventName"),
                )  # fmt: skip


def _some(of: Any, name: str) -> list[Any]:
    found = of.get(name) or []
    if not isinstance(found, list):
        raise TypeError(name)
    return found


def _str(of: Any, name: str) -> str:
    found = of.get(name) or ""
    if not isinstance(found, str):
        raise TypeError(name)
    return found


def _values_json(pairs: list[Any]) -> dict[str, Any]:
    return {str(pair["key"]): _value_json(pair.get("value")) for pair in pairs}


def _value_json(any_value: Any, depth: int = 0) -> Any:
    if not any_value or depth > _DEEPEST:
        return None
    kind, value = next(iter(any_value.items()))
    if kind == "kvlistValue":
        return {str(pair["key"]): _value_json(pair.get("value"), depth + 1) for pair in _some(value, "values")}
    if kind == "arrayValue":
        return [_value_json(v, depth + 1) for v in _some(value, "values")]
    if kind == "intValue":
        number = int(value)
        return number if -(1 << 63) <= number < 1 << 63 else str(number)  # beyond what the format has; kept as text
    return float(value) if kind == "doubleValue" else value


def _numbered(name: Any) -> int:
    """SEVERITY_NUMBER_WARN2 is 14."""
    word = str(name).removeprefix("SEVERITY_NUMBER_").lower()
    more = int(word[-1]) - 1 if word[-1:].isdigit() else 0
    word = word.rstrip("1234")
    return LEVELS.index(word) * 4 + 1 + more if word in LEVELS else 0


def _hex(id: str) -> str:
    """An id in hex; those that came as base64, as protobuf's own mapping has them, turned into it."""
    if len(id) in (0, 16, 32):
        return id.lower()
    try:
        return base64.b64decode(id, validate=True).hex()
    except binascii.Error:
        return id
