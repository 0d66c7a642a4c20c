"""Understanding streams: labels by name, by examples and in full, their speed, pipelines over logs and prose; detectors.

Labels: accuracy on the test part of an intent set, trained on nothing, on the first ten rows of each class, on all. The floor
is the nearest class centroid of the same vectors. Pipelines run in a durable engine, records stored and embedded before.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import headwater
from common import machine, options, percentiles, report, say, scorer
from headwater.config import EmbeddingSettings
from headwater.embed.lookup import load
from headwater.engine import Engine
from headwater.enrich.examples import Examples
from headwater.enrich.scores import Head
from headwater.enrich.zero_shot import ZeroShot, label_text

ROUTES = 20
PREDICTIONS = 100_000


async def labels(args: argparse.Namespace, score: ModuleType, metrics: dict[str, Any]) -> None:
    """Accuracy, calibration and speed of the classifiers."""
    found = score.load_classification(args.set, args.data)
    train, test = (found.train[:200], found.test[:100]) if args.small else (found.train, found.test)
    names = tuple(dict.fromkeys(row.label for row in (*train, *test))) if args.small else tuple(found.labels)
    column = {name: n for n, name in enumerate(names)}
    embedder = load(args.model, EmbeddingSettings(model=args.model, threads=2))
    began = time.perf_counter()
    texts = await embedder.embed([label_text(name, "") for name in names], "passage")
    tested = await embedder.embed([row.text for row in test], "passage")
    trained = await embedder.embed([row.text for row in train], "passage")
    say(f"{len(train) + len(test):,} texts embedded by {args.model} in {time.perf_counter() - began:.0f} s")
    truth = np.asarray([column[row.label] for row in test])
    of = np.asarray([column[row.label] for row in train])
    shots = _shots(of, 10)
    zero = ZeroShot(names, texts)
    metrics["zero_shot_acc"] = _accuracy(zero, tested, truth)
    floor = np.stack([trained[of == n].mean(axis=0) if (of == n).any() else texts[n] for n in range(len(names))])
    metrics["centroid_full_acc"] = round(float(((tested @ floor.T).argmax(axis=1) == truth).mean()), 4)
    for name, chosen in ((f"{args.set}_10shot", shots), (f"{args.set}_full", np.arange(len(of)))):
        began = time.perf_counter()
        head = Examples(names, trained[chosen], of[chosen], texts)
        metrics[f"{name}_acc"] = _accuracy(head, tested, truth)
        metrics[f"{name}_calibration_error"] = _calibration_error(head.predict(tested), truth)
        metrics[f"{name}_fit_s"] = round(time.perf_counter() - began, 2)
        many = np.tile(tested, (max(1, (1000 if args.small else PREDICTIONS) // len(tested)), 1))
        began = time.perf_counter()
        head.predict(many)
        speed = round(len(many) / (time.perf_counter() - began))
        metrics["predictions_per_s"] = min(speed, metrics.get("predictions_per_s", speed))
        took = []
        for n in range(200):
            began = time.perf_counter()
            head.predict(many[n % len(many)][None, :])
            took.append((time.perf_counter() - began) * 1000)
        metrics["predict_p50_ms"] = max(percentiles(took, 3)["p50"], metrics.get("predict_p50_ms", 0.0))
    await embedder.aclose()


def _shots(of: np.ndarray, count: int) -> np.ndarray:
    """The first rows of each class, in file order."""
    return np.sort(np.concatenate([np.flatnonzero(of == n)[:count] for n in np.unique(of)]))


def _accuracy(head: Head, vectors: np.ndarray, truth: np.ndarray) -> float:
    return round(float((head.predict(vectors).argmax(axis=1) == truth).mean()), 4)


def _calibration_error(found: np.ndarray, truth: np.ndarray) -> float:
    """How far confidence is from the share that is right, over ten bins (expected calibration error)."""
    sure, right = found.max(axis=1), found.argmax(axis=1) == truth
    error = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (sure > low) & (sure <= low + 0.1)
        if inside.any():
            error += float(inside.mean()) * abs(float(right[inside].mean()) - float(sure[inside].mean()))
    return round(error, 4)


async def logs(args: argparse.Namespace, score: ModuleType, metrics: dict[str, Any]) -> None:
    """A pipeline that labels log lines: by vectors, and by a chat model, whose calls are counted."""
    lines = [line for system in score.LOG_SYSTEMS for line in score.load_logs(system, args.data).lines]
    lines = (lines * 5)[: 400 if args.small else 80_000]
    wanted = {"fault": "an error or a failure", "login": "people sign in", "routine": "nothing unusual"}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps([{"if": "", "say": '{"label": "fault", "confidence": 1}'}]), "utf-8")
        settings: dict[str, Any] = {"embedding": {"model": args.model}, "llm": {"provider": "rehearsal", "model": str(script)}}
        async with headwater.aopen(Path(folder) / "data", **settings) as engine:
            await engine.create_topic("logs", passages="template")
            await _fill(engine, "logs", lines)
            speed = await _piped(engine, "logs", {"classify": {"labels": wanted}}, "labelled")
            metrics["classify_records_per_s"] = speed
            metrics["classify_passages"] = (await engine.topic("logs")).passages
            asked = await _piped(engine, "logs", {"classify": {"labels": wanted, "method": "llm"}}, "asked")
            step = (await engine.pipeline("asked")).steps[0]
            metrics["llm_calls"], metrics["llm_calls_for_records"] = step.decided, len(lines)
            passages = metrics["classify_passages"]
            say(f"{len(lines):,} lines, {passages:,} passages: {speed:,}/s; asked {step.decided:,} times, {asked:,}/s")


async def prose(args: argparse.Namespace, score: ModuleType, metrics: dict[str, Any]) -> None:
    """A pipeline with twenty routes by meaning, over distinct texts that are embedded already."""
    found = score.load_classification(args.set, args.data)
    texts = list(dict.fromkeys(row.text for row in (*found.test, *found.train)))[: 100 if args.small else 6000]
    ways = [
        {"topic": f"to.{n}", "like": label_text(name, ""), "min_score": 0.4} for n, name in enumerate(found.labels[:ROUTES])
    ]
    with tempfile.TemporaryDirectory() as folder:
        async with headwater.aopen(folder, embedding={"model": "hash"}) as engine:
            await engine.create_topic("prose", passages="exact")
            await _fill(engine, "prose", texts)
            metrics["route_records_per_s"] = await _piped(engine, "prose", {"route": {"to": ways}}, "routed")
            say(f"{len(texts):,} texts over {len(ways)} routes: {metrics['route_records_per_s']:,}/s")


async def _fill(engine: Engine, topic: str, lines: Sequence[str]) -> None:
    for at in range(0, len(lines), 4000):
        await engine.append(topic, lines[at : at + 4000])
    await engine.append(topic, [lines[-1]], wait="searchable", timeout_s=600)


async def _piped(engine: Engine, topic: str, step: dict[str, Any], name: str) -> int:
    """Records a second, from the moment a pipeline is made until it has written all."""
    total = (await engine.topic(topic)).records
    began = time.perf_counter()
    await engine.create_pipeline(name, {"topics": [topic], "output": f"{name}.out", "steps": [step]})
    while (await engine.pipeline(name)).records < total:  # noqa: ASYNC110 - nothing tells it but its status
        await asyncio.sleep(0.05)
    return round(total / (time.perf_counter() - began))


def detectors(args: argparse.Namespace, metrics: dict[str, Any]) -> None:
    """What detectors are worth, where their benchmark lies beside this one."""
    path = Path(__file__).parent / "understand_detect.py"
    if not path.is_file():
        return
    spec = importlib.util.spec_from_file_location("understand_detect", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    metrics.update(module.nab(args.data))
    metrics.update(module.alert_budget(range(args.seed, args.seed + 3)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = options(__doc__, data=True)
    parser.add_argument("--model", default="", help="embedding model; bge-small by default")
    parser.add_argument("--set", default="banking77", help="the intent set, of those that score.py loads")
    parser.add_argument("--only", default="labels,logs,prose,detectors", help="which parts")
    args = parser.parse_args(argv)
    args.model = args.model or ("hash" if args.small else "bge-small")
    before, metrics = machine(), dict[str, Any]()
    score, parts = scorer(args.data), args.only.split(",")
    for name, part in (("labels", labels), ("logs", logs), ("prose", prose)):
        if name in parts:
            asyncio.run(part(args, score, metrics))
    if "detectors" in parts and not args.small:
        detectors(args, metrics)
    report(args, before, metrics)
    return 0


if __name__ == "__main__":
    sys.exit(main())
