"""`azure:DEPLOYMENT`: a deployment of a chat model in Azure OpenAI. Keys only; Entra ID tokens are not supported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.config import LlmSettings
from headwater.embed.azure import API_VERSION
from headwater.errors import ConfigError
from headwater.llm.openai import OpenAIChat
from headwater.llm.provider import MEND

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model


class AzureChat(OpenAIChat):
    """The address is llm.base_url, else `AZURE_OPENAI_ENDPOINT`: `https://RESOURCE.openai.azure.com`, or the same with
    `/openai/v1`. The key goes in `api-key`."""

    kind = "azure"
    default_url = ""
    example_url = "https://RESOURCE.openai.azure.com"
    hosts = ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com")
    variables = ("AZURE_OPENAI_API_KEY",)

    @classmethod
    def endpoint(cls, settings: LlmSettings, env: Mapping[str, str]) -> str:
        url = settings.base_url or env.get("AZURE_OPENAI_ENDPOINT")
        if not url:
            raise ConfigError(f"azure needs the address of its resource. {MEND}export AZURE_OPENAI_ENDPOINT={cls.example_url}")
        return url.rstrip("/").removesuffix("/openai")

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"api-key": key}

    def build(self, http: httpx2.AsyncClient, key: str) -> Model:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai import OpenAIProvider

        profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
        provider = OpenAIProvider(openai_client=self.client(http, key))
        return OpenAIChatModel(self._model_name, provider=provider, profile=profile)

    def client(self, http: httpx2.AsyncClient, key: str) -> AsyncOpenAI:
        from openai import AsyncAzureOpenAI, AsyncOpenAI

        if (self.url or "").endswith("/openai/v1"):
            return AsyncOpenAI(
                base_url=self.called_url, api_key=key, http_client=http, max_retries=0, default_headers={"api-key": key}
            )
        return AsyncAzureOpenAI(
            azure_endpoint=self.called_url, api_key=key, api_version=API_VERSION, http_client=http, max_retries=0
        )

    async def check(self) -> None:
        """Whether the resource answers to the key; which deployments it has it does not say."""
        dated = "" if (self.url or "").endswith("/openai/v1") else f"?api-version={API_VERSION}"
        await self.get(f"{'' if not dated else '/openai'}/models{dated}")
