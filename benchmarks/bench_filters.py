"""Searches under filters, through the whole engine and over HTTP, at as many passages as wanted.

Texts are distinct, so that every record is a passage. Their vectors are made like those of real texts (realistic.py) and put
where the engine keeps what the default model has embedded: so a million can be loaded without embedding each, and text
queries are embedded as always. Beside each figure: an exact scan of the records that match, found beforehand.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import headwater
from common import machine, options, percentiles, report, say
from headwater import launch
from headwater.config import load
from headwater.embed.cache import VectorCache
from headwater.embed.lookup import load as embedder_of
from headwater.records import SearchReply
from realistic import Maker, embedded, texts

TOPIC, BESIDE = "bench", "beside"
COMING = 200  # records a second
TOP_K = 10
SCANNED = 50  # queries of each case that are held against an exact scan
APPEND = 2000
BEGIN = 1_700_000_000  # epoch seconds of the first record; one a second
BUCKETS, KEYED = 10, 10_000  # values of the attribute that means nothing, and of the key
_STREAM, _QUERIES = 1, 2


class Corpus:
    """`n` records: text, vector, and for each what the filters ask for. `area` goes with the meaning: texts near in meaning to
    one of BUCKETS centres share it. The embedded texts are kept in `home`: another version of the embedder gives vectors that
    differ a little, around which entirely different ones would be drawn."""

    def __init__(self, home: Path, n: int, queries: int, seed: int, *, small: bool) -> None:
        lines = texts(60 if small else 6000)
        kept = home / "texts.npy"
        base = np.load(kept) if kept.exists() else embedded(lines, 384)
        if len(base) != len(lines):
            raise SystemExit(f"{kept} is of {len(base)} texts, not of {len(lines)}; give --keep another directory")
        np.save(kept, base)
        rng = np.random.default_rng(seed)
        maker = Maker(base, seed)
        origins = rng.integers(0, len(base), n)
        self.vectors = np.empty((n, base.shape[1]), np.float32)
        maker.draw(origins, self.vectors, _STREAM)
        asked = rng.integers(0, len(base), queries)
        self.queries = np.empty((queries, base.shape[1]), np.float32)
        maker.draw(asked, self.queries, _QUERIES)
        centres = base[rng.choice(len(base), BUCKETS, replace=False)]
        near = np.argmax(base @ centres.T, axis=1)
        self.area, self.area_of_query = near[origins], near[asked]
        self.bucket = rng.integers(0, BUCKETS, n)
        words = [line.split() for line in lines]
        self.texts = [f"{' '.join(words[o][:12])} #{i}" for i, o in enumerate(origins)]
        self.words = [" ".join(words[o][2:8]) for o in asked]

    def marks(self) -> dict[str, Any]:
        """What an engine that was loaded with these records is known by."""
        digest = hashlib.sha256()
        for part in (self.vectors, self.area, self.bucket):
            digest.update(np.ascontiguousarray(part).data)
        return {"n": len(self.texts), "sha256": digest.hexdigest()}

    def record(self, i: int) -> dict[str, Any]:
        marks = {"bucket": f"b{self.bucket[i]}", "area": f"a{self.area[i]}"}
        return {"value": self.texts[i], "key": f"k{i % KEYED}", "timestamp": BEGIN + i, "attributes": marks}


Case = tuple[dict[str, Any], Callable[[], np.ndarray]]


def cases(corpus: Corpus) -> dict[str, Callable[[int], Case]]:
    """By name, for query `i`: the filters of the search, and which records they let through."""
    n = len(corpus.texts)
    everything = np.arange(n)

    def window(i: int) -> Case:
        first = i * 7919 % max(n - n // 100, 1)
        scope = {"since": float(BEGIN + first), "until": float(BEGIN + first + n // 100)}
        return scope, lambda: everything[first : first + n // 100]

    def where(name: str, values: np.ndarray, wanted: Callable[[int], int], prefix: str) -> Callable[[int], Case]:
        return lambda i: ({"filters": {name: f"{prefix}{wanted(i)}"}}, lambda: np.flatnonzero(values == wanted(i)))

    area = corpus.area_of_query
    return {
        "all": lambda i: ({}, lambda: everything),
        "time_1": window,
        "attribute_10": where("bucket", corpus.bucket, lambda i: i % BUCKETS, "b"),
        "key": where("key", everything % KEYED, lambda i: i * 7919 % min(KEYED, n), "k"),
        "attribute_like_meaning": where("area", corpus.area, lambda i: int(area[i]), "a"),
        "attribute_unlike_meaning": where("area", corpus.area, lambda i: int(area[i] + 1 + i % (BUCKETS - 1)) % BUCKETS, "a"),
    }


def loaded(directory: Path, marker: Path, corpus: Corpus, args: Namespace) -> float | None:
    """See to it that an engine with exactly this corpus is there. The seconds that took; None where an earlier run left it."""
    wanted, held = corpus.marks(), json.loads(marker.read_text("utf-8")) if marker.exists() else None
    if held == wanted:
        return None
    if held is not None:
        say(f"{directory} does not hold the records of this run; it is loaded anew")
        shutil.rmtree(directory, ignore_errors=True)
    elif directory.exists():
        raise SystemExit(f"{directory} was not made by this benchmark; give --keep another directory")
    marker.write_text("{}", "utf-8")
    took = fill(directory, corpus, args)
    marker.write_text(json.dumps(wanted), "utf-8")
    return round(took, 1)


def fill(directory: Path, corpus: Corpus, args: Namespace) -> float:
    """Load everything, until it is embedded (from the cache) and sealed. Seconds."""
    settings = load(None, _settings(directory, args)).settings
    model = embedder_of("bge-small", settings.embedding)
    directory.mkdir(parents=True, exist_ok=True)
    with VectorCache(directory / "cache.db", max_bytes=1 << 34) as cache:
        for at in range(0, len(corpus.texts), 10_000):
            part = slice(at, at + 10_000)
            cache.put_many(f"{model.name}@{model.version}", "passage", corpus.texts[part], corpus.vectors[part])
    started = said = time.perf_counter()
    with headwater.open(directory, **_options(args)) as hw:
        hw.create_topic(TOPIC, passages="exact")
        for at in range(0, len(corpus.texts), APPEND):
            hw.append(TOPIC, [corpus.record(i) for i in range(at, min(at + APPEND, len(corpus.texts)))])
        n = len(corpus.texts)
        while (mark := hw.topic(TOPIC).watermark).semantic < n or (hw.index(TOPIC).tail >= args.seal_at):
            time.sleep(0.2)
            if time.perf_counter() - said > 30:
                said = time.perf_counter()
                say(f"{mark}, {hw.index(TOPIC).progress}")
    return time.perf_counter() - started


def _options(args: Namespace) -> dict[str, Any]:
    return {"embedding": {"cache_max_bytes": 1 << 34}, "index": {"seal_at": args.seal_at}, "search": {"record_queries": 0}}


def _settings(directory: Path, args: Namespace) -> dict[str, Any]:
    flat = {f"{section}.{name}": v for section, values in _options(args).items() for name, v in values.items()}
    return {"data_dir": str(directory), "server.port": 0, "server.requests_per_s": 0, **flat}


def through_the_engine(hw: headwater.Headwater, corpus: Corpus, label: str, metrics: dict[str, Any]) -> None:
    """Vector given; latency, recall and the plans of each case, and an exact scan of what matches beside it."""
    for name, case in cases(corpus).items():
        took, scan, recalls, replies = list[float](), list[float](), list[float](), list[SearchReply]()
        for i, query in enumerate(corpus.queries):
            given, scope = query.tolist(), case(i)[0]
            started = time.perf_counter()
            replies.append(hw.search_vector(given, topics=[TOPIC], top_k=TOP_K, explain=True, **scope))
            took.append((time.perf_counter() - started) * 1000)
        for i, query in enumerate(corpus.queries[:SCANNED]):  # afterwards: they would empty the processor's caches
            among = case(i)[1]()
            started = time.perf_counter()
            rows = corpus.vectors if len(among) == len(corpus.vectors) else corpus.vectors[among]
            best = np.sort(rows @ query)[-TOP_K:]
            scan.append((time.perf_counter() - started) * 1000)
            recalls.append(_recall(replies[i], corpus, query, best))
        plans = dict(Counter(plan["plan"] for reply in replies for plan in (reply.explain or {}).get("plans", ())))
        found = percentiles(took)
        metrics[f"search_{label}_{name}_ms"] = {**found, "recall": round(float(np.mean(recalls)), 4), "plans": plans}
        metrics[f"search_{label}_{name}_p99_ms"] = found["p99"]
        metrics[f"exact_scan_{label}_{name}_ms"] = percentiles(scan)
        say(f"{name}: {metrics[f'search_{label}_{name}_ms']}, scan {percentiles(scan)}")


def while_records_come(hw: headwater.Headwater, corpus: Corpus, label: str, metrics: dict[str, Any]) -> None:
    """The filters by attribute again, while another topic takes COMING records a second: each commit shows a new state."""
    hw.create_topic(BESIDE, passages="exact", embedding_model="none")
    done = threading.Event()

    def write() -> None:
        for i in itertools.count():
            if done.wait(0.1):
                return
            hw.append(BESIDE, [f"record {i * COMING // 10 + j} comes" for j in range(COMING // 10)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for name in ("attribute_10", "attribute_like_meaning", "attribute_unlike_meaning"):
            took, case = list[float](), cases(corpus)[name]
            for i, query in enumerate(corpus.queries):
                given, scope = query.tolist(), case(i)[0]
                started = time.perf_counter()
                hw.search_vector(given, topics=[TOPIC], top_k=TOP_K, **scope)
                took.append((time.perf_counter() - started) * 1000)
            metrics[f"search_{label}_{name}_while_records_come_ms"] = percentiles(took)
            say(f"{name} while records come: {percentiles(took)}")
    finally:
        done.set()
        writer.join()
        hw.delete_topic(BESIDE)


def _recall(reply: SearchReply, corpus: Corpus, query: np.ndarray, best: np.ndarray) -> float:
    """Share of the true nearest that was found; anything as near as the last of them counts."""
    if not len(best):
        return 1.0 if not len(reply) else 0.0
    found = corpus.vectors[[hit.offset for hit in reply]] @ query if len(reply) else np.empty(0)
    return min(float((found >= best[0] - 1e-3).sum()) / len(best), 1.0)


def over_http(directory: Path, corpus: Corpus, args: Namespace, label: str, metrics: dict[str, Any]) -> None:
    """Text queries in hybrid mode, embedded with the default model, one client: while a daemon that has just started still
    checks and loads its graph, then when it answers."""
    settings = load(None, _settings(directory, args)).settings
    runtime = launch.find_or_start(settings, timeout_s=240)
    try:
        with headwater.connect(runtime.url, token=runtime.token) as hw:
            asked = [f"{words} {i}" for i, words in enumerate(corpus.words)]
            opening, took, filtered = list[float](), list[float](), list[float]()
            while len(opening) < 5 or any(not segment["ready"] for segment in hw.index(TOPIC).segments):
                started = time.perf_counter()
                hw.search(f"{asked[len(opening) % len(asked)]} early {len(opening)}", topics=[TOPIC], top_k=TOP_K)
                opening.append((time.perf_counter() - started) * 1000)
            for i, text in enumerate(asked):
                started = time.perf_counter()
                hw.search(text, topics=[TOPIC], top_k=TOP_K)
                took.append((time.perf_counter() - started) * 1000)
                started = time.perf_counter()
                hw.search(f"{text} again", topics=[TOPIC], top_k=TOP_K, filters={"bucket": f"b{i % BUCKETS}"})
                filtered.append((time.perf_counter() - started) * 1000)
    finally:
        os.kill(runtime.pid, signal.SIGTERM)
        while launch.find(settings) is not None:
            time.sleep(0.05)
    metrics[f"search_http_hybrid_{label}_opening_ms"] = percentiles(opening)
    metrics[f"search_http_hybrid_{label}_ms"] = percentiles(took)
    metrics[f"search_http_hybrid_{label}_attribute_10_ms"] = percentiles(filtered)
    metrics[f"search_http_hybrid_{label}_p99_ms"] = percentiles(took)["p99"]
    say(f"hybrid over HTTP: {percentiles(took)}, under a filter {percentiles(filtered)}")


def beside_a_shadow(lines: Sequence[str], n: int, asked: int, for_s: float) -> dict[str, Any]:
    """Latency of searches by vector while the index of a second model, the default one, is built beside the live one of the
    static model; over that before and after."""
    words = [line.split()[:12] for line in lines]
    with tempfile.TemporaryDirectory() as directory, headwater.open(directory, search={"record_queries": 0}) as hw:
        hw.create_topic(TOPIC, passages="exact", embedding_model="static")
        for at in range(0, n, APPEND):
            hw.append(TOPIC, [{"value": f"{' '.join(words[i % len(words)])} #{i}"} for i in range(at, min(at + APPEND, n))])
        while hw.topic(TOPIC).watermark.semantic < n:
            time.sleep(0.1)
        queries = hw.embed(lines[:200], model="static").vectors

        def ask(number: int) -> float:
            started = time.perf_counter()
            hw.search_vector(queries[number % len(queries)], topics=[TOPIC], top_k=TOP_K)
            return (time.perf_counter() - started) * 1000

        for i in range(50):
            ask(i)
        idle, busy = [ask(i) for i in range(asked)], list[float]()
        hw.rebuild_index(TOPIC, model="bge-small", shadow=True)
        end = time.perf_counter() + for_s
        while time.perf_counter() < end and hw.shadow(TOPIC).state == "building":
            busy.extend(ask(i) for i in range(20))
        progress = hw.shadow(TOPIC).progress
        hw.swap_index(TOPIC, "cancel" if progress is not None else "drop")
        idle += [ask(i) for i in range(asked)]
    quiet, loud = percentiles(idle), percentiles(busy)
    ratios = {p: round(loud[p] / quiet[p], 2) for p in ("p50", "p99") if busy}
    say(f"beside a shadow: {loud}, idle {quiet}")
    return {"latency_beside_a_shadow_ratio": ratios, "idle_ms": quiet, "beside_a_shadow_ms": loud,
            "shadow_done": n if progress is None else progress.done}  # fmt: skip


def _label(n: int) -> str:
    return f"{n // 1_000_000}m" if n % 1_000_000 == 0 else f"{n // 1000}k"


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="records")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seal-at", type=int, default=50_000, help="vectors that make a segment")
    parser.add_argument("--keep", type=Path, help="directory to load into, or to use as an earlier run left it")
    args = parser.parse_args(argv)
    if args.small:
        args.n, args.queries, args.seal_at = 2000, 20, 1500
    before, metrics, label = machine(), dict[str, Any](), _label(args.n)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        home = args.keep or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        corpus = Corpus(home, args.n, args.queries, args.seed, small=args.small)
        directory = home / "data"
        if (took := loaded(directory, home / "loaded.json", corpus, args)) is not None:
            metrics["fill_s"] = took
        started = time.perf_counter()
        with headwater.open(directory, **_options(args)) as hw:
            hw.search_vector(corpus.queries[0].tolist(), topics=[TOPIC])
            metrics[f"open_{label}_s"] = round(time.perf_counter() - started, 3)
            while any(not segment["ready"] for segment in hw.index(TOPIC).segments):
                time.sleep(0.5)
            metrics["segments"], metrics["tail"] = len(hw.index(TOPIC).segments), hw.index(TOPIC).tail
            through_the_engine(hw, corpus, label, metrics)
            while_records_come(hw, corpus, label, metrics)
        over_http(directory, corpus, args, label, metrics)
    metrics |= beside_a_shadow(texts(60), 600, 20, 1) if args.small else beside_a_shadow(texts(3000), 20_000, 500, 30)
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
