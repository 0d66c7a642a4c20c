"""The engine's verbs over a real directory: what they give, what they refuse, what outlives a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from convergence import assert_converged, settled
from headwater.config import Settings, load
from headwater.engine import Engine
from headwater.errors import ConfigError, ConflictError, NotFoundError, QueryError, UsageError
from headwater.records import Draft, Record
from headwater.temporary import temporary

BASE = 1_770_000_000_000


def given(path: Path, **arguments: Any) -> Settings:
    plain = {"embedding.model": "hash", "data_dir": str(path), "index.commit_interval_s": 0.01}
    return load(arguments=plain | arguments, environment={}).settings


def run(path: Path, main: Callable[[Engine], Awaitable[None]], **arguments: Any) -> None:
    """`main` with an engine over `path`."""

    async def opened() -> None:
        async with Engine(given(path, **arguments)) as engine:
            await asyncio.wait_for(main(engine), 240)

    asyncio.run(opened())


async def fill(engine: Engine, name: str, records: list[Any], **config: Any) -> None:
    await engine.create_topic(name, **({"passages": "exact"} | config))
    done = await engine.append(name, records, wait="searchable", timeout_s=240)
    assert (done.wait, done.timed_out) == ("searchable", False)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 240.0) -> None:
    end = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def values(engine: Engine, q: str, **more: Any) -> list[str]:
    return [h.value for h in await engine.search(q, **more)]


# ---------------------------------------------------------------------- topics


def test_topics_are_made_once_changed_within_bounds_and_deleted_everywhere(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        made = await engine.create_topic("t", partitions=2, passages="exact")
        assert (made.name, made.partitions, made.records, made.watermark.stored) == ("t", 2, 0, 0)
        assert (await engine.create_topic("t", partitions=2, passages="exact")).name == "t"
        with pytest.raises(ConflictError, match="exists already"):
            await engine.create_topic("t", partitions=3)
        for bad in ("", "a/b", "-x", "x" * 101, "a b", "ü"):
            with pytest.raises(UsageError, match="cannot name a topic"):
                await engine.create_topic(bad)
            with pytest.raises(UsageError, match="cannot name a topic"):
                await engine.append(bad, ["x"])
        with pytest.raises(ConfigError, match="unknown embedding model"):
            await engine.create_topic("u", embedding_model="nonsense")
        assert [t.name for t in await engine.topics()] == ["t"]
        await engine.append("t", ["one two", "three"], wait="searchable", timeout_s=60)
        with pytest.raises(UsageError, match="partitions of 't' is fixed"):
            await engine.set_topic("t", partitions=5)
        with pytest.raises(UsageError, match="headwater index delete t"):
            await engine.set_topic("t", embedding_model="none")
        assert (await engine.set_topic("t", semantic_weight=0.2, retention_s="30d")).config["semantic_weight"] == 0.2
        assert await values(engine, "three", topics=["t"]) == ["three"]
        id = engine.stock.find("t").row.id
        await engine.delete_topic("t")
        for verb in (engine.topic("t"), engine.search("x", topics=["t"]), engine.delete_topic("t"), engine.index("t")):
            with pytest.raises(NotFoundError, match="'t'"):
                await verb
        assert await values(engine, "three") == []
        with engine.log.reading() as db:
            for table in ("record", "occurrence", "passage", "vector", "cursor", "alias"):
                assert db.execute(f"SELECT count(*) FROM {table}").get == 0, table
        assert engine.keyword.documents == 0
        assert not list((tmp_path / "vectors").glob(f"{id}-*"))
        await engine.append("t", ["born again"], wait="searchable", timeout_s=60)
        assert [h.address for h in await engine.search("again")] == ["t/0/0"]

    run(tmp_path, main)


def test_topics_of_the_settings_are_made_changed_and_never_keep_an_engine_from_starting(tmp_path: Path) -> None:
    async def first(engine: Engine) -> None:
        await engine.append("t", ["x"])

    async def changed(engine: Engine) -> None:
        assert (await engine.topic("t")).config["retention_records"] == 50
        assert (await engine.status()).problems == ()

    async def impossible(engine: Engine) -> None:
        assert (await engine.topic("t")).partitions == 1
        assert any("partitions of 't' is fixed" in p for p in (await engine.status()).problems)
        await engine.append("t", ["y"])

    run(tmp_path, first, topics={"t": {"passages": "exact"}})
    run(tmp_path, changed, topics={"t": {"passages": "exact", "retention_records": 50}})
    run(tmp_path, impossible, topics={"t": {"passages": "exact", "partitions": 4}})


def test_an_engine_that_cannot_open_lets_go_of_its_directory(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError):
            async with Engine(given(tmp_path, topics={"t": {"embedding_model": "nonsense"}})):
                pass
        async with Engine(given(tmp_path)) as engine:
            await engine.append("t", ["x"])

    asyncio.run(main())


# ---------------------------------------------------------------------- records


def test_records_are_read_by_address_with_neighbours_and_in_pages(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [{"value": f"v{n}", "timestamp": (BASE + n * 1000) / 1000, "key": str(n)} for n in range(30)])
        view = await engine.read("t/0/10", context=2)
        assert [r.value for r in (*view.before, view.record, *view.after)] == ["v8", "v9", "v10", "v11", "v12"]
        page = await engine.records("t", offset=25, limit=3)
        assert [r.value for r in page.records] == ["v25", "v26", "v27"]
        rest = await engine.records("t", limit=3, cursor=page.next_cursor)
        assert ([r.value for r in rest.records], rest.next_cursor) == (["v28", "v29"], None)
        timed = await engine.records("t", since=(BASE + 5000) / 1000, until=(BASE + 7000) / 1000)
        assert [r.value for r in timed.records] == ["v5", "v6"]
        for wrong in ("t/0", "t/0/x", "t/0/-1", "/0/1"):
            with pytest.raises(UsageError, match="record address"):
                await engine.read(wrong)
        for missing in ("t/0/30", "t/1/0", "u/0/0", "t/0/999999999999999999"):
            with pytest.raises(NotFoundError):
                await engine.read(missing)
        with pytest.raises(UsageError):
            await engine.records("t", offset=-1)

    run(tmp_path, main)


def test_a_tail_resumes_filters_waits_and_ends(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [{"value": f"number {n}", "attributes": {"odd": bool(n % 2)}} for n in range(6)], partitions=3)
        heads = (await engine.topic("t")).heads
        assert (sum(heads), len(heads)) == (6, 3)
        got: list[str] = []

        async def take(number: int, **more: Any) -> list[Record]:
            found = []
            stream = engine.tail("t", **more)
            async for record in stream:
                found.append(record)
                if len(found) == number:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            return found

        assert [r.value for r in await take(6, from_start=True)] == [f"number {n}" for n in range(6)]
        first = (await take(2, from_start=True))[-1]
        assert [r.value for r in await take(4, after=first.address)] == [f"number {n}" for n in range(2, 6)]
        assert [r.value for r in await take(2, q="odd:true -even", from_start=True)] == ["number 1", "number 3"]

        async def follow() -> None:
            async for record in engine.tail("t", "late"):
                got.append(record.value)

        task = asyncio.create_task(follow())
        await asyncio.sleep(0)
        while not got:
            await engine.append("t", ["early", "too late"])
        assert set(got) == {"too late"}
        await engine.delete_topic("t")
        with pytest.raises(NotFoundError):
            await asyncio.wait_for(task, 240)
        await engine.append("u", ["x"])
        with pytest.raises(UsageError, match="is not in topic"):
            await anext(engine.tail("u", after="t/0/0"))

    run(tmp_path, main)


def test_a_tail_ends_when_the_engine_closes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(given(tmp_path)) as engine:
            await engine.append("t", ["x"])

            async def follow() -> list[str]:
                return [r.value async for r in engine.tail("t", from_start=True)]

            task = asyncio.create_task(follow())
            await asyncio.sleep(0)
        assert await asyncio.wait_for(task, 240) in (["x"], [])

    asyncio.run(main())


def test_appends_are_whole_or_nothing_and_say_which_record_is_wrong(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", partitions=2)
        for bad, why in (
            ({"values": 1}, "unknown field 'values'"),
            ({"key": "k"}, "no 'value'"),
            ({"value": "x", "partition": 2}, "partition 2 does not exist"),
            ({"value": "x", "vector": [1.0]}, "makes its own vectors"),
            ({"value": "x", "timestamp": "yesterdayish"}, "yesterdayish"),
            (7, "expected text or an object"),
        ):
            with pytest.raises(UsageError, match=why):
                await engine.append("t", ["fine", bad])  # type: ignore[list-item]
        assert (await engine.topic("t")).records == 0
        with pytest.raises(UsageError, match="wait must be"):
            await engine.append("t", ["x"], wait="forever")  # type: ignore[arg-type]
        assert (await engine.append("t", [])).records == ()
        assert (await engine.append("t", ["x"], wait="searchable", timeout_s=0)).timed_out

    run(tmp_path, main)


def test_strange_values_are_kept_indexed_and_harm_nothing(tmp_path: Path) -> None:
    strange = [
        "", "   ", "\0", "a\0b", "\ud800", "x\udfffy", "\u202e evil", "é" * 5, "a" + "\u0301" * 100_000, "{" * 100_000,
        "[" * 100_000, '{"a": NaN}', '{"a": 1e999, "a": 2}', "\x1b]52;c;x\x07", "<*>", "<*> <*>", "9" * 5000, "x" * 1_200_000,
        "2026-13-45T99:99:99Z ERROR no such time", "0000-00-00 00:00:00 x", "9999-12-31T23:59:59Z INFO end of time",
    ]  # fmt: skip

    async def main(engine: Engine) -> None:
        for passages in ("exact", "template", "chunks"):
            records = [{"value": v, "attributes": {"n": n, "\0": "\ud800", "x" * 300: 1 << 70}} for n, v in enumerate(strange)]
            await fill(engine, passages, [*records, "the last good one"], passages=passages)
            assert await values(engine, '"last good"', topics=[passages]) == ["the last good one"]
            assert await engine.dead_letters(passages) == []
            await assert_converged(engine, passages)

    run(tmp_path, main)


# ---------------------------------------------------------------------- dead letters


def test_one_record_in_a_hundred_that_cannot_be_read_holds_up_no_other(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        records = [f'{{"message": "good number {n}"}}' if n % 100 else f"no object {n}" for n in range(1000)]
        await fill(engine, "t", records, field="$.message")
        topic = await engine.topic("t")
        assert (topic.records, topic.dead_letters, topic.passages) == (1000, 10, 990)
        letters = await engine.dead_letters("t")
        assert {letter.address for letter in letters} == {f"t/0/{n}" for n in range(0, 1000, 100)}
        assert all("has no field '$.message'" in letter.reason and letter.stage == "passages" for letter in letters)
        assert len(await engine.dead_letters("t", limit=3)) == 3
        with pytest.raises(UsageError, match="fails again"):
            await engine.replay_dead_letter(letters[0].id)
        assert len(await engine.dead_letters("t")) == 10
        await assert_converged(engine, "t")
        await engine.drop_dead_letter(letters[0].id)
        with pytest.raises(NotFoundError, match="no dead letter"):
            await engine.replay_dead_letter(letters[0].id)
        assert await values(engine, "object", topics=["t"], mode="keyword") != []  # still found by its words

    run(tmp_path, main)


def test_a_dead_letter_that_can_be_read_after_all_counts_once(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ['{"message": "fine"}', '{"message": "mended"}'], field="$.message")
        topic = engine.stock.find("t")
        row = engine.log.rows(topic.row.id, 1, 1)[0]
        letter = "INSERT INTO dead_letter(topic, stage, reason, seq, payload, created_ms) VALUES(?, 'passages', 'x', 1, '', 0)"
        engine.log.write(lambda db: db.execute(letter, (topic.row.id,)).get)
        engine.log.write(lambda db: db.execute("DELETE FROM occurrence WHERE record = ?", (row.id,)).get)
        engine.log.write(lambda db: db.execute("UPDATE passage SET count = 0 WHERE text = 'mended'").get)
        for _ in range(2):  # cut anew; then, cut already, only embedded again
            await engine.replay_dead_letter((await engine.dead_letters("t"))[0].id)
            await assert_converged(engine, "t")
            assert await engine.dead_letters("t") == []
            assert [(h.passage.count, h.value) for h in await engine.search("mended", top_k=1)] == [(1, row.value)]
            engine.log.write(lambda db: db.execute(letter, (topic.row.id,)).get)

    run(tmp_path, main)


def test_oversized_values_are_set_aside_where_the_topic_says_so(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["short", "x" * 5000], oversize="dead-letter")
        (letter,) = await engine.dead_letters("t")
        assert (letter.stage, letter.address) == ("intake", None)
        assert "5000 characters" in letter.reason
        assert letter.payload == "x" * 5000
        assert (await engine.topic("t")).records == 1
        with pytest.raises(UsageError, match="never became a record"):
            await engine.replay_dead_letter(letter.id)
        await fill(engine, "k", ["word " * 1000])
        assert len((await engine.read("k/0/0")).record.value) == 5000

    run(tmp_path, main, **{"ingest.max_value_bytes": 1000})


# ---------------------------------------------------------------------- life


def test_closing_while_work_waits_loses_nothing_and_a_restart_answers_the_same(tmp_path: Path) -> None:
    answers: list[list[tuple[str, float, int]]] = []
    queries = ("record number 77", "number", "kind 3", "zebra")

    async def ingest(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        await engine.create_topic("l", passages="template")
        for start in range(0, 3000, 500):
            await engine.append("t", [f"record number {n} of kind {n % 7}" for n in range(start, start + 500)])
            await engine.append("l", [f"2026-01-01 10:00:00 INFO user {n} did {n % 5} things in {n % 9}ms" for n in range(500)])

    async def ask(engine: Engine) -> None:
        for name in ("t", "l"):
            await assert_converged(engine, name)
        assert engine.keyword.worn() == {}  # nothing was fed again
        found = [[(h.address, h.score, h.passage.count) for h in await engine.search(q)] for q in queries]
        answers.append([hit for hits in found for hit in hits])

    run(tmp_path, ingest)
    run(tmp_path, ask)
    run(tmp_path, ask)
    assert answers[0] == answers[1]
    assert len(answers[0]) > 20


def test_a_temporary_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    async def main() -> None:
        async with temporary(given(tmp_path)) as engine:
            await fill(engine, "t", ["gone soon"])
            directory = engine.directory
            assert directory.exists()
            assert directory != tmp_path
        assert not directory.exists()

    asyncio.run(main())


def test_the_status_tells_topics_problems_and_the_topic_goes_on_without_its_model(tmp_path: Path) -> None:
    async def make(engine: Engine) -> None:
        await fill(engine, "t", ["findable words"])
        engine.log.update_topic(engine.stock.find("t").row.id, model="onnx:/nowhere/at/all")

    async def look(engine: Engine) -> None:
        status = await engine.status()
        assert (status.ready, status.model, [t.name for t in status.topics]) == (True, "hash", ["t"])
        assert len(status.problems) == 1
        assert "/nowhere/at/all" in status.problems[0]
        assert await values(engine, "findable") == ["findable words"]
        with pytest.raises(ConfigError, match="there is no"):
            await engine.create_index("t", "onnx:/nowhere/at/all")
        await engine.create_index("t", "hash")
        await settled(engine, "t")
        assert (await engine.status()).problems == ()
        assert (await engine.search("findable", mode="semantic"))[0].value == "findable words"

    run(tmp_path, make)
    run(tmp_path, look)


def test_queries_that_do_not_parse_say_where(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["x"])
        with pytest.raises(QueryError) as caught:
            await engine.search("fine since:whenever")
        assert caught.value.position == 11
        with pytest.raises(UsageError, match="question"):
            await engine.ask("  ")

    run(tmp_path, main)


def test_appends_of_many_callers_are_all_kept(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact", partitions=2)
        done = await asyncio.gather(*(engine.append("t", [Draft(f"w{n}"), f"v{n}"]) for n in range(100)))
        addresses = [r.address for reply in done for r in reply.records]
        assert len(set(addresses)) == 200
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_quotes_filter_a_query_and_are_emphasis_in_a_long_question(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["articles on time sharing in operating systems", "a note on sharing time"])
        assert len(await engine.search('"time sharing"', mode="keyword")) == 1
        asked = 'Which articles of ours describe anything at all about "sharing of time" in the systems we operate?'
        reply = await engine.search(asked, mode="keyword")
        assert reply[0].value.startswith("articles")
        assert any("emphasis" in note for note in reply.coverage.notes)

    run(tmp_path, main)
