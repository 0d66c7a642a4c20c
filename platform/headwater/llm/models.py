"""All chat models of an engine: found by name, each made once."""

from __future__ import annotations

from headwater.config import LlmSettings
from headwater.errors import ConfigError
from headwater.llm.caller import Caller
from headwater.llm.chat import Chat
from headwater.llm.lookup import NONE, PROVIDERS, load


class Models:
    """The chat models that settings name, and those asked for by name."""

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings
        self._callers: dict[str, Caller] = {}
        self._chats: dict[str, Chat] = {}

    @property
    def default(self) -> str | None:
        """The whole name of the configured model; None where only `extractive` is."""
        provider, model = self._settings.provider, self._settings.model
        return None if provider == NONE else f"{provider}:{model}" if model else provider

    def get(self, name: str | None = None) -> Chat | None:
        """The model of a whole name (`PROVIDER:MODEL`, or MODEL of the configured provider), the configured one by default;
        None for `extractive`. ConfigError says what is missing."""
        whole = self.default if name is None else self._whole(name)
        if whole is None or whole == NONE:
            return None
        if whole not in self._chats:
            names = (
                [whole, *(n for n in self._settings.fallback if n not in (whole, NONE))] if whole == self.default else [whole]
            )
            self._chats[whole] = Chat([self._caller(n) for n in names], self._settings)
        return self._chats[whole]

    @property
    def or_extractive(self) -> bool:
        """Whether the settings' fallbacks end with `extractive`: answers without a model while all of them fail."""
        return NONE in self._settings.fallback

    def _whole(self, name: str) -> str:
        if name == NONE or name.partition(":")[0] in PROVIDERS:
            return name
        if self.default is None:
            raise ConfigError(f"unknown chat model {name!r}; write PROVIDER:MODEL, with one of {', '.join(PROVIDERS)}")
        return f"{self._settings.provider}:{name}"

    def _caller(self, name: str) -> Caller:
        if name not in self._callers:
            self._callers[name] = Caller(load(name, self._settings), self._settings)
        return self._callers[name]

    async def aclose(self) -> None:
        for caller in self._callers.values():
            await caller.aclose()
        self._callers.clear()
        self._chats.clear()
