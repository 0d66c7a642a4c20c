"""Syslog over UDP and TCP as a source.

TCP: both framings of RFC 6587, told apart frame by frame (`83 <34>1 ...` counts octets, else a line ends the message). A
sender is held back when the log is slow: no more is read than a batch beside the one that is being stored. UDP cannot be
held back: datagrams wait in a bounded queue, and what finds no room is dropped and counted, as is what the
system drops (Linux tells).

There is no resume. Syslog has no acknowledgement, so what was read and not yet stored when the process is killed is gone:
at most two batches over TCP, and the queue over UDP. Ended in good order, the source stores what it has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Literal

from headwater.errors import StorageError
from headwater.sources import Batch, Condition, State
from headwater.sources.syslog_parse import SyslogParser

_CHUNK_BYTES = 64 << 10
_COUNTED = re.compile(rb"([1-9][0-9]{0,8}) (?=<)")
_MAYBE_COUNTED = re.compile(rb"[1-9][0-9]{0,8} ?$")  # the begin of a count, cut off by the end of what has come
_RECEIVE_BYTES = 8 << 20  # asked for as the socket's buffer; the system may give less
_AT_ONCE = 1000  # datagrams taken before anything else has its turn
_LOOK_S = 1.0  # between two looks at what the system has dropped
_MOST_CONNECTIONS = 1024


class Syslog:
    """Source of what is sent to a port. `batches` listens for as long as it runs; `port` 0 takes a free one (see `ports`)."""

    kind = "syslog"

    def __init__(
        self,
        topic: str,
        *,
        name: str = "syslog",
        host: str = "127.0.0.1",
        port: int = 5514,
        transport: Literal["both", "udp", "tcp"] = "both",
        queue: int = 20_000,
        max_message_bytes: int = 65_536,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_client_ca: str | None = None,
        batch_records: int = 2000,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.topic, self.name = topic, name
        self._host, self._port, self._transport = host, port, transport
        self._queue, self._most_bytes, self._batch_records = queue, max_message_bytes, batch_records
        self._tls = (tls_cert, tls_key, tls_client_ca)
        self._parser, self._now_ms = SyslogParser(now_ms), now_ms
        self.counts = {"dropped": 0, "connections": 0}
        self.ports: dict[str, int] = {}
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._being_stored, self._state = 0, "starting"
        self._system_drops = 0
        self._arrived, self._room, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def condition(self) -> Condition:
        return Condition(self._state, None, dict(self.counts))

    def stop(self) -> None:
        """Listen no more; `batches` ends when it has handed out what has come."""
        self._stopping.set()
        self._arrived.set()

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        """Endless until `stop`. `state` is not used and the batches' states are empty."""
        self._stopping.clear()
        self._being_stored = 0
        stream = f"syslog:{self.name}"
        async with contextlib.AsyncExitStack() as open_:
            await self._listen(open_)
            at = ", ".join(f"{kind} port {port}" for kind, port in self.ports.items())
            self._state = f"listening on {self._host} {at}"
            while not self._stopping.is_set():
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    for batch in self._hand_out(stream):
                        yield batch
        for batch in self._hand_out(stream):
            yield batch
        self._state = "ended"

    def _hand_out(self, stream: str) -> Iterator[Batch]:
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._batch_records))]
            self._being_stored = len(taken)
            drafts = [self._parser.draft(message, peer) for message, peer in taken]
            yield Batch([draft for draft in drafts if draft.value], {}, stream, len(self._waiting))
            self._being_stored = 0
            self._room.set()

    # ------------------------------------------------------------------ listening

    async def _listen(self, open_: contextlib.AsyncExitStack) -> None:
        loop = asyncio.get_running_loop()
        port = self._port
        try:
            if self._transport != "udp":  # first: a port that is free for TCP is nearly always free for UDP
                server = await asyncio.start_server(
                    self._connection, self._host, port, limit=_CHUNK_BYTES, ssl=_context(*self._tls)
                )
                open_.push_async_callback(self._close, server)
                port = self.ports["tcp"] = server.sockets[0].getsockname()[1]
            if self._transport != "tcp":
                family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
                receiver = socket.socket(family, socket.SOCK_DGRAM)
                open_.callback(receiver.close)
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
                receiver.setblocking(False)
                receiver.bind((self._host, port))
                self.ports["udp"] = receiver.getsockname()[1]
                loop.add_reader(receiver.fileno(), self._receive, receiver)
                open_.callback(loop.remove_reader, receiver.fileno())
                open_.callback(self._receive, receiver)  # at the end, what has come by then
                counting = asyncio.create_task(self._count_system_drops(os.fstat(receiver.fileno()).st_ino))
                open_.callback(counting.cancel)
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(
                f"cannot listen for syslog on {self._host} port {port}: {reason}; choose another port"
            ) from error

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _receive(self, receiver: socket.socket) -> None:
        """Take what the system holds, many at a time: its buffer is small."""
        for _ in range(_AT_ONCE):
            try:
                data, peer = receiver.recvfrom(_CHUNK_BYTES)
            except BlockingIOError:
                break
            except OSError:  # what a datagram we never sent was answered with; those that wait are still to be had
                continue
            if len(self._waiting) >= self._queue:
                self.counts["dropped"] += 1
            elif data := data.rstrip(b"\r\n\0"):
                self._waiting.append((data, str(peer[0])))
        self._arrived.set()

    async def _count_system_drops(self, inode: int) -> None:
        """Add what the system dropped because its own buffer was full, where /proc tells."""
        while True:
            drops = await asyncio.to_thread(_system_drops, inode)
            if drops is None:
                return
            self.counts["dropped"] += drops - self._system_drops
            self._system_drops = drops
            await asyncio.sleep(_LOOK_S)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= _MOST_CONNECTIONS:
            self.counts["refused"] = self.counts.get("refused", 0) + 1
            writer.close()
            return
        self._tasks.add(task)
        self.counts["connections"] += 1
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        frames = Frames(self._most_bytes)
        try:
            while True:
                while len(self._waiting) + self._being_stored >= 2 * self._batch_records:
                    self._room.clear()
                    await self._room.wait()
                data = await reader.read(_CHUNK_BYTES)
                for message in frames.feed(data) if data else frames.rest():
                    self._waiting.append((message, peer))
                if self._waiting:
                    self._arrived.set()
                if not data:
                    return
        except OSError:  # the connection is broken, or what comes is not TLS
            self._waiting.extend((message, peer) for message in frames.rest())
            self._arrived.set()
        except asyncio.CancelledError:
            self._waiting.extend((message, peer) for message in frames.rest())
        finally:
            self._tasks.discard(task)
            self.counts["connections"] -= 1
            writer.close()


def _context(cert: str | None, key: str | None, client_ca: str | None) -> ssl.SSLContext | None:
    """How connections are encrypted; None where they are not. StorageError for certificates that cannot be read."""
    if cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise StorageError(f"the certificates of syslog ({cert}) cannot be used: {error}") from error
    return context


class Frames:
    """Cuts what comes over one connection into messages. One longer than `most_bytes` is cut into several."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, b""
        self._left = 0  # octets still to come of a counted message that was cut

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete now, without their framing; empty ones are left out."""
        held, at = self._held + data, 0
        while at < len(held):
            found = None if self._left else _COUNTED.match(held, at)
            if self._left or found is not None:
                start = at if found is None else found.end()
                size = self._left if found is None else int(found[1])
                take = min(size, self._most)
                if len(held) - start < take:
                    break
                yield held[start : start + take]
                self._left, at = size - take, start + take
                continue
            end = held.find(b"\n", at)
            if end < 0 and (_MAYBE_COUNTED.match(held, at) or len(held) - at < self._most):
                break
            cut = end if 0 <= end - at <= self._most else at + self._most
            if message := held[at:cut].rstrip(b"\r\n\0"):
                yield message
            at = cut + 1 if cut == end else cut
        self._held = held[at:]

    def rest(self) -> Iterator[bytes]:
        """What is left when the connection ends: a message without its end."""
        rest, self._held = self._held, b""
        found = None if self._left else _COUNTED.match(rest)
        if message := rest[found.end() if found else 0 :].rstrip(b"\r\n\0"):
            yield message


def _system_drops(inode: int) -> int | None:
    """What Linux has dropped of a UDP socket so far; None where it does not tell."""
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            return None
        for line in lines:
            fields = line.split()
            if fields[9] == str(inode):
                return int(fields[12])
    return None
