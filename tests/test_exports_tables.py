"""Tables of SQLite databases and Parquet files become records, a row each."""

from __future__ import annotations

import json
import math
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import UsageError
from test_exports import iso, load, places


def test_a_database_s_tables_are_records_and_rows_added_later_are_new(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE note(id TEXT, body TEXT, created_at TEXT, n INTEGER, picture BLOB)")
    db.execute("CREATE TABLE pair(a TEXT PRIMARY KEY, b REAL) WITHOUT ROWID")
    db.execute('CREATE TABLE "odd ""name"(text TEXT)')
    db.execute("INSERT INTO note VALUES('k1', 'first note', '2026-01-01T00:00:00Z', 7, x'00ff')")
    db.execute("INSERT INTO pair VALUES('x', 1.5)")
    db.commit()
    (note, pair), _ = load(path)
    assert (note.value, note.key, iso(note)) == ("first note", "k1", "2026-01-01T00:00:00+00:00")
    assert note.attributes == {"table": "note", "n": 7}
    assert json.loads(pair.value) == {"a": "x", "b": 1.5}
    before = places(path)
    db.execute("INSERT INTO note(id, body) VALUES('k2', 'second note')")
    db.commit()
    db.close()
    assert [place for place in places(path) if place not in before] == [(before[0][0], 2)]


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(UsageError, match="damaged database"):
        load(path)


def test_parquet_rows_are_records(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two"], "id": ["a", "b"], "tags": [["x"], []], "n": [1, None]}), path)
    drafts, _ = load(path)
    assert [(d.value, d.key, d.position, d.attributes.get("n")) for d in drafts] == [("one", "a", 0, 1), ("two", "b", 1, None)]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="damaged Parquet"):
        load(path)


def test_cells_of_every_type_of_parquet_become_fields(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    day = datetime(2026, 1, 1, 10, tzinfo=UTC)
    cells: dict[str, tuple[Any, Any, Any]] = {
        "note": ("card declined", None, "card declined"),
        "created_at": (day, pyarrow.timestamp("ns", "UTC"), None),
        "price": (Decimal("3.50"), None, 3.5), "count": (Decimal("3"), None, 3),
        "exact": (Decimal(2**56), None, str(2**56)),
        "day": (day.date(), None, "2026-01-01"), "at": (day.time(), None, "10:00:00"),
        "nanos": (1_767_261_600_000_000_001, pyarrow.timestamp("ns"), "2026-01-01T10:00:00"),
        "took": (timedelta(seconds=1.5), pyarrow.duration("ns"), 1.5), "big": (2**63 + 5, pyarrow.uint64(), str(2**63 + 5)),
        "nan": (math.nan, None, "nan"), "blob": (b"\xff\0", None, None), "ok": (True, None, True),
        "tree": ({"a": [day.date()], "b": b"\xff"}, None, None),
        "pairs": ([("k", 1)], pyarrow.map_(pyarrow.string(), pyarrow.int32()), '[["k",1]]'),
    }  # fmt: skip
    columns = {name: pyarrow.array([value, None], kind) for name, (value, kind, _) in cells.items()}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (draft,), _ = load(tmp_path / "a.parquet")
    assert draft.time_ms == int(day.timestamp() * 1000)
    wanted = {name: value for name, (_, _, value) in cells.items() if value is not None}
    assert {name: draft.attributes.get(name) for name in wanted} == wanted
    assert draft.attributes["tree.a"] == '["2026-01-01"]'
    assert "blob" not in draft.attributes
