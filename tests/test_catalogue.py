"""Which vectors a segment holds, as the log knows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.log import catalogue, dropping
from headwater.log.catalogue import Catalogue
from headwater.log.schema import MIGRATIONS, migrate
from headwater.log.store import Log
from headwater.vectors import SegmentRow

IDS = st.lists(st.integers(1, 60), unique=True, max_size=40).map(sorted)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path, clock_ms=lambda: 0) as opened:
        yield opened


def _topic(log: Log, name: str, ids: Iterable[int]) -> Catalogue:
    """A topic whose vectors have these ids; the vector of `i` is `[i, 1]`."""
    row = log.create_topic(name, {"partitions": 1})

    def write(db: apsw.Connection) -> int:
        model = catalogue.model_id(db, "m")
        known = [(i, row.id, bytes([i % 256, row.id % 256, i // 256]), "t", 1, 0, 0, 0, 0) for i in ids]
        columns = "id, topic, digest, text, count, first_seq, last_seq, first_ms, last_ms"
        db.executemany(f"INSERT OR IGNORE INTO passage({columns}) VALUES(?,?,?,?,?,?,?,?,?)", known)
        catalogue.store_vectors(db, row.id, model, list(ids), np.array([[i, 1] for i in ids], np.float32).reshape(-1, 2), None)
        return model

    return Catalogue(log, row.id, log.write(write), row.generation)


def _segment(name: str, ids: list[int]) -> SegmentRow:
    return SegmentRow(name, len(ids), min(ids), max(ids), "{}")


def _ids(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    out: list[int] = []
    for ids, rows in blocks:
        assert len(ids)
        assert (rows == np.stack([ids, np.ones(len(ids))], axis=1)).all()
        out += ids.tolist()
    return out


@settings(max_examples=60, deadline=None)
@given(all_ids=IDS, first=IDS, second=IDS, block=st.integers(1, 7))
def test_every_vector_is_in_one_segment_or_in_the_tail(
    tmp_path_factory: pytest.TempPathFactory, all_ids: list[int], first: list[int], second: list[int], block: int
) -> None:
    one = [i for i in first if i in all_ids]
    two = [i for i in second if i in all_ids and i not in one]
    with pytest.MonkeyPatch.context() as patch, Log(tmp_path_factory.mktemp("log"), clock_ms=lambda: 0) as log:
        patch.setattr(catalogue, "_BLOCK", block)
        topic = _topic(log, "t", all_ids)
        for name, ids in (("seg-1", one), ("seg-2", two)):
            assert not ids or topic.commit_segment(_segment(name, ids), np.array(ids), [])
        assert _ids(topic.members("seg-1")) == one
        assert _ids(topic.members("seg-2")) == two
        assert _ids(topic.tail()) == [i for i in all_ids if i not in one and i not in two]
        found, rows = topic.vectors(first)
        assert found.tolist() == one
        assert (rows == [[i, 1] for i in one]).all() if one else not rows.size


def test_a_segment_that_replaces_others_holds_what_they_held_and_a_dropped_one_gives_its_members_back(log: Log) -> None:
    topic = _topic(log, "t", range(1, 31))
    topic.commit_segment(_segment("seg-1", [*range(1, 11)]), np.arange(1, 11), [])
    topic.commit_segment(_segment("seg-2", [*range(11, 21)]), np.arange(11, 21), [])
    topic.commit_segment(_segment("seg-3", [*range(1, 21)]), np.arange(20, 0, -1), ["seg-1", "seg-2"])
    assert [row.name for row in topic.segments()] == ["seg-3"]
    assert (_ids(topic.members("seg-3")), _ids(topic.tail())) == ([*range(1, 21)], [*range(21, 31)])
    topic.drop_segments(["seg-3"])
    assert (_ids(topic.members("seg-3")), _ids(topic.tail())) == ([], [*range(1, 31)])


def test_vectors_of_another_topic_and_forgotten_ones_are_no_members(log: Log) -> None:
    topic, other = _topic(log, "t", [1, 3, 5, 7]), _topic(log, "other", [2, 4, 6, 8])
    topic.commit_segment(_segment("seg-1", [1, 3, 5]), np.array([1, 3, 5]), [])
    log.write(lambda db: catalogue.forget_passages(db, [3]))
    assert (_ids(topic.members("seg-1")), _ids(topic.tail())) == ([1, 5], [7])
    assert _ids(other.tail()) == [2, 4, 6, 8]


def test_a_segment_of_a_topic_that_has_gone_is_not_committed(log: Log) -> None:
    topic = _topic(log, "t", [1, 2])
    log.write(lambda db: dropping.delete_topic(db, topic.topic))
    assert not topic.commit_segment(_segment("seg-1", [1, 2]), np.array([1, 2]), [])


def test_a_database_that_marked_each_vector_with_its_segment_keeps_its_vectors(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "log.db"))
    before = next(n for n, entry in enumerate(MIGRATIONS) if "DROP COLUMN segment" in entry)
    migrate(db, MIGRATIONS[:before])
    db.execute("INSERT INTO topic(name, config, created_ms) VALUES('t', '{}', 0)")
    db.execute("INSERT INTO model(name) VALUES('m')")
    rows = [(1, 1, i, "seg-1" if i < 3 else None, np.array([i, 1], np.float16).tobytes()) for i in (1, 2, 3)]
    db.executemany("INSERT INTO vector VALUES(?,?,?,?,?)", rows)
    db.execute("INSERT INTO segment VALUES('seg-1', 1, 1, 2, 1, 2, '{}')")
    db.close()
    with Log(tmp_path, clock_ms=lambda: 0) as log:
        topic = Catalogue(log, 1, 1, 1)
        assert topic.segments() == []
        assert _ids(topic.tail()) == [1, 2, 3]
