"""What a service manager is told of this process: ready, stopping, still alive. systemd's notify protocol, sd_notify(3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping


def tell(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send `state`, such as `READY=1`, to the socket in NOTIFY_SOCKET; False where there is none or nobody listens."""
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)  # a manager that is behind with reading must not hold up the loop
        try:
            out.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            out.sendall(state.encode())
        except OSError:  # nor one that does not listen end the daemon
            return False
    return True


def interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """How often to say that this process is alive: half of what the manager waits (WATCHDOG_USEC); None where it does not."""
    waits_us, meant = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not waits_us.isdecimal() or int(waits_us) == 0 or (meant and meant != str(os.getpid())):
        return None
    return int(waits_us) / 2_000_000


@contextlib.asynccontextmanager
async def served(url: str, environment: Mapping[str, str] = os.environ) -> AsyncIterator[None]:
    """Inside, requests are answered at `url`: the manager is told so, that the loop still turns, and when that ends."""
    tell(f"READY=1\nSTATUS=serving {url}", environment)
    each_s = interval_s(environment)
    alive = None if each_s is None else asyncio.create_task(_alive(each_s, environment))
    try:
        yield
    finally:
        tell("STOPPING=1\nSTATUS=storing what was read", environment)
        if alive is not None:
            alive.cancel()


async def _alive(each_s: float, environment: Mapping[str, str]) -> None:
    while True:
        tell("WATCHDOG=1", environment)
        await asyncio.sleep(each_s)
