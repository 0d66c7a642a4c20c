"""Retrieval quality over public judged collections: nDCG@10 of hybrid search beside both of its parents.

Only public verbs are used: documents are appended to a topic of chunks with default settings, queries are searched in each
mode as words (in the query language a quoted phrase is a filter; `_as_typed` has what becomes of them otherwise).
Two ways of fusing the same two result lists by query (min-max, reciprocal rank) are computed here as a reference.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import headwater
from common import machine, options, report, say, scorer
from headwater.records import Mode, SearchReply

MODES: tuple[Mode, ...] = ("keyword", "semantic", "hybrid")
DEPTH = 100
RRF_K = 60  # Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet ...", SIGIR 2009
WEIGHT = 0.5  # of the vector in the min-max reference
APPEND = 500
_OPERATORS = re.compile(r'"|(?<!\S)-(?=\S)')  # what the query language would take for a phrase or an exclusion


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents as (id, title, text) and sets of judged queries: name -> ({query: text}, {query: {document: gain}})."""

    name: str
    docs: Sequence[Any]
    sets: Mapping[str, tuple[Mapping[str, str], Mapping[str, Mapping[str, int]]]]
    unanswerable: Sequence[str] = ()


@dataclass(slots=True)
class Runs:
    """Ranked documents with scores, by mode and query."""

    lists: dict[str, dict[str, list[tuple[str, float]]]] = field(default_factory=dict)

    def ranking(self, mode: str) -> dict[str, list[str]]:
        return {q: [d for d, _ in hits] for q, hits in self.lists[mode].items()}


def collections(score: ModuleType, data: Any, names: Sequence[str]) -> list[Collection]:
    """The named collections; `mtrag` comes with its two sets of queries and both together, last turn alone."""
    found = []
    for name in names:
        if name != "mtrag":
            loaded = score.load_retrieval({"xquad": "xquad_en"}.get(name, name), data)
            queries = {q.id: q.text for q in loaded.queries if any(g > 0 for g in loaded.qrels.get(q.id, {}).values())}
            found.append(Collection(name, loaded.docs, {name: (queries, loaded.qrels)}))
            continue
        m = score.load_conversations("mtrag", data)
        un = ({q.id: q.text for q in m.queries}, m.qrels)
        human = ({q.id: q.text for q in m.human}, m.human_qrels)
        both = ({**un[0], **human[0]}, {**un[1], **human[1]})
        sets = {"mtrag_un": un, "mtrag_human": human, "mtrag": both}
        found.append(Collection("mtrag", m.docs, sets, [q.text for q in m.unanswerable]))
    return found


def fill(hw: headwater.Headwater, topic: str, docs: Sequence[Any], wait_s: float) -> float:
    """Append the documents, keyed by id, and wait until they are searchable by meaning. Seconds."""
    started = time.perf_counter()
    hw.create_topic(topic, passages="chunks")
    for at in range(0, len(docs), APPEND):
        rows = [{"key": d.id, "value": f"{d.title}\n\n{d.text}".strip() or d.id} for d in docs[at : at + APPEND]]
        hw.append(topic, rows)
    while (mark := hw.topic(topic).watermark).semantic < mark.stored:
        if time.perf_counter() - started > wait_s:
            raise SystemExit(f"{topic}: only {mark.semantic} of {mark.stored} documents were read in {wait_s:.0f} s")
        time.sleep(0.2)
    return time.perf_counter() - started


def found(reply: SearchReply) -> list[tuple[str, float]]:
    """(document, score) of a reply's hits, each document once."""
    best: dict[str, float] = {}
    for hit in reply:
        best.setdefault(str(hit.key), hit.score)
    return list(best.items())


def search_all(hw: headwater.Headwater, topic: str, queries: Mapping[str, str]) -> Runs:
    """The first DEPTH documents of every query in each mode."""
    runs = Runs()
    for mode in MODES:
        runs.lists[mode] = {
            q: found(hw.search(as_words(t), topics=[topic], top_k=DEPTH, mode=mode)) for q, t in queries.items()
        }
    typed = {q: t for q, t in queries.items() if as_words(t) != t}
    changed = {q: found(hw.search(t, topics=[topic], top_k=DEPTH)) for q, t in typed.items()}
    runs.lists["hybrid_as_typed"] = {**runs.lists["hybrid"], **changed}
    return runs


def as_words(text: str) -> str:
    """A question without what would be an operator of the query language."""
    return _OPERATORS.sub(" ", text)


def min_max(runs: Runs, weight: float = WEIGHT) -> dict[str, list[str]]:
    """Each query's two lists scaled to 0-1 by their own best and worst, added."""

    def scaled(hits: Sequence[tuple[str, float]]) -> dict[str, float]:
        low, high = (min(s for _, s in hits), max(s for _, s in hits)) if hits else (0.0, 0.0)
        return {d: (s - low) / (high - low) if high > low else 1.0 for d, s in hits}

    fused = {}
    for query, hits in runs.lists["keyword"].items():
        words, meaning = scaled(hits), scaled(runs.lists["semantic"][query])
        sums = {d: (1 - weight) * words.get(d, 0.0) + weight * meaning.get(d, 0.0) for d in {**words, **meaning}}
        fused[query] = sorted(sums, key=lambda d: (-sums[d], d))
    return fused


def reciprocal_rank(runs: Runs) -> dict[str, list[str]]:
    """Each document's sum of 1 / (RRF_K + rank) over the two lists."""
    fused = {}
    for query in runs.lists["keyword"]:
        sums: dict[str, float] = {}
        for mode in ("keyword", "semantic"):
            for rank, (d, _) in enumerate(runs.lists[mode][query], 1):
                sums[d] = sums.get(d, 0.0) + 1 / (RRF_K + rank)
        fused[query] = sorted(sums, key=lambda d: (-sums[d], d))
    return fused


def relevant_at(run: Mapping[str, Sequence[str]], gains: Mapping[str, Mapping[str, int]], k: int) -> float:
    """Share of queries with a relevant document among the first k."""
    return sum(any(gains[q].get(d, 0) > 0 for d in hits[:k]) for q, hits in run.items()) / max(len(run), 1)


def measure(score: ModuleType, collection: Collection, runs: Runs) -> dict[str, Any]:
    """The metrics of one collection."""
    metrics: dict[str, Any] = {}
    fused = {mode: runs.ranking(mode) for mode in (*MODES, "hybrid_as_typed")}
    fused |= {"minmax": min_max(runs), "rrf": reciprocal_rank(runs)}
    for name, (queries, gains) in collection.sets.items():
        judged = {q: gains[q] for q in queries}
        for how, run in fused.items():
            mine = {q: run[q] for q in queries}
            metrics[f"ndcg10_{how}_{name}"] = round(score.score_run(mine, judged)["ndcg@10"], 4)
            if collection.name == "mtrag" and how in MODES:
                metrics[f"relevant_at_5_{how}_{name}"] = round(relevant_at(mine, judged, 5), 4)
    return metrics


def answerability(score: ModuleType, hw: headwater.Headwater, collection: Collection, runs: Runs) -> dict[str, float]:
    """AUROC of the best score as a sign that a query has an answer here: scores must compare between queries."""
    answerable = collection.sets["mtrag_un"][0]
    metrics = {}
    for mode in MODES:
        with_answer = [runs.lists[mode][q][0][1] if runs.lists[mode][q] else 0.0 for q in answerable]
        replies = [
            hw.search(as_words(text), topics=[collection.name], top_k=DEPTH, mode=mode) for text in collection.unanswerable
        ]
        without = [reply[0].score if len(reply) else 0.0 for reply in replies]
        truth = [1] * len(with_answer) + [0] * len(without)
        metrics[f"answerability_auroc_{mode}"] = round(score.auroc(truth, with_answer + without), 4)
    return metrics


def small(collection: Collection, docs: int, queries: int) -> Collection:
    """The first queries, the documents relevant to them and the first others."""
    sets = {}
    for name, (texts, gains) in collection.sets.items():
        kept = dict(list(texts.items())[:queries])
        sets[name] = (kept, gains)
    if collection.name == "mtrag":
        sets["mtrag"] = ({**sets["mtrag_un"][0], **sets["mtrag_human"][0]}, sets["mtrag"][1])
    needed = {d for texts, gains in sets.values() for q in texts for d, g in gains[q].items() if g > 0}
    kept_docs = [d for d in collection.docs if d.id in needed]
    kept_docs += [d for d in collection.docs if d.id not in needed][: max(docs - len(kept_docs), 0)]
    return Collection(collection.name, kept_docs, sets, collection.unanswerable[:queries])


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__, data=True)
    parser.add_argument("--sets", default="cacm,cranfield,mtrag,xquad", help="which collections")
    parser.add_argument("--model", default="bge-small", help="embedding model")
    parser.add_argument("--threads", type=int, default=2, help="onnxruntime threads")
    args = parser.parse_args(argv)
    score, before, metrics = scorer(args.data), machine(), dict[str, Any]()
    settings = {"model": args.model, "threads": args.threads, "cache_enabled": False}
    with headwater.open(":memory:", embedding=settings) as hw:
        for collection in collections(score, args.data, args.sets.split(",")):
            if args.small:
                collection = small(collection, 30, 4)
            took = fill(hw, collection.name, collection.docs, 3600)
            say(f"{collection.name}: {len(collection.docs)} documents searchable in {took:.0f} s")
            queries = {q: text for texts, _ in collection.sets.values() for q, text in texts.items()}
            runs = search_all(hw, collection.name, queries)
            metrics |= measure(score, collection, runs)
            if collection.unanswerable:
                metrics |= answerability(score, hw, collection, runs)
            say(", ".join(f"{k} {v}" for k, v in metrics.items() if k.endswith(collection.name)))
    for mode in ("hybrid", "keyword"):
        if f"relevant_at_5_{mode}_mtrag" in metrics:
            metrics[f"relevant_at_5_{mode}"] = metrics[f"relevant_at_5_{mode}_mtrag"]
    report(args, before, {"model": args.model, **metrics})
    return 0


if __name__ == "__main__":
    sys.exit(main())
