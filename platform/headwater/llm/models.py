"""All chat models of an engine: found by name, each made once; and the verbs of headwater.verbs.models."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

from headwater.config import LlmSettings
from headwater.embed.fault import Fault
from headwater.errors import ConfigError, HeadwaterError, UsageError
from headwater.llm.caller import Caller
from headwater.llm.chat import Chat
from headwater.llm.ledger import Ledger
from headwater.llm.listing import extractive, known, told
from headwater.llm.lookup import NONE, PROVIDERS, SERVED, load
from headwater.records.models import Completion, Message, ModelInfo, Piece, Standing

if TYPE_CHECKING:
    from headwater.embed.cache import VectorCache
    from headwater.log.store import Log


_STANDINGS: tuple[Standing, ...] = ("default", "fallback", "asked for", "known")  # as they are listed


class Models:
    """The chat models that settings name, and those asked for by name. What they take is counted in `log`, their answers are
    kept in `cache`; without either nothing outlives this."""

    def __init__(
        self,
        settings: LlmSettings,
        *,
        log: Log | None = None,
        cache: VectorCache | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._settings, self._cache = settings, cache
        self._env: Mapping[str, str] = os.environ if env is None else env
        self._ledger = Ledger(settings, log)
        self._callers: dict[str, Caller] = {}
        self._chats: dict[str, Chat] = {}
        if settings.provider == NONE and any(name != NONE for name in settings.fallback):
            raise ConfigError("llm.fallback stands in for a model: set llm.provider and llm.model to the first one to ask")

    @property
    def default(self) -> str | None:
        """The whole name of the configured model; None where only `extractive` is."""
        provider, model = self._settings.provider, self._settings.model
        return None if provider == NONE else f"{provider}:{model}" if model else provider

    @property
    def or_extractive(self) -> bool:
        """Whether the settings' fallbacks name `extractive`: answers without a model while all of them fail."""
        return NONE in self._settings.fallback

    def get(self, name: str | None = None) -> Chat | None:
        """The model of a whole name (`PROVIDER:MODEL`, or MODEL of the configured provider), the configured one by default;
        None for `extractive`. ConfigError says what is missing. A name from outside reaches no file and no address but those
        that the settings name."""
        whole = self.default if name is None else self._whole(name)
        if whole is None or whole == NONE:
            return None
        if whole not in self._chats:
            callers = [self._caller(whole)]
            for other in self._settings.fallback if whole == self.default else ():
                with contextlib.suppress(ConfigError):  # `status` and `headwater models` tell of it
                    callers += [self._caller(other)] if other not in (whole, NONE) else []
            self._chats[whole] = Chat(callers, self._settings)
        return self._chats[whole]

    def _whole(self, name: str) -> str:
        configured = (NONE, self.default, *self._settings.fallback)
        if name in configured:
            return name
        kind, _, model = name.partition(":")
        if kind not in PROVIDERS:
            if self.default is None:
                raise ConfigError(
                    f"unknown chat model {name[:100]!r}; write PROVIDER:MODEL, with one of {', '.join(PROVIDERS)}"
                )
            kind, model = self._settings.provider, name
            if f"{kind}:{model}" == self.default:
                return f"{kind}:{model}"
        if "@http" in model or (kind in ("local", "rehearsal") and model not in ("", "smollm2")):
            raise ConfigError(
                f"{name[:100]!r} is no model of the settings; those with an address or a file must stand in llm.fallback"
            )
        return f"{kind}:{model}" if model else kind

    def _caller(self, name: str) -> Caller:
        if name not in self._callers:
            provider = load(name, self._settings, env=self._env)
            caller = Caller(provider, self._settings, ledger=self._ledger, cache=self._cache)
            self._callers.setdefault(name, caller)  # `warm` may have come first
        return self._callers[name]

    async def warm(self) -> None:
        """Load the configured model before the first question needs it. What is wrong with it is said at its first use."""
        for name in (self.default, *self._settings.fallback):
            with contextlib.suppress(HeadwaterError, Fault):
                if name is not None and name != NONE:
                    caller = await asyncio.to_thread(self._caller, name)
                    if name == self.default:
                        await caller.provider.warm()

    def problems(self) -> list[str]:
        """What `status` says of them."""
        found = []
        for name in (self.default, *self._settings.fallback):
            try:
                if name is not None and name != NONE:
                    self._caller(name)
            except ConfigError as error:
                found.append(f"chat model {name}: {error}")
        return found + [f"chat model {c.name}: {c.trouble}" for c in self._callers.values() if c.trouble is not None]

    async def aclose(self) -> None:
        for caller in self._callers.values():
            await caller.aclose()
        self._callers.clear()
        self._chats.clear()

    # ------------------------------------------------------------------ the verbs

    async def complete(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> Completion:
        """As ModelVerbs.complete."""
        chat = self._needed(model)
        return await chat.complete(_said(prompt, system), temperature=temperature, max_tokens=max_tokens, cache=cache)

    async def complete_stream(
        self,
        prompt: str | Sequence[Message],
        *,
        system: str | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cache: bool = True,
    ) -> AsyncGenerator[Piece | Completion, None]:
        """As ModelVerbs.complete_stream."""
        chat, messages = self._needed(model), _said(prompt, system)
        parts = chat.stream(messages, temperature=temperature, max_tokens=max_tokens, cache=cache)
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield part

    def _needed(self, name: str | None) -> Chat:
        chat = self.get(name)
        if chat is None:
            raise UsageError(
                "no chat model is configured, and extractive writes nothing of its own: set llm.provider and llm.model, or "
                "name one; `headwater models` lists what there is"
            )
        return chat

    async def models(self, *, check: bool = False) -> list[ModelInfo]:
        """As ModelVerbs.models."""
        standings: dict[str, Standing] = {} if self.default is None else {self.default: "default"}
        for name in (n for n in self._settings.fallback if n != NONE):
            standings.setdefault(name, "fallback")
        named = {name.partition(":")[0] for name in standings}
        for name in self._callers:
            standings.setdefault(name, "asked for")
        taken = self._ledger.today()
        found = [told(name, standing, self._caller, taken, check) for name, standing in standings.items()]
        plain: Standing = "default" if self.default is None else "fallback" if self.or_extractive else "known"
        listed = [*await asyncio.gather(*found), extractive(plain)]  # it stands in behind all others
        listed += await asyncio.gather(*(known(kind, self._env, check) for kind in SERVED if kind not in named))
        return sorted(listed, key=lambda model: _STANDINGS.index(model.standing))


def _said(prompt: str | Sequence[Message], system: str | None) -> list[Message]:
    messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    return messages if system is None else [Message("system", system), *messages]
