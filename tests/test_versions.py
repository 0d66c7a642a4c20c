"""Former versions of documents: out of sight for everybody, there for who asks, bounded, and deleted with the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import headwater
from brokers import soon
from headwater import versions
from headwater.config import EmbeddingSettings, Settings, TopicConfig
from headwater.engine import Engine
from headwater.errors import NotFoundError, UsageError
from headwater.log import catalogue, former
from headwater.records import Draft
from serving import eventually, serving, settings_in

WHEN = "2026-03-01T12:00:00Z"


class Shelf:
    """Documents delivered into an engine by hand, as a source does."""

    def __init__(self, engine: Engine, topic: str = "docs", source: str = "directory:/docs") -> None:
        self.engine, self.topic, self.source, self._at = engine, topic, source, 0

    async def put(self, key: str, text: str) -> str:
        """Deliver a version; its address, once it can be found."""
        self._at += 1
        draft = Draft(text, key=key, attributes={"format": "text", "title": key}, position=self._at)
        await self.engine.deliver(
            self.topic, self.source, [draft], stream=f"{self.source}#1", state={"latest": [key], "n": self._at}
        )
        await self.settled()
        return f"{self.topic}/0/{self.engine.log.topic(self.topic).next_seq - 1}"

    async def drop(self, key: str) -> None:
        await self.engine.deliver(self.topic, self.source, stream=f"{self.source}#1", state={"gone": [key], "n": self._at})
        await self.settled()

    async def settled(self) -> None:
        await self.engine.indexer.wait(self.engine.stock.find(self.topic), self.engine.log.topic(self.topic).next_seq)

    async def found(self, q: str, **scope: object) -> list[str]:
        """Addresses of the hits, sorted."""
        return sorted(hit.address for hit in (await self.engine.search(q, topics=[self.topic], **scope)).hits)  # type: ignore[arg-type]


def run(tmp_path: Path, story: Callable[[Shelf], object], *, settings: Settings | None = None) -> None:
    async def go() -> None:
        async with Engine(settings or settings_in(tmp_path / "data"), version="test") as engine:
            await story(Shelf(engine))  # type: ignore[misc]  # a coroutine function

    asyncio.run(go())


def test_a_version_that_was_replaced_is_out_of_sight_for_everybody(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        engine = shelf.engine
        await shelf.put("rates", "The rate is four percent. The common clause stays.")
        new = await shelf.put("rates", "The rate is five percent. The common clause stays.")
        for mode in ("keyword", "semantic", "hybrid"):
            assert set(await shelf.found("rate percent common clause", mode=mode)) == {new}
        assert await shelf.found('"four percent"') == []
        assert await shelf.found("key:rates") == [new]
        assert (await engine.search("key:rates")).coverage.searched == 1
        assert [r.address for r in (await engine.records("docs")).records] == [new]
        assert [p.count for p in (await engine.patterns("docs")).patterns] == [1]
        assert sum(b.count for b in (await engine.timeline("", topics=["docs"])).buckets) == 1
        assert (await engine.topic("docs")).records == 1
        tail = engine.tail("docs", from_start=True)
        assert (await anext(tail)).address == new
        await tail.aclose()  # type: ignore[attr-defined]  # an async generator
        view = await engine.read(new, context=5)
        assert (view.before, view.after) == ((), ())

    run(tmp_path, story)


def test_a_version_is_read_by_its_address_and_listed_for_who_asks(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        old = await shelf.put("rates", "four percent")
        new = await shelf.put("rates", "five percent")
        seen = (await shelf.engine.read(old)).record
        assert (seen.value, seen.attributes["replaced"]) == ("four percent", 1)
        assert "replaced" not in (await shelf.engine.read(new)).record.attributes
        listed = (await shelf.engine.records("docs", versions=True)).records
        assert [(r.address, r.attributes.get("replaced")) for r in listed] == [(old, 1), (new, None)]

    run(tmp_path, story)


def test_searching_as_of_an_earlier_time_finds_the_version_of_then_and_no_other(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        first = await shelf.put("rates", "the rate of interest is four percent")
        other = await shelf.put("terms", "the rate of exchange is as agreed")
        second = await shelf.put("rates", "the rate of interest is five percent")
        third = await shelf.put("rates", "the rate of interest is six percent")
        await shelf.drop("terms")
        for mode in ("keyword", "semantic", "hybrid"):
            assert await shelf.found("rate", mode=mode) == [third]
            for before, wanted in ((0, []), (1, [first]), (2, [first, other]), (3, [other, second]), (4, [other, third])):
                assert await shelf.found("rate", mode=mode, as_of={"docs": before}) == sorted(wanted), (mode, before)
        assert await shelf.found("key:rates", as_of={"docs": 3}) == [second]
        then = await shelf.engine.search("rate", as_of="2020-01-01")
        assert (then.hits, then.coverage.searched) == ((), 0)
        assert await shelf.found("rate", as_of="2999-01-01") == [third]
        with pytest.raises(UsageError, match="not among the topics"):
            await shelf.engine.search("rate", as_of={"elsewhere": 3})

    run(tmp_path, story)


def test_a_document_that_went_is_found_as_of_before_and_comes_back(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        old = await shelf.put("plan", "buy the ropes")
        await shelf.drop("plan")
        assert await shelf.found("ropes") == []
        assert await shelf.found("ropes", as_of={"docs": 1}) == [old]
        again = await shelf.put("plan", "buy the ropes")
        assert await shelf.found("ropes", mode="semantic") == [again]
        assert (await shelf.engine.search("ropes"))[0].passage.count_total == 1

    run(tmp_path, story)


def test_as_many_versions_are_kept_as_the_topic_says(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        await shelf.engine.create_topic("docs", versions_kept=2)
        places = [await shelf.put("rates", f"the rate is number {n}") for n in range(5)]
        listed = (await shelf.engine.records("docs", versions=True)).records
        assert [r.address for r in listed] == places[2:]
        with pytest.raises(NotFoundError, match="past its retention"):
            await shelf.engine.read(places[0])
        await shelf.drop("rates")
        assert len((await shelf.engine.records("docs", versions=True)).records) == 2
        await shelf.engine.set_topic("docs", versions_kept=0)
        await shelf.put("rates", "the rate is number 6")
        assert len((await shelf.engine.records("docs", versions=True)).records) == 1

    run(tmp_path, story)


@pytest.mark.parametrize("how", [{"key": "rates"}, {"q": '"the rate"'}])
def test_a_deletion_takes_former_versions_too(tmp_path: Path, how: dict[str, str]) -> None:
    async def story(shelf: Shelf) -> None:
        await shelf.put("rates", "the rate is four percent")
        await shelf.put("rates", "the rate is five percent")
        other = await shelf.put("terms", "as agreed")
        await shelf.put("terms", "as agreed upon")
        assert (await shelf.engine.delete_records("docs", **how, dry_run=True)).matched == 2  # type: ignore[arg-type]
        assert (await shelf.engine.delete_records("docs", **how)).deleted == 2  # type: ignore[arg-type]
        assert await shelf.found("rate", as_of={"docs": 1}) == []
        assert len((await shelf.engine.records("docs", versions=True)).records) == 2
        assert await shelf.found("agreed", as_of={"docs": 3}) == [other]
        with shelf.engine.log.reading() as db:
            assert db.execute("SELECT count(*) FROM former").get == 1
            assert db.execute("SELECT count(*) FROM passage WHERE text LIKE '%rate%'").get == 0

    run(tmp_path, story)


def test_retention_and_the_end_of_a_topic_take_former_versions(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        engine = shelf.engine
        for n in range(3):
            await shelf.put("rates", f"the rate is number {n}")
        await engine.set_topic("docs", retention_records=1)
        engine.stock.expire()
        assert len((await engine.records("docs", versions=True)).records) == 3  # one is counted
        await shelf.put("other", "one more")
        engine.stock.expire()
        left = (await engine.records("docs", versions=True)).records
        assert [r.key for r in left] == ["other"]
        assert (await engine.topic("docs")).records == 1
        await shelf.put("other", "one more, changed")
        await engine.delete_topic("docs")
        with engine.log.reading() as db:
            assert db.execute("SELECT count(*) FROM former").get == 0

    run(tmp_path, story)


def test_what_a_crash_cut_short_is_made_good_when_the_engine_opens(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")

    async def before(shelf: Shelf) -> None:
        await shelf.put("a", "the amber door")
        await shelf.put("b", "the birch window")
        log, id = shelf.engine.log, shelf.engine.stock.find("docs").row.id
        log.write(lambda db: catalogue.retire(db, id, {id << 40: 1}))  # committed, and then the process was killed

    async def after(shelf: Shelf) -> None:
        shelf.engine.stock.deletion.settle()
        assert await shelf.found("amber door") == []
        assert await shelf.found("amber door", as_of={"docs": 1}) == ["docs/0/0"]
        assert await shelf.found("birch window") == ["docs/0/1"]

    run(tmp_path, before, settings=settings)
    run(tmp_path, after, settings=settings)


@pytest.mark.parametrize("behind", ["mapping", "the keyword index"])
def test_what_is_replaced_before_it_was_indexed_becomes_a_former_version_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    settings = settings_in(tmp_path / "data")
    if behind == "the keyword index":
        settings = replace(settings, index=replace(settings.index, commit_interval_s=3600.0))
    monkeypatch.setattr(versions, "_INDEXED_S", 0.0)
    texts = ["four percent and no more", "", "five percent and no more", "six percent"]  # one of them has no passages

    async def story(shelf: Shelf) -> None:
        engine = shelf.engine
        await shelf.put("terms", "as agreed")
        with monkeypatch.context() as held:
            if behind == "mapping":
                held.setattr(engine.indexer, "_map_all", lambda: False)
            monkeypatch.setattr(shelf, "settled", nothing)
            for text in texts:
                await shelf.put("rates", f"The rate is {text}" if text else "...")
                if behind != "mapping":
                    await soon(lambda: engine.indexer.topics[1].mapped == shelf._at, lambda: engine.indexer.topics)
            assert engine.indexer.topics[1].keyword <= 1
            assert [r.attributes.get("replaced") for r in (await engine.records("docs", versions=True)).records] == [
                None, 2, 3, 4, None
            ]  # fmt: skip
        engine.indexer.wake()
        with engine.indexer.busy:
            engine.indexer.commit_keyword()
        await soon(lambda: engine.indexer.topics[1].mapped == 5, lambda: engine.indexer.topics)

    async def nothing() -> None:
        return None

    async def check(shelf: Shelf) -> None:
        engine = shelf.engine
        await shelf.settled()
        assert (await engine.topic("docs")).records == 2
        assert sum(p.count for p in (await engine.patterns("docs")).patterns) == 2
        assert [r.address for r in (await engine.records("docs")).records] == ["docs/0/0", "docs/0/4"]
        for mode in ("keyword", "semantic", "hybrid"):
            assert await shelf.found("rate percent", mode=mode) == (
                ["docs/0/4"] if mode == "keyword" else ["docs/0/0", "docs/0/4"]
            )
            found = await shelf.found("rate percent", mode=mode, as_of={"docs": 2})
            assert [address for address in found if address != "docs/0/0"] == ["docs/0/1"]
        assert await shelf.found('"no more"', as_of={"docs": 4}) == ["docs/0/3"]
        assert await shelf.found("key:rates", as_of={"docs": 3}) == ["docs/0/2"]

    run(tmp_path, story, settings=settings)
    run(tmp_path, check, settings=settings_in(tmp_path / "data"))


def test_former_versions_survive_a_rebuild_a_purge_and_a_lost_keyword_index(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")

    async def before(shelf: Shelf) -> None:
        await shelf.put("rates", "the rate is four percent")
        await shelf.put("rates", "the rate is five percent")
        engine = shelf.engine
        engine.rebuilding.begin(engine.stock.find("docs"))
        while engine.rebuilding.progress(engine.stock.find("docs")) is not None:
            await asyncio.sleep(0.01)
        await check(shelf)
        await engine.purge_topic("docs", markers=["nothing of the kind"])
        await check(shelf)

    async def check(shelf: Shelf) -> None:
        for mode in ("keyword", "semantic"):
            assert await shelf.found("rate percent", mode=mode) == ["docs/0/1"]
            assert await shelf.found("rate percent", mode=mode, as_of={"docs": 1}) == ["docs/0/0"]

    run(tmp_path, before, settings=settings)
    for path in (tmp_path / "data" / "keyword").iterdir():
        path.unlink()
    run(tmp_path, check, settings=settings)


def test_versions_are_listed_over_http_and_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from headwater.cli.app import app

    folder = tmp_path / "note.md"
    with ExitStack() as stack:
        url = stack.enter_context(serving(settings_in(tmp_path / "data")))
        hw = stack.enter_context(headwater.connect(url))
        for text in ("# Plan\n\nfour ropes\n", "# Plan\n\nfive ropes\n"):
            folder.write_text(text)
            done = CliRunner().invoke(app, ["ingest", "docs", str(folder), "--url", url])
            assert done.exit_code == 0, done.output
        assert len(hw.records("docs").records) == 1
        assert len(hw.records("docs", versions=True).records) == 2
        eventually(lambda: len(hw.search("ropes", mode="keyword", as_of={"docs": 1}).hits) == 1)  # as soon as it is indexed
        listed = CliRunner().invoke(app, ["documents", "docs", "--versions", "--url", url])
        assert listed.exit_code == 0, listed.output
        assert "docs/0/0" in listed.stdout
        plain = CliRunner().invoke(app, ["documents", "docs", "--url", url])
        assert "docs/0/0" not in plain.stdout
        then = CliRunner().invoke(app, ["search", "ropes", "--as-of", "2020-01-01", "--jsonl", "--url", url])
        assert then.exit_code == 0
        assert "ropes" not in then.stdout


def test_the_rows_of_former_versions_are_told_apart_by_topic(tmp_path: Path) -> None:
    async def story(shelf: Shelf) -> None:
        await shelf.put("a", "one")
        await shelf.put("a", "two")
        id = shelf.engine.stock.find("docs").row.id
        with shelf.engine.log.reading() as db:
            assert former.among(db, {id << 40, id << 40 | 1, (id + 1) << 40}) == {id << 40: 1}
            assert former.among(db, set()) == {}

    run(tmp_path, story)


def test_settings_of_versions_are_checked() -> None:
    assert TopicConfig().versions_kept == 10
    settings = replace(Settings(), embedding=EmbeddingSettings(model="hash"))
    assert settings.topics == {}
