"""Find the daemon of a data directory, or start it.

A daemon that is ready writes `runtime.json` beside its data (readable by its user alone): where it listens, its process,
the token it wants. Any number of programs may want a daemon at once: one starts it, the others wait until it is ready.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headwater.errors import StorageError, UnreachableError, WaitTimeout

if TYPE_CHECKING:
    from headwater.config import Settings

RUNTIME, LOG = "runtime.json", "daemon.log"
OWNED_EXIT = 75  # EX_TEMPFAIL: another process owns the data directory
_HEALTH_S = 2.0
_BUSY_S = 20.0  # for which a daemon that takes calls may leave them without an answer
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Runtime:
    """A daemon that answers: where, which process, the bearer token it wants (None for none), its version."""

    url: str
    pid: int
    token: str | None = field(repr=False)
    version: str


def find(settings: Settings) -> Runtime | None:
    """The daemon that owns the data directory and answers, None where there is none."""
    runtime = _read(settings.path)
    if runtime is None or runtime.pid != _owner(settings.path):
        return None
    return runtime if _answers(runtime) else None


def find_or_start(settings: Settings, *, timeout_s: float = 60.0, config: Path | None = None) -> Runtime:
    """The daemon of the data directory, started in the background when there is none. `config` is the TOML file that
    `settings` was read from, for what only a file can say. UnreachableError, with the daemon's own last words, when it
    does not start; WaitTimeout when it takes longer than `timeout_s`."""
    end = time.monotonic() + timeout_s
    directory = settings.path
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot use the data directory {directory}: {error.strerror}") from error
    while time.monotonic() < end:
        if (runtime := find(settings)) is not None:
            return runtime
        with _turn(directory) as mine:
            if mine and (runtime := find(settings) or _start(settings, config, end)) is not None:
                return runtime
        time.sleep(_LOOK_S)
    raise WaitTimeout(f"the daemon of {directory} is not ready after {timeout_s:g} s; {directory / LOG} has what it says")


def announced(settings: Settings) -> Runtime:
    """The daemon that says it serves the data directory, whether it answers or not; UnreachableError where none does."""
    runtime = _read(settings.path)
    if runtime is None or runtime.pid != _owner(settings.path):
        raise UnreachableError(f"no daemon serves {settings.path}; `headwater up` starts one")
    return runtime


def named(url: str) -> Runtime:
    """A daemon known by its address alone; its key is HEADWATER_SERVER_API_KEY."""
    return Runtime(url, 0, os.environ.get("HEADWATER_SERVER_API_KEY") or None, "")


def get(runtime: Runtime, path: str, *, timeout_s: float = _HEALTH_S) -> dict[str, Any]:
    """The JSON object a daemon answers at `path`, also with 503, which says it is not ready. UnreachableError for silence
    and for every other answer. Loads no HTTP library but the standard one: health checks run this every few seconds."""
    import http.client
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(runtime.url)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=timeout_s)
    except ValueError as error:
        raise UnreachableError(f"{runtime.url!r} is no address: {error}") from None
    try:
        headers = {"Authorization": f"Bearer {runtime.token}"} if runtime.token else {}
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        reply = connection.getresponse()
        status, found = reply.status, json.loads(reply.read(1 << 20))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"nothing answers at {runtime.url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if status == 401:
        raise UnreachableError(f"{runtime.url} wants a key: set HEADWATER_SERVER_API_KEY")
    if status not in (200, 503) or not isinstance(found, dict):
        raise UnreachableError(f"{runtime.url} answered {status} to {path}")
    return found


def publish(directory: Path, runtime: Runtime) -> None:
    """Tell other programs of this user where the daemon is, whole or not at all."""
    path = directory / f"{RUNTIME}.{runtime.pid}"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({f.name: getattr(runtime, f.name) for f in fields(Runtime)}, file)
    path.replace(directory / RUNTIME)


def withdraw(directory: Path, pid: int) -> None:
    """Take back what the daemon `pid` told; another's stays."""
    runtime = _read(directory)
    if runtime is not None and runtime.pid == pid:
        with contextlib.suppress(FileNotFoundError):
            (directory / RUNTIME).unlink()


def _read(directory: Path) -> Runtime | None:
    note = _json(directory / RUNTIME)
    url, pid, token = note.get("url"), note.get("pid"), note.get("token")
    if not (isinstance(url, str) and isinstance(pid, int) and isinstance(token, str | None)):
        return None
    return Runtime(url, pid, token, str(note.get("version", "")))


def _owner(directory: Path) -> int | None:
    """The process that last took the lock of a data directory (headwater.log.ownership)."""
    pid = _json(directory / "lock").get("pid")
    return pid if isinstance(pid, int) else None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _answers(runtime: Runtime) -> bool:
    """Whether that very process answers. It holds the lock then: it let go of it only after it stopped answering. One that
    takes the call and is slow to answer is busy, on a loaded machine for seconds, and no reason to start another."""
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            return bool(get(runtime, "/v1/health").get("pid") == runtime.pid)
        except UnreachableError as error:
            if not isinstance(error.__cause__, TimeoutError) or time.monotonic() >= end:
                return False


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[bool]:
    """True for the one program that may start the daemon now. The lock is not the data directory's own."""
    fd = os.open(directory / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _start(settings: Settings, config: Path | None, end: float) -> Runtime | None:
    """Start a daemon and wait for it. None when another process owns the directory: that one will be ready. An interrupt ends
    the daemon with the waiting."""
    directory = settings.path
    with (directory / LOG).open("ab") as log:
        begun = log.tell()
        child = _spawn(settings, config, log)
    try:
        return _ready(settings, child, end, begun)
    except (KeyboardInterrupt, SystemExit):  # whoever wanted it has gone
        child.kill()
        child.wait()
        raise


def _ready(settings: Settings, child: subprocess.Popen[bytes], end: float, begun: int) -> Runtime | None:
    """Wait for the daemon that was started as `child`, whose log begins at byte `begun`; see `_start`."""
    while time.monotonic() < end:
        if (runtime := find(settings)) is not None:
            threading.Thread(target=child.wait, name="headwater-daemon", daemon=True).start()  # it must not become a zombie
            return runtime
        if (code := child.poll()) == OWNED_EXIT:
            return None
        if code is not None:
            said = _last_words(settings.path / LOG, begun)
            raise UnreachableError(f"the daemon of {settings.path} did not start (exit {code}):\n{said}")
        time.sleep(_LOOK_S)
    return None


def _spawn(settings: Settings, config: Path | None, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headwater.daemon", "--data-dir", str(settings.path)]
    if config is not None:
        command += ["--config", str(config)]
    # -m must find this very package; secrets travel in the environment, never in the arguments
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **dict(_variables(settings, "HEADWATER_")), "PYTHONPATH": path}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True
    )


def _variables(settings: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """The environment in which `config.load` gives these settings; topics and sources stay with the file."""
    from pydantic import SecretStr

    plain = type(settings)()
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name in ("data_dir", "topics", "sources"):
            continue
        if is_dataclass(value):
            yield from _variables(value, f"{prefix}{f.name.upper()}_")
        elif value != getattr(plain, f.name) and value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            yield prefix + f.name.upper(), ",".join(text) if isinstance(text, tuple) else str(text)


def _last_words(path: Path, begun: int, lines: int = 12) -> str:
    """The last lines of a log behind byte `begun`."""
    with contextlib.suppress(OSError), path.open("rb") as log:
        log.seek(max(begun, path.stat().st_size - 8192))
        said = log.read().decode("utf-8", "replace").strip().splitlines()[-lines:]
        return "\n".join(f"  {line}" for line in said) or "  (it said nothing)"
    return "  (it left no log)"
