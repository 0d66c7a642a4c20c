"""Exports of other programs -> drafts: one file for each, all with the same few parts.

A reader yields items in the export's order. An item's stream names where it comes from (a channel, a table) and its
draft's position is made of what the other program itself calls it (its time, its id): the same export again, or a later
one that holds the same things under another file name, stores them once. A piece that is no record is a fault.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from headwater.records import Draft, Scalar
from headwater.sources import Fault
from headwater.sources.fields import BadLine, scalar

MOST_BYTES = 512 << 20  # of JSON that is read as a whole
_HASH_BITS = 28


class Item(NamedTuple):
    """A record or a fault. `stream` tells apart what positions count in, within one source. `replaces`: it takes the place of
    what the source delivered under the same key before."""

    stream: str
    found: Draft | Fault
    replaces: bool = False


def place(time_ms: int | None, name: str) -> int:
    """A position that grows with time and is the same for the same thing: seconds since the epoch, then 28 bits of a
    hash of its name."""
    seconds = min(max((time_ms or 0) // 1000, 0), (1 << 34) - 1)
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest()
    return seconds << _HASH_BITS | int.from_bytes(digest, "big") >> (32 - _HASH_BITS)


def attributes(**given: object) -> dict[str, Scalar]:
    """Those that say something: no None, no empty text or list. Lists of plain values become one text."""
    found: dict[str, Scalar] = {}
    for name, value in given.items():
        if isinstance(value, list | tuple):
            plain = [str(part) for part in value if isinstance(part, str | int | float)]
            value = ", ".join(plain) if len(plain) == len(value) else value
        if value not in (None, "", [], {}, ()):
            found[name] = scalar(value)
    return found


def text_of(tree: Mapping[str, Any], *names: str) -> str:
    """The text that lies along `names`; empty where there is none."""
    value: Any = tree
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


_BLANK = re.compile(r"[\s,]*")


def json_items(text: str, *, under: tuple[str, ...] = ()) -> Iterator[tuple[Any, int]]:
    """Each element, with its place, of the JSON arrays and objects that stand one behind the other in `text`: pages put
    together, or JSON lines. Of an object the elements of its list `under` that name, where it has one. Raises BadLine, behind
    what could be read."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text.startswith("\ufeff"):
        at = _skip(text, 1)
    while at < len(text):
        if text[at] == "[":
            at = _skip(text, at + 1)
            while at < len(text) and text[at] != "]":
                value, end = _decode(decoder, text, at)
                yield value, at
                at = _skip(text, end)
            if at >= len(text):
                raise BadLine("the JSON is cut off; what came before was kept")
            at = _skip(text, at + 1)
            continue
        value, end = _decode(decoder, text, at)
        listed = next((value[name] for name in under if isinstance(value, dict) and isinstance(value.get(name), list)), None)
        if listed is None:
            yield value, at
        else:
            for element in listed:
                yield element, at
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _decode(decoder: json.JSONDecoder, text: str, at: int) -> tuple[Any, int]:
    try:
        return decoder.raw_decode(text, at)
    except RecursionError:
        raise BadLine("JSON nested too deep") from None
    except ValueError as error:
        raise BadLine(f"not JSON: {str(error)[:200]}; what came before was kept") from None
