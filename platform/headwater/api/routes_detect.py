"""Anomalies: found, followed (server-sent events), judged by people; and the detectors of a topic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from headwater import wire
from headwater.api import sse
from headwater.api.bodies import Body, Engine, Names, Reply, Shared, Time, TopicName, names
from headwater.api.problems import RESPONSES
from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting, DetectorKind, Sensitivity, Severity, Verdict

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["anomalies"])
AnomalyId = Annotated[str, Path(max_length=120, description="Such as `logs-17`.")]


class DetectBody(Body):
    """The settings of a topic's detectors; what is left out stays."""

    enabled: bool = True
    budget: Annotated[str, Field(max_length=40)] | float | None = None
    sensitivity: Sensitivity | None = None
    detectors: list[DetectorKind] | None = Field(None, max_length=20)
    fields: list[Annotated[str, Field(max_length=200)]] | None = Field(None, max_length=100)
    session: str | None = Field(None, max_length=200)
    alert_topic: str | None = Field(None, max_length=100)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class VerdictBody(Body):
    """What a person says an anomaly was; null takes it back."""

    verdict: Verdict | None
    note: str | None = Field(None, max_length=4000)


@router.get("/anomalies", response_model=AnomaliesReply)
async def anomalies(
    engine: Engine,
    topics: Names = None,
    since: Time = None,
    until: Time = None,
    kind: DetectorKind | None = None,
    severity: Severity | None = None,
    quiet: bool = False,
    dismissed: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(max_length=60)] = None,
) -> Response:
    """What was found odd, newest first, each with its explanation. `severity` is the least one; `quiet` also lists what did not
    alert, `dismissed` what people called no anomaly."""
    found = await engine.anomalies(
        names(topics), since=since, until=until, kind=kind, severity=severity, quiet=quiet, dismissed=dismissed, limit=limit,
        cursor=cursor,
    )  # fmt: skip
    return Reply(found)


@router.get("/anomalies/detectors", response_model=dict[str, list[Detecting]])
async def detectors(engine: Engine) -> Response:
    """How the detectors of every topic stand where they are on."""
    return Reply({"detectors": await engine.detecting()})


@router.get("/anomalies/events", responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    shared: Shared,
    topics: Names = None,
    cursor: Annotated[str | None, Query(max_length=120)] = None,
    last_event_id: Annotated[str | None, Header(max_length=120)] = None,
) -> Response:
    """Alerts as server-sent events as they are raised; the id of each is that of the anomaly. `Last-Event-ID` resumes."""
    after = last_event_id or cursor
    if after is not None:
        await shared.verbs.anomaly(after)  # what is wrong with the request is told before the stream begins
    return sse.stream(_streamed(shared.verbs.anomaly_events(names(topics), cursor=after)), shared.closing)


@router.get("/anomalies/{id}", response_model=Anomaly)
async def anomaly(engine: Engine, id: AnomalyId) -> Response:
    """One anomaly."""
    return Reply(await engine.anomaly(id))


@router.post("/anomalies/{id}/feedback", response_model=Anomaly)
async def feedback(engine: Engine, id: AnomalyId, body: VerdictBody) -> Response:
    """Say what an anomaly was: `not an anomaly` hides it, and keeps what is like it from alerting again."""
    return Reply(await engine.judge_anomaly(id, body.verdict, note=body.note))


@router.get("/topics/{topic}/anomaly", response_model=Detecting)
async def detecting(engine: Engine, topic: TopicName) -> Response:
    """How the detectors of a topic stand; `off` where they are."""
    return Reply((await engine.detecting(topic))[0])


@router.put("/topics/{topic}/anomaly", response_model=Detecting)
async def set_detecting(engine: Engine, topic: TopicName, body: DetectBody) -> Response:
    """Switch the detectors of a topic on or off, or change their settings."""
    return Reply(await engine.set_detecting(topic, **body.arguments()))


async def _streamed(alerts: AsyncIterator[Anomaly]) -> AsyncIterator[bytes]:
    try:
        async for alert in alerts:
            yield sse.event(wire.encode(alert), id=alert.id)
    finally:
        await sse.let_go(alerts)
