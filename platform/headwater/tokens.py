"""Access tokens with scopes: which topics, whether to write. Kept as hashes in a file of their own beside the data.

A token is 32 random bytes, so one SHA-256 of it is safe to keep: there is nothing to guess. The file is read again when it
changes: a token that is made or revoked holds at once, without a restart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypedDict

from headwater.errors import ConflictError, NotFoundError, StorageError, UsageError

PREFIX = "hw_"
FILE = "tokens.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOPICS = re.compile(r"[A-Za-z0-9._-]{0,100}\*?")
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is kept. `topics` are names, or the start of names with `*` behind it; times are epoch milliseconds;
    the limits replace the server's for whoever shows it."""

    name: str
    digest: str
    topics: tuple[str, ...]
    write: bool
    created_ms: int
    expires_ms: int | None = None
    requests_per_s: float | None = None
    max_body_bytes: int | None = None

    def sees(self, topic: str) -> bool:
        """Whether a topic of that name is in scope: its own notes are, always."""
        return topic == f"notes.{self.name}" or any(fnmatchcase(topic, pattern) for pattern in self.topics)


class Tokens:
    """The tokens of a file. Reading is safe from any thread; two writers wait for each other."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._state: tuple[int, int, int] | None = None
        self._by_digest: dict[str, Token] = {}

    def all(self) -> list[Token]:
        """Every token, oldest first. StorageError for a file that cannot be read: nobody is let in by a damaged one."""
        self._refresh()
        return list(self._by_digest.values())

    def find(self, secret: str) -> Token | None:
        """Whose token that is; None for an unknown or expired one."""
        self._refresh()
        found = self._by_digest.get(_digest(secret))
        if found is None or (found.expires_ms is not None and found.expires_ms <= self._clock() * 1000):
            return None
        return found

    def hold(self, token: Token) -> bool:
        """Whether a token that was shown is still one: neither revoked nor expired since."""
        self._refresh()
        ended = token.expires_ms is not None and token.expires_ms <= self._clock() * 1000
        return not ended and self._by_digest.get(token.digest) == token

    def create(
        self, name: str, topics: Sequence[str], *, write: bool = False, ttl_s: float | None = None,
        requests_per_s: float | None = None, max_body_bytes: int | None = None,
    ) -> tuple[Token, str]:  # fmt: skip
        """A new token and its secret, which is told this once. ConflictError, UsageError."""
        _check(name, topics, ttl_s, requests_per_s, max_body_bytes)
        secret, now_ms = PREFIX + secrets.token_urlsafe(32), round(self._clock() * 1000)
        expires_ms = None if ttl_s is None else now_ms + round(ttl_s * 1000)
        made = Token(name, _digest(secret), tuple(topics), write, now_ms, expires_ms, requests_per_s, max_body_bytes)
        with self._writing() as held:
            if any(token.name == name for token in held):
                raise ConflictError(f"a token {name!r} exists already; `headwater tokens revoke {name}` removes it")
            if len(held) >= _MOST:
                raise UsageError(f"there are {_MOST} tokens, the most there can be; revoke those no longer used")
            held.append(made)
        return made, secret

    def revoke(self, name: str) -> Token:
        """Forget a token; NotFoundError."""
        with self._writing() as held:
            found = next((token for token in held if token.name == name), None)
            if found is None:
                raise NotFoundError(f"no token {name[:64]!r}; `headwater tokens list` shows them")
            held.remove(found)
        return found

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._state, self._by_digest = None, {}
            return
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        if state != self._state:
            self._by_digest = {token.digest: token for token in self._read()}
            self._state = state

    def _read(self) -> list[Token]:
        try:
            stored = json.loads(self._path.read_bytes())["tokens"]
            return [Token(**{**entry, "topics": tuple(entry["topics"])}) for entry in stored]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{self._path} cannot be read as tokens; restore it, or remove it and make them anew") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed: they are written back, whole or not at all."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = self._read()
            yield held
            beside = self._path.with_suffix(".new")
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({"tokens": [asdict(token) for token in held]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from error
        finally:
            os.close(lock)


class Access(TypedDict):
    """What a guard lets in by, besides the API key of the settings."""

    tokens: Tokens
    local_key: str


def tokens_of(directory: Path, file: str | None = None) -> Tokens:
    """The tokens of a data directory, or of the file that the settings name."""
    return Tokens(Path(file).expanduser() if file else directory / FILE)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _check(
    name: str, topics: Sequence[str], ttl_s: float | None, requests_per_s: float | None, max_body_bytes: int | None
) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:64]!r} is no name of a token: letters, digits and ._- (at most 64)")
    if not topics:
        raise UsageError("say which topics the token is for: names, or the start of names with * behind it")
    for pattern in topics:
        if not pattern or not _TOPICS.fullmatch(pattern):
            raise UsageError(f"{pattern[:100]!r} is no topic: a name, or the start of names with * behind it")
    for what, number in (("ttl", ttl_s), ("requests_per_s", requests_per_s), ("max_body_bytes", max_body_bytes)):
        if number is not None and not number > 0:
            raise UsageError(f"{what} must be more than 0")
