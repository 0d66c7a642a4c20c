"""Headwater: streams that can be searched by meaning, questioned with checked citations, and followed.

import headwater

hw = headwater.connect()            # a running daemon; or headwater.open("data/"): embedded, the same verbs
hw.append("tickets", [{"key": "u1", "value": "Payment failed"}])
hits = hw.search("payment failures", since="2h")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from headwater.batches import Delivered, Fault
    from headwater.blocking import Headwater
    from headwater.client import Client
    from headwater.composed import AskEvent, LiveEvent
    from headwater.config import Settings, TopicConfig
    from headwater.engine import Engine
    from headwater.errors import (
        AuthError,
        ConfigError,
        ConflictError,
        DamageError,
        EmbedError,
        HeadwaterError,
        LimitError,
        ModelError,
        NotFoundError,
        OwnedError,
        QueryError,
        StorageError,
        UnreachableError,
        UsageError,
        WaitTimeout,
    )
    from headwater.records import (
        Answer,
        Appended,
        Bucket,
        Citation,
        Coverage,
        DeadLetter,
        Draft,
        Embedded,
        Hit,
        IndexInfo,
        Page,
        Passage,
        Pattern,
        PatternsReply,
        Receipt,
        Record,
        RecordView,
        SearchReply,
        SourceInfo,
        Span,
        Status,
        Timeline,
        Topic,
        Watermark,
    )
    from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting
    from headwater.records.answers import Conversation, Rerun, StoredAnswer
    from headwater.records.calls import ToolCall
    from headwater.records.drifts import Drift
    from headwater.records.indexes import Shadow
    from headwater.records.investigations import InvestigateEvent, Investigation
    from headwater.records.labels import Backtest, ClassifyReply, ExtractReply, Label, Pipeline, Ran, RunEvent
    from headwater.records.models import Completion, Message, ModelInfo, Piece, Usage
    from headwater.records.removals import Deleted, Purged
    from headwater.records.watches import Watch, WatchHit, Woken
    from headwater.records.webhooks import Tested, Webhook
    from headwater.verbs import Verbs

    __version__: str

MEMORY = ":memory:"

_HOMES = {
    "batches": ("Delivered", "Fault"),
    "blocking": ("Headwater",),
    "client": ("Client",),
    "composed": ("AskEvent", "LiveEvent"),
    "config": ("Settings", "TopicConfig"),
    "engine": ("Engine",),
    "records.models": ("Completion", "Message", "ModelInfo", "Piece", "Usage"),
    "errors": (
        "AuthError", "ConfigError", "ConflictError", "DamageError", "EmbedError", "HeadwaterError", "LimitError",
        "ModelError", "NotFoundError", "OwnedError", "QueryError", "StorageError", "UnreachableError", "UsageError",
        "WaitTimeout",
    ),
    "records": (
        "Answer", "Appended", "Bucket", "Citation", "Coverage", "DeadLetter", "Draft", "Embedded", "Hit", "IndexInfo", "Page",
        "Passage", "Pattern", "PatternsReply", "Receipt", "Record", "RecordView", "SearchReply", "SourceInfo", "Span", "Status",
        "Timeline", "Topic", "Watermark",
    ),
    "records.anomalies": ("AnomaliesReply", "Anomaly", "Detecting"),
    "records.answers": ("Conversation", "Rerun", "StoredAnswer"),
    "records.calls": ("ToolCall",),
    "records.drifts": ("Drift",),
    "records.indexes": ("Shadow",),
    "records.investigations": ("InvestigateEvent", "Investigation"),
    "records.labels": ("Backtest", "ClassifyReply", "ExtractReply", "Label", "Pipeline", "Ran", "RunEvent"),
    "records.removals": ("Deleted", "Purged"),
    "records.watches": ("Watch", "WatchHit", "Woken"),
    "records.webhooks": ("Tested", "Webhook"),
    "verbs": ("Verbs",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def open(path: str | os.PathLike[str] | None = None, *, config: str | Path | None = None, **settings: Any) -> Headwater:
    """Everything in this process, over the data directory at `path` (the platform's own by default; `":memory:"`: a
    temporary one that is not durable). `config` is a TOML file; a section of settings is a mapping, as in
    `embedding={"model": "hash"}`. Raises OwnedError, naming its owner, when another process has the directory open."""
    from headwater.blocking import Headwater

    return Headwater(lambda: aopen(path, config=config, **settings))


def connect(url: str | None = None, token: str | None = None) -> Headwater:
    """The daemon at `url`, or the running one of this user (`HEADWATER_URL`, else the one of the default data directory).
    Raises UnreachableError when there is none."""
    from headwater.blocking import Headwater

    client = aconnect(url, token)
    return Headwater(lambda: client)


def aopen(
    path: str | os.PathLike[str] | None = None, *, config: str | Path | None = None, **settings: Any
) -> AbstractAsyncContextManager[Engine]:
    """As `open`, for `async with`: gives an Engine, whose verbs are coroutines."""
    from headwater.engine import Engine
    from headwater.temporary import temporary

    given = _settings(None if path == MEMORY else path, config, settings)
    return temporary(given, version=_version()) if path == MEMORY else Engine(given, version=_version())


def aconnect(url: str | None = None, token: str | None = None) -> Client:
    """As `connect`, for `async with`: gives a Client, whose verbs are coroutines."""
    from headwater.client import Client

    url = url or os.environ.get("HEADWATER_URL")
    if url is not None:
        return Client(url, token or os.environ.get("HEADWATER_SERVER_API_KEY"))
    from headwater import launch
    from headwater.errors import UnreachableError

    runtime = launch.find(_settings(None, None, {}))
    if runtime is None:
        raise UnreachableError("no Headwater daemon is running; start one with `headwater up`, or give connect() its URL")
    return Client(runtime.url, token or runtime.token)


def _settings(path: str | os.PathLike[str] | None, config: str | Path | None, given: dict[str, Any]) -> Settings:
    from headwater.config import load

    arguments: dict[str, Any] = {} if path is None else {"data_dir": os.fspath(path)}
    for name, value in given.items():
        if isinstance(value, dict) and name != "topics":
            arguments.update({f"{name}.{inner}": v for inner, v in value.items()})
        else:
            arguments[name] = value
    return load(config, arguments).settings


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("headwater")
    except metadata.PackageNotFoundError:
        return "0"


def __getattr__(name: str) -> Any:
    """The names of `__all__` are loaded when first used: `import headwater` itself costs nothing."""
    if name == "__version__":
        return _version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"headwater.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext headwater`: see headwater.notebook."""
    from headwater.notebook import Cells

    Cells(shell).register()


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "MEMORY",
    "AnomaliesReply",
    "Anomaly",
    "Answer",
    "Appended",
    "AskEvent",
    "AuthError",
    "Backtest",
    "Bucket",
    "Citation",
    "ClassifyReply",
    "Client",
    "Completion",
    "ConfigError",
    "ConflictError",
    "Conversation",
    "Coverage",
    "DamageError",
    "DeadLetter",
    "Deleted",
    "Delivered",
    "Detecting",
    "Draft",
    "Drift",
    "EmbedError",
    "Embedded",
    "Engine",
    "ExtractReply",
    "Fault",
    "Headwater",
    "HeadwaterError",
    "Hit",
    "IndexInfo",
    "InvestigateEvent",
    "Investigation",
    "Label",
    "LimitError",
    "LiveEvent",
    "Message",
    "ModelError",
    "ModelInfo",
    "NotFoundError",
    "OwnedError",
    "Page",
    "Passage",
    "Pattern",
    "PatternsReply",
    "Piece",
    "Pipeline",
    "Purged",
    "QueryError",
    "Ran",
    "Receipt",
    "Record",
    "RecordView",
    "Rerun",
    "RunEvent",
    "SearchReply",
    "Settings",
    "Shadow",
    "SourceInfo",
    "Span",
    "Status",
    "StorageError",
    "StoredAnswer",
    "Tested",
    "Timeline",
    "ToolCall",
    "Topic",
    "TopicConfig",
    "UnreachableError",
    "Usage",
    "UsageError",
    "Verbs",
    "WaitTimeout",
    "Watch",
    "WatchHit",
    "Watermark",
    "Webhook",
    "Woken",
    "__version__",
    "aconnect",
    "aopen",
    "connect",
    "open",
]
