"""Another model's index is built beside the live one, compared, cut over and rolled back; nothing mixes and nothing is lost."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

import headwater
from fake_openai import FakeOpenAI
from headwater.blocking import Headwater
from headwater.cli.app import app
from headwater.config import Settings, load
from headwater.engine import Engine
from headwater.errors import ConfigError, ConflictError, NotFoundError, UsageError
from headwater.records.indexes import Shadow
from headwater.vectors.counting import Counts
from serving import eventually, serving, settings_in

TEXTS = [f"order {n} from warehouse {n % 13} was delayed by {word}" for n, word in enumerate(["snow", "fog", "ice"] * 40)]


def given(path: Path, **more: object) -> Settings:
    arguments = {"data_dir": str(path), "embedding.model": "hash", "embedding.cache_enabled": False}
    return load(arguments=arguments | {k.replace("__", "."): v for k, v in more.items()}, environment={}).settings


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(240):
        while True:
            now = holds()
            if now if isinstance(now, bool) else await now:
                return
            await asyncio.sleep(0.01)


async def fill(engine: Engine, texts: list[str], **config: object) -> None:
    await engine.create_topic("t", passages="exact", **config)
    await engine.append("t", texts, wait="searchable", timeout_s=240)


async def ready(engine: Engine) -> Shadow:
    async def complete() -> bool:
        return (await engine.shadow("t")).state == "ready"

    await until(complete)
    return await engine.shadow("t")


def count(db: apsw.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").get)


def run(path: Path, scenario: Callable[[Engine], Awaitable[None]], **more: object) -> None:
    async def main() -> None:
        async with Engine(given(path, **more)) as engine:
            await scenario(engine)

    asyncio.run(main())


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


# ---------------------------------------------------------------------- over every way in


def test_a_model_is_built_beside_the_live_one_compared_cut_over_and_rolled_back(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", TEXTS, wait="searchable", timeout_s=240)
    before = [(h.address, h.score) for h in hw.search("warehouse 7", topics=["t"], mode="semantic", top_k=20)]
    begun = hw.rebuild_index("t", "hash:64", shadow=True)
    assert begun.shadow is not None
    assert (begun.model, begun.shadow.model, begun.shadow.threshold) == ("hash", "hash:64", None)
    eventually(lambda: hw.shadow("t").state == "ready")
    shadow = hw.shadow("t")
    assert (shadow.progress.done, shadow.progress.total) == (120, 120)
    compared = shadow.comparison
    assert compared is not None
    assert 0 < compared.overlap < 1
    assert compared.overlap_low <= compared.overlap
    assert (compared.source, compared.queries > 50) == ("passages", True)
    assert set(compared.latency_ms) == {"live", "shadow"}
    assert 0 < compared.latency_ms["shadow"]["search_p50"] <= compared.latency_ms["shadow"]["search_p99"]
    worst = compared.samples[0]
    assert len(worst.live) == len(worst.shadow) == 10
    assert all("warehouse" in found.text for found in (*worst.live, *worst.shadow))
    shared = {f.passage for f in worst.live} & {f.passage for f in worst.shadow}
    assert len(shared) == worst.overlap * 10
    assert {f.passage for f in worst.live if f.other_rank} == shared
    assert hw.index("t").model == "hash"

    over = hw.swap_index("t", "cut-over")
    assert over.shadow is not None
    assert (over.model, over.dimension, over.count_vectors) == ("hash:64", 64, 120)
    assert (over.shadow.model, over.shadow.state, over.shadow.kept_until is not None) == ("hash", "former", True)
    assert hw.topic("t").config["embedding_model"] == "hash:64"
    hw.append("t", ["a record that came after the cut-over"], wait="searchable", timeout_s=240)
    assert hw.search("came after", topics=["t"], mode="semantic", include=["vector"])[0].vector is not None

    back = hw.swap_index("t", "roll-back")
    assert (back.model, back.dimension) == ("hash", 256)
    assert back.shadow is not None
    assert (back.shadow.model, back.shadow.state) == ("hash:64", "ready")
    eventually(lambda: hw.index("t").count_vectors == 121)
    after = [(h.address, h.score) for h in hw.search("warehouse 7", topics=["t"], mode="semantic", top_k=20)]
    assert after == before
    assert hw.search("came after the cut-over", topics=["t"], mode="semantic")[0].offset == 120
    assert hw.swap_index("t", "drop").shadow is None
    with pytest.raises(NotFoundError, match="no second model"):
        hw.shadow("t")


def test_index_settings_are_given_changed_and_shown(hw: Headwater) -> None:
    hw.create_topic("t", passages="exact", index_kind="ivf", ivf_cells=4)
    hw.append("t", TEXTS, wait="searchable", timeout_s=240)
    info = hw.index("t")
    assert (info.kind, info.ivf, info.state, info.progress) == ("ivf", {"cells": 4, "n_probe": 16}, "ready", None)
    first = [h.address for h in hw.search("warehouse 7 snow", topics=["t"], mode="semantic")]
    changed = hw.rebuild_index("t", index_kind="flat", ivf_n_probe=3, hnsw_m=24)
    assert (changed.kind, changed.ivf["n_probe"], changed.hnsw["m"], changed.count_vectors) == ("flat", 3, 24, 120)
    assert [h.address for h in hw.search("warehouse 7 snow", topics=["t"], mode="semantic")] == first
    assert hw.set_topic("t", index_kind="hnsw").config["index_kind"] == "hnsw"
    for wrong in ({"index_kind": "tree"}, {"hnsw_m": 0}, {"ivf_cells": -1}):
        with pytest.raises(UsageError):
            hw.create_index("t", **wrong)
    assert hw.index("t").kind == "hnsw"


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_a_changed_metric_changes_no_result_and_no_score_of_a_model(hw: Headwater, metric: str) -> None:
    hw.create_topic("t", passages="exact")
    hw.append("t", TEXTS, wait="searchable", timeout_s=240)

    def found() -> list[tuple[str, float]]:
        reply = hw.search("warehouse 7 snow", topics=["t"], mode="semantic", top_k=20, min_score=0.2)
        return [(h.address, round(h.score, 3)) for h in reply]

    before = found()
    assert len(before) > 3
    assert hw.create_index("t", metric=metric).metric == metric
    after = found()
    assert [address for address, _ in after] == [address for address, _ in before]
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=2e-3)
    assert hw.index("t").count_vectors == 120


def test_the_commands_show_how_far_it_is_and_both_answers_and_take_the_steps(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url, headwater.connect(url) as hw:
        hw.create_topic("t", passages="exact")
        hw.append("t", TEXTS, wait="searchable", timeout_s=240)

        def command(*words: str, code: int = 0) -> str:
            done = CliRunner().invoke(app, ["index", *words, "--url", url])
            assert done.exit_code == code, done.output
            return done.output if code else done.stdout

        made = json.loads(command("rebuild", "t", "--model", "hash:64", "--shadow", "--wait", "--json"))
        assert (made["model"], made["shadow"]["model"], made["shadow"]["state"]) == ("hash", "hash:64", "ready")
        told = command("rebuild", "t", "--status", "--explain")
        for line in (
            "answers     hash\n",
            "120 of 120 passages embedded",
            "queries made of the topic's own passages",
            "  second\n",
        ):
            assert line in told
        assert "hash:64, ready; overlap@10" in command("describe", "t")
        command("rebuild", "t", "--cut-over", "--cancel", code=2)
        assert "model      hash:64" in command("rebuild", "t", "--cut-over")
        assert "model      hash\n" in command("rebuild", "t", "--roll-back")
        command("rebuild", "t", "--drop-old", "--yes")
        assert "no second model" in command("rebuild", "t", "--status", code=3)
        assert "kind       ivf, cells 5, n_probe 16" in command("create", "t", "--kind", "ivf", "--ivf-cells", "5", "--wait")


# ---------------------------------------------------------------------- inside


def test_a_backlog_is_embedded_when_a_keyword_only_topic_gets_an_index_and_says_how_far_it_is(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, [f"text number {n}" for n in range(900)], embedding_model="none")
        assert (await engine.index("t")).progress is None
        slow = engine.stock.embedders.get("hash", headwater.TopicConfig())
        gate, embed = asyncio.Event(), slow.embed_batch

        async def held(texts: object, kind: object) -> object:
            await gate.wait()
            return await embed(texts, kind)  # type: ignore[arg-type]

        slow.embed_batch = held  # type: ignore[method-assign, assignment]
        info = await engine.create_index("t", index_kind="flat")
        assert (info.state, info.kind, info.progress is not None) == ("building", "flat", True)
        assert info.progress is not None
        assert (info.progress.work, info.progress.done, info.progress.total) == ("embedding", 0, 900)
        gate.set()

        async def done() -> bool:
            info = await engine.index("t")
            assert info.progress is None or 0 <= info.progress.done <= info.progress.total == 900
            return info.state == "ready"

        await until(done)
        assert (await engine.index("t")).count_vectors == 900

    run(tmp_path, main)


def test_where_the_overlap_reaches_the_threshold_the_cut_over_happens_by_itself_and_else_not(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await engine.rebuild_index("t", "hash:64", shadow=True, threshold=1.0)
        shadow = await ready(engine)
        assert shadow.comparison is not None
        assert shadow.comparison.overlap < 1.0
        assert (await engine.index("t")).model == "hash"
        await engine.swap_index("t", "cancel")
        await engine.rebuild_index("t", "hash:64", shadow=True, threshold=0.05)
        await until(lambda: engine.stock.find("t").row.model == "hash:64")
        assert (await engine.shadow("t")).state == "former"
        await engine.swap_index("t", "drop")
        await engine.rebuild_index("t", "hash:32")  # no shadow asked for: it takes over when it is complete
        await until(lambda: engine.stock.find("t").row.model == "hash:32")

    run(tmp_path, main)


def test_queries_that_people_asked_are_compared_on_and_forgotten_when_told(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        for n in range(30):
            await engine.search(f"delay at warehouse {n}")
        await engine.search("by words alone", mode="keyword")
        await engine.rebuild_index("t", "hash:64", shadow=True)
        shadow = await ready(engine)
        assert shadow.comparison is not None
        assert (shadow.comparison.source, shadow.comparison.queries) == ("recorded", 12)
        assert {s.query for s in shadow.comparison.samples} <= {f"delay at warehouse {n}" for n in range(18, 30)}

    async def forgotten(engine: Engine) -> None:
        await engine.search("something else")
        assert engine.log.write(lambda db: db.execute("SELECT count(*) FROM asked").get) == 0

    run(tmp_path, main, search__record_queries=12)
    run(tmp_path, forgotten, search__record_queries=0)


def test_everything_of_a_swap_survives_a_restart(tmp_path: Path) -> None:
    async def begin(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await engine.rebuild_index("t", "hash:64", shadow=True)
        await ready(engine)

    async def over(engine: Engine) -> None:
        shadow = await engine.shadow("t")
        assert (shadow.state, shadow.model, shadow.comparison is not None) == ("ready", "hash:64", True)
        await engine.swap_index("t", "cut-over")

    async def back(engine: Engine) -> None:
        info = await engine.index("t")
        assert (info.model, info.count_vectors) == ("hash:64", 120)
        await engine.append("t", ["later"], wait="searchable", timeout_s=240)
        await engine.swap_index("t", "roll-back")
        await until(lambda: engine.stock.find("t").semantic == 121)

    async def last(engine: Engine) -> None:
        info = await engine.index("t")
        assert (info.model, info.count_vectors) == ("hash", 121)
        assert info.shadow is not None
        await engine.delete_index("t")
        assert (await engine.index("t")).shadow is None
        for table in ("vector", "shadow"):
            assert engine.log.write(functools.partial(count, table=table)) == 0

    for scenario in (begin, over, back, last):
        run(tmp_path, scenario)


def test_a_search_under_way_ends_with_the_model_it_began_with(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        expected = {
            model: [(h.address, h.distance) for h in await engine.search("warehouse 7 snow", mode="semantic", top_k=10)]
            for model in ["hash"]
        }
        await engine.rebuild_index("t", "hash:64", shadow=True)
        await ready(engine)
        await engine.swap_index("t", "cut-over")
        expected["hash:64"] = [
            (h.address, h.distance) for h in await engine.search("warehouse 7 snow", mode="semantic", top_k=10)
        ]
        stop, done = False, 0

        async def search() -> None:
            nonlocal done
            while not stop:
                reply = await engine.search("warehouse 7 snow", mode="semantic", top_k=10)
                assert [(h.address, h.distance) for h in reply] in expected.values()
                done += 1

        searching = [asyncio.create_task(search()) for _ in range(3)]
        for n in range(10):
            await engine.swap_index("t", "cut-over" if n % 2 else "roll-back")
            before = done
            await until(lambda before=before: done > before or any(task.done() for task in searching))  # type: ignore[misc]
        stop = True
        await asyncio.gather(*searching)

    run(tmp_path, main)


def test_a_provider_that_does_not_answer_holds_up_the_topics_of_its_own_model_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeOpenAI(lambda: "ok") as server:
            chosen = given(tmp_path, embedding__base_url=server.url, embedding__api_key="k")
            async with Engine(chosen) as engine:
                await engine.create_topic("far", passages="exact", embedding_model="openai:small")
                remote, gate = engine.stock.find("far").embedder, asyncio.Event()
                assert remote is not None

                async def never(texts: object, kind: object) -> object:
                    await gate.wait()
                    raise AssertionError

                remote.embed_batch = never  # type: ignore[method-assign, assignment]
                await engine.append("far", ["one", "two"])
                await fill(engine, TEXTS)
                await engine.rebuild_index("t", "openai:small", shadow=True)
                done = await engine.append("t", ["and one more"], wait="searchable", timeout_s=240)
                assert not done.timed_out
                assert (await engine.index("far")).state == "building"
                assert (await engine.shadow("t")).progress.done == 0

    asyncio.run(main())


def test_a_second_model_that_fails_says_so_and_the_live_one_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with FakeOpenAI(lambda: "500") as server:
            chosen = given(tmp_path, embedding__base_url=server.url, embedding__api_key="k", embedding__retries=0)
            async with Engine(chosen) as engine:
                await fill(engine, TEXTS)
                await engine.rebuild_index("t", "openai:small", shadow=True)

                async def told() -> bool:
                    return (await engine.shadow("t")).error is not None

                await until(told)
                assert (await engine.index("t")).state == "ready"
                with pytest.raises(UsageError, match="still being built"):
                    await engine.swap_index("t", "cut-over")
                with pytest.raises(ConflictError, match="--drop-old"):
                    await engine.rebuild_index("t", "hash:64", shadow=True)
                await engine.swap_index("t", "cancel")
                assert (await engine.index("t")).shadow is None

    asyncio.run(main())


def test_what_cannot_be_swapped_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        for model, error, why in (
            ("hash", UsageError, "answers with hash already"),
            ("external", UsageError, "come with the records"),
            ("nonsense", ConfigError, "unknown embedding model"),
        ):
            with pytest.raises(error, match=why):
                await engine.rebuild_index("t", model, shadow=True)
        with pytest.raises(UsageError, match="name it with model"):
            await engine.rebuild_index("t", shadow=True)
        with pytest.raises(UsageError, match="give shadow"):
            await engine.rebuild_index("t", "hash:64", threshold=0.5)
        with pytest.raises(NotFoundError, match="no second model"):
            await engine.swap_index("t", "cut-over")
        with pytest.raises(UsageError, match="no setting of an index"):
            await engine.create_index("t", partitions=3)

    run(tmp_path, main)


def test_an_index_that_cannot_be_made_changes_no_setting(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await engine.create_topic("own", embedding_model="external", dimension=4)
        for topic, model, error in (("t", "nonsense", ConfigError), ("t", "external", UsageError), ("own", "hash", UsageError)):
            for change in (engine.create_index, engine.rebuild_index):
                with pytest.raises(error):
                    await change(topic, model=model, index_kind="flat")
                assert (await engine.topic(topic)).config["index_kind"] == "hnsw"
        with pytest.raises(UsageError, match="a new topic can have hash"):
            await engine.create_index("own", model="hash")

    run(tmp_path, main)


def test_segments_answer_exactly_under_another_metric_until_they_are_built_anew(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)

        def counts() -> Counts:
            vectors = engine.stock.find("t").vectors
            assert vectors is not None
            return vectors.counts

        async def found() -> list[str]:
            return [hit.address for hit in await engine.search("warehouse 7 snow", topics=["t"], mode="semantic", top_k=20)]

        await until(lambda: bool(counts().segments))
        before, sealed = await found(), counts()
        await engine.create_index("t", metric="dot")
        changed = counts()
        assert (changed.tail, changed.vectors) == (sealed.tail, 120)  # nothing went back into memory
        assert await found() == before
        await until(lambda: all(segment.due is None for segment in counts().segments))
        assert {segment.name for segment in counts().segments} != {segment.name for segment in sealed.segments}
        assert (counts().tail, counts().vectors) == (sealed.tail, 120)
        assert await found() == before

    run(tmp_path, main, index__seal_at=100)


def test_a_model_that_is_missing_after_the_cut_over_can_be_rolled_back(tmp_path: Path) -> None:
    async def over(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await engine.rebuild_index("t", "hash:64", shadow=True)
        await ready(engine)
        await engine.swap_index("t", "cut-over")
        engine.log.write(lambda db: db.execute("UPDATE model SET name = 'onnx:/gone' WHERE name = 'hash:64'").get)
        engine.log.update_topic(engine.stock.find("t").row.id, model="onnx:/gone")

    async def back(engine: Engine) -> None:
        assert len((await engine.status()).problems) == 1
        assert (await engine.index("t")).state == "off"
        await engine.swap_index("t", "roll-back")
        info = await engine.index("t")
        assert (info.model, info.count_vectors) == ("hash", 120)
        assert info.shadow is not None
        assert info.shadow.error is not None
        assert (await engine.search("warehouse 7", mode="semantic"))[0].value
        await engine.swap_index("t", "drop")
        assert (await engine.status()).problems == ()

    run(tmp_path, over)
    run(tmp_path, back)


def test_a_former_model_goes_when_its_time_is_over(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await engine.rebuild_index("t", "hash:64", shadow=True)
        await ready(engine)
        await engine.swap_index("t", "cut-over")
        engine.swaps.expire()
        assert (await engine.shadow("t")).state == "former"
        engine.swaps._clock_ms = lambda: 1 << 50
        engine.swaps.expire()
        assert (await engine.index("t")).shadow is None
        rows = engine.log.write(lambda db: db.execute("SELECT count(*) FROM vector").get)
        assert rows == 120

    run(tmp_path, main)
