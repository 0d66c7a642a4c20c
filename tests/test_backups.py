"""Backups taken under load restore to everything that was acknowledged before; damage is found, nothing is written over."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

import headwater
from headwater.cli.app import app
from headwater.errors import DamageError, NotFoundError, StorageError, UsageError
from headwater.log import backups

HASH = {"model": "hash"}


def test_what_headwater_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    with headwater.open(tmp_path / "new" / "data", embedding=HASH) as hw:
        hw.append("t", ["private"])
    backups.backup(tmp_path / "new" / "data", tmp_path / "copy")
    (tmp_path / "shared").mkdir(mode=0o750)
    with headwater.open(tmp_path / "shared", embedding=HASH):
        pass
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("new/data", "copy", "shared")]
    assert modes == [0o700, 0o700, 0o750]


def test_backups_under_load_hold_all_that_was_acknowledged_and_search_after_a_restore(tmp_path: Path) -> None:
    done = threading.Event()
    acknowledged = 0
    with headwater.open(tmp_path / "data", embedding=HASH) as hw:

        def load() -> None:
            nonlocal acknowledged
            while not done.is_set():
                hw.append("logs", [f"INFO request {n} took {n % 90} ms" for n in range(acknowledged, acknowledged + 50)])
                acknowledged += 50

        loading = threading.Thread(target=load)
        loading.start()
        try:
            for n in range(3):
                while acknowledged < 500 * (n + 1):
                    done.wait(0.01)
                before = acknowledged
                about = backups.backup(tmp_path / "data", tmp_path / f"backup-{n}")
                assert before <= about.records <= acknowledged + 50
        finally:
            done.set()
            loading.join()
    for n in range(3):
        about = backups.restore(tmp_path / f"backup-{n}", tmp_path / f"restored-{n}")
        with headwater.open(tmp_path / f"restored-{n}", embedding=HASH) as hw:
            assert hw.topic("logs").records == about.records
            values = [
                r.value for at in range(0, about.records, 1000) for r in hw.records("logs", offset=at, limit=1000).records
            ]
            assert values == [f"INFO request {i} took {i % 90} ms" for i in range(about.records)]
            hw.append("logs", ["INFO the first after the restore"], wait="searchable", timeout_s=240)
            assert hw.search("request", mode="keyword").coverage.searched == about.records + 1
            assert len(hw.search("first after the restore", mode="semantic")) > 0


def test_a_damaged_backup_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with headwater.open(tmp_path / "data", embedding=HASH) as hw:
        hw.append("t", ["a record"] * 100)
    backups.backup(tmp_path / "data", tmp_path / "backup")
    copy = tmp_path / "backup" / backups.LOG
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    with pytest.raises(DamageError, match="sha256"):
        backups.restore(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored" / backups.LOG).exists()
    (tmp_path / "backup" / backups.ABOUT).write_text("{nonsense")
    with pytest.raises(DamageError, match="cannot be read"):
        backups.restore(tmp_path / "backup", tmp_path / "restored")


def test_what_exists_is_never_written_over(tmp_path: Path) -> None:
    with headwater.open(tmp_path / "data", embedding=HASH) as hw:
        hw.append("t", ["a record"])
    backups.backup(tmp_path / "data", tmp_path / "backup")
    with pytest.raises(UsageError, match="not empty"):
        backups.backup(tmp_path / "data", tmp_path / "backup")
    with pytest.raises(UsageError, match="holds data"):
        backups.restore(tmp_path / "backup", tmp_path / "data")
    with pytest.raises(NotFoundError, match="no log"):
        backups.backup(tmp_path / "nowhere", tmp_path / "other")
    with pytest.raises(NotFoundError, match="is no backup"):
        backups.restore(tmp_path / "data", tmp_path / "other")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="no backup was made"):
        backups.backup(tmp_path / "data", tmp_path / "file" / "backup")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup", "data", "file"]


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with headwater.open(tmp_path / "data", embedding=HASH) as hw:
        hw.append("t", ["a record"])
    backups.backup(tmp_path / "data", tmp_path / "backup")
    about = json.loads((tmp_path / "backup" / backups.ABOUT).read_text())
    (tmp_path / "backup" / backups.ABOUT).write_text(json.dumps({**about, "schema": 10_000}))
    with pytest.raises(StorageError, match="newer"):
        backups.restore(tmp_path / "backup", tmp_path / "restored")


def test_the_commands_back_up_and_restore(tmp_path: Path) -> None:
    with headwater.open(tmp_path / "data", embedding=HASH) as hw:
        hw.append("t", ["a record"] * 3)
    run = CliRunner()
    made = run.invoke(app, ["backup", str(tmp_path / "b"), "--data", str(tmp_path / "data"), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["records"] == 3
    again = run.invoke(app, ["restore", str(tmp_path / "b"), "--data", str(tmp_path / "r")])
    assert again.exit_code == 0, again.output
    assert "3 records of 1 topics" in again.stderr
    with apsw.Connection(str(tmp_path / "r" / "log.db")) as db:
        assert db.execute("SELECT count(*) FROM record").get == 3


def test_a_backup_of_a_daemon_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_URL", "https://example.com")
    refused = CliRunner().invoke(app, ["backup", str(tmp_path / "b")])
    assert refused.exit_code == 2
    assert "HEADWATER_URL" in refused.stderr
    assert list(tmp_path.iterdir()) == []
