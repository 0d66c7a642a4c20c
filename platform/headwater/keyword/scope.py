"""What a request is about, as a tantivy query that scores nothing: topics, times, fields, phrases, exclusions.

No text of a user is ever spliced into a query string. (Ranges of numbers must go through tantivy's parser, the only way to a
JSON column; what is given to it is hexadecimal digits and decimal numbers.)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import tantivy
from tantivy import FieldType, Occur
from tantivy import Query as TQuery

from headwater.errors import UsageError
from headwater.keyword.schema import FORMER, NUL, UNTIL, field_name, number_path, prepared, sanitised
from headwater.query import Filter, number_of

_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$#&~-])")
Clause = tuple[Occur, TQuery]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which records a request is about; all conditions hold. `topics` are ids, never empty. Event time: since inclusive,
    until exclusive. `before_seq` holds for each topic named in it (seq < value). Phrases and exclusions are judged on the
    text of each occurrence: a record is in scope when one of its passages is. Former versions are not, but for those that
    were none before `before_seq`; with `versions` all are."""

    topics: tuple[int, ...]
    filters: tuple[Filter, ...] = ()
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    before_seq: Mapping[int, int] | None = None
    versions: bool = False


def reads_text(scope: Scope) -> bool:
    """Whether occurrences of one record can differ in being in scope."""
    return bool(scope.phrases or scope.excluded)


def clauses(
    scope: Scope,
    index: tantivy.Index,
    schema: tantivy.Schema,
    analyzer: tantivy.TextAnalyzer,
    *,
    known_topics: Collection[int],
    passages: Sequence[int] | None = None,
    exclude_passages: Sequence[int] = (),
    former: bool = False,
) -> list[Clause]:
    """The conditions as clauses of one boolean query; none of them scores. `known_topics` are all the index may hold:
    a condition that every document meets is left out, which keeps scoring fast; so is that on former versions, unless the
    index holds `former` ones."""
    if not scope.topics:
        raise UsageError("a search needs at least one topic")
    found: list[Clause] = []
    if scope.before_seq or not set(known_topics) <= set(scope.topics):
        found.append(_must(_topics(scope, schema)))
    if scope.since_ms is not None or scope.until_ms is not None:
        found.append(_must(column_range(schema, "time", scope.since_ms, scope.until_ms)))
    for condition in scope.filters:
        query = _filter(condition, index, schema)
        found.append((Occur.MustNot, query) if condition.op in ("!=", "!prefix") else _must(query))
    for text in scope.phrases:
        if tokens := analyzer.analyze(prepared(text)):
            found.append(_must(phrase(schema, tokens)))
    for text in scope.excluded:
        if tokens := analyzer.analyze(prepared(text)):
            found.append((Occur.MustNot, phrase(schema, tokens)))
    if former and not scope.versions:
        found.append((Occur.MustNot, _replaced(scope, index, schema)))
    if passages is not None:
        found.append(_must(ids(schema, "passage", passages)))
    if exclude_passages:
        found.append((Occur.MustNot, ids(schema, "passage", exclude_passages)))
    return found


def combined(found: Sequence[Clause]) -> TQuery:
    """One query of clauses; everything where there is none that asks for something."""
    if not any(occur is Occur.Must for occur, _ in found):
        found = [(Occur.Must, TQuery.const_score_query(TQuery.all_query(), 0.0)), *found]
    return found[0][1] if len(found) == 1 else TQuery.boolean_query(list(found))


def phrase(schema: tantivy.Schema, tokens: list[str]) -> TQuery:
    """Tokens side by side in this order; one token is a term."""
    if len(tokens) == 1:
        return TQuery.term_query(schema, "text", tokens[0], "basic")
    return TQuery.phrase_query(schema, "text", list(tokens))


def ids(schema: tantivy.Schema, name: str, wanted: Sequence[int]) -> TQuery:
    """Documents whose column `name` is one of `wanted`."""
    if not wanted:
        return TQuery.empty_query()
    if len(wanted) == 1:
        return TQuery.term_query(schema, name, wanted[0], "basic")
    return TQuery.term_set_query(schema, name, list(wanted))


def column_range(schema: tantivy.Schema, name: str, low: int | None, high: int | None) -> TQuery:
    """Documents with `low` <= column < `high`; None is no bound."""
    kind, least, most = (FieldType.Integer, -(2**63), 2**63 - 1) if name == "time" else (FieldType.Unsigned, 0, 2**64 - 1)
    low, high = least if low is None else max(low, least), most if high is None else high - 1
    if low > min(high, most):
        return TQuery.empty_query()
    return TQuery.range_query(schema, name, kind, low, min(high, most))


def _must(query: TQuery) -> Clause:
    return Occur.Must, TQuery.const_score_query(query, 0.0)


def _topics(scope: Scope, schema: tantivy.Schema) -> TQuery:
    before = scope.before_seq or {}
    free = [topic for topic in scope.topics if topic not in before]
    parts: list[Clause] = [(Occur.Should, ids(schema, "topic", free))] if free else []
    for topic in scope.topics:
        if topic in before:
            both = [(Occur.Must, ids(schema, "topic", [topic])), (Occur.Must, column_range(schema, "seq", None, before[topic]))]
            parts.append((Occur.Should, TQuery.boolean_query(both)))
    return parts[0][1] if len(parts) == 1 else TQuery.boolean_query(parts)


def _replaced(scope: Scope, index: tantivy.Index, schema: tantivy.Schema) -> TQuery:
    """Versions that are former ones, in each topic by the time its `before_seq` says."""
    marked = TQuery.term_query(schema, "field", FORMER, "basic")
    parts = []
    for topic, before in (scope.before_seq or {}).items():
        then = index.parse_query(f"number.{UNTIL}:[* TO {before - 1}]", [])
        parts.append(TQuery.boolean_query([(Occur.Must, ids(schema, "topic", [topic])), (Occur.Must, then)]))
    if rest := [topic for topic in scope.topics if topic not in (scope.before_seq or {})]:
        parts.append(
            TQuery.boolean_query([(Occur.Must, ids(schema, "topic", rest)), (Occur.Must, marked)]) if parts else marked
        )
    return _any(parts)


def _filter(condition: Filter, index: tantivy.Index, schema: tantivy.Schema) -> TQuery:
    """Records whose field meets the condition; for `!=` and `!prefix` those that must not be there."""
    name = condition.field
    if name in ("partition", "offset", "topic"):
        return _integers(condition, schema)
    term = field_name(name) + NUL
    if condition.op in ("prefix", "!prefix"):
        begins = Filter(name, "prefix", condition.values).texts()
        return _any([TQuery.regex_query(schema, "field", _escaped(term + sanitised(text)) + r"(.|\n)*") for text in begins])
    if name == "level" and condition.op not in ("=", "!="):
        return TQuery.term_set_query(schema, "field", [term + level for level in condition.levels()])
    if condition.op in ("=", "!="):
        texts = [term + sanitised(text) for text in condition.texts()]
        return (
            TQuery.term_query(schema, "field", texts[0], "basic")
            if len(texts) == 1
            else TQuery.term_set_query(schema, "field", texts)
        )
    bound = number_of(condition.values[0])
    if bound is None:
        raise UsageError(f"filter {name!r}: {condition.values[0]!r} is not a number")
    spelt = format(Decimal(repr(bound)), "f")
    limits = {">": f"{{{spelt} TO *]", ">=": f"[{spelt} TO *]", "<": f"[* TO {spelt}}}", "<=": f"[* TO {spelt}]"}
    return index.parse_query(f"number.{number_path(name)}:{limits[condition.op]}", [])


def _integers(condition: Filter, schema: tantivy.Schema) -> TQuery:
    numbers = [number_of(value) for value in condition.values]
    if None in numbers or condition.op in ("prefix", "!prefix"):
        hint = "topics are named by their id here" if condition.field == "topic" else "give whole numbers"
        raise UsageError(f"filter {condition.field!r} cannot be {condition.values!r}; {hint}")
    ranges = []
    for number in numbers:
        assert number is not None
        low, high = {
            "=": (number, number + 1), "!=": (number, number + 1), ">=": (number, None), "<": (None, number),
            ">": (number + 1, None), "<=": (None, number + 1),
        }[condition.op]  # fmt: skip
        ranges.append(
            column_range(schema, condition.field, None if low is None else int(low), None if high is None else int(high))
        )
    return _any(ranges)


def _any(queries: list[TQuery]) -> TQuery:
    return queries[0] if len(queries) == 1 else TQuery.boolean_query([(Occur.Should, query) for query in queries])


def _escaped(text: str) -> str:
    """`text` for tantivy's regular expressions, standing for itself."""
    return _SPECIAL.sub(r"\\\1", text)
