"""Sentence-embedding models in ONNX, run on this machine's CPU: bge-small, minilm, and any such directory.

Dynamic quantisation takes one scale from all of a call's activations, so an int8 text's vector depends a little on its
neighbours in the call: cosine .9965 (at least .986) to itself alone, measured with bge-small, which is an eighth of what
leaving out one word of ten does. So queries, and calls of fewer than BULK_TEXTS texts, run each text alone: there the same
text has the same vector in every run on one kind of CPU. Many at once, as when an index catches up, share calls: 2.4 ms of
CPU a text of 9 words against 3.9. Float models share calls always. Parallelism is over texts: `threads` workers, each a
one-threaded run in one shared session.

Queries have a worker of their own, so a query never waits behind the passages of an ingest.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headwater.embed.embedder import Embedder, Kind
from headwater.errors import ConfigError, EmbedError

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors

Pooling = Literal["cls", "mean", "max", "last"]
PIECE_TEXTS = 16  # texts handed to a worker at once: how soon a cancelled or closing embed lets go
CALL_TOKENS = 256  # most tokens, padding included, in one call; more is slower on 2 cores
BULK_TEXTS = 32  # in one batch, from which on texts of an int8 model share calls
BGE_QUERY_PREFIX = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """The files of a model and how they are used: what a sentence-transformers directory says, or its defaults.

    `window` is the most tokens the model sees; `prefix` is put before texts of a kind; `version` tells weights apart."""

    model: Path
    tokenizer: Path
    pooling: Pooling = "mean"
    window: int = 512
    prefix: Mapping[Kind, str] = field(default_factory=dict)
    dimension: int | None = None
    version: str = ""


class OnnxEmbedder(Embedder):
    """Embeds with onnxruntime in worker threads. The session opens at the first embed (about .2 s)."""

    def __init__(self, name: str, model: OnnxModel, *, floor: float, threads: int = 1, batch_size: int = 64) -> None:
        super().__init__(dimension=model.dimension)
        self.name, self.floor, self.version, self.batch_size = name, floor, model.version, batch_size
        self.text_bytes = model.window * 40  # no tokenizer needs more to fill its window, and none is slow on this
        self._model = model
        self._opening = threading.Lock()
        self._graph: _Graph | None = None
        self._passages = ThreadPoolExecutor(max(1, threads), thread_name_prefix=f"embed-{name[:12]}")
        self._queries = ThreadPoolExecutor(1, thread_name_prefix=f"query-{name[:12]}")

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        import numpy as np

        loop = asyncio.get_running_loop()
        lane = self._queries if kind == "query" else self._passages
        prefix = self._model.prefix.get(kind, "")
        bulk = kind == "passage" and len(texts) >= BULK_TEXTS
        pieces = [[prefix + t for t in texts[i : i + PIECE_TEXTS]] for i in range(0, len(texts), PIECE_TEXTS)]
        done = await asyncio.gather(*(loop.run_in_executor(lane, self._run, piece, bulk) for piece in pieces))
        return np.concatenate(done)

    def _run(self, texts: Sequence[str], bulk: bool) -> Vectors:
        with self._opening:
            if self._graph is None:
                self._graph = _Graph(self.name, self._model)
        return self._graph.run(texts, bulk=bulk)

    async def aclose(self) -> None:
        for lane in (self._passages, self._queries):
            lane.shutdown(wait=False, cancel_futures=True)  # what runs ends by itself, and nobody waits for it
        self._graph = None


class _Graph:
    """An open session with its tokenizer. `run` may be called from several threads at once."""

    def __init__(self, name: str, model: OnnxModel) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        self._name, self._pooling = name, model.pooling
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # it plans per shape, and every length is a shape
        options.log_severity_level = 3
        # int8 sums overflow on CPUs with AVX2 but no VNNI unless weights are unsigned there; no effect elsewhere
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = ort.InferenceSession(str(model.model), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(model.tokenizer))
        except Exception as error:  # both libraries raise bare Exception subclasses that share no other root
            raise EmbedError(f"{name}: the model in {model.model.parent} cannot be opened: {error}") from error
        self._tokenizer.enable_truncation(model.window)
        self._tokenizer.no_padding()
        self._inputs = {i.name for i in self._session.get_inputs()}
        if unknown := self._inputs - {"input_ids", "attention_mask", "token_type_ids"}:
            raise EmbedError(f"{name}: the model wants inputs {sorted(unknown)}, which a sentence embedder does not have")
        outputs = {o.name: len(o.shape) for o in self._session.get_outputs()}
        deep = [o for o, rank in outputs.items() if rank == 3]
        flat = [o for o, rank in outputs.items() if rank == 2]
        self._output = "sentence_embedding" if "sentence_embedding" in flat else (deep or flat or [""])[0]
        if not self._output:
            raise EmbedError(f"{name}: the model has no output of token or sentence vectors, only {sorted(outputs)}")
        with model.model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
            self._quantised = graph.find(b"DynamicQuantizeLinear") >= 0

    def run(self, texts: Sequence[str], *, bulk: bool) -> Vectors:
        """`(n, d)`; unless in `bulk`, no text of a quantised model has a say in another's vector."""
        import numpy as np

        alone = self._quantised and not bulk
        encoded = [self._tokenizer.encode(t).ids or [0] for t in texts]
        done: list[Any] = []
        call: list[list[int]] = []
        for ids in encoded:
            longest = max(map(len, [*call, ids]))
            if call and (alone or longest * (len(call) + 1) > CALL_TOKENS):
                done.append(self._call(call))
                call = []
            call.append(ids)
        done.append(self._call(call))
        return np.concatenate(done)

    def _call(self, batch: Sequence[Sequence[int]]) -> Vectors:
        """One run of the graph over token ids, pooled: `(n, d)`."""
        import numpy as np

        ids = np.zeros((len(batch), max(len(b) for b in batch)), np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        try:
            out = self._session.run([self._output], {k: v for k, v in feed.items() if k in self._inputs})[0]
        except Exception as error:  # onnxruntime raises bare Exception subclasses
            raise EmbedError(f"{self._name}: the model failed on a batch of shape {ids.shape}: {error}") from error
        pooled: Vectors = out if out.ndim == 2 else _pool(out, mask, self._pooling)
        return pooled


def _pool(tokens: Any, mask: Any, pooling: Pooling) -> Any:
    """Sentence vectors `(n, d)` of token vectors `(n, t, d)`; padding does not count."""
    import numpy as np

    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "last":
        return tokens[np.arange(len(tokens)), np.maximum(mask.sum(axis=1) - 1, 0)]
    weight = mask[:, :, None].astype(np.float32)
    if pooling == "max":
        return np.where(weight > 0, tokens, -np.inf).max(axis=1)
    return (tokens * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)


def read_directory(path: Path, name: str) -> OnnxModel:
    """The model in a sentence-transformers directory (or beside the .onnx file named). Raises ConfigError.

    Reads modules.json, the pooling module's config.json, sentence_bert_config.json, config_sentence_transformers.json
    (prompts) and config.json where they are there; without them: mean pooling, no prefix, the tokenizer's own window."""
    if not path.exists():
        raise ConfigError(f"{name}: there is no {path}; give a directory that holds model.onnx and tokenizer.json")
    root, model = (path, None) if path.is_dir() else (path.parent, path)
    if model is None:
        names = ("model.onnx", "model_quantized.onnx", "model_optimized.onnx", "model_O2.onnx")
        found = [f for f in (folder / n for folder in (root, root / "onnx") for n in names) if f.is_file()]
        if not found:
            raise ConfigError(f"{name}: no model.onnx in {root} or {root / 'onnx'}; export the model to ONNX first")
        model = found[0]
    if root.name == "onnx" and not (root / "tokenizer.json").is_file():
        root = root.parent
    tokenizer = root / "tokenizer.json"
    if not tokenizer.is_file():
        raise ConfigError(f"{name}: no tokenizer.json in {root}; save the model's fast tokenizer there")
    modules = _json(root / "modules.json", [])
    kinds = {str(m.get("type", "")).rsplit(".", 1)[-1]: str(m.get("path", "")) for m in modules if isinstance(m, dict)}
    if extra := kinds.keys() - {"Transformer", "Pooling", "Normalize"}:
        raise ConfigError(f"{name}: the module {sorted(extra)[0]} of {root} is not supported; export it within the ONNX graph")
    config = _json(root / "config.json", {})
    return OnnxModel(
        model,
        tokenizer,
        pooling=_pooling(_json(root / kinds.get("Pooling", "1_Pooling") / "config.json", {}), name),
        window=_window(root, config),
        prefix=_prompts(_json(root / "config_sentence_transformers.json", {})),
        dimension=_int(config.get("hidden_size")),
    )


def _pooling(config: Mapping[str, Any], name: str) -> Pooling:
    modes: dict[str, Pooling] = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_lasttoken": "last",
    }
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if not on:
        return "mean"
    if len(on) > 1 or on[0] not in modes:
        raise ConfigError(f"{name}: pooling {' + '.join(on)} is not supported; one of {', '.join(modes)} is")
    return modes[on[0]]


def _window(root: Path, config: Mapping[str, Any]) -> int:
    """The smallest limit any of the files sets; 512 where none does."""
    limits = [
        _int(_json(root / "sentence_bert_config.json", {}).get("max_seq_length")),
        _int(_json(root / "tokenizer_config.json", {}).get("model_max_length")),
        _int(config.get("max_position_embeddings")),
    ]
    return max(8, min([n for n in limits if n and n < 1_000_000] or [512]))


def _prompts(config: Mapping[str, Any]) -> dict[Kind, str]:
    prompts = config.get("prompts")
    if not isinstance(prompts, dict):
        return {}
    found: dict[Kind, str] = {}
    kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (("query", ("query",)), ("passage", ("passage", "document", "corpus")))
    for kind, names in kinds:
        text = next((prompts[n] for n in names if isinstance(prompts.get(n), str)), "")
        if text:
            found[kind] = text
    return found


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1e9 else None


def _json(path: Path, default: Any) -> Any:
    """The file's JSON, or `default` where there is no file or it is of another type. ConfigError for broken JSON."""
    if not path.is_file():
        return default
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    return value if isinstance(value, type(default)) else default
