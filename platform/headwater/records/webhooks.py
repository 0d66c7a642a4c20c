"""What surfaces are told of webhooks: whom they call, for what, and how that goes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from headwater.records.tabular import Shown

CallKind = Literal["alert", "watch", "test"]
CallState = Literal["waiting", "given up"]
WebhookState = Literal["ready", "failing", "paused"]
ALL = "*"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has not succeeded: `about` is the id of its alert or hit, `tries` how often it was tried, `next_try` when it
    is again (None once it was given up)."""

    id: str
    kind: CallKind
    about: str
    created: datetime
    state: CallState
    tries: int
    next_try: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Webhook(Shown):
    """An address that is called for each alert of `alerts` (topics) and each hit of `watches` (names); `*` stands for all.
    `secret` is the name of the environment variable that has the signing secret. `state` is `failing` while the last try failed
    (`error` says how), `paused` when somebody paused it or the receiver wants no more. `sent`, `waiting`, `given_up` and
    `dropped` count calls; a call is given up after `tries`. `calls` are the oldest that have not succeeded, at most twenty."""

    id: int
    name: str
    url: str
    alerts: tuple[str, ...]
    watches: tuple[str, ...]
    secret: str
    allow_private: bool
    tries: int
    created: datetime
    state: WebhookState
    error: str | None
    sent: int
    waiting: int
    given_up: int
    dropped: int
    last_sent: datetime | None
    last_failed: datetime | None
    next_try: datetime | None
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True, slots=True)
class Tested(Shown):
    """How one call went: `status` is what the receiver answered, None where it did not; `ok` for 2xx. It took `seconds`."""

    ok: bool
    status: int | None
    error: str | None
    seconds: float
