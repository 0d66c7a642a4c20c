"""One writer, many readers: what a commit means, what holds a caller, what a bad neighbour does, how a schema grows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import apsw
import pytest

import headwater.log.database
from headwater.errors import StorageError, UsageError
from headwater.log.database import Database
from headwater.log.schema import MIGRATIONS, migrate


def tables(db: apsw.Connection) -> None:
    for _ in db.execute("CREATE TABLE IF NOT EXISTS item(n INTEGER PRIMARY KEY, text TEXT)"):
        pass


def items(database: Database) -> list[int]:
    with database.reading() as db:
        return [n for (n,) in db.execute("SELECT n FROM item ORDER BY n")]


def insert(n: int) -> Any:
    return lambda db: db.execute("INSERT INTO item VALUES(?, '')", (n,)).get


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "log.db", migrate=tables)
    yield opened
    opened.close()


class Gate:
    """A write that holds the writer thread until it is let go."""

    def __init__(self, database: Database) -> None:
        self.inside, self._go = threading.Event(), threading.Event()
        self.done = database.submit(self._wait)
        assert self.inside.wait(240)

    def _wait(self, db: apsw.Connection) -> None:
        self.inside.set()
        assert self._go.wait(240)

    def open(self) -> None:
        self._go.set()
        self.done.result(240)


def test_writes_that_wait_together_share_one_commit(tmp_path: Path) -> None:
    commits: list[int] = []
    database = Database(tmp_path / "log.db", migrate=tables, committed=lambda news: commits.append(len(news)))
    gate = Gate(database)
    futures = [database.submit(insert(n), announce=n) for n in range(50)]
    gate.open()
    for future in futures:
        future.result(240)
    assert commits == [50]
    assert items(database) == list(range(50))
    database.close()


def test_a_write_that_fails_leaves_its_neighbours_alone(database: Database) -> None:
    def half(db: apsw.Connection) -> None:
        db.execute("INSERT INTO item VALUES(7, 'half')")
        raise UsageError("no")

    gate = Gate(database)
    before, bad, clash, after = (database.submit(w) for w in (insert(1), half, insert(1), insert(2)))
    gate.open()
    before.result(240)
    after.result(240)
    with pytest.raises(UsageError, match="no"):
        bad.result(240)
    with pytest.raises(apsw.ConstraintError):
        clash.result(240)
    assert items(database) == [1, 2]


def test_a_write_called_off_before_its_turn_is_not_made(database: Database) -> None:
    gate = Gate(database)
    kept, off = database.submit(insert(1)), database.submit(insert(2))
    assert off.cancel()
    gate.open()
    kept.result(240)
    database.write(insert(3))
    assert items(database) == [1, 3]


def test_a_reader_sees_one_state_while_its_block_lasts_and_never_waits(database: Database) -> None:
    database.write(insert(1))
    with database.reading() as db:
        assert db.execute("SELECT count(*) FROM item").get == 1
        database.write(insert(2))
        assert db.execute("SELECT count(*) FROM item").get == 1
    assert items(database) == [1, 2]
    gate = Gate(database)
    assert items(database) == [1, 2]
    gate.open()


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(apsw.ReadOnlyError), database.reading() as db:
        db.execute("INSERT INTO item VALUES(1, '')")


def test_a_full_queue_holds_the_caller_until_there_is_room(tmp_path: Path) -> None:
    database = Database(tmp_path / "log.db", migrate=tables, most_waiting=100)
    gate = Gate(database)
    held = 0
    entered = threading.Event()
    futures: list[Future[Any]] = []

    def deliver() -> None:
        nonlocal held
        for n in range(30):
            if n == 10:
                entered.set()
            futures.append(database.submit(insert(n), rows=10))
            held = n + 1

    thread = threading.Thread(target=deliver)
    thread.start()
    assert entered.wait(240)
    thread.join(0.2)
    assert thread.is_alive()
    assert held <= 11  # 100 rows wait; nothing is dropped, nothing more is taken
    gate.open()
    thread.join(240)
    for future in futures:
        future.result(240)
    assert items(database) == list(range(30))
    database.close()


def test_closing_finishes_what_waits_and_refuses_the_rest(tmp_path: Path) -> None:
    database = Database(tmp_path / "log.db", migrate=tables, most_waiting=5)
    gate = Gate(database)
    futures = [database.submit(insert(n)) for n in range(4)]
    outcome: list[BaseException] = []

    def late() -> None:
        try:
            database.submit(insert(99)).result(240)
        except StorageError as error:
            outcome.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    closer = threading.Thread(target=database.close)
    closer.start()
    gate.open()
    closer.join(240)
    thread.join(240)
    for future in futures:
        future.result(0)
    with pytest.raises(StorageError, match="is closed"):
        database.submit(insert(100))
    database.close()
    again = Database(tmp_path / "log.db", migrate=tables)
    assert [n for n in items(again) if n < 99] == [0, 1, 2, 3]
    assert (99 in items(again)) != bool(outcome)  # acknowledged or refused, never in between
    again.close()


def test_a_writer_that_never_rests_does_not_let_the_write_ahead_log_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headwater.log.database, "_WAL_MOST_PAGES", 2000)
    database = Database(tmp_path / "log.db", migrate=tables)
    wal, text = tmp_path / "log.db-wal", "x" * 1_000_000
    for n in range(40):
        database.submit(lambda db, n=n: db.execute("INSERT INTO item VALUES(?, ?)", (n, text)).get, rows=20_000)  # type: ignore[misc]
    database.write(insert(99))
    assert wal.stat().st_size < 20_000_000
    assert database.check() == []
    database.close()
    assert not wal.exists()


def test_a_directory_that_is_missing_and_a_file_that_is_no_database_are_storage_errors(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        Database(tmp_path / "nowhere" / "log.db", migrate=tables)
    (tmp_path / "log.db").write_bytes(b"this is no database, not by any means" * 100)
    with pytest.raises(StorageError, match="cannot open"):
        Database(tmp_path / "log.db", migrate=tables)


def test_a_newer_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Database(tmp_path / "log.db", migrate=migrate).close()
    db = apsw.Connection(str(tmp_path / "log.db"))
    db.pragma("user_version", len(MIGRATIONS) + 3)
    db.close()
    content = (tmp_path / "log.db").read_bytes()
    with pytest.raises(StorageError, match=rf"newer Headwater \(schema {len(MIGRATIONS) + 3}.*upgrade Headwater"):
        Database(tmp_path / "log.db", migrate=migrate)
    assert (tmp_path / "log.db").read_bytes() == content


def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    """Ten cuts, one behind each statement: the database is as before each time, and the eleventh try succeeds."""
    Database(tmp_path / "old.db", migrate=migrate).close()
    path = tmp_path / "log.db"
    statements = [
        "ALTER TABLE record ADD COLUMN colour TEXT",
        *(f"CREATE TABLE extra{n}(a INTEGER PRIMARY KEY)" for n in range(4)),
        *(f"INSERT INTO extra{n} VALUES(1)" for n in range(4)),
        "DROP TABLE source",
    ]
    versions = (*MIGRATIONS, ";".join(statements[:5]), ";".join(statements[5:]))
    seen: set[int] = set()
    for cut in range(1, len(statements) + 1):
        shutil.copy(tmp_path / "old.db", path)
        db = apsw.Connection(str(path))
        db.exec_trace = _Cut(statements, cut)
        with pytest.raises(_PowerCut):
            migrate(db, versions)
        db.close()
        db = apsw.Connection(str(path))
        version = int(db.pragma("user_version"))
        seen.add(version)
        names = {n for (n,) in db.execute("SELECT name FROM sqlite_schema")}
        assert version == len(MIGRATIONS) + (cut > 5)
        assert ("extra3" in names) == (cut > 5)
        assert "source" in names  # the last statement was never reached
        assert db.pragma("integrity_check") == "ok"
        db.close()
    assert seen == {len(MIGRATIONS), len(MIGRATIONS) + 1}
    db = apsw.Connection(str(path))
    migrate(db, versions)
    migrate(db, versions)
    assert int(db.pragma("user_version")) == len(versions)
    assert [db.execute(f"SELECT a FROM extra{n}").get for n in range(4)] == [1] * 4
    db.close()


class _PowerCut(Exception):
    pass


class _Cut:
    """Raises when the statement behind the nth of `statements` is about to run."""

    def __init__(self, statements: list[str], n: int) -> None:
        self._statements, self._n, self._met = statements, n, 0

    def __call__(self, cursor: object, statement: str, bindings: object) -> bool:
        if any(s in statement for s in self._statements):
            self._met += 1
            if self._met == self._n:
                raise _PowerCut
        return True
