"""What an anomaly tells people: made of its numbers and the records they point to, when it is found and when it is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from headwater.detect.budget import Incident
from headwater.detect.near import nearest_before
from headwater.detect.seen import MINUTE_MS, Seen
from headwater.detect.store import AnomalyRow
from headwater.index.topic import TopicIndex
from headwater.log.schema import SEQ_BITS, SEQ_MASK
from headwater.log.store import Log
from headwater.records import address, from_ms
from headwater.records.anomalies import Anomaly, DetectorKind, Normal, Severity, Signal

MOST_DAYS = 3650.0  # what is rarer than once in ten years is not told more exactly
_NORMAL = 3
_TEXT = 160
_BACK = {"rate": 3, "new": 2, "drift": 2, "numeric": 5, "silence": 0, "sequence": 5}  # minutes from which signals speak


def body_of(topic: TopicIndex, incident: Incident) -> tuple[DetectorKind, Severity, int, dict[str, Any]]:
    """What is kept of an incident: kind, severity, start (ms), and its signals with the nearest normal passages."""
    first = incident.signals[0][0]
    signals = [[*one, round(decades, 3)] for one, decades in incident.signals]
    normal = _nearest(topic, incident.signals)
    body = {"days": min(incident.by_chance_days, MOST_DAYS), "signals": signals, "normal": normal}
    start_ms = min(one.at_ms - _back_ms(one) for one, _ in incident.signals[:1])
    return first.kind, _severity(incident), max(start_ms, incident.opened_ms - 30 * MINUTE_MS), body


def _back_ms(one: Seen) -> int:
    if one.family == "drift.topic":
        return 0
    if one.kind == "silence":
        return int("".join(c for c in one.unit if c.isdigit()) or 0) * MINUTE_MS
    return _BACK[one.kind] * MINUTE_MS


def _severity(incident: Incident) -> Severity:
    """By how far beyond the line it is, and whether troubles (level warn and worse) are part of it."""
    beyond = math.log10(max(incident.by_chance_days / incident.line_days, 1.0))
    bad = any(one.family.endswith(".bad") and decades >= 1 for one, decades in incident.signals)
    wide = sum(decades >= 2 for _, decades in incident.signals) >= 3
    if bad and beyond >= 4 and wide:
        return "critical"
    if (bad and beyond >= 1) or beyond >= 4:
        return "high"
    return "medium" if bad or beyond >= 1 else "low"


def _nearest(topic: TopicIndex, signals: Iterable[tuple[Seen, float]]) -> list[list[float]]:
    """`[passage, similarity]` of the passages nearest in meaning to the oddest one, from before it."""
    for one, _ in signals:
        if one.passage is None or topic.vectors is None:
            continue
        ids, vectors = topic.catalogue.vectors([one.passage])
        if len(ids):
            near = nearest_before(topic, one.passage, vectors[0])
            return [[id, round(min(max(score, 0.0), 1.0), 3)] for id, score in near[:_NORMAL]]
    return []


def told(log: Log, topic: TopicIndex, row: AnomalyRow) -> Anomaly:
    """An anomaly with its words, as the records that are left allow."""
    signals = [(Seen(*values[:-1]), float(values[-1])) for values in row.body["signals"]]
    normal = [(int(id), float(similarity)) for id, similarity in row.body["normal"]]
    wanted = {one.passage for one, _ in signals if one.passage is not None} | {id for id, _ in normal}
    texts = {id: known.text for id, known in topic.catalogue.rows([topic.resolve(id) for id in wanted]).items()}
    text_of = {id: texts.get(topic.resolve(id)) for id in wanted}
    places = _places(log, topic, [one.seq for one, _ in signals if one.seq is not None])
    days = float(row.body["days"])
    seen = tuple(
        Signal(one.kind, from_ms(one.at_ms), one.subject, _sentence(one, text_of), one.observed, one.expected, one.unit,
               round(min(10**decades * 5 / 1440, MOST_DAYS), 4), None if one.seq is None else places.get(one.seq))
        for one, decades in signals
    )  # fmt: skip
    first = signals[0][0]
    more = f", and {len(signals) - 1} more" if len(signals) > 1 else ""
    what = f"{seen[0].what}{more}; chance alone brings this once in {_days(days)}"
    return Anomaly(
        f"{topic.row.name}-{row.n}", topic.row.name, row.kind, row.severity, what, from_ms(row.start_ms), from_ms(row.end_ms),
        from_ms(row.found_ms), round(days, 4), first.observed, first.expected, first.unit, first.passage,
        None if first.passage is None else text_of.get(first.passage), first.field, first.session,
        tuple(dict.fromkeys(s.address for s in seen if s.address is not None)), _normal(log, topic, normal), seen,
        row.alerted, row.quiet, row.feedback, row.note,
    )  # fmt: skip


def _places(log: Log, topic: TopicIndex, seqs: Iterable[int]) -> dict[int, str]:
    """seq -> address of the records that are left."""
    rows = log.rows_of({topic.row.id << SEQ_BITS | seq for seq in seqs})
    return {id & SEQ_MASK: address(topic.row.name, row.partition, row.offset) for id, row in rows.items()}


def _normal(log: Log, topic: TopicIndex, pairs: Iterable[tuple[int, float]]) -> tuple[Normal, ...]:
    pairs = [(topic.resolve(id), similarity) for id, similarity in pairs]
    known = topic.catalogue.rows([id for id, _ in pairs])
    newest = topic.catalogue.newest([id for id, _ in pairs])
    places = _places(log, topic, [id & SEQ_MASK for id in newest.values()])
    return tuple(
        Normal(known[id].text, similarity, known[id].total, places.get(newest[id] & SEQ_MASK) if id in newest else None)
        for id, similarity in pairs
        if id in known
    )


def _sentence(one: Seen, texts: Mapping[int, str | None]) -> str:
    text = _short(texts.get(one.passage) if one.passage is not None else None)
    count = "" if one.observed is None else f"{one.observed:,.0f}"
    usual = "" if one.expected is None else f"{one.expected:,.1f}"
    match one.kind:
        case "rate" if one.passage is None:
            return f"{count} records {one.unit}, where about {usual} are usual"
        case "rate":
            return f'"{text}" came {count} times {one.unit}, where about {usual} are usual'
        case "new":
            what = "came back after a long time" if one.unit.startswith("rare") else "was never seen before"
            others = f" (one of {count} {one.unit})" if (one.observed or 0) > 1 else ""
            return f'"{text}" {what}{others}'
        case "drift" if one.family == "drift.topic":
            far = f"distance {one.observed}, usually {one.expected}"
            return f'the topic says other things than it used to ({far}), above all "{text}"'
        case "drift":
            return f'"{text}" is unlike anything before it: {one.observed} similar to the nearest'
        case "numeric":
            return f"the {one.unit} was {_number(one.observed)}, where about {_number(one.expected)} is usual"
        case "silence":
            return f"nothing from {_short(one.subject.removeprefix('key:'))} {one.unit}, where about {usual} records are usual"
        case "sequence":
            share = f"{(one.observed or 0) * 100:.2g}%"
            return f'in {_short(one.session)} "{text}" came in an order that {share} of such steps have'


def _short(text: str | None) -> str:
    if text is None:
        return "(its records are gone)"
    first = text.strip().split("\n", 1)[0]
    return first if len(first) <= _TEXT else first[: _TEXT - 3] + "..."


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.4g}"


def _days(days: float) -> str:
    if days >= MOST_DAYS:
        return "ten years or more"
    if days >= 2:
        return f"{days:,.0f} days"
    return f"{days * 24:,.0f} hours" if days * 24 >= 2 else f"{days * 1440:,.0f} minutes"
