"""Anomalies and detectors over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

from headwater import wire
from headwater.client.sending import PATIENT_S, PAUSES_S, Sending, given, listed
from headwater.errors import UnreachableError
from headwater.records.anomalies import AnomaliesReply, Anomaly, Detecting, Verdict


class DetectCalls:
    """The verbs of detectors."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    async def anomalies(self, topics: Sequence[str] | None = None, **scope: Any) -> AnomaliesReply:
        """As DetectVerbs.anomalies."""
        query = {"topics": listed(topics), **scope}
        return wire.decode(AnomaliesReply, await self._sending.send("GET", "/v1/anomalies", query=query, again=True))

    async def one(self, id: str) -> Anomaly:
        """As DetectVerbs.anomaly."""
        return await self._sending.get(Anomaly, _anomaly(id))

    async def detecting(self, topic: str | None = None) -> list[Detecting]:
        """As DetectVerbs.detecting."""
        if topic is not None:
            return [await self._sending.get(Detecting, _topic(topic))]
        return (await self._sending.get(dict[str, list[Detecting]], "/v1/anomalies/detectors"))["detectors"]

    async def set(self, topic: str, **settings: Any) -> Detecting:
        """As DetectVerbs.set_detecting."""
        body = wire.sent(given(settings))
        return wire.decode(Detecting, await self._sending.send("PUT", _topic(topic), body=body, again=True))

    async def judge(self, id: str, verdict: Verdict | None, *, note: str | None = None) -> Anomaly:
        """As DetectVerbs.judge_anomaly."""
        body = wire.sent({"verdict": verdict, "note": note})
        return wire.decode(Anomaly, await self._sending.send("POST", f"{_anomaly(id)}/feedback", body=body, again=True))

    async def events(self, topics: Sequence[str] | None = None, *, cursor: str | None = None) -> AsyncIterator[Anomaly]:
        """As DetectVerbs.anomaly_events, over broken connections and restarts of the daemon."""
        tries, pauses = 0, PAUSES_S
        while True:
            try:
                query = {"topics": listed(topics), "cursor": cursor}
                async for event in self._sending.events("GET", "/v1/anomalies/events", query=query):
                    tries, pauses = 0, PATIENT_S
                    anomaly = wire.decode(Anomaly, event.data)
                    cursor = anomaly.id
                    yield anomaly
            except UnreachableError:
                if tries >= len(pauses):
                    raise
            await self._sending.pause(pauses[min(tries, len(pauses) - 1)])
            tries += 1


def _anomaly(id: str) -> str:
    return f"/v1/anomalies/{quote(id, safe='')}"


def _topic(name: str) -> str:
    return f"/v1/topics/{quote(name, safe='')}/anomaly"
