"""The vector index at scale, beside plain Chroma, brute force and usearch, on vectors like those of real texts.

Vectors are made around a few thousand embedded texts (see realistic.py). Each system is built once and measured in a
process of its own, so that memory is its own; recall@10 is against an exact scan. `--cache` keeps what was built.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import realistic
from common import machine, options, report, say
from headwater.vectors.space import Space
from index_systems import SYSTEMS, TOP_K, Corpus, opened

TEXTS = 6000
QUERIES, JUDGED = 1000, 300


def prepare(home: Path, n: int, dimension: int, texts: int, seed: int) -> dict[str, Any]:
    """Make the corpus where it is not there yet; what it is like."""
    if not (home / "corpus.json").exists():
        home.mkdir(parents=True, exist_ok=True)
        base = realistic.embedded(realistic.texts(texts), dimension)
        draw, maker = np.random.default_rng(seed), realistic.Maker(base, seed)
        origins = draw.integers(len(base), size=n)
        rows = np.empty((n, dimension), np.float32)
        maker.draw(origins, rows, 0)
        say(f"{n} vectors made")
        queries = np.empty((min(QUERIES, n), dimension), np.float32)
        maker.draw(draw.integers(len(base), size=len(queries)), queries, 1)
        write(home, base, rows, origins, queries)
    about: dict[str, Any] = json.loads((home / "corpus.json").read_text())
    return about


def write(home: Path, base: np.ndarray, rows: np.ndarray, origins: np.ndarray, queries: np.ndarray) -> None:
    """Save a corpus with its truth: how near the tenth nearest is for the first queries."""
    space = Space(rows.shape[1], "cosine")
    stored = np.empty(rows.shape, np.float16)
    for start in range(0, len(rows), 20_000):
        stored[start : start + 20_000] = space.accept(rows[start : start + 20_000])
    np.save(home / "vectors.npy", stored)
    np.save(home / "origins.npy", origins)
    np.save(home / "queries.npy", queries)
    np.save(home / "bounds.npy", nearest(stored, queries[:JUDGED], TOP_K)[:, -1])
    some = np.random.default_rng(0).choice(len(base), min(300, len(base)), replace=False)
    made = np.random.default_rng(0).choice(len(rows), min(300, len(rows)), replace=False)
    about = {"texts": len(base)}
    for name, of, sample in (("texts", base, base[some]), ("vectors", rows, rows[made])):
        near = nearest(of, sample, min(21, len(of)))[:, 1:]
        about[f"intrinsic_dimension_of_{name}"] = realistic.intrinsic_dimension(np.sqrt(np.maximum(0, 2 - 2 * near)))
        about[f"cosine_of_the_nearest_of_{name}"] = round(float(np.median(near[:, 0])), 3)
    (home / "corpus.json").write_text(json.dumps(about))


def nearest(rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """`(m, k)` cosines of the k nearest rows, nearest first."""
    best = np.full((len(queries), k), -2, np.float32)
    for start in range(0, len(rows), 20_000):
        block = rows[start : start + 20_000].astype(np.float32)
        near = queries @ (block / np.linalg.norm(block, axis=1, keepdims=True)).T
        both = np.concatenate([best, near], axis=1)
        best = np.partition(both, both.shape[1] - k, axis=1)[:, -k:]
    found: np.ndarray = -np.sort(-best, axis=1)
    return found


def build(home: Path, kind: Any, nice: int) -> None:
    """Seal all vectors into one segment of a kind, where the cache does not have it."""
    if (home / kind / "rows.json").exists():
        return
    index = opened(Corpus(home), kind, nice=nice)
    index.open()
    while index.maintain():
        pass
    index.close()


def named(n: int, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The figures by the names they are asked for; `n` is in the names."""
    size = f"{n // 1_000_000}m" if n % 1_000_000 == 0 else f"{n // 1000}k" if n % 1000 == 0 else str(n)
    metrics: dict[str, Any] = {}
    if graph := results.get("hnsw"):
        metrics |= {
            f"search_{size}_p50_ms": graph["search_ms"]["p50"],
            f"search_{size}_p99_ms": graph["search_ms"]["p99"],
            "recall": graph["recall"],
            "filters": {name: figures["p99"] for name, figures in graph["filters"].items()},
            "filters_recall": {name: figures["recall"] for name, figures in graph["filters"].items()},
            "queries_per_s": graph["queries_per_s"],
            "rss_bytes_per_vector": graph["rss_bytes_per_vector"],
            "disk_bytes_per_vector": graph["disk_bytes_per_vector"],
            f"open_{size}_s": graph["open_s"],
            "latency_while_sealing_ratio": graph["latency_while_sealing_ratio"],
        }
    for name, floor in (("chroma", "filters_chroma_where"), ("brute_force", "filters_exact_scan")):
        if beside := results.get(name):
            metrics[floor] = {name: figures["p99"] for name, figures in beside["filters"].items()}
    if tail := results.get("tail"):
        metrics |= {"add_p99_ms": tail["add_p99_ms"], "build_10k_ms": tail["build_10k_ms"]}
    return metrics | {f"system_{name}": figures for name, figures in results.items()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="vectors")
    parser.add_argument("--dim", type=int, default=384, help="components; the default model has 384")
    parser.add_argument("--cache", type=Path, help="folder where corpus and built indexes are kept and taken from")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="which to measure, with commas between")
    parser.add_argument("--builder-nice", type=int, default=0, help="priority of the builders; 19 is what Headwater uses")
    parser.add_argument("--measure", choices=SYSTEMS, help="measure one system of the cache and print that alone")
    args = parser.parse_args(argv)
    n, texts = (2000, 120) if args.small else (args.n, TEXTS)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        home = Path(args.cache or scratch) / f"{n}x{args.dim}-{args.seed}"
        if args.measure:
            print(json.dumps(SYSTEMS[args.measure](Corpus(home))))
            return 0
        before = machine()
        metrics: dict[str, Any] = {"n": n, "dimension": args.dim, **prepare(home, n, args.dim, texts, args.seed)}
        results: dict[str, dict[str, Any]] = {}
        for name in args.systems.split(","):
            if name in ("hnsw", "ivf", "flat"):
                build(home, name, args.builder_nice)
            results[name] = alone(home, name, args.dim, n, args.seed, small=args.small)
            say(f"{name}: {json.dumps(results[name])}")
        report(args, before, metrics | named(n, results))
    return 0


def alone(home: Path, name: str, dimension: int, n: int, seed: int, *, small: bool) -> dict[str, Any]:
    """Measure a system in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--cache", str(home.parent), "--dim", str(dimension)]
    command += ["--n", str(n), "--seed", str(seed), *(["--small"] if small else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} could not be measured:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
