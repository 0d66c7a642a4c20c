"""Whether a topic says other things than before: two stretches of time compared by what their records mean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headwater.records import Coverage, Pattern
from headwater.records.tabular import Shown


@dataclass(frozen=True, slots=True)
class Drift(Shown):
    """The mix of meanings of a topic in `[since, until)` against that in `[before, since)`. `distance` is 0 for equal mixes
    and 1 for ones that share nothing; `usual` and `highest` are those of stretches as long, within the time before, from
    the rest of it (None where it is too short for one): `chance` is how often one of them is as far. `drifted` says that
    none was, of enough. `what` says it in a sentence; `meanings`, `records_before` and `records_after` count what was
    compared. `rose` and `fell` are the patterns that make the difference, each with its `change`."""

    topic: str
    before: datetime
    since: datetime
    until: datetime
    distance: float
    usual: float | None
    highest: float | None
    chance: float
    drifted: bool
    what: str
    meanings: int
    records_before: int
    records_after: int
    rose: tuple[Pattern, ...]
    fell: tuple[Pattern, ...]
    coverage: Coverage
