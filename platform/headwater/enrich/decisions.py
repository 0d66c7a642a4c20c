"""Decisions that were made: looked up by what was decided and by which version of a step, in memory first, then in the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import anyio.to_thread

from headwater.enrich import store
from headwater.enrich.items import Outcome

if TYPE_CHECKING:
    from headwater.log.store import Log

_HELD = 100_000
Key = tuple[int, str]


class Decisions:
    """Those of one pipeline, as it runs. What is new waits in `fresh` until it is written, with what was made of it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._held: OrderedDict[Key, Outcome] = OrderedDict()
        self._fresh: dict[Key, tuple[str, Outcome]] = {}

    async def known(self, keys: Collection[Key], family: Callable[[int], Sequence[int]]) -> dict[Key, Outcome]:
        """What was decided already. A passage inherits what was decided of those that are aliases of it."""
        found = {key: self._held[key] for key in keys if key in self._held}
        missing = [key for key in keys if key not in found]
        if missing:
            others = {key: family(key[0])[1:] if key[0] > 0 else () for key in missing}
            stored = await anyio.to_thread.run_sync(store.decisions, self._log, others)
            for key, text in stored.items():
                found[key] = Outcome.of(text)
                self._hold(key, found[key])
        return found

    def keep(self, key: Key, topic: str, outcome: Outcome) -> None:
        """Note a new decision."""
        self._fresh[key] = (topic, outcome)
        self._hold(key, outcome)

    def _hold(self, key: Key, outcome: Outcome) -> None:
        self._held[key] = outcome
        while len(self._held) > _HELD:
            self._held.popitem(last=False)

    def fresh(self) -> list[store.DecisionRow]:
        """The new ones, to be written."""
        return [store.DecisionRow(item, version, topic, o.stored()) for (item, version), (topic, o) in self._fresh.items()]

    def written(self, rows: Iterable[store.DecisionRow]) -> None:
        """These are new no more."""
        for row in rows:
            self._fresh.pop((row.item, row.version), None)
