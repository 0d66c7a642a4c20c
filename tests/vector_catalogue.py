"""A catalogue of vectors over SQLite, for the tests of the vector index: the truth that survives its restarts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw
import numpy as np
import numpy.typing as npt

from headwater.vectors import SegmentRow

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS vector(id INTEGER PRIMARY KEY, segment TEXT, data BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS segment(name TEXT PRIMARY KEY, count, min_id, max_id, manifest);
"""
Block = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class SqliteCatalogue:
    """`headwater.vectors.Catalogue` over one file; `generation` moves on when the topic is deleted."""

    def __init__(self, path: Path, dimension: int) -> None:
        self._path, self._dimension = path, dimension
        self.generation = self.opened = 1
        for _ in self._db().execute(_SCHEMA):
            pass

    def store(self, ids: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> None:
        rows = zip(ids.tolist(), (row.astype(np.float16).tobytes() for row in vectors), strict=True)
        with self._db() as db:
            db.executemany("INSERT OR IGNORE INTO vector(id, data) VALUES (?, ?)", rows)

    def forget(self, ids: Sequence[int]) -> None:
        with self._db() as db:
            db.executemany("DELETE FROM vector WHERE id = ?", [(int(i),) for i in ids])

    def segments(self) -> list[SegmentRow]:
        rows = self._db().execute("SELECT name, count, min_id, max_id, manifest FROM segment ORDER BY min_id")
        return [SegmentRow(*row) for row in rows]

    def tail(self) -> Iterator[Block]:
        return self._blocks("segment IS NULL", ())

    def members(self, name: str) -> Iterator[Block]:
        return self._blocks("segment = ?", (name,))

    def gone(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        there = np.array([id for (id,) in self._db().execute("SELECT id FROM vector")], np.int64)
        return np.setdiff1d(ids, there)

    def commit_segment(self, row: SegmentRow, ids: npt.NDArray[np.int64], replaces: Sequence[str]) -> bool:
        if self.generation != self.opened:
            return False
        with self._db() as db:
            self._drop(db, replaces)
            values = (row.name, row.count, row.min_id, row.max_id, row.manifest)
            db.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?)", values)
            db.executemany("UPDATE vector SET segment = ? WHERE id = ?", [(row.name, i) for i in ids.tolist()])
        return True

    def drop_segments(self, names: Sequence[str]) -> None:
        with self._db() as db:
            self._drop(db, names)

    def _drop(self, db: apsw.Connection, names: Sequence[str]) -> None:
        for name in names:
            db.execute("UPDATE vector SET segment = NULL WHERE segment = ?", (name,))
            db.execute("DELETE FROM segment WHERE name = ?", (name,))

    def _blocks(self, where: str, values: tuple[str, ...]) -> Iterator[Block]:
        rows = self._db().execute(f"SELECT id, data FROM vector WHERE {where} ORDER BY id", values).fetchall()
        for start in range(0, len(rows), 128):
            part = rows[start : start + 128]
            data = np.frombuffer(b"".join(row[1] for row in part), np.float16).reshape(-1, self._dimension)
            yield np.array([row[0] for row in part]), data.astype(np.float32)

    def _db(self) -> apsw.Connection:
        db = apsw.Connection(str(self._path))
        db.set_busy_timeout(240_000)
        return db
