"""The reading of one run of a Kafka source: the client, the partitions in hand and the place in each. Sync; one thread.

A partition's place is, in this order: the one kept in the log; what the group has committed; the start or, at the source's
very first start with `from_start` off, the end. Kept or committed places of a topic that has since been deleted and made
anew (its id is another) do not count.

What is committed says which log it was stored in. Where another log has come further, as it has when a partition comes back
from another member of the group, reading goes on behind that: each message is in one of the logs. What this very log committed
never counts against the log itself, which may have been restored from a backup.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater.batches import Fault
from headwater.errors import UnreachableError
from headwater.records import Draft
from headwater.sources import State
from headwater.sources.kafka_hearing import Hearing, is_named, missing, said
from headwater.sources.messages import Message, Reading

if TYPE_CHECKING:
    import confluent_kafka as ck
    from confluent_kafka.admin import AdminClient

    from headwater.sources.kafka import KafkaSource

logger = logging.getLogger(__name__)
_POLL_S = 0.25  # the longest one call waits, and so a cancellation
_COMMIT_S = 2.0  # how often the group is told
_LONG_AGO = -1e9
_RETRY_S = 1.0  # how often, while no broker answers
_CALL_S = 3.0  # for a request to the broker
Tp = tuple[str, int]


@dataclass(slots=True)
class Piece:
    """Messages of one partition, in order, as drafts and faults; `next` is the offset behind the last. One without a
    partition only tells the places."""

    tp: Tp | None = None
    next: int = 0
    stream: str = ""
    drafts: list[Draft] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: int = 0


Pieces = Sequence[Piece]


class Take(NamedTuple):
    """How a message becomes a draft."""

    reading: Reading
    coordinates: bool
    tombstones: bool

    def add(self, message: ck.Message, offset: int, piece: Piece) -> None:
        """Take the message into the piece."""
        value = message.value()
        piece.next = offset + 1
        if value is None and not self.tombstones:
            piece.skipped += 1
            return
        attributes: dict[str, str | int | bool] = {}
        if self.coordinates:
            attributes = {"kafka.topic": message.topic() or "", "kafka.partition": message.partition() or 0}
            attributes["kafka.offset"] = offset
        if value is None:
            attributes["kafka.tombstone"] = True
        kind, at_ms = message.timestamp()
        key, told = message.key(), message.headers() or ()
        headers = tuple(told.items() if isinstance(told, dict) else told)
        found = self.reading.draft(
            Message(_bytes(value), offset, None if key is None else _bytes(key), at_ms if kind else None, headers, attributes)
        )
        if isinstance(found, Draft):
            piece.drafts.append(found)
        else:
            piece.faults.append(found)


@dataclass(slots=True)
class _Topic:
    """A topic's id, and the next offset of each of its partitions that is known."""

    id: str
    next: dict[int, int] = field(default_factory=dict)
    generation: int = 0  # how often it was cut below what was read

    def stream(self, name: str, partition: int) -> str:
        again = f"~{self.generation}" if self.generation else ""
        return f"kafka:{name}/{partition}#{self.id}{again}"


class Reader:
    """Reads batches of messages; `step` does a bounded piece of work in one thread. `state`, `take_over` and `stored` are
    called while no `step` runs."""

    def __init__(self, source: KafkaSource, state: State | None) -> None:
        self._source = source
        self._first = state is None
        self._log = str((state or {}).get("log") or secrets.token_hex(8))  # tells this log from those of other members
        self._topics = {
            name: _Topic(t["id"], {int(p): int(n) for p, n in t["next"].items()}, t.get("generation", 0))
            for name, t in (state or {}).get("topics", {}).items()
        }
        self._reading: dict[Tp, int] = {}  # partitions in hand: the next offset expected of the client
        self._to_commit: dict[Tp, int] = {}
        self._consumer: ck.Consumer | None = None
        self._admin: AdminClient | None = None
        self._moved = False  # places were set that the log does not know yet
        self._trouble = self._rebalanced = self._missing = False
        self._hearing = Hearing(logger, self._on_failure)
        self._committed_at = self._looked_at = self._measured_at = _LONG_AGO
        self._silent_ids = 0  # how often the broker was asked for ids and said nothing

    # ------------------------------------------------------------------------------------------------- between steps
    def state(self) -> State:
        """Where to go on, with all that was taken over."""
        topics: dict[str, dict[str, Any]] = {}
        for name, topic in self._topics.items():
            topics[name] = {"id": topic.id, "next": {str(p): n for p, n in topic.next.items()}}
            if topic.generation:
                topics[name]["generation"] = topic.generation
        return {"log": self._log, "topics": topics}

    def take_over(self, piece: Piece) -> None:
        """Move the place behind the piece."""
        if piece.tp is not None:
            self._topics[piece.tp[0]].next[piece.tp[1]] = piece.next

    def stored(self, piece: Piece) -> None:
        """The piece lies in the log."""
        if piece.tp is not None:
            self._to_commit[piece.tp] = piece.next

    # --------------------------------------------------------------------------------------------------------- a step
    def step(self) -> Pieces:
        """What has come, by partition; nothing where nothing has. Raises UnreachableError, and is then to be closed."""
        import confluent_kafka as ck

        try:
            consumer = self._consumer or self._open()
            self._commit(consumer)
            settled = self._reading and not self._trouble
            if time.monotonic() - self._looked_at >= (self._source.look_s if settled else _RETRY_S):
                self._look(consumer)
            first = consumer.poll(_POLL_S)
            found = [] if first is None else [first]
            if found and self._source.batch_records > 1:
                found += consumer.consume(self._source.batch_records - 1, timeout=0)
            if self._rebalanced:  # some may be from before, some from after: all again, from the places that hold now
                self._rebalanced, found = False, []
                self._assign(consumer)
            pieces = self._pieces(consumer, found)
            if self._measure(consumer) and not pieces:
                self._moved = True  # so that what was told of the lag does not stay when nothing comes
        except ck.KafkaException as error:
            raise UnreachableError(f"Kafka at {self._source.config['bootstrap.servers']}: {said(error)}") from error
        if self._moved:
            self._moved = False
            return [Piece(), *pieces]
        return pieces

    def close(self) -> None:
        """Tell the group how far the log has come, and leave it; where no broker answers, it is left to find out."""
        consumer, self._consumer, self._admin = self._consumer, None, None
        if consumer is not None and self._answers(consumer):
            self._committed_at = _LONG_AGO
            self._commit(consumer)
            consumer.close()  # waits for the answer

    def _answers(self, consumer: ck.Consumer) -> bool:
        """Whether there is a broker to take leave of: without one that would wait for many seconds, and for nothing."""
        import confluent_kafka as ck

        try:
            return self._source.group is None or consumer.list_topics(timeout=_RETRY_S) is not None
        except ck.KafkaException as error:
            logger.info("the group was not left: %s", said(error))
            return False

    def _open(self) -> ck.Consumer:
        import confluent_kafka as ck
        from confluent_kafka.admin import AdminClient

        source = self._source
        source.note("connecting")
        self._consumer = consumer = ck.Consumer(
            {**source.config, "error_cb": self._on_error, "on_commit": self._on_commit, "logger": self._hearing}
        )
        shared = ("bootstrap.", "client.", "reconnect.", "security.", "sasl.", "ssl.")
        admin = {name: value for name, value in source.config.items() if name.startswith(shared)}
        self._admin = AdminClient(dict[str, Any](admin, logger=logger))
        if source.group is not None:
            consumer.subscribe(list(source.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
            self._looked_at = time.monotonic()
        return consumer

    def _pieces(self, consumer: ck.Consumer, messages: Iterable[ck.Message]) -> list[Piece]:
        pieces: dict[Tp, Piece] = {}
        lost: list[Tp] = []
        for message in messages:
            tp = (message.topic() or "", message.partition() or 0)
            if (error := message.error()) is not None:
                if self._is_out_of_range(tp, error):
                    lost.append(tp)
                continue
            expected, offset = self._reading.get(tp), message.offset()
            if self._trouble or expected is None or offset is None or offset < expected:
                continue  # from before a rebalance or an outage, behind which all is read from its place
            piece = pieces.get(tp)
            if piece is None:
                piece = pieces[tp] = Piece(tp, stream=self._topics[tp[0]].stream(*tp))
            self._source.take.add(message, offset, piece)
            self._reading[tp] = piece.next
        if skipped := sum(piece.skipped for piece in pieces.values()):
            self._source.note("following", count="tombstones", by=skipped)
        if pieces and self._source.condition.state != "following":
            self._source.note("following")
        for tp in lost:
            self._find_again(consumer, tp)
        return list(pieces.values()) if not lost else []  # all is read again from its place

    # ------------------------------------------------------------------------------------------------ partitions in hand
    def _on_assign(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self._place(consumer, [(p.topic, p.partition) for p in partitions], given=True)
        self._rebalanced = True

    def _on_revoke(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        self._committed_at = _LONG_AGO
        self._commit(consumer, wait=not self._trouble)  # the next member begins behind it
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: ck.Consumer, partitions: list[ck.TopicPartition]) -> None:
        for p in partitions:
            self._reading.pop((p.topic, p.partition), None)
            self._to_commit.pop((p.topic, p.partition), None)

    def _place(self, consumer: ck.Consumer, wanted: Sequence[Tp], *, given: bool = False) -> None:
        """Have the client read exactly the wanted partitions, each from its place; `given` by the group."""
        ids = self._ids({name for name, _ in wanted})
        remade: set[str] = set()
        for name in dict.fromkeys(name for name, _ in wanted):
            known, id = self._topics.get(name), ids.get(name)
            if known is None:
                self._topics[name] = _Topic(id or f"-{self._cluster(consumer)}")
            elif id is not None and id != known.id and not known.id.startswith("-"):
                logger.warning("the Kafka topic %s was deleted and made anew; it is read from its start", name)
                self._source.note("following", count="topics_made_anew")
                remade.add(name)
                self._topics[name] = _Topic(id)
        fresh = [(name, p) for name, p in wanted if p not in self._topics[name].next]
        committed = self._committed(consumer, wanted if given else [tp for tp in fresh if self._source.group], remade)
        for name, p in wanted:
            self._topics[name].next[p] = self._start(consumer, (name, p), committed.get((name, p)))
        self._reading = {(name, p): self._topics[name].next[p] for name, p in wanted}
        self._assign(consumer)
        told = {tp: at for tp, (at, _) in committed.items()}
        self._to_commit |= {tp: at for tp, at in self._reading.items() if tp in fresh or (given and told.get(tp) != at)}
        self._first, self._moved, self._trouble = False, True, False
        self._source.note("following" if wanted else "without partitions")

    def _assign(self, consumer: ck.Consumer) -> None:
        import confluent_kafka as ck

        consumer.assign([ck.TopicPartition(name, p, at) for (name, p), at in self._reading.items()])

    def _start(self, consumer: ck.Consumer, tp: Tp, committed: tuple[int, bool] | None) -> int:
        """Where to read a partition from; `committed` is an offset, and whether another log has come that far."""
        known = self._topics[tp[0]].next.get(tp[1])
        if committed is not None and (known is None or (committed[1] and committed[0] > known)):
            return committed[0]
        if known is not None:
            return known
        low, high = self._ends(consumer, tp)
        return high if self._first and not self._source.from_start else low

    def _committed(self, consumer: ck.Consumer, asked: Sequence[Tp], remade: set[str]) -> dict[Tp, tuple[int, bool]]:
        """What the group has committed for the topics as they are now, and whether it was for another log."""
        import confluent_kafka as ck

        found: dict[Tp, tuple[int, bool]] = {}
        told = consumer.committed([ck.TopicPartition(*tp) for tp in asked], timeout=_CALL_S) if asked else []
        for p in told:
            _, log, id = note if len(note := (p.metadata or "").split(" ")) == 3 else ("", "", "")
            is_of_now = id == self._topics[p.topic].id if id else p.topic not in remade
            if p.offset >= 0 and is_of_now:
                found[p.topic, p.partition] = (p.offset, log not in ("", self._log))
        return found

    def _find_again(self, consumer: ck.Consumer, tp: Tp) -> None:
        """The broker has no such offset: go on with the nearest it has, and say what that may have cost."""
        low, high = self._ends(consumer, tp)
        topic = self._topics[tp[0]]
        if topic.next[tp[1]] > high:  # what was read is gone there, and its offsets will be used again
            topic.generation += 1
            logger.warning("%s/%s ends at %s, before what was read from it", *tp, high)
            self._source.note("following", count="cuts")
            topic.next[tp[1]] = low if topic.id.startswith("-") else high  # without an id it may be another topic
        else:
            logger.warning("%s/%s begins at %s by now; messages before it were not read", *tp, low)
            self._source.note("following", count="gaps")
            topic.next[tp[1]] = low
        self._place(consumer, list(self._reading))

    def _look(self, consumer: ck.Consumer) -> None:
        """See what is there: new partitions, where this source chooses them itself; topics made anew; the broker itself."""
        import confluent_kafka as ck

        self._looked_at = time.monotonic()
        try:
            there = consumer.list_topics(timeout=_RETRY_S).topics
        except ck.KafkaException as error:
            self._trouble = True
            self._source.note("unreachable", self._unreachable(said(error)))
            return
        if self._trouble and self._source.group is not None and not all(name in there for name, _ in self._reading):
            self._source.note("waiting for the topic", missing(self._source.topics, there))  # it may be another when it comes
            return
        wanted = list(self._reading)
        if self._source.group is None:
            names = [name for name in there if any(is_named(name, pattern) for pattern in self._source.topics)]
            wanted = [(name, p) for name in names if there[name].error is None for p in there[name].partitions]
        ids = self._ids({name for name, _ in self._reading})
        remade = any(not (known := self._topics[n].id).startswith("-") and id != known for n, id in ids.items())
        if set(wanted) != set(self._reading) or (wanted and (self._trouble or remade)):
            self._place(consumer, wanted)
        elif self._trouble:
            self._trouble = False
            self._source.note("joining the group")
        if not wanted and self._source.group is None:
            self._moved = self._moved or self._first  # what comes from now on is to be read from its start
            self._first = False
            self._source.note("waiting for the topic")
        self._tell_missing(there)

    def _tell_missing(self, there: Collection[str]) -> None:
        """Say which topics are not there; one may be made later, and one may be a slip of the pen."""
        was, error = self._missing, missing(self._source.topics, there)
        self._missing = error is not None
        if error is not None:
            self._source.note("following" if self._reading else "waiting for the topic", error)
        elif was:
            self._source.note("following" if self._reading else "joining the group")

    # ---------------------------------------------------------------------------------------------- asking the broker
    def _ids(self, names: set[str]) -> dict[str, str]:
        """The ids of those topics that have one and say so."""
        import confluent_kafka as ck

        if not names or self._admin is None or self._silent_ids > 1:
            return {}
        asked = self._admin.describe_topics(ck.TopicCollection(list(names)), request_timeout=_CALL_S)
        found: dict[str, str] = {}
        for name, future in asked.items():
            try:
                id = future.result(_CALL_S + 1).topic_id
            except ck.KafkaException as error:
                if error.args[0].code() == ck.KafkaError._TIMED_OUT:
                    self._silent_ids += 1
                continue
            except TimeoutError:
                self._silent_ids += 1
                continue
            self._silent_ids = 0
            if id is not None and (id.get_most_significant_bits() or id.get_least_significant_bits()):
                found[name] = str(id)
        return found

    @staticmethod
    def _cluster(consumer: ck.Consumer) -> str:
        return str(consumer.list_topics(timeout=_CALL_S).cluster_id)

    @staticmethod
    def _ends(consumer: ck.Consumer, tp: Tp) -> tuple[int, int]:
        import confluent_kafka as ck

        ends = consumer.get_watermark_offsets(ck.TopicPartition(*tp), timeout=_CALL_S)
        if ends is None:
            raise UnreachableError(f"Kafka does not say where {tp[0]}/{tp[1]} begins and ends")
        return ends

    def _measure(self, consumer: ck.Consumer) -> bool:
        """Once a second, see how far behind reading is; whether that has changed."""
        import confluent_kafka as ck

        if time.monotonic() - self._measured_at < 1 or self._trouble:
            return False
        self._measured_at = time.monotonic()
        lag = {}
        for (name, p), at in self._reading.items():
            ends = consumer.get_watermark_offsets(ck.TopicPartition(name, p), cached=True)
            if ends is not None and ends[1] >= 0:
                lag[f"{name}/{p}"] = max(0, ends[1] - at)
        before, self._source.lag = self._source.lag, lag
        return before != lag

    def _commit(self, consumer: ck.Consumer, *, wait: bool = False) -> None:
        """Tell the group, which is for others to see; a failure costs nothing here."""
        import confluent_kafka as ck

        if not self._to_commit or self._source.group is None or time.monotonic() - self._committed_at < _COMMIT_S:
            return
        self._committed_at = time.monotonic()
        told = [
            ck.TopicPartition(name, p, at, f"headwater {self._log} {self._topics[name].id}")
            for (name, p), at in self._to_commit.items()
        ]
        self._to_commit = {}
        try:
            if wait:
                consumer.commit(offsets=told, asynchronous=False)
            else:
                consumer.commit(offsets=told, asynchronous=True)
        except ck.KafkaException as error:
            logger.info("the group was not told where reading stands: %s", said(error))

    def _on_commit(self, error: ck.KafkaError | None, told: list[ck.TopicPartition]) -> None:
        """What the group did not take, as while its members change, is told again, as far as the log has come by now."""
        for p in told:
            tp = (p.topic, p.partition)
            if (error is not None or p.error is not None) and tp in self._reading:
                self._to_commit.setdefault(tp, self._topics[p.topic].next[p.partition])

    # --------------------------------------------------------------------------------------------------------- trouble
    def _on_error(self, error: ck.KafkaError) -> None:
        """An error that is not about one partition. The client goes on trying by itself, with pauses of up to 5 s."""
        import confluent_kafka as ck

        grave = (ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._AUTHENTICATION, ck.KafkaError._RESOLVE, ck.KafkaError._SSL)
        if error.code() in grave:
            self._trouble = True
            self._source.note("unreachable", self._unreachable(error.str()))
        else:
            self._hearing.log(logging.INFO, "Kafka: %s", str(error))

    def _unreachable(self, words: str) -> str:
        return self._hearing.unreachable(self._source.config["bootstrap.servers"], words)

    def _on_failure(self) -> None:
        """A connection failed. Behind it the topic may be another one, so what comes is not taken before that is known."""
        self._trouble = True

    def _is_out_of_range(self, tp: Tp, error: ck.KafkaError) -> bool:
        """Whether it says that the offset asked for does not exist; any other error is noted. Raises UnreachableError where
        the client cannot go on."""
        import confluent_kafka as ck

        code = error.code()
        if error.fatal():
            raise UnreachableError(f"the Kafka client gave up: {error}")
        if code in (ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError.OFFSET_OUT_OF_RANGE):
            return tp in self._reading
        if code in (ck.KafkaError.UNKNOWN_TOPIC_OR_PART, ck.KafkaError._UNKNOWN_TOPIC):
            self._trouble = True
            self._source.note("waiting for the topic", missing([tp[0]], ()) if tp[0] else error.str())
        elif code == ck.KafkaError._MAX_POLL_EXCEEDED:
            self._source.note("rejoining the group", error.str(), count="stalls")
        else:
            self._source.note("failing", error.str())
        return False


def _bytes(data: bytes | str | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""
