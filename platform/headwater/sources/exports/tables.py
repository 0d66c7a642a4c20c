"""Tables of a SQLite database, and Parquet files -> a record a row, fields as those of JSON lines (see `fields`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from headwater.errors import UsageError
from headwater.sources import Fault
from headwater.sources.exports import Item
from headwater.sources.fields import BadLine, object_draft
from headwater.sources.lines import decode_text

_BATCH_BYTES = 8 << 20
_EXACT = 1 << 53  # beyond it numbers of JSON are not the same everywhere
_SHADOWS = ("_config", "_content", "_data", "_docsize", "_idx", "_segdir", "_segments", "_stat")  # of full-text tables


def read_sqlite(path: Path) -> Iterator[Item]:
    """Rows of every table, in the order of their rowids, which are their positions: rows that are added later are new, rows
    that were changed since are not. Blobs are left out. Raises UsageError for a damaged database."""
    import apsw

    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise UsageError(f"{path} cannot be opened as a database: {error}") from error
    try:
        db.set_busy_timeout(5000)
        db.pragma("trusted_schema", False)
        db.pragma("cell_size_check", True)
        encoding = str(db.pragma("encoding")).lower()  # utf-8, utf-16le or utf-16be
        named = (
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
        )
        tables = [(str(name), str(sql)) for name, sql in db.execute(named)]
        virtual = {name for name, sql in tables if sql.upper().startswith("CREATE VIRTUAL")}
        shadows = {name + ending for name in virtual for ending in _SHADOWS}
        for name, sql in tables:
            if name not in virtual | shadows:
                yield from _rows(db, name, encoding, has_rowid="WITHOUT ROWID" not in sql.upper())
    except apsw.Error as error:
        raise UsageError(f"{path} is a damaged database, or none: {error}") from error
    finally:
        db.close()


def _rows(db: Any, table: str, encoding: str, *, has_rowid: bool) -> Iterator[Item]:
    quoted = '"' + table.replace('"', '""') + '"'
    columns = [row[1] for row in db.execute(f"PRAGMA table_xinfo({quoted})") if row[6] != 1]
    name = next((n for n in ("rowid", "_rowid_", "oid") if has_rowid and n not in map(str.lower, columns)), None)
    named = ['"' + column.replace('"', '""') + '"' for column in columns]
    # text comes as its bytes: that of a database need not be what it says it is
    cells_of = [f"CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) WHEN 'blob' THEN NULL ELSE {c} END" for c in named]
    listed = f"SELECT {', '.join([name or '0', *cells_of])} FROM {quoted}" + (f" ORDER BY {name}" if name else "")
    for n, (rowid, *cells) in enumerate(db.execute(listed)):
        texts = (_decoded(v, encoding) if isinstance(v, bytes) else v for v in cells)
        tree = {k: v for k, v in zip(columns, texts, strict=True) if v is not None}
        if tree:
            yield Item(table, _row(tree, int(rowid) if name else n, table))


def _decoded(data: bytes, encoding: str) -> str:
    return data.decode(encoding, "replace") if encoding != "utf-8" else decode_text(data, encoding)[0]


def read_parquet(path: Path) -> Iterator[Item]:
    """Rows in their order. Raises UsageError for a damaged file, or where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise UsageError("reading Parquet needs pyarrow; install it with `pip install 'headwater[parquet]'`") from None
    try:
        with parquet.ParquetFile(path, memory_map=False, coerce_int96_timestamp_unit="us") as file:
            n = 0
            for batch in file.iter_batches(batch_size=_rows_at_once(file.metadata)):
                for row in batch.cast(_in_microseconds(pyarrow, batch.schema), safe=False).to_pylist():
                    tree = {str(k): _plain(v) for k, v in row.items() if v is not None and not isinstance(v, bytes)}
                    if tree:
                        yield Item("", _row(tree, n, None))
                    n += 1
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path} is a damaged Parquet file, or none: {error}") from error


def _row(tree: dict[str, Any], position: int, table: str | None) -> Any:
    whole = orjson.dumps(tree, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")
    try:
        draft = object_draft(tree, whole, position)
    except BadLine as error:
        return Fault(position, str(error), whole[:2000])
    return (
        draft._replace(attributes={**draft.attributes, "table": table}) if table and "table" not in draft.attributes else draft
    )


def _rows_at_once(metadata: Any) -> int:
    """As many rows of a Parquet file as take some megabytes."""
    size = sum(int(metadata.row_group(n).total_byte_size) for n in range(metadata.num_row_groups))
    return min(max(_BATCH_BYTES * int(metadata.num_rows) // max(size, 1), 1), 2000)


def _in_microseconds(pyarrow: Any, schema: Any) -> Any:
    """A schema without nanoseconds, which Python's own times have none of."""
    plain = {
        "timestamp[ns]": pyarrow.timestamp("us"),
        "time64[ns]": pyarrow.time64("us"),
        "duration[ns]": pyarrow.duration("us"),
    }

    def cast(kind: Any) -> Any:
        types = pyarrow.types
        if types.is_struct(kind):
            return pyarrow.struct([field.with_type(cast(field.type)) for field in kind])
        if types.is_list(kind) or types.is_large_list(kind):
            return (pyarrow.list_ if types.is_list(kind) else pyarrow.large_list)(
                kind.value_field.with_type(cast(kind.value_type))
            )
        if types.is_map(kind):
            return pyarrow.map_(cast(kind.key_type), cast(kind.item_type))
        zone = getattr(kind, "tz", None)
        return pyarrow.timestamp("us", zone) if zone else plain.get(str(kind), kind)

    return pyarrow.schema([field.with_type(cast(field.type)) for field in schema])


def _plain(value: Any) -> Any:
    """A cell as JSON has it: times in ISO 8601, spans in seconds, decimals as numbers where these are the same, no bytes."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        number = int(value) if value == value.to_integral_value() else float(value)
        return number if abs(value) < _EXACT and Decimal(repr(number)) == value else str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if not isinstance(v, bytes)}
    return [_plain(v) for v in value if not isinstance(v, bytes)] if isinstance(value, list | tuple) else value
