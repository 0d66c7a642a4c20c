"""One call to a webhook: to the address its name has now, looked at before anything is sent there.

The connection is made to the address that was checked, under the name that was given, so that a name which points elsewhere a
moment later gains nothing. Redirects are not followed, proxies are not used, and of an answer only its status is read.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headwater.embed.endpoint import refuse_private
from headwater.errors import ConfigError, UsageError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 10.0
_MOST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call went: what the receiver answered, or the error before it did. `left` says whether anything was sent."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    left: bool = True
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def busy(self) -> bool:
        """Whether the receiver is not there, or wants nothing now; else it refused this one call."""
        return self.status is None or self.status in (408, 425, 429) or self.status >= 500


def check_url(url: str, *, allow_private: bool) -> None:
    """UsageError for what cannot be called: no http(s), credentials in it, or an address that is not allowed."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.fragment:
        raise UsageError("url must be one of http or https, without a name and password in it")
    check_addresses(host, [host], allow_private=allow_private)


def check_addresses(host: str, addresses: Sequence[str], *, allow_private: bool) -> None:
    """UsageError where a host or an address of it is link-local or one of cloud metadata; loopback, private and other addresses
    that are not of the internet are refused unless they are allowed."""
    try:
        refuse_private(host, addresses)
    except ConfigError:
        raise UsageError(f"{host} is a link-local or cloud-metadata address, which no webhook calls") from None
    if allow_private:
        return
    for text in addresses:
        if text == host and text.rstrip(".").lower() == "localhost":
            raise UsageError(_PRIVATE.format(host))
        try:
            address = ipaddress.ip_address(text.strip("[]").split("%")[0])
        except ValueError:
            continue  # a name: its addresses are looked at when it is called
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not mapped.is_global or mapped.is_multicast:
            raise UsageError(_PRIVATE.format(host))


_PRIVATE = "{} is this machine or in a private network; allow_private (`--allow-private`) says that it is meant"


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses a name has now; OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def call(
    url: str, headers: Mapping[str, str], body: bytes, *, allow_private: bool,
    resolve: Callable[[str, int], Awaitable[list[str]]] = addresses_of,
) -> Outcome:  # fmt: skip
    """POST a body. What goes wrong is in the outcome; nothing is raised."""
    parts, began = urlsplit(url), time.monotonic()
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            addresses = await resolve(host, port)
            check_addresses(host, addresses, allow_private=allow_private)
            outcome = await _post(url, host, addresses, headers, body)
    except TimeoutError:
        outcome = Outcome(error=f"no answer within {TIMEOUT_S:g} s")
    except UsageError as error:
        outcome = Outcome(error=str(error), left=False)
    except (OSError, UnicodeError) as error:
        outcome = Outcome(error=f"{host} is not known: {error}")
    return Outcome(outcome.status, outcome.error, outcome.retry_after_s, outcome.left, round(time.monotonic() - began, 3))


async def _post(url: str, host: str, addresses: Sequence[str], headers: Mapping[str, str], body: bytes) -> Outcome:
    import httpx

    whole = httpx.URL(url)
    sent = {"host": whole.netloc.decode("ascii"), "content-type": "application/json", **headers}
    outcome = Outcome(error=f"{host} has no address")
    async with httpx.AsyncClient(
        timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, verify=whole.scheme == "https"
    ) as client:
        for address in addresses:
            request = client.build_request(
                "POST", whole.copy_with(host=address), content=body, headers=sent, extensions={"sni_hostname": host}
            )
            try:
                reply = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                outcome = Outcome(error=f"cannot connect: {error or type(error).__name__}")
                continue  # its next address
            except httpx.HTTPError as error:
                return Outcome(error=f"no answer: {error or type(error).__name__}")
            await reply.aclose()
            return _answered(reply)
    return outcome


def _answered(reply: httpx.Response) -> Outcome:
    status = reply.status_code
    if 200 <= status < 300:
        return Outcome(status)
    more = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"it answered {status}{more}", retry_after_s(reply.headers.get("retry-after", "")))


def retry_after_s(text: str) -> float | None:
    """The seconds that a Retry-After asks for, as seconds or as a date; at most a day."""
    if text.isascii() and text.isdigit():
        return min(float(text), _MOST_WAIT_S)
    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(at.timestamp() - time.time(), 0.0), _MOST_WAIT_S)
