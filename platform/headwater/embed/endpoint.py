"""Whether an address may be called as a model provider."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from headwater.errors import ConfigError

# names and addresses at which clouds hand credentials to whoever asks from inside
_METADATA = frozenset(
    {"metadata", "metadata.google.internal", "metadata.azure.internal", "instance-data", "instance-data.ec2.internal"}
)
_METADATA_ADDRESSES = frozenset({"fd00:ec2::254", "100.100.100.200", "168.63.129.16"})


def check_endpoint(url: str, *, allow_private: bool, section: str = "embedding") -> str:
    """`url` without trailing slashes. ConfigError for what is no http(s) URL, holds credentials, or names a link-local or
    cloud-metadata host (unless `allow_private`). Loopback and private networks are allowed: local servers are welcome.
    `section` is that of the settings it stands in."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{section}.base_url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{section}.base_url must look like https://host/v1 or http://localhost:11434/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        key = f"HEADWATER_{section.upper()}_API_KEY"
        raise ConfigError(f"{section}.base_url must not hold credentials or a query; set {key} instead")
    if not allow_private:
        refuse_private(host, [host], section=section)
    return url.rstrip("/")


def refuse_private(host: str, addresses: Iterable[str], *, section: str = "embedding") -> None:
    """ConfigError when `host` is a metadata name or one of its addresses is link-local or a metadata address."""
    wrong = host.rstrip(".").lower() in _METADATA
    for text in addresses:
        address = _address(text)
        mapped = getattr(address, "ipv4_mapped", None) or address
        wrong = wrong or (mapped is not None and (mapped.is_link_local or str(mapped) in _METADATA_ADDRESSES))
    if wrong:
        raise ConfigError(
            f"{section}.base_url: {host} is a link-local or cloud-metadata address, where no model server belongs; "
            f"set {section}.allow_private_urls if it is meant"
        )


def is_loopback(host: str) -> bool:
    address = _address(host)
    return host.lower().rstrip(".") == "localhost" or (address is not None and address.is_loopback)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address a host is written as, in any form the system's resolver takes (also 2852039166 or 0xa9.254.1.1)."""
    bare = text.strip("[]").split("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(bare))
        except (OSError, UnicodeEncodeError):
            return None
