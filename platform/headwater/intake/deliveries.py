"""Batches of a source into the log: records together with the state that resumes behind them, and what is no record, or
cannot be stored, as dead letters. The daemon's own sources and `headwater ingest` come this way.

Dead letters are written before the state moves, and one that is written already is not written again: whenever the
process ends, the batch can be delivered again and nothing of it is lost or doubled.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread

from headwater.batches import Delivered, Fault
from headwater.errors import ConflictError, UsageError
from headwater.log.store import Log, Origin, add_dead_letter
from headwater.records import Appended, Draft

if TYPE_CHECKING:
    import apsw

    from headwater.index.topic import TopicIndex

PAYLOAD_CHARS = 2000
_LOOK_BACK = 20_000  # dead letters among which one delivered again is looked for: more than a batch has
Append = Callable[[Sequence[Draft], Origin], Awaitable[Appended]]


class Letter(NamedTuple):
    """Input to be kept as a dead letter; `source` says where it stood."""

    stage: str
    reason: str
    payload: str
    source: str


async def receive(
    append: Append, log: Log, topic: TopicIndex, source: str, drafts: Sequence[Draft], stream: str,
    state: Mapping[str, Any] | None, faults: Sequence[Fault],
) -> Delivered:  # fmt: skip
    """As `Verbs.deliver`, into one topic."""
    name = f"{source}@{topic.row.id}"  # a topic that was deleted and made anew has had nothing yet
    if not drafts and not faults and state is None:
        return Delivered(state=await anyio.to_thread.run_sync(log.source_state, name))
    if any(draft.position is None for draft in drafts):
        raise UsageError("a record of a source needs its position: the place in `stream` that it came from")
    origin = Origin(stream or source, None if state is None else name, state)
    return await deliver(append, log, topic, drafts, origin, faults, source)


async def deliver(
    append: Append, log: Log, topic: TopicIndex, drafts: Sequence[Draft], origin: Origin, faults: Sequence[Fault], place: str
) -> Delivered:
    """Store a batch in a topic. `place` names the source where dead letters are shown. Raises StorageError,
    and then the batch is to be delivered again."""
    letters = [Letter("source", f.reason, f.payload, f"{place} at {f.position}") for f in faults]
    if letters:
        await _thread(log, topic, letters, PAYLOAD_CHARS)
    try:
        done = _counted(await append(drafts, origin))
    except ConflictError:
        raise
    except UsageError:
        done = await _each(append, log, topic, drafts, Origin(origin.stream), place)
        await append((), origin)
    return Delivered(done.stored, done.duplicates, done.dead_letters + len(letters), origin.state)


async def _each(append: Append, log: Log, topic: TopicIndex, drafts: Sequence[Draft], origin: Origin, place: str) -> Delivered:
    """Store what can be; drafts that cannot become dead letters. The state is not moved: that comes after all."""
    try:
        return _counted(await append(drafts, origin))
    except UsageError as error:
        if len(drafts) > 1:
            middle = len(drafts) // 2
            a = await _each(append, log, topic, drafts[:middle], origin, place)
            b = await _each(append, log, topic, drafts[middle:], origin, place)
            return Delivered(a.stored + b.stored, a.duplicates + b.duplicates, a.dead_letters + b.dead_letters)
        reason = str(error).removeprefix("record 0: ")
        letters = [Letter("intake", reason, str(draft.value), f"{place} at {draft.position}") for draft in drafts]
        await _thread(log, topic, letters)
        return Delivered(dead_letters=len(letters))


def _counted(reply: Appended) -> Delivered:
    again = sum(receipt.duplicate for receipt in reply.records)
    return Delivered(len(reply.records) - again, again)


async def _thread(log: Log, topic: TopicIndex, letters: Sequence[Letter], most: int | None = None) -> None:
    await anyio.to_thread.run_sync(set_aside, log, topic, letters, most)


def set_aside(log: Log, topic: TopicIndex, letters: Sequence[Letter], most: int | None = None) -> None:
    """Keep input that is no record, at most so many characters of each, in one transaction; what was kept from the same place
    for the same reason is not kept twice. A topic that redacts does so here too."""
    now_ms, id = time.time_ns() // 1_000_000, topic.row.id
    if (redacting := topic.redacting) is not None:
        letters = [one._replace(reason=redacting.text(one.reason), payload=redacting.text(one.payload)) for one in letters]

    def write(db: apsw.Connection) -> None:
        newest = "SELECT source, reason FROM dead_letter WHERE topic = ? AND seq IS NULL ORDER BY id DESC LIMIT ?"
        known = set(db.execute(newest, (id, _LOOK_BACK)))
        for letter in letters:
            if (letter.source, letter.reason) not in known:
                payload = letter.payload[:most].encode("utf-8", "replace").decode()  # lone surrogates cannot be stored
                add_dead_letter(db, id, letter.stage, letter.reason, payload, now_ms, source=letter.source)

    log.write(write, rows=len(letters))
