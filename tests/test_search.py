"""Searching: modes, filters, scope, counts, paging, and what every reply says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.engine import Engine
from headwater.errors import NotFoundError, UsageError
from test_engine import BASE, fill, run, values

S = BASE / 1000


async def services(engine: Engine) -> None:
    """400 records of two services, one a second, every tenth an error."""
    records = [
        {
            "value": f"{'payment' if n % 2 else 'login'} request {n} {'failed' if n % 10 == 0 else 'done'} at node{n % 4}",
            "timestamp": S + n,
            "key": f"user{n % 5}",
            "attributes": {"level": "error" if n % 10 == 0 else "info", "ms": n, "host": f"h{n % 4}"},
        }
        for n in range(400)
    ]
    await fill(engine, "calls", records, partitions=2)


def test_each_mode_scores_between_nought_and_one_and_says_from_what(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await services(engine)
        for mode, parts in (("keyword", {"keyword"}), ("semantic", {"vector"}), ("hybrid", {"keyword", "vector"})):
            for q in ("payment request 77", f"payment request 77 mode:{mode}"):
                reply = await engine.search(q, mode=mode if q.endswith("77") else None, explain=True)  # type: ignore[arg-type]
                assert reply[0].value.startswith("payment request 77 ")
                assert set(reply[0].scores) == parts
                assert all(0 < h.score <= 1 for h in reply)
                assert [h.score for h in reply] == sorted((h.score for h in reply), reverse=True)
                assert reply.explain is not None
                assert reply.explain["mode"] == mode
        assert (await engine.search("payment", mode="keyword"))[0].distance is None
        assert (await engine.search("payment", mode="semantic", include=["vector"]))[0].vector is not None
        for wrong in ({"top_k": 0}, {"top_k": 1001}, {"mode": "fuzzy"}, {"include": ["soul"]}, {"cursor": "x"}):
            with pytest.raises(UsageError):
                await engine.search("x", **wrong)  # type: ignore[arg-type]
        with pytest.raises(NotFoundError, match="no topic 'nowhere'"):
            await engine.search("x", topics=["calls", "nowhere"])

    run(tmp_path, main)


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
def test_filters_hold_in_every_mode(tmp_path: Path, mode: str) -> None:
    async def main(engine: Engine) -> None:
        await services(engine)

        async def numbers(q: str, **more: object) -> set[int]:
            reply = await engine.search(q, mode=mode, top_k=1000, **more)  # type: ignore[arg-type]
            return {int(h.value.split()[2]) for h in reply}

        everything = set(range(400))
        for q, wanted in (
            ("request level:error", {n for n in everything if n % 10 == 0}),
            ("request -failed", {n for n in everything if n % 10}),
            ('"request 123"', {123}),
            ("request ms:>=390 host:h1,h2", {n for n in range(390, 400) if n % 4 in (1, 2)}),
            ("request key:user3 ms:<20", {3, 8, 13, 18}),
            ("request partition:1 ms:<0", set()),
            ("request -host:h1 ms:<8", {0, 2, 3, 4, 6, 7}),
        ):
            assert await numbers(q) == wanted, q
        assert await numbers("request", since=S + 10, until=S + 13) == {10, 11, 12}
        assert await numbers("request", filters={"level": "error", "host": ["h0", "h2"]}) == {
            n for n in everything if n % 20 == 0
        } | {n for n in everything if n % 10 == 0 and n % 4 == 2}
        both = await numbers("request partition:0") | await numbers("request partition:1")
        assert both == everything

    run(tmp_path, main)


def test_counts_and_times_are_within_the_scope(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        records = [{"value": "disk full", "timestamp": S + n, "attributes": {"host": f"h{n % 10}"}} for n in range(200)]
        await fill(engine, "t", records)
        hit = (await engine.search("disk"))[0]
        assert (hit.passage.count, hit.passage.count_total, hit.offset) == (200, 200, hit.offset)
        assert (hit.passage.first_seen.timestamp(), hit.passage.last_seen.timestamp()) == (S, S + 199)
        for mode in ("keyword", "semantic", "hybrid"):
            reply = await engine.search("disk host:h3", since=S + 100, mode=mode)  # type: ignore[arg-type]
            assert [(h.passage.count, h.passage.count_total) for h in reply] == [(10, 200)]
            assert reply[0].attributes == {"host": "h3"}
            assert reply[0].timestamp.timestamp() >= S + 100
            assert reply.coverage.searched == 10
        assert (reply.coverage.since is not None, reply.coverage.topics) == (True, ("t",))

    run(tmp_path, main)


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
def test_two_thousand_equal_lines_do_not_hide_the_five_others(tmp_path: Path, mode: str) -> None:
    async def main(engine: Engine) -> None:
        others = [f"connection to database shard {name} lost" for name in ("alpha", "beta", "gamma", "delta", "omega")]
        await fill(engine, "t", ["connection lost"] * 1000 + others + ["connection lost"] * 1000)
        reply = await engine.search("connection lost", mode=mode, top_k=10)  # type: ignore[arg-type]
        assert {h.value for h in reply} == {"connection lost", *others}
        assert len(reply) == 6
        assert {h.value: h.passage.count for h in reply}["connection lost"] == 2000

    run(tmp_path, main)


@pytest.mark.parametrize("mode", ["keyword", "semantic", "hybrid"])
def test_pages_follow_each_other_without_repeats_or_gaps(tmp_path: Path, mode: str) -> None:
    async def main(engine: Engine) -> None:
        await services(engine)
        whole = [h.address for h in await engine.search("payment request failed", mode=mode, top_k=100)]  # type: ignore[arg-type]
        seen: list[str] = []
        cursor = None
        while len(seen) < 100:
            reply = await engine.search("payment request failed", mode=mode, top_k=9, cursor=cursor)  # type: ignore[arg-type]
            seen += [h.address for h in reply]
            cursor = reply.coverage.next_cursor
            assert reply.coverage.truncated == (cursor is not None)
            if cursor is None:
                break
        assert len(set(seen)) == len(seen)
        assert seen[:100] == whole

    run(tmp_path, main)


def test_without_words_the_newest_come_first(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await services(engine)
        assert [h.attributes["ms"] for h in await engine.search("", top_k=3)] == [399, 398, 397]
        assert [h.attributes["ms"] for h in await engine.search("level:error", top_k=3)] == [390, 380, 370]
        first = await engine.search("level:error", top_k=15)
        rest = await engine.search("level:error", top_k=25, cursor=first.coverage.next_cursor)
        assert [h.attributes["ms"] for h in (*first, *rest)] == list(range(390, -1, -10))

    run(tmp_path, main)


def test_a_floor_on_the_score_and_several_topics_in_one_list(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "a", ["payment failed", "sunny weather"])
        await fill(engine, "b", ["payment failed again", "payment done"], embedding_model="none")
        reply = await engine.search("payment failed")
        assert {h.topic for h in reply} == {"a", "b"}
        assert reply[0].value in ("payment failed", "payment failed again")
        assert await values(engine, "payment failed", min_score=reply[0].score) == [
            h.value for h in reply if h.score >= reply[0].score
        ]
        assert await values(engine, "payment failed", min_score=1.01) == []
        assert [h.topic for h in await engine.search("payment topic:b")] == ["b", "b"]
        assert set(reply.coverage.watermark) == {"a", "b"}

    run(tmp_path, main)


def test_documents_are_one_hit_each_with_the_place_of_their_best_passage(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        filler = "Nothing of interest happens in this paragraph about gardens. " * 40
        text = f"# Manual\n\n{filler}\n\n## Pumps\n\nThe hydraulic pump must be vented.\n\n{filler}"
        await fill(engine, "docs", [text, filler], passages="chunks")
        for mode in ("keyword", "semantic", "hybrid"):
            reply = await engine.search("vent the hydraulic pump", mode=mode, top_k=5)  # type: ignore[arg-type]
            assert reply[0].offset == 0
            assert reply[0].span is not None
            assert "hydraulic pump" in text[reply[0].span.start : reply[0].span.end]
            assert len({h.offset for h in reply}) == len(reply)

    run(tmp_path, main)


def test_the_similar_the_patterns_and_the_timeline_of_a_topic(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await services(engine)
        near = await engine.similar("calls", partition=0, offset=3, top_k=5)
        assert len(near) == 5
        assert "calls/0/3" not in [h.address for h in near]
        for wrong in ({"top_k": 0}, {"top_k": 1001}):
            with pytest.raises(UsageError):
                await engine.similar("calls", offset=0, **wrong)
        with pytest.raises(NotFoundError):
            await engine.similar("calls", offset=10_000)
        lines = [{"value": f"INFO job {n} done", "timestamp": S + n} for n in range(50)]
        await fill(engine, "lines", [*lines, {"value": "ERROR disk gone", "timestamp": S + 60}], passages="template")
        patterns = (await engine.patterns("lines")).patterns
        assert [(p.count, p.new) for p in patterns] == [(50, False), (1, False)]
        assert patterns[1].example == "lines/0/50"
        fresh = (await engine.patterns("lines", new_since=S + 55)).patterns
        assert [(p.count, p.new, p.passage.text) for p in fresh] == [(1, True, patterns[1].passage.text)]
        assert [p.count for p in (await engine.patterns("lines", since=S + 10, until=S + 15)).patterns] == [5]
        assert [p.count for p in (await engine.patterns("lines", q="disk")).patterns] == [1]
        page = await engine.patterns("lines", limit=1)
        assert [p.count for p in (await engine.patterns("lines", limit=1, cursor=page.coverage.next_cursor)).patterns] == [1]
        timeline = await engine.timeline("failed", topics=["calls"], since=S, until=S + 400, buckets=40)
        assert timeline.interval_s == 10
        assert sum(b.count for b in timeline.buckets) == 40
        assert len(timeline.buckets) <= 41

    run(tmp_path, main)


def test_a_search_says_what_is_not_searchable_yet(tmp_path: Path) -> None:
    async def main(engine: Engine) -> None:
        await fill(engine, "t", ["known words"])
        with engine.indexer.busy:
            await engine.append("t", ["just stored"])
            engine.stock.find("t").stored = 2
            coverage = (await engine.search("known")).coverage
            assert any("1 records are stored but not yet searchable" in note for note in coverage.notes)
            assert (coverage.watermark["t"].stored, coverage.watermark["t"].keyword, coverage.backlog) == (2, 1, 1)

    run(tmp_path, main)
