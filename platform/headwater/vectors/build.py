"""The builder child: `python -m headwater.vectors.build DIRECTORY` turns vectors into a checked Chroma database.

It is a process of its own so that building neither slows searches (low priority, one thread) nor can harm them: a
crash in native code ends the child only. It reads `plan.json`, `ids.npy` and `vectors.npy`, writes `chroma/` and
`built.json`, never renames anything, and ends at once when its standard input does, because then its parent died.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwater.errors import HeadwaterError
from headwater.vectors import chroma
from headwater.vectors.space import Floats, Ints, Space, nearest

BATCH = 5461
"""The most vectors Chroma takes in one call."""
FAILED, ORPHANED = 1, 3
_SAMPLES, _DEPTH = 64, 10
_LEAST_RECALL = 0.8


def main(directory: Path) -> int:
    """Build and check; 0, or FAILED with the reason on standard error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        plan = json.loads((directory / "plan.json").read_text("utf-8"))
        os.nice(plan["nice"])
        ids = np.load(directory / "ids.npy", mmap_mode="r")
        vectors = np.load(directory / "vectors.npy", mmap_mode="r")
        start = time.perf_counter()
        _build(directory / "chroma", plan, ids, vectors)
        _compact(directory / "chroma", len(ids))
        build_s = round(time.perf_counter() - start, 3)
        recall = _check(directory / "chroma", plan, ids, vectors)
    except (HeadwaterError, OSError, ValueError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return FAILED
    (directory / "built.json").write_text(json.dumps({"recall": recall, "build_s": build_s}), "utf-8")
    return 0


def _build(database: Path, plan: Mapping[str, Any], ids: Ints, vectors: Floats) -> None:
    database.mkdir()
    client = chroma.connect(database)
    with chroma.translated(database.parent):
        collection = chroma.create(client, metric=plan["metric"], hnsw=plan["hnsw"], count=len(ids))
        for start in range(0, len(ids), BATCH):
            batch = slice(start, start + BATCH)
            collection.add(ids=[str(i) for i in ids[batch].tolist()], embeddings=list(np.asarray(vectors[batch])))
    client.close()
    del collection, client
    gc.collect()


def _compact(database: Path, count: int) -> None:
    """Check that every vector has left Chroma's queue for the graph on disk, and give the queue's pages back."""
    db = sqlite3.connect(database / "chroma.sqlite3", isolation_level=None)
    try:
        written = db.execute("SELECT min(seq_id) FROM max_seq_id").fetchone()[0]
        stored = db.execute("SELECT count(*) FROM embeddings").fetchone()[0]
        if written != count or stored != count:
            raise ValueError(f"Chroma wrote {stored} ids and a graph of {written} of {count} vectors")
        db.execute("VACUUM")
    finally:
        db.close()


def _check(database: Path, plan: Mapping[str, Any], ids: Ints, vectors: Floats) -> float:
    """Recall of noisy copies of random members against an exact scan, through a fresh client; ValueError below 0.8.

    A found vector counts when it is as near as the true tenth, so equal vectors do not lower it.
    """
    space = Space(plan["dimension"], plan["metric"])
    count = len(ids)
    random = np.random.default_rng(count)
    at = np.sort(random.choice(count, min(_SAMPLES, count), replace=False))
    members = np.asarray(vectors[at])
    spread = 0.3 * np.linalg.norm(members, axis=1, keepdims=True) / np.sqrt(space.dimension)
    noise = random.standard_normal(members.shape) * spread
    queries = space.queries(np.concatenate([members[: len(at) // 2], (members + noise)[len(at) // 2 :]]))
    depth = min(_DEPTH, count)
    bounds = _exact_bounds(space, ids, vectors, queries, depth)
    client = chroma.connect(database)
    with chroma.translated(database.parent):
        collection = client.get_collection(chroma.COLLECTION, embedding_function=None)
        if collection.count() != count:
            raise ValueError(f"Chroma holds {collection.count()} of {count} vectors")
        found = collection.query(query_embeddings=list(queries), n_results=depth, include=[])["ids"]
    order = np.argsort(ids)
    good = 0
    for query, names, bound in zip(queries, found, bounds, strict=True):
        where = order[np.searchsorted(ids, np.array(names, np.int64), sorter=order)]
        rows = np.asarray(vectors[where])
        good += int((space.closeness(rows, space.weights(rows), query[None])[0] >= bound - 1e-6).sum())
    client.close()
    recall = good / (len(queries) * depth)
    if recall < _LEAST_RECALL:
        raise ValueError(f"the new segment finds only {recall:.0%} of nearest neighbours; raise hnsw_m or hnsw_ef_search")
    return round(recall, 4)


def _exact_bounds(space: Space, ids: Ints, vectors: Floats, queries: Floats, depth: int) -> Floats:
    """The closeness of each query's `depth`-th nearest vector, `(m,)`."""
    best = np.full((len(queries), depth), -np.inf, np.float32)
    for start in range(0, len(ids), BATCH):
        rows = np.asarray(vectors[start : start + BATCH])
        near = space.closeness(rows, space.weights(rows), queries)
        for i in range(len(queries)):
            block = nearest(np.asarray(ids[start : start + BATCH]), near[i], depth)[1]
            merged = np.sort(np.concatenate([best[i], block]))[::-1]
            best[i] = merged[:depth]
    return best[:, -1]


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
