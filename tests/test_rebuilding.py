"""Changed settings and rebuilds of a topic's vector index, while the old one answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from builders import builders_wait
from headwater.engine import Engine
from headwater.errors import NotFoundError
from headwater.index.rebuilding import Rebuilding
from test_swap import TEXTS, fill, run, until


async def sealed(engine: Engine, kind: str, segments: int = 1) -> None:
    """Wait until the topic's index is ready with so many segments, all of that kind."""

    async def done() -> bool:
        info = await engine.index("t")
        return info.state == "ready" and [s["kind"] for s in info.segments] == [kind] * segments

    await until(done)


@pytest.mark.slow
def test_changed_settings_build_segments_anew_while_the_old_ones_answer(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, TEXTS)
        await sealed(engine, "hnsw")
        (before,) = (await engine.index("t")).segments
        first = [h.address for h in await engine.search("warehouse 7 snow", mode="semantic")]
        seen = 0
        with builders_wait() as seen_once:
            changed = await engine.create_index("t", index_kind="flat")
            assert (changed.kind, changed.count_vectors) == ("flat", 120)
            while (await engine.index("t")).segments[0]["kind"] != "flat":
                assert [h.address for h in await engine.search("warehouse 7 snow", mode="semantic")] == first
                info = await engine.index("t")
                assert info.count_vectors == 120
                seen += info.progress is not None and info.progress.work == "segments"
                if seen:
                    seen_once.set()
                await asyncio.sleep(0.01)
        assert seen
        await sealed(engine, "flat")
        assert (await engine.index("t")).segments[0]["name"] != before["name"]
        assert [h.address for h in await engine.search("warehouse 7 snow", mode="semantic")] == first

    async def again(engine: Engine) -> None:
        await sealed(engine, "flat")
        await engine.rebuild_index("t", index_kind="ivf", ivf_cells=6, ivf_n_probe=6)
        await sealed(engine, "ivf")
        assert (await engine.index("t")).segments[0]["recall"] > 0.9

    run(tmp_path, main, index__seal_at=100)
    run(tmp_path, again, index__seal_at=100)


@pytest.mark.slow
def test_a_rebuild_goes_through_all_records_and_segments_while_searches_miss_nothing(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, [f"order {n} from warehouse {n % 13} was delayed" for n in range(260)])
        await sealed(engine, "hnsw")
        name = (await engine.index("t")).segments[0]["name"]
        looked, step = threading.Semaphore(0), engine.rebuilding.step

        def after_a_look(id: int) -> None:
            looked.acquire(timeout=240)
            step(id)

        engine.rebuilding.step = after_a_look  # type: ignore[method-assign]
        try:
            info = await engine.rebuild_index("t")
            works = [info.progress and info.progress.work]
            while (info := await engine.index("t")).state != "ready":
                assert info.progress is not None
                works.append(info.progress.work)
                assert 0 <= info.progress.done <= info.progress.total
                reply = await engine.search('"warehouse 5"', mode="keyword")
                assert reply.coverage.searched == 20
                assert info.count_vectors == 260
                looked.release()
                await asyncio.sleep(0.01)
        finally:
            looked.release(1000)
        assert works[0] == "keywords"
        assert "segments" in works
        assert info.segments[0]["name"] != name

    run(tmp_path, main, index__seal_at=200, ingest__batch_records=20)


def test_a_rebuild_that_is_cut_short_goes_on_at_the_next_start_and_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Rebuilding.step
    begun_at: list[int] = []

    async def begin(engine: Engine) -> None:
        await fill(engine, [f"order {n}" for n in range(200)])
        fed = threading.Event()

        def once(id: int) -> None:
            if not fed.is_set():
                step(engine.rebuilding, id)
                fed.set()

        engine.rebuilding.step = once  # type: ignore[method-assign]
        await engine.rebuild_index("t")
        await until(fed.is_set)
        progress = engine.rebuilding.progress(engine.stock.find("t"))
        assert progress is not None
        assert (progress.work, progress.done) == ("keywords", 25)

    def noted(rebuilding: Rebuilding, id: int) -> None:
        begun_at.append(rebuilding._at[id])
        step(rebuilding, id)

    async def resume(engine: Engine) -> None:
        await until(lambda: engine.rebuilding.progress(engine.stock.find("t")) is None)
        assert begun_at[0] == 25
        assert (await engine.search("order", mode="keyword")).coverage.searched == 200
        with engine.indexer.busy:  # so that it is not done before it is cancelled
            await engine.rebuild_index("t")
            await engine.swap_index("t", "cancel")
        assert engine.rebuilding.progress(engine.stock.find("t")) is None
        with pytest.raises(NotFoundError, match="nothing is being built"):
            await engine.swap_index("t", "cancel")

    run(tmp_path, begin, ingest__batch_records=25)
    monkeypatch.setattr(Rebuilding, "step", noted)
    run(tmp_path, resume, ingest__batch_records=25)
