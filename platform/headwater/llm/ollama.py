"""`ollama:MODEL`: a model served by Ollama, through its `/v1`; what it holds is read from its own `/api/tags`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.config import LlmSettings
from headwater.embed.fault import Fault
from headwater.embed.ollama import host_url
from headwater.llm.openai import OpenAIChat

if TYPE_CHECKING:
    import httpx2
    from pydantic_ai.models import Model


class OllamaChat(OpenAIChat):
    """The address is llm.base_url, else `OLLAMA_HOST`. Ollama cuts prompts at its own window: set llm.context_tokens to what
    it is started with (`OLLAMA_CONTEXT_LENGTH`)."""

    kind = "ollama"
    default_url = "http://localhost:11434"
    hosts = ("ollama.com",)
    variables = ("OLLAMA_API_KEY",)
    free_elsewhere = True
    concurrency = 8
    context_tokens = 4096

    @classmethod
    def endpoint(cls, settings: LlmSettings, env: Mapping[str, str]) -> str:
        """Without the `/v1` or `/api` that other clients want in the address."""
        url = settings.base_url or host_url(env.get("OLLAMA_HOST", "")) or cls.default_url
        return url.rstrip("/").removesuffix("/v1").removesuffix("/api")

    def build(self, http: httpx2.AsyncClient, key: str) -> Model:
        from pydantic_ai.models.ollama import OllamaModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.ollama import OllamaProvider

        profile = OpenAIModelProfile(
            openai_chat_streaming_requires_finish_reason=True,
            openai_chat_supports_max_completion_tokens=False,
            may_tokenize_special_tokens_in_content=True,
        )
        if self.at_home(self.url or "") or self._model_name.endswith("-cloud"):
            profile["supports_json_schema_output"] = False  # taken without a word, and not held to
        return OllamaModel(self._model_name, provider=OllamaProvider(openai_client=self.client(http, key)), profile=profile)

    @property
    def called_url(self) -> str:
        return f"{self.url}/v1"

    async def listed(self) -> list[str] | None:
        answer = await self.get("/api/tags")
        models = answer.get("models") if isinstance(answer, dict) else None
        if not isinstance(models, list):
            return None
        names = [str(m.get("name") or m.get("model")) for m in models if isinstance(m, dict)]
        return [*names, *(n.removesuffix(":latest") for n in names if n.endswith(":latest"))]

    def remedy(self, fault: Fault) -> str:
        if fault.status == 0:
            return "ollama serve"
        return f"ollama pull {self._model_name}" if fault.status == 404 else super().remedy(fault)
