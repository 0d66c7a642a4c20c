"""The plan of a search by meaning: whichever way is taken, what is found is what comparing everything finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.config import TopicConfig
from headwater.engine import Engine
from headwater.errors import UsageError
from headwater.index.topic import TopicIndex
from headwater.keyword.held import Held
from headwater.keyword.index import Doc, KeywordIndex, Scope
from headwater.log.catalogue import Catalogue
from headwater.log.store import Log
from headwater.query import parse
from headwater.records import SearchReply
from headwater.search.candidates import Costs, Nearest, Nearness
from headwater.search.planning import plan
from headwater.search.searching import position_of
from headwater.vectors import Hnsw, VectorIndex
from test_engine import BASE, fill, run, until

S = BASE / 1000
DIMENSION = 16
NEVER, ALWAYS = 1e9, 0.0  # what comparing costs, so that the planner avoids or takes it


class Corpus:
    """Records with passages, vectors and aliases, and what comparing everything finds in them."""

    def __init__(self, directory: Path, seed: int, size: int, shared: int) -> None:
        random = np.random.default_rng(seed)
        self.log = Log(directory, clock_ms=lambda: 0)
        self.keyword = KeywordIndex(None)
        row = self.log.create_topic("t", {"partitions": 1}, None)
        passages = random.integers(1, max(size // shared, 1) + 1, size)
        self.passages = passages if shared > 1 else np.arange(1, size + 1)
        self.vectors = random.normal(size=(int(self.passages.max()) + 1, DIMENSION)).astype(np.float32)
        catalogue = Catalogue(self.log, row.id, None, 1)
        self.index = VectorIndex(
            None, catalogue, dimension=DIMENSION, metric="cosine", hnsw=Hnsw(), seal_at=1 << 60, max_segments=1
        )
        distinct = np.unique(self.passages)
        self.index.add(distinct, self.vectors[distinct])
        self.log.write(
            lambda db: db.executemany(
                "INSERT INTO passage VALUES(?,?,?,'',NULL,NULL,1,0,0,0,0)",
                [(int(p), row.id, str(p).encode()) for p in distinct],
            )
        )
        self.topic = TopicIndex(row, TopicConfig(), catalogue, None, self.index)
        olds = random.choice(distinct, min(len(distinct) // 5, 12), replace=False).tolist()
        for old in olds:  # two templates that became one, and chains of it
            new = self.topic.resolve(int(random.choice(distinct)))
            if new != old and old not in self.topic.aliases:
                self.topic.learn_aliases({old: new})
        self.colours = random.integers(0, 10, size)
        docs = [
            Doc(row.id, seq, 0, int(p), 0, seq, seq * 1000, f"k{seq % 7}", None, f"word{seq % 3} text", {"colour": int(c)})
            for seq, (p, c) in enumerate(zip(self.passages, self.colours, strict=True))
        ]
        self.keyword.add(docs)
        self.keyword.commit()

    def forget_lists(self) -> None:
        self.keyword.delete_records(self.topic.row.id, [1 << 30])
        self.keyword.commit()

    def close(self) -> None:
        self.index.close()
        self.keyword.close()
        self.log.close()

    def expected(self, vector: np.ndarray, inside: Callable[[int], bool], k: int) -> list[float]:
        """The similarities of the k nearest surviving passages that have a record in scope."""
        held = set(self.passages.tolist())
        rows = {self.topic.resolve(int(p)) for seq, p in enumerate(self.passages) if inside(seq)}
        unit = vector / np.linalg.norm(vector)
        best = []
        for p in rows:
            family = self.vectors[[m for m in self.topic.family(p) if m in held]]
            best.append(float(((family @ unit) / np.linalg.norm(family, axis=1)).max()))
        return sorted(best, reverse=True)[:k]

    def nearest(self, vector: np.ndarray, scope: Scope, k: int, scan_us: float) -> Nearest:
        scope = replace(scope, topics=(self.topic.row.id,))
        search = Nearness(self.keyword, scan_us=scan_us)
        return search.nearest(self.topic, "m", self.index, vector, k, scope, narrow=True)


def scoped(query: str, **more: Any) -> Scope:
    read = parse(query, now_ms=0)
    return Scope((1,), read.filters, read.phrases, read.excluded, read.since_ms, read.until_ms, **more)


FILTERS: Sequence[tuple[Callable[[int], Scope], Callable[[Corpus, int, int], bool]]] = (
    (lambda a: scoped(f"colour:{a % 10}"), lambda c, a, seq: int(c.colours[seq]) == a % 10),
    (lambda a: scoped(f"colour:<{a % 10}"), lambda c, a, seq: int(c.colours[seq]) < a % 10),
    (lambda a: scoped(f"-colour:{a % 10}"), lambda c, a, seq: int(c.colours[seq]) != a % 10),
    (lambda a: scoped(f"key:k{a % 8}"), lambda c, a, seq: seq % 7 == a % 8),
    (lambda a: replace(scoped(""), since_ms=a * 3000), lambda c, a, seq: seq >= a * 3),
    (lambda a: replace(scoped(""), until_ms=a * 5000), lambda c, a, seq: seq < a * 5),
    (lambda a: scoped(f'"word{a % 4}"'), lambda c, a, seq: seq % 3 == a % 4),
    (lambda a: scoped(f"key:k{a % 7} -word1"), lambda c, a, seq: seq % 7 == a % 7 and seq % 3 != 1),
    (lambda a: scoped("", before_seq={1: a * 4}), lambda c, a, seq: seq < a * 4),
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = [
        Corpus(tmp_path_factory.mktemp("corpus"), seed, size, shared)
        for seed, (size, shared) in enumerate([(60, 1), (600, 1), (600, 12), (400, 80)])
    ]
    yield made
    for corpus in made:
        corpus.close()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_plan_finds_what_comparing_everything_in_scope_finds(corpora: list[Corpus], data: st.DataObject) -> None:
    corpus = data.draw(st.sampled_from(corpora))
    ask, meets = data.draw(st.sampled_from(FILTERS))
    number, k = data.draw(st.integers(0, 120)), data.draw(st.integers(1, 40))
    vector = np.random.default_rng(data.draw(st.integers(0, 1000))).normal(size=DIMENSION).astype(np.float32)
    wanted = corpus.expected(vector, lambda seq: meets(corpus, number, seq), k)
    for scan_us in (ALWAYS, 1.0, NEVER):
        reply = corpus.nearest(vector, ask(number), k, scan_us)
        assert [n.similarity for n in reply.found] == pytest.approx(wanted, abs=2e-3), reply.told.as_dict()
        assert len({n.passage for n in reply.found}) == len(reply.found)
        if len(reply.found) < k:
            assert reply.complete
        inside = {corpus.topic.resolve(int(p)) for seq, p in enumerate(corpus.passages) if meets(corpus, number, seq)}
        assert {n.passage for n in reply.found} <= inside


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_passages_of_a_scope_are_listed_in_order_however_many_they_are(corpora: list[Corpus], data: st.DataObject) -> None:
    corpus = data.draw(st.sampled_from(corpora))
    ask, meets = data.draw(st.sampled_from(FILTERS))
    number = data.draw(st.integers(0, 120))
    scope = replace(ask(number), topics=(corpus.topic.row.id,))
    wanted = sorted({int(p) for seq, p in enumerate(corpus.passages) if meets(corpus, number, seq)})
    corpus.forget_lists()
    assert not corpus.keyword.holds_passage_ids(scope)
    assert corpus.keyword.passage_ids(scope, distinct=data.draw(st.sampled_from([1, 1_000_000]))).tolist() == wanted
    assert corpus.keyword.holds_passage_ids(scope)
    assert corpus.keyword.counts(scope).get(1, 0) == sum(meets(corpus, number, seq) for seq in range(len(corpus.passages)))
    newest = corpus.keyword.newest(scope, wanted)
    assert set(newest) == set(wanted)
    for passage, (count, seq) in newest.items():
        own = [s for s, p in enumerate(corpus.passages) if p == passage and meets(corpus, number, s)]
        assert (count, seq) == (len(own), own[-1])


def test_a_scope_too_large_to_be_listed_at_once_is_listed_in_parts(
    corpora: list[Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.keyword.listing._LISTED", 50)
    for corpus in corpora:
        corpus.forget_lists()
        scope = scoped("-colour:3")
        wanted = {int(p) for seq, p in enumerate(corpus.passages) if corpus.colours[seq] != 3}
        assert corpus.keyword.passage_ids(scope, distinct=1_000_000).tolist() == sorted(wanted)


def test_a_filter_that_shuns_the_meaning_asked_for_is_compared_exactly_after_one_look(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        random = np.random.default_rng(1)
        sides = np.repeat([[4.0], [-4.0]], [2700, 300], axis=0) * np.ones(DIMENSION) * [1, *[0] * (DIMENSION - 1)]
        vectors = sides + random.normal(size=(3000, DIMENSION))
        records = [
            {"value": f"text {n}", "timestamp": S + n, "vector": v.tolist(), "attributes": {"side": "a" if n < 2700 else "b"}}
            for n, v in enumerate(vectors)
        ]
        await fill(engine, "t", records, embedding_model="external", dimension=DIMENSION)
        topic = engine.stock.find("t")
        assert topic.vectors is not None
        query = np.asarray([4.0, *[0.3] * (DIMENSION - 1)], np.float32)
        unit = query / np.linalg.norm(query)
        scope = plan(engine.stock, "side:b").scope
        search = Nearness(engine.keyword, scan_us=300)
        reply = search.nearest(topic, "external", topic.vectors, query, 12, scope, narrow=True)
        assert reply.told.plan == "overfetch->exact"
        assert [s["step"] for s in reply.told.steps] == ["search", "look up", "list", "scan"]
        near = vectors[2700:] @ unit / np.linalg.norm(vectors[2700:], axis=1)
        assert [n.similarity for n in reply.found] == pytest.approx(sorted(near, reverse=True)[:12], abs=2e-3)
        easy = search.nearest(topic, "external", topic.vectors, query, 12, plan(engine.stock, "side:a").scope, narrow=True)
        assert (easy.told.plan, easy.told.widenings) == ("overfetch", 0)

    run(tmp_path, main)


def test_the_cheaper_way_is_taken_by_the_counts() -> None:
    def costs(records: int, passages: int = 1_000_000, *, listed: bool = False, narrow: float = 0.0) -> Costs:
        return Costs(records, 1_000_000, passages, 0, 1, 384, listed, narrow)

    def exact(c: Costs, wanted: int = 20) -> bool:
        return c.exact < c.fetch(wanted / c.share * 1.3) + c.verify(wanted / c.share)

    assert [exact(costs(n)) for n in (100, 10_000, 30_000, 100_000, 500_000)] == [True, True, True, False, False]
    assert costs(30_000, listed=True).exact < costs(30_000).exact / 2
    assert costs(30_000, listed=True, narrow=1).exact < costs(30_000, listed=True).exact / 2
    assert costs(10_000, listed=True, narrow=1).exact == costs(10_000, listed=True).exact
    assert costs(10_000, passages=1000).share == pytest.approx(1.0, abs=1e-4)  # each template has some record in the range
    assert costs(500_000, passages=1000).exact < 20_000


def test_explain_tells_the_plan_of_each_topic_with_its_counts_and_times(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        records = [{"value": f"request {n} done", "timestamp": S + n, "attributes": {"host": f"h{n % 5}"}} for n in range(300)]
        await fill(engine, "a", records)
        await fill(engine, "b", ["request of another topic"])

        async def told(q: str, **more: Any) -> dict[str, Any]:
            reply = await engine.search(q, explain=True, **more)
            assert reply.explain is not None
            assert set(reply.explain) == {"mode", "pool", "steps", "plans"}
            assert all(step["ms"] >= 0 for p in reply.explain["plans"] for step in p["steps"])
            return {p["topic"]: p for p in reply.explain["plans"]}

        plans = await told("request")
        assert {name: p["plan"] for name, p in plans.items()} == {"a": "all", "b": "all"}
        assert (plans["a"]["records_in_scope"], plans["a"]["passages"], plans["a"]["model"]) == (300, 300, "hash")
        plans = await told("request host:h3")
        assert (plans["a"]["plan"], plans["a"]["records_in_scope"]) == ("exact", 60)
        assert "60 of 300 records" in plans["a"]["why"]
        assert plans["b"]["why"] == "no record is in scope"
        assert (await told("request", since=S - 5))["a"]["plan"] == "all"  # a range that leaves nothing out
        assert await told("request", mode="keyword") == {}

    run(tmp_path, main)


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
def test_all_pages_of_a_long_list_are_one_ranking_to_its_end(tmp_path: Path, mode: str) -> None:
    async def main(engine: Engine) -> None:
        records = [f"payment {'request' if n % 3 else 'refund'} {n} of customer {n * 7 % 101}" for n in range(900)]
        await fill(engine, "t", records)
        seen: list[str] = []
        scores: list[float] = []
        reply: SearchReply | None = None
        while reply is None or reply.coverage.next_cursor is not None:
            cursor = None if reply is None else reply.coverage.next_cursor
            size = 40 if len(seen) % 3 else 25  # pages may differ in length
            reply = await engine.search("payment request 7", mode=mode, top_k=size, cursor=cursor)  # type: ignore[arg-type]
            seen += [h.address for h in reply]
            scores += [h.score for h in reply]
        assert len(seen) == len(set(seen)) > 800
        assert scores[0] == max(scores)

    run(tmp_path, main)


def test_cursors_are_read_back_and_others_refused() -> None:
    assert position_of(None) == (0, None)
    assert position_of("30") == (30, None)
    assert position_of("30.60") == (30, 60)
    for wrong in ("", "x", "1.", ".5", "1.0", "1.99999", "-1", "1234567", "٣"):
        with pytest.raises(UsageError, match="not made by a search"):
            position_of(wrong)


def test_a_hit_of_a_filter_alone_is_a_full_match(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        records = [{"value": f"line {n}", "timestamp": S + n, "attributes": {"host": f"h{n % 2}"}} for n in range(10)]
        await fill(engine, "t", records)
        reply = await engine.search("host:h1", top_k=3, min_score=0.5)
        assert [(h.offset, h.score, dict(h.scores)) for h in reply] == [(9, 1.0, {}), (7, 1.0, {}), (5, 1.0, {})]
        assert (reply.coverage.omitted, reply.coverage.searched) == (2, 5)

    run(tmp_path, main)


def test_a_field_that_no_record_has_is_named_where_nothing_is_found(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", [{"value": "disk full", "attributes": {"severity": "high", "level": "error"}}])
        await fill(engine, "u", [{"value": "disk full", "attributes": {"sevrity": "high"}}])

        async def notes(q: str, topic: str = "t") -> tuple[str, ...]:
            return (await engine.search(q, topics=[topic])).coverage.notes

        assert await notes("disk sevrity:high") == ("no record has a field 'sevrity'; nearest: severity",)
        assert await notes("disk zone:high") == ("no record has a field 'zone'",)
        assert await notes("disk severity:low level:fatal") == ()  # such fields there are
        assert await notes("disk -sevrity:high") == ()
        assert await notes("disk sevrity:low", "u") == ()

    run(tmp_path, main)


def test_meaning_alone_says_why_it_finds_nothing_while_there_are_no_vectors(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await engine.create_topic("t", passages="exact", embedding_model="openai:m")
        await engine.create_topic("plain", passages="exact", embedding_model="none")
        await engine.append("t", ["the payment failed"])

        async def by_words() -> bool:
            return len(await engine.search("payment", topics=["t"])) == 1

        await until(by_words)
        notes = (await engine.search("payment", topics=["t"], mode="semantic")).coverage.notes
        assert any("no passage of t has a vector yet" in note and "mode hybrid or keyword" in note for note in notes)
        await engine.append("plain", ["the payment failed"], wait="searchable", timeout_s=240)
        notes = (await engine.search("payment", topics=["plain"], mode="semantic")).coverage.notes
        assert "nothing is found by meaning in plain: no embedding model" in notes

    run(tmp_path, main, **{"embedding.base_url": "http://127.0.0.1:9/v1", "embedding.retries": 0, "embedding.timeout_s": 1})


def test_a_search_as_of_an_earlier_moment_knows_nothing_later(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["the disk is full", "all is well"] * 10 + ["the disk is gone"])
        topic = engine.stock.find("t")
        wanted = plan(engine.stock, "disk", mode="keyword")
        wanted = replace(wanted, scope=replace(wanted.scope, before_seq={topic.row.id: 5}))
        reply = engine.searcher.search(wanted, {})
        assert [(h.value, h.passage.count, h.passage.count_total, h.offset) for h in reply] == [("the disk is full", 3, 10, 0)]
        assert reply.coverage.searched == 5

    run(tmp_path, main)


def test_neighbours_of_given_vectors_are_kept_whatever_their_sign(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.1, 0.0], [-1.0, 0.0, 0.3]]
        records = [{"value": f"v{n}", "vector": v} for n, v in enumerate(vectors)]
        await fill(engine, "t", records, embedding_model="external", dimension=3)
        wanted = replace(plan(engine.stock, "", mode="semantic"), top_k=4)
        reply = engine.searcher.search(wanted, {"external": np.asarray([1.0, 0.0, 0.0], np.float32)})
        assert [h.value for h in reply] == ["v0", "v1", "v3", "v2"]
        assert all(0 <= h.score <= 1 for h in reply)

    run(tmp_path, main)


def test_what_is_held_of_a_commit_is_bounded_and_the_least_used_goes_first() -> None:
    held: Held[str] = Held(100)
    for name in "abcd":
        held.keep(name, name, 25)
    held.get("a")
    held.keep("e", "e", 25)
    assert [held.get(name) for name in "abcde"] == ["a", None, "c", "d", "e"]
    held.keep("large", "large", 26)
    assert held.get("large") is None
    held.keep("a", "new", 25)
    assert (held.get("a"), held.get("c")) == ("new", "c")
