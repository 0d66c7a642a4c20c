"""Backups: the log of a data directory as of one moment, taken while its daemon works; and a directory made from one.

    DIR/log.db          every record, vector, setting, watch, answer: the only truth
    DIR/backup.json     what it holds, its size and sha256

Indexes are not in it: they are derived, and the first start after a restore builds them from the log without embedding
anything anew. Neither are keys and access tokens, which are the environment's and the settings'.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

from headwater.errors import DamageError, NotFoundError, StorageError, UsageError
from headwater.log.ownership import Ownership
from headwater.log.schema import MIGRATIONS

LOG, ABOUT = "log.db", "backup.json"
_PAGES = 2000  # copied between two reports
_BLOCK = 1 << 20

Progress = Callable[[float, float], None]  # done and total, in bytes


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds. `created` is ISO 8601, the moment as of which it is; `schema` the version of its tables."""

    created: str
    schema: int
    topics: int
    records: int
    bytes: int
    sha256: str


def backup(directory: Path, into: Path, *, progress: Progress | None = None) -> Backup:
    """Copy the log of the data directory as of now into the new directory `into`, beside whatever reads and writes it. It is
    checked and synced, and `into` appears only when it is whole. NotFoundError where there is no log, UsageError where
    `into` is not empty, StorageError where the disk does not take it; nothing is left behind then."""
    source = directory / LOG
    if not source.is_file():
        raise NotFoundError(f"{directory} has no {LOG}; --data names the data directory")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise UsageError(f"{into} is not empty; name a new directory")
    unfinished = into.with_name(f".{into.name}.unfinished-{os.getpid()}")
    try:
        unfinished.mkdir(mode=0o700, parents=True)
        about = _copy(source, unfinished / LOG, progress or (lambda done, total: None))
        _write(unfinished / ABOUT, json.dumps(asdict(about), indent=1).encode())
        _sync(unfinished)
        os.replace(unfinished, into)
        _sync(into.parent)
    except (OSError, apsw.Error) as error:
        raise StorageError(f"no backup was made in {into}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return about


def restore(source: Path, directory: Path, *, progress: Progress | None = None) -> Backup:
    """Make the new data directory `directory` of a backup. What the backup says of itself is checked first: DamageError
    where it is not so, NotFoundError where it is none, UsageError where the directory has data, StorageError for a backup
    of a newer Headwater and where the disk does not take it."""
    about = read(source)
    if about.schema > len(MIGRATIONS):
        raise StorageError(f"{source} was made by a newer Headwater (schema {about.schema}); upgrade, then restore")
    if (directory / LOG).exists():
        raise UsageError(f"{directory} holds data; restore into another directory, or move that one away")
    report = progress or (lambda done, total: None)
    owner = Ownership(directory)
    try:
        part = directory / f".{LOG}.restored"
        digest = hashlib.sha256()
        done = 0
        with (source / LOG).open("rb") as origin, part.open("wb") as copy:
            while block := origin.read(_BLOCK):
                digest.update(block)
                copy.write(block)
                done += len(block)
                report(done, about.bytes)
            copy.flush()
            os.fsync(copy.fileno())
        if digest.hexdigest() != about.sha256:
            raise DamageError(f"{source / LOG} is not as it was backed up: its sha256 differs; use another backup")
        os.replace(part, directory / LOG)
        _sync(directory)
    except OSError as error:
        raise StorageError(f"{source} was not restored to {directory}: {error}") from error
    finally:
        (directory / f".{LOG}.restored").unlink(missing_ok=True)
        owner.release()
    return about


def read(source: Path) -> Backup:
    """What a backup says of itself; NotFoundError where there is none, DamageError where that cannot be read."""
    try:
        told = json.loads((source / ABOUT).read_bytes())
        return Backup(**told)
    except FileNotFoundError as error:
        raise NotFoundError(f"{source} is no backup: it has no {ABOUT}") from error
    except (OSError, ValueError, TypeError) as error:
        raise DamageError(f"{source / ABOUT} cannot be read: {error}; use another backup") from error


def _copy(source: Path, into: Path, progress: Progress) -> Backup:
    """The database as of now: a read transaction holds that moment while pages are copied, and holds up nobody."""
    origin = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    copy = apsw.Connection(str(into))
    try:
        origin.execute("BEGIN")
        records, topics, schema = origin.execute(
            "SELECT coalesce(sum(records), 0), count(*), (SELECT user_version FROM pragma_user_version) FROM topic"
        ).get
        created = datetime.now(UTC)
        page = int(origin.pragma("page_size"))
        with copy.backup("main", origin, "main") as running:
            while not running.done:
                running.step(_PAGES)
                progress((running.page_count - running.remaining) * page, running.page_count * page)
        origin.execute("COMMIT")
        copy.pragma("journal_mode", "delete")
        if copy.pragma("quick_check") != "ok":
            raise DamageError(f"the copy of {source} does not pass SQLite's check; `headwater doctor` looks at the log")
    finally:
        copy.close()
        origin.close()
    digest, size = hashlib.sha256(), 0
    with into.open("rb+") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
        os.fsync(file.fileno())
    return Backup(created.isoformat(), int(schema), int(topics), int(records), size, digest.hexdigest())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
