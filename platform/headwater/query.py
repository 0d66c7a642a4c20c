"""The query language of every surface: free words, `"phrase"`, `-not`, `field:value`, `since:2h`, `mode:keyword`.

    query   = { word | "phrase" | -word | -"phrase" | filter }
    filter  = [-] name ":" value { "," value }           any of the values; a quoted value is taken literally
            | [-] name ":" text "*"                      starts with; `name:*` has the field at all
            | name ":" ( ">" | ">=" | "<" | "<=" ) number
            | level ":" ( ">" | ">=" | "<" | "<=" ) level            in the order of LEVELS
            | ( "since:" | "until:" | "time:>=" | "time:<" ...) time | "mode:" ( hybrid | keyword | semantic )

Between a filter's name, colon and value stands no space, so prose (`cause: unknown`), URLs, `12:30`, `C:\\dir` and `a::b`
stay words; quotes turn anything into words (`"localhost:8080"`). `-` excludes only before a letter, `_`, `@` or a quote, so
`-1`, `->` and `--flag` are words. Inside quotes `\\"` is a quote and `\\\\` a backslash.

All filters must hold, but values asked of one field (`level:error level:fatal`) are alternatives. Text is compared exactly,
up to its first VALUE_CHARS characters; numbers by value (`500` finds 500, 500.0 and the text 500; `007` what 7 finds and the
text 007); levels by meaning (`warn` finds WARNING). A negative filter holds where the field is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, date, datetime, time
from typing import Any, Literal, cast, get_args

from headwater.errors import QueryError, UsageError
from headwater.records import MAX_MS, MIN_MS, Mode, Scalar, from_ms, to_ms
from headwater.records.levels import LEVELS, canonical_level
from headwater.verbs import When

Op = Literal["=", "!=", ">", ">=", "<", "<=", "prefix", "!prefix"]
COMPARISONS = (">=", "<=", ">", "<")
KNOWN_FIELDS = ("key", "partition", "offset", "level", "topic", "time", "since", "until", "mode")
VALUE_CHARS = 500

_NAME = re.compile(r"([A-Za-z_@][\w.@-]*):")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_OPERATOR = re.compile(r">=|<=|!=|>|<")
_BARE = re.compile(r"[^\s,]+")
_WORD = re.compile(r"\S+")
_ESCAPED = re.compile(r'\\(["\\])')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_AGES = re.compile(rf"(?:now\s*-\s*|-)?((?:{_AGE.pattern}\s*)+)(?:ago)?")
_CLOCK = re.compile(r"\d\d?:\d\d(:\d\d(\.\d+)?)?", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MILLISECONDS_FROM = 1e11  # a number this large cannot be epoch seconds of a sane year (5138), so it is milliseconds
_TIME_EXPECTED = "an age (2h, 7d), a time (2026-03-01T14:05, 14:05), epoch seconds or now"


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on one field of a record; several values are alternatives (for `!=` and `!prefix`: none of them)."""

    field: str
    op: Op
    values: tuple[Scalar, ...]

    def accepts(self, value: Scalar | None) -> bool:
        """Whether a record whose field has `value` (None: has no such field) passes; the index decides the same."""
        if self.op in ("!=", "!prefix"):
            return not Filter(self.field, "=" if self.op == "!=" else "prefix", self.values).accepts(value)
        if value is None:
            return False
        if self.field == "level":
            value = canonical_level(str(value))
        if self.op == "=":
            return text_of(value) in self.texts()
        if self.op == "prefix":
            return text_of(value).startswith(self.texts())
        if self.field == "level":
            return value in self.levels()
        number, bound = number_of(value), number_of(self.values[0])
        return number is not None and bound is not None and _compare(self.op, number, bound)

    def texts(self) -> tuple[str, ...]:
        """The texts a field's text (`text_of`) must be one of, or start with; distinct, in order."""
        found: dict[str, None] = {}
        for value in self.values:
            if self.field == "level":
                found[str(value).lower() if self.op == "prefix" else canonical_level(str(value))] = None
                continue
            found[text_of(value)] = None
            if self.op != "prefix" and (number := number_of(value)) is not None:
                found[text_of(int(value) if isinstance(value, str) and value.isdecimal() else number)] = None
        return tuple(found)

    def levels(self) -> tuple[str, ...]:
        """The canonical levels a comparison on `level` lets through."""
        rank = LEVELS.index(canonical_level(str(self.values[0])))
        return tuple(name for i, name in enumerate(LEVELS) if _compare(self.op, i, rank))


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `text` is what is scored and embedded: free words and phrases as typed, in order. `phrases` must
    occur, `excluded` (words or phrases) must not. Times are event time, since inclusive, until exclusive; `notes` are
    for people."""

    text: str
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    mode: Mode | None = None
    notes: tuple[str, ...] = ()


def parse(text: str, *, now_ms: int) -> Query:
    """The query `text` says; ages count back from `now_ms`. Raises QueryError and nothing else; linear in the length."""
    return _Reader(text, now_ms).read()


def topics_of(query: Query, topics: Sequence[str] | None) -> list[str] | None:
    """The topics to look in: those that `topic:` names, which must be among `topics` where there are any; None for all. A query
    can so never reach further than its caller says. Raises UsageError."""
    named = list(dict.fromkeys(str(v) for f in query.filters if f.field == "topic" and f.op == "=" for v in f.values))
    asked = [topics] if isinstance(topics, str) else list(topics or ())
    if asked and (outside := [name for name in named if name not in asked]):
        raise UsageError(f"the query names topic:{outside[0][:100]}, which is not among the topics asked; name it there too")
    return named or asked or None


def number_of(value: Scalar) -> float | None:
    """The finite number a value is or plainly spells in decimal; None for all else, truth values included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and not (len(value) <= 40 and _NUMBER.fullmatch(value)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def text_of(value: Scalar) -> str:
    """A value as text for equality: `true`, `7` for 7 and 7.0, else its shortest decimal form; cut at VALUE_CHARS."""
    if isinstance(value, str):
        return value[:VALUE_CHARS]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -(2**63) <= value < 2**63 else str(number_of(value))
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)


def as_filters(mapping: Mapping[str, Any]) -> tuple[Filter, ...]:
    """Filters of a mapping: `{"level": "error", "status": [500, 502], "latency": {">=": 10, "<": 20}}`; the operators are
    those of Op. Raises UsageError."""
    found: list[Filter] = []
    for name, condition in mapping.items():
        if name in ("since", "until", "mode", "time", "topic"):
            raise UsageError(f"filters cannot hold {name!r}; give it as a parameter of its own ({name}=...)")
        pairs = condition.items() if isinstance(condition, Mapping) else [("=", condition)]
        for op, value in pairs:
            if op not in get_args(Op):
                raise UsageError(f"filter {name!r}: unknown operator {op!r}; use one of {' '.join(get_args(Op))}")
            values = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
            if not values or not all(isinstance(v, str | int | float) for v in values):
                raise UsageError(f"filter {name!r}: expected a text, number or truth value or a list of them, got {value!r}")
            if op in COMPARISONS:
                _check_comparison(name, values)
            if name in ("partition", "offset") and (op.endswith("prefix") or not all(_is_integer(v) for v in values)):
                raise UsageError(f"filter {name!r}: expected integers, got {value!r}")
            found.append(Filter(name, cast(Op, op), values))
    return tuple(found)


def parse_time(value: When, *, now_ms: int, begins: bool = False) -> int:
    """Milliseconds since the epoch of a datetime, ISO 8601 text (UTC where it names no zone; a date is its first
    moment; `14:05` is today), epoch seconds (milliseconds from 1e11 on), an age (`2h`, `1h30m`) or `now`. `begins`:
    something begins then, so a clock that is still to come is yesterday's: at half past midnight `23:40` is fifty minutes
    ago. Raises UsageError."""
    try:
        ms = to_ms(value) if isinstance(value, datetime) else _time_ms(value, now_ms)
        if begins and ms > now_ms and isinstance(value, str) and _CLOCK.fullmatch(value.strip()):
            ms -= _UNIT_MS["d"]
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{str(value)[:100]!r} is not a time; expected {_TIME_EXPECTED}") from error
    if not MIN_MS <= ms <= MAX_MS:
        raise UsageError(f"{str(value)[:100]!r} is outside the years 1 to 9999")
    return ms


def _time_ms(value: str | float | int, now_ms: int) -> int:
    if isinstance(value, bool):
        raise ValueError("a truth value")
    if isinstance(value, str):
        text = value.strip()
        day = from_ms(now_ms).date()
        if text.lower() == "now":
            return now_ms
        if text.lower() in ("today", "yesterday"):
            return to_ms(datetime.combine(day, time(), UTC)) - (_UNIT_MS["d"] if text.lower() == "yesterday" else 0)
        if len(text) <= 100 and (ages := _AGES.fullmatch(text.lower())):
            return now_ms - round(sum(float(n) * _UNIT_MS[unit] for n, unit in _AGE.findall(ages[1])))
        if _CLOCK.fullmatch(text):
            return to_ms(datetime.combine(day, time.fromisoformat(f"0{text}" if text[1] == ":" else text), UTC))
        if not _NUMBER.fullmatch(text) or re.fullmatch(r"(19|20)\d{6}", text):
            return to_ms(datetime.fromisoformat(text) if len(text) > 10 else _day_or_time(text))
        value = float(text)
    number = float(value)
    return math.floor(number if abs(number) >= _MILLISECONDS_FROM else number * 1000)


def _day_or_time(text: str) -> datetime:
    return datetime.combine(date.fromisoformat(text), time(), UTC)


def _compare(op: str, left: float, right: float) -> bool:
    return {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right}[op]


def _is_integer(value: Scalar) -> bool:
    return not isinstance(value, bool) and (number := number_of(value)) is not None and number.is_integer()


def _check_comparison(name: str, values: tuple[Scalar, ...]) -> None:
    known = canonical_level(str(values[0])) in LEVELS if name == "level" else number_of(values[0]) is not None
    if len(values) != 1 or not known:
        wanted = f"one of {', '.join(LEVELS)}" if name == "level" else "one number"
        raise UsageError(f"filter {name!r}: a comparison takes {wanted}, got {values[0]!r}")


@dataclass(slots=True)
class _Value:
    """One value of a filter as written: its text, place, and whether it stood in quotes."""

    text: str
    position: int
    quoted: bool


@dataclass(slots=True)
class _Reader:
    """One pass over one query."""

    source: str
    now_ms: int
    words: list[str] = dataclass_field(default_factory=list)
    phrases: list[str] = dataclass_field(default_factory=list)
    excluded: list[str] = dataclass_field(default_factory=list)
    filters: dict[tuple[str, Op, int], dict[Scalar, None]] = dataclass_field(default_factory=dict)
    notes: dict[str, None] = dataclass_field(default_factory=dict)
    since_ms: int | None = None
    until_ms: int | None = None
    mode: Mode | None = None
    unbalanced: bool = False

    def read(self) -> Query:
        at, end = 0, len(self.source)
        while at < end:
            at = at + 1 if self.source[at].isspace() else self._term(at)
        filters = tuple(Filter(name, op, tuple(values)) for (name, op, _), values in self.filters.items())
        return Query(
            " ".join(self.words), tuple(self.phrases), tuple(self.excluded), filters,
            self.since_ms, self.until_ms, self.mode, tuple(self.notes),
        )  # fmt: skip

    def _term(self, start: int) -> int:
        """Read the term at `start`; the place behind it."""
        source = self.source
        after = source[start + 1 : start + 2]
        negative = source[start] == "-" and (after.isalpha() or after in ("_", "@", '"')) and after != ""
        at = start + 1 if negative else start
        if source[at] == '"':
            return self._phrase(at, negative)
        if (name := _NAME.match(source, at)) and (behind := self._filter(name[1], name.end(), start, negative)):
            return behind
        word = _WORD.match(source, at)
        assert word is not None  # `at` is never at a space
        (self.excluded if negative else self.words).append(word[0])
        return word.end()

    def _phrase(self, at: int, negative: bool) -> int:
        quoted = None if self.unbalanced else _QUOTED.match(self.source, at)
        if quoted is None:
            self.unbalanced = True  # no later quote can close either: looked for once, so reading stays linear
            self._note(f"the quote at character {at + 1} is never closed; what follows was read as plain words")
            return at + 1
        content = " ".join(_ESCAPED.sub(r"\1", quoted[1]).split())
        if content and negative:
            self.excluded.append(content)
        elif content:
            self.phrases.append(content)
            self.words.append(content)
        return quoted.end()

    def _filter(self, name: str, at: int, start: int, negative: bool) -> int | None:
        """Read the filter whose value begins at `at`; None where the term is a word after all."""
        source = self.source
        if at == len(source) or source[at].isspace():
            if at == len(source) and name in KNOWN_FIELDS:
                raise self._error(f"{name}: has no value", at, _expected(name))
            if name in ("since", "until", "mode", "level"):
                self._note(f"`{name}:` with a space behind it was read as words; a filter has none: {name}:value")
            return None
        if source[at] in ":\\=," or source.startswith("//", at) or (len(name) == 1 and source[at] == "/"):
            return None
        op = _OPERATOR.match(source, at)
        values, end = self._values(op.end() if op else at, name)
        if source[end - 1] == ":":  # `main.c:12: message`
            return None
        if name in ("since", "until", "time", "mode"):
            self._special(name, op[0] if op else "", values, start if negative else None)
        else:
            self._condition(name, op[0] if op else "=", values, start, negative)
        return end

    def _values(self, at: int, name: str) -> tuple[list[_Value], int]:
        source, values = self.source, list[_Value]()
        while at < len(source) and not source[at].isspace():
            if source[at] == ",":
                at += 1
            elif source[at] == '"':
                quoted = _QUOTED.match(source, at)
                if quoted is None:
                    raise self._error(f"the value of {name} is never closed", at, 'a closing "')
                values.append(_Value(_ESCAPED.sub(r"\1", quoted[1]), at, True))
                at = quoted.end()
            else:
                bare = _BARE.match(source, at)
                assert bare is not None  # neither a space nor a comma
                values.append(_Value(bare[0], at, False))
                at = bare.end()
        if not values or not all(value.text for value in values):
            raise self._error(f"{name}: has no value", values[-1].position if values else at, _expected(name))
        return values, at

    def _special(self, name: str, op: str, values: list[_Value], negative: int | None) -> None:
        """since, until, time, mode: not conditions on a field but settings of the query."""
        first = values[0]
        if negative is not None:
            raise self._error(f"{name} cannot be negated", negative, f"{name}:value without the minus")
        if len(values) > 1:
            raise self._error(f"{name} takes one value", values[1].position, "a space")
        if (op in COMPARISONS) != (name == "time"):
            raise self._error(f"{name}:{op}{first.text} is not understood", first.position, _expected(name))
        if name == "mode":
            if first.text.lower() not in get_args(Mode) or self.mode not in (None, first.text.lower()):
                raise self._error(f"{first.text!r} is not a mode, or a second one", first.position, _expected(name))
            self.mode = cast(Mode, first.text.lower())
            return
        try:
            begins = name == "since" or op.startswith(">")
            ms = parse_time(first.text, now_ms=self.now_ms, begins=begins) + (op in (">", "<="))
        except UsageError as error:
            raise self._error(f"{name}: {first.text[:100]!r} is not a time", first.position, _TIME_EXPECTED) from error
        if begins:
            self.since_ms = ms if self.since_ms is None else max(self.since_ms, ms)
        else:
            self.until_ms = ms if self.until_ms is None else min(self.until_ms, ms)

    def _condition(self, name: str, op: str, values: list[_Value], start: int, negative: bool) -> None:
        first = values[0]
        if op in COMPARISONS:
            if negative:
                raise self._error("a comparison cannot be negated", start, "the opposite comparison, without the minus")
            if len(values) > 1:
                raise self._error("a comparison takes one value", values[1].position, "a space")
            if name in ("key", "topic"):
                raise self._error(f"{name} is text and cannot be compared", first.position - len(op), _expected(name))
        starts = [not v.quoted and v.text.endswith("*") for v in values]
        if any(starts) and (op in COMPARISONS or not all(starts) or name in ("partition", "offset")):
            at = values[starts.index(True)]
            raise self._error("* does not fit here", at.position + len(at.text) - 1, "values that all end with *, or none")
        negative = negative != (op == "!=")
        if op not in COMPARISONS:
            op = ("!" if negative else "") + ("prefix" if any(starts) else "=")
        kept = {self._scalar(name, op, v) if not any(starts) else v.text[:-1]: None for v in values}
        key = (name, cast(Op, op), len(self.filters) if op in COMPARISONS else -1)
        self.filters.setdefault(key, {}).update(kept)

    def _scalar(self, name: str, op: str, value: _Value) -> Scalar:
        if name in ("partition", "offset") and not re.fullmatch(r"[+-]?\d{1,18}", value.text, re.ASCII):
            raise self._error(f"{name}: {value.text[:100]!r} is not an integer", value.position, "an integer")
        if name in ("partition", "offset"):
            return int(value.text)
        if op not in COMPARISONS:
            return value.text
        if name == "level":
            if canonical_level(value.text) not in LEVELS:
                raise self._error(f"{value.text[:100]!r} is not a level", value.position, f"one of {', '.join(LEVELS)}")
            return value.text
        if (number := number_of(value.text)) is None:
            raise self._error(f"{name}: {value.text[:100]!r} is not a number", value.position, "a number")
        return int(value.text) if re.fullmatch(r"[+-]?\d+", value.text, re.ASCII) else number

    def _note(self, note: str) -> None:
        self.notes[note] = None

    def _error(self, message: str, position: int, expected: str) -> QueryError:
        return QueryError(message, query=self.source, position=min(position, len(self.source)), expected=expected)


def _expected(name: str) -> str:
    if name in ("since", "until"):
        return _TIME_EXPECTED
    if name == "time":
        return "a comparison such as time:>=2026-03-01T14:05"
    if name == "mode":
        return "one of hybrid, keyword, semantic, once"
    if name in ("partition", "offset"):
        return "an integer or a comparison such as >=1000"
    return "a value" if name in ("key", "topic") else "a value or a comparison such as >=10"
