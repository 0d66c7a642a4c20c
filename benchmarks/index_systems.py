"""The systems that bench_index.py compares, each measured in a process of its own: `measure(system, corpus, ...)`."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from common import percentiles, say
from headwater.vectors import Hnsw, Ivf, Kind, SegmentRow, VectorIndex
from headwater.vectors.space import Space

TOP_K, JUDGED_AMONG = 10, 30
BLOCK = 20_000
Search = Callable[[np.ndarray], Sequence[int]]


class Corpus:
    """Vectors on disk, queries, their true nearest, and what records would be filtered by."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.queries, self.bounds = np.load(home / "queries.npy"), np.load(home / "bounds.npy")
        self.origins = np.load(home / "origins.npy", mmap_mode="r")
        self.n, self.dimension = self.vectors.shape[0], self.vectors.shape[1]
        self.space = Space(self.dimension, "cosine")

    @property
    def vectors(self) -> np.ndarray:
        """All of them, mapped anew: what is let go of again is not counted as anyone's memory."""
        mapped: np.ndarray = np.load(self.home / "vectors.npy", mmap_mode="r")
        return mapped

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, self.n, BLOCK):
            rows = np.asarray(self.vectors[start : start + BLOCK], np.float32)
            yield np.arange(start, start + len(rows)), rows

    def filters(self) -> dict[str, np.ndarray]:
        """Ids in scope: the newest hundredth, a tenth by an attribute, a tenth that is alike in meaning, one key."""
        draw = np.random.default_rng(5).random(self.n)
        texts = int(self.origins.max()) + 1
        return {
            "time": np.arange(self.n - max(self.n // 100, 1), self.n),
            "attribute": np.flatnonzero(draw < 0.1),
            "attribute_like_meaning": np.flatnonzero(np.asarray(self.origins) * 10 // texts == 4),
            "key": np.sort(np.random.default_rng(6).choice(self.n, max(self.n // 10_000, 1), replace=False)),
        }

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Recall@10: what is as near as the true tenth counts, so that ties do not matter."""
        good = 0
        for query, ids, bound in zip(self.queries, found, self.bounds, strict=False):
            rows = np.asarray(self.vectors[np.asarray(ids, np.int64)], np.float32)
            good += int((rows @ query / np.linalg.norm(rows, axis=1) >= bound - 1e-5).sum())
        return round(good / (TOP_K * len(found)), 4)

    def recall_among(self, ids: np.ndarray, found: Sequence[Sequence[int]]) -> float:
        """The same among some vectors, for the first queries."""
        near = np.empty((len(found), len(ids)), np.float32)
        for start in range(0, len(ids), BLOCK):
            rows = np.asarray(self.vectors[ids[start : start + BLOCK]], np.float32)
            near[:, start : start + BLOCK] = self.queries[: len(found)] @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
        depth = min(TOP_K, len(ids))
        good = 0
        for row, chosen in zip(near, found, strict=True):
            bound = np.partition(row, -depth)[-depth]
            good += min(int((row[np.searchsorted(ids, chosen)] >= bound - 1e-5).sum()), depth)
        return round(good / (depth * len(found)), 4)


class OneSegment:
    """A catalogue in a file beside the index: all vectors are in the tail until they are sealed."""

    def __init__(self, corpus: Corpus, path: Path) -> None:
        self._corpus, self._path = corpus, path

    def segments(self) -> list[SegmentRow]:
        return [SegmentRow(**row) for row in json.loads(self._path.read_text())] if self._path.exists() else []

    def tail(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(()) if self.segments() else self._corpus.blocks()

    def members(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._corpus.blocks()

    def gone(self, ids: np.ndarray) -> np.ndarray:
        return ids[:0]

    def commit_segment(self, row: SegmentRow, ids: np.ndarray, replaces: Sequence[str]) -> bool:
        self._path.write_text(json.dumps([asdict(row)]))
        return True

    def drop_segments(self, names: Sequence[str]) -> None:
        self._path.write_text("[]")


def opened(corpus: Corpus, kind: Kind, *, nice: int = 19) -> VectorIndex:
    """Our index over the corpus, in the cache."""
    home = corpus.home / kind
    home.mkdir(exist_ok=True)
    how = {"hnsw": Hnsw(), "kind": kind, "ivf": Ivf(), "seal_at": 1, "max_segments": 4, "builder_nice": nice}
    catalogue = OneSegment(corpus, home / "rows.json")
    return VectorIndex(home / "index", catalogue, dimension=corpus.dimension, metric="cosine", **how)


def ours(corpus: Corpus, kind: Kind) -> dict[str, Any]:
    """One sealed segment: opened cold, then searched in every way."""
    index = opened(corpus, kind)
    forget_cache(corpus.home / kind)
    before = memory()
    started = time.perf_counter()
    index.open()
    index.search(corpus.queries[0], TOP_K)
    first = time.perf_counter() - started
    while not index.counts.segments[0].ready and time.perf_counter() - started < 300:
        time.sleep(0.01)
    result: dict[str, Any] = {"open_s": round(first, 3), "open_all_checked_s": round(time.perf_counter() - started, 2)}
    most = 1000 if kind != "flat" else 100
    result |= searched(corpus, lambda q: index.search(q, TOP_K).ids, most)
    result["rss_bytes_per_vector"] = round(memory()["rss"] / corpus.n)
    result["rss_anonymous_bytes_per_vector"] = round(memory()["anonymous"] / corpus.n)
    result["rss_of_the_empty_process_mib"] = before["rss"] >> 20
    result["disk_bytes_per_vector"] = round(on_disk(corpus.home / kind) / corpus.n)
    result["queries_per_s"] = threads(corpus, lambda q: index.search(q, TOP_K).ids, most)
    manifest = json.loads(json.loads((corpus.home / kind / "rows.json").read_text())[0]["manifest"])
    result["build_s"] = manifest["build_s"]
    for k in (100, 400, 1600, 4000) if kind == "hnsw" else (100,):
        took = [timed(lambda q, k=k: index.search(q, k), query) for query in corpus.queries[:60]]
        result[f"k_{k}_ms"] = percentiles(took)
    result["filters"] = {}
    for name, ids in corpus.filters().items():
        took = [timed(lambda q, ids=ids: index.search(q, TOP_K, among=ids), query) for query in corpus.queries[:200]]
        found = [index.search(query, TOP_K, among=ids).ids for query in corpus.queries[:JUDGED_AMONG]]
        result["filters"][name] = {"candidates": len(ids), **percentiles(took), "recall": corpus.recall_among(ids, found)}
    draw = np.random.default_rng(4)
    for size in (10_000, 100_000):
        if size < corpus.n:
            ids = np.sort(draw.choice(corpus.n, size, replace=False))
            took = [timed(lambda q, ids=ids: index.search(q, TOP_K, among=ids), query) for query in corpus.queries[:60]]
            result[f"scan_{size}_scattered_ms"] = percentiles(took)
    if kind == "hnsw":
        result |= while_sealing(corpus, index)
    index.close()
    return result


def while_sealing(corpus: Corpus, index: VectorIndex) -> dict[str, Any]:
    """Latency of searches while another index of this process is sealed by its child, over the idle latency."""
    home = corpus.home / "sealing"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    size = min(corpus.n, 50_000)
    other = opened_beside(corpus, home)
    other.add(np.arange(size), np.asarray(corpus.vectors[:size], np.float32))
    idle = [timed(lambda q: index.search(q, TOP_K), query) for query in corpus.queries]
    sealing = threading.Thread(target=other.maintain)
    sealing.start()
    busy: list[float] = []
    while sealing.is_alive() and len(busy) < 3000:
        if (now := other.progress) is not None and now.stage != "write":
            busy.append(timed(lambda q: index.search(q, TOP_K), corpus.queries[len(busy) % len(corpus.queries)]))
    other.close()
    sealing.join()
    shutil.rmtree(home, ignore_errors=True)
    quiet, loud = percentiles(idle), percentiles(busy)
    ratio = round(loud["p99"] / quiet["p99"], 2) if busy else None
    return {"idle_ms": quiet, "while_sealing_ms": loud, "latency_while_sealing_ratio": ratio}


def opened_beside(corpus: Corpus, home: Path) -> VectorIndex:
    class Empty(OneSegment):
        def tail(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            size = min(corpus.n, 50_000)
            return iter([(np.arange(size), np.asarray(corpus.vectors[:size], np.float32))])

    how = {"hnsw": Hnsw(), "seal_at": 1, "max_segments": 4}
    index = VectorIndex(home / "index", Empty(corpus, home / "rows.json"), dimension=corpus.dimension, metric="cosine", **how)
    index.open()
    return index


def adding(corpus: Corpus) -> dict[str, Any]:
    """The tail: from giving vectors until a search finds them, one at a time and a hundred, and 10,000 at once."""
    result: dict[str, Any] = {}
    empty = OneSegment(corpus, corpus.home / "none.json")
    how = {"dimension": corpus.dimension, "metric": "cosine", "hnsw": Hnsw(), "seal_at": 1 << 60, "max_segments": 4}
    for size in (1, 100):
        index = VectorIndex(None, empty, **how)
        took, upto = [], min(corpus.n - size, 400 * size)
        for start in range(0, upto, size):
            rows = np.asarray(corpus.vectors[start : start + size], np.float32)
            ids = np.arange(start, start + size)
            took.append(timed(lambda rows, ids=ids, index=index: index.add(ids, rows), rows))
            assert index.search(rows[-1], 1, among=ids[-1:]).ids[0] == ids[-1]
        result[f"add_{size}_ms"] = percentiles(took, 3)
    result["add_p99_ms"] = result["add_100_ms"]["p99"]
    ten = np.asarray(corpus.vectors[:10_000], np.float32)
    took = []
    for _ in range(5):
        index = VectorIndex(None, empty, **how)
        started = time.perf_counter()
        index.add(np.arange(len(ten)), ten)
        index.search(corpus.queries[0], TOP_K)
        took.append((time.perf_counter() - started) * 1000)
    result["build_10k_ms"] = round(sorted(took)[2], 1)
    return result


def brute_force(corpus: Corpus) -> dict[str, Any]:
    """numpy: float32 vectors in memory, one matrix-vector product, the best ten."""
    rows = np.empty((corpus.n, corpus.dimension), np.float32)
    for ids, block in corpus.blocks():
        rows[ids] = block / np.linalg.norm(block, axis=1, keepdims=True)

    def search(query: np.ndarray) -> Sequence[int]:
        near = rows @ query
        best = np.argpartition(near, -TOP_K)[-TOP_K:]
        found: list[int] = best[np.argsort(-near[best])].tolist()
        return found

    result = searched(corpus, search, most=100)
    result["filters"] = {}
    for name, ids in corpus.filters().items():
        took = [timed(lambda q, ids=ids: np.argpartition(rows[ids] @ q, -1), query) for query in corpus.queries[:30]]
        result["filters"][name] = {"candidates": len(ids), **percentiles(took)}
    return result | {"rss_bytes_per_vector": round(memory()["rss"] / corpus.n), "queries_per_s": threads(corpus, search, 100)}


def plain_chroma(corpus: Corpus) -> dict[str, Any]:
    """One Chroma collection with its defaults, cosine, and attributes to filter by; filled once, kept in the cache."""
    import chromadb

    home = corpus.home / "chroma"
    filled = home / "filled.json"
    if not filled.exists():
        shutil.rmtree(home, ignore_errors=True)
        fill_chroma(corpus, home)
    forget_cache(home)
    started = time.perf_counter()
    client = chromadb.PersistentClient(str(home), chromadb.Settings(anonymized_telemetry=False))
    collection = client.get_collection("bench")

    def search(query: np.ndarray, where: dict[str, Any] | None = None) -> list[int]:
        found = collection.query(query_embeddings=[query], n_results=TOP_K, where=where, include=[])["ids"][0]
        return [int(i) for i in found]

    search(corpus.queries[0])
    result: dict[str, Any] = {"open_s": round(time.perf_counter() - started, 3), **json.loads(filled.read_text())}
    result |= searched(corpus, search)
    result["rss_bytes_per_vector"] = round(memory()["rss"] / corpus.n)
    result["disk_bytes_per_vector"] = round(on_disk(home) / corpus.n)
    result["queries_per_s"] = threads(corpus, search)
    result["filters"] = {}
    wheres = {"time": {"time": {"$gte": corpus.n - max(corpus.n // 100, 1)}}, "attribute": {"attribute": True},
              "attribute_like_meaning": {"meaning": 4}, "key": {"key": True}}  # fmt: skip
    for name, where in wheres.items():
        took = [timed(lambda q, where=where: search(q, where), query) for query in corpus.queries[:15]]
        result["filters"][name] = percentiles(took)
    return result


def fill_chroma(corpus: Corpus, home: Path) -> None:
    import chromadb

    started = time.perf_counter()
    client = chromadb.PersistentClient(str(home), chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("bench", configuration={"hnsw": {"space": "cosine"}})
    chosen = corpus.filters()
    attribute, key = (np.isin(np.arange(corpus.n), chosen[name], assume_unique=True) for name in ("attribute", "key"))
    meaning = np.asarray(corpus.origins) * 10 // (int(corpus.origins.max()) + 1)
    for ids, rows in corpus.blocks():
        for part in range(0, len(ids), 5000):
            some = ids[part : part + 5000]
            about = [
                {"time": i, "attribute": bool(attribute[i]), "key": bool(key[i]), "meaning": int(meaning[i])}
                for i in some.tolist()
            ]
            collection.add(ids=[str(i) for i in some.tolist()], embeddings=rows[part : part + 5000], metadatas=about)
        say(f"chroma: {ids[-1] + 1} of {corpus.n}")
    (home / "filled.json").write_text(json.dumps({"build_s": round(time.perf_counter() - started, 1)}))
    client.close()


def with_usearch(corpus: Corpus) -> dict[str, Any]:
    """usearch, where it is installed: a graph with the same settings, vectors as float16, built with one thread."""
    try:
        from usearch.index import Index
    except ImportError:
        return {"not": "installed"}
    path = corpus.home / "usearch.index"
    index = Index(ndim=corpus.dimension, metric="cos", dtype="f16", connectivity=16, expansion_add=100, expansion_search=100)
    result: dict[str, Any] = {}
    if not path.exists():
        started = time.perf_counter()
        for ids, rows in corpus.blocks():
            index.add(ids, rows, threads=1)
        result["build_s"] = round(time.perf_counter() - started, 1)
        index.save(str(path))
    started = time.perf_counter()
    index.load(str(path))
    result["open_s"] = round(time.perf_counter() - started, 3)

    def search(query: np.ndarray) -> Sequence[int]:
        found: list[int] = index.search(query, TOP_K, threads=1).keys.tolist()
        return found

    result |= searched(corpus, search)
    result["rss_bytes_per_vector"], result["disk_bytes_per_vector"] = (
        round(size / corpus.n) for size in (memory()["rss"], path.stat().st_size)
    )
    return result | {"queries_per_s": threads(corpus, search)}


def searched(corpus: Corpus, search: Search, most: int = 1000) -> dict[str, Any]:
    """Latency of one client, and recall@10; the first queries run twice and count once."""
    for query in corpus.queries[:20]:
        search(query)
    took, found = [], []
    for query in corpus.queries[:most]:
        started = time.perf_counter()
        found.append(search(query))
        took.append((time.perf_counter() - started) * 1000)
    return {"search_ms": percentiles(took, 3), "recall": corpus.recall(found[: len(corpus.bounds)])}


def threads(corpus: Corpus, search: Search, most: int = 1000) -> float:
    """Queries a second by four threads."""
    queries = list(corpus.queries[:most])
    with ThreadPoolExecutor(4) as pool:
        started = time.perf_counter()
        list(pool.map(search, queries))
        return round(len(queries) / (time.perf_counter() - started), 1)


def timed(work: Callable[[np.ndarray], Any], given: np.ndarray) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work(given)
    return (time.perf_counter() - started) * 1000


def memory() -> dict[str, int]:
    """Resident bytes of this process: all, and what is not a file's (which the system may take back)."""
    gc.collect()
    fields = {"VmRSS": "rss", "RssAnon": "anonymous"}
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {"rss": 0, "anonymous": 0}
    return {fields[line.split(":")[0]]: int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in fields}


def on_disk(directory: Path) -> int:
    """Bytes below a directory, links not followed."""
    paths = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_blocks * 512 for path in paths)


def forget_cache(directory: Path) -> None:
    """Let the system drop what it holds of these files in memory, so that opening them reads the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


SYSTEMS: dict[str, Callable[[Corpus], dict[str, Any]]] = {
    "hnsw": lambda corpus: ours(corpus, "hnsw"),
    "ivf": lambda corpus: ours(corpus, "ivf"),
    "flat": lambda corpus: ours(corpus, "flat"),
    "tail": adding,
    "chroma": plain_chroma,
    "brute_force": brute_force,
    "usearch": with_usearch,
}
