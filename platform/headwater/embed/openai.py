"""`openai:NAME`: embeddings from any server that speaks OpenAI's `POST /embeddings`, hosted or local.

Faults that pass (429, 408, 5xx, timeouts, broken connections, answers that make no sense) are tried again with
exponential back-off and full jitter (Brooker, "Exponential Backoff And Jitter", 2015); a Retry-After is waited for up
to a bound. Faults that stay (400, 401, 403, 404, a redirect, an empty quota) fail at once with what to mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import SecretStr

from headwater.embed.embedder import Embedder, Kind, unit_rows
from headwater.embed.endpoint import check_endpoint, is_loopback, refuse_private
from headwater.errors import ConfigError, EmbedError

if TYPE_CHECKING:
    import httpx

    from headwater.embed.embedder import Vectors

DEFAULT_URL = "https://api.openai.com/v1"
BACKOFF_S, BACKOFF_MAX_S = 0.5, 20.0
RETRY_AFTER_MAX_S = 60.0  # a provider that asks for longer is given up on at once; the error says how long
ANSWER_MAX_BYTES = 64 << 20


class OpenAIEmbedder(Embedder):
    """A remote model. The key is sent to `base_url` only, redirects are not followed, and no error shows the key.

    `dimension` is sent as `dimensions` where given. `sleep`, `clock` (monotonic), `now` (epoch) and `rng` are what
    waiting and jitter are made of. A text is cut at 8,000 bytes: byte-level BPE makes no more tokens of it than 8,191."""

    local = False
    floor = 0.0  # not measured: differs by provider
    batch_bytes = 250_000
    text_bytes = 8_000
    concurrency = 4

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: SecretStr | None = None,
        dimension: int | None = None,
        batch_size: int = 64,
        timeout_s: float = 30.0,
        retries: int = 4,
        requests_per_s: float = 0.0,
        allow_private_urls: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(dimension=dimension)
        self.name, self.batch_size = f"openai:{model}", batch_size
        self._url = check_endpoint(base_url or DEFAULT_URL, allow_private=allow_private_urls)
        self._model, self._key, self._dimensions = model, _usable_key(api_key), dimension
        self.version = hashlib.sha256(f"{self._url} {dimension}".encode()).hexdigest()[:12]
        self._timeout_s, self._retries, self._allow_private = timeout_s, retries, allow_private_urls
        self._sleep, self._now, self._rng = sleep, now, rng or random.Random()
        self._pace = _Pace(requests_per_s, clock, sleep)
        self._client: httpx.AsyncClient | None = None

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        for attempt in range(self._retries + 1):
            await self._pace.turn()
            fault: _Fault | None = None
            try:
                return await self._call(texts)
            except _Fault as caught:
                fault = caught
            wait = min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
            wait = max(wait, fault.retry_after_s or 0.0)
            if not fault.passes or attempt == self._retries or (fault.retry_after_s or 0.0) > RETRY_AFTER_MAX_S:
                tries = f" (tried {attempt + 1} times)" if attempt else ""
                raise EmbedError(f"{self.name}: {fault}{tries}", retry_after_s=fault.retry_after_s) from fault.__cause__
            await self._sleep(wait)
        raise AssertionError("unreachable")

    async def _call(self, texts: Sequence[str]) -> Vectors:
        """One request, its answer checked. Raises _Fault."""
        import httpx

        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, raw = await self._post(body)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _Fault(f"no answer from {self._url} within {self._timeout_s:g} s", passes=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self._masked(str(error)) or type(error).__name__
            raise _Fault(f"cannot talk to {self._url}: {reason}", passes=True) from error
        if status != 200:
            raise self._refusal(status, headers, raw)
        try:
            rows = _rows(orjson.loads(raw), len(texts))
            return unit_rows(rows, len(texts), dimension=self._dimension, who="it")
        except (orjson.JSONDecodeError, EmbedError, ValueError) as error:
            reason = "an answer that is not JSON" if isinstance(error, orjson.JSONDecodeError) else str(error)
            raise _Fault(f"unusable answer from {self._url}: {self._masked(reason)}", passes=True) from error

    async def _post(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        client = await self._connected()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        async with client.stream("POST", f"{self._url}/embeddings", content=orjson.dumps(body), headers=headers) as response:
            raw = bytearray()
            async for part in response.aiter_bytes():
                raw += part
                if len(raw) > ANSWER_MAX_BYTES:
                    raise _Fault(f"{self._url} answered with more than {ANSWER_MAX_BYTES >> 20} MiB", passes=False)
            return response.status_code, response.headers, bytes(raw)

    async def _connected(self) -> httpx.AsyncClient:
        """The client; before the first call, a host name that resolves to a link-local address is refused."""
        import httpx

        if self._client is None:
            host = httpx.URL(self._url).host
            near = is_loopback(host)
            if not near and not self._allow_private:
                with contextlib.suppress(OSError):  # a proxy may know a name that we do not: let the request say so
                    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
                    refuse_private(host, [str(entry[4][0]) for entry in found])
            limits = httpx.Limits(max_connections=self.concurrency * 2)
            # proxies come from the environment, but none stands between us and a local server
            self._client = httpx.AsyncClient(timeout=self._timeout_s, limits=limits, follow_redirects=False, trust_env=not near)
        return self._client

    def _refusal(self, status: int, headers: Mapping[str, str], raw: bytes) -> _Fault:
        code, said = _said(raw)
        said = f": {self._masked(said)}" if said else ""
        wait = _retry_after_s(headers.get("retry-after"), self._now())
        if status == 429 and code == "insufficient_quota":
            return _Fault(f"the account behind the key has no quota left (429){said}", passes=False, retry_after_s=wait)
        if status in (401, 403):
            key = "HEADWATER_EMBEDDING_API_KEY" + (" or OPENAI_API_KEY" if self._url == DEFAULT_URL else "")
            return _Fault(f"{self._url} refused the key ({status}){said}; check {key}", passes=False)
        if status == 404:
            return _Fault(f"{self._url} knows no model {self._model!r} or no /embeddings (404){said}", passes=False)
        if 300 <= status < 400:
            text = f"{self._url} redirects ({status}); redirects are not followed, set embedding.base_url to the final address"
            return _Fault(text, passes=False)
        passes = status in (408, 425, 429) or status >= 500
        return _Fault(f"{self._url} answered {status}{said}", passes=passes, retry_after_s=wait)

    def _masked(self, text: str) -> str:
        """At most 300 printable characters of what a provider said, without the key."""
        if self._key is not None:
            text = text.replace(self._key.get_secret_value(), "********")
        return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+", " ", text)[:300].strip()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class _Fault(Exception):
    """A call that failed; `passes` says whether the same call may succeed later."""

    def __init__(self, text: str, *, passes: bool, retry_after_s: float | None = None) -> None:
        self.passes, self.retry_after_s = passes, retry_after_s
        super().__init__(text)


class _Pace:
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


def _usable_key(key: SecretStr | None) -> SecretStr | None:
    """The key, stripped; ConfigError (which does not show it) when it cannot stand in a header. An HTTP library would
    put such a key into its own error."""
    text = key.get_secret_value().strip() if key is not None else ""
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise ConfigError("embedding.api_key holds blanks or characters beyond ASCII; copy the key again")
    return SecretStr(text) if text else None


def _rows(answer: Any, count: int) -> list[Any]:
    """The vectors in order of their `index` (servers may answer in any order; some leave it out). Raises ValueError."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(d, dict) and isinstance(d.get("embedding"), list) for d in data):
        raise ValueError("no list of embeddings in it")
    if len(data) != count:
        raise ValueError(f"{len(data)} vectors for {count} texts")
    if any("index" in d for d in data):
        places = {d.get("index"): d["embedding"] for d in data if isinstance(d.get("index"), int)}
        if places.keys() != set(range(count)):
            raise ValueError("its indexes are not 0 to n-1, once each")
        return [places[i] for i in range(count)]
    return [d["embedding"] for d in data]


def _said(raw: bytes) -> tuple[str, str]:
    """`(code, message)` of an error body, empty where it has none."""
    try:
        error = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "", ""
    error = error.get("error", error) if isinstance(error, dict) else error
    if isinstance(error, dict):
        return str(error.get("code") or ""), str(error.get("message") or error.get("detail") or "")
    return "", error if isinstance(error, str) else ""


def _retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, which is a number or an HTTP date; None for neither."""
    if not value:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
