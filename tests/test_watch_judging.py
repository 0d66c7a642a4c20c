"""What watches fire is what looking at every record would find, however records come in."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.engine import Engine
from headwater.log.store import Row
from headwater.log.watches import Spec, State, WatchRow
from headwater.matching import matches
from headwater.query import parse
from headwater.watch.judging import WordIndex
from headwater.watch.running import standing
from test_engine import given as settings_of

WORDS = ("pay", "Failed", "disk", "full", "über", "x1", "a.b")
QUERIES = (
    "pay", "failed pay", '"disk full"', "pay -failed", "level:error", "level:error disk", "n:>=2", 'key:k1 "a.b"', "-full",
    "host:h1,h2", "level:>=warn", "host:h* pay", "partition:0 x1", "-host:h1 disk", "", "key:k2 level:info", '"full disk" n:1',
)  # fmt: skip

values = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
attributes = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from(["error", "ERROR", "info", "warning"]),
        "n": st.sampled_from([1, 2, 2.0, "2", 7]),
        "host": st.sampled_from(["h1", "h2", "web"]),
    },
)
entries = st.fixed_dictionaries({"value": values, "attributes": attributes}, optional={"key": st.sampled_from(["k1", "k2"])})


def _watch(id: int, q: str) -> Any:
    return standing(WatchRow(id, f"w{id}", Spec(q, None, "keyword", 0.35), State(), 0, None, None))


@given(st.lists(entries, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_index_of_words_finds_what_comparing_every_watch_finds(records: list[dict[str, Any]]) -> None:
    import orjson

    rows = [
        Row(n, 0, n, 0, 0, r.get("key"), r["value"], orjson.dumps(r["attributes"]) if r["attributes"] else None)
        for n, r in enumerate(records)
    ]
    watches = [_watch(id, q) for id, q in enumerate(QUERIES)]
    found = [(watch.id, row.id) for watch, row in WordIndex(watches).matching(rows, "t")]
    wanted = {(w.id, row.id) for w in watches for row in rows if matches(parse(w.spec.q, now_ms=0), row.record("t"))}
    assert set(found) == wanted
    assert len(found) == len(wanted)


@given(
    st.lists(entries.filter(lambda e: e["value"]), min_size=1, max_size=40),
    st.lists(st.integers(1, 12), min_size=1, max_size=8),
    st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_the_hits_of_watches_are_those_of_all_records_in_whatever_batches(
    records: list[dict[str, Any]], sizes: list[int], more_than: int, restart: bool
) -> None:
    records = [{**r, "timestamp": f"2026-03-01T14:{n:02}:00Z"} for n, r in enumerate(records)]
    with tempfile.TemporaryDirectory() as directory:
        fired = asyncio.run(_fired(Path(directory), records, sizes, more_than, restart))
    query = [parse(q, now_ms=0) for q in QUERIES]
    for n, q in enumerate(QUERIES):
        wanted = [f"t/0/{r.offset}" for r in fired["records"] if matches(query[n], r)]
        assert fired[f"q{n}"] == wanted, q
    matched = [r.offset for r in fired["records"] if matches(query[0], r)]
    assert fired["count"] == [f"t/0/{at}" for at in _crossings(matched, more_than, 10)]
    assert set(fired["meant"]) == set(fired["alone"])
    assert len(fired["meant"]) == len(set(fired["meant"]))


def _crossings(minutes: list[int], more_than: int, within: int) -> list[int]:
    """Where, of events at these minutes, more than so many first lie within the last minutes."""
    found, above = [], False
    for at in minutes:
        over = sum(at - within <= m <= at for m in minutes) > more_than
        found += [at] if over and not above else []
        above = over
    return found


async def _fired(
    directory: Path, records: list[dict[str, Any]], sizes: list[int], more_than: int, restart: bool
) -> dict[str, Any]:
    """The addresses each watch fired for records that came in batches of these sizes."""
    names = [f"q{n}" for n in range(len(QUERIES))]
    cuts, at = [], 0
    while at < len(records):
        size = sizes[len(cuts) % len(sizes)]
        cuts.append(records[at : at + size])
        at += size
    async with Engine(settings_of(directory)) as engine:
        await engine.create_topic("t", passages="exact")
        for name, q in zip(names, QUERIES, strict=True):
            await engine.add_watch(q, name=name, topics=["t"], mode="keyword")
        await engine.add_watch(QUERIES[0], name="count", topics=["t"], mode="keyword", more_than=more_than, within="10m")
        await engine.add_watch("disk full", name="meant", topics=["t"], min_score=0.4)
        for part in cuts[: len(cuts) // 2]:
            await engine.append("t", part)
        if not restart:
            for part in cuts[len(cuts) // 2 :]:
                await engine.append("t", part)
            return await _judged(engine, [*names, "count", "meant"])
    async with Engine(settings_of(directory)) as engine:
        for part in cuts[len(cuts) // 2 :]:
            await engine.append("t", part)
        return await _judged(engine, [*names, "count", "meant"])


async def _judged(engine: Engine, names: list[str]) -> dict[str, Any]:
    await engine.add_watch("disk full", name="alone", topics=["t"], min_score=0.4, since=0)
    async with asyncio.timeout(240):
        while any(watch.behind for watch in await engine.watches()):
            await asyncio.sleep(0.01)
    found: dict[str, Any] = {"records": (await engine.records("t", limit=1000)).records}
    for name in [*names, "alone"]:
        found[name] = [hit.address for hit in (await engine.wait(name, timeout=0, limit=1000)).hits]
    return found
