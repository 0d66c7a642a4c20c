"""`custom:MODEL`: any server that speaks OpenAI's chat completions, at llm.base_url (vLLM, llama.cpp, LM Studio, gateways)."""

from __future__ import annotations

from headwater.llm.openai import OpenAIChat


class CustomChat(OpenAIChat):
    """The key, where the server wants one, is HEADWATER_LLM_API_KEY; no provider's own key is ever sent to it."""

    kind = "custom"
    default_url = ""
    example_url = "http://localhost:8000/v1"
    hosts = ()
    variables = ()
    embeds = False
    context_tokens = 8192

    async def check(self) -> None:
        await self.listed()  # a gateway may know models that it does not list
