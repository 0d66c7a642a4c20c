"""What the log remembers of records that are gone: where each stood in its source, so that a second delivery does not bring
it back, and which of them the keyword index may still hold.

The functions run inside a write. Records deleted on request leave their positions, one row each. Those past their
retention leave a floor for the whole stream: sources deliver in order, so whatever lies below it has been delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import orjson

from headwater.log.schema import SEQ_MASK

if TYPE_CHECKING:
    import apsw

Where = tuple[int, int, int]  # partition, offset, seq
NOWHERE: Where = (0, -1, -1)  # of a record past its retention: where it stood is not known any more
_AMONG = "(SELECT value FROM json_each(?1))"


def remember(db: apsw.Connection, topic: int, records: Collection[int], *, one_by_one: bool) -> None:
    """Before these records (by id) are deleted: keep their positions, or with `one_by_one` False only how far they reach,
    and that the keyword index still has them."""
    chosen = (orjson.dumps(list(records)).decode(),)
    placed = f"FROM record WHERE id IN {_AMONG} AND stream IS NOT NULL AND position IS NOT NULL"
    if one_by_one:
        db.execute(f"INSERT OR IGNORE INTO gone SELECT stream, position, partition, offset, id & {SEQ_MASK} {placed}", chosen)
    else:
        for stream, position in list(db.execute(f"SELECT stream, max(position) {placed} GROUP BY stream", chosen)):
            db.execute("UPDATE stream SET floor = max(floor, ?2) WHERE id = ?1", (stream, position))
            db.execute("DELETE FROM gone WHERE stream = ? AND position <= ?", (stream, position))
    note(db, topic, records)


def note(db: apsw.Connection, topic: int, records: Collection[int]) -> None:
    """The keyword index holds these records (by id) otherwise than they are now."""
    chosen = (orjson.dumps(list(records)).decode(),)
    db.execute(f"INSERT OR IGNORE INTO unindexed SELECT {int(topic)}, value & {SEQ_MASK} FROM json_each(?1)", chosen)


def positions(db: apsw.Connection, stream: int, wanted: Sequence[int]) -> dict[int, Where]:
    """Those positions of a stream whose records were stored once and are gone, with where they stood."""
    floor = db.execute("SELECT floor FROM stream WHERE id = ?", (stream,)).get
    found: dict[int, Where] = {position: NOWHERE for position in wanted if position <= floor}
    rows = db.execute(
        f"SELECT position, partition, offset, seq FROM gone WHERE stream = ?2 AND position IN {_AMONG}",
        (orjson.dumps(list(wanted)).decode(), stream),
    )
    found.update((position, (partition, offset, seq)) for position, partition, offset, seq in rows)
    return found


def unindexed(db: apsw.Connection, topic: int, limit: int) -> list[int]:
    """Seqs of gone records that the keyword index may still hold."""
    return [seq for (seq,) in db.execute("SELECT seq FROM unindexed WHERE topic = ? ORDER BY seq LIMIT ?", (topic, limit))]


def unindex(db: apsw.Connection, topic: int, seqs: Sequence[int]) -> None:
    """The keyword index holds them no more."""
    db.execute(f"DELETE FROM unindexed WHERE topic = ?2 AND seq IN {_AMONG}", (orjson.dumps(list(seqs)).decode(), topic))
