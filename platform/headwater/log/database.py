"""One SQLite database with one writer thread and any number of readers.

A write is a function of the connection. The thread takes every waiting one, runs each in a savepoint of its own (one that
fails leaves its neighbours alone), commits once with synchronous=FULL, and only then lets the callers go on: what is
acknowledged is on disk. Reads use connections of their own and never wait for writes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import apsw

from headwater.errors import StorageError

T = TypeVar("T")
_WAL_PAGES = 4000  # of 4 KiB, before the checkpointer moves them into the database
_WAL_MOST_PAGES = 32_000  # where the writer itself does so: it never rests long enough for the WAL to start anew
_COMPACT_S = 30.0  # readers may keep the WAL for so long
_VARIABLES = 32_000  # SQLite's limit on those of one statement is 32,766
_ROWS_A_STATEMENT = 500  # the text of more is too long for apsw to keep it prepared
_MOST_AT_ONCE = 20_000  # rows in one commit


def insert_many(db: apsw.Connection, insert: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run `insert` ("INSERT INTO t") for all rows, many to a statement: every step of a statement lets go of the
    interpreter, and with busy threads beside this one getting it back costs more than the row."""
    if not rows:
        return
    width = len(rows[0])
    most = min(_VARIABLES // width, _ROWS_A_STATEMENT)
    one = f"({','.join('?' * width)})"
    for at in range(0, len(rows), most):
        part = rows[at : at + most]
        db.execute(f"{insert} VALUES{','.join([one] * len(part))}", tuple(itertools.chain.from_iterable(part)))


class _Request(NamedTuple):
    write: Callable[[apsw.Connection], Any]
    rows: int
    done: Future[Any]
    announce: int | None


class Database:
    """Opens (and makes) the file at `path`. `durable=False` trades safety at power loss for speed; `vfs` is SQLite's;
    `most_waiting` is how many rows may wait for the writer before `submit` holds its caller."""

    def __init__(
        self,
        path: Path,
        *,
        migrate: Callable[[apsw.Connection], None],
        durable: bool = True,
        vfs: str | None = None,
        committed: Callable[[Collection[int]], None] = lambda _: None,
        most_waiting: int = 50_000,
    ) -> None:
        self._most_waiting = most_waiting
        self.path, self._durable, self._vfs, self._committed = path, durable, vfs, committed
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._readers: queue.SimpleQueue[apsw.Connection] = queue.SimpleQueue()
        self._waiting, self._room = 0, threading.Condition()
        self._alone = threading.Lock()  # held while a batch is written, and by what must have the file to itself
        self._wal_full, self._wal_pages, self._closed = threading.Event(), 0, False
        try:
            self._db = self._connect()
            try:
                migrate(self._db)
            except BaseException:
                self._db.close()
                raise
        except apsw.Error as error:
            raise StorageError(f"cannot open {path}: {error}") from error
        self._db.set_wal_hook(self._on_wal)
        self._threads = [
            threading.Thread(target=work, name=work.__name__, daemon=True) for work in (self._run, self._checkpoint)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, write: Callable[[apsw.Connection], T], *, rows: int = 1, announce: int | None = None) -> Future[T]:
        """Queue a write; the future is done after COMMIT. `rows` weighs it against what may wait, beyond which the caller
        is held. `announce` is passed to `committed` with those of the same commit."""
        with self._room:
            while self._waiting >= self._most_waiting and not self._closed:
                self._room.wait()
            if self._closed:
                raise StorageError(f"{self.path} is closed")
            self._waiting += rows
            request = _Request(write, rows, Future(), announce)
            self._queue.put(request)
        return request.done

    def write(self, write: Callable[[apsw.Connection], T], *, rows: int = 1) -> T:
        """Run a write and wait until it is committed."""
        return self.submit(write, rows=rows).result()

    @property
    def crowded(self) -> bool:
        """Whether so much waits for the writer that `submit` may soon hold its caller."""
        return self._waiting * 2 >= self._most_waiting

    @contextlib.contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """A connection for reads, with one consistent view of the database while the block lasts."""
        try:
            db = self._readers.get_nowait()
        except queue.Empty:
            db = self._connect(readonly=True)
        try:
            with db:
                yield db
        finally:
            if self._closed:
                _let_go(db)
            else:
                self._readers.put(db)

    def compact(self) -> tuple[int, int]:
        """Write the whole file anew without what was deleted, and empty the WAL: (bytes before, bytes after). Writes wait
        for it; it needs room for a second copy. Raises StorageError."""
        wal = self.path.with_name(self.path.name + "-wal")
        before = self.path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
        if shutil.disk_usage(self.path.parent).free < 2 * before:
            raise StorageError(f"{self.path} cannot be written anew: that takes {2 * before:,} bytes of free space")
        with self._alone:
            db = self._connect()
            try:
                db.execute("VACUUM")
                end = time.monotonic() + _COMPACT_S
                while not _emptied(db):
                    if time.monotonic() > end:
                        raise StorageError(f"{self.path}: readers keep the write-ahead log from being emptied; try again")
                    time.sleep(0.05)
            except apsw.Error as error:
                raise StorageError(f"{self.path} could not be written anew: {error}") from error
            finally:
                _let_go(db)
        return before, self.path.stat().st_size

    def check(self) -> list[str]:
        """SQLite's own integrity check; empty when all is well."""
        with self.reading() as db:
            return [r[0] for r in db.execute("PRAGMA integrity_check") if r[0] != "ok"]

    def close(self) -> None:
        """Finish what is queued, then let go; safe to call twice."""
        with self._room:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
            self._room.notify_all()
        self._wal_full.set()
        for thread in self._threads:
            thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                _let_go(self._readers.get_nowait())
        with contextlib.suppress(apsw.Error):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        _let_go(self._db)

    # ------------------------------------------------------------------ the writer thread

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            batch, rows = [request], request.rows
            while rows < _MOST_AT_ONCE:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
                rows += more.rows
            with self._alone:
                self._commit([request for request in batch if request.done.set_running_or_notify_cancel()])
            with self._room:
                self._waiting -= rows
                self._room.notify_all()
            if self._wal_pages > _WAL_MOST_PAGES:
                self._move_wal(self._db)

    def _commit(self, batch: Sequence[_Request]) -> None:
        outcomes: list[tuple[_Request, Any, BaseException | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for request in batch:
                try:
                    with self._db:
                        outcomes.append((request, request.write(self._db), None))
                except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError):
                    raise
                except Exception as error:  # the top of the writer's loop: a failure belongs to its caller
                    if not self._db.in_transaction:  # SQLite has undone the neighbours with it
                        raise
                    outcomes.append((request, None, error))
            self._db.execute("COMMIT")
        except (apsw.Error, OSError) as error:
            if self._db.in_transaction:
                with contextlib.suppress(apsw.Error):
                    self._db.execute("ROLLBACK")
            for request in batch:
                refused = StorageError(
                    f"{self.path} could not be written ({error}); free some space, nothing acknowledged is lost"
                )
                refused.__cause__ = error
                request.done.set_exception(refused)
            return
        for request, result, failure in outcomes:
            if failure is None:
                request.done.set_result(result)
            else:
                request.done.set_exception(failure)
        if news := {r.announce for r, _, failure in outcomes if failure is None and r.announce is not None}:
            self._committed(news)

    def _on_wal(self, db: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        if pages > _WAL_PAGES:
            self._wal_full.set()
        return 0

    def _checkpoint(self) -> None:
        """Move the WAL into the database beside the writer, so that no append pays for it."""
        with contextlib.suppress(apsw.Error):
            db = self._connect()
            while self._wal_full.wait() and not self._closed:
                self._wal_full.clear()
                self._move_wal(db)
            db.close()

    @staticmethod
    def _move_wal(db: apsw.Connection) -> None:
        with contextlib.suppress(apsw.BusyError, apsw.FullError, apsw.IOError):
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _connect(self, *, readonly: bool = False) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        db = apsw.Connection(os.fspath(self.path), flags=flags, vfs=self._vfs)
        db.set_busy_timeout(10_000)
        if not readonly:
            db.pragma("journal_mode", "wal")
            db.pragma("wal_autocheckpoint", 0)
            db.pragma("journal_size_limit", 64 << 20)
            db.pragma("synchronous", "full" if self._durable else "off")
            if db.pragma("synchronous") != (2 if self._durable else 0) or db.pragma("journal_mode") != "wal":
                raise StorageError(f"{self.path}: no write-ahead log on this file system; choose another data directory")
        db.pragma("cache_size", -32_000)
        return db


def _emptied(db: apsw.Connection) -> bool:
    """Move the whole WAL into the database and cut it to nothing; False where a reader still needs it."""
    try:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return False
    return True


def _let_go(db: apsw.Connection) -> None:
    """Close, also where the disk no longer answers: what was acknowledged is on it."""
    with contextlib.suppress(apsw.Error):
        db.close()
