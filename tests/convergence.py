"""Whether every index of an engine says what the log says: the check behind the tests of crashes and rebuilds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np

from headwater.engine import Engine
from headwater.keyword.index import Scope
from headwater.log.schema import SEQ_BITS, SEQ_MASK


async def settled(engine: Engine, topic: str, *, within_s: float = 240.0) -> None:
    """Wait until everything stored is searchable by words and by meaning."""
    until = time.monotonic() + within_s
    while True:
        mark = (await engine.topic(topic)).watermark
        if mark.stored == mark.keyword == mark.semantic:
            return
        assert time.monotonic() < until, f"{topic} stays behind: {mark}; {(await engine.status()).problems}"
        await asyncio.sleep(0.005)


async def assert_converged(engine: Engine, name: str, *, last: int = 50) -> None:
    """Keyword documents, passages, counts and vectors of a topic equal the log's, and its newest passages find themselves."""
    await settled(engine, name)
    topic = engine.stock.find(name)
    id, scope = topic.row.id, Scope((topic.row.id,))
    low, high = id << SEQ_BITS, (id + 1) << SEQ_BITS
    with engine.log.reading() as db:
        records = {r & SEQ_MASK for (r,) in db.execute("SELECT id FROM record WHERE id >= ? AND id < ?", (low, high))}
        spoken = Counter(
            topic.resolve(p)
            for (p,) in db.execute("SELECT passage FROM occurrence WHERE record >= ? AND record < ?", (low, high))
        )
        counts = dict(db.execute("SELECT id, count FROM passage WHERE topic = ? AND count > 0", (id,)))
        embedded = {
            p for (p,) in db.execute("SELECT passage FROM vector WHERE topic = ? AND model = ?", (id, topic.catalogue.model))
        }
        orphans = db.execute("SELECT count(*) FROM occurrence WHERE record NOT IN (SELECT id FROM record)").get
    assert orphans == 0
    assert counts == spoken
    found = engine.keyword.seqs(scope, limit=len(records) + 10)
    assert sorted(seq for _, seq in found) == sorted(records)
    said: Counter[int] = Counter()
    for passage, number in engine.keyword.passages(scope, limit=200_000).items():
        if passage:
            said[topic.resolve(passage)] += number
    assert said == spoken
    if topic.embedder is None:
        assert not embedded
        return
    assert counts.keys() <= embedded
    if not embedded:
        return
    assert topic.vectors is not None
    assert topic.vectors.counts.vectors == len(embedded)
    ids = sorted(counts)[-last:]
    kept, vectors = topic.catalogue.vectors(ids)
    assert kept.tolist() == ids
    np.testing.assert_allclose(topic.vectors.vectors(ids), vectors)
    everything = np.fromiter(sorted(embedded), np.int64)
    themselves = 0
    for vector, proposed in zip(vectors, topic.vectors.search_many(vectors, 1), strict=True):
        near = topic.vectors.search(vector, 1, among=everything)
        np.testing.assert_allclose(topic.vectors.vectors(near.ids)[0], vector, atol=1e-6)
        themselves += bool(np.allclose(topic.vectors.vectors(proposed.ids)[0], vector, atol=1e-6))
    print(f"{name}: {themselves} of {len(ids)} found themselves first by the graph")
    assert themselves > 0.5 * len(ids)  # a graph of near-equal vectors takes some for another; its recall is tested elsewhere
