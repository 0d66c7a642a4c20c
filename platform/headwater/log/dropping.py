"""What deleted topics leave in the log, removed step by step. The functions run inside a write of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.log.schema import SEQ_BITS
from headwater.log.store import in_list

if TYPE_CHECKING:
    import apsw


def delete_topic(db: apsw.Connection, topic: int) -> None:
    """Delete a topic's row and small tables at once; `sweep` removes the rest in steps. The places that its sources had
    reached go too: what fills a topic of that name again begins at the start."""
    names = [name.rpartition("#")[0] for (name,) in db.execute("SELECT name FROM stream WHERE topic = ?", (topic,))]
    db.executemany("DELETE FROM source WHERE name IN (?1, ?1 || '@' || ?2)", [(name, topic) for name in dict.fromkeys(names)])
    db.execute("DELETE FROM topic WHERE id = ?", (topic,))


def sweep(db: apsw.Connection, *, limit: int = 5000) -> bool:
    """One bounded step of removing what deleted topics left; False when nothing is left. Costs next to nothing then: topics
    are looked up one after the other in each table's key, rows are not."""
    if (topic := _left_behind(db, "record", f"id >> {SEQ_BITS}", f"id >= (? + 1) << {SEQ_BITS}")) is not None:
        low, high = topic << SEQ_BITS, (topic + 1) << SEQ_BITS
        chosen = (
            in_list([r for (r,) in db.execute("SELECT id FROM record WHERE id >= ? AND id < ? LIMIT ?", (low, high, limit))]),
        )
        db.execute("DELETE FROM occurrence WHERE record IN (SELECT value FROM json_each(?))", chosen)
        db.execute("DELETE FROM former WHERE record IN (SELECT value FROM json_each(?))", chosen)
        db.execute("DELETE FROM record WHERE id IN (SELECT value FROM json_each(?))", chosen)
        return True
    for table, key in (("vector", "topic, model, passage"), ("passage", "id"), ("spread", "topic, partition, offset")):
        if (topic := _left_behind(db, table)) is None:
            continue
        some = f"SELECT {key} FROM {table} WHERE topic = ?1 LIMIT ?2"
        if table == "passage":
            db.execute(f"DELETE FROM alias WHERE old IN ({some})", (topic, limit))
        db.execute(f"DELETE FROM {table} WHERE ({key}) IN ({some})", (topic, limit))
        return True
    past = "topic NOT IN (SELECT id FROM topic)"
    db.execute(f"DELETE FROM gone WHERE stream IN (SELECT id FROM stream WHERE {past})")
    for table in ("segment", "template", "cursor", "dead_letter", "delivery", "stream", "head", "unindexed", "shadow", "asked"):
        db.execute(f"DELETE FROM {table} WHERE {past}")
    return False


def _left_behind(db: apsw.Connection, table: str, topic: str = "topic", later: str = "topic > ?") -> int | None:
    """The least topic a table has rows of that is no more. `topic` ascends with the table's key."""
    first = f"SELECT {topic} FROM {table} {{}} ORDER BY {'id' if table == 'record' else 'topic'} LIMIT 1"
    at = db.execute(first.format("")).get
    while at is not None:
        if db.execute("SELECT 1 FROM topic WHERE id = ?", (at,)).get is None:
            return int(at)
        at = db.execute(first.format(f"WHERE {later}"), (at,)).get
    return None
