"""A Provider by its name: `PROVIDER:MODEL`."""

from __future__ import annotations

from collections.abc import Mapping

from headwater.config import LlmSettings
from headwater.errors import ConfigError
from headwater.llm.provider import Provider

NONE = "extractive"  # no model: answers are made of sentences of the records
PROVIDERS = ("openai", "azure", "anthropic", "ollama", "llamafile", "custom", "local", "rehearsal")


def load(name: str, settings: LlmSettings, *, env: Mapping[str, str] | None = None) -> Provider:
    """The provider of a whole name. ConfigError for an unknown one (it names the nearest) or a key that is missing."""
    kind, _, _model = name.partition(":")
    if kind == "rehearsal":
        from headwater.llm.rehearsal import Rehearsal

        return Rehearsal(name)
    raise ConfigError(f"unknown chat model {name!r}; there are {', '.join(PROVIDERS)}, each as PROVIDER:MODEL, and {NONE}")
