"""What the feed says of sources that cannot be made or that fail: at once where it can, and once in the log."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

import headwater.feed
from brokers import settings_for, soon
from headwater.engine import Engine
from headwater.errors import ConfigError
from headwater.feed import Feed
from headwater.intake.roster import Entry
from headwater.source_settings import SourceSettings
from headwater.sources import Batch, Condition, Source, State


class Failing:
    """A source that fails whenever it is started, in other words the fourth time."""

    name, kind, topic, path = "failing", "scripted", "in", "failing"
    condition = Condition("following")

    def __init__(self) -> None:
        self.runs = 0

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        self.runs += 1
        raise ConfigError("another thing" if self.runs == 4 else "the same thing")
        yield


async def _run(directory: Path, path: str, find: headwater.feed.Find, enough: object) -> None:
    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    async with Engine(settings_for(directory)) as engine:
        engine.roster.given([SourceSettings(path=path)])
        task = asyncio.create_task(Feed(engine, find, pause=pause).run())
        assert callable(enough)
        await soon(enough, lambda: engine.roster.infos())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_source_that_fails_again_and_again_is_told_once_for_each_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "headwater.feed")
    source = Failing()

    def find(entry: Entry, known: Mapping[str, str]) -> Sequence[Source]:
        return [] if known else [source]

    asyncio.run(_run(tmp_path, "failing", find, lambda: source.runs > 8))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    same, another = (f"source failing: {words} thing; trying again" for words in ("the same", "another"))
    assert told == [same, another, same]


def test_an_entry_of_which_no_source_can_be_made_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG, "headwater.feed")
    monkeypatch.setattr(headwater.feed, "_SEARCH_S", 0.02)
    monkeypatch.setattr(headwater.feed, "_LOOK_S", 0.02)
    tries: list[str] = []

    def find(entry: Entry, known: Mapping[str, str]) -> Sequence[Source]:
        tries.append(entry.name)
        raise ConfigError("no such thing")

    asyncio.run(_run(tmp_path, "nowhere", find, lambda: len(tries) > 4))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == ["looking for sources of nowhere: no such thing"]


@pytest.mark.parametrize(
    ("settings", "extra"),
    [({"type": "kafka", "topics": ["orders"]}, "headwater[kafka]"), ({"type": "nats", "stream": "ORDERS"}, "headwater[nats]")],
)
def test_a_source_whose_package_is_missing_is_refused_when_it_is_added(
    settings: dict[str, object], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def add() -> None:
        async with Engine(settings_for(tmp_path)) as engine:
            with monkeypatch.context() as patched:
                patched.setattr(importlib.util, "find_spec", lambda name: None)
                with pytest.raises(ConfigError) as caught:
                    await engine.add_source(**settings)
            assert extra in str(caught.value)
            assert await engine.sources() == []

    asyncio.run(add())
