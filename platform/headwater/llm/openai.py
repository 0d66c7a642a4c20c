"""`openai:MODEL`: OpenAI's chat completions, or with llm.base_url a gateway that speaks like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from headwater.llm.served import Served

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model


class OpenAIChat(Served):
    """Any server that speaks OpenAI's `POST /chat/completions`."""

    kind = "openai"
    default_url = "https://api.openai.com/v1"
    hosts: ClassVar[tuple[str, ...]] = ("api.openai.com",)
    variables: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    embeds = True
    context_tokens = 128_000

    def build(self, http: httpx2.AsyncClient, key: str) -> Model:
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai import OpenAIProvider

        home = self.at_home(self.url or "")
        profile = OpenAIModelProfile(
            openai_chat_streaming_requires_finish_reason=True,  # else a stream that is cut would look complete
            openai_chat_supports_max_completion_tokens=home,
        )
        return OpenAIChatModel(self.served_name, provider=OpenAIProvider(openai_client=self.client(http, key)), profile=profile)

    def client(self, http: httpx2.AsyncClient, key: str) -> AsyncOpenAI:
        """OpenAI's client over our connections."""
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self.called_url, api_key=key, http_client=http, max_retries=0)

    @property
    def called_url(self) -> str:
        """The address below which `/chat/completions` lies."""
        return self.url or ""

    @property
    def served_name(self) -> str:
        """What the server calls the model."""
        return self._model_name
