"""Lists of the passages in scope are carried on from commit to commit, and always equal what listing anew gives."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import StorageError
from headwater.keyword.index import Doc, KeywordIndex, Scope
from headwater.query import parse
from serving import eventually

COLOURS = 3
MANY = 1_000_000
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(st.integers(1, 30), st.integers(0, COLOURS - 1)), max_size=6)),
        st.tuples(st.just("commit"), st.none()),
        st.tuples(st.just("list"), st.integers(0, COLOURS)),
        st.tuples(st.just("delete"), st.integers(0, 40)),
        st.tuples(st.just("cut back"), st.integers(0, 40)),
    ),
    max_size=25,
)


def scope(colour: int, topic: int = 1) -> Scope:
    """Colour COLOURS is none that a record has."""
    return Scope((topic,), parse(f"colour:{colour}", now_ms=0).filters)


def doc(seq: int, passage: int, colour: int, topic: int = 1) -> Doc:
    return Doc(topic, seq, 0, passage, 0, seq, seq * 1000, None, None, f"text {passage}", {"colour": colour})


@settings(max_examples=120, deadline=None)
@given(steps)
def test_a_list_that_was_carried_on_equals_one_made_anew(todo: list[tuple[str, object]]) -> None:
    with KeywordIndex(None) as index:
        waiting: dict[int, tuple[int, int]] = {}  # seq -> (passage, colour), as the next commit shows them
        shown: dict[int, tuple[int, int]] = {}
        end = 0
        for what, given_ in todo:
            if what == "add":
                assert isinstance(given_, list)
                index.add([doc(end + i, passage, colour) for i, (passage, colour) in enumerate(given_)])
                waiting |= {end + i: one for i, one in enumerate(given_)}
                end += len(given_)
            elif what == "commit":
                index.commit()
                shown = dict(waiting)
            elif what == "list":
                assert isinstance(given_, int)
                wanted = sorted({passage for passage, colour in shown.values() if colour == given_})
                assert index.passage_ids(scope(given_), distinct=MANY).tolist() == wanted
                assert index.holds_passage_ids(scope(given_))
            elif what == "delete":
                assert isinstance(given_, int)
                index.delete_records(1, [given_])
                waiting.pop(given_, None)
            else:  # a crash lies behind: what is past the cursor goes, and is fed again
                assert isinstance(given_, int)
                index.delete_from(1, given_)
                again = {seq: one for seq, one in waiting.items() if seq >= given_}
                index.add([doc(seq, *one) for seq, one in again.items()])


def test_records_that_come_leave_a_list_known_and_a_deletion_does_not() -> None:
    with KeywordIndex(None) as index:
        index.add([doc(seq, seq + 1, 0) for seq in range(100)])
        index.commit()
        assert not index.holds_passage_ids(scope(0))
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == list(range(1, 101))
        index.add([doc(100, 500, 0), doc(101, 7, 0), doc(102, 300, 1), doc(0, 900, 0, topic=2)])
        index.commit()
        assert index.holds_passage_ids(scope(0))
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == [*range(1, 101), 500]
        assert index.passage_ids(scope(0, topic=2), distinct=MANY).tolist() == [900]
        index.delete_before(1, 50)
        assert index.holds_passage_ids(scope(0))  # nothing is gone before the commit
        index.commit()
        assert not index.holds_passage_ids(scope(0))
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == [7, *range(51, 101), 500]


def test_a_list_misses_nothing_that_is_added_again_after_a_commit_that_failed() -> None:
    with KeywordIndex(None) as index:
        index.add([doc(0, 1, 0)])
        index.commit()
        index.add([doc(1, 2, 0), doc(2, 3, 0)._replace(time_ms=2**70)])
        with pytest.raises(StorageError):
            index.commit()
        index.add([doc(0, 9, 0, topic=2)])
        index.commit()
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == [1]
        index.add([doc(1, 2, 0), doc(2, 3, 0)])
        index.commit()
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == [1, 2, 3]


def test_a_scope_that_is_asked_for_again_is_listed_in_the_background() -> None:
    with KeywordIndex(None) as index:
        index.add([doc(seq, seq + 1, 0) for seq in range(100)])
        index.commit()
        index.list_soon(scope(0), distinct=MANY)
        index.list_soon(scope(1), distinct=MANY)
        assert not index.holds_passage_ids(scope(0))  # filters that come once are not listed
        index.list_soon(scope(0), distinct=MANY)
        eventually(lambda: index.holds_passage_ids(scope(0)))
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == list(range(1, 101))
        assert not index.holds_passage_ids(scope(1))
        index.delete_before(1, 50)
        index.commit()
        index.list_soon(scope(0), distinct=MANY)
        eventually(lambda: index.holds_passage_ids(scope(0)))
    index.list_soon(scope(1), distinct=MANY)  # nothing happens in a closed index
    assert not index.holds_passage_ids(scope(1))


def test_a_list_knows_where_an_index_that_is_opened_again_ends(tmp_path: Path) -> None:
    with KeywordIndex(tmp_path) as index:
        index.add([doc(seq, seq + 1, 0) for seq in range(10)])
        index.commit()
    with KeywordIndex(tmp_path) as index:
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == list(range(1, 11))
        index.add([doc(10, 11, 0)])
        index.commit()
        assert index.holds_passage_ids(scope(0))
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == list(range(1, 12))


def test_lists_never_miss_what_was_committed_while_threads_add_and_list() -> None:
    with KeywordIndex(None) as index:
        done, wrong = threading.Event(), list[str]()

        def look() -> None:
            while not done.is_set():
                before = index.documents
                found = index.passage_ids(scope(0), distinct=MANY).tolist()
                if found[:before] != list(range(1, before + 1)):
                    wrong.append(f"{before} documents, {len(found)} passages, {found[:3]}")

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for start in range(0, 600, 20):
            index.add([doc(seq, seq + 1, 0) for seq in range(start, start + 20)])
            index.commit()
        done.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert index.passage_ids(scope(0), distinct=MANY).tolist() == list(range(1, 601))
