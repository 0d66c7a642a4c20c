"""Deleting records and purging what they leave: gone for every reader, gone from every file, and nothing else with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headwater
from convergence import assert_converged, settled
from headwater.batches import Fault
from headwater.blocking import Headwater
from headwater.engine import Engine
from headwater.errors import NotFoundError, UsageError
from headwater.log.store import Origin, add_dead_letter
from headwater.records import Draft
from serving import serving, settings_in
from test_engine import fill, run, values


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def store(hw: Headwater, topic: str, records: list[Any], **config: Any) -> None:
    hw.create_topic(topic, **({"passages": "exact"} | config))
    hw.append(topic, records, wait="searchable", timeout_s=240)


# ---------------------------------------------------------------------- the verb


def test_a_deleted_record_is_gone_for_every_reader_at_once_and_its_neighbours_stay(hw: Headwater) -> None:
    store(hw, "t", ["disk full", "disk broken", "disk replaced"])
    done = hw.delete_records("t", offset=1)
    assert (done.topic, done.matched, done.deleted, done.dry_run, done.more) == ("t", 1, 1, False, False)
    assert sorted(h.value for h in hw.search("disk")) == ["disk full", "disk replaced"]
    assert [h.value for h in hw.search("broken", mode="keyword")] == []
    assert [r.value for r in hw.records("t").records] == ["disk full", "disk replaced"]
    assert [p.passage.text for p in hw.patterns("t").patterns] == ["disk full", "disk replaced"]
    assert [h.value for h in hw.similar("t", offset=0)] == ["disk replaced"]
    assert sum(b.count for b in hw.timeline("disk").buckets) == 2
    assert (hw.topic("t").records, hw.topic("t").passages) == (2, 2)
    tail = hw.tail("t", from_start=True)
    assert [next(tail).value for _ in range(2)] == ["disk full", "disk replaced"]
    tail.close()  # type: ignore[attr-defined]
    for verb in (lambda: hw.read("t/0/1"), lambda: hw.similar("t", offset=1), lambda: hw.delete_records("t", offset=1)):
        with pytest.raises(NotFoundError, match="was deleted or is past its retention"):
            verb()
    assert [r.address for r in hw.append("t", ["disk new"]).records] == ["t/0/3"]  # offsets are never used again


def test_records_go_by_key_and_only_those_of_exactly_that_key(hw: Headwater) -> None:
    long = "k" * 600
    keys = ["7", "007", "7.0", "u1", "u1 ", "U1", None, long + "a", long + "b"]
    store(hw, "t", [{"key": key, "value": f"value {n}", "attributes": {"key": "u1"}} for n, key in enumerate(keys)])
    assert hw.delete_records("t", key="u1", dry_run=True).matched == 1
    assert hw.topic("t").records == len(keys)
    for key in ("u1", "7", long + "a"):
        assert hw.delete_records("t", key=key).deleted == 1
    assert hw.delete_records("t", key="nobody").deleted == 0
    assert [r.key for r in hw.records("t").records] == ["007", "7.0", "u1 ", "U1", None, long + "b"]


def test_records_go_by_query_when_all_its_words_occur(hw: Headwater) -> None:
    levels = ["info", "error", "error", "error"]
    texts = ["payment failed", "payment failed twice", "failed login", "payments were failing"]
    store(hw, "t", [{"value": v, "attributes": {"level": at}} for v, at in zip(texts, levels, strict=True)])
    assert hw.delete_records("t", q="payment failed level:error", dry_run=True).matched == 2
    done = hw.delete_records("t", q="payment failed level:error")
    assert (done.matched, done.deleted) == (2, 2)
    assert [r.value for r in hw.records("t").records] == ["payment failed", "failed login"]
    assert hw.delete_records("t", q="-login since:1h").deleted == 1
    assert hw.delete_records("t", q='"failed login"').deleted == 1
    assert hw.topic("t").records == 0


def test_what_would_delete_everything_by_mistake_is_refused(hw: Headwater) -> None:
    store(hw, "t", ["one", "two"])
    for wrong in (
        {}, {"q": ""}, {"q": "   "}, {"q": "!!!"}, {"q": '-"?"'}, {"q": "mode:keyword"}, {"q": "one", "key": "k"},
        {"q": "topic:u one"}, {"offset": 0, "key": "k"}, {"q": "since:foo"}, {"key": "k", "limit": 0},
    ):  # fmt: skip
        with pytest.raises(UsageError):
            hw.delete_records("t", **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        hw.delete_records("nowhere", key="k")
    with pytest.raises(NotFoundError, match="ends at offset 1"):
        hw.delete_records("t", offset=7)
    assert hw.topic("t").records == 2


def test_a_limit_ends_a_deletion_early_and_asking_again_goes_on(hw: Headwater) -> None:
    store(hw, "t", [{"key": "k" if n % 2 else "other", "value": f"value {n}"} for n in range(100)])
    first = hw.delete_records("t", key="k", limit=20)
    assert (first.deleted, first.more) == (20, True)
    rest = hw.delete_records("t", key="k")
    assert (rest.deleted, rest.more) == (30, False)
    assert {r.key for r in hw.records("t").records} == {"other"}


def test_the_routes_say_what_was_deleted(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url, httpx.Client(base_url=url) as api:
        api.post(
            "/v1/topics/t/records?wait=searchable&timeout_s=240",
            json={"records": [{"value": v, "key": "k"} for v in ("a b", "c", "d")]},
        )
        assert api.delete("/v1/topics/t/records?key=k&dry_run=true").json()["matched"] == 3
        assert api.delete("/v1/topics/t/records/0/0").json() == {
            "topic": "t", "matched": 1, "deleted": 1, "dry_run": False, "more": False,
        }  # fmt: skip
        assert api.delete("/v1/topics/t/records", params={"q": "c"}).json()["deleted"] == 1
        for path in ("", "?q=", "?key=a&q=b", "?limit=0&key=k", "/0/99", "/0/x", "/7/0"):
            reply = api.delete(f"/v1/topics/t/records{path}")
            assert (reply.status_code, reply.headers["content-type"]) in [
                (status, "application/problem+json") for status in (404, 422)
            ], path
        assert api.get("/v1/topics/t/records").json()["records"][0]["value"] == "d"


# ---------------------------------------------------------------------- what lies beneath


def test_a_record_that_is_not_indexed_yet_goes_too(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        with engine.indexer.busy:  # indexing is held up; the log is not
            await engine.append("t", [{"key": f"k{n % 2}", "value": f"value {n}"} for n in range(6)])
            row = engine.log.topic("t")
            assert engine.stock.find("t").mapped == 0
            records = [r.id for r in engine.log.rows(row.id, 0, 10) if r.key == "k1"]
            engine.stock.deletion.release(engine.stock.find("t"), records, on_request=True)
        await settled(engine, "t")
        assert sorted(await values(engine, "value")) == ["value 0", "value 2", "value 4"]
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_a_chunk_without_the_excluded_word_does_not_condemn_its_document(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        text = " ".join(f"paragraph {n} says little." for n in range(400))
        await fill(engine, "t", [text + " Keep this.", text], passages="chunks")
        assert (await engine.delete_records("t", q="paragraph -keep")).deleted == 1
        assert [r.offset for r in (await engine.records("t")).records] == [0]

    run(tmp_path, main)


def test_thousands_go_while_others_come_and_nothing_else_is_lost(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="template")
        for start in range(0, 12_000, 4000):
            await engine.append(
                "t", [{"key": f"k{n % 3}", "value": f"request {n} took {n} ms"} for n in range(start, start + 4000)]
            )

        async def more() -> None:
            for n in range(40):
                await engine.append("t", [{"key": "new", "value": f"request {n} came late"}])

        done, _ = await asyncio.gather(engine.delete_records("t", key="k1"), more())
        assert done.deleted == 4000
        await settled(engine, "t")
        assert (await engine.topic("t")).records == 8040
        assert (await engine.delete_records("t", key="k1", dry_run=True)).matched == 0
        assert (await engine.delete_records("t", q="came late", dry_run=True)).matched == 40
        await assert_converged(engine, "t")

    run(tmp_path, main)


@pytest.mark.parametrize("kind", ["exact", "template", "chunks"])
def test_everything_at_once_leaves_every_index_equal_to_the_log(tmp_path: Path, kind: str) -> None:
    seed = 20261121
    print("seed", seed)
    rng = random.Random(seed)

    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages=kind)
        stored: list[int] = []

        async def write(writer: int) -> None:
            for n in range(20):
                lines = [f"INFO event {writer} {n} {rng.choice('abcdef') * 4} user{rng.randrange(200)} done" for _ in range(15)]
                done = await engine.append("t", [{"key": f"k{rng.randrange(8)}", "value": line} for line in lines])
                stored.extend(r.offset for r in done.records)

        async def delete() -> None:
            for _ in range(12):
                await asyncio.sleep(rng.random() * 0.02)
                q = rng.random()
                if q < 0.4 and stored:
                    with contextlib.suppress(NotFoundError):
                        await engine.delete_records("t", offset=rng.choice(stored))
                elif q < 0.7:
                    await engine.delete_records("t", key=f"k{rng.randrange(8)}", limit=40)
                else:
                    await engine.delete_records("t", q=f"user{rng.randrange(200)}")

        async def follow() -> None:
            async for _ in engine.live("event"):
                continue

        following = asyncio.create_task(follow())
        await asyncio.gather(write(1), write(2), delete(), delete(), engine.purge_topic("t"))
        await engine.purge_topic("t")
        following.cancel()
        await assert_converged(engine, "t")

    run(tmp_path, main, **{"index.seal_at": 150})


def test_a_second_delivery_does_not_bring_deleted_or_expired_records_back(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact", retention_records=4)
        drafts = [Draft(f"line {n}", key="k" if n == 8 else None, position=10 * n) for n in range(10)]
        origin = Origin("file#1", "file", {"at": 100})
        await engine.append("t", drafts, origin=origin, wait="searchable", timeout_s=240)
        await engine.delete_records("t", key="k")
        await asyncio.to_thread(engine.stock.expire)
        kept = [r.value for r in (await engine.records("t")).records]
        assert kept == ["line 5", "line 6", "line 7", "line 9"]
        again = await engine.append(
            "t", [*drafts, Draft("line 10", position=100)], origin=origin, wait="searchable", timeout_s=240
        )
        assert [r.duplicate for r in again.records] == [True] * 10 + [False]
        assert again.records[8].address == "t/0/8"
        assert again.records[0].offset == -1  # where it stood is not known any more
        assert [r.value for r in (await engine.records("t")).records] == [*kept, "line 10"]

    run(tmp_path, main)


def test_the_same_idempotency_key_does_not_bring_them_back(hw: Headwater) -> None:
    hw.append("t", [{"key": "k", "value": "secret"}], idempotency_key="import", wait="searchable", timeout_s=240)
    hw.delete_records("t", key="k")
    hw.purge_topic("t")
    assert hw.append("t", [{"key": "k", "value": "secret"}], idempotency_key="import").records[0].duplicate
    assert hw.topic("t").records == 0


def test_a_crash_behind_the_log_leaves_no_ghosts_in_the_keyword_index(tmp_path: Path) -> None:
    from headwater.log import catalogue

    async def before(engine: Engine) -> None:
        await fill(engine, "t", [f"value {n}" for n in range(10)])
        row = engine.log.topic("t")
        records = [row.id << 40 | n for n in (2, 5)]
        engine.log.write(lambda db: catalogue.release(db, row.id, records, on_request=True))  # and no further
        assert engine.keyword.documents == 10

    async def after(engine: Engine) -> None:
        assert engine.keyword.documents == 8
        assert len(await values(engine, "value", top_k=20)) == 8
        await assert_converged(engine, "t")

    run(tmp_path, before)
    run(tmp_path, after)


def test_a_deletion_that_is_killed_is_finished_by_asking_again(tmp_path: Path) -> None:
    program = (
        "import headwater, sys\n"
        "hw = headwater.open(sys.argv[1], embedding={'model': 'none'})\n"
        "if not hw.topics():\n"
        "    hw.create_topic('t', passages='exact')\n"
        "    for at in range(0, 8000, 2000):\n"
        "        records = [{'key': f'k{n % 2}', 'value': f'value {n}'} for n in range(at, at + 2000)]\n"
        "        hw.append('t', records, wait='searchable', timeout_s=240)\n"
        "print('ready', flush=True)\n"
        "while hw.delete_records('t', key='k1', limit=300).more: print('step', flush=True)\n"
        "print('done', flush=True)\n"
    )
    rng, killed = random.Random(7), 0
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line == "step\n" and rng.random() < 0.4:
                time.sleep(rng.random() * 0.02)  # anywhere within a step
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            if line == "done\n":
                break
        process.stdout.close()
        process.wait(240)
        if process.returncode == 0:
            break
    assert killed

    async def main(engine: Engine) -> None:
        await engine.delete_records("t", key="k1")
        topic = await engine.topic("t")
        assert topic.records == 4000
        assert (await engine.delete_records("t", key="k0", dry_run=True)).matched == 4000
        await assert_converged(engine, "t")

    run(tmp_path, main, **{"embedding.model": "none"})


# ---------------------------------------------------------------------- purge


CANARY = "zanzibarqx"


def holding(directory: Path, *words: str) -> list[str]:
    """Files below a directory that have one of the words in them, in any case."""
    wanted, found = [word.lower().encode() for word in words], []
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # an engine that is open puts files away meanwhile
                content = Path(folder, name).read_bytes().lower()
                found += [name] if any(word in content for word in wanted) else []
    return found


@pytest.mark.parametrize("kind", ["exact", "template", "chunks"])
def test_a_purge_leaves_no_trace_of_deleted_records_in_any_file(tmp_path: Path, kind: str) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages=kind)
        lines = [{"key": "other", "value": f"INFO worker {n} served request {n}"} for n in range(200)]
        secret = [
            {
                "key": f"{CANARY}-key",
                "value": f"INFO {CANARY}{n % 3} paid bill {n} from {CANARY.title()}land",
                "attributes": {"who": f"{CANARY}-{n}"},
            }
            for n in range(30)
        ]
        await engine.append("t", lines[:100], wait="searchable", timeout_s=240)
        await engine.append("t", secret, idempotency_key=f"{CANARY}-import", wait="searchable", timeout_s=240)
        await engine.append("t", [lines[0], *secret[:5], *lines[100:]], wait="searchable", timeout_s=240)
        assert await values(engine, f"{CANARY}0", mode="keyword")
        assert (await engine.delete_records("t", key=f"{CANARY}-key")).deleted == 35
        await engine.create_topic("u")
        await engine.search(CANARY)  # a query is text as well, and kept for every topic
        report = await engine.purge_topic("t", markers=[CANARY, f"{CANARY}-key", "served request"])
        assert report.found[CANARY] == report.found[f"{CANARY}-key"] == ()
        assert report.found["served request"]
        assert report.files >= 3
        assert any("backups" in note for note in report.notes)
        assert (await engine.topic("t")).records == 201
        assert await values(engine, f"{CANARY}0", mode="keyword") == []
        assert "worker" in (await values(engine, "worker served request"))[0]
        await assert_converged(engine, "t")
        await engine.append("t", ["INFO worker 7 served request 7"], wait="searchable", timeout_s=240)
        assert sum(p.count for p in (await engine.patterns("t", limit=1000)).patterns) == 202
        assert holding(tmp_path, CANARY) == []

    run(tmp_path, main)
    assert holding(tmp_path, CANARY) == []

    async def reopened(engine: Engine) -> None:
        assert (await engine.topic("t")).records == 202
        await assert_converged(engine, "t")

    run(tmp_path, reopened)


def test_a_purge_takes_dead_letters_but_those_of_records_that_are_left(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t")
        await engine.create_topic("u")
        fault = Fault(3, "no JSON", f'{{"who": "{CANARY}"')
        await engine.append("t", ["kept", f"{CANARY} mended and appended again"], wait="searchable", timeout_s=240)
        for topic in ("t", "u"):
            await engine.deliver(topic, "ingest:/x.jsonl", faults=[fault], stream="x#1")
        id = engine.log.topic("t").id
        engine.log.write(lambda db: add_dead_letter(db, id, "embed", "too long", "kept", 1, seq=0))
        await engine.delete_records("t", q=CANARY)
        report = await engine.purge_topic("t")
        assert report.removed["dead letters"] == 1
        assert [(d.topic, d.payload) for d in await engine.dead_letters()] == [("t", "kept"), ("u", fault.payload)]
        await engine.purge_topic("u")
        assert holding(tmp_path, CANARY) == []

    run(tmp_path, main)


def test_a_purge_takes_words_of_merged_templates_that_only_deleted_records_had(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="template")
        names = [f"{CANARY}.a", f"{CANARY}.b", "pluto.c", "mars.d", "venus.e"]
        for name in names:  # one by one, so that each has a template of its own until they merge
            await engine.append(
                "t", [{"key": name, "value": f"INFO connection of {name} was closed"}], wait="searchable", timeout_s=240
            )
        merged = [p.passage.text for p in (await engine.patterns("t")).patterns]
        assert merged == ["INFO connection of <*> was closed"]
        assert (await engine.delete_records("t", q=f"connection {CANARY}")).deleted == 2
        report = await engine.purge_topic("t", markers=[CANARY])
        assert report.found == {CANARY: ()}
        await engine.append(
            "t", [{"key": "x", "value": "INFO connection of jupiter.f was closed"}], wait="searchable", timeout_s=240
        )
        patterns = (await engine.patterns("t")).patterns
        assert [(p.passage.text, p.count) for p in patterns] == [("INFO connection of <*> was closed", 4)]
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_a_purge_builds_segments_with_dead_members_anew(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact")
        await engine.append(
            "t", [{"key": f"k{n % 10}", "value": f"value number {n}"} for n in range(300)], wait="searchable", timeout_s=240
        )
        index = engine.stock.find("t").vectors
        assert index is not None
        while not index.counts.segments:
            await asyncio.to_thread(index.maintain)
        await engine.delete_records("t", key="k3")
        report = await engine.purge_topic("t")
        assert report.removed["vectors in segments"] == 30
        now = index.counts
        assert (now.tail, now.dead, [s.living for s in now.segments]) == (0, 0, [270])  # not by way of the tail
        await settled(engine, "t")
        after = engine.stock.find("t").vectors
        assert after is not None
        assert sum(s.dead for s in after.counts.segments) == 0
        assert len(await values(engine, "value number", mode="semantic", top_k=300)) == 270

    run(tmp_path, main, **{"index.seal_at": 300})  # all at once: they come in two steps, and it may look between them


def test_appends_and_searches_go_on_while_a_purge_runs(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [{"key": f"k{n % 4}", "value": f"value {n} of many"} for n in range(2000)])
        await engine.delete_records("t", key="k1")
        purge = asyncio.create_task(engine.purge_topic("t"))
        n = 0
        while not purge.done() and n < 200:
            await engine.append("t", [f"late {n}"])
            assert len(await values(engine, "value")) == 10
            n += 1
        await purge
        await settled(engine, "t")
        assert (await engine.topic("t")).records == 1500 + n
        await assert_converged(engine, "t")

    run(tmp_path, main)


def test_a_purge_looks_into_files_while_others_are_put_away(tmp_path: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for n in range(20):
                (tmp_path / "passing" / f"{n}" / "deep").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp_path / "passing")

    with headwater.open(tmp_path, embedding={"model": "none"}) as hw:
        store(hw, "t", ["one"])
        passing = threading.Thread(target=come_and_go)
        passing.start()
        try:
            for _ in range(20):
                assert hw.purge_topic("t", markers=["nothing like it"]).found == {"nothing like it": ()}
        finally:
            ended.set()
            passing.join(240)


def test_markers_that_would_be_found_by_chance_are_refused(hw: Headwater) -> None:
    store(hw, "t", ["one"])
    with pytest.raises(UsageError, match="at least 4 characters"):
        hw.purge_topic("t", markers=["abc"])
    with pytest.raises(NotFoundError):
        hw.purge_topic("nowhere")
    assert hw.purge_topic("t", markers=["nothing like it"]).found == {"nothing like it": ()}
