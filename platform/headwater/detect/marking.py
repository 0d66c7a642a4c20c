"""What stands out on a timeline: anomalies of its topics, events of those that have few, troubles seen for the first time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headwater.detect import store
from headwater.detect.explain import told
from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.keyword.scope import Scope
from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log
from headwater.records import from_ms
from headwater.records.anomalies import KINDS, SEVERITIES
from headwater.records.levels import is_bad
from headwater.records.markers import Marker

MOST = 40  # markers of one timeline
MOST_EVENTS = 20  # records of a topic in that time, up to which each is an event
_RARE = 5  # times as many have all topics together at least, else none is a topic of events
_LOOKED_AT = 400  # new passages of a topic
_TEXT = 120


def markers(log: Log, keyword: KeywordIndex, topics: Iterable[TopicIndex], start_ms: int, end_ms: int) -> tuple[Marker, ...]:
    """In order of time; where there are too many, anomalies go first, then events, then what was new earliest."""
    by_id = {topic.row.id: topic for topic in topics}
    rows = store.read(
        log, list(by_id), since_ms=start_ms, until_ms=end_ms, before=None, limit=MOST, kinds=KINDS, severities=SEVERITIES,
        quiet=True, dismissed=False,
    )  # fmt: skip
    found = [told(log, by_id[row.topic], row) for row in rows]
    marked = [Marker(a.start, a.topic, "anomaly", _line(a.what), a.severity, a.id) for a in found]
    marked += _events(log, keyword, by_id, start_ms, end_ms)[: MOST - len(marked)]
    fresh = [m for topic in by_id.values() if topic.kind == "template" for m in _new(topic, start_ms, end_ms)]
    fresh.sort(key=lambda m: (m.at, m.topic, m.id))
    return tuple(sorted([*marked, *fresh[: MOST - len(marked)]], key=lambda m: (m.at, m.topic, m.kind, m.id)))


def _events(log: Log, keyword: KeywordIndex, topics: Mapping[int, TopicIndex], start_ms: int, end_ms: int) -> list[Marker]:
    """The records of topics that have few of them beside the others, oldest first: deploys, changes, tickets."""
    counts = keyword.counts(Scope(tuple(topics), since_ms=start_ms, until_ms=end_ms)) if topics else {}
    rare = [id for id, count in counts.items() if count <= MOST_EVENTS and count * _RARE <= sum(counts.values())]
    if not rare:
        return []
    found = keyword.latest(Scope(tuple(rare), since_ms=start_ms, until_ms=end_ms), limit=MOST, by="time")
    rows = log.rows_of({match.topic << SEQ_BITS | match.seq for match in found})
    made = []
    for id, row in rows.items():
        record = row.record(topics[id >> SEQ_BITS].row.name)
        made.append(
            Marker(
                record.timestamp,
                record.topic,
                "event",
                _line(record.value),
                str(record.attributes.get("level") or ""),
                record.address,
            )
        )
    return sorted(made, key=lambda marker: (marker.at, marker.id))


def _new(topic: TopicIndex, start_ms: int, end_ms: int) -> Iterable[Marker]:
    """Troubles first seen in that time; none where the topic itself began then, for all of it is new."""
    rows = topic.catalogue.frequent(_LOOKED_AT, new_since_ms=start_ms)
    if len(rows) == topic.catalogue.count():
        return
    for row in rows:
        if row.first_ms < end_ms and is_bad(row.level):
            yield Marker(from_ms(row.first_ms), topic.row.name, "new", _line(row.text), row.level or "", str(row.id))


def _line(text: str) -> str:
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= _TEXT else first[: _TEXT - 3] + "..."
