"""`llamafile:MODEL`: the model of a llamafile or of llama.cpp's server."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.config import LlmSettings
from headwater.embed.fault import Fault
from headwater.llm.openai import OpenAIChat


class LlamafileChat(OpenAIChat):
    """Such a server holds one model: MODEL, which may be left out, only names it here."""

    kind = "llamafile"
    default_url = "http://localhost:8080"
    hosts = ()
    variables = ()
    free_elsewhere = True
    concurrency = 4
    context_tokens = 8192

    @classmethod
    def endpoint(cls, settings: LlmSettings, env: Mapping[str, str]) -> str:
        return super().endpoint(settings, env).removesuffix("/v1")

    @property
    def called_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def served_name(self) -> str:
        return self._model_name or "default"

    async def check(self) -> None:
        await self.get("/v1/models")

    def remedy(self, fault: Fault) -> str:
        if fault.status in (0, 404, 501):
            return f"./{(self._model_name or 'MODEL').removesuffix('.llamafile')}.llamafile --server --nobrowser"
        return super().remedy(fault)
