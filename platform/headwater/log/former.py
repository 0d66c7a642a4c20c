"""What the log remembers of versions that were replaced: their records stay, hidden from whoever does not ask for them.

A row says from which seq on a version is a former one: that of the record that took its place, or the topic's next one when
its document went. The functions run on a connection; those that write, inside a write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import orjson

from headwater.log.schema import SEQ_BITS

if TYPE_CHECKING:
    import apsw


def add(db: apsw.Connection, records: Mapping[int, int]) -> list[int]:
    """Make records (by id, with the seq from which on) former ones; gives those that were not."""
    known = among(db, records.keys())
    fresh = {record: until for record, until in records.items() if record not in known}
    db.executemany("INSERT INTO former VALUES(?, ?)", list(fresh.items()))
    return list(fresh)


def among(db: apsw.Connection, records: Collection[int]) -> dict[int, int]:
    """Those of some records (by id) that are former, with the seq from which on."""
    if not records:
        return {}
    low, high = min(records), max(records)
    found = dict(db.execute("SELECT record, until FROM former WHERE record BETWEEN ? AND ?", (low, high)))
    return {record: until for record, until in found.items() if record in records} if found else {}


def forget(db: apsw.Connection, records: Collection[int]) -> None:
    """These records (by id) are no more."""
    db.execute("DELETE FROM former WHERE record IN (SELECT value FROM json_each(?))", (orjson.dumps(list(records)).decode(),))


def has_some(db: apsw.Connection, topic: int) -> bool:
    """Whether a topic has former versions."""
    span = (topic << SEQ_BITS, (topic + 1) << SEQ_BITS)
    return db.execute("SELECT 1 FROM former WHERE record >= ? AND record < ? LIMIT 1", span).get is not None
