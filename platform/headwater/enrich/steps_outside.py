"""Steps that leave Headwater: a call over HTTP, and a Python function that another package brings."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import inspect
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio.to_thread
import orjson

from headwater.embed.endpoint import is_loopback, refuse_private
from headwater.enrich.items import Outcome, Space, Unit
from headwater.enrich.labelling import AT_ONCE, beside
from headwater.errors import ConfigError, HeadwaterError, UnreachableError, UsageError
from headwater.records.labels import Cost
from headwater.records.models import Usage

if TYPE_CHECKING:
    import httpx

ENTRY_POINTS = "headwater.steps"  # name -> callable(text, fields, **with)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MOST_BYTES = 1 << 20  # of an answer
_YIELDS = 1000


class Http:
    """A service that is sent `{"text", "fields"}` and answers with JSON. It may be anywhere but at link-local and metadata
    addresses; redirects are not followed. 5xx and 429 hold the pipeline up, other refusals fail the record."""

    cost: Cost = "network"
    uses_fields, keeps, compares = True, True, False

    def __init__(
        self, config: Mapping[str, Any], environment: Mapping[str, str], timeout_s: float, at_once: int = AT_ONCE
    ) -> None:
        self._url, self._method = str(config["url"]), config.get("method", "POST")
        self._private, self._timeout_s, self._at_once = bool(config.get("allow_private")), timeout_s, at_once
        parts = urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise UsageError("url must be one of http or https, without a name and password in it")
        self._host = parts.hostname
        self._headers = {name: _resolved(text, environment) for name, text in (config.get("headers") or {}).items()}
        self._refuse([self._host])
        self._client: httpx.AsyncClient | None = None

    def _refuse(self, addresses: Sequence[str]) -> None:
        if not self._private:
            try:
                refuse_private(self._host, addresses)
            except ConfigError:
                raise UsageError(
                    f"{self._host} is a link-local or cloud-metadata address; set allow_private if it is meant"
                ) from None

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        return await beside([functools.partial(self._call, unit) for unit in units], None, self._at_once)

    async def _call(self, unit: Unit) -> Outcome | HeadwaterError:
        import httpx

        client = await self._connected()
        try:
            if self._method == "GET":
                request = client.build_request("GET", self._url, params={"text": unit.text}, headers=self._headers)
            else:
                body = orjson.dumps({"text": unit.text, "fields": unit.item.fields})
                headers = {"content-type": "application/json", **self._headers}
                request = client.build_request("POST", self._url, content=body, headers=headers)
            reply = await client.send(request, stream=True)
            try:
                raw = bytearray()
                async for part in reply.aiter_bytes():
                    raw += part
                    if len(raw) > _MOST_BYTES:
                        return UsageError(f"{self._url} answered with more than {_MOST_BYTES:,} bytes")
            finally:
                await reply.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise UnreachableError(f"{self._url} cannot be reached: {error or type(error).__name__}") from error
        return self._answer(reply.status_code, bytes(raw))

    def _answer(self, status: int, raw: bytes) -> Outcome | HeadwaterError:
        if status == 429 or status >= 500:
            raise UnreachableError(f"{self._url} answered {status}")
        if status >= 300:
            return UsageError(f"{self._url} answered {status}: {raw[:200].decode('utf-8', 'replace')}")
        if status == 204 or not raw.strip():
            return Outcome()
        try:
            return Outcome(orjson.loads(raw))
        except orjson.JSONDecodeError:
            return UsageError(f"{self._url} answered with something that is not JSON")

    async def _connected(self) -> httpx.AsyncClient:
        """The client; a name that resolves to a link-local address is refused before the first call."""
        import httpx

        if self._client is None:
            near = is_loopback(self._host)
            if not near and not self._private:
                try:
                    found = await asyncio.get_running_loop().getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
                except OSError as error:
                    raise UnreachableError(f"{self._host} is not known: {error}") from error
                self._refuse([str(entry[4][0]) for entry in found])
            self._client = httpx.AsyncClient(timeout=self._timeout_s, follow_redirects=False, trust_env=not near)
        return self._client

    def used(self) -> Usage:
        return Usage()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class Python:
    """A function of an installed package, by the name of its entry point: `call(text, fields, **with)`. It gives a value, or a
    mapping of fields; one that yields gives several mappings, which are joined. It may be async."""

    cost: Cost = "local"
    uses_fields, keeps, compares = True, True, False

    def __init__(self, config: Mapping[str, Any], at_once: int) -> None:
        self._call, self._at_once = entry_point(str(config["call"])), at_once
        self._with = dict(config.get("with") or {})

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        return await beside([functools.partial(self._one, unit) for unit in units], None, self._at_once)

    async def _one(self, unit: Unit) -> Outcome | HeadwaterError:
        given, joined = (unit.text, dict(unit.item.fields)), _Joined(unit.hears)
        try:
            if inspect.isasyncgenfunction(self._call):
                async for part in self._call(*given, **self._with):
                    joined.add(part)
                found: Any = joined.fields
            elif inspect.iscoroutinefunction(self._call):
                found = await self._call(*given, **self._with)
            else:
                work = functools.partial(_called, self._call, given, self._with, joined)
                found = await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
            orjson.dumps(found)
        except HeadwaterError as error:
            return error
        except Exception as error:  # what a function of somebody else raises is a failure of this record
            return UsageError(f"{type(error).__name__}: {error}")
        return Outcome(found)

    def used(self) -> Usage:
        return Usage()

    async def aclose(self) -> None:
        return


def entry_point(name: str) -> Callable[..., Any]:
    """The function that an installed package offers under a name; UsageError where none does."""
    found = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = f"there are {', '.join(sorted(found))}" if found else "no installed package has any"
        raise UsageError(f"no entry point {name!r} of the group {ENTRY_POINTS}; {known}")
    try:
        loaded = found[name].load()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the entry point {name!r} cannot be loaded: {error}") from error
    if not callable(loaded):
        raise UsageError(f"the entry point {name!r} is not a function")
    return loaded  # type: ignore[no-any-return]  # whatever it is, it is called


class _Joined:
    """What a function that yields has given so far, told to whoever waits for it."""

    def __init__(self, hears: Callable[[Mapping[str, Any]], None] | None) -> None:
        self.fields: dict[str, Any] = {}
        self._hears, self._count = hears, 0

    def add(self, part: Any) -> None:
        if not isinstance(part, Mapping):
            raise UsageError("a function that yields gives mappings of fields")
        self._count += 1
        if self._count > _YIELDS:
            raise UsageError(f"it yields more than {_YIELDS:,} times")
        self.fields |= part
        if self._hears is not None:
            orjson.dumps(part)  # what is no JSON fails here, and is told to nobody
            self._hears(part)


def _called(call: Callable[..., Any], given: tuple[str, dict[str, Any]], arguments: Mapping[str, Any], joined: _Joined) -> Any:
    found = call(*given, **arguments)
    if not isinstance(found, Iterator):
        return found
    for part in found:
        joined.add(part)
    return joined.fields


def _resolved(text: str, environment: Mapping[str, str]) -> str:
    """A header with its variables in place. Only those named PIPELINE_... can be asked for: whoever may make a pipeline may not
    read all that this process knows."""

    def value(found: re.Match[str]) -> str:
        if not found[1].startswith("PIPELINE_"):
            raise UsageError(f"a header may name variables that begin with PIPELINE_, not {found[1]}")
        if found[1] not in environment:
            raise UsageError(f"the environment variable {found[1]} is not set")
        return environment[found[1]]

    return _VARIABLE.sub(value, text)
