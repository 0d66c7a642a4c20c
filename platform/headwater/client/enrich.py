"""Enrichment over HTTP: what headwater.client gives as `classify`, `extract` and the verbs of pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from headwater import wire
from headwater.client.sending import Sending, given, listed
from headwater.enrich.reading import plain
from headwater.records.labels import Backtest, ClassifyReply, ExtractReply, Pipeline, Ran, RunEvent

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

    async def create(self, name: str, spec: str | Mapping[str, Any], *, start: bool = True, rerun: bool = False) -> Pipeline:
        """As Verbs.create_pipeline."""
        body = {"name": name, "spec": plain(spec), "start": start, "rerun": rerun}
        return wire.decode(Pipeline, await self._post("/v1/pipelines", body))

    async def all(self) -> list[Pipeline]:
        """As Verbs.pipelines."""
        return (await self._sending.get(dict[str, list[Pipeline]], "/v1/pipelines"))["pipelines"]

    async def one(self, name: str) -> Pipeline:
        """As Verbs.pipeline."""
        return await self._sending.get(Pipeline, _place(name))

    async def start(self, name: str) -> Pipeline:
        """As Verbs.start_pipeline."""
        return wire.decode(Pipeline, await self._post(f"{_place(name)}/start", {}))

    async def stop(self, name: str) -> Pipeline:
        """As Verbs.stop_pipeline."""
        return wire.decode(Pipeline, await self._post(f"{_place(name)}/stop", {}))

    async def delete(self, name: str) -> None:
        """As Verbs.delete_pipeline."""
        await self._sending.send("DELETE", _place(name))

    async def backtest(self, name: str, spec: str | Mapping[str, Any] | None = None, **limits: Any) -> Backtest:
        """As Verbs.backtest_pipeline."""
        return wire.decode(Backtest, await self._post(f"{_place(name)}/backtest", given({"spec": plain(spec), **limits})))

    async def run(
        self, name: str, records: Sequence[Any], *, spec: str | Mapping[str, Any] | None = None
    ) -> AsyncIterator[RunEvent]:
        """As Verbs.run_pipeline."""
        body = wire.sent(given({"records": [wire.entry(r) for r in records], "spec": plain(spec), "stream": True}))
        async for event in self._sending.events("POST", f"{_place(name)}/run", body=body):
            if event.data:
                yield wire.decode(RunEvent, event.data)

    async def trace(self, name: str, address: str) -> Ran:
        """As Verbs.trace_pipeline."""
        return await self._sending.get(Ran, f"{_place(name)}/trace", address=address)

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        return await self._sending.send("POST", path, body=wire.sent(body), timeout_s=_LONG_S)


def _place(name: str) -> str:
    return f"/v1/pipelines/{quote(name, safe='')}"
