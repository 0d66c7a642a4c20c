"""Servers that speak the recorded wire formats of embedding providers on loopback, with the faults of `fake_openai`.

The formats are those the providers document; no provider was asked. A request that lacks what the document asks for gets
the status the provider would give. `limit` is the most texts, `window` the most characters of one that a server takes.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import SecretStr

from fake_openai import FakeOpenAI, Request, vector_of
from headwater.embed.lookup import REMOTE
from headwater.embed.remote import RemoteEmbedder

Format = Literal["azure", "cohere", "huggingface", "ollama", "llamafile", "old-llamafile", "http"]
# faults of every format; those of `index` are OpenAI's alone
FAULTS = ("429", "429-date", "500", "503", "timeout", "bad-json", "cut", "reset", "count", "dimension", "nan", "null", "shape")

CANARY = "key-canary-Yx93kd"
TEXTS = ["a long text comes first", "b", "ccc"]
SORTED = ["b", "ccc", "a long text comes first"]  # as they are sent: by length
TEMPLATE = {"request": '{"input": "$texts", "options": {"task": "$kind", "name": "$model"}}', "reply": "result[].values"}


@dataclass
class FakeProvider(FakeOpenAI):
    """One provider, by its format. The address of the server is `root`."""

    format: Format = "azure"
    limit: int = 0
    window: int = 0

    @property
    def root(self) -> str:
        """The address without a path."""
        return self.url.removesuffix("/v1")

    def texts(self, body: dict[str, Any]) -> list[str]:
        name = {"cohere": "texts", "huggingface": "inputs", "old-llamafile": "content"}.get(self.format, "input")
        found = body[name]
        return [found] if isinstance(found, str) else list(found)

    def refused(self, request: Request) -> tuple[int, Any] | None:
        """What the provider says of a request that is not as it should be."""
        if self.format == "old-llamafile" and request.path != "/embedding":
            return 404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}
        body, texts = request.body, self.texts(request.body)
        if self.format == "cohere" and ("input_type" not in body or not 1 <= len(texts) <= 96):
            return 400, {"message": "invalid request: input_type is required, and at most 96 texts"}
        if self.limit and len(texts) > self.limit:
            error = f"batch size {len(texts)} > maximum allowed batch size {self.limit}"
            return (413 if self.format == "huggingface" else 422), {"error": error, "error_type": "Validation"}
        if self.window and max(map(len, texts)) > self.window:
            message = "input is too large to process. increase the physical batch size"
            return 500, {"error": {"code": 500, "message": message, "type": "server_error"}}
        return None

    async def _answer(self, step: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        refused = self.refused(request) if step == "ok" else None
        if refused is None:
            return await super()._answer(step, request, reader, writer)
        status, body = refused
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        await writer.drain()
        return True

    def reply(self, step: str, request: Request) -> Any:
        if step == "shape":
            return {"unexpected": True}
        if self.format in ("azure", "llamafile"):
            return super().reply(step, request)
        body = request.body
        asked = body.get("output_dimension", body.get("dimensions"))
        if self.format == "old-llamafile" and "content" not in body:
            return {}  # asked in the newer way; `refused` answers it
        rows = self.rows(step, self.texts(body), asked)
        if self.format == "cohere":
            return {"id": "1", "embeddings": {"float": rows}, "texts": body["texts"], "meta": {"api_version": {"version": "2"}}}
        if self.format == "huggingface":
            return rows
        if self.format == "ollama":
            return {"model": body["model"], "embeddings": rows, "total_duration": 1, "load_duration": 1, "prompt_eval_count": 1}
        if self.format == "old-llamafile":
            return {"embedding": rows[0] if rows else None}
        return {"result": [{"values": row} for row in rows]}


class Waits:
    """A sleep that only notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def remote(server: FakeProvider, waits: Waits | None = None, **options: Any) -> RemoteEmbedder:
    provider = server.format.removeprefix("old-")
    given: dict[str, Any] = {"base_url": server.root, "api_key": SecretStr(CANARY), "timeout_s": 240.0}
    given |= (
        {"sleep": waits or Waits(), "rng": random.Random(1), "now": lambda: 1000.0}
        | (TEMPLATE if provider == "http" else {})
        | options
    )
    made = getattr(importlib.import_module(f"headwater.embed.{provider}"), REMOTE[provider])("tiny/embed", **given)
    assert isinstance(made, RemoteEmbedder)
    server.at_exit.append(made.aclose)
    return made


def with_server(form: Format, work: Callable[[FakeProvider], Awaitable[Any]], plan: Sequence[str] = (), **options: Any) -> Any:
    async def main() -> Any:
        async with FakeProvider(plan, format=form, **options) as server:
            return await work(server)

    return asyncio.run(main())


def unit(texts: Sequence[str], dimension: int = 8) -> np.ndarray[Any, Any]:
    rows = np.array([vector_of(t, dimension) for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
