"""Enrichment: labels and values for texts, and pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from headwater.api import sse
from headwater.api.bodies import Body, Engine, Reply, Shared, When
from headwater.api.problems import RESPONSES
from headwater.records.labels import Backtest, By, ClassifyReply, ExtractReply, Method, Pipeline, Ran, RunEvent

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["enrichment"])
Name = Annotated[str, Path(max_length=100)]
Specification = dict[str, Any] | Annotated[str, Field(max_length=2_000_000)]
Model = Annotated[str | None, Field(max_length=500)]


class ClassifyBody(Body):
    """What to label, and with what."""

    texts: list[str] | None = Field(None, max_length=10_000)
    topics: list[str] | None = Field(None, max_length=1000)
    labels: list[Any] | dict[str, Any] | None = None
    examples: list[Any] | dict[str, list[str]] | None = None
    q: str = Field("", max_length=4000)
    since: When = None
    until: When = None
    method: Method = "auto"
    model: Model = None
    margin: float = Field(0.2, ge=0, le=1)
    min_confidence: float = Field(0.0, ge=0, le=1)
    about: str = Field("", max_length=4000)
    limit: int = Field(20_000, ge=1, le=200_000)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class ExtractBody(Body):
    """Where to look, and for what."""

    texts: list[str] = Field(max_length=10_000)
    form: dict[str, Any] = Field(alias="schema")
    by: By = "both"
    patterns: dict[str, str] | None = None
    model: Model = None
    about: str = Field("", max_length=4000)


class PipelineBody(Body):
    """A pipeline: its specification is an object, or YAML as text."""

    name: str = Field(max_length=100)
    spec: Specification
    start: bool = True
    rerun: bool = False


class BacktestBody(Body):
    """What to try a pipeline on, and what that may take."""

    spec: Specification | None = None
    records: int = Field(1000, ge=1, le=100_000)
    samples: int = Field(5, ge=0, le=100)
    max_tokens: int | None = Field(None, ge=0)
    max_cost: float | None = Field(None, ge=0)


class RunBody(Body):
    """Records to run, as for an append."""

    records: list[Any] = Field(min_length=1, max_length=1000)
    spec: Specification | None = None
    stream: bool = False


@router.post("/classify", response_model=ClassifyReply)
async def classify(engine: Engine, body: ClassifyBody) -> Response:
    """The label of each text, or of every record of topics."""
    return Reply(await engine.classify(**body.arguments()))


@router.post("/extract", response_model=ExtractReply)
async def extract(engine: Engine, body: ExtractBody) -> Response:
    """What each text holds of a JSON schema."""
    found = await engine.extract(
        body.texts, schema=body.form, by=body.by, patterns=body.patterns, model=body.model, about=body.about
    )
    return Reply(found)


@router.get("/pipelines", response_model=dict[str, list[Pipeline]])
async def pipelines(engine: Engine) -> Response:
    """Every pipeline, by name."""
    return Reply({"pipelines": await engine.pipelines()})


@router.post("/pipelines", response_model=Pipeline, status_code=201)
async def create(engine: Engine, body: PipelineBody) -> Response:
    """A pipeline; one of that name is changed."""
    return Reply(await engine.create_pipeline(body.name, body.spec, start=body.start, rerun=body.rerun), 201)


@router.get("/pipelines/{name}", response_model=Pipeline)
async def pipeline(engine: Engine, name: Name) -> Response:
    """One pipeline: its state, how far it is, what its steps have done and cost."""
    return Reply(await engine.pipeline(name))


@router.delete("/pipelines/{name}", status_code=204)
async def delete(engine: Engine, name: Name) -> Response:
    """Forget a pipeline; what it wrote stays."""
    await engine.delete_pipeline(name)
    return Response(status_code=204)


@router.post("/pipelines/{name}/start", response_model=Pipeline)
async def start(engine: Engine, name: Name) -> Response:
    """Let it go on where it stopped."""
    return Reply(await engine.start_pipeline(name))


@router.post("/pipelines/{name}/stop", response_model=Pipeline)
async def stop(engine: Engine, name: Name) -> Response:
    """Stop it, also over restarts."""
    return Reply(await engine.stop_pipeline(name))


@router.post("/pipelines/{name}/backtest", response_model=Backtest)
async def backtest(engine: Engine, name: Name, body: BacktestBody) -> Response:
    """What it, or another specification, would make of the last records."""
    tried = await engine.backtest_pipeline(
        name, body.spec, records=body.records, samples=body.samples, max_tokens=body.max_tokens, max_cost=body.max_cost
    )
    return Reply(tried)


class EnrichBody(Body):
    """Records, and what to do with them."""

    records: list[Any] = Field(min_length=1, max_length=1000)
    spec: Specification
    stream: bool = False


@router.post("/enrich", responses={200: {"content": {"text/event-stream": {}}}})
async def enrich(shared: Shared, body: EnrichBody) -> Response:
    """Given records through a specification that is not kept, as POST /v1/pipelines/{name}/run does with one that is."""
    return await run(shared, "given", RunBody(records=body.records, spec=body.spec, stream=body.stream))


@router.post("/pipelines/{name}/run", responses={200: {"content": {"text/event-stream": {}}}})
async def run(shared: Shared, name: Name, body: RunBody) -> Response:
    """Given records through a pipeline: their results, or with `stream` each step as a server-sent event."""
    events = shared.verbs.run_pipeline(name, body.records, spec=body.spec)
    if body.stream:
        return sse.stream(_streamed(await _begun(events)), shared.closing)
    return Reply({"results": [event.ran async for event in events if event.ran is not None]})


@router.get("/pipelines/{name}/trace", response_model=Ran)
async def trace(engine: Engine, name: Name, address: Annotated[str, Query(max_length=200)]) -> Response:
    """What each step makes of a stored record."""
    return Reply(await engine.trace_pipeline(name, address))


async def _begun(events: AsyncIterator[RunEvent]) -> AsyncIterator[RunEvent]:
    """The same events, the first of them waited for: what is wrong with the request is told before the stream begins."""
    first = await anext(aiter(events), None)

    async def rest() -> AsyncIterator[RunEvent]:
        if first is not None:
            yield first
        async for event in events:
            yield event

    return rest()


async def _streamed(events: AsyncIterator[RunEvent]) -> AsyncIterator[bytes]:
    async for event in events:
        yield sse.json_event(event, name=event.event)
