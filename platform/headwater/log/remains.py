"""What records that are gone leave in the log: passages and vectors that nothing refers to, words of templates, dead letters,
queries. A purge finds and deletes them here, in steps. The functions that delete run inside a write.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import numpy as np
import orjson

from headwater.log import catalogue
from headwater.log import conversations as conversation_store
from headwater.log import watches as watch_store
from headwater.log.schema import SEQ_BITS
from headwater.log.store import in_list
from headwater.templates.mining import pruned

_UNUSED = "count = 0 AND NOT EXISTS (SELECT 1 FROM occurrence o WHERE o.passage = p.id)"  # nothing refers to passage p
_AMONG = "(SELECT value FROM json_each(?1))"


def dead_passages(db: apsw.Connection, topic: int, start: int, limit: int) -> tuple[list[int], int | None]:
    """Of a topic's next `limit` passages from id `start` on those that nothing refers to any more, and the id to go on from;
    None at the end."""
    some = f"SELECT id, {_UNUSED} AS unused FROM passage p WHERE topic = ? AND id >= ? ORDER BY id LIMIT ?"
    columns = "json_group_array(id) FILTER (WHERE unused), max(id)"
    found, last = db.execute(f"SELECT {columns} FROM ({some})", (topic, start, limit)).get
    return orjson.loads(found), None if last is None else last + 1


def take(db: apsw.Connection, ids: Sequence[int]) -> list[tuple[int, str, str | None]]:
    """Delete those of some passages that nothing refers to, also now, with their vectors and aliases: (id, text, context)."""
    query = f"SELECT id, text, context FROM passage p WHERE id IN {_AMONG} AND {_UNUSED}"
    taken: list[tuple[int, str, str | None]] = list(db.execute(query, (in_list(ids),)))
    dead = [id for id, _, _ in taken]
    db.execute(f"DELETE FROM alias WHERE old IN {_AMONG} OR new IN {_AMONG}", (in_list(dead),))
    catalogue.forget_passages(db, dead)
    return taken


def stray_vectors(db: apsw.Connection, topic: int, start: int, limit: int) -> tuple[list[tuple[int, int]], int | None]:
    """(model, passage) of a topic's vectors from passage `start` on that belong to no passage, as far as the next `limit`
    passages reach, and the passage to go on from; None at the end. `db` has one consistent view."""
    some = "SELECT id FROM passage WHERE topic = ? AND id >= ? ORDER BY id LIMIT ?"
    ids = orjson.loads(db.execute(f"SELECT json_group_array(id) FROM ({some})", (topic, start, limit)).get)
    following = ids[-1] + 1 if len(ids) == limit else None
    ends = np.array([start - 1, *ids, *([catalogue.LAST_ID] if following is None else [])], np.int64)
    gaps = np.stack([ends[:-1] + 1, ends[1:] - 1], axis=1)
    query = (
        "SELECT v.model, v.passage FROM model m CROSS JOIN json_each(?) r CROSS JOIN vector v ON v.topic = ? AND"
        " v.model = m.id AND v.passage BETWEEN r.value ->> 0 AND r.value ->> 1"
    )
    return list(db.execute(query, (orjson.dumps(gaps[gaps[:, 0] <= gaps[:, 1]].tolist()).decode(), topic))), following


def forget_vectors(db: apsw.Connection, topic: int, vectors: Sequence[tuple[int, int]]) -> None:
    """Delete vectors by (model, passage)."""
    db.executemany("DELETE FROM vector WHERE topic = ? AND model = ? AND passage = ?", [(topic, *v) for v in vectors])


def forget(db: apsw.Connection, topic: int) -> dict[str, int]:
    """Delete what else a topic's gone records left: the miner's words, dead letters, texts that watches keep, and the queries
    of every topic that were kept to compare models by. Counts by name."""
    counts: dict[str, int] = {}
    live = "SELECT 1 FROM passage WHERE topic = ? AND digest = ?"
    state = list(db.execute("SELECT text, state FROM template WHERE topic = ?", (topic,)))
    changes = pruned(state, lambda text: db.execute(live, (topic, catalogue.digest(text))).get is not None)
    for name, row in changes.items():
        if row is None:
            db.execute("DELETE FROM template WHERE topic = ? AND text = ?", (topic, name))
        else:
            db.execute("UPDATE template SET state = ? WHERE topic = ? AND text = ?", (row, topic, name))
    counts["templates"] = len(changes)
    orphan = f"NOT EXISTS (SELECT 1 FROM record r WHERE r.id = ({topic} << {SEQ_BITS}) + seq)"
    # Input that never became a record goes too: mended and appended again it was one, which may be among those that are gone.
    db.execute(f"DELETE FROM dead_letter WHERE topic = ? AND (seq IS NULL OR {orphan})", (topic,))
    counts["dead letters"] = db.changes()
    counts["texts of watches"] = watch_store.purge(db, topic)
    db.execute("DELETE FROM decision WHERE item < 0 AND topic = ?", (topic,))  # of texts; those of passages go with them
    counts["decisions on texts"] = db.changes()
    counts["answers"] = conversation_store.purge(db, topic)
    db.execute("DELETE FROM asked")  # of every topic: most are asked of all of them
    counts["kept queries"] = db.changes()
    db.execute("UPDATE shadow SET report = json_set(report, '$.samples', json('[]')) WHERE report IS NOT NULL")
    return counts
