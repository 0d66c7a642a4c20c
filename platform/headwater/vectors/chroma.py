"""The one place that speaks to Chroma: connect to a database directory, and keep a few of them open.

A sealed database is never opened where it lies, because Chroma writes to its SQLite file at every start (a lock row), which
would break the segment's hashes. Each client works in a directory of its own that holds a copy of that file (140
bytes a vector) and a link to the vectors. The name is fresh each time, since Chroma caches clients by path.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headwater.errors import DamageError, StorageError
from headwater.vectors.files import WORKING
from headwater.vectors.space import Floats, Ints

COLLECTION = "passages"
MOST_IDS = 8192
"""Ids asked for in one query; beyond it an exact scan is not much slower."""
_SPACES = {"cosine": "cosine", "euclidean": "l2", "dot": "ip"}


def connect(path: Path) -> Any:
    """A Chroma client over a database directory. Importing Chroma takes 1.4 s, hence here.

    Its settings are its own defaults, not read: `CHROMA_API_IMPL` in the environment, or a `.env` file where the program
    was started, would otherwise send the vectors to a server.
    """
    from chromadb import PersistentClient
    from chromadb.config import Settings

    with translated(path):
        return PersistentClient(str(path), settings=Settings.model_construct(anonymized_telemetry=False))


def create(client: Any, *, metric: str, hnsw: Mapping[str, int], count: int) -> Any:
    """A collection that writes its graph to disk once, when the last of `count` vectors has been added."""
    settings = {
        "space": _SPACES[metric],
        "max_neighbors": hnsw["m"],
        "ef_construction": hnsw["ef_construction"],
        "ef_search": hnsw["ef_search"],
        "num_threads": 1,
        "batch_size": max(2, min(count, 1000)),
        "sync_threshold": max(2, count),
    }
    return client.create_collection(COLLECTION, embedding_function=None, configuration={"hnsw": settings})


def version() -> str:
    """Chroma's version, for the manifest."""
    from importlib.metadata import version as installed

    return installed("chromadb")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Chroma's errors as DamageError, a full disk as StorageError."""
    from chromadb.errors import ChromaError

    try:
        yield
    except (ChromaError, OSError, RuntimeError, ValueError, KeyError) as error:
        if "disk is full" in str(error) or "No space left" in str(error):
            raise StorageError(f"the disk is full while opening the segment {path.name}; free some space") from error
        raise DamageError(f"the segment {path.name} cannot be read by Chroma ({error}); it is rebuilt from the log") from error


@dataclass(slots=True)
class _Open:
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    working: Path | None = None
    client: Any = None
    collection: Any = None
    retired: bool = False


class Clients:
    """The Chroma databases open in this process: the least recently used are closed (each holds its graph in memory and
    about five threads). Shared by all indexes; thread-safe."""

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, _Open] = OrderedDict()

    def query(self, database: Path, queries: Floats, k: int, *, ef_search: int | None = None) -> list[Ints]:
        """Ids of about the k nearest for each of `(m, d)` queries. The database was checked before; DamageError.

        `ef_search`, where it is not what the database was built with, holds from when the database is opened.
        """
        with self._using(database, ef_search) as collection, translated(database.parent):
            found = collection.query(query_embeddings=list(queries), n_results=k, include=[])["ids"]
            return [np.array(ids, dtype=np.int64) for ids in found]

    def close(self, database: Path) -> None:
        """Close a database once its running queries are done; it is not opened again under this path."""
        with self._lock:
            entry = self._open.pop(database, None)
            if entry is None:
                return
            entry.retired = True
            idle = entry.users == 0
        if idle:
            _shut(entry)

    def is_open(self, database: Path) -> bool:
        """Whether the database is held open."""
        with self._lock:
            return database in self._open

    @contextmanager
    def _using(self, database: Path, ef_search: int | None) -> Iterator[Any]:
        with self._lock:
            entry = self._open.setdefault(database, _Open())
            self._open.move_to_end(database)
            entry.users += 1
            idle = [path for path, other in self._open.items() if other.users == 0]
            surplus = [self._open.pop(path) for path in idle[: max(0, len(self._open) - self._limit)]]
        for other in surplus:
            _shut(other)
        try:
            with entry.lock:
                if entry.collection is None:
                    _start(entry, database, ef_search)
            yield entry.collection
        finally:
            with self._lock:
                entry.users -= 1
                last = entry.retired and entry.users == 0
            if last:
                _shut(entry)


def _start(entry: _Open, database: Path, ef_search: int | None) -> None:
    with ExitStack() as undo:
        undo.callback(_shut, entry)
        working = database.parent.with_name(f"{WORKING}{secrets.token_hex(8)}")
        with translated(database.parent):
            working.mkdir()
            entry.working = working
            for part in database.iterdir():
                if part.is_dir():
                    (working / part.name).symlink_to(part.absolute(), target_is_directory=True)
                else:
                    shutil.copyfile(part, working / part.name)
        entry.client = connect(working)
        with translated(database.parent):
            entry.collection = entry.client.get_collection(COLLECTION, embedding_function=None)
            if ef_search is not None:
                entry.collection.modify(configuration={"hnsw": {"ef_search": ef_search}})
        undo.pop_all()


def _shut(entry: _Open) -> None:
    if entry.client is not None:
        entry.client.close()
    if entry.working is not None:
        shutil.rmtree(entry.working, ignore_errors=True)
    entry.client = entry.collection = entry.working = None
