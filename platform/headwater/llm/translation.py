"""Between our types and those of pydantic-ai: what a prompt becomes, what a reply and a refusal hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.llm.provider import Prompt

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage


def messages_of(prompt: Prompt) -> list[ModelMessage]:
    """System messages first, as one: not every server takes them elsewhere."""
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart, TextPart, UserPromptPart

    system = "\n\n".join(m.text for m in prompt.messages if m.role == "system")
    found: list[ModelMessage] = []
    parts: list[Any] = [SystemPromptPart(content=system)] if system else []
    for message in prompt.messages:
        if message.role == "user":
            found.append(ModelRequest(parts=[*parts, UserPromptPart(content=message.text)]))
            parts = []
        elif message.role == "assistant":
            if parts:
                found.append(ModelRequest(parts=parts))
                parts = []
            found.append(ModelResponse(parts=[TextPart(content=message.text)]))
    return found


def settings_of(prompt: Prompt) -> ModelSettings:
    from pydantic_ai.settings import ModelSettings

    settings = ModelSettings(max_tokens=prompt.max_tokens)
    if prompt.temperature is not None:
        settings["temperature"] = prompt.temperature
    return settings


def parameters_of(model: Model, prompt: Prompt) -> ModelRequestParameters:
    """Without tools. With a schema: held to it by the server where that can, as NativeOutput does, else asked to follow it."""
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.output import OutputObjectDefinition

    if prompt.schema is None:
        return ModelRequestParameters()
    mode = "native" if model.profile.get("supports_json_schema_output") else "prompted"
    wanted = OutputObjectDefinition(json_schema=dict(prompt.schema), name=prompt.name)
    return ModelRequestParameters(output_mode=mode, output_object=wanted, allow_text_output=True)  # type: ignore[arg-type]


def counted(usage: RequestUsage) -> tuple[int | None, int | None]:
    if usage.unmeasured_requests or not (usage.input_tokens or usage.output_tokens):
        return None, None
    return usage.input_tokens, usage.output_tokens


def said_in(error: Any) -> str:
    """The words in the body of a refusal."""
    body = error.body
    for step in ("error", "message"):
        if isinstance(body, dict):
            body = body.get(step, body.get("detail", body))
    return body if isinstance(body, str) else ""
