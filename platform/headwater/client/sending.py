"""Requests to a daemon, their errors, and its event streams: what headwater.client is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from headwater import wire
from headwater.client.events import EventReader
from headwater.config import LOOPBACK
from headwater.errors import ConfigError, HeadwaterError, LimitError, UnreachableError, UsageError, WaitTimeout

T = TypeVar("T")
PAUSES_S: tuple[float, ...] = (0.1, 0.3, 1.0)  # before the second, third and fourth time
PATIENT_S: tuple[float, ...] = (*PAUSES_S, 2.0, 4.0, 8.0)  # of a stream that has begun: a daemon may start again
_MOST_WAIT_S = 30.0  # a Retry-After beyond this is the caller's to wait for
_SILENCE_S = 60.0  # a stream without even a heartbeat for so long is broken


class Sending:
    """Requests to the API at `url`. Raises what the engine raises; UnreachableError when nobody answers."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout_s: float,
        transport: httpx.AsyncBaseTransport | None,
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the URL of a daemon; write for example http://127.0.0.1:8787")
        self.url, self.pause, self.timeout_s = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), pause, timeout_s
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(timeout_s, connect=5.0, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            transport=transport,
            verify=self.url.startswith("https:"),  # certificates take 80 ms to load; plain HTTP has none to verify
            trust_env=parts.hostname not in LOOPBACK,  # a proxy cannot reach this machine's own loopback
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    def _open(self) -> None:
        if self._http.is_closed:
            raise UsageError("this client is closed; connect again")

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
        timeout_s: float | None = None,
    ) -> bytes:
        """The reply's body. `again` says that a request of which nobody knows whether it arrived may be repeated; one that
        surely did not, or was put off by the server's rate limit, always may."""
        sent = {"content-type": wire.JSON, **(headers or {})} if body is not None else dict(headers or {})
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s, connect=5.0, pool=None)
        self._open()
        for pause_s in (*PAUSES_S, None):
            try:
                reply = await self._http.request(method, path, content=body, params=given(query), headers=sent, timeout=timeout)
                if reply.status_code < 400:
                    return reply.content
                error = _error(reply)
                if not isinstance(error, LimitError) or (wait_s := error.retry_after_s) is None or wait_s > _MOST_WAIT_S:
                    raise error
            except (httpx.ReadTimeout, httpx.WriteTimeout) as slow:
                raise WaitTimeout(f"{self.url} did not answer {method} {path} in time") from slow
            except httpx.TransportError as broken:
                error, wait_s = self.unreachable(broken), pause_s or 0.0
                if not (again or isinstance(broken, httpx.ConnectError | httpx.ConnectTimeout)):
                    raise error from broken
            if pause_s is None:
                raise error
            await self.pause(wait_s)
        raise AssertionError("the last try returns or raises")

    def unreachable(self, cause: Exception) -> UnreachableError:
        error = UnreachableError(f"no Headwater daemon answers at {self.url}; start one with `headwater up`")
        error.__cause__ = cause
        return error

    async def get(self, kind: type[T], path: str, **query: Any) -> T:
        """What a GET replies."""
        return wire.decode(kind, await self.send("GET", path, query=query, again=True))

    async def ask(self, kind: type[T], path: str, body: Mapping[str, Any]) -> T:
        """What a POST of something that only reads replies."""
        return wire.decode(kind, await self.send("POST", path, body=wire.sent(given(body)), again=True))

    async def events(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        place: str | None = None,
    ) -> AsyncIterator[EventReader.Event]:
        """The events of one response; UnreachableError where the connection breaks."""
        self._open()
        headers = {"accept": "text/event-stream"} | ({"last-event-id": place} if place else {})
        if body is not None:
            headers["content-type"] = wire.JSON
        timeout = httpx.Timeout(_SILENCE_S, connect=5.0, pool=None)
        reader = EventReader()
        try:
            async with self._http.stream(
                method, path, params=given(query), content=body, headers=headers, timeout=timeout
            ) as reply:
                if reply.status_code >= 400:
                    await reply.aread()
                    raise _error(reply)
                async for chunk in reply.aiter_bytes():
                    for event in reader.feed(chunk):
                        if event.name == "error":
                            raise wire.problem_of(event.data, 500)
                        yield event
        except httpx.TransportError as broken:
            raise self.unreachable(broken) from broken


def given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was given, times as the wire has them."""
    plain = {k: v for k, v in (values or {}).items() if v is not None}
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in plain.items()}


def listed(values: Sequence[str] | None) -> list[str] | None:
    """As JSON has it; a text is one of them."""
    return None if values is None else [values] if isinstance(values, str) else list(values)


def _error(reply: httpx.Response) -> HeadwaterError:
    error = wire.problem_of(reply.content, reply.status_code)
    if isinstance(error, LimitError) and error.retry_after_s is None and reply.status_code == 429:
        stated = reply.headers.get("retry-after", "")
        error.retry_after_s = float(stated) if stated.isdigit() else 1.0
    return error
