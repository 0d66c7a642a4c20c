"""The versions of documents: the latest one stays, what a source says has gone goes.

A source's state may name keys: of those under `latest` only the newest record that this source stored stays, of those
under `gone` none. The state is stored in one transaction with the records, and what it asks for is done behind them;
done twice it changes nothing, so a source that is started with such a state has only to hand it out again. Records of
other sources, whatever their keys, are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import orjson

from headwater.deletion import STEP, Deletion
from headwater.indexer import Indexer
from headwater.log import Log
from headwater.schema import SEQ_BITS
from headwater.topicindex import TopicIndex

if TYPE_CHECKING:
    import apsw

_INDEXED_S = 30.0  # how long an old version waits for the new one to be found


async def settle(
    deletion: Deletion, indexer: Indexer, log: Log, topic: TopicIndex, source: str, state: Mapping[str, Any] | None
) -> int:
    """Delete the records that the state of `source` says have been replaced or are gone: how many. The newest is findable by
    words before the one it replaces goes, unless indexing is more than 30 s behind."""
    latest, gone = _keys(state, "latest"), _keys(state, "gone")
    if not latest and not gone:
        return 0
    old = await anyio.to_thread.run_sync(_old, log, topic.row.id, source, latest, gone)
    if old and latest:
        upto = (await anyio.to_thread.run_sync(log.topic, topic.row.name)).next_seq
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INDEXED_S):
                await indexer.wait(indexer.topics.get(topic.row.id, topic), upto, semantic=False)  # it may have been reopened
    for start in range(0, len(old), STEP):
        await anyio.to_thread.run_sync(_release, deletion, indexer, topic, old[start : start + STEP])
    return len(old)


def _release(deletion: Deletion, indexer: Indexer, topic: TopicIndex, records: Sequence[int]) -> None:
    with indexer.busy:
        if (current := indexer.topics.get(topic.row.id)) is not None:  # else it was deleted meanwhile
            deletion.release(current, records, on_request=True)


def _old(log: Log, topic: int, source: str, latest: Sequence[str], gone: Sequence[str]) -> list[int]:
    """The records (by id) that are to go."""
    with log.reading() as db:
        left = _by_key(db, topic, source, gone)
        kept = _by_key(db, topic, source, latest)
    return [id for ids in left.values() for id in ids] + [id for ids in kept.values() for id in sorted(ids)[:-1]]


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
