"""`anthropic:MODEL`: Anthropic's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.llm.served import Served

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.models import Model


class AnthropicChat(Served):
    """Models that cannot be held to a schema are asked to follow it."""

    kind = "anthropic"
    default_url = "https://api.anthropic.com"
    hosts = ("api.anthropic.com",)
    variables = ("ANTHROPIC_API_KEY",)
    context_tokens = 200_000

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}

    def build(self, http: httpx2.AsyncClient, key: str) -> Model:
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        client = AsyncAnthropic(base_url=self.url, api_key=key, http_client=http, max_retries=0)
        return AnthropicModel(self._model_name, provider=AnthropicProvider(anthropic_client=client))

    async def listed(self) -> list[str] | None:
        """Whether it knows this one: the list is long, and comes in pages."""
        found = await self.get(f"/v1/models/{self._model_name}")
        return [] if found is None else [self._model_name]
