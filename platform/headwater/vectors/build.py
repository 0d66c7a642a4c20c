"""The builder child: `python -m headwater.vectors.build DIRECTORY` turns vectors into a checked segment.

It is a process of its own so that building neither slows searches (low priority, one thread) nor can harm them: a
crash in native code ends the child only. It reads `plan.json`, `ids.npy` and `vectors.npy` and adds what the plan's kind
needs: `chroma/` (hnsw), or the rows in the order of their cells with `centroids.npy` and `bounds.npy` (ivf); and `weights.npy`
for cosine, the narrow copy of many, `built.json`, `progress`. It ends at once when its standard input does, because then its
parent died.
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
from headwater.vectors import cells, chroma, narrow
from headwater.vectors.space import Floats, Ints, Space, nearest
from headwater.vectors.stored import Stored

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
        space = Space(plan["dimension"], plan["metric"])
        start = time.perf_counter()
        if plan["kind"] == "hnsw":
            _build_graph(directory, plan)
        elif plan["kind"] == "ivf":
            _build_cells(directory, space, plan["ivf"]["cells"])
        weights = _write_weights(directory, space)
        if plan["kind"] != "flat":  # which is for missing nothing
            narrow.write(directory, space, weights)
        build_s = round(time.perf_counter() - start, 3)
        recall = _check(directory, space, plan)
    except (HeadwaterError, OSError, ValueError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return FAILED
    (directory / "built.json").write_text(json.dumps({"recall": recall, "build_s": build_s}), "utf-8")
    return 0


def _build_graph(directory: Path, plan: Mapping[str, Any]) -> None:
    ids, vectors = np.load(directory / "ids.npy", mmap_mode="r"), Stored(directory / "vectors.npy")
    database = directory / "chroma"
    database.mkdir()
    client = chroma.connect(database)
    with chroma.translated(directory):
        collection = chroma.create(client, metric=plan["metric"], hnsw=plan["hnsw"], count=len(ids))
        for start in range(0, len(ids), BATCH):
            rows = vectors.block(start, min(start + BATCH, len(ids)))
            collection.add(ids=[str(i) for i in ids[start : start + BATCH].tolist()], embeddings=list(rows))
            (directory / "progress").write_text(str(start + len(rows)), "utf-8")
    client.close()
    del collection, client
    gc.collect()
    _compact(database, len(ids))


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


def _build_cells(directory: Path, space: Space, wanted: int) -> None:
    """Group the vectors, and write ids and vectors anew in the order of their cells."""
    ids, vectors = np.load(directory / "ids.npy"), Stored(directory / "vectors.npy")
    centroids, bounds, order = cells.arrange(vectors, space, wanted)
    np.save(directory / "centroids.npy", centroids)
    np.save(directory / "bounds.npy", bounds)
    ordered = np.lib.format.open_memmap(directory / "ordered.npy", mode="w+", dtype="<f2", shape=vectors.shape)
    for start in range(0, len(ids), BATCH):
        stop = min(start + BATCH, len(ids))
        ordered[start:stop] = vectors.rows(order[start:stop])
        (directory / "progress").write_text(str(stop), "utf-8")
    ordered.flush()
    del ordered, vectors
    (directory / "ordered.npy").replace(directory / "vectors.npy")
    np.save(directory / "ids.npy", ids[order])


def _write_weights(directory: Path, space: Space) -> Floats | None:
    """The factor of each row's product, which would else be computed by every scan; None where the metric has none."""
    if space.metric != "cosine":
        return None
    vectors = Stored(directory / "vectors.npy")
    weights = np.empty(vectors.shape[0], np.float32)
    for start in range(0, len(weights), BATCH):
        stop = min(start + BATCH, len(weights))
        weights[start:stop] = space.weights(vectors.block(start, stop))
    np.save(directory / "weights.npy", weights)
    return weights


def _check(directory: Path, space: Space, plan: Mapping[str, Any]) -> float:
    """Recall of noisy copies of random members against an exact scan, through fresh files; ValueError where it is poor.

    A found vector counts when it is as near as the true tenth, so equal vectors do not lower it. How many cells are
    scanned is the user's choice: recall is told, and only a graph is refused.
    """
    ids, vectors = np.load(directory / "ids.npy"), Stored(directory / "vectors.npy")
    if vectors.shape != (len(ids), space.dimension) or len(np.unique(ids)) != len(ids):
        raise ValueError("ids and vectors do not belong together")
    if plan["kind"] == "flat":
        return 1.0
    queries = _queries(space, vectors)
    depth = min(_DEPTH, len(ids))
    bounds = _exact_bounds(space, ids, vectors, queries, depth)
    if plan["kind"] == "hnsw":
        found = _ask_chroma(directory, ids, queries, depth)
    else:
        found = _ask_cells(directory, space, vectors, queries, depth, plan["ivf"]["n_probe"])
    good = 0
    for query, where, bound in zip(queries, found, bounds, strict=True):
        rows = vectors.rows(where)
        good += int((space.closeness(rows, space.weights(rows), query[None])[0] >= bound - 1e-6).sum())
    recall = good / (len(queries) * depth)
    if plan["kind"] == "hnsw" and recall < _LEAST_RECALL:
        raise ValueError(f"the new segment finds only {recall:.0%} of nearest neighbours; raise hnsw_m or hnsw_ef_search")
    return round(recall, 4)


def _queries(space: Space, vectors: Stored) -> Floats:
    """Members, and members with noise, half each."""
    count = vectors.shape[0]
    random = np.random.default_rng(count)
    at = np.sort(random.choice(count, min(_SAMPLES, count), replace=False)).astype(np.int64)
    members = vectors.rows(at)
    spread = 0.3 * np.linalg.norm(members, axis=1, keepdims=True) / np.sqrt(space.dimension)
    noise = random.standard_normal(members.shape) * spread
    return space.queries(np.concatenate([members[: len(at) // 2], (members + noise)[len(at) // 2 :]]))


def _ask_chroma(directory: Path, ids: Ints, queries: Floats, depth: int) -> list[Ints]:
    """Where the rows are that a fresh client finds for each query."""
    client = chroma.connect(directory / "chroma")
    with chroma.translated(directory):
        collection = client.get_collection(chroma.COLLECTION, embedding_function=None)
        if collection.count() != len(ids):
            raise ValueError(f"Chroma holds {collection.count()} of {len(ids)} vectors")
        found = collection.query(query_embeddings=list(queries), n_results=depth, include=[])["ids"]
    client.close()
    order = np.argsort(ids)
    return [order[np.searchsorted(ids, np.array(names, np.int64), sorter=order)] for names in found]


def _ask_cells(directory: Path, space: Space, vectors: Stored, queries: Floats, depth: int, n_probe: int) -> list[Ints]:
    """Where the rows are that a search of the cells finds for each query."""
    grouped = cells.Cells(directory, space, vectors.shape[0])
    positions, alive = np.arange(vectors.shape[0]), np.ones(vectors.shape[0], np.bool_)
    return [grouped.nearest(positions, vectors, None, alive, query, depth, n_probe)[0] for query in queries]


def _exact_bounds(space: Space, ids: Ints, vectors: Stored, queries: Floats, depth: int) -> Floats:
    """The closeness of each query's `depth`-th nearest vector, `(m,)`."""
    best = np.full((len(queries), depth), -np.inf, np.float32)
    for start in range(0, len(ids), BATCH):
        stop = min(start + BATCH, len(ids))
        near = vectors.closeness(space, None, start, stop, queries)
        for i in range(len(queries)):
            block = nearest(ids[start:stop], near[i], depth)[1]
            merged = np.sort(np.concatenate([best[i], block]))[::-1]
            best[i] = merged[:depth]
    return best[:, -1]


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
