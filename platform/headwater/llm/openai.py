"""`openai:MODEL`: OpenAI's chat completions, or with llm.base_url a gateway that speaks like it."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from headwater.llm.served import Served

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model


def quick(client: type[Any]) -> type[Any]:
    """A client class that reads the many plain pieces of a stream without looking at every field that one could have, which
    takes the library 0.1 ms, and sends messages without comparing them with every form a message could have, which takes it
    1.5 ms a call; all other data is read and sent as ever."""
    from openai.resources.chat import AsyncChat, AsyncCompletions
    from openai.types.chat.chat_completion_chunk import ChatCompletionChunk, Choice, ChoiceDelta

    blank = (
        ChatCompletionChunk.construct(id="", choices=[], created=0, model="", object="chat.completion.chunk"),
        Choice.construct(index=0, delta=ChoiceDelta.construct(), finish_reason=None),
        ChoiceDelta.construct(),
    )

    class Completions(AsyncCompletions):
        async def create(self, *, messages: Any, extra_body: Any = None, **given: Any) -> Any:
            return await super().create(messages=(), extra_body={**(extra_body or {}), "messages": messages}, **given)

    class Chat(AsyncChat):
        @cached_property
        def completions(self) -> AsyncCompletions:
            return Completions(self._client)

    class Quick(client):  # type: ignore[misc]  # its base is given
        @cached_property
        def chat(self) -> AsyncChat:
            return Chat(self)

        def _process_response_data(self, *, data: Any, cast_to: Any, response: Any) -> Any:
            if cast_to is ChatCompletionChunk and (text := _plain_text(data)) is not None:
                chunk, choice, delta = map(copy, blank)
                delta.__dict__["content"] = text
                choice.__dict__["delta"] = delta
                chunk.__dict__.update(choices=[choice], id=data.get("id"), created=data.get("created"), model=data.get("model"))
                return chunk
            return super()._process_response_data(data=data, cast_to=cast_to, response=response)

    return Quick


def _plain_text(data: Any) -> str | None:
    """The text of a piece that has nothing but text; None for every other one."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or data.get("usage") or "error" in data:
        return None
    choice = choices[0]
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or choice.get("finish_reason") or choice.get("logprobs") or delta.keys() - _PLAIN:
        return None
    text = delta.get("content")
    return text if isinstance(text, str) else None


_PLAIN = {"content", "role"}


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
            may_tokenize_special_tokens_in_content=not home,  # a record's `<|im_start|>` must not open a turn
        )
        return OpenAIChatModel(self.served_name, provider=OpenAIProvider(openai_client=self.client(http, key)), profile=profile)

    def client(self, http: httpx2.AsyncClient, key: str) -> AsyncOpenAI:
        """OpenAI's client over our connections."""
        from openai import AsyncOpenAI

        made: AsyncOpenAI = quick(AsyncOpenAI)(base_url=self.called_url, api_key=key, http_client=http, max_retries=0)
        return made

    @property
    def called_url(self) -> str:
        """The address below which `/chat/completions` lies."""
        return self.url or ""

    @property
    def served_name(self) -> str:
        """What the server calls the model."""
        return self._model_name
