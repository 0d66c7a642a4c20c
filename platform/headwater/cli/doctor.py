"""`headwater doctor`: what Headwater needs of this machine, checked; the last line is "ready" or the command that mends."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from headwater.cli import output
from headwater.cli.session import Config, Data, Json
from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.config import Settings
    from headwater.embed import Embedder

_PATIENCE_S = 10.0  # for one answer of a provider
_SCARCE_BYTES = 500 << 20
_2026_S = 1_767_225_600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, what was seen, and the command that mends it."""

    check: str
    ok: bool
    seen: str
    mend: str = ""


def add(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json: Json = False, data: Data = None, config: Config = None) -> None:
    """Check what Headwater needs of this machine.

    Data directory, disk, database, indexes, embedding and chat model, daemon and port, clock. Ends with "ready", or with
    the command that mends what is amiss (exit 1).

    \b
    headwater doctor
    headwater doctor --data /srv/headwater --config headwater.toml
    """
    from headwater.config import load

    settings = load(config, {"data_dir": None if data is None else str(data)}).settings
    findings = []
    for found in examine(settings):
        findings.append(found)
        if not json:
            mark = output.style("ok  ", "green") if found.ok else output.style("FAIL", "red")
            output.out(f"{mark}  {found.check:<15} {found.seen}")
    failed = [f for f in findings if not f.ok]
    if json:
        output.show_json({"ready": not failed, "checks": [asdict(f) for f in findings]})
    else:
        output.out("ready" if not failed else failed[0].mend)
    if failed:
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check in turn, each whatever the others gave."""
    checks: tuple[tuple[str, Callable[[Settings], tuple[str, str]]], ...] = (
        ("data directory", _directory),
        ("disk space", _disk),
        ("database", _database),
        ("keyword index", _keyword),
        ("embedding", _embedding),
        ("chat model", _chat),
        ("daemon", _daemon),
        ("clock", _clock),
    )
    for name, check in checks:
        try:
            seen, mend = check(settings)
        except (HeadwaterError, OSError, ImportError) as error:
            seen, mend = str(error), _MENDS.get(name, "headwater doctor --json")
        yield Finding(name, not mend, output.line_of(seen), mend)


_REINSTALL = "pip install --force-reinstall headwater"
_MENDS = {
    "data directory": "export HEADWATER_DATA_DIR=A_DIRECTORY_YOU_CAN_WRITE",
    "database": _REINSTALL,
    "keyword index": _REINSTALL,
    "embedding": "export HEADWATER_EMBEDDING_MODEL=bge-small",
    "chat model": "export HEADWATER_LLM_PROVIDER=extractive",
    "daemon": "headwater up --port 0",
}


def _nearest(path: Path) -> Path:
    """The directory itself, or its nearest parent that is there."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def _directory(settings: Settings) -> tuple[str, str]:
    """Whether files can be written (in the parent, where the directory is not made yet)."""
    path = settings.path
    place = _nearest(path)
    mend = f"mkdir -p {path} && chown {os.getuid()} {path}"
    if not place.is_dir():
        return f"{place} is not a directory", _MENDS["data directory"]
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"headwater")
            os.fsync(file.fileno())
    except OSError as error:
        return f"{place} cannot be written: {error.strerror}", mend
    return f"{path} can be written" if place == path else f"{path} will be made in {place}", ""


def _disk(settings: Settings) -> tuple[str, str]:
    free = shutil.disk_usage(_nearest(settings.path)).free
    if free >= _SCARCE_BYTES:
        return f"{output.size(free)} free", ""
    return f"{output.size(free)} free; at least {output.size(_SCARCE_BYTES)} are needed", _MENDS["data directory"]


def _database(settings: Settings) -> tuple[str, str]:
    """The library; and where the data directory holds a log that no daemon has open, that it is whole."""
    import apsw

    version = f"SQLite {apsw.sqlite_lib_version()}"
    log = settings.path / "log.db"
    if not log.exists():
        return version, ""
    try:
        connection = apsw.Connection(str(log), flags=apsw.SQLITE_OPEN_READONLY)
        verdict = str(next(iter(connection.execute("PRAGMA quick_check(1)")))[0])
        connection.close()
    except apsw.Error as error:
        return f"{log} cannot be read: {error}", f"mv {log} {log}.damaged"
    held = sum(p.stat().st_size for p in (log, log.with_name("log.db-wal")) if p.exists())
    seen = f"{version}; log of {output.size(held)}: {verdict}"
    return seen, "" if verdict == "ok" else f"mv {log} {log}.damaged"


def _keyword(settings: Settings) -> tuple[str, str]:
    import tantivy

    from headwater.keyword.index import KeywordIndex

    with tempfile.TemporaryDirectory() as directory:
        index = KeywordIndex(Path(directory) / "keyword", memory_bytes=settings.index.keyword_memory_bytes)
        index.close()
    return f"{getattr(tantivy, '__version__', 'tantivy')} opens and closes an index", ""


def _embedding(settings: Settings) -> tuple[str, str]:
    """The default model's weights or provider, and one embedding; a fallback's too. One try each: a provider that is down
    is to be told of now."""
    from dataclasses import replace

    from headwater.embed.lookup import load
    from headwater.embed.remote import MEND

    once = replace(settings.embedding, retries=0, timeout_s=min(settings.embedding.timeout_s, _PATIENCE_S))
    if once.model in ("none", "external"):
        return f"model {once.model}: nothing is embedded here", ""
    seen = []
    for model in dict.fromkeys((once.model, once.fallback or once.model)):
        try:
            embedder = load(model, once)
            seen.append(_one_vector(model, embedder))
        except HeadwaterError as error:
            reason, told, mend = str(error).partition(MEND)
            return "; ".join([*seen, reason.rstrip()]), mend.strip() if told else _MENDS["embedding"]
    return "; ".join(seen), ""


def _chat(settings: Settings) -> tuple[str, str]:
    """The configured chat model and its fallbacks: each is looked at, and none is asked anything."""
    import asyncio

    from headwater.llm.models import Models
    from headwater.records.models import ModelInfo

    if settings.llm.provider == "extractive":
        return "extractive: answers are made of sentences of the records; no model is needed", ""

    async def look() -> list[ModelInfo]:
        models = Models(settings.llm)
        try:
            return [model for model in await models.models(check=True) if model.standing in ("default", "fallback")]
        finally:
            await models.aclose()

    found = [model for model in asyncio.run(look()) if model.name != "extractive"]
    states = ((m.name, "is there" if m.reachable else m.problem or "not reachable") for m in found)
    seen = "; ".join(state if state.startswith(name) else f"{name}: {state}" for name, state in states)
    amiss = next((m for m in found if not m.reachable), None)
    return seen, "" if amiss is None else amiss.mend or _MENDS["chat model"]


def _one_vector(model: str, embedder: Embedder) -> str:
    import asyncio

    async def embed() -> int:
        try:
            return int((await embedder.embed(["connection is not available"], "query")).shape[1])
        finally:
            await embedder.aclose()

    begun = time.monotonic()
    dimension = asyncio.run(embed())
    how = "loaded and embedded" if embedder.local else "answered"
    return f"{model}: {dimension} dimensions; {how} in {time.monotonic() - begun:.1f} s"


def _daemon(settings: Settings) -> tuple[str, str]:
    """The daemon answers; or it can be started: the directory is free, and so is the port."""
    import socket

    from headwater import launch

    runtime = launch.find(settings)
    if runtime is not None:
        return f"answers at {runtime.url} (process {runtime.pid}, version {runtime.version})", ""
    if settings.path.exists():
        from headwater.errors import OwnedError
        from headwater.log.ownership import Ownership

        try:
            Ownership(settings.path).release()
        except OwnedError as error:
            owner = re.search(r"process (\d+)", str(error))
            return f"{error}; it answers no requests", f"kill {owner[1]}" if owner else "headwater status"
    host, port = settings.server.host, settings.server.port
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return f"none runs, and port {port} of {host} cannot be had: {error.strerror}", "headwater up --port 0"
    return f"none runs; port {port} is free", ""


def _clock(settings: Settings) -> tuple[str, str]:
    now = time.time()
    seen = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return (seen, "") if now > _2026_S else (f"{seen} is in the past", "timedatectl set-ntp true")
