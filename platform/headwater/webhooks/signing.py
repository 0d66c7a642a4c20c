"""Signatures of webhooks, as Standard Webhooks has them (standardwebhooks.com, specification 1.0): HMAC-SHA256 over the id, the
time and the body, so that none of them can be another's."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

from headwater.errors import AuthError, UsageError

PREFIX = "whsec_"
VARIABLE = re.compile(r"WEBHOOK_[A-Z0-9_]{1,100}")  # whoever may make a webhook may not sign with all that this process knows
_LEAST, _MOST = 24, 64  # bytes of a secret
TOLERANCE_S = 300


def keys_of(variable: str, environment: Mapping[str, str]) -> list[bytes]:
    """The secrets in an environment variable: one, or several with blanks between them while one is replaced. UsageError says
    what is wrong with them, and never what they are."""
    if not VARIABLE.fullmatch(variable):
        raise UsageError(f"a secret is the name of an environment variable that begins with WEBHOOK_, not {variable[:40]!r}")
    texts = environment.get(variable, "").split()
    if not texts:
        raise UsageError(
            f"the environment variable {variable} is not set where the daemon runs; `headwater webhook secret` makes a value"
        )
    return [_key(variable, text) for text in texts]


def _key(variable: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(PREFIX) or not _LEAST <= len(key) <= _MOST:
        raise UsageError(
            f"{variable} must hold {PREFIX} and {_LEAST} to {_MOST} bytes as base64; `headwater webhook secret` makes a value"
        )
    return key


def secret_of(key: bytes) -> str:
    """A key as it is written down."""
    return PREFIX + base64.b64encode(key).decode()


def signed(keys: Sequence[bytes], id: str, time_s: int, body: bytes) -> dict[str, str]:
    """The headers that go with a body: one signature for each key."""
    signatures = " ".join(f"v1,{_signature(key, id, time_s, body)}" for key in keys)
    return {"webhook-id": id, "webhook-timestamp": str(time_s), "webhook-signature": signatures}


def verify(
    keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now_s: float, tolerance_s: float = TOLERANCE_S
) -> None:
    """AuthError unless a body is signed with one of the keys, and not long ago. Names of headers in small letters."""
    id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not re.fullmatch(r"[0-9]{1,15}", stamp) or abs(now_s - int(stamp)) > tolerance_s:
        raise AuthError("the call is too old, or has no id or no time")
    given = [part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split() if part.startswith("v1,")]
    wanted = [_signature(key, id, int(stamp), body) for key in keys]
    if not any(hmac.compare_digest(one.encode(), other.encode("utf-8", "replace")) for one in wanted for other in given):
        raise AuthError("the signature does not fit the body and the secret")


def _signature(key: bytes, id: str, time_s: int, body: bytes) -> str:
    signed = f"{id}.{time_s}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
