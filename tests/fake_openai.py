"""A server that speaks the wire format of `POST /v1/embeddings`, on loopback, with faults on demand.

    async with FakeOpenAI(["429", "ok"]) as server:      # the first call gets 429, the second an answer, later ones "ok"
        embedder = OpenAIEmbedder("m", base_url=server.url, ...)

Every request is kept in `requests`. Vectors depend on the text only (`vector_of`), so order can be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import types
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

FAULTS = ("429", "429-date", "500", "503", "timeout", "bad-json", "cut", "reset", "count", "dimension", "nan", "null", "index")


def vector_of(text: str, dimension: int) -> list[float]:
    """The vector this server gives a text: far from those of other texts."""
    return [float(x) for x in np.random.default_rng(zlib.crc32(text.encode())).normal(size=dimension)]


class Patience:
    """Time limits that run out when a server holds an answer back, then and only then: however slow the machine is, nothing
    else is late. `asked` are the seconds of each."""

    def __init__(self) -> None:
        self.asked: list[float | None] = []
        self._under_way: list[asyncio.Timeout] = []
        self._held = 0

    @classmethod
    def of(cls, module: str, monkeypatch: pytest.MonkeyPatch) -> Patience:
        """That of a module of the product, which takes its limits from `asyncio.timeout`."""
        made = cls()
        monkeypatch.setattr(f"{module}.asyncio", types.SimpleNamespace(**{**vars(asyncio), "timeout": made.timeout}))
        return made

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        self.asked.append(seconds)
        async with asyncio.timeout(None) as limit:
            self._under_way.append(limit)
            try:
                yield
            finally:
                self._under_way.remove(limit)

    async def end(self) -> None:
        """A call is held back: its time is up once no other is under way that is not held back too."""
        self._held += 1
        while self._held and not 0 < len(self._under_way) <= self._held:
            await asyncio.sleep(0.001)
        for limit in self._under_way if self._held else ():  # else another that was held back has ended all
            limit.reschedule(asyncio.get_running_loop().time())
        self._held = 0


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeOpenAI:
    """`plan` names what each call gets, in order; when it is used up, "ok". `status:N` answers that status."""

    plan: Sequence[str] | Callable[[], str] = ()
    dimension: int = 8
    retry_after: str = "2"
    message: str = "something the server says"
    code: str | None = None
    requests: list[Request] = field(default_factory=list)
    at_exit: list[Callable[[], Awaitable[None]]] = field(default_factory=list)  # clients to close before the server
    patience: Patience | None = None  # of the clients: it ends where an answer is held back

    async def __aenter__(self) -> FakeOpenAI:
        self._steps: Iterator[str] = iter(self.plan) if not callable(self.plan) else iter(self.plan, None)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._serving: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        for close in self.at_exit:
            await close()
        self._server.close()
        while self._serving:
            await asyncio.wait(self._serving, timeout=5.0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            while (request := await self._read(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(next(self._steps, "ok"), request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        line = await reader.readline()
        if not line.strip():
            return None
        headers: dict[str, str] = {}
        while header := (await reader.readline()).decode().strip():
            name, _, value = header.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(line.decode().split()[1], headers, json.loads(body))

    async def _answer(self, step: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is done with."""
        if step == "timeout":
            if self.patience is not None:
                await self.patience.end()
            await reader.read()  # until the client gives up
            return False
        if step == "reset":
            writer.transport.abort()
            return False
        status, extra = 200, ""
        payload = json.dumps(self.reply(step, request)).encode()
        if step == "bad-json":
            payload = payload[: len(payload) // 2]
        elif step in ("429", "429-date", "500", "503", "redirect") or step.startswith("status:"):
            status = 307 if step == "redirect" else int(step.removeprefix("status:").split("-")[0])
            payload = json.dumps({"error": {"message": self.message, "code": self.code}}).encode()
            if step in ("429", "503"):
                extra = f"Retry-After: {self.retry_after}\r\n"
            elif step == "429-date":
                extra = "Retry-After: Thu, 01 Jan 1970 00:16:43 GMT\r\n"  # epoch second 1003
            elif step == "redirect":
                extra = "Location: http://127.0.0.1:9/elsewhere\r\n"
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n{extra}\r\n"
        writer.write(head.encode() + (payload[: len(payload) // 2] if step == "cut" else payload))
        await writer.drain()
        return step != "cut"

    def reply(self, step: str, request: Request) -> Any:
        """The body of a 200."""
        body = request.body
        rows = self.rows(step, body["input"], body.get("dimensions"))
        data: list[dict[str, Any]] = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        if step == "unordered":
            data.reverse()
        elif step == "no-index":
            for entry in data:
                del entry["index"]
        elif step == "index":
            data[-1]["index"] = len(data)
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "data": data, "model": body.get("model", "deployed"), "usage": usage}

    def rows(self, step: str, texts: Sequence[str], dimension: int | None = None) -> list[Any]:
        """A vector for each text, spoilt as the step says."""
        rows: list[Any] = [vector_of(t, (dimension or self.dimension) + (step == "dimension")) for t in texts]
        if step == "count":
            rows.pop()
        elif step in ("nan", "null"):
            rows[0][0] = float("nan") if step == "nan" else None
        elif step == "zero":
            rows[0] = [0.0] * len(rows[0])
        return rows
