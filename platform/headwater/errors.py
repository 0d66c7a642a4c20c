"""Every error Headwater raises on purpose, as one tree.

HeadwaterError                 what went wrong, which thing, how to mend it
├── UsageError                 the request is wrong; nothing was changed            (HTTP 400/422, exit 2)
│   ├── QueryError             a query does not parse; carries the character position
│   ├── ConfigError            a setting is unknown or has an impossible value
│   └── ConflictError          the same idempotency key came with another body, or the thing exists (HTTP 409/422)
├── NotFoundError              no such topic, record, group, watch ...               (HTTP 404, exit 3)
├── UnreachableError           no daemon, or a provider that cannot be reached       (HTTP 502/503, exit 3)
│   ├── EmbedError             an embedder failed after its retries, or answered nonsense
│   └── ModelError             a chat model did, or its answer was cut
├── OwnedError                 another process owns the data directory; carries its URL   (exit 1)
├── AuthError                  no key, a wrong key, or a foreign Host or Origin      (HTTP 401/403/421)
├── LimitError                 too large, too many, or too fast; carries retry_after_s    (HTTP 413/429)
├── WaitTimeout                the thing waited for has not happened yet             (HTTP 202/504, exit 4)
├── StorageError               the disk is full, or the log cannot be written        (HTTP 507)
└── DamageError                an index file is damaged; it is rebuilt from the log
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """Root of the tree. `str(error)` is a sentence for a person: what, which, how to mend."""


class UsageError(HeadwaterError):
    """The request itself is wrong; nothing was changed."""


class QueryError(UsageError):
    """A query does not parse. `position` is the 0-based character that offends, `expected` what was wanted there."""

    def __init__(self, message: str, *, query: str, position: int, expected: str) -> None:
        self.query, self.position, self.expected = query, position, expected
        super().__init__(f"{message} at character {position + 1}: expected {expected}\n  {query}\n  {' ' * position}^")


class ConfigError(UsageError):
    """A setting is unknown or has an impossible value."""


class ConflictError(UsageError):
    """The thing exists already, or an idempotency key was used before with another body."""


class NotFoundError(HeadwaterError):
    """There is no such topic, record, passage, group or watch."""


class UnreachableError(HeadwaterError):
    """A daemon or a provider cannot be reached."""


class EmbedError(UnreachableError):
    """An embedder failed after its retries or answered something unusable. `retry_after_s` is the wait it asked for."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class ModelError(UnreachableError):
    """A chat model failed after its retries, answered something unusable, or its answer was cut. `retry_after_s` is the
    wait it asked for."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class OwnedError(HeadwaterError):
    """Another process owns the data directory. `url` is where it listens, when it has said so."""

    def __init__(self, message: str, *, url: str | None = None) -> None:
        self.url = url
        super().__init__(message)


class AuthError(HeadwaterError):
    """No credentials, wrong credentials, or a Host or Origin that is not allowed."""


class LimitError(HeadwaterError):
    """Too large, too many or too fast. `retry_after_s` says when to come back, None when coming back cannot help."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class WaitTimeout(HeadwaterError):
    """What was waited for has not happened within the time given; it may still happen."""


class StorageError(HeadwaterError):
    """The log could not be written (disk full, read-only). Nothing that was acknowledged is affected."""


class DamageError(HeadwaterError):
    """A derived index is damaged. It is rebuilt from the log; searches fall back to an exact scan meanwhile."""
