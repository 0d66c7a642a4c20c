"""What became of records that were to go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headwater.records.tabular import Shown


@dataclass(frozen=True, slots=True)
class Deleted(Shown):
    """The reply to a deletion: records that matched, and those deleted (none of them with `dry_run`). `more` is True where a
    limit ended it early: ask again for the rest."""

    topic: str
    matched: int
    deleted: int
    dry_run: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class Purged(Shown):
    """The reply to a purge. `removed` counts by store what deleted records had left there; `log_bytes` is the size of the log's
    file before and after. `found` names, for each marker text that was asked about, the files of the data directory whose
    bytes still hold it: none of a text that only deleted records had. `files` were looked at; it took
    `seconds`."""

    topic: str
    removed: Mapping[str, int] = field(default_factory=dict)
    log_bytes: tuple[int, int] = (0, 0)
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
