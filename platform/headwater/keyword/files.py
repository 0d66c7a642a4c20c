"""The files of the keyword index and the errors of the library that reads and writes them, as ours."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from headwater.errors import DamageError, StorageError


def verify(path: Path) -> None:
    """Compare the files of the last commit with the checksums in their footers: DamageError. Left-over files of an
    interrupted commit belong to no segment and are passed over."""
    if not (path / "meta.json").exists():
        return
    for segment in json.loads((path / "meta.json").read_bytes())["segments"]:
        deletes = segment.get("deletes") or {}
        for file in path.glob(segment["segment_id"].replace("-", "") + ".*"):
            if file.suffix == ".del" and f".{deletes.get('opstamp')}.del" not in file.name:
                continue
            if not _sound(file.read_bytes()):
                raise DamageError(f"the keyword index file {file} is damaged")


def deleted_by_segment(path: Path) -> dict[str, int]:
    """How many deleted documents each segment of the last commit still holds, in the order in which a searcher numbers them."""
    if not (path / "meta.json").exists():
        return {}
    segments = json.loads((path / "meta.json").read_bytes())["segments"]
    return {one["segment_id"]: int((one.get("deletes") or {}).get("num_deleted_docs", 0)) for one in segments}


def _sound(content: bytes) -> bool:
    """Whether a file is as tantivy wrote it: body, footer (JSON with the body's CRC-32), its length and a magic number."""
    if len(content) < 8:
        return False
    length, magic = struct.unpack("<II", content[-8:])
    if magic != 1337 or length > len(content) - 8:
        return False
    body = len(content) - 8 - length
    return bool(zlib.crc32(memoryview(content)[:body]) == json.loads(content[body:-8])["crc"])


@contextlib.contextmanager
def reading(path: Path | None) -> Iterator[None]:
    """tantivy's errors while opening and searching, as ours."""
    try:
        yield
    except (ValueError, OSError, KeyError) as error:
        raise DamageError(f"the keyword index {path or 'in memory'} cannot be read: {error}") from error
    except BaseException as error:  # a Rust panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise DamageError(f"the keyword index {path or 'in memory'} is damaged: {error}") from error


@contextlib.contextmanager
def writing(path: Path | None) -> Iterator[None]:
    """tantivy's errors while writing, as ours."""
    try:
        yield
    except (ValueError, OSError, TypeError, OverflowError) as error:
        raise StorageError(f"the keyword index {path or 'in memory'} cannot be written: {error}") from error
    except BaseException as error:  # a Rust panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise StorageError(f"the keyword index {path or 'in memory'} cannot be written: {error}") from error
