"""What a pipeline would do, tried on the last records. Nothing is written but decisions, which are kept for when it runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from headwater.enrich.items import Item
from headwater.enrich.running import Running, outputs
from headwater.errors import LimitError
from headwater.records import address
from headwater.records.labels import Backtest, Ran

if TYPE_CHECKING:
    from headwater.index.topic import TopicIndex
    from headwater.log.store import Log, Row

_BLOCK = 500  # records decided together
_BLOCK_ASKED = 10  # where models are asked: a limit that is reached loses no more of the count than this
_CHANGES = 10
_VALUES = 50  # of a field, told with their counts


@dataclass(slots=True)
class _Count:
    fields: dict[str, Counter[str]] = field(default_factory=dict)
    routed: Counter[str] = field(default_factory=Counter)
    passages: set[int] = field(default_factory=set)
    records: int = 0
    failed: int = 0
    differ: int = 0
    samples: list[Ran] = field(default_factory=list)
    changes: list[Mapping[str, Any]] = field(default_factory=list)


async def backtest(
    name: str, tried: Running, former: Running | None, topics: Sequence[TopicIndex], log: Log, *, records: int, samples: int
) -> Backtest:
    """Run `tried` over the last `records` of its topics, and `former`, the version at work, beside it. The limits of its purse
    end it."""
    count, began, stopped = _Count(), time.perf_counter(), None
    chosen = await anyio.to_thread.run_sync(_chosen, log, topics, records)
    try:
        for topic, rows in chosen:
            size = _BLOCK_ASKED if tried.asks else _BLOCK
            for at in range(0, len(rows), size):
                await _block(tried, former, topic, rows[at : at + size], count, samples)
                await tried.save()
    except LimitError as error:
        stopped = str(error)
        await tried.save()
    seconds = time.perf_counter() - began
    told = {name: dict(values.most_common(_VALUES)) for name, values in count.fields.items()}
    compared = former is not None and count.records
    purse = tried.purse
    return Backtest(
        name, count.records, len(count.passages), tuple(count.samples), told, dict(count.routed.most_common()),
        round(count.differ / count.records, 4) if compared else None, tuple(count.changes), count.failed, purse.calls,
        purse.spent, round(seconds, 3), await anyio.to_thread.run_sync(_forecast, tried, topics, count, seconds), stopped,
    )  # fmt: skip


async def _block(
    tried: Running, former: Running | None, topic: TopicIndex, rows: Sequence[Row], count: _Count, samples: int
) -> None:
    places = await anyio.to_thread.run_sync(topic.catalogue.places, [row.id for row in rows])
    items = await tried.decide(topic, rows, places)
    earlier = [None] * len(rows) if former is None else await former.decide(topic, rows, places)
    for row, item, before in zip(rows, items, earlier, strict=True):
        count.records += 1
        count.passages.update(topic.resolve(p.passage) for p in places.get(row.id, ()) if p.passage)
        count.failed += item.ended == "failed"
        for name, value in outputs(item).items():
            if not name.endswith("_confidence"):
                count.fields.setdefault(name, Counter())[_shown(value)] += 1
        count.routed.update(tried.topics_of(item))
        place = address(topic.row.name, row.partition, row.offset)
        if before is not None and former is not None and _made(tried, item) != _made(former, before):
            count.differ += 1
            if len(count.changes) < _CHANGES:
                count.changes.append({"address": place, "before": _made(former, before), "after": _made(tried, item)})
        if len(count.samples) < samples:
            count.samples.append(ran(tried, item, row.value, place))


def ran(running: Running, item: Item, text: str, place: str | None) -> Ran:
    """What became of a record."""
    for redactor in item.redactors:
        text = redactor.redact(text).text
    return Ran(text, {**item.fields, **item.sure()}, running.topics_of(item), tuple(item.traces or ()), place, item.error)


def _shown(value: str | int | float | bool) -> str:
    """A value as it is counted: numbers with a fraction by their first digits, so that near ones count together."""
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) < 10 else f"{value:.2g}"
    return str(value)[:100]


def _made(running: Running, item: Item) -> dict[str, Any]:
    return {"fields": dict(item.fields), "topics": list(running.topics_of(item))}


def _chosen(log: Log, topics: Sequence[TopicIndex], records: int) -> list[tuple[TopicIndex, list[Row]]]:
    """The last records of all topics together, by when they were stored."""
    found = [(topic, log.rows_before(topic.row.id, topic.mapped, records)) for topic in topics]
    times = sorted((row.appended_ms for _, rows in found for row in rows), reverse=True)
    least = times[records - 1] if len(times) > records else 0
    kept = [(topic, [row for row in rows if row.appended_ms >= least]) for topic, rows in found]
    left = records
    out = []
    for topic, rows in kept:
        out.append((topic, rows[-left:] if left else []))
        left -= len(out[-1][1])
    return out


def _forecast(tried: Running, topics: Sequence[TopicIndex], count: _Count, seconds: float) -> dict[str, Any]:
    """What all records of its topics would take, by what these took: passages are decided once, so it grows with them."""
    passages = sum(topic.catalogue.count() for topic in topics)
    records = sum(topic.mapped - topic.row.first_seq for topic in topics)
    share = passages / max(len(count.passages), 1)
    spent = tried.purse.spent
    return {
        "records": records, "passages": passages, "llm_calls": round(tried.purse.calls * share),
        "tokens": round(spent.tokens * share), "cost": None if spent.cost is None else round(spent.cost * share, 6),
        "seconds": round(seconds * share, 1),
    }  # fmt: skip
