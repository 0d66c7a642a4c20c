"""What the places of a pattern hold: its newest records are laid beside its text, and their attributes are looked at.

The words between two places are looked for from left to right, so the time grows with the length of a record. A record whose
text does not fit (its pattern has generalised since) is left out.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import orjson

from headwater.index.topic import TopicIndex
from headwater.keyword.index import KeywordIndex
from headwater.log.schema import SEQ_BITS
from headwater.log.store import Log, Row
from headwater.query import text_of
from headwater.records import Pattern
from headwater.records.values import FieldValues, ValueCount
from headwater.search.searching import Plan
from headwater.templates.masking import MESSAGE_CHARS, WILD, condense

LOOKED_AT = 300  # newest records of a pattern
TOP = 5
MOST_FIELDS = 24  # of a pattern
_MOST_CHARS = 120  # of a value
_CONTEXT = 24  # characters either side of a place
_NUMBER = re.compile(r"([-+]?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s?([A-Za-z%µ/]{0,6})")
_NUMBERS = 0.9  # of the values, from which a place holds numbers


def with_values(
    log: Log, keyword: KeywordIndex, plan: Plan, topic: TopicIndex, patterns: Iterable[Pattern]
) -> tuple[Pattern, ...]:
    """Patterns of a topic with what their places and attributes hold, by the newest records in scope."""
    scope = replace(plan.scope, topics=(topic.row.id,))
    found = []
    for pattern in patterns:
        family = topic.family(pattern.passage.id)
        latest = keyword.latest(scope, limit=LOOKED_AT, passages=family)
        rows = list(log.rows_of({match.topic << SEQ_BITS | match.seq for match in latest}).values())
        found.append(replace(pattern, fields=fields_of(pattern, rows, topic.kind == "template")))
    return tuple(found)


def fields_of(pattern: Pattern, rows: Sequence[Row], template: bool) -> tuple[FieldValues, ...]:
    """The places of a pattern's text, in order, then the attributes of its records, those that most have first."""
    places: list[Counter[str]] = []
    if template and WILD in pattern.passage.text:
        pieces = Pieces(pattern.passage.text)
        cut = [values for row in rows if (values := pieces.cut(message_of(row))) is not None]
        places = [Counter(column) for column in zip(*cut, strict=True)]
    fields = [
        summary(f"{WILD}{n + 1}", "place", _context(pattern.passage.text, n), values, pattern.count, len(rows))
        for n, values in enumerate(places)
    ]
    attributes: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in (orjson.loads(row.attributes) if row.attributes else {}).items():
            if value is not None:
                attributes.setdefault(name, Counter())[text_of(value)[:_MOST_CHARS]] += 1
    ranked = sorted(attributes, key=lambda name: (-attributes[name].total(), name))
    fields += [summary(name, "attribute", "", attributes[name], pattern.count, len(rows)) for name in ranked]
    return tuple(fields[:MOST_FIELDS])


def message_of(row: Row) -> str:
    """The text that a record's template was made of."""
    return condense(row.value[row.body or 0 :])[:MESSAGE_CHARS]


class Pieces:
    """A template cut at its places."""

    def __init__(self, template: str) -> None:
        words = template.split(WILD)
        self._first, self._last = _literal(words[0]), _literal(words[-1])
        self._between = [_literal(text) for text in words[1:-1]]
        self._open = words[-1].strip() == ""

    def cut(self, message: str) -> list[str] | None:
        """What stands at each place of a message; None where it does not fit."""
        message = message.strip()
        begin = self._first.match(message)
        if begin is None:
            return None
        at, values = begin.end(), []
        for literal in self._between:
            found = literal.search(message, at)
            if found is None:
                return None
            values.append(message[at : found.start()])
            at = found.end()
        end = len(message)
        if not self._open:
            ends = [found.start() for found in self._last.finditer(message, at)]
            if not ends:
                return None
            end = ends[-1]
        values.append(message[at:end])
        return [value.strip()[:_MOST_CHARS] for value in values]


def _literal(text: str) -> re.Pattern[str]:
    """The words between two places: blanks may be any, digits any number, as in the template's folded text."""
    parts = (re.escape(part) if part.strip() else r"\s+" for part in re.split(r"(\s+)", text) if part)
    return re.compile(re.sub(r"0+", "[0-9]+", "".join(parts)))


def _context(template: str, n: int) -> str:
    """The place with the words around it."""
    words = template.split(WILD)
    before, after = words[n], words[n + 1]
    if len(before) > _CONTEXT:
        before = before[-_CONTEXT:].partition(" ")[2] or before[-_CONTEXT:]
    if len(after) > _CONTEXT:
        after = after[:_CONTEXT].rpartition(" ")[0] or after[:_CONTEXT]
    return f"{before}{WILD}{after}".strip()


def summary(name: str, kind: str, context: str, values: Counter[str], total: int, looked_at: int) -> FieldValues:
    """One place or attribute. `total` records have the pattern, of which so many were looked at."""
    top = tuple(ValueCount(value, count) for value, count in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP])
    records = values.total()
    distinct = len(values)
    if looked_at < total and records:
        once, twice = (sum(count == n for count in values.values()) for n in (1, 2))
        distinct = min(round(distinct + once * (once - 1) / (2 * (twice + 1))), round(total * records / looked_at))
    made = FieldValues(name, "place" if kind == "place" else "attribute", context, records, max(distinct, len(values)), top)
    numbers: list[float] = []
    units: Counter[str] = Counter()
    for value, count in values.items():
        if (found := _NUMBER.fullmatch(value)) is not None:
            numbers += [float(found[1])] * count
            units[found[2]] += count
    if len(numbers) < _NUMBERS * records or not numbers or len(units) > 1:
        return made
    middle, unit = statistics.median(numbers), next(iter(units)) or None
    return replace(made, least=min(numbers), median=middle, most=max(numbers), unit=unit)
