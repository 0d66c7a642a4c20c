"""What a call to a provider can meet with: faults, what the provider said, when to come again, and how fast."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import orjson


class Fault(Exception):
    """A call that failed; `passes` says whether the same call may succeed later, `too_large` whether a smaller one may.

    `status` is the HTTP status, 0 where nothing listens, None for any other reason."""

    def __init__(
        self,
        text: str,
        *,
        passes: bool,
        retry_after_s: float | None = None,
        status: int | None = None,
        too_large: bool = False,
    ) -> None:
        self.passes, self.retry_after_s, self.status, self.too_large = passes, retry_after_s, status, too_large
        super().__init__(text)


class Pace:
    """Spaces calls evenly: at most `rate` a second, 0 for no limit."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]) -> None:
        self._gap = 1.0 / rate if rate > 0 else 0.0
        self._clock, self._sleep, self._next = clock, sleep, float("-inf")

    async def turn(self) -> None:
        if not self._gap:
            return
        now = self._clock()
        slot = max(now, self._next)
        self._next = slot + self._gap
        if slot > now:
            await self._sleep(slot - now)


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body says; empty where it says nothing. `wait_s` is a model's time to load (Hugging Face)."""

    code: str = ""
    message: str = ""
    wait_s: float | None = None


def said_by(raw: bytes) -> Said:
    """The code and message of an error body, in any of the shapes providers use: `error` or the whole, text or object."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return Said()
    wait = body.get("estimated_time") if isinstance(body, dict) else None
    wait_s = float(wait) if isinstance(wait, (int, float)) and 0 <= wait < 1e6 else None
    error = (body.get("error") or body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        return Said(str(error.get("code") or ""), str(error.get("message") or error.get("detail") or ""), wait_s)
    return Said("", error if isinstance(error, str) else "", wait_s)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of `retry-after-ms` (Azure) or Retry-After, which is a number or an HTTP date; None for neither."""
    exact = headers.get("retry-after-ms", "")
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", exact.strip()):
        return float(exact) / 1000.0
    value = headers.get("retry-after", "")
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now) if value else None
    except (ValueError, OverflowError):
        return None
