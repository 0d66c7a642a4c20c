"""Pipelines of a token: those whose topics, read and written, are all in its scope.

One that a token makes, changes or tries does its work on this machine: no chat model, no call over HTTP, no code of others.
What those of the API key cost, and whom they tell, is not a token's to choose.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from headwater.enrich.spec import Leaf, Spec, spec_of
from headwater.errors import AuthError, ConflictError, HeadwaterError, NotFoundError, UsageError
from headwater.records import parse_address
from headwater.records.labels import Backtest, By, ExtractReply, Pipeline, Ran, RunEvent
from headwater.tokens import Token
from headwater.verbs import Verbs
from headwater.verbs.enrich import Specification

LOCAL = frozenset({"none", "external", "bge-small", "minilm", "static", "hash"})  # embedding models that cost nobody anything


class OwnPipelines:
    """The verbs of pipelines, for whoever shows a token. `check` is that of a topic in scope, for writing or not."""

    def __init__(self, verbs: Verbs, token: Token, check: Callable[..., None]) -> None:
        self._verbs, self._token, self._check = verbs, token, check

    async def extract(self, texts: Sequence[str], *, by: By = "both", model: str | None = None, **how: Any) -> ExtractReply:
        """By patterns, and by the configured chat model as `ask` has it."""
        if model is not None:
            raise AuthError(f"the token {self._token.name!r} may not choose a chat model; that needs the API key")
        return await self._verbs.extract(texts, by=by, **how)

    # ------------------------------------------------------------------ reading

    async def all(self) -> list[Pipeline]:
        return [self._told(p) for p in await self._verbs.pipelines() if self._sees(p)]

    async def one(self, name: str) -> Pipeline:
        return self._told(await self._known(name))

    async def trace(self, name: str, address: str) -> Ran:
        self._check(parse_address(address)[0])
        self._must_be_local(_spec(await self._known(name)))
        return await self._verbs.trace_pipeline(name, address)

    async def run(self, name: str, records: Sequence[Any], *, spec: Specification | None = None) -> AsyncIterator[RunEvent]:
        self._must_be_local(_spec(await self._known(name)) if spec is None else spec_of(spec))
        async for event in self._verbs.run_pipeline(name, records, spec=spec):
            yield event

    async def backtest(self, name: str, spec: Specification | None = None, **how: Any) -> Backtest:
        """Over records of its topics, which must be in scope; nothing but decisions is written."""
        known = await self._known(name)
        tried = _spec(known) if spec is None else spec_of(spec)
        self._must_be_in_scope(tried)
        self._must_be_local(tried)
        self._must_be_local(_spec(known))
        return await self._verbs.backtest_pipeline(name, spec, **how)

    # ------------------------------------------------------------------ writing

    async def create(self, name: str, spec: Specification, **how: Any) -> Pipeline:
        """ConflictError where somebody else's pipeline has that name."""
        read = spec_of(spec, "the pipeline")
        self._must_be_in_scope(read, writing=True)
        self._must_be_local(read)
        if any(p.name == name and not self._sees(p) for p in await self._verbs.pipelines()):
            raise ConflictError(f"the name {name[:100]!r} is taken by a pipeline of other topics; give another")
        try:
            return self._told(await self._verbs.create_pipeline(name, spec, **how))
        except UsageError as error:
            others = [t.name for t in await self._verbs.topics() if not self._token.sees(t.name)]
            if any(other in str(error) for other in others):
                raise UsageError("records would go round through pipelines of topics outside this token's scope") from None
            raise

    async def start(self, name: str) -> Pipeline:
        await self._writable(name)
        return self._told(await self._verbs.start_pipeline(name))

    async def stop(self, name: str) -> Pipeline:
        await self._writable(name)
        return self._told(await self._verbs.stop_pipeline(name))

    async def delete(self, name: str) -> None:
        await self._writable(name)
        await self._verbs.delete_pipeline(name)

    # ------------------------------------------------------------------ what is in scope

    async def _known(self, name: str) -> Pipeline:
        """The pipeline; NotFoundError, also where a topic of it is outside the scope."""
        found = next((p for p in await self._verbs.pipelines() if p.name == name and self._sees(p)), None)
        if found is None:
            raise NotFoundError(f"no pipeline {name[:100]!r}; `headwater enrich list` shows them")
        return found

    async def _writable(self, name: str) -> None:
        self._must_be_in_scope(_spec(await self._known(name)), writing=True)

    def _sees(self, pipeline: Pipeline) -> bool:
        try:
            self._must_be_in_scope(_spec(pipeline))
        except HeadwaterError:
            return False
        return True

    def _must_be_in_scope(self, spec: Spec, *, writing: bool = False) -> None:
        """NotFoundError for a topic outside; AuthError for one that reads all topics there are, or where writing is not the
        token's."""
        if spec.topics is None and not self._token.sees("*"):
            raise AuthError(f"the token {self._token.name!r} needs a pipeline that names its topics")
        for topic in spec.topics or ():
            self._check(topic)
        for topic in spec.targets():
            self._check(topic, writing=writing)
        if writing and not spec.targets():
            self._check((spec.topics or ("*",))[0], writing=True)

    def _must_be_local(self, spec: Spec) -> None:
        if spec.embedding is not None and spec.embedding not in LOCAL:
            raise AuthError(f"the token {self._token.name!r} may not choose that embedding model; that needs the API key")
        for leaf in spec.leaves():
            if not _local(leaf):
                raise AuthError(
                    f"the token {self._token.name!r} may not use the step {leaf.name[:60]!r}, which asks a chat model or "
                    "something outside; that needs the API key"
                )

    def _told(self, pipeline: Pipeline) -> Pipeline:
        """Without its specification where that may hold what others pay for, addresses and keys."""
        return pipeline if all(map(_local, _spec(pipeline).leaves())) else replace(pipeline, spec={})


def _spec(pipeline: Pipeline) -> Spec:
    return spec_of(pipeline.spec, f"pipeline {pipeline.name}")


def _local(leaf: Leaf) -> bool:
    config = leaf.config
    if "model" in config:
        return False
    if leaf.kind == "classify":
        return config.get("method", "auto") not in ("llm", "cascade")
    if leaf.kind == "extract":
        return config.get("by") == "regex"
    return leaf.kind in ("route", "redact", "stop", "drop") or (leaf.kind == "score" and "like" in config)
