"""Segments of every kind: what they find, changed settings, damaged files, and death while they are built."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import builders_wait
from headwater.config import Metric
from headwater.errors import UsageError
from headwater.vectors import Hnsw, Ivf, Kind, SegmentRow, VectorIndex, files, segment
from headwater.vectors.due import Due, next_due, smallest
from headwater.vectors.stored import Stored, widen
from vector_catalogue import SqliteCatalogue

D, N = 32, 400
KINDS: list[Kind] = ["hnsw", "flat", "ivf"]
METRICS: list[Metric] = ["cosine", "euclidean", "dot"]
Open = Callable[..., VectorIndex]
KILLS = int(os.environ.get("HEADWATER_TEST_KILLS", "10"))
"""Deaths at random moments; `HEADWATER_TEST_KILLS=100` makes it a longer run."""
WORK = """
import sys
from pathlib import Path
from headwater.vectors import Hnsw, Ivf, VectorIndex
from vector_catalogue import SqliteCatalogue
home, kind = Path(sys.argv[1]), sys.argv[2]
index = VectorIndex(home / "index", SqliteCatalogue(home / "log.db", 32), dimension=32, metric="cosine", hnsw=Hnsw(), kind=kind,
                    ivf=Ivf(8, 8), seal_at=100, max_segments=1, builder_nice=0)
index.open()
print("open", flush=True)
while index.maintain():
    pass
print("done", flush=True)
sys.stdin.read()
"""


def random_vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


@pytest.fixture
def catalogue(tmp_path: Path) -> SqliteCatalogue:
    return SqliteCatalogue(tmp_path / "log.db", D)


@pytest.fixture
def opened(tmp_path: Path, catalogue: SqliteCatalogue) -> Iterator[Open]:
    indexes: list[VectorIndex] = []

    def make(kind: Kind = "hnsw", metric: Metric = "cosine", **more: object) -> VectorIndex:
        for index in indexes:
            index.close()
        how = {"hnsw": Hnsw(), "ivf": Ivf(8, 4), "seal_at": N, "max_segments": 4, "builder_nice": 0, **more}
        index = VectorIndex(tmp_path / "index", catalogue, dimension=D, metric=metric, kind=kind, **how)
        index.open()
        indexes.append(index)
        return index

    yield make
    for index in indexes:
        index.close()


def fill(index: VectorIndex, catalogue: SqliteCatalogue, start: int, stop: int) -> None:
    vectors = index.space.accept(random_vectors(2 * N)[start:stop])
    catalogue.store(np.arange(start, stop), vectors)
    index.add(np.arange(start, stop), vectors)


def settle(index: VectorIndex) -> None:
    for _ in range(20):
        if not index.maintain():
            return
    raise AssertionError("there was always something to do")


def recall(index: VectorIndex, stop: int = N, k: int = 10) -> float:
    """Share of the true k nearest that is found, by 30 queries; every score that is told is the true one."""
    stored, queries = index.space.accept(random_vectors(2 * N)[:stop]), index.space.queries(random_vectors(30, seed=9))
    near = index.space.closeness(stored, index.space.weights(stored), queries)
    good = 0
    for found, truth in zip(index.search_many(queries, k), near, strict=True):
        best = np.argsort(-truth, kind="stable")[:k]
        assert np.allclose(found.scores, index.space.measures(truth[found.ids])[0], atol=1e-6)
        assert (np.diff(found.scores) <= 0).all()
        good += len(set(best.tolist()) & set(found.ids.tolist()))
    return good / (30 * k)


def directories(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "index").iterdir() if not path.name.startswith("open-"))


# ---------------------------------------------------------------------- what is found


@pytest.mark.parametrize("kind", ["flat", "ivf"])
@pytest.mark.parametrize("metric", METRICS)
def test_segments_without_a_graph_find_in_every_metric_what_is_near_and_nothing_that_was_removed(
    kind: Kind, metric: Metric, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened(kind, metric)
    fill(index, catalogue, 0, N)
    assert index.maintain()
    fill(index, catalogue, N, N + 30)
    (sealed,) = index.counts.segments
    assert (sealed.kind, sealed.living, index.counts.tail) == (kind, N, 30)
    assert recall(index, N + 30) >= (1 if kind == "flat" else 0.6)
    query = index.space.queries(random_vectors(1, seed=5))[0]
    assert index.search(query, 3).exact == (kind == "flat")
    every = index.search(query, 2 * N)
    assert every.exact
    assert sorted(every.ids.tolist()) == list(range(N + 30))
    among = [5, N + 3, 17, 5, 9_999, 212]
    assert set(index.search(query, 4, among=among).ids.tolist()) == {5, N + 3, 17, 212}
    best = index.search(query, 10).ids
    index.remove(best)
    assert not set(best.tolist()) & set(index.search(query, 10).ids.tolist())
    assert np.isnan(index.vectors(best)).all()
    index.add(best[:1], index.space.accept(random_vectors(2 * N)[best[:1]]))
    assert index.search(query, 1).ids.tolist() == best[:1].tolist()


def test_more_cells_are_scanned_where_the_nearest_ones_do_not_hold_enough(catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened("ivf", ivf=Ivf(40, 1))
    fill(index, catalogue, 0, N)
    settle(index)
    few = recall(index)
    assert recall(index, k=100) >= few
    index.remove(np.arange(0, N - 50))
    assert len(index.search(random_vectors(1, seed=4)[0], 40).ids) == 40


def test_opening_with_other_search_settings_needs_no_rebuild(catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened("ivf", ivf=Ivf(20, 1))
    fill(index, catalogue, 0, N)
    settle(index)
    few, (before,) = recall(index), index.counts.segments
    index = opened("ivf", ivf=Ivf(20, 20))
    settle(index)
    assert recall(index) == 1 > few
    assert index.counts.segments[0].name == before.name
    graph = opened("hnsw", hnsw=Hnsw(8, 20, 10))
    settle(graph)
    poor, (before,) = recall(graph), graph.counts.segments
    graph = opened("hnsw", hnsw=Hnsw(8, 20, 300))
    settle(graph)
    assert graph.counts.segments[0].name == before.name
    assert recall(graph) > poor


def test_a_graph_looks_at_more_candidates_when_told(catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened("hnsw", hnsw=Hnsw(8, 20, 10))
    fill(index, catalogue, 0, N)
    settle(index)
    query, truth = random_vectors(40, seed=9), []
    for one in query:
        truth.append(set(index.search(one, 10, among=np.arange(N)).ids.tolist()))
    share = [
        sum(len(t & set(index.search(q, 10, ef=ef).ids.tolist())) for q, t in zip(query, truth, strict=True)) for ef in (1, 350)
    ]
    assert share[0] < share[1]
    with pytest.raises(UsageError, match="ef must be"):
        index.search(query[0], 3, ef=0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-65504, 65504, width=16), min_size=1, max_size=50))
def test_widening_half_floats_is_exact(values: list[float]) -> None:
    half = np.array([values], np.float16)
    wide = widen(half.view(np.int16), np.empty(half.shape, np.float32))
    assert np.array_equal(wide, half.astype(np.float32))


def test_stored_vectors_are_read_the_same_from_either_format(tmp_path: Path) -> None:
    rows = random_vectors(3000).astype(np.float16)
    np.save(tmp_path / "new.npy", rows)
    np.save(tmp_path / "old.npy", rows.astype(np.float32))
    at = np.array([2999, 0, 0, 1500])
    for name in ("new.npy", "old.npy"):
        stored = Stored(tmp_path / name)
        assert np.array_equal(stored.rows(at), rows[at].astype(np.float32))
        assert np.array_equal(stored.block(10, 2500), rows[10:2500].astype(np.float32))


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(("before", "after"), [("hnsw", "ivf"), ("ivf", "flat"), ("flat", "hnsw")])
def test_a_segment_of_another_kind_answers_until_it_is_built_anew(
    before: Kind, after: Kind, tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened(before)
    fill(index, catalogue, 0, N)
    settle(index)
    index = opened(after)
    assert index.counts.tail == 0
    assert (index.counts.segments[0].kind, index.counts.segments[0].due) == (before, "settings")
    assert recall(index) >= 0.6
    assert index.progress is None
    settle(index)
    (now,) = index.counts.segments
    assert (now.kind, now.due, now.living) == (after, None, N)
    assert (index.counts.built, index.counts.rebuilt, index.counts.damaged) == (1, 1, 0)
    assert directories(tmp_path) == [now.name]
    assert recall(index) >= 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_change_of_metric_answers_are_exact_until_the_segment_is_built_anew(
    kind: Kind, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened(kind, "dot")
    fill(index, catalogue, 0, N)
    settle(index)
    index = opened(kind, "cosine")
    assert index.search(random_vectors(1)[0], 3).exact
    stored = random_vectors(N)
    cosines = stored @ stored[7] / np.linalg.norm(stored, axis=1) / np.linalg.norm(stored[7])
    expected = np.argsort(-cosines)[:5].tolist()
    assert index.search(stored[7], 5).ids.tolist() == expected
    if kind == "hnsw":
        return  # built anew like the others, which takes two seconds more
    settle(index)
    assert index.counts.segments[0].due is None
    assert index.search(stored[7], 5, among=np.arange(N)).ids.tolist() == expected


def test_progress_tells_how_far_a_build_has_come(catalogue: SqliteCatalogue, opened: Open) -> None:
    index, seen, done = opened(), [], threading.Event()
    fill(index, catalogue, 0, N)
    with builders_wait() as seen_building:

        def watch() -> None:
            while not done.is_set():
                if (now := index.progress) is not None:
                    seen.append(now)
                    if now.stage == "build":
                        seen_building.set()
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        settle(index)
        done.set()
        watcher.join(240)
    stages = [one.stage for one in seen]
    assert stages == sorted(stages, key=["write", "build", "install"].index)
    built = [one for one in seen if one.stage == "build"]
    assert built
    assert {(one.kind, one.why, one.total) for one in built} == {("hnsw", "seal", N)}
    assert all(0 <= one.done <= N for one in built)
    assert index.progress is None


def test_segments_of_the_first_format_are_read_as_they_are(tmp_path: Path, catalogue: SqliteCatalogue, opened: Open) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    settle(index)
    index.close()
    (row,) = catalogue.segments()
    home, made = tmp_path / "index" / row.name, json.loads(row.manifest)
    (home / "weights.npy").unlink()
    np.save(home / "vectors.npy", np.load(home / "vectors.npy").astype(np.float32))
    for name in ("kind", "ivf"):
        del made[name]
    kept = {name: mark for name, mark in files.marks(home).items() if name != "manifest.json"}
    row = replace(row, manifest=json.dumps({**made, "format": 1, "files": kept}))
    catalogue.commit_segment(row, np.arange(N), [row.name])
    index = opened()
    settle(index)
    assert (index.counts.segments[0].name, index.counts.segments[0].due, index.counts.problems) == (row.name, None, ())
    assert recall(index) >= 0.9
    assert not index.search(random_vectors(1)[0], 3).exact


# ---------------------------------------------------------------------- merging


class _Sized:
    """As much of a segment as the rule looks at."""

    def __init__(self, name: str, members: int, dead: int = 0, flaw: str | None = None, outdated: bool = False) -> None:
        self.name, self.ids, self.dead, self.flaw, self.outdated = name, range(members), dead, flaw, outdated


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_merging_keeps_segments_few_and_copies_each_vector_few_times(tails: list[int], most: int) -> None:
    segments: list[_Sized] = []
    copied = 0
    for number, size in enumerate(tails):
        segments.append(_Sized(f"s{number}", size))
        while len(segments) > most:
            chosen = smallest(segments)  # type: ignore[arg-type]
            assert len(chosen) >= 2
            segments = [one for one in segments if one not in chosen]
            segments.append(_Sized(f"m{number}", sum(len(one.ids) for one in chosen)))
            copied += len(segments[-1].ids)
    assert sum(len(one.ids) for one in segments) == sum(tails)
    if most >= 4:
        assert copied <= 8 * sum(tails) * max(1, np.log2(len(tails)))


def test_what_is_most_urgent_is_built_first() -> None:
    worn, old, broken = _Sized("a", 100, dead=26), _Sized("b", 100, outdated=True), _Sized("c", 100, flaw="torn")

    def due(*segments: _Sized, tail: int = 0, most: int = 4) -> Due | None:
        return next_due(segments, tail, seal_at=50, max_segments=most)  # type: ignore[arg-type]

    assert due() is None
    assert due(_Sized("d", 100, dead=25)) is None
    assert due(old, worn, broken, tail=50) == Due("damage", (broken,))  # type: ignore[arg-type]
    assert due(old, worn, tail=50) == Due("seal")
    assert due(old, worn, most=1) == Due("merge", (worn, old))  # type: ignore[arg-type]
    assert due(old, worn) == Due("worn", (worn,))  # type: ignore[arg-type]
    assert due(old) == Due("settings", (old,))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- damage


def truncated(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def flipped(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(chance.randrange(path.stat().st_size))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1 << chance.randrange(8)]))


def missing(path: Path, chance: random.Random) -> None:
    path.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_any_file_is_found_before_it_is_read_answered_exactly_and_mended(
    kind: Kind, tmp_path: Path, catalogue: SqliteCatalogue, opened: Open
) -> None:
    index = opened(kind)
    fill(index, catalogue, 0, N)
    settle(index)
    index.close()
    (row,) = catalogue.segments()
    home, spare = tmp_path / "index" / row.name, tmp_path / "spare"
    shutil.copytree(home, spare)
    names = sorted(name for name, file in json.loads(row.manifest)["files"].items() if file["bytes"])
    chance = random.Random(f"damage {kind}")
    harm = [(name, chance.choice((truncated, flipped, missing))) for name in names]
    for name, damage in harm:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(spare, home)
        if not catalogue.segments():
            catalogue.commit_segment(row, np.arange(N), [])
        damage(home / name, chance)
        index = opened(kind)
        assert recall(index) == 1, (name, damage)
        assert index.search(random_vectors(1)[0], 3).exact
        assert name in " ".join(index.counts.problems)
        assert (index.counts.vectors, index.counts.damaged) == (N, 1)
    settle(index)
    assert index.counts.problems == ()
    assert (index.counts.damaged, index.counts.rebuilt, index.counts.segments[0].living) == (1, 1, N)
    assert recall(index) >= 0.6
    assert directories(tmp_path) == [index.counts.segments[0].name]


def test_a_large_graph_is_checked_in_the_background_while_searches_are_exact(
    catalogue: SqliteCatalogue, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened()
    fill(index, catalogue, 0, N)
    settle(index)
    monkeypatch.setattr(segment, "_AT_ONCE_BYTES", 0)
    looked, check = threading.Event(), segment.Segment._check_graph

    def after_a_look(checked: segment.Segment) -> bool:
        looked.wait(240)
        return check(checked)

    monkeypatch.setattr(segment.Segment, "_check_graph", after_a_look)
    index = opened()
    assert not index.counts.segments[0].ready
    assert index.search(random_vectors(1)[0], 3).exact
    assert index.search(random_vectors(1)[0], 3).exact  # the first has begun the check
    looked.set()
    end = time.monotonic() + 240
    while not index.counts.segments[0].ready:
        assert time.monotonic() < end
        time.sleep(0.002)
    assert not index.search(random_vectors(1)[0], 3).exact
    assert recall(index) >= 0.9


def test_a_manifest_of_files_that_are_too_few_is_not_trusted(catalogue: SqliteCatalogue, opened: Open) -> None:
    opened().close()
    made = {"format": 2, "kind": "ivf", "dimension": D, "metric": "cosine", "hnsw": {}, "recall": 1, "files": {}}
    catalogue.store(np.arange(5), random_vectors(5))
    for number, manifest in enumerate((made, {**made, "format": 99}, {**made, "kind": "lsh"}, {**made, "files": 7})):
        catalogue.commit_segment(SegmentRow(f"seg-{number}", 5, 0, 4, json.dumps(manifest)), np.arange(5), [])
        index = opened()
        assert f"seg-{number}" in index.counts.problems[0]
        assert (index.counts.tail, catalogue.segments()) == (5, [])


# ---------------------------------------------------------------------- death


@pytest.mark.slow
def test_a_process_killed_at_random_moments_of_sealing_and_merging_leaves_nothing_half(
    tmp_path: Path, catalogue: SqliteCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two segments are wanted as one of 200, of a kind that changes each time, and the worker dies while it works at that."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    chance, stored = random.Random("deaths"), 0
    for kill in range(KILLS):
        kind = KINDS[kill % 3]
        if stored < 2 * N:
            space = VectorIndex(None, catalogue, dimension=D, metric="cosine", hnsw=Hnsw(), seal_at=9, max_segments=1).space
            rows = space.accept(random_vectors(2 * N)[stored : stored + 100])
            catalogue.store(np.arange(stored, stored + 100), rows)
            stored += 100
        worker = subprocess.Popen(
            [sys.executable, "-c", WORK, str(tmp_path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
        died = threading.Timer(chance.uniform(0, 2.5 if kind == "hnsw" else 0.8), worker.kill)
        died.start()
        died.join()
        worker.communicate(timeout=240)
        index = VectorIndex(
            tmp_path / "index", catalogue, dimension=D, metric="cosine", hnsw=Hnsw(), kind=kind, ivf=Ivf(8, 8),
            seal_at=10_000, max_segments=100, builder_nice=0,
        )  # fmt: skip
        index.open()
        assert index.counts.problems == ()
        assert (index.counts.vectors, index.counts.damaged) == (stored, 0)
        assert recall(index, stored) >= 0.9
        index.close()
        wait_until_only(tmp_path, {row.name for row in catalogue.segments()})


def wait_until_only(tmp_path: Path, names: set[str]) -> None:
    """An orphaned builder ends by itself, and what it wrote last is removed by the next start."""
    end = time.monotonic() + 240
    while set(directories(tmp_path)) != names:
        assert time.monotonic() < end, directories(tmp_path)
        for path in (tmp_path / "index").glob("building-*"):
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.005)
