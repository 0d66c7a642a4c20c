"""The wire form: how values and errors look as JSON, for the API that writes them and the client that reads them.

A value is its dataclass fields under their own names. Besides: what has an address says it, times are ISO 8601 UTC,
a hit leaves `span` and `vector` out where it has none, and a receipt leaves out its topic (the address names it).
An error is problem details (RFC 9457) whose `type` names its class in headwater.errors.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, cast

import orjson

from headwater import errors
from headwater.composed import LiveEvent
from headwater.errors import EmbedError, HeadwaterError, LimitError, QueryError, UsageError
from headwater.records import Appended, Draft, Hit, Receipt, Record, SearchReply, from_ms, parse_address

T = TypeVar("T")
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"
NDJSON = "application/x-ndjson"
_DRAFT = ("value", "key", "time_ms", "attributes", "partition", "position", "raw", "vector")
_FORMS: Mapping[str, tuple[type, ...]] = {
    "value": (str,), "key": (str,), "time_ms": (int,), "attributes": (dict,), "partition": (int,), "position": (int,),
    "raw": (str,), "vector": (list,),
}  # fmt: skip
_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SERIALIZE_NUMPY
_TYPE = "urn:headwater:problem:"


def encode(value: Any) -> bytes:
    """JSON of a value type, or of plain values that hold some."""
    return orjson.dumps(value, _plain, _OPTIONS | orjson.OPT_NON_STR_KEYS)


def decode(kind: type[T], body: bytes) -> T:
    """The value of type `kind` (or `list[kind]`) in a reply. Raises UsageError where the reply is something else."""
    from pydantic import ValidationError

    try:
        value: T = _adapter(cast(Hashable, kind)).validate_json(body)
    except ValidationError as error:
        raise UsageError(f"the reply is not of this version of Headwater: {error.errors()[0]['msg']}") from error
    return value


def decode_appended(topic: str, body: bytes) -> Appended:
    """The reply to an append."""
    reply = orjson.loads(body)
    receipts = tuple(Receipt(topic, r["partition"], r["offset"], r["seq"], r["duplicate"]) for r in reply["records"])
    return Appended(receipts, reply["wait"], reply["timed_out"])


def draft(record: Draft) -> dict[str, Any]:
    """A draft as a delivery carries it: the fields it has, by their names; `raw` as base64."""
    plain = {name: value for name, value in zip(_DRAFT, record, strict=False) if value is not None}
    if record.attributes:
        plain["attributes"] = dict(record.attributes)
    else:
        del plain["attributes"]
    if record.raw is not None:
        plain["raw"] = base64.b64encode(record.raw).decode()
    return plain


def draft_of(plain: Any) -> Draft:
    """The draft that an entry of a delivery stands for; UsageError says what in it is not as it must be."""
    if not isinstance(plain, dict):
        raise UsageError("each record must be an object with 'value'")
    for name, value in plain.items():
        if name not in _FORMS:
            raise UsageError(f"unknown field {name[:50]!r}; a delivered record has {', '.join(_FORMS)}")
        if type(value) not in _FORMS[name]:
            raise UsageError(f"{name} is not of its kind")
        if type(value) is int and not (-(1 << 63) if name == "time_ms" else 0) <= value < 1 << 63:
            raise UsageError(f"{name} is out of range")
    if "value" not in plain:
        raise UsageError("no 'value'")
    if (raw := plain.get("raw")) is None:
        return Draft(**plain)
    try:
        return Draft(**{**plain, "raw": base64.b64decode(raw, validate=True)})
    except ValueError:
        raise UsageError("raw is not base64") from None


def decode_batch(body: bytes) -> list[SearchReply | HeadwaterError]:
    """The reply to a batch of searches: an entry for each, a reply or its error."""
    results = orjson.loads(body)["results"]
    found: list[SearchReply | HeadwaterError] = []
    for result in results:
        error = result.get("error")
        found.append(
            decode(SearchReply, orjson.dumps(result)) if error is None else error_of(error, int(error.get("status", 500)))
        )
    return found


def decode_live(name: str, cursor: str, body: bytes) -> LiveEvent:
    """An event of a live search as it was streamed: a hit has no name."""
    if name == "message":
        return LiveEvent("hit", cursor, decode(Hit, body))
    if name == "skipped":
        plain = orjson.loads(body)
        return LiveEvent("skipped", cursor, skipped=int(plain["skipped"]), topic=plain["topic"])
    return LiveEvent("ready" if name == "ready" else "progress", cursor)


def entry(record: Draft | Mapping[str, Any] | str) -> Any:
    """An entry as the wire has it: an object."""
    if isinstance(record, str):
        return {"value": record}
    if not isinstance(record, Draft):
        return record
    plain: dict[str, Any] = {
        k: v for k, v in record._asdict().items() if v is not None and k in ("value", "key", "partition", "vector")
    }
    if record.attributes:
        plain["attributes"] = dict(record.attributes)
    if record.time_ms is not None:
        plain["timestamp"] = from_ms(record.time_ms)
    return plain


def sent(value: Any) -> bytes:
    """JSON of what a caller gave, as far as it can be written; UsageError."""
    try:
        return encode(value)
    except TypeError as strict:  # lone surrogates and integers beyond 64 bits; the intake knows what to do with them
        try:
            return json.dumps(value, default=str).encode()
        except (TypeError, ValueError, RecursionError):
            raise UsageError(f"this cannot be sent as JSON: {strict}") from strict


def parse_json(body: bytes | bytearray | memoryview) -> Any:
    """What a client sent, fast where it is strict JSON. NaN, infinities, 1e999 and lone surrogates, which some writers
    send, are read too; the intake normalises them. Raises UsageError, naming the place, never echoing the text."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as strict:
        try:
            return json.loads(bytes(body))
        except RecursionError:
            raise UsageError("the JSON is nested too deeply") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"the JSON is not valid UTF-8 at byte {error.start}") from None
        except ValueError:
            place = f"line {strict.lineno} column {strict.colno}"
            raise UsageError(f"not valid JSON: {strict.msg.partition(':')[0]} ({place})") from None


@functools.lru_cache(maxsize=64)
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


@functools.lru_cache(maxsize=128)
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


_HIT = tuple(n for n in _names(Hit) if n not in ("span", "vector"))


def _plain(value: Any) -> Any:
    """One step of `value` towards JSON, for what orjson does not know."""
    kind = type(value)
    if kind is Hit:
        plain = {name: getattr(value, name) for name in _HIT}
        if value.span is not None:
            plain["span"] = value.span
        if value.vector is not None:
            plain["vector"] = value.vector
        return plain
    if kind is Receipt:
        return {
            "partition": value.partition,
            "offset": value.offset,
            "seq": value.seq,
            "address": value.address,
            "duplicate": value.duplicate,
        }
    if dataclasses.is_dataclass(kind):
        plain = {"address": value.address} if kind is Record else {}
        plain.update((name, getattr(value, name)) for name in _names(kind))
        return plain
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{kind.__name__} has no wire form")


# ---------------------------------------------------------------------- errors

_KINDS: tuple[type[HeadwaterError], ...] = (
    errors.UsageError,
    errors.QueryError,
    errors.ConfigError,
    errors.ConflictError,
    errors.NotFoundError,
    errors.UnreachableError,
    errors.EmbedError,
    errors.ModelError,
    errors.OwnedError,
    errors.AuthError,
    errors.LimitError,
    errors.WaitTimeout,
    errors.StorageError,
    errors.DamageError,
)
_SLUG_OF = {kind: re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Error")).lower() for kind in _KINDS}
_KIND_OF = {slug: kind for kind, slug in _SLUG_OF.items()}


def problem_type(error: HeadwaterError) -> str:
    """The `type` of an error's problem details: `urn:headwater:problem:query` for QueryError."""
    return _TYPE + next((_SLUG_OF[kind] for kind in type(error).__mro__ if kind in _SLUG_OF), "internal")


def error_of(problem: Mapping[str, Any], status: int) -> HeadwaterError:
    """The error that problem details stand for; for one of another server, the nearest by status."""
    detail = str(problem.get("detail") or problem.get("title") or f"the server answered {status}")
    kind = _KIND_OF.get(str(problem.get("type", "")).removeprefix(_TYPE)) or _by_status(status)
    if kind is QueryError:
        position, expected = int(problem.get("position", 0)), str(problem.get("expected", ""))
        message = detail.partition(f" at character {position + 1}: expected ")[0]
        return QueryError(message, query=str(problem.get("query", "")), position=position, expected=expected)
    if kind is EmbedError or kind is errors.ModelError or kind is LimitError:
        retry_after = problem.get("retry_after")
        return kind(detail, retry_after_s=float(retry_after) if isinstance(retry_after, int | float) else None)
    return kind(detail)


def _by_status(status: int) -> type[HeadwaterError]:
    known: dict[int, type[HeadwaterError]] = {
        401: errors.AuthError,
        403: errors.AuthError,
        404: errors.NotFoundError,
        409: errors.ConflictError,
        413: LimitError,
        421: errors.AuthError,
        429: LimitError,
        504: errors.WaitTimeout,
        507: errors.StorageError,
    }
    return known.get(status, UsageError if status < 500 else errors.UnreachableError)


def place_of(address: str) -> str:
    """`partition:offset` of an address: the id of an event of a tail."""
    _, partition, offset = parse_address(address)
    return f"{partition}:{offset}"


def address_at(topic: str, place: str) -> str:
    """The address in `topic` that an event's id names; UsageError."""
    if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,15}", place):
        raise UsageError(f"{place[:40]!r} is not an event id of a tail; it is partition:offset, as in 0:42")
    return f"{topic}/{place.replace(':', '/')}"


def problem_of(body: bytes, status: int) -> HeadwaterError:
    """The error that the body of a failed reply stands for."""
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        problem = None
    return error_of(problem if isinstance(problem, dict) else {}, status)
