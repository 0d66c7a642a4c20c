"""The seam that every embedder behind HTTP shares: a provider says what it sends and how it reads the answer; the rest is here.

Faults that pass (429, 408, 5xx, timeouts, broken connections, answers that make no sense) are tried again with
exponential back-off and jitter (Brooker, "Exponential Backoff And Jitter", 2015); a Retry-After is waited for up
to a bound. Faults that stay (400, 401, 403, 404, a redirect, an empty quota) fail at once with what to mend.
What a server calls too large is sent again in halves, and a single text that it calls too long is shown half of.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import socket
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import orjson
from pydantic import SecretStr

from headwater.embed.embedder import Embedder, Kind, unit_rows
from headwater.embed.endpoint import check_endpoint, is_loopback, refuse_private
from headwater.embed.fault import Fault, Pace, retry_after_s, said_by
from headwater.errors import ConfigError, EmbedError

if TYPE_CHECKING:
    import httpx

    from headwater.embed.embedder import Vectors

BACKOFF_S, BACKOFF_MAX_S = 0.5, 20.0
RETRY_AFTER_MAX_S = 60.0  # a provider that asks for longer is given up on at once; the error says how long
ANSWER_MAX_BYTES = 64 << 20
SHORTEST_BYTES = 64  # a text this short that is refused as too long is not the reason
MEND = "To mend it: "  # what follows it in an error is a command, for `doctor` to end with
KEY, URL = "HEADWATER_EMBEDDING_API_KEY", "HEADWATER_EMBEDDING_BASE_URL"


@dataclass(frozen=True, slots=True)
class Request:
    """What one call sends: `path` follows the endpoint."""

    path: str
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class RemoteEmbedder(Embedder):
    """A model behind HTTP. The key is sent to the endpoint only, redirects are not followed, and no error shows the key.

    A provider sets `provider` (names are `provider:model`) and writes `request` and `vectors`. `sleep`, `clock`
    (monotonic), `now` (epoch) and `rng` are what waiting and jitter are made of. A text is cut at 8,000 bytes: byte-level
    BPE makes no more tokens of it than the 8,191 that the hosted models take."""

    provider: ClassVar[str]
    default_url: ClassVar[str] = ""  # empty: base_url must be given
    example_url: ClassVar[str] = ""  # for the error that asks for base_url
    hosts: ClassVar[tuple[str, ...]] = ()  # the provider's own, and those below them: they need a key
    variables: ClassVar[tuple[str, ...]] = ()  # its well-known keys, which go to `hosts` by https and nowhere else
    most_texts: ClassVar[int] = 2048  # in one request, by the provider's rule
    one_by_one = False  # whether the server takes one text a request

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
        prefix: Mapping[Kind, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(dimension=dimension)
        self.name, self.model = f"{self.provider}:{model}", model
        self.batch_size = min(batch_size, self.most_texts)
        self.url = check_endpoint(self._endpoint(base_url), allow_private=allow_private_urls)
        self.asked_dimension = dimension
        self._key, self._prefix = _usable_key(api_key), {k: v for k, v in (prefix or {}).items() if v}
        self._retries, self._timeout_s, self._allow_private = retries, timeout_s, allow_private_urls
        self._sleep, self._now, self._rng = sleep, now, rng or random.Random()
        self._pace = Pace(requests_per_s, clock, sleep)
        self._client: httpx.AsyncClient | None = None
        self.version = self._mark()

    @abstractmethod
    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        """What asks for the vectors of these texts."""

    @abstractmethod
    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        """The rows in the JSON of an answer, in the order of the texts. ValueError where it holds none."""

    def authorization(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"Authorization": f"Bearer {key}"}

    def remedy(self, status: int, said: str) -> str:
        """The command that mends this refusal, or an absent server (status 0); empty where there is none."""
        return f"export {KEY}=YOUR_KEY" if status in (401, 403) else ""

    def _endpoint(self, base_url: str | None) -> str:
        url = base_url or self.default_url
        if not url:
            raise ConfigError(f"{self.name} needs the address of its server. {MEND}export {URL}={self.example_url}")
        return url

    def _mark(self, *more: str) -> str:
        """Tells vectors of two endpoints, dimensions or prefixes of one name apart."""
        parts = [self.url, str(self.asked_dimension), *(f"{k}={v}" for k, v in sorted(self._prefix.items())), *more]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        before = self._prefix.get(kind, "")
        return await self._fitted([before + text for text in texts], kind)

    async def _fitted(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """The rows of these texts, asked for in halves as often as the server finds them too many or too long."""
        import numpy as np

        if self.one_by_one and len(texts) > 1:  # each with its own tries: what came is not asked for again
            return np.concatenate([await self._fitted([text], kind) for text in texts])
        try:
            return await self._persist(texts, kind)
        except _TooLarge as fault:
            raw = texts[0].encode()
            if len(texts) == 1 and len(raw) <= SHORTEST_BYTES:
                raise EmbedError(f"{self.name}: {fault}") from fault.__cause__
            if fault.too_many:
                self.batch_size = min(self.batch_size, max(1, len(texts) // 2))
        if len(texts) == 1:
            return await self._fitted([raw[: len(raw) // 2].decode("utf-8", "ignore")], kind)
        middle = len(texts) // 2
        halves = [await self._fitted(part, kind) for part in (texts[:middle], texts[middle:])]
        if halves[0].shape[1] != halves[1].shape[1]:
            raise EmbedError(f"{self.name} answered with vectors of {halves[0].shape[1]} and of {halves[1].shape[1]} numbers")
        return np.concatenate(halves)

    async def _persist(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """One answer, after at most `retries` more tries. EmbedError; _TooLarge where fewer or shorter texts may do."""
        for attempt in range(self._retries + 1):
            await self._pace.turn()
            fault: Fault | None = None
            try:
                return await self.call(texts, kind)
            except Fault as caught:
                fault = caught
            if fault.too_large:
                raise _TooLarge(str(fault))
            asked = fault.retry_after_s or 0.0
            if not fault.passes or attempt == self._retries or asked > RETRY_AFTER_MAX_S:
                tries = f" (tried {attempt + 1} times)" if attempt else ""
                remedy = self.remedy(fault.status, str(fault)) if fault.status is not None else ""
                mend = f". {MEND}{remedy}" if remedy else ""
                raise EmbedError(f"{self.name}: {fault}{tries}{mend}", retry_after_s=fault.retry_after_s) from fault.__cause__
            wait = min(BACKOFF_MAX_S, BACKOFF_S * 2**attempt) * self._rng.uniform(0.5, 1.0)
            await self._sleep(max(wait, asked))
        raise AssertionError("unreachable")

    async def call(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """One request, its answer checked. Raises Fault."""
        import httpx

        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, raw = await self._post(self.request(texts, kind))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Fault(f"no answer from {self.url} within {self._timeout_s:g} s", passes=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self._masked(str(error)) or type(error).__name__
            absent = 0 if isinstance(error, httpx.ConnectError) else None
            raise Fault(f"cannot talk to {self.url}: {reason}", passes=True, status=absent) from error
        if status != 200:
            raise self._refusal(status, headers, raw)
        try:
            return unit_rows(self.vectors(orjson.loads(raw), len(texts)), len(texts), dimension=self._dimension, who="it")
        except (orjson.JSONDecodeError, EmbedError, ValueError) as error:
            reason = "an answer that is not JSON" if isinstance(error, orjson.JSONDecodeError) else str(error)
            raise Fault(f"unusable answer from {self.url}: {self._masked(reason)}", passes=True) from error

    async def _post(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        client = await self._connected()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **request.headers}
        if self._key is not None:
            headers |= self.authorization(self._key.get_secret_value())
        content = orjson.dumps(request.body)
        async with client.stream("POST", f"{self.url}{request.path}", content=content, headers=headers) as response:
            raw = bytearray()
            async for part in response.aiter_bytes():
                raw += part
                if len(raw) > ANSWER_MAX_BYTES:
                    raise Fault(f"{self.url} answered with more than {ANSWER_MAX_BYTES >> 20} MiB", passes=False)
            return response.status_code, response.headers, bytes(raw)

    async def _connected(self) -> httpx.AsyncClient:
        """The client; before the first call, a host name that resolves to a link-local address is refused."""
        import httpx

        if self._client is None:
            host = httpx.URL(self.url).host
            near = is_loopback(host)
            if not near and not self._allow_private:
                with contextlib.suppress(OSError):  # a proxy may know a name that we do not: let the request say so
                    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
                    refuse_private(host, [str(entry[4][0]) for entry in found])
            limits = httpx.Limits(max_connections=self.concurrency * 2)
            # proxies come from the environment, but none stands between us and a local server
            self._client = httpx.AsyncClient(timeout=self._timeout_s, limits=limits, follow_redirects=False, trust_env=not near)
        return self._client

    def _refusal(self, status: int, headers: Mapping[str, str], raw: bytes) -> Fault:
        answer = said_by(raw)
        said = f": {self._masked(answer.message)}" if answer.message else ""
        wait = retry_after_s(headers, self._now())
        wait = answer.wait_s if wait is None else wait
        if status == 429 and answer.code == "insufficient_quota":
            return Fault(f"the account behind the key has no quota left (429){said}", passes=False, retry_after_s=wait)
        if status in (401, 403):
            names = " or ".join([KEY, *(self.variables if self.at_home(self.url) else ())])
            return Fault(f"{self.url} refused the key ({status}){said}; check {names}", passes=False, status=status)
        if status == 404:
            text = f"{self.url} knows no model {self.model!r} or no such path (404){said}"
            return Fault(text, passes=False, status=status)
        if 300 <= status < 400:
            text = f"{self.url} redirects ({status}); redirects are not followed, set embedding.base_url to the final address"
            return Fault(text, passes=False)
        if status == 413 or (status in (400, 422, 500) and _TOO_LARGE.search(answer.message)):
            return Fault(f"{self.url} answered {status}{said}", passes=False, status=status, too_large=True)
        passes = status in (408, 425, 429) or (status >= 500 and status != 501)
        return Fault(f"{self.url} answered {status}{said}", passes=passes, retry_after_s=wait, status=status)

    @classmethod
    def at_home(cls, url: str) -> bool:
        """Whether this is the provider's own host, asked by https: where its well-known key may go."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        return parts.scheme == "https" and any(host == own or host.endswith(f".{own}") for own in cls.hosts)

    @classmethod
    def found_key(cls, name: str, url: str, given: SecretStr | None, env: Mapping[str, str]) -> SecretStr | None:
        """The key for this endpoint: as given, else the provider's well-known variable where it may go. ConfigError where
        one is needed and none is there."""
        if given is not None or not cls.at_home(url):
            return given
        key = next((env[v] for v in cls.variables if env.get(v)), None)
        if key is None:
            names = " or ".join([KEY, *cls.variables])
            raise ConfigError(
                f"{name} needs a key: set {names}; for a server of your own set embedding.base_url. {MEND}export {KEY}=YOUR_KEY"
            )
        return SecretStr(key)

    def _masked(self, text: str) -> str:
        """At most 300 printable characters of what a provider said, without the key."""
        if self._key is not None:
            text = text.replace(self._key.get_secret_value(), "********")
        return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+", " ", text)[:300].strip()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class _TooLarge(Exception):
    """The server wants fewer texts at once (`too_many` where it says so), or a shorter one."""

    def __init__(self, text: str) -> None:
        self.too_many = "maximum allowed batch size" in text
        super().__init__(text)


# how servers (TEI, llama.cpp, vLLM, Ollama, OpenAI) say that a text or a batch is beyond them; some with status 400 or 500
_TOO_LARGE = re.compile(
    r"context (length|size|window)|maximum (context|input|sequence|allowed batch)|too (long|large|many tokens)|batch size|"
    r"must have (less|fewer) than \d+ tokens|exceeds? the (model's )?(maximum|max|limit|context)",
    re.IGNORECASE,
)


def _usable_key(key: SecretStr | None) -> SecretStr | None:
    """The key, stripped; ConfigError (which does not show it) when it cannot stand in a header. An HTTP library would
    put such a key into its own error."""
    text = key.get_secret_value().strip() if key is not None else ""
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise ConfigError("embedding.api_key holds blanks or characters beyond ASCII; copy the key again")
    return SecretStr(text) if text else None
