"""The narrow copy of a large segment's vectors: what it finds among many candidates, and when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from headwater.config import Metric
from headwater.vectors import Hnsw, Ivf, Kind, VectorIndex
from headwater.vectors.narrow import FILES, NARROWED_FROM
from vector_catalogue import SqliteCatalogue

D, N = 256, NARROWED_FROM + 2000
MANY = np.arange(500, N)
Open = Callable[..., VectorIndex]


def vectors(n: int, seed: int, *, falling: float = 0.5) -> np.ndarray:
    """Longer along some directions than along others, as those of texts are; alike along all with `falling` 0."""
    drawn = np.random.default_rng(seed).standard_normal((n, D)) * np.arange(1, D + 1) ** -falling
    return drawn.astype(np.float32)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    catalogue, indexes = SqliteCatalogue(tmp_path / "log.db", D), list[VectorIndex]()

    def make(rows: np.ndarray | None = None, metric: Metric = "cosine", kind: Kind = "ivf") -> VectorIndex:
        """An index with one sealed segment; with `rows` it is made of these."""
        for index in indexes:
            index.close()
        how = {"hnsw": Hnsw(), "ivf": Ivf(32, 4), "kind": kind, "seal_at": 1000, "max_segments": 4, "builder_nice": 0}
        index = VectorIndex(tmp_path / "index", catalogue, dimension=D, metric=metric, **how)
        if rows is not None:
            catalogue.store(np.arange(len(rows)), index.space.accept(rows))
        index.open()
        while rows is not None and index.maintain():
            pass
        indexes.append(index)
        return index

    yield make
    for index in indexes:
        index.close()


def bounds(index: VectorIndex, queries: np.ndarray, among: np.ndarray, k: int) -> np.ndarray:
    """How near the k-th nearest of some members is to each query."""
    rows = index.vectors(among)
    return -np.sort(-index.space.closeness(rows, index.space.weights(rows), index.space.queries(queries)), axis=1)[:, k - 1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_the_nearest_of_many_candidates_are_found_by_the_narrow_copy_with_their_true_scores(
    metric: Metric, opened: Open
) -> None:
    index, queries = opened(vectors(N, 1), metric), vectors(20, 2)
    assert index.counts.segments[0].narrow
    gone = [int(i) for i in index.search(queries[0], 3, among=MANY).ids]
    index.remove(gone)
    living = np.setdiff1d(MANY, gone)
    limits = index.space.measures(bounds(index, queries, living, 10))[0]
    found = index.search_many(queries, 10, among=MANY)
    assert not any(one.exact for one in found)
    assert all(set(one.ids.tolist()) <= set(living.tolist()) for one in found)
    assert np.mean([(one.scores >= limit - 1e-6).mean() for one, limit in zip(found, limits, strict=True)]) >= 0.98
    rows = index.space.accept(vectors(N, 1))[found[1].ids]
    true = index.space.closeness(rows, index.space.weights(rows), index.space.queries(queries[1]))
    assert np.allclose(found[1].scores, index.space.measures(true)[0][0], atol=1e-6)


def test_few_candidates_and_a_large_part_of_many_are_all_compared(opened: Open) -> None:
    index, query = opened(vectors(N, 1)), vectors(1, 3)[0]
    assert index.search(query, 10, among=MANY[: NARROWED_FROM - 1]).exact
    assert index.search(query, N // 10, among=MANY).exact
    assert not index.search(query, 10, among=MANY).exact


@pytest.mark.parametrize(
    ("rows", "kind"),
    [(vectors(N, 1, falling=0), "ivf"), (vectors(1200, 1), "ivf"), (vectors(N, 1), "flat")],
    ids=["alike", "few", "flat"],
)
def test_vectors_that_it_cannot_tell_apart_few_vectors_and_flat_segments_have_no_narrow_copy(
    rows: np.ndarray, kind: Kind, opened: Open, tmp_path: Path
) -> None:
    index = opened(rows, kind=kind)
    assert (index.counts.tail, index.counts.segments[0].narrow) == (0, False)
    assert index.search(rows[0], 10, among=np.arange(len(rows))).exact
    assert not [path for name in FILES for path in (tmp_path / "index").glob(f"*/{name}")]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_narrow_copy_is_found_answered_without_and_mended(name: str, opened: Open, tmp_path: Path) -> None:
    opened(vectors(N, 1)).close()
    (path,) = (tmp_path / "index").glob(f"*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    index, query = opened(), vectors(1, 3)[0]
    reply = index.search(query, 10, among=MANY)
    assert reply.exact
    assert reply.scores[-1] == pytest.approx(bounds(index, query[None], MANY, 10)[0], abs=1e-6)
    assert name in " ".join(index.counts.problems)
    assert not index.counts.segments[0].narrow
    while index.maintain():
        pass
    assert (index.counts.problems, index.counts.rebuilt, index.counts.segments[0].narrow) == ((), 1, True)


def test_a_segment_that_was_sealed_without_it_is_compared_in_full(opened: Open, tmp_path: Path) -> None:
    opened(vectors(N, 1)).close()
    catalogue = SqliteCatalogue(tmp_path / "log.db", D)
    (row,) = catalogue.segments()
    manifest = json.loads(row.manifest)
    for name in FILES:
        del manifest["files"][name]
        (tmp_path / "index" / row.name / name).unlink()
    older = type(row)(row.name, row.count, row.min_id, row.max_id, json.dumps(manifest))
    catalogue.drop_segments([row.name])
    assert catalogue.commit_segment(older, np.arange(N), [])
    index = opened()
    assert (index.counts.problems, index.counts.segments[0].narrow) == ((), False)
    assert index.search(vectors(1, 3)[0], 10, among=MANY).exact
