"""Search latency and recall, beside plain Chroma and a brute-force scan over the same vectors in the same run.

Passages are short texts that never repeat, so that every record is one. Vectors are by default those of the `hash` model (made
of words, quick): what is measured is searching, and embedding the query with the default model is reported by itself.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

import headwater
from common import machine, options, percentiles, report, say
from headwater.demo.synthetic import mixed_lines
from headwater.records import Mode, SearchReply

TOPIC = "bench"
TOP_K = 10
APPEND = 1000
TENANTS = 100  # distinct values of the attribute that is filtered on
WIDE_TENANTS = 3  # of a second attribute: a third of all records each


def timed(work: Callable[[str], Any], queries: Sequence[str]) -> tuple[dict[str, float], list[Any]]:
    """Latency percentiles in ms and the results; the first few queries run twice and count once."""
    for query in queries[:5]:
        work(query)
    took, results = [], []
    for query in queries:
        started = time.perf_counter()
        results.append(work(query))
        took.append((time.perf_counter() - started) * 1000)
    return percentiles(took, 3), results


def recall(found: Sequence[Sequence[int]], true: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> float:
    """Share of the true TOP_K that was found; anything as near as the last of them counts, so that ties do not matter."""
    hits = 0
    for mine, best, all_scores in zip(found, true, scores, strict=True):
        last = all_scores[best[-1]] - 1e-4
        hits += sum(all_scores[i] >= last for i in list(mine)[:TOP_K])
    return round(hits / (TOP_K * len(true)), 4)


class Corpus:
    """Texts, their attributes and vectors, and queries that are parts of texts."""

    def __init__(self, size: int, queries: int, seed: int) -> None:
        rng = Random(seed)
        self.texts = [f"{line} #{i}" for i, line in enumerate(mixed_lines(size, seed=seed, per_passage=1))]
        self.tenants = [f"t{rng.randrange(TENANTS)}" for _ in self.texts]
        self.zones = [f"z{rng.randrange(WIDE_TENANTS)}" for _ in self.texts]
        words = [[w for w in self.texts[rng.randrange(size)].split() if w.isalpha()] for _ in range(queries * 2)]
        self.queries = [" ".join(rng.sample(w, min(5, len(w)))) for w in words if len(w) > 2][:queries]
        self.vectors = np.empty((0, 0), np.float32)
        self.query_vectors: dict[str, np.ndarray] = {}

    def embed(self, hw: headwater.Headwater, model: str) -> None:
        """The vectors that the engine itself will store."""
        pieces = [hw.embed(self.texts[at : at + 1000], model=model).vectors for at in range(0, len(self.texts), 1000)]
        self.vectors = np.concatenate([np.asarray(p, np.float32) for p in pieces])
        for query in self.queries:
            self.query_vectors[query] = np.asarray(hw.embed([query], model=model).vectors[0], np.float32)

    def scores(self, query: str) -> np.ndarray:
        found: np.ndarray = self.vectors @ self.query_vectors[query]
        return found

    def nearest(self, query: str) -> np.ndarray:
        scores = self.scores(query)
        best = np.argpartition(-scores, TOP_K)[:TOP_K]
        return best[np.argsort(-scores[best])]


def fill(hw: headwater.Headwater, corpus: Corpus, segments: int) -> float:
    """Append everything and wait until it can be found and, where a segment is due, until it is sealed. Seconds."""
    started = time.perf_counter()
    hw.create_topic(TOPIC, passages="exact")
    rows = [
        {"key": str(i), "value": text, "attributes": {"tenant": tenant, "zone": zone}}
        for i, (text, tenant, zone) in enumerate(zip(corpus.texts, corpus.tenants, corpus.zones, strict=True))
    ]
    for at in range(0, len(rows), APPEND):
        hw.append(TOPIC, rows[at : at + APPEND])
    while (mark := hw.topic(TOPIC).watermark).semantic < len(rows) or len(hw.index(TOPIC).segments) < segments:
        if time.perf_counter() - started > 1800:
            raise SystemExit(f"only {mark} of {len(rows)}, {len(hw.index(TOPIC).segments)} segments after half an hour")
        time.sleep(0.1)
    return time.perf_counter() - started


def ours(hw: headwater.Headwater, corpus: Corpus, truth: Sequence[np.ndarray], metrics: dict[str, Any]) -> None:
    """Each mode, and hybrid search under a filter that leaves one in a hundred records and one that leaves a third."""
    modes: tuple[Mode, ...] = ("keyword", "semantic", "hybrid")
    kinds: dict[str, dict[str, Any]] = {mode: {"mode": mode} for mode in modes}
    kinds |= {"filtered": {"filters": {"tenant": "t1"}}, "filtered_wide": {"filters": {"zone": "z1"}}}
    for name, how in kinds.items():

        def search(query: str, how: dict[str, Any] = how) -> SearchReply:
            return hw.search(query, topics=[TOPIC], top_k=TOP_K, **how)

        metrics[f"search_{name}_ms"], replies = timed(search, corpus.queries)
        say(f"{name}: {metrics[f'search_{name}_ms']} ms")
        if name == "semantic":
            found = [[int(str(hit.key)) for hit in reply] for reply in replies]
            metrics["recall_at_10_semantic"] = recall(found, truth, [corpus.scores(q) for q in corpus.queries])
        if name == "filtered":
            assert all(hit.attributes["tenant"] == "t1" for reply in replies for hit in reply)


def plain_chroma(directory: str, corpus: Corpus, truth: Sequence[np.ndarray], metrics: dict[str, Any]) -> None:
    """The peer: the same vectors and attributes in one Chroma collection with its defaults and cosine distance."""
    import chromadb

    client = chromadb.PersistentClient(directory, chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("bench", configuration={"hnsw": {"space": "cosine"}})
    started, step = time.perf_counter(), 2000
    for at in range(0, len(corpus.texts), step):
        stop = min(at + step, len(corpus.texts))
        collection.add(
            ids=[str(i) for i in range(at, stop)],
            embeddings=corpus.vectors[at:stop],
            documents=corpus.texts[at:stop],
            metadatas=[{"tenant": corpus.tenants[i], "zone": corpus.zones[i]} for i in range(at, stop)],
        )
    metrics["chroma_fill_s"] = round(time.perf_counter() - started, 1)

    def query(text: str, where: dict[str, Any] | None = None) -> list[int]:
        reply = collection.query(query_embeddings=[corpus.query_vectors[text]], n_results=TOP_K, where=where)
        return [int(i) for i in reply["ids"][0]]

    metrics["chroma_ms"], found = timed(query, corpus.queries)
    metrics["chroma_filtered_ms"], _ = timed(lambda q: query(q, {"tenant": "t1"}), corpus.queries)
    metrics["chroma_filtered_wide_ms"], _ = timed(lambda q: query(q, {"zone": "z1"}), corpus.queries)
    metrics["recall_at_10_chroma"] = recall(found, truth, [corpus.scores(q) for q in corpus.queries])
    say(f"chroma: {metrics['chroma_ms']} ms, filtered {metrics['chroma_filtered_ms']} ms")


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--passages", type=int, default=50_000, help="distinct texts")
    parser.add_argument("--model", default="hash", help="whose vectors; `static` (an extra) has more natural neighbourhoods")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seal-at", type=int, default=40_000, help="vectors that make a segment; more than passages for none")
    args = parser.parse_args(argv)
    size, queries = (600, 20) if args.small else (args.passages, args.queries)
    segments = 0 if args.small or args.seal_at > size else 1
    before, corpus = machine(), Corpus(size, queries, args.seed)
    metrics: dict[str, Any] = {"model": args.model, "passages": size, "queries": queries, "seal_at": args.seal_at}
    settings: dict[str, Any] = {"embedding": {"model": args.model, "cache_enabled": False}, "index": {"seal_at": args.seal_at}}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        with headwater.open(f"{directory}/hw", **settings) as hw:
            corpus.embed(hw, args.model)
            metrics["fill_s"] = round(fill(hw, corpus, segments), 1)
            say(f"{size} passages searchable in {metrics['fill_s']} s, segments: {len(hw.index(TOPIC).segments)}")
        started = time.perf_counter()
        with headwater.open(f"{directory}/hw", **settings) as hw:
            hw.search(corpus.queries[0], topics=[TOPIC])
            metrics["open_s"] = round(time.perf_counter() - started, 3)
            metrics["segments"], metrics["tail"] = len(hw.index(TOPIC).segments), hw.index(TOPIC).tail
            metrics["brute_force_ms"], truth = timed(corpus.nearest, corpus.queries)
            ours(hw, corpus, truth, metrics)
            hw.embed(["open the model"], model="bge-small")
            metrics["query_embed_ms"], _ = timed(lambda q: hw.embed([q], model="bge-small"), corpus.queries[:100])
        plain_chroma(f"{directory}/chroma", corpus, truth, metrics)
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
