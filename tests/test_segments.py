"""Sealed segments with a real Chroma child: sealing, rewriting, damage and death at the worst moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from builders import builders_never_end, builders_wait
from headwater.errors import DamageError, StorageError
from headwater.vectors import Hnsw, SegmentRow, VectorIndex, building
from headwater.vectors.chroma import Clients, connect, create
from vector_catalogue import SqliteCatalogue

D, N = 32, 300
Open = Callable[..., VectorIndex]
SEAL = """
import sys, threading
from pathlib import Path
from headwater.vectors import Hnsw, VectorIndex, building
from vector_catalogue import SqliteCatalogue
home = Path(sys.argv[1])
catalogue = SqliteCatalogue(home / "log.db", 32)
catalogue.commit_segment = lambda *row: threading.Event().wait()  # the catalogue row never comes
if sys.argv[2].startswith("building"):
    building.Building.finish = lambda *made: threading.Event().wait()  # nor does the rename
settings = {"dimension": 32, "metric": "cosine", "hnsw": Hnsw(), "seal_at": 300, "max_segments": 4, "builder_nice": 0}
index = VectorIndex(home / "index", catalogue, **settings)
index.open()
index.maintain()
"""


def random_vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture
def catalogue(tmp_path: Path) -> SqliteCatalogue:
    return SqliteCatalogue(tmp_path / "log.db", D)


@pytest.fixture
def opened(tmp_path: Path, catalogue: SqliteCatalogue) -> Iterator[Open]:
    indexes: list[VectorIndex] = []

    def make(seal_at: int = N, max_segments: int = 4, clients: Clients | None = None) -> VectorIndex:
        for index in indexes:
            index.close()
        index = VectorIndex(
            tmp_path / "index",
            catalogue,
            dimension=D,
            metric="cosine",
            hnsw=Hnsw(),
            seal_at=seal_at,
            max_segments=max_segments,
            clients=clients,
            builder_nice=0,
        )
        index.open()
        indexes.append(index)
        return index

    yield make
    for index in indexes:
        index.close()


def fill(index: VectorIndex, catalogue: SqliteCatalogue, start: int, stop: int) -> None:
    vectors = random_vectors(4 * N)[start:stop]
    catalogue.store(np.arange(start, stop), index.space.accept(vectors))
    index.add(np.arange(start, stop), vectors)


def recall(index: VectorIndex, stop: int, *, hidden: frozenset[int] = frozenset()) -> float:
    """Recall@10 of 40 queries against brute force, and every reported score is the true one."""
    stored, queries = index.space.accept(random_vectors(4 * N)[:stop]), random_vectors(40, seed=9)
    living = np.array([i for i in range(stop) if i not in hidden])
    cosines = queries @ stored.T / np.linalg.norm(stored, axis=1) / np.linalg.norm(queries, axis=1)[:, None]
    good = 0
    for found, truth in zip(index.search_many(queries, 10), cosines, strict=True):
        best = living[np.argsort(-truth[living])[:10]]
        assert np.allclose(found.scores, truth[found.ids], atol=1e-5)
        good += len(set(best.tolist()) & set(found.ids.tolist()))
    return good / 400


def directories(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "index").iterdir() if not path.name.startswith("open-"))


def settle(index: VectorIndex) -> int:
    steps = 0
    while index.maintain():
        steps += 1
        assert steps < 20
    return steps


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        threading.Event().wait(0.002)


def test_a_full_tail_is_sealed_and_searched_with_what_came_after(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened()
    fill(index, catalogue, 0, N - 1)
    assert not index.maintain()
    fill(index, catalogue, N - 1, N)
    assert index.maintain()
    fill(index, catalogue, N, N + 50)
    counts = index.counts
    assert (counts.vectors, counts.tail, counts.segments[0].living) == (N + 50, 50, N)
    assert counts.segments[0].recall > 0.95
    assert recall(index, N + 50) >= 0.95
    assert not index.search(random_vectors(1)[0], 3).exact

    fill(index, catalogue, 0, 20)  # known in the segment: nothing changes
    assert index.counts.vectors == N + 50
    found = index.search(random_vectors(4 * N)[5], 3, among=[5, N + 3, 17, 9_999])
    assert found.exact
    assert found.ids[0] == 5
    assert set(found.ids.tolist()) == {5, N + 3, 17}
    stored = index.space.accept(random_vectors(4 * N))
    assert np.array_equal(index.vectors([N + 1, 3]), stored[[N + 1, 3]])

    index.remove(range(10))
    assert recall(index, N + 50, hidden=frozenset(range(10))) >= 0.95
    assert np.isnan(index.vectors([3])).all()
    catalogue.forget(range(10))
    again = opened()  # a restart knows of the removal from the log alone, and searches the same files
    settle(again)
    assert (again.counts.vectors, again.counts.dead) == (N + 40, 10)
    assert recall(again, N + 50, hidden=frozenset(range(10))) >= 0.95
    again.add([4], random_vectors(4 * N)[4:5])
    assert again.search(random_vectors(4 * N)[4], 1).ids.tolist() == [4]
    assert len(again.search(random_vectors(1)[0], N + 100).ids) == N + 41

    catalogue.store(np.array([4]), again.space.accept(random_vectors(4 * N)[4:5]))
    again = opened()  # the log now has it in the tail, the segment's files still hold it: it is found once
    again.add([4], random_vectors(4 * N)[4:5])
    assert again.search(random_vectors(4 * N)[4], N + 100).ids.tolist().count(4) == 1
    assert directories(tmp_path) == [again.counts.segments[0].name]


def test_many_segments_become_one_a_worn_one_is_rewritten_and_a_dead_one_dropped(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    clients = Clients(limit=1)
    index = opened(seal_at=60, max_segments=1, clients=clients)
    fill(index, catalogue, 0, 60)
    assert index.maintain()
    fill(index, catalogue, 60, 120)
    assert index.maintain()
    assert len(index.counts.segments) == 2
    assert recall(index, 120) >= 0.95
    databases = [tmp_path / "index" / one.name / "chroma" for one in index.counts.segments]
    assert [clients.is_open(path) for path in databases].count(True) == 1
    assert len(list((tmp_path / "index").glob("open-*"))) == 1
    assert index.maintain()
    assert [one.living for one in index.counts.segments] == [120]
    assert not index.maintain()
    assert recall(index, 120) >= 0.95

    index.remove(range(31))
    assert index.counts.dead == 31
    assert index.maintain()
    assert (index.counts.segments[0].living, index.counts.dead) == (89, 0)
    assert recall(index, 120, hidden=frozenset(range(31))) >= 0.95

    index.remove(range(120))
    catalogue.forget(range(120))
    assert index.maintain()
    assert index.counts.segments == ()
    assert catalogue.segments() == []
    index.close()
    assert list((tmp_path / "index").iterdir()) == []


def test_searches_adds_and_removals_go_on_while_a_segment_is_built(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    results: list[bool] = []
    vectors, searches = random_vectors(4 * N), 0
    with builders_wait() as searched:
        sealing = threading.Thread(target=lambda: results.append(index.maintain()))
        sealing.start()
        wait_for(lambda: any((tmp_path / "index").glob("building-*/plan.json")))
        fill(index, catalogue, N, N + 30)
        index.remove([7, N + 2])
        while sealing.is_alive():
            sealing.join(0.02)  # the child runs at the lowest priority: leave it some time
            i = searches % N
            if i != 7:
                assert index.search(vectors[i], 1).ids.tolist() == [i]
            searches += 1
            if searches > 10:
                searched.set()
    assert results == [True]
    assert searches > 10
    assert (index.counts.tail, index.counts.vectors) == (29, N + 28)
    assert 7 not in index.search(vectors[7], N).ids
    assert index.search(vectors[N + 5], 1).ids.tolist() == [N + 5]
    assert index.search(vectors[11], 1).ids.tolist() == [11]


def test_what_is_removed_while_a_segment_is_built_is_in_no_file_after_it_was_cleansed(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index, results = opened(), list[int]()
    fill(index, catalogue, 0, N)
    sealing = threading.Thread(target=index.maintain)
    with builders_wait():
        sealing.start()
        wait_for(lambda: any((tmp_path / "index").glob("building-*/plan.json")))  # its vectors are written down
        catalogue.forget([7, 8])
        index.remove([7, 8])
    cleansing = threading.Thread(target=lambda: results.append(index.cleanse()))
    cleansing.start()
    while cleansing.is_alive():
        assert len(index.search(random_vectors(N)[11], N).ids) == N - 2
        cleansing.join(0.02)
    sealing.join()
    assert results == [2]
    counts = index.counts
    assert (counts.tail, counts.dead, [one.living for one in counts.segments]) == (0, 0, [N - 2])
    (home,) = (tmp_path / "index").glob("seg-*")
    assert np.load(home / "ids.npy").tolist() == [i for i in range(N) if i not in (7, 8)]
    assert index.cleanse() == 0
    assert [one.name for one in index.counts.segments] == [home.name]
    index.remove([9])
    index.close()
    with pytest.raises(StorageError, match="closed meanwhile"):
        index.cleanse()


def test_a_process_killed_while_sealing_loses_nothing(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the child builds, and between the rename and the catalogue row."""
    fill(opened(), catalogue, 0, N)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for moment in ("building-*/chroma", "seg-*"):
        process = subprocess.Popen([sys.executable, "-c", SEAL, str(tmp_path), moment])
        wait_for(lambda moment=moment: any((tmp_path / "index").glob(moment)))
        process.kill()
        process.wait(240)
        index = opened()
        assert index.counts.vectors == N
        assert recall(index, N) == 1
        wait_for(lambda: (opened().close(), directories(tmp_path))[1] == [])


def test_chroma_does_not_listen_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("CHROMA_API_IMPL=chromadb.api.fastapi.FastAPI\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHROMA_API_IMPL", "chromadb.api.fastapi.FastAPI")
    monkeypatch.setenv("CHROMA_SERVER_HOST", "192.0.2.1")
    client = connect(tmp_path / "database")
    create(client, metric="dot", hnsw={"m": 4, "ef_construction": 8, "ef_search": 8}, count=1)
    client.close()
    assert (tmp_path / "database" / "chroma.sqlite3").exists()


def test_a_killed_builder_leaves_nothing_behind_and_is_tried_again(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    with builders_never_end(tmp_path / "index"), monkeypatch.context() as patch:
        real = subprocess.Popen

        def doomed(*args: object, **more: object) -> subprocess.Popen[bytes]:
            child = real(*args, **more)
            wait_for(lambda: any((tmp_path / "index").glob("building-*/chroma/chroma.sqlite3")))
            os.kill(child.pid, signal.SIGKILL)
            return child

        patch.setattr(subprocess, "Popen", doomed)
        with pytest.raises(DamageError, match="status -9"):
            index.maintain()
    assert directories(tmp_path) == []
    assert recall(index, N) == 1
    assert index.maintain()
    assert recall(index, N) >= 0.95


def test_a_builder_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "headwater.vectors.build", str(tmp_path)]
    os.mkfifo(tmp_path / "plan.json")  # the child waits here for ever, as in a long build
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(240) == 3


def test_what_a_crash_left_behind_is_removed_and_other_files_are_not(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    for name in ("building-1", "seg-renamed-but-uncatalogued", "open-2", "notes"):
        (tmp_path / "index" / name / "chroma").mkdir(parents=True)
        (tmp_path / "index" / name / "ids.npy").write_bytes(b"x")
    opened()
    assert directories(tmp_path) == ["notes"]


def test_a_catalogued_segment_without_files_is_searched_from_the_log(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    opened().close()
    row = SegmentRow("seg-gone", 1, 0, 0, "{}")
    ids = np.arange(5)
    catalogue.store(ids, random_vectors(5))
    catalogue.commit_segment(row, ids, [])
    index = opened()
    assert index.counts.tail == 5
    assert "seg-gone" in index.counts.problems[0]
    assert catalogue.segments() == []


def test_a_segment_for_a_topic_that_has_gone_is_deleted(tmp_path: Path, catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    catalogue.generation += 1
    assert not index.maintain()
    assert directories(tmp_path) == []
    assert index.counts.tail == N


def test_a_full_disk_refuses_a_build_and_keeps_the_tail(
    tmp_path: Path, catalogue: SqliteCatalogue, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    usage = type(building.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(building.shutil, "disk_usage", lambda path: usage(100, 99, 1))
    with pytest.raises(StorageError, match="disk"):
        index.maintain()
    assert directories(tmp_path) == []
    assert recall(index, N) == 1


def test_closing_stops_a_build(tmp_path: Path, catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    results: list[bool] = []
    sealing = threading.Thread(target=lambda: results.append(index.maintain()))
    with builders_never_end(tmp_path / "index"):
        sealing.start()
        wait_for(lambda: any((tmp_path / "index").glob("building-*/chroma")))
        index.close()
        sealing.join(240)
    assert results == [False]
    assert directories(tmp_path) == []
