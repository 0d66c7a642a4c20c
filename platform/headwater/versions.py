"""The versions of documents: the latest one stays, what a source says has gone goes, and former ones are kept out of sight.

A source's state may name keys: of those under `latest` only the newest record that this source stored stays, of those
under `gone` none. The state is stored in one transaction with the records, and what it asks for is done behind them;
done twice it changes nothing, so a source that is started with such a state has only to hand it out again. Records of
other sources, whatever their keys, are left alone.

What was replaced becomes a former version (headwater.log.former): found and listed only by who asks for it, and for an earlier
time. The topic's setting `versions_kept` says how many of a key stay; older ones are deleted, and all by retention.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from headwater.deletion import STEP, Deletion
from headwater.index.indexer import Indexer
from headwater.index.topic import TopicIndex
from headwater.log import former
from headwater.log.schema import SEQ_BITS, SEQ_MASK
from headwater.log.store import Log

if TYPE_CHECKING:
    import apsw

_INDEXED_S = 30.0  # how long an old version waits for the new one to be found


async def settle(
    deletion: Deletion, indexer: Indexer, log: Log, topic: TopicIndex, source: str, state: Mapping[str, Any] | None
) -> int:
    """Take out of sight the records that the state of `source` says have been replaced or are gone: how many. The newest is
    findable by words before the one it replaces goes, unless indexing is more than 30 s behind; then it is kept as a former
    version all the same."""
    latest, gone = _keys(state, "latest"), _keys(state, "gone")
    if topic.redacting is not None:
        latest, gone = list(map(topic.redacting.key, latest)), list(map(topic.redacting.key, gone))
    if not latest and not gone:
        return 0
    found = await anyio.to_thread.run_sync(_replaced, log, topic, source, latest, gone)
    if found.replaced and latest:
        upto = (await anyio.to_thread.run_sync(log.topic, topic.row.name)).next_seq
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INDEXED_S):
                await indexer.wait(indexer.topics.get(topic.row.id, topic), upto, semantic=False)  # it may have been reopened
    old = list(found.replaced.items())
    for start in range(0, len(old), STEP):
        await anyio.to_thread.run_sync(_retire, deletion, indexer, topic, dict(old[start : start + STEP]))
    for start in range(0, len(found.surplus), STEP):
        await anyio.to_thread.run_sync(_release, deletion, indexer, topic, found.surplus[start : start + STEP])
    return len(found.replaced)


@dataclass(frozen=True, slots=True)
class _Found:
    """Records (by id) that are former versions from now on, with the seq from which on; and those beyond what is kept."""

    replaced: dict[int, int]
    surplus: list[int]


def _retire(deletion: Deletion, indexer: Indexer, topic: TopicIndex, records: Mapping[int, int]) -> None:
    with indexer.busy:
        if (current := indexer.topics.get(topic.row.id)) is not None:  # else it was deleted meanwhile
            deletion.retire(current, records)


def _release(deletion: Deletion, indexer: Indexer, topic: TopicIndex, records: Sequence[int]) -> None:
    with indexer.busy:
        if (current := indexer.topics.get(topic.row.id)) is not None:
            deletion.release(current, records, on_request=True)


def _replaced(log: Log, topic: TopicIndex, source: str, latest: Sequence[str], gone: Sequence[str]) -> _Found:
    kept, found = topic.config.versions_kept, _Found({}, [])
    now = log.topic(topic.row.name).next_seq
    with log.reading() as db:
        for keys, newest_stays in ((gone, False), (latest, True)):
            by_key = _by_key(db, topic.row.id, source, keys)
            before = former.among(db, {record for records in by_key.values() for record in records})
            for records in by_key.values():
                present = sorted(record for record in records if record not in before)
                last = present[-1] if newest_stays and present else None
                until = now if last is None else last & SEQ_MASK
                past = sorted([*(r for r in records if r in before), *(r for r in present if r != last)])
                surplus = past[: max(len(past) - kept, 0)]
                found.surplus.extend(surplus)
                found.replaced.update((r, until) for r in present if r != last and r not in surplus)
    return found


def _by_key(db: apsw.Connection, topic: int, source: str, keys: Sequence[str]) -> dict[str, list[int]]:
    """The records (by id) that `source` stored under each of `keys`, in all its runs."""
    found: dict[str, list[int]] = {}
    prefix = f"{source}#"
    rows = db.execute(
        "SELECT r.id, r.key FROM stream s JOIN record r ON r.stream = s.id WHERE s.topic = ? AND substr(s.name, 1, ?) = ? "
        "AND r.id >> ? = ? AND r.key IN (SELECT value FROM json_each(?))",
        (topic, len(prefix), prefix, SEQ_BITS, topic, orjson.dumps(list(keys)).decode()),
    )
    for id, key in rows:
        found.setdefault(key, []).append(id)
    return found


def _keys(state: Mapping[str, Any] | None, name: str) -> list[str]:
    """The texts under `name`; none where it is not a list of texts."""
    listed = state.get(name) if state else None
    return [key for key in listed if isinstance(key, str)] if isinstance(listed, list) else []
