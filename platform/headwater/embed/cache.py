"""Vectors, and answers of chat models, kept between runs: a SQLite file with least-recently-used eviction; and the Embedder
that uses it.

A cache never stops work: a full disk, a lock or a damaged file makes misses, and a damaged file is begun anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from headwater.embed.embedder import Embedder, Kind

if TYPE_CHECKING:
    import apsw

    from headwater.embed.embedder import Vectors

T = TypeVar("T")
SCHEMA = 1
ROW_BYTES = 160  # what a row costs besides its vector: keys, indexes, page slack
STEP = 512  # texts embedded before what came is written down
SOON = 64  # vectors of single texts that wait to be written down together
TOUCHES = 4096  # reads remembered before their order of use is written down
_REPLY = "reply"  # the kind of what chat models answered; their key is the prompt
_CREATE = """
CREATE TABLE vector(text BLOB NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, used INTEGER NOT NULL, size INTEGER NOT NULL,
                    vector BLOB NOT NULL);
CREATE UNIQUE INDEX vector_key ON vector(text, kind, model);
CREATE INDEX vector_used ON vector(used, size);
"""


class VectorCache:
    """Vectors by (model, kind, sha256 of the text), float32. Thread-safe; one process at a time.

    `max_bytes` bounds the vectors kept (the file may be a little larger). `rebuilt` counts damaged files begun anew,
    `failures` the reads and writes that came to nothing for another reason."""

    def __init__(self, path: Path, max_bytes: int = 268_435_456) -> None:
        self.path, self.max_bytes = path, max_bytes
        self.rebuilt = self.failures = 0
        self._lock = threading.Lock()
        self._touched: dict[int, None] = {}
        self._soon: dict[tuple[str, Kind, str], Vectors] = {}
        self._db: apsw.Connection | None = None
        self._bytes = self._tick = 0

    def get_many(self, model: str, kind: Kind, texts: Sequence[str]) -> dict[int, Vectors]:
        """The vectors there are, `(d,)` each, by position in `texts`."""
        import numpy as np

        def read(db: apsw.Connection) -> dict[int, Vectors]:
            found: dict[int, Vectors] = {}
            sql = "SELECT rowid, vector FROM vector WHERE text=? AND kind=? AND model=?"
            for position, text in enumerate(texts):
                if (soon := self._soon.get((model, kind, text))) is not None:
                    found[position] = soon
                    continue
                for row, blob in db.execute(sql, (_digest(text), kind, model)):
                    vector = np.frombuffer(bytes(blob), np.float32) if len(blob) % 4 == 0 else np.empty(0, np.float32)
                    if abs(float(vector @ vector) - 1.0) < 1e-3:  # anything but a unit row is damage: a miss
                        found[position] = vector
                        self._touched[row] = None
            if len(self._touched) >= TOUCHES:
                with db:
                    self._flush(db)
            return found

        return self._guarded(read, {})

    def put_many(self, model: str, kind: Kind, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep unit rows `(n, d)`, one per text; the least recently used go when it gets too large."""

        def write(db: apsw.Connection) -> None:
            with db:
                self._flush(db)
                self._put(db, model, kind, texts, vectors)

        self._guarded(write, None)

    def put_soon(self, model: str, kind: Kind, text: str, vector: Vectors) -> bool:
        """Keep a unit row `(d,)` without waiting for the file, with the next that is written down; True where that is due."""
        self._soon[model, kind, text] = vector
        return len(self._soon) >= SOON

    def write_down(self) -> None:
        """Write down what waits."""
        self._guarded(self._written_down, None)

    def _written_down(self, db: apsw.Connection) -> None:
        with db:
            self._flush(db)

    def reply(self, model: str, prompt: str) -> bytes | None:
        """What a chat model answered to this prompt, as it was kept."""

        def read(db: apsw.Connection) -> bytes | None:
            for row, blob in db.execute("SELECT rowid, vector FROM vector WHERE text=? AND kind=? AND model=?", key):
                self._touched[row] = None
                return bytes(blob)
            return None

        key = (_digest(prompt), _REPLY, model)
        return self._guarded(read, None)

    def keep_reply(self, model: str, prompt: str, data: bytes) -> None:
        """Keep an answer beside the vectors, under the same bound."""

        def write(db: apsw.Connection) -> None:
            sql = "INSERT OR IGNORE INTO vector(text, kind, model, used, size, vector) VALUES(?,?,?,?,?,?)"
            with db:
                self._flush(db)
                self._tick += 1
                db.execute(sql, (_digest(prompt), _REPLY, model, self._tick, len(data) + ROW_BYTES, data))
                self._bytes += (len(data) + ROW_BYTES) * db.changes()
                if self._bytes > self.max_bytes:
                    self._evict(db)

        self._guarded(write, None)

    def forget(self, texts: Sequence[str]) -> None:
        """Delete the vectors of these texts for every model and kind, and every answer of a chat model, which may quote them:
        a purged record leaves no trace here."""

        def delete(db: apsw.Connection) -> None:
            with db:
                self._flush(db)
                db.executemany("DELETE FROM vector WHERE text=?", [(_digest(t),) for t in texts])
                db.execute("DELETE FROM vector WHERE kind=?", (_REPLY,))
                self._measure(db)

        self._guarded(delete, None)

    def compact(self) -> None:
        """Write the file anew, without what was deleted or evicted."""
        import apsw

        def write(db: apsw.Connection) -> None:
            db.execute("VACUUM")
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

        self._guarded(write, None)

    def __len__(self) -> int:
        return self._guarded(lambda db: _number(db, "SELECT count(*) FROM vector"), 0)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def close(self) -> None:
        """Write down what was used last and close the file; the next use opens it again."""

        if self._db is not None or self._soon:
            self._guarded(self._written_down, None)
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _guarded(self, work: Callable[[apsw.Connection], T], otherwise: T) -> T:
        """`work(db)` under the lock; `otherwise` when the file fails. A damaged file is deleted, and `work` tried anew."""
        import apsw

        with self._lock:
            for _ in range(2):
                try:
                    if self._db is None:
                        self._db = self._open()
                    return work(self._db)
                except (apsw.CorruptError, apsw.NotADBError):
                    self.rebuilt += 1
                    self._discard()
                except (apsw.Error, OSError):
                    self.failures += 1
                    break
            return otherwise

    def _open(self) -> apsw.Connection:
        import apsw

        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = apsw.Connection(str(self.path))
        try:
            db.set_busy_timeout(5000)
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-8000", "journal_size_limit=16777216"):
                db.execute(f"PRAGMA {pragma}").fetchall()
            if db.execute("PRAGMA user_version").get != SCHEMA:
                with db:  # another version's table, or none: vectors can always be made again
                    db.execute("DROP TABLE IF EXISTS vector")
                    for statement in _CREATE.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version={SCHEMA}")
            self._measure(db)
            self._tick = _number(db, "SELECT coalesce(max(used), 0) FROM vector")
        except apsw.Error:
            db.close()
            raise
        return db

    def _discard(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None
        self._touched.clear()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _measure(self, db: apsw.Connection) -> None:
        self._bytes = _number(db, "SELECT coalesce(sum(size), 0) FROM vector")

    def _flush(self, db: apsw.Connection) -> None:
        """Write what waits, and the order of use of what was read since the last flush."""
        soon, self._soon = self._soon, {}
        for (model, kind, text), vector in list(soon.items()):
            self._put(db, model, kind, [text], [vector])
        for row in self._touched:
            self._tick += 1
            db.execute("UPDATE vector SET used=? WHERE rowid=?", (self._tick, row))
        self._touched.clear()

    def _put(self, db: apsw.Connection, model: str, kind: Kind, texts: Sequence[str], vectors: Iterable[Vectors]) -> None:
        sql = "INSERT OR IGNORE INTO vector(text, kind, model, used, size, vector) VALUES(?,?,?,?,?,?)"
        for text, vector in zip(texts, vectors, strict=True):
            blob = vector.astype("<f4", copy=False).tobytes()
            self._tick += 1
            db.execute(sql, (_digest(text), kind, model, self._tick, len(blob) + ROW_BYTES, blob))
            self._bytes += (len(blob) + ROW_BYTES) * db.changes()
        if self._bytes > self.max_bytes:
            self._evict(db)

    def _evict(self, db: apsw.Connection) -> None:
        """Delete the least recently used down to nine tenths, so that the next put need not evict again."""
        rows: list[Any] = db.execute("SELECT rowid, size FROM vector ORDER BY used").fetchall()
        for row, size in rows:
            if self._bytes <= self.max_bytes * 0.9:
                return
            db.execute("DELETE FROM vector WHERE rowid=?", (row,))
            self._bytes -= size


class Cached(Embedder):
    """An Embedder with a VectorCache before it; `hits` and `misses` count texts. Equal texts in one call embed once."""

    def __init__(self, inner: Embedder, cache: VectorCache) -> None:
        super().__init__(dimension=inner.dimension)
        self.inner, self.cache = inner, cache
        self.name, self.floor, self.local, self.version = inner.name, inner.floor, inner.local, inner.version
        self.batch_size = inner.batch_size
        self.hits = self.misses = 0

    @property
    def dimension(self) -> int | None:
        return self.inner.dimension or self._dimension

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        return await self.inner.embed_batch(texts, kind)

    async def embed(self, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        import numpy as np

        distinct: Mapping[str, int] = {t: i for i, t in enumerate(dict.fromkeys(texts))}
        keys, model = list(distinct), f"{self.name}@{self.version}"
        found = await asyncio.to_thread(self.cache.get_many, model, kind, keys) if keys else {}
        if self.dimension is not None:  # a model that changed its length under the same name: ask it again
            found = {i: v for i, v in found.items() if len(v) == self.dimension}
        missing = [i for i in range(len(keys)) if i not in found]
        for start in range(0, len(missing), STEP):  # kept step by step: a provider that fails half-way is not paid twice
            step = missing[start : start + STEP]
            made = await self.inner.embed([keys[i] for i in step], kind)
            found |= dict(zip(step, made, strict=True))
            if kind == "query" and len(step) == 1:  # nobody waits for the file before the search begins
                if self.cache.put_soon(model, kind, keys[step[0]], made[0]):
                    await asyncio.to_thread(self.cache.write_down)
            else:
                await asyncio.to_thread(self.cache.put_many, model, kind, [keys[i] for i in step], made)
        widths = {len(v) for v in found.values()}
        if len(widths) > 1:  # kept vectors of another length than the model's: all anew, and what was kept goes
            await asyncio.to_thread(self.cache.forget, keys)
            return await self.inner.embed(texts, kind)
        self._dimension = self.inner.dimension or (widths.pop() if widths else None)
        asked = set(missing)
        missed = sum(distinct[t] in asked for t in texts)
        self.hits, self.misses = self.hits + len(texts) - missed, self.misses + missed
        result = np.empty((len(texts), self._dimension or 0), np.float32)
        for row, text in enumerate(texts):
            result[row] = found[distinct[text]]
        return result

    async def aclose(self) -> None:
        await self.inner.aclose()


def _number(db: apsw.Connection, sql: str) -> int:
    value: Any = db.execute(sql).get
    return int(value)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
