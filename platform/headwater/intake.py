"""What comes in becomes drafts: entries of any accepted form, checked and normalised, with the time, the level and the
fields their text states.

Rules (documented in docs/reference/records.md): a given timestamp or attribute wins over one found in the text; nested
attributes are flattened with dots; NaN, infinities and integers beyond 64 bits are kept as text; lone surrogates are
replaced and the original bytes kept; times are clamped to years 1 to 9999.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from headwater.config import IngestSettings, TopicConfig
from headwater.errors import UsageError
from headwater.lines import LineReader
from headwater.query import parse_time
from headwater.records import MAX_MS, MIN_MS, Draft, Scalar
from headwater.verbs import Entry

_KNOWN = {"value", "key", "timestamp", "attributes", "partition", "vector", "headers"}
_READABLE_CHARS = 65_536  # a longer text is a document: its time and level come with it or not at all


def drafts(
    entries: Sequence[Entry], config: TopicConfig, reader: LineReader, limits: IngestSettings, *, now_ms: int
) -> list[Draft]:
    """The drafts of `entries`, in order; UsageError names the entry that is not acceptable, and then none is."""
    out = []
    for number, entry in enumerate(entries):
        try:
            out.append(_complete(_draft(entry, now_ms), config, reader, limits))
        except UsageError as error:
            raise UsageError(f"record {number}: {error}") from error
    return out


def _draft(entry: Entry, now_ms: int) -> Draft:
    if isinstance(entry, Draft):
        return entry
    if isinstance(entry, str):
        return Draft(entry)
    if not isinstance(entry, Mapping):
        raise UsageError(f"expected text or an object with 'value', got {type(entry).__name__}")
    if unknown := sorted(map(str, entry.keys() - _KNOWN)):
        raise UsageError(f"unknown field {unknown[0]!r}; a record has value, key, timestamp, attributes, partition, vector")
    if "value" not in entry:
        raise UsageError("no 'value'")
    key, partition, stamp = entry.get("key"), entry.get("partition"), entry.get("timestamp")
    if partition is not None and (isinstance(partition, bool) or not isinstance(partition, int)):
        raise UsageError(f"partition must be an integer, not {partition!r}")
    attributes = entry.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise UsageError("attributes must be an object")
    return Draft(
        _text(entry["value"]),
        None if key is None else _text(key),
        None if stamp is None else parse_time(stamp, now_ms=now_ms),
        attributes,
        partition,
        vector=_vector(entry.get("vector")),
    )


def _complete(draft: Draft, config: TopicConfig, reader: LineReader, limits: IngestSettings) -> Draft:
    """The draft with clean text, flat attributes, and what its text says of time, level and fields."""
    value, raw, time_ms = draft.value, draft.raw, draft.time_ms
    if not value.isascii() and (clean := _clean(value)) is not value:
        raw, value = raw or value.encode("utf-8", "surrogatepass"), clean
    attributes = _flat(draft.attributes, limits.max_attributes) if draft.attributes else {}
    if config.passages != "chunks" and len(value) <= _READABLE_CHARS:
        reading = reader.read(value)
        if time_ms is None:
            time_ms = reading.time_ms
        if reading.attributes:
            attributes = _flat(reading.attributes, limits.max_attributes) | attributes
        if reading.level is not None and "level" not in attributes:
            attributes = {**attributes, "level": reading.level}
    if time_ms is not None:
        time_ms = min(max(time_ms, MIN_MS), MAX_MS)
    if config.embedding_model == "external":
        _check_vector(draft.vector, config)
    elif draft.vector is not None:
        raise UsageError("this topic makes its own vectors; create it with embedding_model=external to send yours")
    key = None if draft.key is None else _clean(draft.key)
    return replace(draft, value=value, key=key, raw=raw, time_ms=time_ms, attributes=attributes)


def _clean(text: str) -> str:
    """`text` itself, or without lone surrogates (they become U+FFFD) where it has some."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, RecursionError) as error:
        raise UsageError(f"the value cannot be kept as JSON: {error}") from error


def _flat(attributes: Mapping[str, Any], most: int) -> dict[str, Scalar]:
    out: dict[str, Scalar] = {}
    stack: list[tuple[str, Any]] = list(reversed(list(attributes.items())))
    while stack and len(out) < most:
        name, value = stack.pop()
        name = _clean(str(name))[:200]
        if isinstance(value, Mapping):
            stack.extend((f"{name}.{k}", v) for k, v in reversed(list(value.items())))
        elif value is not None:
            out[name] = _scalar(value)
    return out


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _clean(_text(value))


def _vector(value: Any) -> Sequence[float] | None:
    if value is None:
        return None
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise UsageError("vector must be a list of numbers")
    try:
        return np.asarray(list(value), np.float32).tolist()  # type: ignore[no-any-return]
    except (ValueError, TypeError) as error:
        raise UsageError("vector must be a list of numbers") from error


def _check_vector(vector: Sequence[float] | None, config: TopicConfig) -> None:
    if vector is None:
        raise UsageError("this topic takes its vectors from the records; send 'vector' with each")
    if len(vector) != config.dimension:
        raise UsageError(f"the vector has {len(vector)} numbers, the topic's dimension is {config.dimension}")
    row = np.asarray(vector, np.float32)
    if not np.isfinite(row).all():
        raise UsageError("the vector has a NaN or an infinity")
    if config.metric == "cosine" and not row.any():
        raise UsageError("the vector is all zeros, which has no direction to compare")
