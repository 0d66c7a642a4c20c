"""Enrichment over HTTP: what headwater.client gives as `classify`, `extract` and the verbs of pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater import wire
from headwater.enrich_records import ClassifyReply, ExtractReply
from headwater.sending import Sending, given, listed

_LONG_S = 3600.0  # a model may be asked thousands of questions


class EnrichCalls:
    """The verbs of enrichment."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def classify(
        self, texts: Sequence[str] | None = None, *, topics: Sequence[str] | None = None, **task: Any
    ) -> ClassifyReply:
        """As Verbs.classify."""
        body = given({"texts": None if texts is None else list(texts), "topics": listed(topics), **task})
        return wire.decode(ClassifyReply, await self._post("/v1/classify", body))

    async def extract(self, texts: Sequence[str], *, schema: Any, **form: Any) -> ExtractReply:
        """As Verbs.extract."""
        make = getattr(schema, "model_json_schema", None)
        body = given({"texts": list(texts), "schema": make() if make is not None else schema, **form})
        return wire.decode(ExtractReply, await self._post("/v1/extract", body))

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._sending.send("POST", path, body=wire.sent(body), timeout_s=_LONG_S)
