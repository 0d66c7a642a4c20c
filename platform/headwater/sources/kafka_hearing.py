"""What the Kafka client and the cluster say, in words for people: why none can be reached, and which topics are not there."""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import confluent_kafka as ck

_QUIET_S = 600.0  # the client tries many times a second: what it says again stays out of the log for so long
_MOST = 100  # lines that are remembered
_WHERE = re.compile(r"^(?:\[thrd:[^\]]*\]: )?(?:\S+: )?")
_WHEN = re.compile(r" \(after \d+ms [^)]*\)")
_PLAIN = ("Connect to ", "Failed to resolve", "uthentication")  # reasons that need no guess


class Hearing(logging.LoggerAdapter[logging.Logger]):
    """The log of the client library, which tells of failing connections nowhere else; `failed()` is called for each."""

    def __init__(self, logger: logging.Logger, failed: Callable[[], None]) -> None:
        super().__init__(logger, {})
        self._failed = failed
        self._told: dict[str, float] = {}
        self._reason = ""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Pass a line on once in a while, at a level that suits it: the library calls every refused connection an error."""
        said = [str(part) for part in (msg, *args)]
        if "FAIL" in said:
            self._reason = _WHEN.sub("", _WHERE.sub("", said[-1]))
            self._failed()
        line, now = re.sub(r"\d+", "", " ".join(said)), time.monotonic()
        is_new = now - self._told.get(line, -_QUIET_S) >= _QUIET_S
        if is_new:
            if len(self._told) >= _MOST:
                self._told.clear()
            self._told[line] = now
        super().log(min(level, logging.INFO) if is_new else logging.DEBUG, msg, *args, **kwargs)

    def unreachable(self, servers: object, said: str) -> str:
        """That no broker can be reached: why the last connection failed where that is known, else as `said`."""
        why = self._reason or said
        guess = (
            "" if any(part in why for part in _PLAIN) else "; is it a Kafka broker, and TLS (security.protocol) as it wants it?"
        )
        return f"none of {servers} can be reached: {why}{guess}"


def missing(wanted: Iterable[str], there: Collection[str]) -> str | None:
    """Which of the wanted topics are not there; None where all are. Of a pattern nobody knows."""
    absent = [name for name in wanted if not name.startswith("^") and name not in there]
    if not absent:
        return None
    near = difflib.get_close_matches(absent[0], [name for name in there if not name.startswith("__")], 1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no topic {', '.join(map(repr, absent))} that this client may read{meant}"


def is_named(name: str, pattern: str) -> bool:
    """Whether a topic is one that a name or a pattern stands for."""
    if not pattern.startswith("^"):
        return name == pattern
    return re.match(pattern, name) is not None and (not name.startswith("__") or pattern.startswith("^__"))


def said(error: ck.KafkaException) -> str:
    """The words of an error."""
    return str(error.args[0].str() if error.args else error)
