"""Exports that a daemon follows: read once, again when they are exchanged, and nothing of them twice."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from headwater.errors import UsageError
from headwater.source_settings import SourceSettings
from headwater.sources import Batch
from headwater.sources.exports.following import ExportFollow
from headwater.sources.planning import plan
from sources_api import running, until


def slack(path: Path, messages: Sequence[str]) -> Path:
    said = [{"type": "message", "user": "U1", "ts": f"{1_767_225_600 + i}.000100", "text": t} for i, t in enumerate(messages)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.json", json.dumps([{"id": "U1", "name": "ada"}]))
        archive.writestr("channels.json", json.dumps([{"id": "C1", "name": "ops"}]))
        archive.writestr("ops/2026-01-01.json", json.dumps(said))
    return path


async def told(batches: AsyncIterator[Batch]) -> list[str]:
    """What is read until the export's end."""
    values: list[str] = []
    async for batch in batches:
        values += [draft.value for draft in batch.drafts]
        if batch.state.get("stamp"):
            return values
    raise AssertionError("an export that is followed has no end")


def follow(path: Path) -> ExportFollow:
    return ExportFollow(path, "slack", "chat", poll_s=0.01)


def test_an_export_named_to_the_daemon_is_a_topic_and_a_later_one_adds_what_is_new(tmp_path: Path) -> None:
    async def story() -> None:
        path = slack(tmp_path / "team.zip", ["pool exhausted again", "restarted it"])
        async with running(tmp_path / "data", SourceSettings(path=str(path))) as (engine, _):

            async def count() -> int:
                return next((t.records for t in await engine.topics() if t.name == "team"), 0)

            async def first() -> bool:
                return await count() == 2

            await until(first)
            again = follow(slack(path, ["pool exhausted again", "restarted it", "and it holds"]))
            batches = [b async for b in _until_read(again)]
            assert sum(len(b.drafts) for b in batches) == 3

        async with running(tmp_path / "data", SourceSettings(path=str(path))) as (engine, _):

            async def third() -> bool:
                return next(t.records for t in await engine.topics() if t.name == "team") == 3

            async def found() -> bool:  # the first daemon may have stored all three: nothing says that this one has looked yet
                return [source.kind for source in await engine.sources()] == ["export"]

            await until(third)
            await until(found)

    asyncio.run(story())


async def _until_read(source: ExportFollow) -> AsyncIterator[Batch]:
    batches = source.batches(None)
    async for batch in batches:
        yield batch
        if batch.state.get("stamp"):
            await batches.aclose()  # type: ignore[attr-defined]
            return


def test_an_export_that_was_read_is_not_read_again_until_it_is_another(tmp_path: Path) -> None:
    async def story() -> None:
        path = slack(tmp_path / "team.zip", ["one"])
        batches = [b async for b in _until_read(follow(path))]
        state = batches[-1].state
        source = follow(path)
        going_on = source.batches(state)
        next_one = asyncio.ensure_future(anext(going_on))

        async def following() -> bool:
            return source.condition.state == "following"

        await until(following)
        assert not next_one.done()
        slack(path, ["one", "two"])
        assert [d.value for d in (await asyncio.wait_for(next_one, 240)).drafts] == ["one", "two"]
        await going_on.aclose()  # type: ignore[attr-defined]

    asyncio.run(story())


def test_an_export_that_is_broken_waits_with_its_reason_for_a_better_one(tmp_path: Path) -> None:
    async def story() -> None:
        path = slack(tmp_path / "team.zip", ["one"])
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        source = follow(path)
        reading = asyncio.ensure_future(told(source.batches(None)))

        async def failed() -> bool:
            return "team.zip" in (source.condition.error or "")

        await until(failed)
        path.write_bytes(whole)
        assert await asyncio.wait_for(reading, 240) == ["one"]

    asyncio.run(story())


def test_what_is_no_export_that_is_written_as_a_whole_is_followed_as_before(tmp_path: Path) -> None:
    chat, journal, rows = slack(tmp_path / "a.zip", ["x"]), tmp_path / "j.jsonl", tmp_path / "t.csv"
    journal.write_text('{"__REALTIME_TIMESTAMP":"1767225600000000","MESSAGE":"x","__CURSOR":"s=1"}\n')
    rows.write_text("id,text\n1,x\n")
    named = plan([str(chat), str(journal), str(rows)])
    assert [(s.kind, s.topic) for s in named] == [("export", "a"), ("file", "j"), ("file", "t")]
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(UsageError, match=r"b\.zip"):
        plan([str(tmp_path / "b.zip")])
