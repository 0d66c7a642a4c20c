"""What a request must pass before any route sees it: Host, Origin, token, rate, and the size and pace of its body.

Whose token it was stands in the request's scope (`CALLER`), and the verbs that its route gets keep to what that token may.

Pure ASGI, outermost, so it also stands before whatever is mounted beside the routes. Host names are checked against a list
because a web page can make a browser resolve its own name to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from fastapi import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.api import problems
from headwater.config import LOOPBACK, ServerSettings
from headwater.errors import AuthError, LimitError, StorageError, UsageError
from headwater.tokens import Token, Tokens

CALLER = "headwater.caller"  # in a scope: the Token that was shown, None for the API key or where no key is needed
TOKENS = "headwater.tokens"  # in a scope with a token: the Tokens that say whether it still holds
_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_APPEND = re.compile(r"/v1/topics/[^/]+/(?:records|deliveries)|/v1/logs")
_HOOK = re.compile(r"/v1/hooks/[^/]+")
_MOST_CLIENTS = 4096
_DRAIN = 8  # times the largest body that is still read, to be thrown away


class Rate:
    """A token bucket for each client: `per_s` on average, a second's worth at once. Remembers the latest few thousand."""

    def __init__(self, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._most, self._clock = per_s, max(per_s, 1.0), clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, client: str) -> float:
        """0 when the client may go on (and one token is taken), else how long until there is a token."""
        now = self._clock()
        tokens, then = self._buckets.pop(client, (self._most, now))
        tokens = min(self._most, tokens + (now - then) * self._per_s)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _MOST_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if allowed else (1 - tokens) / self._per_s


class Guard:
    """Wraps an ASGI app. Refusals are problem details: 401, 403, 408, 413, 421, 429."""

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, *, tokens: Tokens | None = None, local_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`local_key` is the daemon's own, told to programs of its user (runtime.json): it opens everything, as the API key
        does. As soon as there is a token, nobody comes in without one or the other."""
        self._app, self._settings, self._tokens, self._clock = app, settings, tokens, clock
        self._hosts = frozenset(_name(h) for h in (*LOOPBACK, *settings.allowed_hosts, settings.host))
        key = settings.api_key.get_secret_value() if settings.api_key else None
        self._key = key.encode() if key else None
        self._keys = [k.encode() for k in (key, local_key) if k]
        self._rates: dict[str, tuple[float, Rate]] = {}  # of tokens with a rate of their own
        self._rate = Rate(settings.requests_per_s, clock=clock) if settings.requests_per_s > 0 else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is not None:
            await _refuse(refusal, scope, receive, send)
        elif scope["type"] != "http" or scope["method"] in _NO_BODY:
            await self._pass(scope, receive, send)
        else:
            await self._with_body(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Why this request goes no further, judged by its head alone; None when it may."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope.get("method") == "POST" and _HOOK.fullmatch(scope["path"]):  # who that is, its signature says
            return self._too_fast(scope, None) or self._too_large(headers, None)
        server = scope.get("server")
        if not _allowed(headers.get(b"host", b"").decode("latin-1"), self._hosts, server[0] if server else None):
            return problems.of(AuthError("this Host is not served here; add it to server.allowed_hosts"), 421)
        if (origin := headers.get(b"origin")) is not None and not self._is_own(origin.decode("latin-1"), server):
            return problems.of(AuthError("requests from this Origin are refused; add its host to server.allowed_hosts"), 403)
        caller = self._caller(headers)
        if isinstance(caller, Response):
            return caller
        scope[CALLER], scope[TOKENS] = caller, self._tokens
        return self._too_fast(scope, caller) or self._too_large(headers, caller) or _packed(scope, headers)

    def _caller(self, headers: dict[bytes, bytes]) -> Token | Response | None:
        """The token that was shown; None for a key, and where none is needed; else the refusal."""
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        secret = shown.strip() if scheme.lower() == b"bearer" else b""
        if any(hmac.compare_digest(secret, key) for key in self._keys):
            return None
        try:
            known = self._tokens is not None and bool(self._tokens.all())
            found = self._tokens.find(secret.decode("latin-1")) if known and self._tokens is not None and secret else None
        except StorageError as error:
            return problems.of(error)
        if found is not None:
            return found
        if self._key is None and not known:
            return None
        return problems.of(AuthError("a valid bearer token is needed: Authorization: Bearer KEY"), 401)

    def _is_own(self, origin: str, server: tuple[str, int | None] | None) -> bool:
        try:
            url = urlsplit(origin)
        except ValueError:
            return False
        return url.scheme in ("http", "https") and _allowed(url.netloc, self._hosts, server[0] if server else None)

    def _too_fast(self, scope: Scope, caller: Token | None) -> Response | None:
        """Appends are not counted: the commit they wait for holds them back, and nobody else's requests may stop them. They are
        where a token has a rate of its own."""
        if caller is not None and caller.requests_per_s is not None:
            wait_s = self._rate_of(caller, caller.requests_per_s).wait_s(caller.name)
        elif self._rate is None or (scope.get("method") == "POST" and _APPEND.fullmatch(scope["path"])):
            return None
        else:
            client = scope.get("client")
            wait_s = self._rate.wait_s(f"token {caller.name}" if caller else client[0] if client else "")
        if not wait_s:
            return None
        return problems.of(LimitError("too many requests; slow down", retry_after_s=float(math.ceil(wait_s))))

    def _rate_of(self, caller: Token, per_s: float) -> Rate:
        if self._rates.get(caller.name, (0.0, None))[0] != per_s:
            self._rates[caller.name] = per_s, Rate(per_s, clock=self._clock)
        return self._rates[caller.name][1]

    def _most(self, caller: Token | None) -> int:
        """The largest body that the caller may send."""
        most = self._settings.max_body_bytes
        return most if caller is None or caller.max_body_bytes is None else min(most, caller.max_body_bytes)

    def _too_large(self, headers: dict[bytes, bytes], caller: Token | None) -> Response | None:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:18]) <= self._most(caller):
            return None
        return self._oversized(caller)

    def _oversized(self, caller: Token | None) -> Response:
        most, where = self._most(caller), "server.max_body_bytes"
        where = where if most == self._settings.max_body_bytes else "the token's max_body_bytes"
        return problems.of(LimitError(f"the body is larger than {most} bytes ({where}); send less at once"))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app. An error after its response began was logged where it was turned into one (problems)."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # the top of a request
            if not started:
                raise

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app with a body that is counted and timed; one that is too large or too slow ends the request."""
        deadline = asyncio.get_running_loop().time() + self._settings.body_timeout_s
        size, ended, started = 0, False, False
        caller: Token | None = scope.get(CALLER)
        refusal: Response | None = None

        async def bounded() -> Message:
            nonlocal size, ended, refusal
            if ended:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                refusal = problems.of(LimitError("the body took too long to arrive (server.body_timeout_s)"), 408)
                raise LimitError("slow body") from None
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._most(caller):
                refusal = self._oversized(caller)
                raise LimitError("large body")
            return message

        async def answered(message: Message) -> None:
            nonlocal started
            if refusal is None or started:
                started = True
                await send(message)

        try:
            await self._pass(scope, bounded, answered)
        except LimitError:
            if refusal is None:
                raise
        if refusal is not None and not started:
            if not (ended or await _drained(receive, deadline, _DRAIN * self._settings.max_body_bytes)):
                refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)


def _packed(scope: Scope, headers: Mapping[bytes, bytes]) -> Response | None:
    """The refusal of a body that is compressed, which only logs over OTLP may be."""
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity") or scope["path"] == "/v1/logs":
        return None
    named = encoding.decode("latin-1")[:40]
    return problems.of(UsageError(f"bodies are taken as they are, not as {named!r}; send it without Content-Encoding"), 415)


async def _drained(receive: Receive, deadline: float, most_bytes: int) -> bool:
    """Read what is left of a body and forget it: a client that is still sending would not hear the refusal. False when there
    is too much of it, or it comes too slowly."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            while most_bytes > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return True
                most_bytes -= len(message.get("body", b""))
    return False


async def _refuse(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
    else:
        await refusal(scope, receive, send)


def _allowed(host: str, names: Collection[str], own: str | None) -> bool:
    """A listed name, or the very address the connection came in on (an address cannot be rebound)."""
    name = _name(host)
    return bool(name) and (name in names or name == own)


def _name(host: str) -> str:
    """The name in `name:port`, `[v6]:port` or a bare v6 address, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].rstrip(".")
