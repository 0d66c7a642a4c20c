"""Vectors like those of real texts, as many as wanted: what bench_index.py searches.

A few thousand real texts (the docstrings of Python's standard library) are embedded with the default model. Each vector made
starts at one of these and moves by a random mixture of the steps to that text's nearest neighbours, with a little noise
in all directions, so that neighbourhoods stretch the way real ones do: `intrinsic_dimension` says how many ways that is, of
the texts and of what was made.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common import say

NEIGHBOURS = 32
STEP = 0.16  # of the way to each neighbour, standard deviation
NOISE = 0.15  # length of the noise in all directions
_SHORTEST, _LONGEST = 40, 300


def texts(limit: int) -> list[str]:
    """Distinct paragraphs of the standard library's docstrings, in the order of its files."""
    found: dict[str, None] = {}
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        if "site-packages" not in path.parts and "test" not in path.parts:
            found.update(dict.fromkeys(_paragraphs(path)))
        if len(found) >= limit:
            break
    return list(found)[:limit]


def _paragraphs(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if len(text) >= _SHORTEST and ">>>" not in text:
                    yield text[:_LONGEST]


class Maker:
    """Draws vectors around the embedded texts `base`, `(b, d)` unit rows, each beside its nearest neighbours."""

    def __init__(self, base: np.ndarray, seed: int) -> None:
        self.base, self.seed = base, seed
        depth = min(NEIGHBOURS, len(base) - 1)
        self.near = np.empty((len(base), depth), np.int64)
        for start in range(0, len(base), 1000):
            cosines = base[start : start + 1000] @ base.T
            cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -2
            self.near[start : start + 1000] = np.argpartition(-cosines, depth - 1, axis=1)[:, :depth]

    def draw(self, origins: np.ndarray, out: np.ndarray, stream: int) -> None:
        """Fill `out` `(n, d)` with one vector for each index of a text in `origins`; `stream` names the random numbers."""
        order = np.argsort(origins, kind="stable")
        bounds = np.searchsorted(origins[order], np.arange(len(self.base) + 1))
        for text in range(len(self.base)):
            rows = order[bounds[text] : bounds[text + 1]]
            if not len(rows):
                continue
            random = np.random.default_rng((self.seed, stream, text))
            steps = self.base[self.near[text]] - self.base[text]
            weights = random.standard_normal((len(rows), len(steps)), dtype=np.float32) * np.float32(STEP)
            made = self.base[text] + weights @ steps
            made += random.standard_normal(made.shape, dtype=np.float32) * np.float32(NOISE / np.sqrt(made.shape[1]))
            out[rows] = made / np.linalg.norm(made, axis=1, keepdims=True)


def embedded(lines: Sequence[str], dimension: int) -> np.ndarray:
    """`(n, dimension)` unit rows of the default model; another dimension is a fixed random rotation, cut or filled up."""
    import headwater

    with headwater.open(":memory:", embedding={"cache_enabled": False}) as hw:
        pieces = []
        for at in range(0, len(lines), 256):
            pieces.append(np.asarray(hw.embed(lines[at : at + 256]).vectors, np.float32))
            say(f"{min(at + 256, len(lines))} of {len(lines)} texts embedded")
    rows = np.concatenate(pieces)
    if rows.shape[1] != dimension:
        turn = np.random.default_rng(0).standard_normal((rows.shape[1], dimension)).astype(np.float32)
        rows = rows @ turn
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def intrinsic_dimension(distances: np.ndarray) -> float:
    """From `(m, k)` distances to the k nearest, ascending and without the point itself: the maximum-likelihood estimate of
    Levina and Bickel (2004) as corrected by MacKay and Ghahramani (2005)."""
    usable = distances[(distances[:, 0] > 1e-6)]
    logs = np.log(usable[:, -1:] / usable[:, :-1])
    return round(float(1 / logs.mean()), 1)
