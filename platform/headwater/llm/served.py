"""The seam that every chat model behind HTTP shares: a provider says which pydantic-ai model speaks to it; the rest is here.

pydantic-ai knows the wire formats; this module is the only one that calls it, and translates what it raises. Its own tries
and fallbacks stay off: they are the Caller's and the Chat's, which count what each try took.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from headwater.config import LlmSettings
from headwater.embed.endpoint import check_endpoint, is_loopback, refuse_private
from headwater.embed.fault import Fault
from headwater.errors import ConfigError
from headwater.llm.provider import MEND, Prompt, Provider, Reply
from headwater.llm.translation import counted, messages_of, parameters_of, said_in, settings_of
from headwater.records.models import Finish

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model

KEY, URL = "HEADWATER_LLM_API_KEY", "HEADWATER_LLM_BASE_URL"
ANSWER_MAX_BYTES = 16 << 20
_CONNECT_S = 10.0
_NO_KEY = "none"  # libraries insist on one; a server that needs none ignores it


class Served(Provider):
    """A model behind HTTP. The key is sent to the endpoint only, redirects are not followed, and no error shows the key.

    A provider sets `kind` (names are `KIND:MODEL`) and writes `build`."""

    kind: ClassVar[str]
    default_url: ClassVar[str] = ""  # empty: base_url must be given
    example_url: ClassVar[str] = ""  # for the error that asks for base_url
    hosts: ClassVar[tuple[str, ...]] = ()  # the provider's own, and those below them: they need a key
    variables: ClassVar[tuple[str, ...]] = ()  # its well-known keys, which go to `hosts` by https and nowhere else
    free_elsewhere: ClassVar[bool] = False  # what is not at `hosts` runs on machines of one's own

    def __init__(self, model: str, settings: LlmSettings, env: Mapping[str, str], *, name: str | None = None) -> None:
        self.name, self._model_name = name or f"{self.kind}:{model}".rstrip(":"), model
        self.url = check_endpoint(self.endpoint(settings, env), allow_private=settings.allow_private_urls, section="llm")
        self.version = self.url
        self._secret = _usable_key(self._found_key(settings.api_key, env))
        self.key = self._secret is not None if self.at_home(self.url) or self._secret is not None else None
        self.context_tokens = settings.context_tokens or self.context_tokens
        self.free = self.free_elsewhere and not self.at_home(self.url)
        if settings.price_input is not None or settings.price_output is not None:
            self.prices = (settings.price_input or 0.0, settings.price_output or 0.0)
        self._allow_private = settings.allow_private_urls
        self._http: httpx2.AsyncClient | None = None
        self._model: Model | None = None
        self._building = asyncio.Lock()

    @abstractmethod
    def build(self, http: httpx2.AsyncClient, key: str) -> Model:
        """The pydantic-ai model that speaks to this server, over `http`, without tries of its own."""

    def authorization(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key, for what is asked besides the model."""
        return {"Authorization": f"Bearer {key}"}

    @classmethod
    def endpoint(cls, settings: LlmSettings, env: Mapping[str, str]) -> str:
        """The address as it is called. ConfigError where one must be given."""
        url = settings.base_url or cls.default_url
        if not url:
            raise ConfigError(f"{cls.kind} needs the address of its server. {MEND}export {URL}={cls.example_url}")
        return url.rstrip("/")

    @classmethod
    def at_home(cls, url: str) -> bool:
        """Whether this is the provider's own host, asked by https: where its well-known key may go."""
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        return parts.scheme == "https" and any(host == own or host.endswith(f".{own}") for own in cls.hosts)

    def _found_key(self, given: SecretStr | None, env: Mapping[str, str]) -> SecretStr | None:
        if given is not None or not self.at_home(self.url or ""):
            return given
        key = next((env[v] for v in self.variables if env.get(v)), None)
        if key is None:
            names = " or ".join([*self.variables, KEY])
            raise ConfigError(
                f"{self.name} needs a key: set {names}; for a server of your own set llm.base_url. "
                f"{MEND}export {self.variables[0] if self.variables else KEY}=YOUR_KEY"
            )
        return SecretStr(key)

    # ------------------------------------------------------------------ the two methods

    async def complete(self, prompt: Prompt) -> Reply:
        model = await self._ready()
        from pydantic_ai.direct import model_request

        with self._translated():
            response = await model_request(
                model,
                messages_of(prompt),
                model_settings=settings_of(prompt),
                model_request_parameters=parameters_of(model, prompt),
            )
        return self._reply(response)

    async def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        model = await self._ready()
        from pydantic_ai.direct import model_request_stream
        from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

        length = 0
        with self._translated():
            opening = model_request_stream(
                model,
                messages_of(prompt),
                model_settings=settings_of(prompt),
                model_request_parameters=parameters_of(model, prompt),
            )
            async with opening as response:
                async for event in response:
                    text = ""
                    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                        text = event.delta.content_delta
                    elif isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                        text = event.part.content
                    if text:
                        length += len(text)
                        if length > ANSWER_MAX_BYTES:
                            raise Fault(f"{self.url} answered with more than {ANSWER_MAX_BYTES >> 20} MiB", passes=False)
                        yield text
                whole = response.get()
        if whole.finish_reason is None:
            raise Fault("the stream ended before its end", passes=True)
        yield self._reply(whole)

    async def check(self) -> None:
        """One look at the server's list of models."""
        found = await self.listed()
        if found is not None and self._model_name and self._model_name not in found:
            raise Fault(f"{self.url} knows no model {self._model_name!r}", passes=False, status=404)

    async def listed(self) -> list[str] | None:
        """The models the server says it has; None where it does not say."""
        answer = await self.get("/models")
        data = answer.get("data") if isinstance(answer, dict) else None
        return [str(d.get("id")) for d in data if isinstance(d, dict)] if isinstance(data, list) else None

    async def get(self, path: str) -> Any:
        """The JSON at a path below the endpoint; None where there is no such path. Raises Fault."""
        import httpx2

        http = await self._connected()
        headers = {} if self._secret is None else self.authorization(self._secret.get_secret_value())
        try:
            answer = await http.get(f"{self.url}{path}", headers=headers)
        except httpx2.HTTPError as error:
            absent = 0 if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout) else None
            raise Fault(f"cannot talk to {self.url}: {self._masked(error)}", passes=True, status=absent) from error
        if answer.status_code in (404, 405):
            return None
        if answer.status_code != 200:
            raise self._refusal(answer.status_code, answer.text[:300], None)
        with contextlib.suppress(ValueError):
            return answer.json()
        return None

    def remedy(self, fault: Fault) -> str:
        if fault.status in (401, 403):
            return f"export {self.variables[0] if self.variables and self.at_home(self.url or '') else KEY}=YOUR_KEY"
        return ""

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        self._http = self._model = None

    # ------------------------------------------------------------------ wiring

    async def _ready(self) -> Model:
        """The model; the first call imports pydantic-ai, which takes seconds, beside the loop."""
        if self._model is None:
            async with self._building:
                if self._model is None:
                    await self.start()
                    http = await self._connected()
                    key = _NO_KEY if self._secret is None else self._secret.get_secret_value()
                    self._model = await asyncio.to_thread(self._built, http, key)
        return self._model

    async def start(self) -> None:
        """Bring the server up, where it is ours. Raises Fault."""
        return

    async def ready(self) -> None:
        await self._ready()

    async def warm(self) -> None:
        await self._ready()

    def _built(self, http: httpx2.AsyncClient, key: str) -> Model:
        try:
            import pydantic_ai.direct
            import pydantic_ai.models  # noqa: F401  # both take long, and are needed by the first call

            return self.build(http, key)
        except ImportError as error:
            raise Fault(f"a library is missing: {error.name}", passes=False) from error

    async def _connected(self) -> httpx2.AsyncClient:
        """The client; before the first call, a host name that resolves to a link-local address is refused."""
        if self._http is None:
            import httpx2

            host = urlsplit(self.url or "").hostname or ""
            near = is_loopback(host)
            if not near and not self._allow_private:
                with contextlib.suppress(OSError):  # a proxy may know a name that we do not: let the request say so
                    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
                    refuse_private(host, [str(entry[4][0]) for entry in found], section="llm")
            # how long an answer may take is the Caller's to say; proxies come from the environment, but none stands between
            # us and a local server
            self._http = httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=_CONNECT_S),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self.concurrency),
                follow_redirects=False,
                trust_env=not near,
                event_hooks={"response": [_bounded]},
            )
        return self._http

    # ------------------------------------------------------------------ what came back

    def _reply(self, response: ModelResponse) -> Reply:
        from pydantic_ai.messages import TextPart

        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        finishes: Mapping[str, Finish] = {"length": "length", "content_filter": "filtered"}
        given = counted(response.usage)
        return Reply(text, *given, finishes.get(str(response.finish_reason), "stop"))

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """Everything that a call can raise, as a Fault."""
        import httpx2
        from pydantic_ai.exceptions import AgentRunError, UserError

        try:
            yield
        except AgentRunError as error:
            raise self._fault(error) from self._presentable(error)
        except UserError as error:
            raise Fault(self._masked(error), passes=False) from self._presentable(error)
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Fault(f"cannot talk to {self.url}: {self._masked(error)}", passes=True) from self._presentable(error)
        except _TooMuch as error:
            raise Fault(f"{self.url} answered with more than {ANSWER_MAX_BYTES >> 20} MiB", passes=False) from error
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
        ) as error:  # of libraries, over an answer without its parts
            raise Fault(f"unusable answer from {self.url}: {self._masked(error)[:160]}", passes=True) from self._presentable(
                error
            )

    def _fault(self, error: Exception) -> Fault:
        from pydantic_ai import exceptions as of

        if isinstance(error, of.ModelHTTPError):
            fault = self._refusal(error.status_code, said_in(error), error.retry_after)
            if isinstance(error, of.ModelQuotaExceededError):
                said = f"the account behind the key has no quota left ({error.status_code}): {self._masked(said_in(error))}"
                return Fault(said, passes=False, retry_after_s=error.retry_after, status=error.status_code)
            if isinstance(error, of.ModelContextWindowExceededError):
                fault = Fault(str(fault), passes=False, status=error.status_code, too_large=True)
            fault.status = None if error.in_stream else fault.status  # the model had begun
            return fault
        if isinstance(error, of.ModelConnectionError):
            unsent = 0 if error.phase in ("connect", "pool") else None
            return Fault(f"cannot talk to {self.url}: {self._masked(error.message)}", passes=True, status=unsent)
        status = getattr(error.__cause__, "status_code", None)
        if isinstance(status, int) and 300 <= status < 400:
            return self._refusal(status, "", None)
        return Fault(f"unusable answer from {self.url}: {self._masked(error)[:160]}", passes=True)

    def _refusal(self, status: int, text: str, retry_after_s: float | None) -> Fault:
        said = f": {self._masked(text)}" if text else ""
        if 300 <= status < 400:
            told = f"{self.url} redirects ({status}); redirects are not followed, set llm.base_url to the final address"
            return Fault(told, passes=False, status=status)
        if status in (401, 403):
            names = " or ".join([KEY, *(self.variables if self.at_home(self.url or "") else ())])
            return Fault(f"{self.url} refused the key ({status}){said}; check {names}", passes=False, status=status)
        if status == 404:
            told = f"{self.url} knows no model {self._model_name!r} or no such path (404){said}"
            return Fault(told, passes=False, status=status)
        passes = status in (408, 409, 425, 429) or (status >= 500 and status != 501)
        return Fault(f"{self.url} answered {status}{said}", passes=passes, retry_after_s=retry_after_s, status=status)

    def _presentable(self, error: BaseException) -> BaseException | None:
        """The error as a cause; None where its words, or those of its own causes, show the key: servers quote what they got."""
        step: BaseException | None = error
        while step is not None and self._secret is not None:
            if self._secret.get_secret_value() in f"{step} {step!r}":
                return None
            step = step.__cause__ or step.__context__
        return error

    def _masked(self, what: object) -> str:
        """At most 300 printable characters of what was said, without the key."""
        text = str(what) or type(what).__name__
        if self._secret is not None:
            text = text.replace(self._secret.get_secret_value(), "********")
        return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+", " ", text)[:300].strip()


class _TooMuch(Exception):
    """An answer beyond all measure."""


async def _bounded(response: httpx2.Response) -> None:
    """Let at most ANSWER_MAX_BYTES of a body through."""
    import httpx2

    inner = response.stream

    class Bounded(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            read = 0
            assert isinstance(inner, httpx2.AsyncByteStream)
            async for part in inner:
                read += len(part)
                if read > ANSWER_MAX_BYTES:
                    raise _TooMuch
                yield part

        async def aclose(self) -> None:
            assert isinstance(inner, httpx2.AsyncByteStream)
            await inner.aclose()

    response.stream = Bounded()


def _usable_key(key: SecretStr | None) -> SecretStr | None:
    """The key, stripped; ConfigError (which does not show it) when it cannot stand in a header. An HTTP library would
    put such a key into its own error."""
    text = key.get_secret_value().strip() if key is not None else ""
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise ConfigError("llm.api_key holds blanks or characters beyond ASCII; copy the key again")
    return SecretStr(text) if text else None
