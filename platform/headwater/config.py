"""Settings: frozen values read once at the entry point and passed down.

Where a value comes from, last wins: defaults < TOML file < environment (`HEADWATER_SECTION_NAME`, for example
`HEADWATER_SERVER_PORT`; `HEADWATER_DATA_DIR` for the data directory) < arguments. A TOML string may be a reference
`"${NAME}"` to an environment variable; secrets must be one. Unknown names fail and name the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from headwater.errors import ConfigError
from headwater.records import PassageKind
from headwater.source_settings import KINDS, AnySource, SourceSettings, check, entry_name

Metric = Literal["cosine", "euclidean", "dot"]
IndexKind = Literal["hnsw", "flat", "ivf"]
INDEX_SETTINGS = (
    "index_kind", "metric", "hnsw_m", "hnsw_ef_construction", "hnsw_ef_search", "ivf_cells", "ivf_n_probe",
)  # fmt: skip
"""The settings of a topic that shape its vector index: they take effect in the background, and nothing is embedded again."""
REFERENCE = re.compile(r"\$\{(\w+)\}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _set(default: Any, doc: str) -> Any:
    """A documented setting."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def _made(factory: Any, doc: str) -> Any:
    return dataclasses.field(default_factory=factory, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    host: str = _set("127.0.0.1", "Address the API binds to; another than loopback needs api_key.")
    port: int = _set(8787, "Port of the API; 0 takes a free one.")
    api_key: SecretStr | None = _set(None, "Bearer token every request must carry.")
    allowed_hosts: tuple[str, ...] = _set((), "Host names accepted besides loopback names.")
    live_paths: tuple[str, ...] = _set((), "Folders that sources added live may read; any where only loopback is served.")
    max_body_bytes: int = _set(4_194_304, "Largest request body; larger ones get 413.")
    body_timeout_s: float = _set(30.0, "A body that takes longer to arrive is refused (408).")
    requests_per_s: float = _set(2000.0, "Rate per client address before 429; 0 for no limit.")
    tokens_file: str | None = _set(None, "File of access tokens, as hashes; tokens.json in the data directory by default.")
    mcp_write: bool = _set(False, "Agents at /mcp without a token of their own may store records.")
    mcp_stateless: bool = _set(False, "No sessions at /mcp for agents of the 2025-11-25 protocol; later ones have none.")
    mcp_sessions: int = _set(200, "Most sessions at /mcp of one caller.")


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    model: str = _set("bge-small", "Default model: bge-small, minilm, static, PROVIDER:NAME, onnx:PATH, external, none.")
    base_url: str | None = _set(None, "Address of the provider's server; its own by default.")
    api_key: SecretStr | None = _set(None, "Key of the embedding provider.")
    query_prefix: str | None = _set(None, "Put before a query; by default what the model's family was trained with.")
    passage_prefix: str | None = _set(None, "Put before a passage; by default what the model's family was trained with.")
    http_request: str = _set('{"model": "$model", "input": "$texts"}', "What http:NAME sends: JSON with $texts or $text in it.")
    http_reply: str = _set("data[].embedding", "Where the vectors lie in what http:NAME is answered.")
    http_key_header: str = _set("Authorization: Bearer $key", "Header in which http:NAME sends the key.")
    batch_size: int = _set(64, "Most texts in one call to an embedder.")
    timeout_s: float = _set(30.0, "Timeout of one call to a remote embedder.")
    retries: int = _set(4, "Tries after the first, of a failed call to a remote embedder.")
    requests_per_s: float = _set(0.0, "Rate limit of calls to a remote embedder; 0 for none.")
    allow_private_urls: bool = _set(False, "Allow link-local addresses as a custom endpoint.")
    threads: int = _set(1, "onnxruntime threads of a local model while ingesting.")
    cache_enabled: bool = _set(True, "Keep vectors in a persistent cache by model and text.")
    cache_dir: str | None = _set(None, "Where the cache lies; the data directory by default.")
    cache_max_bytes: int = _set(268_435_456, "Size at which the least recently used go.")
    fallback: str | None = _set(None, "Local model that serves while a remote one is down.")


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """Chat models. A model's whole name is PROVIDER:MODEL; without any, answers are made of sentences of the records."""

    provider: str = _set("extractive", "extractive (no model), openai, azure, anthropic, ollama, llamafile, custom, local.")
    model: str = _set("", "Model of that provider; for local a GGUF file, or smollm2.")
    fallback: tuple[str, ...] = _set((), "Models asked in turn while the ones before fail: PROVIDER:MODEL.")
    base_url: str | None = _set(None, "Address of the provider's server; its own by default. custom needs one.")
    api_key: SecretStr | None = _set(None, "Key of the provider; its own variable, such as OPENAI_API_KEY, by default.")
    temperature: float | None = _set(None, "Randomness of answers, 0 to 2; the model's own by default.")
    max_tokens: int = _set(1024, "Most tokens of one answer.")
    timeout_s: float = _set(60.0, "Longest wait for an answer, and for the next piece of one that is streamed.")
    retries: int = _set(3, "Tries after the first, of a failed call.")
    concurrency: int = _set(0, "Calls of one model under way at once, more wait; 0 for what suits the provider.")
    requests_per_s: float = _set(0.0, "Rate limit of calls to one model; 0 for none.")
    allow_private_urls: bool = _set(False, "Allow link-local addresses as a custom endpoint.")
    cache_enabled: bool = _set(True, "Keep answers in a persistent cache by model, prompt and parameters.")
    context_tokens: int = _set(0, "Tokens the model reads at once; 0 for what is known of it.")
    budget_tokens_per_day: int = _set(0, "Tokens all models may take a day (UTC); 0 for no limit.")
    budget_tokens_per_call: int = _set(0, "Tokens one call may take, prompt and answer; 0 for no limit.")
    budget_cost_per_day: float = _set(0.0, "US dollars all models may cost a day (UTC); 0 for no limit.")
    budget_cost_per_call: float = _set(0.0, "US dollars one call may cost; 0 for no limit.")
    price_input: float | None = _set(None, "US dollars for a million tokens of prompt; by default what is known of the model.")
    price_output: float | None = _set(None, "US dollars for a million tokens of answer; by default what is known of the model.")


@dataclass(frozen=True, slots=True)
class AskSettings:
    """Questions, conversations and the answers that are kept."""

    context_tokens: int = _set(3000, "Tokens of records that a chat model is shown for one question.")
    answer_tokens: int = _set(600, "Most tokens of a chat model's answer to one question.")
    per_source: int = _set(6, "Most records of one key, or of one topic of records without keys, in an answer; 0 for no limit.")
    rewrite: bool = _set(True, "In a conversation the chat model makes a question stand alone; rules do otherwise.")
    wordings: int = _set(0, "Other wordings of a question that the chat model proposes, each searched too; 0 to 4.")
    rerank: bool = _set(False, "Read the best hits of a question again with the local cross-encoder.")
    conversation_tokens: int = _set(2000, "Tokens of a conversation that a model is shown; older turns are summarised.")
    conversation_ttl_s: float | None = _set(7_776_000.0, "Seconds after its last message that a conversation goes.")
    answers_kept: int = _set(5000, "Answers kept to be looked up or asked again; older ones go.")
    investigate_steps: int = _set(12, "Most looks at the records of one investigation.")
    investigate_tokens: int = _set(60_000, "Most tokens a chat model takes in one investigation.")
    investigate_cost: float | None = _set(None, "Most US dollars a chat model takes in one investigation; no limit by default.")
    investigate_timeout_s: float = _set(180.0, "Most seconds of one investigation, by a chat model.")


@dataclass(frozen=True, slots=True)
class IngestSettings:
    batch_records: int = _set(4000, "Most records the indexer takes in one step.")
    queue_records: int = _set(50_000, "Drafts waiting for the writer before appends are held.")
    max_value_bytes: int = _set(1_048_576, "Text beyond this is kept but not indexed.")
    max_attributes: int = _set(64, "Attributes kept of one record, in order of appearance.")
    idempotency_days: int = _set(7, "How long an Idempotency-Key is remembered.")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    seal_at: int = _set(100_000, "Passages in the tail before it is sealed into a segment.")
    max_segments: int = _set(4, "More segments than this are rewritten into one.")
    keep_former_s: float = _set(604_800.0, "How long a replaced model's vectors are kept up to date, so that it can come back.")
    commit_interval_s: float = _set(0.1, "Shortest time between two keyword commits.")
    keyword_memory_bytes: int = _set(64_000_000, "Memory of the keyword writer.")


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What the daemon sends over OTLP/HTTP; OTEL_* variables say what these leave open. Needs the extra otel."""

    enabled: bool = _set(False, "Send traces and metrics to a collector of OpenTelemetry.")
    endpoint: str | None = _set(None, "The collector, such as http://127.0.0.1:4318; by default OTEL_EXPORTER_OTLP_ENDPOINT.")
    traces: bool = _set(True, "Send traces.")
    metrics: bool = _set(True, "Send metrics, those of /metrics.")
    sample_ratio: float = _set(1.0, "Share of traces kept where no caller has decided; OTEL_TRACES_SAMPLER wins.")
    metrics_interval_s: float = _set(60.0, "Time between two sendings of metrics; OTEL_METRIC_EXPORT_INTERVAL wins.")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    record_queries: int = _set(200, "Latest distinct query texts kept for each topic, to judge another model by; 0 keeps none.")


@dataclass(frozen=True, slots=True)
class TuiSettings:
    theme: str | None = _set(None, "A theme of the terminal UI: textual-dark, textual-light, ansi-dark, ansi-light, nord ...")
    keys: tuple[str, ...] = _set((), "Other keys for the terminal UI: NAME=KEY, such as live.follow=F; `?` shows the names.")


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """The configuration of one topic. What shapes passages and partitions is fixed once records exist."""

    partitions: int = _set(1, "Partitions; a record's is a stable hash of its key.")
    passages: PassageKind = _set("auto", "How records become passages; auto decides from the first records.")
    field: str = _set("value", "What is indexed: value, key, or a JSON path such as $.message.")
    text_template: str | None = _set(None, "Text made of fields: '{title}. {body}' (wins over field).")
    embedding_model: str | None = _set(None, "Embedding model; none given: the default; 'none': keyword only.")
    metric: Metric = _set("cosine", "Distance between vectors.")
    dimension: int | None = _set(None, "Vector length; needed for `external`, else the model's own.")
    semantic_weight: float = _set(0.5, "Share of meaning in hybrid scores, 0 to 1.")
    index_kind: IndexKind = _set("hnsw", "Segments as a graph (hnsw), scanned whole (flat), or in cells, some scanned (ivf).")
    hnsw_m: int = _set(16, "HNSW neighbours per vector (max_neighbors).")
    hnsw_ef_construction: int = _set(100, "HNSW candidates while building.")
    hnsw_ef_search: int = _set(100, "HNSW candidates while searching.")
    ivf_cells: int = _set(0, "Cells of an ivf segment; 0 for a number that suits its size.")
    ivf_n_probe: int = _set(16, "Cells of an ivf segment that a search scans.")
    chunk_chars: int = _set(1400, "Target length of a chunk, in characters.")
    chunk_overlap: int = _set(150, "Characters two neighbouring chunks share.")
    retention_s: float | None = _set(None, "Age, since the append, at which records go.")
    retention_bytes: int | None = _set(None, "Stored text beyond which the oldest records go.")
    retention_records: int | None = _set(None, "Count beyond which the oldest records go.")
    versions_kept: int = _set(10, "Former versions of a document that are kept, out of sight; 0 keeps none.")
    oversize: Literal["keep", "dead-letter"] = _set("keep", "What becomes of an oversized value.")
    redact: tuple[str, ...] = _set((), "Taken out before a record is stored: secrets, personal, network, or NAME=PATTERN.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything Headwater can be told. See `describe()` for the documentation of each setting."""

    data_dir: str = _set("", "The data directory; the platform's own place by default.")
    server: ServerSettings = _made(ServerSettings, "The HTTP API.")
    embedding: EmbeddingSettings = _made(EmbeddingSettings, "Embedding models.")
    ingest: IngestSettings = _made(IngestSettings, "Appending and indexing.")
    index: IndexSettings = _made(IndexSettings, "Keyword and vector indexes.")
    search: SearchSettings = _made(SearchSettings, "Searching.")
    telemetry: TelemetrySettings = _made(TelemetrySettings, "Traces and metrics sent to a collector.")
    llm: LlmSettings = _made(LlmSettings, "Chat models.")
    ask: AskSettings = _made(AskSettings, "Questions and conversations.")
    tui: TuiSettings = _made(TuiSettings, "The terminal UI.")
    topics: Mapping[str, TopicConfig] = _made(dict, "Topics created at start: [topics.NAME].")
    sources: tuple[AnySource, ...] = _set((), "What the daemon follows: [[sources]].")

    @property
    def path(self) -> Path:
        """The data directory: the one that is set, else the platform's own place."""
        return Path(self.data_dir).expanduser() if self.data_dir else default_data_dir()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of every value that is not a default: `{"server.port": "environment HEADWATER_SERVER_PORT"}`."""

    settings: Settings
    origins: Mapping[str, str]


def default_data_dir() -> Path:
    """The platform's place for application data of this user."""
    import platformdirs

    return Path(platformdirs.user_data_dir("headwater"))


def load(
    file: Path | str | None = None,
    arguments: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Read settings from a TOML file, the environment and arguments (dotted names). Raises ConfigError."""
    environment = os.environ if environment is None else environment
    flat: dict[str, Any] = {}
    origins: dict[str, str] = {}
    secrets = {name for name, kind, *_ in describe() if kind.startswith("secret")}
    if file is not None:
        for name, value in _flatten(_read_toml(Path(file)), environment, str(file)).items():
            flat[name], origins[name] = value, f"file {file}"
    for name in _scalar_names():
        variable = "HEADWATER_" + name.replace(".", "_").upper()
        if environment.get(variable):
            flat[name], origins[name] = environment[variable], f"environment {variable}"
        elif name in secrets and environment.get(f"{variable}_FILE"):
            flat[name], origins[name] = _read_secret(environment[f"{variable}_FILE"]), f"environment {variable}_FILE"
    for name, value in (arguments or {}).items():
        if value is not None:
            flat[name], origins[name] = value, "argument"
    return Loaded(_build(flat, environment), origins)


def topic_config(values: Mapping[str, Any], base: TopicConfig | None = None) -> TopicConfig:
    """A TopicConfig from loose values (JSON, flags); unknown names and impossible values raise ConfigError."""
    known = {f.name for f in fields(TopicConfig)}
    hints = typing.get_type_hints(TopicConfig)
    clean: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"unknown topic setting {name!r}{_nearest(name, known)}")
        clean[name] = _convert(value, hints[name], name)
    config = replace(base or TopicConfig(), **clean)
    _check_topic(config)
    return config


def describe() -> list[tuple[str, str, Any, str]]:
    """`(name, type, default, documentation)` of every setting, in order."""
    rows: list[tuple[str, str, Any, str]] = []

    def walk(cls: type, prefix: str) -> None:
        hints = typing.get_type_hints(cls)
        for f in fields(cls):
            hint = hints[f.name]
            if is_dataclass(hint):
                walk(typing.cast(type, hint), f"{prefix}{f.name}.")
            elif f.name == "topics" and cls is Settings:
                walk(TopicConfig, "topics.NAME.")
            elif f.name == "sources" and cls is Settings:
                for kind, of in KINDS.items():
                    walk(of, "sources[]." if of is SourceSettings else f"sources[{kind}].")
            elif "doc" in f.metadata:  # what is said of the first kind of source holds for the others
                rows.append((prefix + f.name, _type_name(hint), f.default, f.metadata["doc"]))

    walk(Settings, "")
    return rows


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def duration_s(text: str) -> float:
    """Seconds of `30d`, `2h`, `1h30m`, `45s`, `500ms`, or a plain number of seconds. Raises ConfigError."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if text and re.fullmatch(rf"({_DURATION.pattern}\s*)+", text):
        return sum(float(n) * _UNIT_S[u] for n, u in _DURATION.findall(text))
    raise ConfigError(f"{text!r} is not a duration; write for example 30s, 5m, 2h, 7d or 1h30m")


def mask(value: Any) -> Any:
    """A setting as it may be shown: secrets masked."""
    return ("********" if value.get_secret_value() else "") if isinstance(value, SecretStr) else value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}; `headwater config init` writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _read_secret(path: str) -> str:
    """The text of a file that holds one secret, as container and service managers hand them over."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret in {path} cannot be read: {error}") from error


def _flatten(tree: Mapping[str, Any], environment: Mapping[str, str], where: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name == "topics":
            flat[name] = _resolve(value, environment, where)
        elif name == "sources":
            flat[name] = [source_settings(entry, environment, where=f"{where}: sources") for entry in value]
        elif isinstance(value, Mapping):
            for inner, v in value.items():
                flat[f"{name}.{inner}"] = _resolve(v, environment, where)
                if f"{name}.{inner}".endswith("api_key") and not REFERENCE.fullmatch(str(v)):
                    raise ConfigError(f'{where}: {name}.{inner} must be a reference such as "${{MY_KEY}}", not the secret')
        else:
            flat[name] = _resolve(value, environment, where)
    return flat


def _resolve(value: Any, environment: Mapping[str, str], where: str) -> Any:
    if isinstance(value, Mapping):
        return {k: _resolve(v, environment, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(v, environment, where) for v in value]
    if isinstance(value, str) and (m := REFERENCE.fullmatch(value)):
        if m[1] not in environment:
            raise ConfigError(f"{where}: environment variable {m[1]} is not set; export it or remove the reference")
        return environment[m[1]]
    return value


def _scalar_names() -> list[str]:
    return [name for name, *_ in describe() if not name.startswith(("topics.", "sources["))]


def _build(flat: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    known = {*_scalar_names(), "topics", "sources"}
    for name in flat:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}{_nearest(name, known)}")
    hints = typing.get_type_hints(Settings)
    top: dict[str, Any] = {}
    for f in fields(Settings):
        hint = hints[f.name]
        if is_dataclass(hint):
            inner_hints = typing.get_type_hints(hint)
            inner = {n.split(".", 1)[1]: v for n, v in flat.items() if n.startswith(f.name + ".")}
            top[f.name] = typing.cast(type, hint)(**{n: _convert(v, inner_hints[n], f"{f.name}.{n}") for n, v in inner.items()})
        elif f.name == "topics" and "topics" in flat:
            top["topics"] = {name: topic_config(values) for name, values in flat["topics"].items()}
        elif f.name == "sources" and "sources" in flat:
            entries = flat["sources"]
            top["sources"] = tuple(source_settings(e, environment) if isinstance(e, Mapping) else e for e in entries)
        elif f.name in flat:
            top[f.name] = _convert(flat[f.name], hint, f.name)
    settings = Settings(**top)
    names = [entry_name(source) for source in settings.sources]
    if again := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two sources are named {again[0]!r}; give each a name of its own")
    if not 0 <= settings.server.port <= 65_535:
        raise ConfigError(f"server.port must be between 0 and 65535, not {settings.server.port}")
    return settings


def source_settings(entry: Mapping[str, Any], environment: Mapping[str, str], *, where: str = "sources") -> AnySource:
    """One source from loose values (TOML, JSON, flags), its references resolved. ConfigError names what is wrong where."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: each must be a table, [[sources]], not {entry!r}")
    kind = entry.get("type", "path")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: type must be one of {', '.join(KINDS)}, not {kind!r}")
    of = KINDS[kind]
    hints = typing.get_type_hints(of)
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in hints:
            raise ConfigError(f"{where}: unknown setting {name!r} of a {kind} source{_nearest(name, hints)}")
        if is_secret(hints[name]) and value and not isinstance(value, SecretStr) and not REFERENCE.fullmatch(str(value)):
            raise ConfigError(f'{where}: {name} must be a reference such as "${{MY_SECRET}}", not the secret')
        values[name] = _convert(_resolve(value, environment, where), hints[name], f"{where}.{name}")
    source = of(**values)
    check(source)
    return source


def is_secret(hint: Any) -> bool:
    """Whether a setting of that annotation is a secret."""
    return SecretStr in (hint, *typing.get_args(hint))


def _convert(value: Any, hint: Any, name: str) -> Any:
    """`value` as the annotated type; strings (from the environment and flags) are parsed. Raises ConfigError."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None or (value == "" and type(None) in options):
        if type(None) in options:
            return None
        raise ConfigError(f"{name} needs a value")
    wanted = next(o for o in options if o is not type(None))
    try:
        if typing.get_origin(wanted) is Literal:
            if value not in typing.get_args(wanted):
                raise ConfigError(f"{name} must be one of {', '.join(map(str, typing.get_args(wanted)))}, not {value!r}")
            return value
        if wanted is SecretStr:
            return value if isinstance(value, SecretStr) else SecretStr(str(value))
        if wanted is bool:
            if isinstance(value, bool):
                return value
            return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[
                str(value).lower()
            ]
        if wanted is int:
            if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
                raise ValueError
            return int(value)
        if wanted is float:
            if isinstance(value, str) and name.endswith("_s"):
                return duration_s(value)
            return float(value)
        if typing.get_origin(wanted) is tuple:
            return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else tuple(value)
        return str(value)
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{name} must be of type {_type_name(hint)}, not {value!r}") from None


def _check_topic(config: TopicConfig) -> None:
    positive = ("partitions", "chunk_chars", "hnsw_m", "hnsw_ef_construction", "hnsw_ef_search", "ivf_n_probe")
    for name in positive:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1")
    for name in ("ivf_cells", "versions_kept"):
        if getattr(config, name) < 0:
            raise ConfigError(f"{name} must be at least 0")
    if config.partitions > 1024:
        raise ConfigError("partitions must be at most 1024")
    if not 0 <= config.semantic_weight <= 1:
        raise ConfigError("semantic_weight must be between 0 and 1")
    if not 0 <= config.chunk_overlap < config.chunk_chars:
        raise ConfigError("chunk_overlap must be at least 0 and less than chunk_chars")
    if config.embedding_model == "external" and not config.dimension:
        raise ConfigError("embedding_model 'external' needs dimension, the length of the vectors you will send")
    for name in ("retention_s", "retention_bytes", "retention_records"):
        if (limit := getattr(config, name)) is not None and limit <= 0:
            raise ConfigError(f"{name} must be positive")
    if config.redact:
        from headwater.redaction import Redactor

        Redactor.of(config.redact)


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else "; `headwater config show` lists all"


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_type_name(a) for a in typing.get_args(hint) if a is not type(None)) + " or none"
    return {SecretStr: "secret", str: "text", int: "integer", float: "number", bool: "true|false"}.get(hint, "list")
