"""Steps that need no model to talk to: by meaning, by rule, by a pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio.to_thread
import numpy as np

from headwater.enrich.items import Outcome, Space, Unit
from headwater.enrich.scores import Floats
from headwater.errors import HeadwaterError, UsageError
from headwater.matching import matches
from headwater.query import Query, parse
from headwater.records.labels import Cost
from headwater.records.models import Usage
from headwater.redaction import DEFAULT, Redactor

ROUTE_SCORE = 0.5  # likeness from which on a text goes to a topic


class Likeness:
    """How like texts are to some others, from 0 (about something else) to 1: `(cosine - floor) / (1 - floor)`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = list(texts)
        self._known: dict[str, Floats] = {}

    async def of(self, units: Sequence[Unit], space: Space | None) -> Floats:
        """`(units, texts)`."""
        if space is None:
            raise UsageError("likeness needs an embedding model, and none is configured; give `embedding`")
        if space.name not in self._known:
            self._known[space.name] = await space.embed(self._texts)
        rows = await vectors_of(units, space)
        scores = (rows @ self._known[space.name].T - space.floor) / (1 - space.floor)
        result: Floats = np.clip(scores, 0.0, 1.0)
        return result


async def vectors_of(units: Sequence[Unit], space: Space) -> Floats:
    """`(n, d)` unit rows of what units say; those whose text was changed are embedded as it is now."""
    missing = [n for n, unit in enumerate(units) if unit.vector is None]
    rows = await space.embed([units[n].text for n in missing]) if missing else None
    if rows is not None and len(missing) == len(units):
        return rows
    found = [unit.vector for unit in units]
    for n, row in zip(missing, rows if rows is not None else (), strict=True):
        found[n] = row
    return np.stack([row for row in found if row is not None])


class Likened:
    """score by `like`: the likeness to the nearest of some texts."""

    cost: Cost = "local"
    keeps, uses_fields, compares = True, False, True

    def __init__(self, texts: Sequence[str]) -> None:
        self._likeness = Likeness(texts)

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        best = (await self._likeness.of(units, space)).max(axis=1)
        return [Outcome(round(float(score), 4), round(float(score), 4)) for score in best]

    def used(self) -> Usage:
        return Usage()

    async def aclose(self) -> None:
        return


class _Way(NamedTuple):
    topic: str
    min_score: float
    columns: tuple[int, ...]  # of its texts
    when: Query | None
    labels: frozenset[str] | None


class Route:
    """Topics for what fits them: by likeness, by a query, by a label; one way may ask for several."""

    cost: Cost = "local"
    keeps, uses_fields = False, True

    def __init__(self, config: Mapping[str, Any]) -> None:
        texts: list[str] = []
        ways = []
        for way in config["to"]:
            like, label = listed(way.get("like")), way.get("label")
            columns = tuple(range(len(texts), len(texts) + len(like)))
            texts += like
            if not like and label is None and way.get("when") is None:
                raise UsageError(f"the way to {way['topic']!r} says nothing of what takes it: give like, when or label")
            when = None if way.get("when") is None else parse(way["when"], now_ms=0)
            labels = None if label is None else frozenset(map(str, listed(label)))
            ways.append(_Way(way["topic"], float(way.get("min_score", ROUTE_SCORE)), columns, when, labels))
        self._ways, self._likeness = ways, Likeness(texts) if texts else None
        self._most, self._otherwise, self._of = config.get("most"), config.get("otherwise"), config.get("of") or "label"
        self.compares = bool(texts)

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        scores = None if self._likeness is None else await self._likeness.of(units, space)
        return await anyio.to_thread.run_sync(self._routed, units, scores)

    def _routed(self, units: Sequence[Unit], scores: Floats | None) -> list[Outcome | HeadwaterError]:
        fits: list[dict[str, float]] = [{} for _ in units]
        for way in self._ways:
            if way.columns:
                assert scores is not None
                best = scores[:, way.columns[0] : way.columns[-1] + 1].max(axis=1)
                able = np.flatnonzero(best >= way.min_score).tolist()
            else:
                best, able = None, list(range(len(units)))
            for n in able:
                if self._takes(way, units[n]):
                    score = 1.0 if best is None else float(best[n])
                    fits[n][way.topic] = max(score, fits[n].get(way.topic, 0.0))
        return [self._outcome(fit) for fit in fits]

    def _takes(self, way: _Way, unit: Unit) -> bool:
        if way.labels is not None and str(unit.item.fields.get(self._of)) not in way.labels:
            return False
        return way.when is None or matches(way.when, unit.item.seen())

    def _outcome(self, fit: Mapping[str, float]) -> Outcome:
        ranked = sorted(fit.items(), key=lambda pair: (-pair[1], pair[0]))[: self._most]
        if not ranked and self._otherwise:
            ranked = [(self._otherwise, 0.0)]
        topics = {topic: round(score, 4) for topic, score in ranked}
        return Outcome(list(topics) or None, ranked[0][1] if ranked else None, topics, topics)

    def used(self) -> Usage:
        return Usage()

    async def aclose(self) -> None:
        return


class Redact:
    """Secrets and personal data out of the text, for all steps that follow and for what is written."""

    cost: Cost = "free"
    keeps, uses_fields, compares = False, False, False

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.redactor = Redactor(config.get("kinds") or DEFAULT, config.get("patterns"))

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        return await anyio.to_thread.run_sync(self._redacted, units)

    def _redacted(self, units: Sequence[Unit]) -> list[Outcome | HeadwaterError]:
        done = [self.redactor.redact(unit.text) for unit in units]
        return [Outcome(sorted({one.kind for one in r.found}) or None, text=r.text) for r in done]

    def used(self) -> Usage:
        return Usage()

    async def aclose(self) -> None:
        return


def listed(value: Any) -> list[str]:
    """One text or several, as several."""
    return [] if value is None else [value] if isinstance(value, str) else [str(one) for one in value]
