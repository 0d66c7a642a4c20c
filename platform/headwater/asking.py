"""Questions to an engine: the verbs of headwater.verbs that end in an answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from headwater import telemetry
from headwater.config import Settings, TopicConfig
from headwater.planning import now_ms, window
from headwater.rag.chain import ask
from headwater.rag.place import Look
from headwater.records import Answer
from headwater.stock import Stock
from headwater.verbs import When


class Asking:
    """Questions over the topics of an engine. `look` are its verbs."""

    def __init__(self, look: Look, stock: Stock, settings: Settings) -> None:
        self._look, self._stock, self._settings = look, stock, settings

    @telemetry.traced("headwater.ask")
    async def ask(
        self,
        question: str,
        *,
        topics: Sequence[str] | None = None,
        since: When | None = None,
        until: When | None = None,
        top_k: int = 12,
    ) -> Answer:
        """As Verbs.ask."""
        name, (since_ms, until_ms) = self._settings.embedding.model, window(since, until)
        reader = None if name in ("none", "external") else self._stock.embedders.get(name, TopicConfig())
        return await ask(
            question,
            look=self._look,
            kind_of=lambda topic: self._stock.find(topic).kind,
            topics=topics,
            since_ms=since_ms,
            until_ms=until_ms,
            embed=None if reader is None else reader.embed,
            clock=time.perf_counter,
            now_ms=now_ms(),
            new_id=lambda: uuid.uuid4().hex,
            top_k=top_k,
            floor=0.0 if reader is None else reader.floor,
        )
