"""What callers give where a list is wanted: a single text is as easily given, and Python reads it letter by letter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headwater.errors import UsageError
from headwater.records import Draft
from headwater.verbs import Entry


def entries(records: Iterable[Entry]) -> Sequence[Entry]:
    """The records of an append, also of a generator; UsageError for a single one."""
    if isinstance(records, list | tuple) and not isinstance(records, Draft):
        return records
    if isinstance(records, str | bytes | Mapping | Draft) or not isinstance(records, Iterable):
        raise UsageError(f"records are given as a list, as in append(topic, [record]), not as {type(records).__name__}")
    return list(records)
