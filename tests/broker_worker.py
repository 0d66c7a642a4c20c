"""A process that follows a broker, or a file, until it is killed: the victim of the tests of Kafka, NATS and tails.

    python broker_worker.py kafka|nats|file < orders        each order: DIRECTORY ADDRESS NAME GROUP, with tabs between

NAME is the topic or stream, GROUP a consumer group or nothing; of a file ADDRESS is the path. It imports what it needs; each
order is carried out by a process forked for it, which says so after each batch it has stored.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from brokers import follow, settings_for
from headwater.engine import Engine
from headwater.sources import Batch, Condition, Source, State


def source_of(kind: str, address: str, name: str, group: str) -> Source:
    """The source that both the victims and the test itself use."""
    if kind == "kafka":
        from headwater.sources.kafka import KafkaSource

        return KafkaSource(address, name, "in", group=group or None, batch_records=20, session_timeout_s=2, environment={})
    if kind == "file":
        from headwater.sources.tail import FileTail

        return FileTail(address, "in", batch_records=20, poll_s=0.02, quiet_s=0.2, drain_s=0.2)
    from headwater.sources.nats import NatsSource

    return NatsSource(address, name, "in", batch_records=20, environment={})


class _Telling:
    """A source that says when its last batch has been stored."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.kind, self.topic = source.name, source.kind, source.topic

    @property
    def condition(self) -> Condition:
        return self._source.condition

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        async with aclosing(self._source.batches(state)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch
                os.write(1, b"stored\n")


async def work(kind: str, directory: str, address: str, name: str, group: str) -> None:
    async with Engine(settings_for(Path(directory))) as engine:
        await follow(engine, _Telling(source_of(kind, address, name, group)))


if __name__ == "__main__":
    import headwater.embed.hash
    import headwater.keyword.index  # warm before the order comes

    if sys.argv[1] == "kafka":
        import confluent_kafka  # noqa: F401
    elif sys.argv[1] == "file":
        import headwater.sources.tail  # noqa: F401
    else:
        import nats.js  # noqa: F401
    os.write(1, b"warm\n")
    for order in sys.stdin:
        victim = os.fork()
        if victim == 0:
            os.write(1, b"born %d\n" % os.getpid())
            directory, address, name, group = order.rstrip("\n").split("\t")
            asyncio.run(work(sys.argv[1], directory, address, name, group))
            os._exit(0)
        os.write(1, b"ended by signal %d\n" % os.WTERMSIG(os.waitpid(victim, 0)[1]))
