"""An HTTP receiver on this machine that takes webhooks, answers as it is told, and keeps what it got."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Got:
    """One request: its headers (names in small letters) and its body."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def plain(self) -> Any:
        return orjson.loads(self.body)


@dataclass(slots=True)
class Receiver:
    """`answers` are given in turn, `(status, headers)`; then 200. Status 0 breaks the connection without an answer."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)

    def ids(self) -> list[str]:
        return [one.id for one in list(self.got)]


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver while the block runs."""
    receiver = Receiver()

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the sender was killed: half a call is none
                self.close_connection = True
                return
            receiver.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, headers = receiver.answers.popleft() if receiver.answers else (200, {})
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Taking)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(240)
