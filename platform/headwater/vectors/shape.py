"""How segments are built and searched: settings that are asked for, and what a manifest says was built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from headwater.errors import DamageError

Kind = Literal["hnsw", "flat", "ivf"]
FORMAT = 2
_READABLE = (1, FORMAT)


@dataclass(frozen=True, slots=True)
class Hnsw:
    """The graph's settings: neighbours per vector, candidates while building and while searching."""

    m: int = 16
    ef_construction: int = 100
    ef_search: int = 100


@dataclass(frozen=True, slots=True)
class Ivf:
    """Coarse cells: how many (0: about the square root of the vectors), and how many of them a search scans."""

    cells: int = 0
    n_probe: int = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of segment is wanted, with the settings of each kind."""

    kind: Kind = "hnsw"
    hnsw: Hnsw = field(default_factory=Hnsw)
    ivf: Ivf = field(default_factory=Ivf)

    @property
    def built(self) -> dict[str, Any]:
        """The settings that the files depend on; the others apply at once, to segments that exist as well."""
        if self.kind == "hnsw":
            return {"kind": "hnsw", "m": self.hnsw.m, "ef_construction": self.hnsw.ef_construction}
        return {"kind": "ivf", "cells": self.ivf.cells} if self.kind == "ivf" else {"kind": "flat"}


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment in the catalogue; `manifest` is JSON text: settings, recall, and hash and size of every file."""

    name: str
    count: int
    min_id: int
    max_id: int
    manifest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was built. `files`: path inside the segment -> (bytes, sha256)."""

    kind: Kind
    dimension: int
    metric: str
    built: Mapping[str, Any]
    ef_search: int
    recall: float
    files: Mapping[str, tuple[int, str]]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(size for size, _ in self.files.values())


def read_manifest(row: SegmentRow) -> Manifest:
    """The manifest of a catalogue row. Raises DamageError where it cannot be read. Format 1 knew graphs only."""
    try:
        made: dict[str, Any] = json.loads(row.manifest)
        if made["format"] not in _READABLE:
            raise DamageError(f"segment {row.name} has format {made['format']}, which this version cannot read")
        kind: Kind = made.get("kind", "hnsw")
        shape = Shape(kind, Hnsw(**made["hnsw"]), Ivf(**made.get("ivf", {})))
        files = {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in made["files"].items()}
        manifest = Manifest(
            kind, made["dimension"], made["metric"], shape.built, shape.hnsw.ef_search, float(made["recall"]), files
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"segment {row.name}: its manifest cannot be read; it is rebuilt from the log") from error
    needed = {"hnsw": {"chroma/chroma.sqlite3"}, "ivf": {"centroids.npy", "bounds.npy"}, "flat": set[str]()}
    if kind not in needed or not {"ids.npy", "vectors.npy"} | needed[kind] <= set(files):
        raise DamageError(f"segment {row.name}: its manifest lists too few files; it is rebuilt from the log")
    return manifest
