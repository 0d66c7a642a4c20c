"""`Fallback`: a local model that serves while a remote one is down, without its vectors ever mixing.

How the indexer uses it:
1. `name, vectors = await fallback.embed(passages)`; the vectors go into the index of `name`.
2. A query is embedded once for each model that holds vectors of the topic: `embed_as(name, [q], "query")`; a model that
   is down is left out and the coverage says so. The hits of each index are normalised by its model's floor, then merged.
3. When `recovered()` says so, and at start, passages that have only the local model's vector are embedded again with
   `embed_as(primary.name, ...)`; each local vector goes once its successor is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from headwater.embed.embedder import Embedder, Kind
from headwater.errors import ConfigError, EmbedError, NotFoundError

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors

PATIENCE_S: Mapping[Kind, float] = {"query": 5.0, "passage": 120.0}


class Fallback:
    """`embed` asks the primary while it is up, the local model while it is down.

    The first failure (or a call longer than `patience_s` of its kind) makes the state `down`. From then on one call at a
    time probes the primary, `first_probe_s` after the failure and after each failed probe twice as late, at most
    `last_probe_s` (a Retry-After that is longer is honoured). A probe that succeeds makes it `ok`."""

    def __init__(
        self,
        primary: Embedder,
        local: Embedder,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_probe_s: float = 5.0,
        last_probe_s: float = 300.0,
        patience_s: Mapping[Kind, float] = PATIENCE_S,
    ) -> None:
        if primary.name == local.name or not local.local:
            raise ConfigError(f"embedding.fallback must be another, local model than {primary.name}; use bge-small")
        self.primary, self.local = primary, local
        self.reason: str | None = None  # why the primary is down
        self._clock, self._patience_s = clock, patience_s
        self._first_s, self._last_s = first_probe_s, last_probe_s
        self._state: Literal["ok", "down"] = "ok"
        self._wait_s, self._probe_at = first_probe_s, 0.0
        self._probing = self._recovered = False

    @property
    def state(self) -> Literal["ok", "down"]:
        return self._state

    @property
    def names(self) -> tuple[str, str]:
        """The models that may hold vectors: primary, local."""
        return self.primary.name, self.local.name

    async def embed(self, texts: Sequence[str], kind: Kind = "passage") -> tuple[str, Vectors]:
        """`(name of the model, (n, d) unit rows)`: all rows of one call are of one model. EmbedError when both fail."""
        if self._state == "ok" or (not self._probing and self._clock() >= self._probe_at):
            try:
                return self.primary.name, await self._ask(texts, kind)
            except EmbedError:
                pass
        return self.local.name, await self.local.embed(texts, kind)

    async def embed_as(self, name: str, texts: Sequence[str], kind: Kind = "passage") -> Vectors:
        """Vectors of exactly this model. EmbedError at once while it is down and no probe is due; NotFoundError for a name
        that is neither's."""
        if name == self.local.name:
            return await self.local.embed(texts, kind)
        if name != self.primary.name:
            raise NotFoundError(f"no embedder {name!r} here; there are {' and '.join(self.names)}")
        wait = self._probe_at - self._clock()
        if self._state == "down" and (self._probing or wait > 0):
            raise EmbedError(f"{name} is down: {self.reason}", retry_after_s=max(wait, 0.0))
        return await self._ask(texts, kind)

    def recovered(self) -> bool:
        """True once after the primary came back: the time to embed again what the local model embedded meanwhile."""
        was, self._recovered = self._recovered, False
        return was

    async def aclose(self) -> None:
        await self.primary.aclose()
        await self.local.aclose()

    async def _ask(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """The primary's vectors; what happens is noted. While it is down this is the one probe."""
        probe = self._state == "down"
        self._probing = self._probing or probe
        try:
            if probe:  # one text, briefly: the others should not wait long for what is likely to fail
                async with asyncio.timeout(self._patience_s["query"]):
                    await self.primary.embed(texts[:1], kind)
            async with asyncio.timeout(self._patience_s[kind]):
                vectors = await self.primary.embed(texts, kind)
        except TimeoutError as error:
            self._failed("it took too long", None)
            raise EmbedError(f"{self.primary.name} took too long") from error
        except EmbedError as error:
            self._failed(str(error), error.retry_after_s)
            raise
        finally:
            self._probing = self._probing and not probe
        if texts:
            self._recovered = self._recovered or self._state == "down"
            self._state, self.reason, self._wait_s = "ok", None, self._first_s
        return vectors

    def _failed(self, reason: str, retry_after_s: float | None) -> None:
        if self._state == "down" and self._clock() < self._probe_at:
            return  # a call that began before another one failed: one failure counts once
        self._state, self.reason, self._recovered = "down", reason, False
        self._probe_at = self._clock() + max(self._wait_s, retry_after_s or 0.0)
        self._wait_s = min(self._wait_s * 2, self._last_s)
