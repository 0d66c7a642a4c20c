"""Anomalies over every surface: switched on, found, explained, called none, passed on, kept over restarts."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import headwater
from headwater.blocking import Headwater
from headwater.cli.app import app
from headwater.detect.detectors import Detectors, per_day
from headwater.errors import NotFoundError, UsageError
from headwater.log.store import Log
from headwater.records.anomalies import Anomaly
from serving import eventually, serving, settings_in

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
TROUBLE = 150  # minutes after the start


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def records(start: int, end: int) -> list[dict[str, Any]]:
    """A calm service by the minute; from TROUBLE on for ten minutes it has a trouble that it never had."""
    made: list[dict[str, Any]] = []
    for minute in range(start, end):
        at = START + timedelta(minutes=minute)
        texts = ["order was placed", "order was paid", "cart was priced"] * 2 + ["cache was refreshed"] * (minute % 3 == 0)
        made += [{"value": t, "key": "shop", "timestamp": at, "attributes": {"level": "info"}} for t in texts]
        if TROUBLE <= minute < TROUBLE + 10:
            bad = {"value": "the ledger refused a booking", "key": "shop", "timestamp": at, "attributes": {"level": "error"}}
            made += [bad] * 6
    return made


def judged(hw: Headwater, topic: str = "logs") -> None:
    eventually(lambda: hw.topic(topic).watermark.semantic == hw.topic(topic).records and hw.detecting(topic)[0].behind == 0)


def troubled(hw: Headwater) -> Anomaly:
    """A topic whose detectors are on, with the one anomaly found in it."""
    hw.create_topic("logs", passages="exact")
    hw.set_detecting("logs", budget="3/day")
    hw.append("logs", records(0, TROUBLE + 30))
    judged(hw)
    eventually(lambda: len(hw.anomalies(["logs"])) == 1)
    return hw.anomalies(["logs"])[0]


def test_a_new_trouble_is_found_and_explains_itself(hw: Headwater) -> None:
    found = troubled(hw)
    assert found.id == "logs-1"
    assert found.alerted
    assert found.feedback is None
    assert START + timedelta(minutes=TROUBLE - 5) <= found.start <= START + timedelta(minutes=TROUBLE + 5)
    assert "the ledger refused a booking" in found.what
    assert found.by_chance_days > 5
    assert found.severity in ("high", "critical")
    assert {hw.read(place).record.value for place in found.addresses} >= {"the ledger refused a booking"}
    assert all(normal.text != "the ledger refused a booking" for normal in found.normal)
    again = hw.anomaly("logs-1")  # more of it may have come in between
    assert (again.id, again.start, again.alerted) == (found.id, found.start, True)
    assert hw.status().detectors["alerted"] == 1
    (state,) = hw.detecting("logs")
    assert (state.state, state.found, state.alerted, state.budget_per_day) == ("watching", 1, 1, 3.0)


def test_what_is_called_no_anomaly_is_hidden_and_may_be_taken_back(hw: Headwater) -> None:
    troubled(hw)
    judged_so = hw.judge_anomaly("logs-1", "not an anomaly", note="a drill")
    assert (judged_so.feedback, judged_so.note) == ("not an anomaly", "a drill")
    assert len(hw.anomalies(["logs"])) == 0
    assert [a.id for a in hw.anomalies(["logs"], dismissed=True)] == ["logs-1"]
    assert hw.judge_anomaly("logs-1", None).feedback is None
    assert len(hw.anomalies(["logs"])) == 1


def test_a_timeline_marks_the_anomaly_where_it_happened(hw: Headwater) -> None:
    found = troubled(hw)
    reply = hw.timeline(topics=["logs"], buckets=12)
    (marker,) = [m for m in reply.markers if m.kind == "anomaly"]
    assert (marker.id, marker.topic, marker.at, marker.severity) == ("logs-1", "logs", found.start, found.severity)
    assert hw.timeline(topics=["logs"], until=START + timedelta(hours=1)).markers == ()


def test_what_lies_in_history_alerts_nobody_and_is_listed_when_asked(hw: Headwater) -> None:
    hw.create_topic("logs", passages="exact")
    hw.append("logs", records(0, TROUBLE + 30), wait="searchable", timeout_s=240)
    hw.set_detecting("logs")
    judged(hw)
    eventually(lambda: len(hw.anomalies(["logs"], quiet=True)) == 1)
    assert len(hw.anomalies(["logs"])) == 0
    found = hw.anomalies(["logs"], quiet=True)[0]
    assert (found.alerted, found.why_quiet) == (False, "found in history")
    assert hw.anomalies(["logs"], quiet=True, kind="silence").anomalies == ()
    assert hw.anomalies(["logs"], quiet=True, since=START + timedelta(days=1)).anomalies == ()


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once somebody follows alerts; before that they pass him by."""
    begun, events = threading.Event(), Detectors.events

    async def telling(self: Detectors, topics: Sequence[str] | None = None, **where: Any) -> AsyncIterator[Anomaly]:
        following = events(self, topics, **where)
        coming = asyncio.ensure_future(anext(following))  # type: ignore[arg-type]  # it is an async generator
        await asyncio.sleep(0)
        begun.set()
        yield await coming
        async for anomaly in following:
            yield anomaly

    monkeypatch.setattr(Detectors, "events", telling)
    return begun


def test_alerts_go_to_a_topic_once_and_to_whoever_follows(followed: threading.Event, hw: Headwater) -> None:
    hw.create_topic("logs", passages="exact")
    hw.set_detecting("logs", alert_topic="alerts")
    got: list[Anomaly] = []
    follower = threading.Thread(target=lambda: got.append(next(iter(hw.anomaly_events(["logs"])))), daemon=True)
    follower.start()
    assert followed.wait(240)
    hw.append("logs", records(0, TROUBLE + 30))
    eventually(lambda: any(t.name == "alerts" and t.records == 1 for t in hw.topics()))
    (alert,) = hw.records("alerts").records
    assert (alert.key, alert.attributes["anomaly"]) == ("logs", "logs-1")
    follower.join(240)
    assert [a.id for a in got] == ["logs-1"]


def test_settings_stay_and_wrong_ones_are_refused(hw: Headwater) -> None:
    hw.create_topic("logs")
    assert hw.detecting("logs")[0].state == "off"
    assert hw.detecting() == []
    first = hw.set_detecting("logs", budget="7 per week", sensitivity="high", detectors=["new", "rate"], fields=["ms"])
    assert (first.budget_per_day, first.sensitivity, first.detectors, first.fields) == (1.0, "high", ("rate", "new"), ("ms",))
    again = hw.set_detecting("logs", session="request")
    assert (again.budget_per_day, again.fields, again.session) == (1.0, ("ms",), "request")
    assert hw.set_detecting("logs", enabled=False).state == "off"
    mistakes: list[dict[str, Any]] = [{"budget": "lots"}, {"budget": 0}, {"alert_topic": "logs"}]
    for wrong in mistakes:
        with pytest.raises(UsageError):
            hw.set_detecting("logs", **wrong)
    with pytest.raises(NotFoundError):
        hw.set_detecting("nowhere")
    with pytest.raises(NotFoundError):
        hw.anomaly("logs-9")
    hw.create_topic("other")
    with pytest.raises(UsageError, match="never on"):
        hw.anomalies(["other"])


def test_budgets_are_read_as_people_write_them() -> None:
    assert [per_day(b) for b in ("3/day", "3", 3, "0.5/day", "1/hour", "7 per week", "2 a day")] == [3, 3, 3, 0.5, 24, 1, 2]


def test_anomalies_and_what_was_learned_outlive_a_restart(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        troubled(hw)
        before = hw.detecting("logs")[0]
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        judged(hw)
        after = hw.detecting("logs")[0]
        assert (after.history_days, after.found, after.alerted) == (before.history_days, 1, 1)
        hw.append("logs", records(TROUBLE + 30, TROUBLE + 60))
        judged(hw)
        assert [a.id for a in hw.anomalies(["logs"], quiet=True)] == ["logs-1"]
        hw.delete_topic("logs")
        hw.create_topic("logs")
        assert hw.detecting("logs")[0].state == "off"


def test_whoever_comes_late_is_told_every_alert_since(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        troubled(hw)
    more = "INSERT INTO anomaly SELECT topic, n + ?1, kind, severity, start_ms, end_ms, found_ms + ?1 / 2, alerted, quiet,"
    more += " feedback, note, body, told FROM anomaly WHERE n = 1"
    with Log(tmp_path, clock_ms=lambda: 0) as log:
        log.write(lambda db: db.executemany(more, [(n,) for n in range(1, 1201)]))
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        told = [alert.id for alert in itertools.islice(hw.anomaly_events(["logs"], cursor="logs-1"), 1200)]
    assert told == [f"logs-{n}" for n in range(2, 1202)]


def test_detectors_of_another_version_learn_again_and_tell_nothing_twice(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        before = troubled(hw)
    with Log(tmp_path, clock_ms=lambda: 0) as log:
        log.write(lambda db: db.execute("UPDATE detector_state SET state = ?", (zlib.compress(b'{"version": 0}'),)))
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        judged(hw)
        assert hw.detecting("logs")[0].history_days > 0.05
        (kept,) = hw.anomalies(["logs"], quiet=True)
        assert (kept.id, kept.start, kept.found, kept.alerted) == (before.id, before.start, before.found, True)
        calm = TROUBLE + 30 + 300
        hw.append("logs", records(TROUBLE + 30, calm))
        at = START + timedelta(minutes=calm)
        odd = [{"value": "the vault is open", "key": "shop", "timestamp": at, "attributes": {"level": "error"}}] * 30
        hw.append("logs", [*odd, *records(calm, calm + 30)])
        judged(hw)
        new, old = hw.anomalies(["logs"])
        assert (new.text, old.id) == ("the vault is open", before.id)


def test_the_command_shows_what_was_found(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url, headwater.connect(url) as hw:
        troubled(hw)

        def call(*args: str) -> tuple[int, str]:
            done = CliRunner().invoke(app, ["anomaly", *args, "--url", url])
            return done.exit_code, done.stdout

        assert call("enable", "logs", "--budget", "2/day", "--sensitivity", "low")[0] == 0
        code, shown = call("list", "logs")
        assert code == 0
        assert shown.startswith("logs-1")
        assert "the ledger refused a booking" in shown
        assert json.loads(call("show", "logs-1", "--json")[1])["id"] == "logs-1"
        assert "normal" in call("show", "logs-1")[1]
        assert call("feedback", "logs-1", "--not-an-anomaly", "--note", "a drill")[0] == 0
        assert call("list", "logs")[1] == ""
        assert "2 alerts a day, low sensitivity" in call("status", "logs")[1]
        assert call("feedback", "logs-1")[0] == 2
        assert call("list", "--kind", "odd")[0] == 2
        assert call("disable", "logs")[0] == 0
        metrics = httpx.get(f"{url}/metrics").text
        assert 'headwater_anomalies{state="found"}' in metrics
        assert httpx.put(f"{url}/v1/topics/logs/anomaly", json={"colour": 1}).status_code == 422
