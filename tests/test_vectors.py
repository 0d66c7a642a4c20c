"""The exact side of the vector index: what is stored, what is found, in which order."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import Metric
from headwater.errors import UsageError
from headwater.vectors import Hnsw, Neighbours, Space, VectorIndex
from headwater.vectors.tail import Lookup, Tail
from vector_catalogue import SqliteCatalogue

METRICS: list[Metric] = ["cosine", "euclidean", "dot"]


def index_in(directory: Path, metric: Metric = "cosine", dimension: int = 8) -> VectorIndex:
    catalogue = SqliteCatalogue(directory / "log.db", dimension)
    index = VectorIndex(None, catalogue, dimension=dimension, metric=metric, hnsw=Hnsw(), seal_at=1_000_000, max_segments=4)
    index.open()
    return index


def random_vectors(n: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)


def brute_force(stored: np.ndarray, query: np.ndarray, metric: Metric) -> np.ndarray:
    rows, q = stored.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        return 1 - (rows @ q) / np.linalg.norm(rows, axis=1) / np.linalg.norm(q)
    return np.linalg.norm(rows - q, axis=1) if metric == "euclidean" else -(rows @ q)


def same(one: Neighbours, other: Neighbours) -> bool:
    pairs = ((one.ids, other.ids), (one.scores, other.scores), (one.distances, other.distances))
    return all(np.array_equal(a, b) for a, b in pairs)


component = st.floats(-50, 50, width=16)


@settings(deadline=None, max_examples=150)
@given(
    metric=st.sampled_from(METRICS),
    rows=st.lists(st.lists(component, min_size=3, max_size=3), min_size=1, max_size=40),
    query=st.lists(component, min_size=3, max_size=3),
    k=st.integers(1, 45),
    block_rows=st.integers(1, 50),
)
def test_the_tail_finds_what_brute_force_finds(
    metric: Metric, rows: list[list[float]], query: list[float], k: int, block_rows: int
) -> None:
    space = Space(3, metric)
    rows = [row for row in rows if metric != "cosine" or any(row)]
    if not rows or (metric == "cosine" and not any(query)):
        return
    stored = space.accept(rows)
    tail = Tail(space, block_rows=block_rows)
    for start in range(0, len(rows), 7):
        tail.add(np.arange(start, min(start + 7, len(rows))) * 3, stored[start : start + 7])
    ids, near = tail.now.nearest(space.queries([query]), k)[0]
    _, distances = space.measures(near)
    truth = brute_force(stored, np.array(query), metric)
    scale = 1 + float(np.abs(truth).max())
    assert len(ids) == len(set(ids.tolist())) == min(k, len(rows))
    assert np.allclose(distances, np.sort(truth)[:k], atol=1e-5 * scale)
    assert np.allclose(distances, truth[ids // 3], atol=1e-5 * scale)


@settings(deadline=None, max_examples=60)
@given(metric=st.sampled_from(METRICS), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_result_does_not_depend_on_blocks_batches_or_how_many_queries_come_together(
    metric: Metric, sizes: list[int], seed: int
) -> None:
    space = Space(24, metric)
    stored = space.accept(random_vectors(sum(sizes), 24, seed))
    queries = space.queries(random_vectors(5, 24, seed + 1))
    ids = np.arange(len(stored))
    whole, pieces = Tail(space), Tail(space, block_rows=17)
    whole.add(ids, stored)
    done = 0
    for size in sizes:
        pieces.add(ids[done : done + size], stored[done : done + size])
        done += size
    expected = whole.now.nearest(queries, 10)
    for i, found in enumerate(expected):
        for other in (
            pieces.now.nearest(queries, 10)[i],
            pieces.now.nearest(queries[i : i + 1], 10)[0],
            pieces.now.nearest(queries[i : i + 1], 10, among=ids[::-1])[0],
        ):
            assert np.array_equal(found[0], other[0])
            assert np.array_equal(found[1], other[1])


@settings(deadline=None)
@given(metric=st.sampled_from(METRICS), seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 0.9995, 1.0, 1.002, 300.0]))
def test_the_stored_form_of_a_vector_is_its_own_stored_form_and_fits_the_log(metric: Metric, seed: int, scale: float) -> None:
    space = Space(20, metric)
    rows = random_vectors(4, 20, seed)
    rows *= scale / np.linalg.norm(rows, axis=1, keepdims=True)
    stored = space.accept(rows)
    assert np.array_equal(space.accept(stored), stored)
    assert np.array_equal(stored.astype(np.float16).astype(np.float32), stored)


def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    vector = random_vectors(1)
    index.add([9, 2, 5, 7], np.repeat(vector, 4, axis=0))
    assert index.search(vector[0], 3).ids.tolist() == [2, 5, 7]


@pytest.mark.parametrize("metric", METRICS)
def test_scores_fall_and_distances_rise_in_every_metric(tmp_path: Path, metric: Metric) -> None:
    index = index_in(tmp_path, metric)
    index.add(np.arange(50), random_vectors(50))
    found = index.search(random_vectors(1, seed=3)[0], 20)
    assert found.exact
    assert found.scores.dtype == found.distances.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all()
    assert (np.diff(found.distances) >= 0).all()


def test_a_vector_is_at_no_distance_from_itself_even_far_from_the_origin(tmp_path: Path) -> None:
    index = index_in(tmp_path, "euclidean")
    vectors = (random_vectors(20) + 1000).astype(np.float16).astype(np.float32)
    index.add(np.arange(20), vectors)
    found = index.search(vectors[4], 1)
    assert (found.ids[0], found.distances[0], found.scores[0]) == (4, 0, 1)


def test_adding_an_id_again_changes_nothing(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    vectors = random_vectors(3)
    index.add([1, 2, 2], vectors)
    index.add([2, 1, 3], vectors)
    assert index.counts.vectors == 3
    assert np.allclose(index.search(vectors[1], 1).ids, [2])
    assert np.allclose(index.search(vectors[2], 1).ids, [3])


def test_a_removed_vector_is_gone_at_once_and_comes_back_when_it_is_added_again(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    vectors = random_vectors(10)
    index.add(np.arange(10), vectors)
    index.remove([4, 99])
    index.remove([4])
    assert 4 not in index.search(vectors[4], 10).ids
    assert 4 not in index.search(vectors[4], 10, among=[4, 5]).ids
    assert np.isnan(index.vectors([4])).all()
    assert (index.counts.vectors, index.counts.dead) == (9, 1)
    index.add([4], vectors[4:5])
    assert index.search(vectors[4], 1).ids.tolist() == [4]
    assert index.counts.dead == 0


def test_candidates_limit_a_search_to_themselves(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    vectors = random_vectors(200)
    index.add(np.arange(200)[::-1], vectors[::-1])
    truth = np.argsort(brute_force(vectors, vectors[0], "cosine"), kind="stable")
    found = index.search(vectors[0], 5, among=[7, 3, 150, 7, 1_000, 12])
    assert found.ids.tolist() == [i for i in truth if i in (3, 7, 12, 150)]
    assert len(index.search(vectors[0], 5, among=[]).ids) == 0


def test_stored_vectors_can_be_read_back_and_unknown_ids_are_nan(tmp_path: Path) -> None:
    index = index_in(tmp_path, "dot")
    vectors = random_vectors(30).astype(np.float16).astype(np.float32)
    index.add(np.arange(30), vectors)
    read = index.vectors([29, 500, 0])
    assert np.array_equal(read[[0, 2]], vectors[[29, 0]])
    assert np.isnan(read[1]).all()


def test_many_searches_answer_as_each_alone(tmp_path: Path) -> None:
    index = index_in(tmp_path, "euclidean")
    index.add(np.arange(300), random_vectors(300))
    queries = random_vectors(9, seed=1)
    together = index.search_many(queries, 7)
    assert all(same(one, index.search(query, 7)) for one, query in zip(together, queries, strict=True))


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    index.add([], [])
    assert len(index.search(random_vectors(1)[0], 5).ids) == 0
    assert index.counts.vectors == 0
    assert index.maintain() is False


BAD: list[tuple[Metric, list[float], str]] = [
    ("cosine", [np.nan] + [1.0] * 15, "NaN"),
    ("dot", [np.inf] + [1.0] * 15, "infinity"),
    ("cosine", [0.0] * 16, "zeros"),
    ("euclidean", [0.25] * 16, "same value"),
    ("dot", [1.0] * 7, "7 components"),
    ("euclidean", [7e4] + [1.0] * 15, "65504"),
]


@pytest.mark.parametrize(("metric", "bad", "said"), BAD)
def test_a_bad_vector_is_refused_before_anything_is_changed(
    tmp_path: Path, metric: Metric, bad: list[float], said: str
) -> None:
    index = index_in(tmp_path, metric, 16)
    good = random_vectors(1, 16)[0].tolist()
    batch = [good, bad] if len(bad) == 16 else [bad, bad]
    with pytest.raises(UsageError, match=said):
        index.add([1, 2], batch)
    assert index.counts.vectors == 0
    if said != "65504":
        with pytest.raises(UsageError, match=said):
            index.search(bad, 3)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    with pytest.raises(UsageError, match="2 ids came with 1"):
        index.add([1, 2], random_vectors(1))
    with pytest.raises(UsageError, match="integers"):
        index.add(["a"], random_vectors(1))
    with pytest.raises(UsageError, match="k must be"):
        index.search(random_vectors(1)[0], 0)
    with pytest.raises(UsageError, match="one vector"):
        index.search(random_vectors(2), 1)
    with pytest.raises(UsageError, match="numbers"):
        index.add([1], [["red"] * 8])


def test_an_index_opens_with_what_the_log_holds_and_leaves_out_what_is_unusable(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "log.db", 8)
    vectors = random_vectors(500)
    vectors[123] = np.nan
    catalogue.store(np.arange(500), vectors)
    index = VectorIndex(None, catalogue, dimension=8, metric="cosine", hnsw=Hnsw(), seal_at=9999, max_segments=4)
    index.open()
    index.maintain()
    assert index.counts.vectors == 499
    assert "NaN" in index.counts.problems[0]
    assert index.search(vectors[77], 1).ids.tolist() == [77]


def test_an_answer_is_the_same_after_a_restart(tmp_path: Path) -> None:
    catalogue = SqliteCatalogue(tmp_path / "log.db", 8)
    vectors = random_vectors(300) * 5
    before, after = (
        VectorIndex(None, catalogue, dimension=8, metric="cosine", hnsw=Hnsw(), seal_at=9999, max_segments=4) for _ in "ab"
    )
    before.open()
    before.add(np.arange(300), vectors)
    catalogue.store(np.arange(300), before.space.accept(vectors))
    after.open()
    query = random_vectors(1, seed=5)[0]
    assert same(before.search(query, 50), after.search(query, 50))


@given(st.lists(st.integers(0, 60), unique=True), st.lists(st.integers(0, 80)))
def test_a_lookup_finds_every_id_in_any_order(held: list[int], asked: list[int]) -> None:
    found = Lookup(np.array(held, np.int64)).positions(np.array(asked, np.int64))
    assert found.tolist() == [held.index(i) if i in held else -1 for i in asked]


def test_searches_run_while_vectors_are_added_and_see_each_once_it_is_there(tmp_path: Path) -> None:
    index = index_in(tmp_path)
    vectors = random_vectors(20_000)
    added, failures, done = [0], [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            n = added[0]
            if n:
                found = index.search(vectors[n - 1], 1)
                if found.ids[0] != n - 1 and found.scores[0] < 0.9999:
                    failures.append(n - 1)

    readers = [threading.Thread(target=watch) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, len(vectors), 250):
        index.add(np.arange(start, start + 250), vectors[start : start + 250])
        added[0] = start + 250
    done.set()
    for reader in readers:
        reader.join(240)
    assert not failures
    assert index.counts.vectors == len(vectors)


def test_importing_the_package_does_not_import_chroma() -> None:
    code = "import sys, headwater.vectors; sys.exit('chromadb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
