"""The log keeps each record once, at one address, in order, whatever is delivered how often (GUARANTEES.md 3)."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headwater.errors import ConflictError, NotFoundError, UsageError
from headwater.log import browse, catalogue, dropping
from headwater.log.store import Delivery, Log, Origin, set_cursor
from headwater.records import Draft, Receipt

NOW = 1_770_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path, clock_ms=lambda: NOW, durable=False) as opened:
        yield opened


def topic(log: Log, name: str = "t", partitions: int = 1) -> int:
    return log.create_topic(name, {"partitions": partitions}).id


def put(log: Log, id: int, *values: str, **more: Any) -> list[Receipt]:
    return log.append(id, [Draft(v) for v in values], **more).result(240)


def test_an_append_says_where_each_record_lies(log: Log) -> None:
    id = topic(log)
    first, second = put(log, id, "a", "b")
    assert [(r.address, r.seq, r.duplicate) for r in (first, second)] == [("t/0/0", 0, False), ("t/0/1", 1, False)]
    row = log.find(log.topic("t"), 0, 1)
    record = row.record("t")
    assert (record.address, record.value, record.key, record.attributes, row.appended_ms) == ("t/0/1", "b", None, {}, NOW)
    stored = log.topic("t")
    assert (stored.next_seq, stored.records, stored.bytes) == (2, 2, 2)


def test_every_value_comes_back_as_it_went_in(log: Log) -> None:
    id = topic(log)
    values = ["", " ", "a\0b", "\U0001f600 ünïcode", "x" * 2_000_000, "line\nline\r\n"]
    drafts = [
        Draft(v, key=v[:20], time_ms=-62_135_596_800_000 + n, attributes={"a": v[:9], "n": n}) for n, v in enumerate(values)
    ]
    receipts = log.append(id, drafts).result(240)
    row = log.topic("t")
    found = [log.find(row, r.partition, r.offset).record("t") for r in receipts]
    assert [r.value for r in found] == values
    assert [r.key for r in found] == [v[:20] for v in values]
    assert [dict(r.attributes) for r in found] == [{"a": v[:9], "n": n} for n, v in enumerate(values)]
    assert row.bytes == sum(map(len, values))
    log.write(lambda db: catalogue.release(db, id, [row.id << 40 | r.seq for r in receipts]))
    assert (log.topic("t").bytes, log.topic("t").records) == (0, 0)


def test_keys_choose_their_partition_and_offsets_count_in_each(log: Log) -> None:
    id = topic(log, partitions=3)
    drafts = [Draft(f"v{n}", key=f"key{n % 10}") for n in range(60)]
    receipts = log.append(id, drafts).result(240)
    homes: dict[str | None, set[int]] = {}
    for draft, receipt in zip(drafts, receipts, strict=True):
        homes.setdefault(draft.key, set()).add(receipt.partition)
    assert all(len(partitions) == 1 for partitions in homes.values())
    assert len({p for partitions in homes.values() for p in partitions}) == 3
    for partition in range(3):
        offsets = [r.offset for r in receipts if r.partition == partition]
        assert offsets == list(range(len(offsets)))
    row = log.topic("t")
    assert [log.find(row, r.partition, r.offset).value for r in receipts] == [d.value for d in drafts]
    spread = Counter(r.partition for r in log.append(id, [Draft("no key")] * 30).result(240))
    assert spread == {0: 10, 1: 10, 2: 10}
    again = log.append(id, [Draft("x", key="key3")]).result(240)
    assert {again[0].partition} == homes["key3"]
    with pytest.raises(UsageError, match=r"partition 3 does not exist.*0 to 2"):
        log.append(id, [Draft("x", partition=3)]).result(240)


def test_five_thousand_records_delivered_three_times_in_any_order_are_stored_once(log: Log) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    id, other = topic(log, partitions=2), topic(log, "other")
    deliveries = [p for p in range(5000) for _ in range(3)]
    rng.shuffle(deliveries)
    homes: dict[int, set[str]] = {}
    while deliveries:
        size = rng.randrange(1, 200)
        part, deliveries = deliveries[:size], deliveries[size:]
        drafts = [Draft(f"record {p}", key=str(p % 7), position=p) for p in part]
        for draft, receipt in zip(drafts, log.append(id, drafts, origin=Origin("s")).result(240), strict=True):
            assert receipt.duplicate == (draft.position in homes)
            homes.setdefault(draft.position or 0, set()).add(receipt.address)
    assert len(homes) == 5000
    assert all(len(places) == 1 for places in homes.values())
    assert log.topic("t").records == 5000
    assert Counter(r.value for r in log.rows(id, 0, 1 << 20)) == Counter(f"record {p}" for p in range(5000))
    elsewhere = log.append(id, [Draft("record 1", position=1)], origin=Origin("another stream")).result(240)
    assert not elsewhere[0].duplicate
    assert not log.append(other, [Draft("record 1", position=1)], origin=Origin("s")).result(240)[0].duplicate


def test_a_sources_state_is_stored_with_its_records_or_not_at_all(log: Log) -> None:
    id = topic(log)
    put(log, id, "a", origin=Origin("s", "file", {"offset": 10}))
    assert log.source_state("file") == {"offset": 10}
    with pytest.raises(UsageError):
        log.append(id, [Draft("b", partition=9)], origin=Origin("s", "file", {"offset": 20})).result(240)
    assert log.source_state("file") == {"offset": 10}
    put(log, id, origin=Origin("s", "file", {"offset": 30}))
    assert log.source_state("file") == {"offset": 30}
    assert log.source_state("never ran") is None


def test_an_idempotency_key_gives_the_first_receipts_and_no_other_body(log: Log) -> None:
    id = topic(log)
    first = put(log, id, "a", "b", delivery=Delivery("k", b"1"))
    again = put(log, id, "a", "b", delivery=Delivery("k", b"1"))
    assert [(r.address, r.seq) for r in again] == [(r.address, r.seq) for r in first]
    assert all(r.duplicate for r in again)
    with pytest.raises(ConflictError, match="'k' came before with another body"):
        put(log, id, "c", delivery=Delivery("k", b"2"))
    assert log.topic("t").records == 2
    assert not put(log, topic(log, "u"), "a", delivery=Delivery("k", b"1"))[0].duplicate


def test_what_is_not_there_is_told_with_the_reason(log: Log) -> None:
    id = topic(log)
    put(log, id, "a", "b", "c")
    log.write(lambda db: catalogue.release(db, id, [id << 40]))
    row = log.topic("t")
    for partition, offset, reason in ((0, 0, "past its retention"), (0, 3, "ends at offset 2"), (1, 0, "has no records")):
        with pytest.raises(NotFoundError, match=reason):
            log.find(row, partition, offset)
    with pytest.raises(NotFoundError, match="no topic 'x'"):
        log.topic("x")
    with pytest.raises(NotFoundError, match="deleted while records were on their way"):
        put(log, 99, "x")
    with pytest.raises(ConflictError, match="exists already"):
        log.create_topic("t", {})
    with pytest.raises(NotFoundError, match="no dead letter 5"):
        log.drop_dead_letter(5)


def test_pages_follow_each_other_without_gaps_and_stay_in_their_topic(log: Log) -> None:
    before, id, behind = topic(log, "before"), topic(log, partitions=2), topic(log, "behind")
    for other in (before, behind):
        put(log, other, *(f"foreign {n}" for n in range(5)))
    log.append(id, [Draft(f"v{n}", key=str(n), time_ms=NOW + n) for n in range(25)]).result(240)

    def page(**more: Any) -> Any:
        asked = {"partition": None, "offset": None, "limit": 10, "since_ms": None, "until_ms": None, "cursor": None} | more
        return browse.page(log, "t", **asked)

    seen, cursor = [], None
    while True:
        got = page(cursor=cursor)
        seen += [r.value for r in got.records]
        if (cursor := got.next_cursor) is None:
            break
    assert seen == [f"v{n}" for n in range(25)]
    mine = [r for r in log.rows(id, 0, 100) if r.partition == 1]
    assert [r.value for r in page(partition=1, offset=2, limit=3).records] == [r.value for r in mine[2:5]]
    assert [r.value for r in page(since_ms=NOW + 20, until_ms=NOW + 22).records] == ["v20", "v21"]
    assert page(offset=1 << 39).records == ()
    for wrong in ({"offset": -1}, {"offset": 1 << 60}, {"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "-3"}):
        with pytest.raises(UsageError):
            page(**wrong)
    view = browse.view(log, f"t/{mine[3].partition}/{mine[3].offset}", 500)
    assert view.record.value == mine[3].value
    assert [r.value for r in (*view.before, view.record, *view.after)] == seen


def test_appends_are_announced_once_for_each_commit_and_only_when_they_succeed(log: Log) -> None:
    told: list[set[int]] = []
    log.on_append(lambda topics: told.append(set(topics)))
    a, b = topic(log, "a"), topic(log, "b")
    put(log, a, "x")
    with pytest.raises(UsageError):
        log.append(b, [Draft("x", partition=7)]).result(240)
    log.write(lambda db: set_cursor(db, a, "group", 1))
    assert told == [{a}]
    assert (log.cursor(a, "group"), log.cursor(a, "new")) == (1, 0)


def test_a_deleted_topic_is_swept_in_steps_and_leaves_nothing(log: Log) -> None:
    id, kept = topic(log, partitions=2), topic(log, "kept")
    log.append(id, [Draft(f"v{n}", position=n) for n in range(50)], origin=Origin("s"), delivery=Delivery("k", b"")).result(240)
    put(log, kept, "stays")
    rows = [(t, m, n) for t in (id, kept) for m in (1, 2) for n in range(30)]
    log.write(lambda db: db.executemany("INSERT INTO vector(topic, model, passage, data) VALUES(?, ?, ?, x'00')", rows).get)
    log.write(lambda db: dropping.delete_topic(db, id))
    assert [t.name for t in log.topics()] == ["kept"]
    steps = 0
    while log.write(lambda db: dropping.sweep(db, limit=20)):
        steps += 1
    assert steps == 3 + 3 + 3  # records, vectors, places of records
    with log.reading() as db:
        tables = [n for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")]
        columns = {t: {c[1] for c in db.execute(f"PRAGMA table_info({t})")} for t in tables}
        left = {t: db.execute(f"SELECT count(*) FROM {t} WHERE topic = ?", (id,)).get for t in tables if "topic" in columns[t]}
        assert set(left.values()) == {0}
        assert db.execute("SELECT count(*) FROM record").get == 1
        assert db.execute("SELECT count(*) FROM vector").get == 60
    assert topic(log) > kept  # an id is never used again


class Machine(RuleBasedStateMachine):
    """The log against a plain model: a dict of topics, each a list of records that may be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()

    @initialize(partitions=st.sampled_from([1, 3]))
    def begin(self, partitions: int) -> None:
        self.partitions, self.clock = partitions, NOW
        self.open()
        self.names = 0
        self.make()

    def open(self) -> None:
        self.log = Log(Path(self.directory.name), clock_ms=lambda: self.clock, durable=False)

    def make(self) -> None:
        self.names += 1
        self.id = topic(self.log, f"t{self.names}", self.partitions)
        self.kept: dict[int, tuple[str, str]] = {}  # seq -> (address, value)
        self.positions: dict[int, int] = {}  # position -> seq
        self.places: dict[int, str] = {}  # seq -> address, of all there ever were
        self.floor = -1
        self.keys: dict[str, tuple[bytes, list[str]]] = {}
        self.next_seq = 0

    @rule(values=st.lists(st.text(max_size=5), max_size=6), key=st.none() | st.sampled_from("ab"))
    def append(self, values: list[str], key: str | None) -> None:
        self.note(self.log.append(self.id, [Draft(v, key=key) for v in values]).result(240), values)

    def note(self, receipts: list[Receipt], values: list[str]) -> None:
        for receipt, value in zip(receipts, values, strict=True):
            assert (receipt.seq, receipt.duplicate) == (self.next_seq, False)
            self.kept[receipt.seq] = (receipt.address, value)
            self.places[receipt.seq] = receipt.address
            self.next_seq += 1

    @rule(positions=st.lists(st.integers(0, 12), max_size=6))
    def deliver(self, positions: list[int]) -> None:
        drafts = [Draft(f"p{p}", key=str(p), position=p) for p in positions]
        receipts = self.log.append(self.id, drafts, origin=Origin("s", "src", {"n": len(positions)})).result(240)
        for position, receipt in zip(positions, receipts, strict=True):
            if position in self.positions:
                assert receipt.duplicate
                assert (receipt.seq, receipt.address) == (self.positions[position], self.places[receipt.seq])
            elif position <= self.floor:
                assert (receipt.duplicate, receipt.seq, receipt.offset) == (True, -1, -1)
            else:
                self.note([receipt], [f"p{position}"])
                self.positions[position] = receipt.seq
        assert self.log.source_state("src") == {"n": len(positions)}

    @rule(key=st.sampled_from("xyz"), body=st.sampled_from(["1", "2"]))
    def post(self, key: str, body: str) -> None:
        known = self.keys.get(key)
        sent = self.log.append(self.id, [Draft(body)], delivery=Delivery(key, body.encode()))
        if known is not None and known[0] != body.encode():
            with pytest.raises(ConflictError):
                sent.result(240)
            return
        receipts = sent.result(240)
        if known is not None:
            assert [r.address for r in receipts] == known[1]
            assert all(r.duplicate for r in receipts)
            return
        self.note(receipts, [body])
        self.keys[key] = (body.encode(), [r.address for r in receipts])

    @rule(number=st.integers(0, 5))
    def expire(self, number: int) -> None:
        gone = sorted(self.kept)[:number]
        self.log.write(lambda db: catalogue.release(db, self.id, [self.id << 40 | s for s in gone]))
        for seq in gone:
            del self.kept[seq]
        past = [p for p, s in self.positions.items() if s in gone]
        self.floor = max([self.floor, *past])
        self.positions = {p: s for p, s in self.positions.items() if p > self.floor or s in self.kept}

    @rule(chosen=st.sets(st.integers(0, 12)))
    def erase(self, chosen: set[int]) -> None:
        gone = sorted(chosen & self.kept.keys())
        ids = [self.id << 40 | s for s in gone]
        assert self.log.write(lambda db: catalogue.release(db, self.id, ids, on_request=True))[0] == len(gone)
        for seq in gone:
            del self.kept[seq]

    @rule()
    def delete(self) -> None:
        self.log.write(lambda db: dropping.delete_topic(db, self.id))
        while self.log.write(dropping.sweep):
            pass
        self.make()

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.open()

    @invariant()
    def the_log_holds_what_the_model_holds(self) -> None:
        rows = self.log.rows(self.id, 0, 1000)
        name = f"t{self.names}"
        assert {r.seq: (r.record(name).address, r.value) for r in rows} == self.kept
        assert [r.seq for r in rows] == sorted(self.kept)
        row = self.log.topic(name)
        assert (row.records, row.next_seq) == (len(self.kept), self.next_seq)
        assert row.bytes == sum(len(v) for _, v in self.kept.values())
        assert row.first_seq <= min(self.kept, default=self.next_seq)
        for seq, (place, value) in self.kept.items():
            found = self.log.find(row, *(int(x) for x in place.split("/")[1:]))
            assert (found.seq, found.value) == (seq, value)

    def teardown(self) -> None:
        self.log.close()
        self.directory.cleanup()


TestTheLogAgainstAModel = Machine.TestCase
TestTheLogAgainstAModel.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
