"""What comes in becomes drafts: entries of any accepted form, checked and normalised, with the time, the level and the
fields their text states.

Rules (documented in docs/reference/records.md): a given timestamp or attribute wins over one found in the text; nested
attributes are flattened with dots, and at most `max_attributes` are kept, given ones first; NaN, infinities and integers
beyond 64 bits are kept as text; lone surrogates are replaced and the original bytes kept; times are clamped to years 1
to 9999. A line of ASCII costs little more than reading its header.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from headwater.config import IngestSettings, TopicConfig
from headwater.errors import UsageError
from headwater.lines.fields import LEVEL_KEYS, named
from headwater.lines.reading import LineReader
from headwater.query import parse_time
from headwater.records import MAX_MS, MIN_MS, Draft, Scalar
from headwater.records.levels import LEVELS, canonical_level
from headwater.redacting import Redacting
from headwater.verbs import Entry

_KNOWN = {"value", "key", "timestamp", "attributes", "partition", "vector"}
_READABLE_CHARS = 65_536  # a longer text is a document: its time and level come with it or not at all
_NAME_CHARS = 200  # of an attribute's name
_LEVEL_NAMES = tuple(name for name in LEVEL_KEYS if name != "priority")  # of a ticket it is how soon, not how grave
_draft_of = Draft._make  # all nine fields in order: half the time of a call with names


def drafts(
    entries: Sequence[Entry], config: TopicConfig, reader: LineReader, limits: IngestSettings, *, now_ms: int,
    redacting: Redacting | None = None,
) -> list[Draft]:  # fmt: skip
    """The drafts of `entries`, in order; UsageError names the entry that is not acceptable, and then none is."""
    out: list[Draft] = []
    plain = config.passages != "chunks" and config.embedding_model != "external" and redacting is None
    head_of = reader.head
    levels: dict[str | None, Mapping[str, Scalar]] = {None: {}}  # the attributes of lines that have no others
    for entry in entries:
        # Almost everything that comes in is a line of ASCII: its own short way.
        if plain and type(entry) is str and entry.isascii() and len(entry) <= _READABLE_CHARS:
            if (head := head_of(entry)) is not None:
                time_ms, level, start = head
                if level not in levels:
                    levels[level] = {"level": level or ""}
                out.append(_draft_of((entry, None, time_ms, levels[level], None, None, None, None, start)))
                continue
            found = reader.read(entry)
            attributes = _joined({}, found.attributes, found.level, limits.max_attributes)
            body = None if found.attributes else found.start
            out.append(_draft_of((entry, None, found.time_ms, attributes, None, None, None, None, body)))
            continue
        try:
            out.append(_complete(drafted(entry, now_ms), config, reader, limits, redacting))
        except UsageError as error:
            raise UsageError(f"record {len(out)}: {error}") from error
    return out


def drafted(entry: Entry, now_ms: int) -> Draft:
    """The draft that an entry stands for, before it is checked further; UsageError."""
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
    if stamp is not None and not isinstance(stamp, str | int | float | datetime):
        raise UsageError(f"timestamp must be text or a number, not {type(stamp).__name__}")
    attributes = entry.get("attributes")
    if attributes is not None and not isinstance(attributes, Mapping):
        raise UsageError("attributes must be an object")
    return Draft(
        _text(entry["value"]),
        None if key is None else _text(key),
        None if stamp is None else parse_time(stamp, now_ms=now_ms),
        attributes or {},
        partition,
        vector=entry.get("vector"),
    )


REPLACED = "\ufffd"  # what stands for bytes, or half characters, that are no text; the bytes are kept beside it


def _complete(
    draft: Draft, config: TopicConfig, reader: LineReader, limits: IngestSettings, redacting: Redacting | None
) -> Draft:
    """The draft with clean text, flat attributes, and what its text says of time, level and fields; redacted before anything
    is read of it."""
    value, raw, time_ms = draft.value, draft.raw, draft.time_ms
    if not isinstance(value, str):
        value = _text(value)
    if not value.isascii() and (clean := _clean(value)) is not value:
        raw, value = raw or value.encode("utf-8", "surrogatepass"), clean
    if redacting is not None:
        value = redacting.text(value)
    attributes = _flat(draft.attributes, limits.max_attributes) if draft.attributes else {}
    body = None
    if config.passages != "chunks" and len(value) <= _READABLE_CHARS:
        found = reader.read(value)
        body = None if found.attributes else found.start
        if time_ms is None:
            time_ms = found.time_ms
        level = (_level_in(attributes) if attributes else None) or found.level
        if found.attributes or level is not None:
            attributes = _joined(attributes, found.attributes, level, limits.max_attributes)
    if time_ms is not None:
        time_ms = min(max(time_ms, MIN_MS), MAX_MS)
    vector = None if draft.vector is None else _vector(draft.vector)
    if config.embedding_model == "external":
        _check_vector(vector, config)
    elif vector is not None:
        raise UsageError("this topic makes its own vectors; create it with embedding_model=external to send yours")
    key = None if draft.key is None else _clean(draft.key)
    if raw is not None and REPLACED in value:
        attributes = {**attributes, "invalid_utf8": True}
    if redacting is not None:  # the bytes behind the text could hold what it hides
        key, attributes, raw = None if key is None else redacting.key(key), redacting.attributes(attributes), None
    return Draft(value, key, time_ms, attributes, draft.partition, draft.position, raw, vector, body)


def _level_in(given: Mapping[str, Scalar]) -> str | None:
    """The level that given attributes state in a word under another name than `level`."""
    if "level" in given:
        return None
    for name in named(given, _LEVEL_NAMES):
        value = given[name]
        if isinstance(value, str) and (level := canonical_level(value)) in LEVELS:
            return level
    return None


def _joined(given: dict[str, Scalar], found: Mapping[str, Scalar], level: str | None, most: int) -> dict[str, Scalar]:
    """Given attributes with those found in the text behind them, at most `most`, and the level, which always has room."""
    out = given if given else {}
    for name, value in found.items():
        if len(out) >= most:
            break
        if name not in out:
            out[name if name.isascii() and len(name) <= _NAME_CHARS else _clean(name)[:_NAME_CHARS]] = _scalar(value)
    if level is not None and "level" not in out:
        out["level"] = level
    return out


def _clean(text: str) -> str:
    """`text` itself, or without lone surrogates (they become U+FFFD) where it has some."""
    if text.isascii():
        return text
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
        name = _clean(str(name))[:_NAME_CHARS]
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


def _vector(value: Any) -> list[float]:
    """The numbers of a vector as float32 holds them; UsageError for anything but a flat list of numbers."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise UsageError("vector must be a list of numbers")
    numbers = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if not all(isinstance(n, int | float | np.number) and not isinstance(n, bool) for n in numbers):
        raise UsageError("vector must be a list of numbers")
    try:
        with np.errstate(over="ignore"):  # becomes an infinity, which is refused by its own name
            return [float(n) for n in np.asarray([float(n) for n in numbers], np.float32)]
    except OverflowError as error:
        raise UsageError("the vector has a NaN or an infinity") from error


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
