"""What the benchmarks share: options, progress on stderr, percentiles, the machine, and one JSON object on stdout."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

PERCENTILES = (50, 90, 99)
_LIBRARIES = ("headwater", "apsw", "chromadb", "numpy", "onnxruntime", "tantivy", "tokenizers")


def options(doc: str | None, *, data: bool = False) -> argparse.ArgumentParser:
    """The options every benchmark has: --json, --small, --seed; with `data` also --data."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--small", action="store_true", help="tiny: shows that it runs, its figures mean nothing")
    parser.add_argument("--seed", type=int, default=7, help="seed of whatever is drawn")
    if data:
        parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets, with its score.py")
    return parser


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def percentiles(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """`{p50, p90, p99, max}`, nearest rank."""
    if not values:
        return {}
    ranked = sorted(values)
    found = {f"p{p}": ranked[min(len(ranked) - 1, -(-len(ranked) * p // 100) - 1)] for p in PERCENTILES}
    return {name: round(v, digits) for name, v in {**found, "max": ranked[-1]}.items()}


def machine() -> dict[str, Any]:
    """Where and with what a figure was measured; the load says how much else was going on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load_average": [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def report(args: argparse.Namespace, before: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Print what was measured: one JSON object with --json, else a table. `before` is `machine()` as it was at the start."""
    shown = {**before, "load_average_after": [round(x, 2) for x in os.getloadavg()]}
    if args.json:
        print(json.dumps({"machine": shown, "metrics": metrics}, default=str), flush=True)
        return
    print(f"{shown['cpu']}, {shown['cores']} cores, load {shown['load_average']} -> {shown['load_average_after']}")
    for name, value in metrics.items():
        print(f"  {name:44} {json.dumps(value) if isinstance(value, (dict, list)) else value}")


def scorer(data: Path) -> ModuleType:
    """The evaluation folder's own `score.py`: its loaders and its metrics."""
    spec = importlib.util.spec_from_file_location("headwater_evaluation_score", data / "score.py")
    if spec is None or spec.loader is None or not (data / "score.py").is_file():
        raise SystemExit(f"{data} has no score.py; --data names the folder of the evaluation sets")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
