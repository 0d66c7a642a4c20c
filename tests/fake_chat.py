"""Servers that speak the documented wire formats of chat models on loopback, with faults on demand; no provider was asked.

    async with FakeChat(["429", "ok"], format="anthropic") as server:    # the first call gets 429, later ones an answer
        chat = chat_of(server)

A token is a word. Every request is kept in `requests`; `spent` counts the tokens of all answers that were begun, also of
those that never arrived: what a provider would bill.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import SecretStr

from fake_openai import FakeOpenAI, Request
from headwater.config import LlmSettings
from headwater.llm.caller import Caller
from headwater.llm.chat import Chat, Message
from headwater.llm.lookup import load

Format = Literal["openai", "azure", "custom", "anthropic", "ollama", "llamafile"]
FORMATS: tuple[Format, ...] = ("openai", "azure", "custom", "anthropic", "ollama", "llamafile")
FAULTS = ("429", "500", "503", "timeout", "bad-json", "empty", "cut", "silent-cut", "reset", "in-stream")
CANARY = "key-canary-Yx93kd"
HELLO = [Message("system", "Be brief."), Message("user", "Say hello to the two of them.")]
ANSWER = "Hello to you both, and to everyone else here."


@dataclass
class FakeChat(FakeOpenAI):
    """One provider, by its format; the address of the server is `root`. `answer` says what it answers to a request."""

    format: Format = "openai"
    answer: Callable[[Request], str] = lambda _: ANSWER
    delay_s: float = 0.0  # before the first token
    token_s: float = 0.0  # between two
    together: int = 0  # answers are held back until so many are asked for at once
    models: tuple[str, ...] = ("tiny:latest", "tiny")
    usage: bool = True  # whether it says how many tokens there were
    spent: int = 0
    running: int = 0
    most_running: int = 0
    closed: int = 0  # streams whose client went away
    served: list[str] = field(default_factory=list)  # texts that were sent whole

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        line = await reader.readline()
        if not line.strip():
            return None
        headers: dict[str, str] = {}
        while header := (await reader.readline()).decode().strip():
            name, _, value = header.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(line.decode().split()[1], headers, json.loads(body) if body else {})

    async def _answer(self, step: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._act(step, request, reader, writer)
        finally:
            self.running -= 1

    async def _act(self, step: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if not request.body:
            return await self._list(request, writer)
        if step == "reset":
            writer.transport.abort()
            return False
        if step in ("429", "500", "503", "redirect") or step.startswith("status:"):
            return await self._refuse(step, writer)
        words = self._words(request)
        self.spent += self._prompt_tokens(request) + len(words)
        if step == "timeout":
            if self.patience is not None:
                await self.patience.end()
            await reader.read()  # until the client gives up
            return False
        await asyncio.sleep(self.delay_s)
        while self.most_running < self.together:
            await asyncio.sleep(0.005)
        streamed = bool(request.body.get("stream"))
        if streamed:
            return await self._stream(step, request, words, reader, writer)
        text = "" if step == "empty" else "".join(words)
        whole = {} if step == "empty" else self._whole(request, text, len(words))
        if self.token_s:
            await asyncio.sleep(self.token_s * len(words))
        payload = json.dumps(whole).encode()
        spoilt = step in ("bad-json", "in-stream")
        sent = payload[: len(payload) // 2] if spoilt else payload
        cut = step in ("cut", "silent-cut")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        writer.write(head.encode() + (sent[: len(sent) // 2] if cut else sent))
        await writer.drain()
        if not cut and not spoilt and step != "empty":
            self.served.append(text)
        return not cut

    async def _refuse(self, step: str, writer: asyncio.StreamWriter) -> bool:
        status = 307 if step == "redirect" else int(step.removeprefix("status:"))
        extra = f"Retry-After: {self.retry_after}\r\n" if step in ("429", "503") else ""
        extra += "Location: http://127.0.0.1:9/elsewhere\r\n" if step == "redirect" else ""
        error: dict[str, Any] = {"message": self.message, "code": self.code, "type": "an_error"}
        body: dict[str, Any] = {"type": "error", "error": error} if self.format == "anthropic" else {"error": error}
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n{extra}\r\n"
        writer.write(head.encode() + payload)
        await writer.drain()
        return True

    async def _list(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """What there is to be had: `/models`, Ollama's `/api/tags`, Anthropic's `/v1/models/NAME`."""
        body: Any = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        if self.format == "ollama":
            body = {"models": [{"name": name} for name in self.models]} if request.path == "/api/tags" else None
        elif self.format == "anthropic":
            name = request.path.rpartition("/")[2]
            body = {"id": name, "type": "model"} if name in self.models else None
        payload = json.dumps(body or {"error": {"message": "not found"}}).encode()
        status = "404 X" if body is None else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode())
        writer.write(payload)
        await writer.drain()
        return True

    def _words(self, request: Request) -> list[str]:
        body = request.body
        most = body.get("max_tokens") or body.get("max_completion_tokens") or 10_000
        words = self.answer(request).split()
        return [word if i == 0 else f" {word}" for i, word in enumerate(words)][:most]

    def _finish(self, request: Request, count: int) -> str:
        cut = count < len(self.answer(request).split())
        if self.format == "anthropic":
            return "max_tokens" if cut else "end_turn"
        return "length" if cut else "stop"

    @staticmethod
    def _prompt_tokens(request: Request) -> int:
        return len(json.dumps(request.body.get("messages", "")).split())

    def _whole(self, request: Request, text: str, count: int) -> dict[str, Any]:
        model, finish = request.body.get("model", "m"), self._finish(request, count)
        prompt = self._prompt_tokens(request)
        if self.format == "anthropic":
            return {
                "id": "msg_1", "type": "message", "role": "assistant", "model": model, "stop_reason": finish,
                "stop_sequence": None, "content": [{"type": "text", "text": text}],
                "usage": {"input_tokens": prompt, "output_tokens": count},
            }  # fmt: skip
        usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
        return whole if self.usage else {k: v for k, v in whole.items() if k != "usage"}

    async def _stream(
        self, step: str, request: Request, words: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        half = len(words) // 2
        gone = asyncio.ensure_future(reader.read(1))
        try:
            sent = 0
            async for kind, event in self._events(request, words):
                if kind == "word":
                    sent += 1
                if step == "empty" and kind != "end":
                    continue
                if sent > half and step in ("cut", "silent-cut", "in-stream", "bad-json", "stall"):
                    return await self._spoil(step, reader, writer, gone)
                self._chunk(writer, event)
                await writer.drain()
                if kind == "word" and self.token_s:
                    await asyncio.wait({gone}, timeout=self.token_s)
                if gone.done():
                    self.closed += 1
                    return False
            if step == "ok":
                self.served.append("".join(words))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return False  # `gone` may have taken the first byte of the next request
        finally:
            gone.cancel()

    async def _spoil(
        self, step: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Future[bytes]
    ) -> bool:
        if step == "silent-cut":  # a proper end of the body, as if that were all
            writer.write(b"0\r\n\r\n")
        elif step == "in-stream":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": self.message, "code": "server_error"}}
            self._chunk(writer, (f"event: error\ndata: {json.dumps(error)}\n\n"))
            writer.write(b"0\r\n\r\n")
        elif step == "bad-json":
            self._chunk(writer, 'data: {"choices": [{"index": 0, "delta": {"content": "x\n\n')
            writer.write(b"0\r\n\r\n")
        elif step == "stall":
            await gone
            self.closed += 1
        await writer.drain()
        return False

    async def _events(self, request: Request, words: list[str]) -> AsyncIterator[tuple[str, str]]:
        finish, model, prompt = self._finish(request, len(words)), request.body.get("model", "m"), self._prompt_tokens(request)
        if self.format == "anthropic":
            message = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [],
                "stop_reason": None,
            }
            start = {**message, "stop_sequence": None, "usage": {"input_tokens": prompt, "output_tokens": 1}}
            yield "start", _named("message_start", {"message": start})
            yield "start", _named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
            for word in words:
                yield "word", _named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": word}})
            yield "end", _named("content_block_stop", {"index": 0})
            delta = {"delta": {"stop_reason": finish, "stop_sequence": None}, "usage": {"output_tokens": len(words)}}
            yield "end", _named("message_delta", delta)
            yield "end", _named("message_stop", {})
            return
        base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model}
        yield "start", _data({**base, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for word in words:
            yield "word", _data({**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        yield "end", _data({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if self.usage and (request.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
            yield "end", _data({**base, "choices": [], "usage": usage})
        yield "end", "data: [DONE]\n\n"

    @staticmethod
    def _chunk(writer: asyncio.StreamWriter, event: str) -> None:
        raw = event.encode()
        writer.write(b"%x\r\n%b\r\n" % (len(raw), raw))


def _named(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n"


def _data(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


class Waits:
    """A sleep that only notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def settings_of(server: FakeChat, **options: Any) -> LlmSettings:
    """Settings that name the server's model."""
    url = server.url if server.format in ("openai", "custom") else server.root
    given = {"provider": server.format, "model": "tiny", "base_url": url, "api_key": SecretStr(CANARY), "timeout_s": 240.0}
    return replace(LlmSettings(), **{**given, "cache_enabled": False, **options})


def chat_of(server: FakeChat, waits: Waits | None = None, **options: Any) -> Chat:
    """The server's model, found the real way. It is closed before the server."""
    settings = settings_of(server, **options)
    caller = Caller(load(f"{server.format}:tiny", settings, env={}), settings, sleep=waits or Waits(), rng=random.Random(1))
    server.at_exit.append(caller.aclose)
    return Chat([caller], settings)


def with_server(work: Callable[[FakeChat], Awaitable[Any]], plan: Any = (), **options: Any) -> Any:
    """What `work` gives, run beside a fake server."""

    async def main() -> Any:
        async with FakeChat(plan, **options) as server:
            return await work(server)

    return asyncio.run(main())
