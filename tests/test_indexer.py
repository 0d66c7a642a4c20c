"""The indexer: from stored records to passages, counts, aliases and vectors, and what holds it up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from brokers import free_port
from convergence import assert_converged, settled
from fake_openai import FakeOpenAI
from headwater.engine import Engine
from headwater.errors import ConfigError, EmbedError, UsageError, WaitTimeout
from headwater.log import catalogue
from headwater.log.store import Log
from headwater.records import MAX_MS, Draft, from_ms
from headwater.vectors import VectorIndex
from test_engine import BASE, fill, given, run, until, values


def test_auto_decides_from_the_first_records_and_says_so(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        lines = [f"2026-01-01T10:00:{n % 60:02d}Z INFO worker-{n} took {n} ms for /path/{n}" for n in range(40)]
        prose = [f"I would like to change my passcode please, it is the {n}th time I ask" for n in range(40)]
        await fill(engine, "lines", lines, passages="auto")
        await fill(engine, "prose", prose, passages="auto")
        await fill(engine, "docs", ["# Title\n\n" + "A sentence about something. " * 100] * 2, passages="auto")
        kinds = {t.name: t.config["passages_in_use"] for t in await engine.topics()}
        assert kinds == {"lines": "template", "prose": "exact", "docs": "chunks"}
        assert (await engine.topic("lines")).collapse > 10
        assert (await engine.topic("prose")).collapse == 1
        for name in kinds:
            await assert_converged(engine, name)

    run(tmp_path, main)


def test_a_rebuild_ends_with_its_topic(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [f"disk {n} full" for n in range(60)], passages="exact")
        with engine.indexer.busy:  # no step is taken meanwhile
            await engine.rebuild_index("t")
            gone = engine.stock.find("t")
            assert engine.rebuilding.progress(gone) is not None
        await engine.delete_topic("t")

        async def ended() -> bool:
            return engine.rebuilding.progress(gone) is None

        await until(ended)

    run(tmp_path, main, **{"ingest.batch_records": 10})


def test_a_template_that_generalises_keeps_its_count_its_first_time_and_its_place(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        names = [a + b for a in ("al", "bo", "ce", "du") for b in ("na", "rik", "ta", "lph", "mo")]
        await engine.create_topic("t", passages="template")
        for n, name in enumerate(names):
            record = {"value": f"shuttle reached {name} station before dawn", "timestamp": BASE / 1000 + n}
            await engine.append("t", [record], wait="searchable", timeout_s=60)
        (pattern,) = (await engine.patterns("t")).patterns
        assert pattern.count == 20
        assert pattern.passage.first_seen.timestamp() == BASE / 1000
        assert engine.stock.find("t").aliases
        hits = await engine.search("shuttle reached station", top_k=5)
        assert [(h.passage.id, h.passage.count) for h in hits] == [(pattern.passage.id, 20)]
        narrow = await engine.search("shuttle reached", since=BASE / 1000 + 15)
        assert [(h.passage.count, h.passage.count_total) for h in narrow] == [(5, 20)]
        assert (await engine.patterns("t", new_since=BASE / 1000 + 10)).patterns == ()
        await assert_converged(engine, "t")

    async def again(engine: Engine) -> None:
        (pattern,) = (await engine.patterns("t")).patterns
        assert (pattern.count, pattern.passage.first_seen.timestamp()) == (20, BASE / 1000)
        await engine.append("t", ["shuttle reached mallory station before dawn"], wait="searchable", timeout_s=60)
        assert [p.count for p in (await engine.patterns("t")).patterns] == [21]

    run(tmp_path, main)
    run(tmp_path, again)


def test_a_keyword_only_topic_gets_meaning_later_and_can_lose_it_again(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [f"payment {n} failed" for n in range(300)], embedding_model="none")
        assert (await engine.index("t")).state == "off"
        assert await values(engine, "payments", mode="semantic") == []
        reply = await engine.search("payment 7")
        assert reply[0].value == "payment 7 failed"
        assert any("keyword search only in t" in note for note in reply.coverage.notes)
        with pytest.raises(UsageError, match="headwater index create t"):
            await engine.similar("t", offset=0)
        await engine.create_index("t")
        await assert_converged(engine, "t")
        info = await engine.index("t")
        assert (info.state, info.model, info.count_vectors, info.dimension) == ("ready", "hash", 300, 256)
        assert (await engine.search("payment 7", mode="semantic"))[0].value == "payment 7 failed"
        await engine.delete_index("t")
        assert (await engine.index("t")).count_vectors == 0
        assert await values(engine, "payment 7", top_k=1) == ["payment 7 failed"]
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_a_rebuilt_index_answers_as_before_and_serves_meanwhile(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [f"order {n} from warehouse {n % 13} delayed" for n in range(2000)])

        async def ask() -> list[tuple[str, float]]:
            return [(h.address, h.score) for q in ("order 77", "warehouse 5") for h in await engine.search(q, top_k=20)]

        before = await ask()
        rebuilding = asyncio.create_task(engine.rebuild_index("t"))
        while not rebuilding.done():
            assert len(await ask()) == len(before)
        await rebuilding
        await assert_converged(engine, "t")
        assert await ask() == before

    run(tmp_path, main)


def test_topics_changed_while_they_are_indexed_lose_nothing(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        for n in range(8):
            await engine.append("t", [f"record {n} {i}" for i in range(400)])
            await asyncio.sleep(0)
            if n % 2:
                await engine.set_topic("t", semantic_weight=n / 10)
            else:
                await engine.rebuild_index("t")
        await assert_converged(engine, "t", last=3200)
        await engine.create_index("t", "hash")  # has it already
        assert (await engine.index("t")).count_vectors == 3200

    run(tmp_path, main)


def test_vectors_come_with_the_records_where_the_topic_says_so(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        with pytest.raises(ConfigError, match="needs dimension"):
            await engine.create_topic("t", embedding_model="external")
        await engine.create_topic("t", embedding_model="external", dimension=3, passages="exact")
        for vector, why in (
            ([1, 0], "has 2 numbers"),
            ([0, 0, 0], "all zeros"),
            ([1, float("nan"), 0], "NaN"),
            (None, "send 'vector'"),
        ):
            with pytest.raises(UsageError, match=why):
                await engine.append("t", [{"value": "x", "vector": vector}])
        records = [{"value": v, "vector": x} for v, x in (("right", [1, 0, 0]), ("near", [0.9, 0.1, 0]), ("up", [0, 0, 5]))]
        await engine.append("t", records, wait="searchable", timeout_s=60)
        assert [h.value for h in await engine.similar("t", offset=0)][:1] == ["near"]
        reply = await engine.search("up", include=["vector"])
        assert reply[0].vector == pytest.approx((0, 0, 1))
        with pytest.raises(UsageError, match="external"):
            await engine.search("up", mode="semantic")
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_a_topic_reads_the_fields_it_is_told_to(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        ticket = '{"title": "Refund", "body": "never arrived", "inner": {"text": "deep sea"}}'
        await fill(engine, "made", [{"value": ticket, "key": "k9"}], text_template="{title}: {body} ({key}, {nothing})")
        await fill(engine, "path", [ticket], field="$.inner.text")
        await fill(engine, "key", [{"value": ticket, "key": "the key is read"}], field="key")
        texts = {h.topic: h.passage.text for h in await engine.search("", topics=["made", "path", "key"])}
        assert texts == {"made": "Refund: never arrived (k9, )", "path": "deep sea", "key": "the key is read"}
        assert [h.topic for h in await engine.search("deep sea", mode="semantic", top_k=1)] == ["path"]

    run(tmp_path, main)


# ---------------------------------------------------------------------- retention


def test_an_error_nobody_expects_while_segments_are_maintained_does_not_end_the_indexing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[VectorIndex] = []

    def fail(index: VectorIndex) -> bool:
        failed.append(index)
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(VectorIndex, "maintain", fail)

    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["one record"])
        async with asyncio.timeout(240):
            while not failed:
                await asyncio.sleep(0.005)
        await engine.append("t", ["another record"], wait="searchable", timeout_s=240)
        assert "another record" in await values(engine, "another")

    run(tmp_path, main)


def test_what_is_past_its_retention_goes_from_every_index(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "count", [f"record {n}" for n in range(100)], retention_records=30, partitions=2)
        await fill(engine, "bytes", ["\0" + "x" * 98 + chr(65 + n % 26) for n in range(100)], retention_bytes=1000)
        await fill(engine, "age", ["old news"], retention_s=3600)
        await fill(
            engine, "lines", [f"INFO job {n} done in {n}ms" for n in range(50)], passages="template", retention_records=5
        )
        await fill(engine, "kept", ["forever"])
        id = engine.stock.find("age").row.id
        old = "UPDATE record SET appended_ms = appended_ms - 3601000 WHERE id >> 40 = ?"
        engine.log.write(lambda db: db.execute(old, (id,)).get)
        await engine.append("age", ["new news"], wait="searchable", timeout_s=60)
        for _ in range(2):
            engine.stock.expire()
            counts = {t.name: t.records for t in await engine.topics()}
            assert counts == {"count": 30, "bytes": 10, "age": 1, "lines": 5, "kept": 1}
        for name in counts:
            await assert_converged(engine, name)
        assert await values(engine, "news") == ["new news"]
        assert (await engine.search("record", topics=["count"])).coverage.searched == 30
        assert [p.count for p in (await engine.patterns("lines")).patterns] == [5]
        assert (await engine.topic("bytes")).bytes == 1000
        await engine.append("count", ["record 99"], wait="searchable", timeout_s=60)
        assert (await engine.search('"record 99"', topics=["count"]))[0].passage.count == 2

    run(tmp_path, main)


def test_a_crash_between_the_log_and_the_keyword_index_leaves_no_ghosts(tmp_path: Path) -> None:
    async def first(engine: Engine) -> None:
        await fill(engine, "t", [f"record {n}" for n in range(50)])

    async def then(engine: Engine) -> None:
        await assert_converged(engine, "t")
        assert (await engine.search("record")).coverage.searched == 40

    run(tmp_path, first)
    with Log(tmp_path, clock_ms=lambda: 0) as log:
        id = log.topic("t").id
        log.write(lambda db: catalogue.release(db, id, [id << 40 | n for n in range(10)]))
    run(tmp_path, then)


def test_a_template_that_comes_back_after_its_records_went_is_embedded(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeOpenAI(["500"] * 4) as server:
            more: dict[str, Any] = {"embedding.model": "openai:m", "embedding.base_url": server.url, "embedding.retries": 0}
            async with Engine(given(tmp_path, **more)) as engine:
                await engine.create_topic("t", passages="template", retention_records=1)
                await engine.append("t", ["disk sda1 is full now"])
                await until(lambda: _is(engine, "stalled"))
                await engine.append("t", ["net eth0 went down"])
                topic = engine.stock.find("t")
                await until(lambda: _keyword(engine, 2))
                engine.stock.expire()
                await settled(engine, "t")
                await engine.append("t", ["disk sda1 is full now"], wait="searchable", timeout_s=240)
                assert len(topic.catalogue.vectors([p.id for p in topic.catalogue.frequent(10)])[0]) == topic.catalogue.count()

    asyncio.run(main())


async def _is(engine: Engine, state: str) -> bool:
    return (await engine.index("t")).state == state


async def _keyword(engine: Engine, seq: int) -> bool:
    return (await engine.topic("t")).watermark.keyword >= seq


# ---------------------------------------------------------------------- providers


def test_a_provider_that_is_down_holds_up_meaning_alone_and_its_backlog_is_embedded_later(tmp_path: Path) -> None:
    port = free_port()
    more: dict[str, Any] = {"embedding.model": "openai:m", "embedding.retries": 0, "embedding.timeout_s": 5}

    async def down() -> None:
        async with Engine(given(tmp_path, **more, **{"embedding.base_url": f"http://127.0.0.1:{port}/v1"})) as engine:
            await engine.create_topic("t", passages="exact")
            await engine.create_topic("local", passages="exact", embedding_model="hash")
            done = await engine.append("t", ["the payment failed", "the disk is full"], wait="searchable", timeout_s=1)
            assert (done.wait, done.timed_out) == ("stored", True)
            await engine.append("local", ["a local model works on"], wait="searchable", timeout_s=240)
            await until(lambda: _keyword(engine, 2))
            await until(lambda: _is(engine, "stalled"))
            reply = await engine.search("payment", topics=["t"])
            assert [h.value for h in reply] == ["the payment failed"]
            mark = reply.coverage.watermark["t"]
            assert (mark.stored, mark.keyword, mark.semantic, reply.coverage.backlog) == (2, 2, 0, 2)
            assert any("found by their words only" in note for note in reply.coverage.notes)
            assert (await engine.index("t")).state == "stalled"
            assert any(p.startswith("t: ") for p in (await engine.status()).problems)
            assert len(await engine.search("payment", topics=["t"], mode="semantic")) == 0
            with pytest.raises(EmbedError):
                await engine.embed(["payment"])
            with pytest.raises(WaitTimeout, match="not embedded yet"):
                await engine.similar("t", offset=0)

    async def up() -> None:
        async with FakeOpenAI() as server:
            async with Engine(given(tmp_path, **more, **{"embedding.base_url": server.url})) as engine:
                await settled(engine, "t")
                assert (await engine.search("the payment failed", topics=["t"], mode="semantic"))[0].offset == 0
                assert (await engine.status()).problems == ()
            calls = len(server.requests)
            async with Engine(given(tmp_path, **more, **{"embedding.base_url": server.url})) as engine:
                assert (await engine.search("the disk is full", topics=["t"], mode="semantic"))[0].offset == 1
            texts = [r.body["input"] for r in server.requests[calls:]]
            assert texts in ([], [["the disk is full"]])  # what is stored is not embedded again

    asyncio.run(down())
    asyncio.run(up())


def test_the_real_model_finds_what_shares_no_word(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(
            engine, "t", ["The customer could not pay with her credit card", "Heavy rain is expected", "The build is green"]
        )
        assert await values(engine, "money transfer problems", mode="semantic", top_k=1) == [
            "The customer could not pay with her credit card"
        ]
        reply = await engine.search("money transfer problems", min_score=0.9)
        assert len(reply) == 0

    run(tmp_path, main, **{"embedding.model": "bge-small"})


def test_times_beyond_the_calendar_are_clamped_and_found(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [Draft("far future", time_ms=1 << 60), Draft("far past", time_ms=-(1 << 60)), "now"])
        assert [r.timestamp.year for r in (await engine.records("t")).records][:2] == [9999, 1]
        assert await values(engine, "", since="2300-01-01") == ["far future"]
        assert (await engine.read("t/0/0")).record.timestamp == from_ms(MAX_MS)
        timeline = await engine.timeline(buckets=10)
        assert sum(b.count for b in timeline.buckets) == 3
        assert len(timeline.buckets) <= 12

    run(tmp_path, main)
