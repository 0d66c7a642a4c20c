"""Real providers, where their keys or servers are set: `make test-live`. Not part of CI; a few cents at most."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from pydantic import BaseModel

from headwater.config import LlmSettings
from headwater.llm.chat import Completion, Message, Piece
from headwater.llm.models import Models

pytestmark = pytest.mark.live
# provider -> the variable that says it can be asked, and the model to ask; HEADWATER_LIVE_<PROVIDER> names another model
LIVE = {
    "openai": ("OPENAI_API_KEY", "gpt-4o-mini"),
    "anthropic": ("ANTHROPIC_API_KEY", "claude-haiku-4-5"),
    "azure": ("AZURE_OPENAI_API_KEY", "gpt-4o-mini"),
    "ollama": ("OLLAMA_HOST", "llama3.2"),
    "llamafile": ("LLAMAFILE_URL", ""),
}


class City(BaseModel):
    name: str
    country: str


@pytest.mark.parametrize("provider", list(LIVE))
def test_a_real_provider_completes_streams_extracts_and_is_reachable(provider: str) -> None:
    variable, model = LIVE[provider]
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    model = os.environ.get(f"HEADWATER_LIVE_{provider.upper()}", model)
    url = os.environ["LLAMAFILE_URL"] if provider == "llamafile" else None
    settings = LlmSettings(provider=provider, model=model, base_url=url, max_tokens=200, budget_tokens_per_day=20_000)

    async def work() -> Any:
        models = Models(settings)
        chat = models.get()
        assert chat is not None
        try:
            whole = await chat.complete([Message("user", "Answer with the one word: river")], temperature=0.0)
            parts = [part async for part in chat.stream([Message("user", "Count from one to five in words.")])]
            found = await chat.extract([Message("user", "Which city is the Eiffel tower in?")], City)
            return whole, parts, found, await models.models(check=True)
        finally:
            await models.aclose()

    whole, parts, found, rows = asyncio.run(work())
    assert "river" in whole.text.casefold()
    assert whole.usage.input_tokens > 0
    assert isinstance(parts[-1], Completion)
    assert "".join(p.text for p in parts if isinstance(p, Piece)) == parts[-1].text
    assert found.value.name == "Paris"
    assert next(m for m in rows if m.standing == "default").reachable
