"""A Provider by its name: `PROVIDER:MODEL`, in settings also `PROVIDER:MODEL@URL`."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import replace

from headwater.config import LlmSettings
from headwater.errors import ConfigError
from headwater.llm.provider import Provider
from headwater.llm.served import Served

NONE = "extractive"  # no model: answers are made of sentences of the records
PLUGINS = "headwater.chat_models"  # entry points: name -> callable(settings, whose model is the name asked for) -> Provider
SERVED = {  # provider -> its class, in the module of its name
    "openai": "OpenAIChat",
    "azure": "AzureChat",
    "anthropic": "AnthropicChat",
    "ollama": "OllamaChat",
    "llamafile": "LlamafileChat",
    "custom": "CustomChat",
    "local": "LocalChat",
}
PROVIDERS = (*SERVED, "rehearsal")
BARE = ("llamafile", "local", "rehearsal")  # whose model may be left out
NAMES = (NONE, *(f"{provider}:MODEL" for provider in SERVED), "rehearsal")
_AT = re.compile(r"(.*?)@(https?://.+)", re.DOTALL)


def load(name: str, settings: LlmSettings, *, env: Mapping[str, str] | None = None) -> Provider:
    """The provider of a whole name. ConfigError for an unknown one (it names the nearest), and for a key or an address that
    is missing. `env` holds the well-known variables of providers (that of this process by default).

    Address and key in the settings are those of `settings.provider`: no other gets them. `PROVIDER:MODEL@URL` gives another
    provider its address."""
    kind, _, model = name.partition(":")
    if kind == "rehearsal":
        from headwater.llm.rehearsal import Rehearsal

        return Rehearsal(name)
    found = _AT.fullmatch(model)
    model, url = (found[1], found[2]) if found else (model, None)
    if kind in SERVED and (model or kind in BARE):
        own = settings
        if url is not None or kind != settings.provider:
            own = replace(settings, base_url=url, api_key=None, context_tokens=0, price_input=None, price_output=None)
        return served(kind)(model, own, os.environ if env is None else env, name=name)
    if kind in SERVED:
        raise ConfigError(f"{kind} needs the name of a model: set llm.model, or write {kind}:MODEL")
    return _plugin(name, settings)


def served(kind: str) -> type[Served]:
    """The class of a provider behind HTTP."""
    found: type[Served] = getattr(importlib.import_module(f"headwater.llm.{kind}"), SERVED[kind])
    return found


def _plugin(name: str, settings: LlmSettings) -> Provider:
    found = {e.name: e for e in importlib.metadata.entry_points(group=PLUGINS)}
    kind = name.partition(":")[0]
    if kind not in found:
        names = [*NAMES, *found]
        close = difflib.get_close_matches(kind, [n.partition(":")[0] for n in names], 1)
        near = next((n for n in names if close and n.partition(":")[0] == close[0]), None)
        hint = f"did you mean {near!r}? " if near else ""
        raise ConfigError(f"unknown chat model {name!r}; {hint}There are {', '.join(names)}")
    provider = found[kind].load()(replace(settings, model=name))
    if not isinstance(provider, Provider):
        raise ConfigError(f"the plugin {found[kind].value} of model {name!r} does not give a headwater.llm.provider.Provider")
    return provider
