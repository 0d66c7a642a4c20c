"""The real small model: llama.cpp in a process of our own, through pydantic-ai. Plumbing is tested, not answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from headwater.config import LlmSettings
from headwater.errors import ConfigError, ModelError
from headwater.llm.chat import Chat, Completion, Message, Piece
from headwater.llm.local import LocalChat, weights
from headwater.llm.models import Models
from small_model import real


def with_local(work: Callable[[Models, Chat], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        models = Models(LlmSettings(provider="local", max_tokens=24, timeout_s=240.0, **options), env={})
        chat = models.get()
        assert chat is not None
        try:
            return await work(models, chat)
        finally:
            await models.aclose()

    return asyncio.run(main())


class Person(BaseModel):
    name: str = Field(max_length=20)
    mood: Literal["glad", "sad"]


@pytest.mark.slow
@real
def test_the_local_model_completes_streams_and_follows_a_schema() -> None:
    async def work(models: Models, chat: Chat) -> None:
        provider = chat._callers[0].provider
        from pydantic_ai import Agent, ModelSettings, NativeOutput

        assert isinstance(provider, LocalChat)
        assert not provider.running
        answer = await chat.complete([Message("user", "Say hello.")], temperature=0.0)
        assert provider.running
        assert answer.text.strip()
        assert 0 < answer.usage.output_tokens <= 24
        assert answer.usage.cost == 0.0
        parts = [part async for part in chat.stream([Message("user", "Count to five.")], temperature=0.0)]
        assert isinstance(parts[-1], Completion)
        assert "".join(p.text for p in parts if isinstance(p, Piece)) == parts[-1].text
        found = await chat.extract([Message("user", "Ann laughs all day. Give JSON.")], Person, max_tokens=60)
        assert isinstance(found.value, Person)
        settings = ModelSettings(max_tokens=100, temperature=0.0)
        agent = Agent(await provider._ready(), output_type=NativeOutput(Person), model_settings=settings)
        assert isinstance((await agent.run("Ann laughs all day.")).output, Person)
        label = await chat.classify("My card was declined.", {"money": "cards and payments", "access": "passwords"})
        assert label.label in ("money", "access")
        (row,) = [m for m in await models.models(check=True) if m.standing == "default"]
        assert (row.name, row.reachable, row.key) == ("local:smollm2", True, None)
        assert row.calls >= 4

    with_local(work)


@pytest.mark.slow
@real
def test_the_process_ends_with_its_owner_and_is_started_anew_when_it_died() -> None:
    async def work(models: Models, chat: Chat) -> Any:
        provider = chat._callers[0].provider
        assert isinstance(provider, LocalChat)
        await chat.complete([Message("user", "Hi.")], max_tokens=2)
        first = provider._child
        assert first is not None
        first.kill()
        first.wait(240)
        await chat.complete([Message("user", "Hi again.")], max_tokens=2)
        second = provider._child
        assert second is not None
        assert second.pid != first.pid
        await models.aclose()
        assert second.wait(240) == 0

    with_local(work)


def test_what_is_no_model_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        weights(str(tmp_path / "none.gguf"))


@real
def test_a_file_that_is_no_model_fails_with_what_llama_says(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF and nothing else")

    async def work(models: Models, chat: Chat) -> str:
        with pytest.raises(ModelError, match="could not load") as caught:
            await chat.complete([Message("user", "Hi.")])
        return str(caught.value)

    assert "broken.gguf" in with_local(work, model=str(file), retries=0)
