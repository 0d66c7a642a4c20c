"""The keyword index: what is found, counted and listed; that deletes, crashes and damage leave it right."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tantivy
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import DamageError, StorageError, UsageError
from headwater.keyword.index import Doc, KeywordIndex, Scope
from headwater.keyword.words import MAX_TERMS, attainable
from headwater.query import Filter, parse
from headwater.records.levels import LEVELS

MINUTE = 60_000
ALL = Scope((1, 2))


@pytest.fixture
def index() -> Iterator[KeywordIndex]:
    with KeywordIndex(None) as opened:
        yield opened


def doc(seq: int, text: str = "some text", *, topic: int = 1, n: int = 0, passage: int | None = None, **fields: Any) -> Doc:
    attributes: Mapping[str, Any] = fields.pop("attributes", {})
    partition, time_ms = fields.pop("partition", 0), fields.pop("time_ms", seq * MINUTE)
    passage = seq * 10 + n + 1 if passage is None else passage
    return Doc(topic, seq, n, passage, partition, seq, time_ms, fields.get("key"), fields.get("level"), text, attributes)


def fill(index: KeywordIndex, *docs: Doc) -> None:
    index.add(docs)
    index.commit()


def scope(query: str = "", topics: tuple[int, ...] = (1, 2), **more: Any) -> Scope:
    read = parse(query, now_ms=0)
    return Scope(topics, read.filters, read.phrases, read.excluded, read.since_ms, read.until_ms, **more)


def found(index: KeywordIndex, words: str, within: Scope = ALL, **options: Any) -> list[int]:
    return [match.seq for match in index.match(words, within, limit=options.pop("limit", 100), **options)]


# ---------------------------------------------------------------------- words


def test_words_are_found_in_other_forms_and_best_first(index: KeywordIndex) -> None:
    fill(index, doc(1, "The payment failed"), doc(2, "failing payments fail"), doc(3, "all is well"))
    assert found(index, "failure payment failing") == [2, 1]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("java.net.PaymentTimeoutException: late", "PaymentTimeoutException"),
        ("java.net.PaymentTimeoutException: late", "payment timeout"),
        ("caught IOException", "io exceptions"),
        ("payment timeout again", "PaymentTimeout"),
        ("conn_reset_by_peer", "conn_reset_by_peer"),
        ("conn_reset_by_peer", "reset"),
        ("from 10.0.0.1:8080", "10.0.0.1"),
        ("Deleting block blk_-1608999687919862906", "blk_-1608999687919862906"),
        ("[req-9bc36dd9-f6c5] GET", "req-9bc36dd9"),
        ("payments-api is down", "payments-api"),
        ("Café fermé", "cafe"),
        ("支付服务超时", "超时"),
        ("決済がタイムアウトしました", "タイムアウト"),
        ("naïve\0bytes", "bytes"),
        ("before\ud800after", "after"),
    ],
)
def test_identifiers_and_foreign_words_are_found_whole_and_in_parts(index: KeywordIndex, text: str, query: str) -> None:
    fill(index, doc(1, text), doc(2, "nothing to see"))
    assert found(index, query) == [1]


def test_an_identifier_that_stands_there_whole_comes_first(index: KeywordIndex) -> None:
    fill(index, doc(1, "peer 10.1.0.2 and 1 0 10"), doc(2, "peer 10.0.0.1 and 1 2 10"), doc(3, "peer 10.2.1.0 and 1 0 10"))
    assert found(index, "10.0.0.1")[0] == 2


def test_words_side_by_side_score_more(index: KeywordIndex) -> None:
    fill(index, doc(1, "reset of a lost connection now"), doc(2, "connection reset of a lost now"))
    assert found(index, "connection reset") == [2, 1]


def test_stop_words_score_only_where_nothing_else_is_asked(index: KeywordIndex) -> None:
    fill(index, doc(1, "what is the matter"), doc(2, "disk of the host"))
    assert found(index, "what is the disk") == [2]
    assert found(index, "what is the") == [1, 2]


def test_no_known_word_finds_nothing(index: KeywordIndex) -> None:
    fill(index, doc(1, "some text"))
    assert found(index, "zebra") == found(index, "") == found(index, "... !!") == []
    assert index.attainable("zebra") == 0.0


def test_a_long_query_keeps_its_rarest_words(index: KeywordIndex) -> None:
    common = [f"word{i}" for i in range(100)]
    fill(index, *(doc(i, " ".join(common)) for i in range(3)), doc(9, "word7 needle"))
    read = index.words(" ".join([*common, "needle", "unknown", "needle"]))
    assert len(read.terms) == MAX_TERMS
    assert ("needl", 1) in read.terms
    assert read.dropped == 101 - MAX_TERMS


def test_no_score_passes_what_is_attainable(index: KeywordIndex) -> None:
    rng = random.Random(5)
    words = [f"w{i}x" for i in range(30)]
    fill(index, *(doc(i, " ".join(rng.choices(words, k=rng.randint(1, 40)))) for i in range(300)))
    for _ in range(50):
        query = " ".join(rng.choices(words, k=rng.randint(1, 6)))
        best = index.match(query, ALL, limit=1)[0].score
        assert 0 < best <= 1.1 * index.attainable(query)  # 2.2, the limit of BM25's factor, over the 2.0 of SATURATION
        assert index.attainable(query) == attainable(index.words(query), 300)


def test_equal_scores_are_in_order_of_address(index: KeywordIndex) -> None:
    for seq in (5, 3, 9, 1):
        fill(index, doc(seq, "the same line", topic=seq % 2 + 1))
    assert [(m.topic, m.seq) for m in index.match("same", ALL, limit=10)] == [(2, 1), (2, 3), (2, 5), (2, 9)]


def test_passages_can_be_shut_out_or_singled_out(index: KeywordIndex) -> None:
    fill(index, *(doc(i, "same line", passage=1 + i % 3) for i in range(9)))
    assert {m.passage for m in index.match("line", ALL, limit=9, exclude_passages=[1, 2])} == {3}
    assert {m.passage for m in index.match("line", ALL, limit=9, passages=[2])} == {2}
    assert index.match("line", ALL, limit=9, passages=[]) == []
    assert index.count(ALL, passages=[1, 2]) == 6


# ---------------------------------------------------------------------- scope


def test_topics_keep_apart(index: KeywordIndex) -> None:
    fill(index, doc(1, topic=1), doc(1, topic=2), doc(2, topic=3))
    assert [index.count(Scope(t)) for t in [(1,), (1, 2), (1, 2, 3), (4,)]] == [1, 2, 3, 0]
    assert [m.topic for m in index.match("text", Scope((2,)), limit=9)] == [2]
    with pytest.raises(UsageError):
        index.count(Scope(()))


def test_since_is_inclusive_and_until_exclusive(index: KeywordIndex) -> None:
    fill(index, *(doc(i, time_ms=t) for i, t in enumerate([-5000, -1, 0, 1, 5000])))
    assert index.count(Scope((1,), since_ms=-1, until_ms=1)) == 2
    assert index.count(Scope((1,), since_ms=1)) == 2
    assert index.count(Scope((1,), since_ms=3, until_ms=3)) == 0
    assert index.time_range(Scope((1,))) == (-5000, 5000)
    assert index.time_range(Scope((9,))) is None


def test_a_search_as_of_a_seq_sees_no_later_record(index: KeywordIndex) -> None:
    fill(index, *(doc(i, topic=t) for t in (1, 2) for i in range(5)))
    assert index.count(Scope((1, 2), before_seq={1: 2})) == 7
    assert index.count(Scope((1, 2), before_seq={1: 2, 2: 0})) == 2


def test_phrases_and_exclusions_read_stems_side_by_side(index: KeywordIndex) -> None:
    fill(index, doc(1, "the connection was reset"), doc(2, "connections reset by peer"), doc(3, "reset the connection"))
    assert [s for _, s in index.seqs(scope('"connection reset"'), limit=9)] == [2]
    assert [s for _, s in index.seqs(scope("-peers"), limit=9)] == [1, 3]
    assert [s for _, s in index.seqs(scope('-"the connection" reset'), limit=9)] == [2]
    assert index.count(scope('"!!!"')) == 3


FIELDS: list[Filter] = [parse(text, now_ms=0).filters[0] for text in (
    "status:500", "status:500,404", "-status:500", "status:>=404", "status:<500", "status:5*", "-status:5*", "status:*",
    "id:007", "id:7", "host:web-1", "host:web*", 'host:"web 1"', "ratio:>0.5", "ratio:<=0.5", "ratio:0.5", "big:>=1e300",
    "big:>-1e300", "ok:true", "-ok:true", "level:warn", "level:>=warn", "level:<warn", "-level:error", "level:w*",
    "key:u1", "key:u*", "-key:u1", "a.b@c-d:1", "aé:7", "partition:1", "partition:0,2", "-partition:1",
    "offset:>=3", "offset:<3",
)]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        [500, 404, 500.0, "500", "0500", "007", 7, "7", 7.0, "web-1", "web 1", "web\n2", "Web-1", "", 0.5, "0.5", "5e-1"]
    ),
    st.sampled_from(
        [True, False, "true", -1, 2**60, 1e300, -1e300, "1e300", "1e999", 5e-324, float("nan"), float("inf"), 2**70, "\ud800"]
    ),
)
NAMES = st.sampled_from(["status", "id", "host", "ratio", "big", "ok", "a.b@c-d", "aé"])
RECORDS = st.fixed_dictionaries(
    {
        "attributes": st.dictionaries(NAMES, VALUES, max_size=4),
        "level": st.none() | st.sampled_from([*LEVELS, "WARNING", "Err", "odd"]),
        "key": st.none() | st.sampled_from(["u1", "u2", "U1", "x\0y"]),
        "partition": st.integers(0, 2),
    }
)


@settings(deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=12))
def test_every_filter_finds_exactly_the_records_it_accepts(records: list[dict[str, Any]]) -> None:
    with KeywordIndex(None, memory_bytes=15_000_000) as index:
        index.add([doc(i, **record) for i, record in enumerate(records[: len(records) // 2])])
        index.commit()  # two segments, in which a column may have two types
        index.add([doc(i, **record) for i, record in enumerate(records) if i >= len(records) // 2])
        index.commit()
        for condition in FIELDS:
            wanted = [i for i, r in enumerate(records) if condition.accepts(value_of(i, r, condition.field))]
            assert [seq for _, seq in index.seqs(Scope((1,), (condition,)), limit=99)] == wanted, condition


def value_of(seq: int, record: Mapping[str, Any], field: str) -> Any:
    known = {"level": record["level"], "key": record["key"], "partition": record["partition"], "offset": seq}
    return known[field] if field in known else record["attributes"].get(field)


@pytest.mark.parametrize("character", [*map(chr, range(128)), "é", "中", "\u2028", "😀", "\ud800"])
def test_any_character_may_stand_in_a_prefix(index: KeywordIndex, character: str) -> None:
    fill(index, doc(1, attributes={"f": f"a{character}z"}), doc(2, attributes={"f": "a"}))
    assert index.count(Scope((1,), (Filter("f", "prefix", (f"a{character}",)),))) == 1


def test_filters_narrow_what_words_find_without_scoring(index: KeywordIndex) -> None:
    fill(index, doc(1, "disk full", level="ERROR"), doc(2, "disk full", level="info"))
    (match,) = index.match("disk", scope("level:error"), limit=9)
    assert match.seq == 1
    assert match.score == pytest.approx(index.match("disk", ALL, limit=9)[0].score)


def test_a_topic_filter_by_name_must_be_resolved_before(index: KeywordIndex) -> None:
    with pytest.raises(UsageError, match="id"):
        index.count(scope("topic:orders"))
    with pytest.raises(UsageError):
        index.count(Scope((1,), (Filter("latency", ">", ("fast",)),)))


# ---------------------------------------------------------------------- records and their occurrences


def test_a_record_of_many_passages_counts_once(index: KeywordIndex) -> None:
    fill(index, *(doc(1, f"chapter{n} of the book", n=n) for n in range(4)), doc(2, "chapter0 alone"))
    assert index.documents == 5
    assert index.count(ALL) == 2
    assert index.count(scope('"chapter3"')) == 1
    assert index.count(scope('"book"')) == 1
    assert index.count(ALL, passages=[12, 13, 21]) == 2
    assert [m.seq for m in index.latest(scope('"chapter"', topics=(1,)), limit=9)] == []
    assert [(m.seq, m.n) for m in index.latest(scope('-"chapter1"'), limit=2)] == [(2, 0), (1, 0)]
    assert index.histogram(scope('"book"'), interval_ms=MINUTE) == [(MINUTE, 1, 1)]
    assert index.histogram(ALL, interval_ms=MINUTE) == [(MINUTE, 1, 1), (2 * MINUTE, 1, 1)]


def test_the_newest_and_the_oldest_records_are_listed(index: KeywordIndex) -> None:
    fill(index, *(doc(i, time_ms=-i) for i in range(20)))
    assert [m.seq for m in index.latest(ALL, limit=3)] == [19, 18, 17]
    assert [m.seq for m in index.latest(ALL, limit=3, oldest=True)] == [0, 1, 2]
    assert [m.seq for m in index.latest(ALL, limit=3, by="time")] == [0, 1, 2]
    assert index.latest(ALL, limit=0) == index.latest(Scope((7,)), limit=3) == []
    assert index.seqs(scope("offset:>=18"), limit=9) == [(1, 18), (1, 19)]


def test_passages_are_counted_exactly_up_to_the_limit(index: KeywordIndex) -> None:
    fill(index, *(doc(i, passage=i * i % 7) for i in range(700)))
    assert index.passages(ALL, limit=10) == {1: 200, 2: 200, 4: 200, 0: 100}
    assert index.passages(ALL, limit=2, passages=[0, 4]) == {4: 200, 0: 100}
    assert index.passages(ALL, limit=1, passages=[0, 4]) == {4: 200}
    assert index.passages(scope("offset:<3"), limit=10) == {0: 1, 1: 1, 4: 1}
    assert index.passages(ALL, limit=0) == {}


def test_a_histogram_counts_records_by_time_and_topic(index: KeywordIndex) -> None:
    fill(index, *(doc(i, topic=1 + i % 2, time_ms=i * 1000 - 3000) for i in range(10)))
    assert index.histogram(ALL, interval_ms=5000) == [
        (-5000, 1, 2),
        (-5000, 2, 1),
        (0, 1, 2),
        (0, 2, 3),
        (5000, 1, 1),
        (5000, 2, 1),
    ]
    assert index.histogram(ALL, interval_ms=2000, start_ms=-1000, end_ms=3000) == [
        (-1000, 1, 1), (-1000, 2, 1), (1000, 1, 1), (1000, 2, 1)]  # fmt: skip
    with pytest.raises(UsageError):
        index.histogram(ALL, interval_ms=0)


def test_the_values_of_a_field_are_counted(index: KeywordIndex) -> None:
    hosts = ["a", "b", "a", "c"]
    fill(
        index,
        *(doc(i, level="WARNING" if i else None, key=f"k{i}", attributes={"host": h, "n": 2}) for i, h in enumerate(hosts)),
    )
    assert list(index.field_values(ALL, "host", limit=2).items()) == [("a", 2), ("b", 1)]
    assert index.field_values(ALL, "level", limit=9) == {"warn": 3}
    assert index.field_values(scope("key:k1,k2"), "host", limit=9) == {"b": 1, "a": 1}
    assert index.field_values(ALL, "n", limit=9) == {"2": 4}
    assert index.field_values(ALL, "other", limit=9) == {}


# ---------------------------------------------------------------------- writing


def test_nothing_is_searchable_before_the_commit(index: KeywordIndex) -> None:
    index.add([doc(1)])
    assert index.documents == 0
    index.commit()
    assert index.documents == 1


def test_deletes_reach_what_was_added_before_them_and_nothing_else(index: KeywordIndex) -> None:
    def left() -> list[tuple[int, int]]:
        index.commit()
        return sorted(index.seqs(ALL, limit=99))

    index.add([doc(i, topic=t) for t in (1, 2) for i in range(5)])
    index.delete_from(1, 3)
    index.add([doc(7)])
    assert left() == [(1, 0), (1, 1), (1, 2), (1, 7), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]
    index.delete_before(2, 2)
    index.delete_records(1, [1, 7, 99])
    assert left() == [(1, 0), (1, 2), (2, 2), (2, 3), (2, 4)]
    index.delete_topic(2)
    assert left() == [(1, 0), (1, 2)]
    assert index.count(Scope((1,))) == 2


def test_feeding_again_after_delete_from_leaves_no_duplicates(index: KeywordIndex) -> None:
    for _ in range(3):
        index.delete_from(1, 0)
        fill(index, *(doc(i) for i in range(10)))
    assert index.documents == index.count(ALL) == 10


def test_what_shares_a_file_with_deleted_documents_is_fed_anew_and_the_file_goes(tmp_path: Path) -> None:
    with KeywordIndex(tmp_path) as index:
        fill(index, doc(7, "quaggax"), doc(8, "zyzzyvax"), *(doc(seq, f"other{seq}", topic=2) for seq in range(9)))
        fill(index, *(doc(seq, f"apart{seq}", topic=3) for seq in range(5)))
        index.delete_records(1, [7])
        index.settle()
        assert list(index.worn().values()) == [1]
        assert index.words("quaggax").terms  # found by nobody, and in the file's dictionary all the same
        fed: list[tuple[int, int]] = []
        for topic, seqs in index.beside_deleted(4):
            assert len(seqs) <= 4
            index.delete_records(topic, seqs)
            index.add([doc(seq, "zyzzyvax" if topic == 1 else f"other{seq}", topic=topic) for seq in seqs])
            index.commit()
            fed += [(topic, seq) for seq in seqs]
        assert fed == [(1, 8), *((2, seq) for seq in range(9))]
        assert (index.worn(), index.documents) == ({}, 1 + 9 + 5)
        assert list(index.beside_deleted(4)) == []
        assert not index.words("quaggax").terms
        assert index.words("zyzzyvax").terms


def test_a_document_that_cannot_be_written_fails_the_commit_and_not_the_index(index: KeywordIndex) -> None:
    fill(index, doc(1))
    index.add([doc(2), doc(3, time_ms=2**70), doc(4)])
    with pytest.raises(StorageError):
        index.commit()
    fill(index, doc(5))
    assert [seq for _, seq in index.seqs(ALL, limit=9)] == [1, 5]


def test_many_threads_may_add_and_search(index: KeywordIndex) -> None:
    failures: list[BaseException] = []

    def work(topic: int) -> None:
        try:
            for i in range(5):
                index.add([doc(i * 300 + j, "busy line", topic=topic) for j in range(300)])
                index.commit()
                assert index.count(Scope((topic,))) == (i + 1) * 300
                assert index.match("busy", Scope((topic,)), limit=1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(topic,)) for topic in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert not failures
    assert index.documents == 4500


def test_a_closed_index_says_so_and_forgets_what_was_not_committed(tmp_path: Path) -> None:
    index = KeywordIndex(tmp_path / "k")
    fill(index, doc(1))
    index.add([doc(2)])
    index.close()
    index.close()
    for use in (lambda: index.add([doc(3)]), index.commit, lambda: index.delete_topic(1)):
        with pytest.raises(StorageError, match="closed"):
            use()
    with KeywordIndex(tmp_path / "k") as again:
        assert again.count(ALL) == 1
        assert found(again, "text") == [1]


def test_very_long_texts_and_tokens_are_bounded(index: KeywordIndex) -> None:
    fill(index, doc(1, "x" * 5000 + " needle " + "e\u0301" * 3000), doc(2, "word " * 300_000 + "behind"))
    assert found(index, "needle") == [1]
    assert found(index, "behind") == []
    assert found(index, "x" * 5000) == []


# ---------------------------------------------------------------------- crashes and damage

WRITER = """
import sys
from pathlib import Path
from headwater.keyword.index import Doc, KeywordIndex
with KeywordIndex(Path(sys.argv[1])) as index:
    start = index.documents
    for batch in range(start // 50, 10_000):
        lines = [f"line {i} of batch {batch}" for i in range(50)]
        index.add([Doc(1, batch * 50 + i, 0, i + 1, 0, i, i, None, "info", line, {"i": i}) for i, line in enumerate(lines)])
        index.commit()
        print(batch + 1, flush=True)
"""


def test_a_kill_at_any_moment_loses_nothing_committed_and_blocks_nobody(tmp_path: Path) -> None:
    rng = random.Random(11)
    committed = 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "k")], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(rng.randint(1, 12)):
            committed = int(writer.stdout.readline())
        writer.kill()
        committed = max([committed, *map(int, writer.stdout.read().split())])
        writer.wait(240)
        writer.stdout.close()
        with KeywordIndex(tmp_path / "k") as index:
            assert index.documents >= committed * 50
            assert index.documents % 50 == 0
            assert index.count(scope("level:info")) == index.documents


def test_leftovers_of_a_killed_process_do_not_block(tmp_path: Path) -> None:
    for leftover in (".tantivy-writer.lock", ".tantivy-meta.lock", "0123456789abcdef0123456789abcdef.idx"):
        (tmp_path / leftover).touch()
    for _ in range(2):
        with KeywordIndex(tmp_path) as index:
            index.delete_from(1, 0)
            fill(index, doc(1), doc(2))
            index.delete_records(1, [2])
            index.commit()
            assert index.documents == 1


def damage_meta(path: Path) -> None:
    (path / "meta.json").write_bytes((path / "meta.json").read_bytes()[:40])


def damage_segment(path: Path) -> None:
    segment = max(path.glob("*.fast"), key=lambda file: file.stat().st_size)
    segment.write_bytes(segment.read_bytes()[:-20])


def flip_a_bit(path: Path) -> None:
    segment = max(path.glob("*.idx"), key=lambda file: file.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 4
    segment.write_bytes(content)


def lose_segment(path: Path) -> None:
    next(path.glob("*.term")).unlink()


def replace_schema(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("other")
    tantivy.Index(builder.build(), str(path))


@pytest.mark.parametrize("damage", [damage_meta, damage_segment, flip_a_bit, lose_segment, replace_schema])
def test_a_damaged_index_is_refused_when_it_is_opened(tmp_path: Path, damage: Any) -> None:
    with KeywordIndex(tmp_path) as index:
        fill(index, *(doc(i) for i in range(100)))
    damage(tmp_path)
    with pytest.raises(DamageError):
        KeywordIndex(tmp_path)
