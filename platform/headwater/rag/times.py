"""The times a question names, as ranges of milliseconds: `since 14:05`, `in March`, `yesterday`, `between 9:00 and 10:30`.

English, by rules; ISO 8601 dates and times are read in any language. All is UTC. A range is `[since, until)`.

    said                                  is read as
    since P, from P on                    from the start of P on
    after P                               from P on (a time of day), from the end of P on (a day or longer)
    before P                              until the start of P
    until P, till P                       until P (a time of day), until the end of P (a day or longer)
    in P, on P, at P, during P, P's own   P: a minute, a day, a month ...
    around P, about P                     from ten minutes before P to ten behind it
    between P and Q, from P to Q          from the start of P to Q (a time of day) or to the end of Q

P is a time of day (`14:05`, `2 pm`, `noon`), a day (`5 March`, `2026-03-05`, `Monday`, `yesterday`, with or without a time
of day), a month (`March`, `March 2025`, `2025-03`), a year, `last week`, `this month`, `the last 3 hours`, `2 days ago`. What
leaves its day or year open is the latest such time that is not after `now_ms`, and says so (`floats`).

Months, times of day, weekdays and years count only behind a preposition: `it may fail`, `march on`, `a ratio of 16:10` and
`port 1405` name no time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from headwater.records import from_ms, to_ms

AROUND_MS = 600_000
_EARLIEST_MS, _LATEST_MS = -60_000_000_000_000, 250_000_000_000_000  # years 68 and 9892: a year either side is one too
_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_UNIT_MS = {"second": 1000, "minute": _MINUTE, "min": _MINUTE, "hour": _HOUR, "day": _DAY, "week": 7 * _DAY,
            "month": 30 * _DAY, "year": 365 * _DAY}  # fmt: skip
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "couple of": 2, "three": 3, "few": 3, "four": 4, "five": 5, "six": 6}
_NUMBERS |= {"seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12}
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december")  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True, slots=True)
class Period:
    """What a phrase of a question (`text[start:end]`) says of time: from `since_ms` to before `until_ms`, None where open.
    `floats`: the day or the year was left open."""

    start: int
    end: int
    phrase: str
    since_ms: int | None
    until_ms: int | None
    floats: bool = False
    present: bool = False  # `today` also says "nowadays"
    dated: bool = False  # its year is said


class Point(NamedTuple):
    """A time named in `text[start:end]`: `[low_ms, high_ms)`. `sure` ones need no preposition."""

    start: int
    end: int
    low_ms: int
    high_ms: int
    kind: str  # clock, day, span or year
    sure: bool
    floats: bool = False


_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_UNIT = r"(?:second|minute|min|hour|day|week|month|year)"
_COUNT = r"\d{1,4}|an?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|few|couple of"
_ORDINAL = r"(?P<d>[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?P<y>(?:19|20)\d\d)"
_FORMS = {
    "iso": r"(?P<iso>\d{4}-\d\d-\d\d)(?:[T ](?P<t>\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s?(?P<z>Z|UTC|[+-]\d\d:?\d\d)?)?",
    "year_month": r"(?P<y>(?:19|20)\d\d)-(?P<n>0[1-9]|1[0-2])(?![-\d])",
    "clock": r"(?<![\d:.])(?:(?P<h>[01]?\d|2[0-3]):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?![\d:])(?:\s?(?P<p>[ap])\.?m\b\.?)?"
             r"|(?P<h2>1[0-2]|[1-9])\s?(?P<p2>[ap])\.?m\b\.?|(?P<w>noon|midnight)\b)(?:\s?(?:UTC|Z)\b)?",
    "date": rf"\b(?:{_ORDINAL}\s+(?:of\s+)?(?P<mo>{_MONTH})\b\.?(?:,?\s+{_YEAR}\b)?)",
    "date_us": rf"\b(?P<mo>{_MONTH})\b\.?\s+{_ORDINAL}\b(?![:.]\d)(?:,?\s+{_YEAR}\b)?",
    "month": rf"\b(?:(?P<which>last|this)\s+)?(?P<mo>{_MONTH})\b(?:\.?,?\s+(?:of\s+)?{_YEAR}\b)?",
    "rolling": rf"\b(?:the\s+)?(?:last|past|previous)\s+(?:(?P<n>{_COUNT})\s+(?P<u>{_UNIT})s?|(?P<u2>hour|minute|day))\b",
    "rolling_one": rf"\b(?:the\s+(?:last|past)|past)\s+(?P<u>{_UNIT})\b",
    "ago": rf"\b(?P<n>{_COUNT})\s+(?P<u>{_UNIT})s?\s+ago\b",
    "span": r"\b(?P<which>this|last|previous)\s+(?P<u>week|month|year)\b",
    "night": r"\b(?:last night|this morning)\b",
    "relative": r"\b(?:today|yesterday)\b",
    "weekday": rf"\b(?:(?P<which>last|this)\s+)?(?P<wd>{'|'.join(_WEEKDAYS)})\b",
    "year": r"(?<![\d.:/#-])(?P<y>(?:19|20)\d\d)(?![\d:/%-]|\.\d)",
}  # fmt: skip
_COMPILED = {name: re.compile(form, re.IGNORECASE) for name, form in _FORMS.items()}
# Other languages have their words for since, after and before only: enough where the time is written in figures.
_OTHERS = {
    "since": ("seit", "ab", "depuis", "desde", "dal", "dalle", "sinds", "vanaf", "od"),
    "after": ("nach", "après", "después de", "dopo", "na"),
    "before": ("vor", "avant", "antes de", "prima di", "voor", "przed"),
}
_WORDS = {other: word for word, others in _OTHERS.items() for other in others}
_BEFORE = re.compile(
    r"\b(?P<p>since|after|before|until|till|between|from|in|on|at|during|within|for|over|around|about|of|as of|by|"
    + "|".join(_WORDS)
    + r")\s+(?:the\s+|about\s+|around\s+|early\s+|late\s+|mid[- ]|exactly\s+)*$",
    re.IGNORECASE,
)
_JOIN = re.compile(r"\s*(?:and|to|until|till|-|–)\s+(?:the\s+|at\s+|on\s+)?|\s*[-–]\s*", re.IGNORECASE)
_ADJACENT = re.compile(r"(?:\s*,)?\s+(?:(?:at|on|around|from)\s+)?(?:the\s+)?", re.IGNORECASE)
_ONWARDS = re.compile(r"\s+(?:on|onwards?)\b(?!\s+\w)", re.IGNORECASE)


def read_times(text: str, now_ms: int) -> list[Period]:
    """The periods a question names, in its order; open days and years are the latest not after `now_ms`."""
    points = _joined(_points(text, min(max(now_ms, _EARLIEST_MS), _LATEST_MS)), text)
    found: list[Period] = []
    at = 0
    while at < len(points):
        point = points[at]
        before = _BEFORE.search(text, 0, point.start)
        word = before["p"].lower() if before else ""
        word = _WORDS.get(word, word)
        start = before.start() if before else point.start
        after = points[at + 1] if at + 1 < len(points) else None
        at += 1
        if word in ("between", "from") and after is not None and _JOIN.fullmatch(text, point.end, after.start):
            at += 1
            day = _day_before(text, start, points[: at - 2], found) if point.kind == after.kind == "clock" else None
            if day is not None and not point.sure:  # "on March 1st between 14:00 and 14:30"
                point = Point(day.start, point.end, day.low_ms + point.low_ms % _DAY, 0, "clock", True, day.floats)
                start = found.pop().start
            found.append(_between(text, start, point, after))
        elif (word or point.sure) and (period := _period(text, start, word, point)) is not None:
            found.append(period)
    return found


def _day_before(text: str, start: int, points: list[Point], found: list[Period]) -> Point | None:
    """The day that was said right before a stretch of it, where one was."""
    if not points or not found or points[-1].kind != "day" or found[-1].end != points[-1].end:
        return None
    return points[-1] if _ADJACENT.fullmatch(text[points[-1].end : start] + " ") else None


def clock_of(text: str) -> tuple[int, int] | None:
    """The first time of day in a text as `(start of the minute, its end)` in ms of the day."""
    match = _COMPILED["clock"].search(text)
    return None if match is None else _clock(match)


# ------------------------------------------------------------------------------------------------------ to periods
def _period(text: str, start: int, word: str, point: Point) -> Period | None:
    low, high, clock = point.low_ms, point.high_ms, point.kind == "clock"
    end = point.end
    since: int | None = low
    until: int | None = high
    if word == "from" and (onwards := _ONWARDS.match(text, end)):
        end, word = onwards.end(), "since"
    if word == "since" or (word == "from" and clock):
        until = None
    elif word == "after":
        since, until = (low if clock else high), None
    elif word == "before":
        since, until = None, low
    elif word in ("until", "till", "by", "as of"):
        since, until = None, (low if clock else high)
    elif word in ("around", "about") and clock:
        since, until = low - AROUND_MS, low + AROUND_MS
    elif word in ("of", "for", "over") and not point.sure and point.kind != "span":
        return None
    present = text[point.start : point.end].lower() == "today" and word == ""
    return Period(start, end, text[start:end], since, until, point.floats, present, _says_year(text[start:end]))


def _between(text: str, start: int, low: Point, high: Point) -> Period:
    until = high.low_ms if high.kind == "clock" else high.high_ms
    if low.kind == high.kind == "clock" and high.sure and not low.sure:  # "14:00 and 14:30 on March 1st": the day of the second
        since = until // _DAY * _DAY + low.low_ms % _DAY
        low = low._replace(low_ms=since - _DAY * (since > until), floats=high.floats)
    elif high.kind == "clock" and high.floats:  # the same day as the first, or the night's next
        until = low.low_ms // _DAY * _DAY + high.low_ms % _DAY
        until += _DAY * (until <= low.low_ms)
    since = low.low_ms
    if since >= until and low.floats:  # "from December to March"
        since = _years_back(since, until)
    floats = low.floats if high.kind == "clock" else low.floats or high.floats
    return Period(start, high.end, text[start : high.end], since, max(until, since), floats,
                  dated=_says_year(text[start : high.end]))  # fmt: skip


def _says_year(phrase: str) -> bool:
    return re.search(r"(?<!\d)(?:19|20)\d\d(?!\d)", phrase) is not None


def _years_back(since_ms: int, until_ms: int) -> int:
    when = from_ms(since_ms)
    while to_ms(when) >= until_ms:
        when = when.replace(year=when.year - 1, day=min(when.day, 28))
    return to_ms(when)


def _joined(points: list[Point], text: str) -> list[Point]:
    """A day and a time of day side by side as one point."""
    out: list[Point] = []
    for point in points:
        last = out[-1] if out else None
        if (
            last is not None
            and {last.kind, point.kind} == {"clock", "day"}
            and _ADJACENT.fullmatch(text, last.end, point.start)
        ):
            day, clock = (last, point) if last.kind == "day" else (point, last)
            low = day.low_ms + clock.low_ms % _DAY
            out[-1] = Point(last.start, point.end, low, low + _MINUTE, "clock", True, day.floats)
        else:
            out.append(point)
    return out


# ------------------------------------------------------------------------------------------------------- to points
def _points(text: str, now_ms: int) -> list[Point]:
    found: list[Point] = []
    for name, form in _COMPILED.items():
        for match in form.finditer(text):
            if any(match.start() < p.end and p.start < match.end() for p in found):
                continue
            if (made := _READ[name](match, now_ms)) is not None:
                found.append(made)
    return sorted(found)


def _iso(match: re.Match[str], now_ms: int) -> Point | None:
    zone = (match["z"] or "").upper().replace("UTC", "Z")
    try:
        when = datetime.fromisoformat(f"{match['iso']}T{match['t']}{zone}" if match["t"] else match["iso"])
    except ValueError:
        return None
    low = to_ms(when)
    step = _DAY if not match["t"] else _MINUTE if match["t"].count(":") == 1 else 1000
    return Point(match.start(), match.end(), low, low + step, "clock" if match["t"] else "day", True)


def _clock(match: re.Match[str]) -> tuple[int, int]:
    if match["w"]:
        low = 12 * _HOUR * (match["w"].lower() == "noon")
        return low, low + _MINUTE
    hour, half = int(match["h"] or match["h2"]), (match["p"] or match["p2"] or "").lower()
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half == "p")
    low = hour * _HOUR + int(match["m"] or 0) * _MINUTE + int(match["s"] or 0) * 1000
    return low, low + (1000 if match["s"] else _MINUTE)


def _time_of_day(match: re.Match[str], now_ms: int) -> Point:
    low, high = _clock(match)
    day = now_ms // _DAY * _DAY
    day -= _DAY * (day + low > now_ms)
    return Point(match.start(), match.end(), day + low, day + high, "clock", False, True)


def _number(month: str) -> int:
    return next(n for n, name in enumerate(MONTHS, 1) if name.startswith(month[:3].lower()))


def _month_start(year: int, month: int) -> int:
    return to_ms(datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC))


def _month(match: re.Match[str], now_ms: int) -> Point | None:
    groups = match.groupdict()
    word = groups.get("mo") or ""
    month, now = _number(word) if word else int(match["n"]), from_ms(now_ms)
    said = groups.get("y") is not None
    year = int(match["y"]) if said else now.year - (month > now.month)
    if groups.get("which") and match["which"].lower() == "last" and not said and month == now.month:
        year -= 1
    if word.lower() == "may" and word == "may" and said and not match.string[match.start() - 3 : match.start()].strip():
        return None
    named = word.lower() not in ("may", "march", "mar", "jan", "dec") or word[0].isupper()
    low = _month_start(year, month)
    sure = (said and named) or bool(groups.get("which"))
    return Point(match.start(), match.end(), low, _month_start(year, month + 1), "span", sure, not said)


def _date(match: re.Match[str], now_ms: int) -> Point | None:
    now, month, day = from_ms(now_ms), _number(match["mo"]), int(match["d"])
    years = [int(match["y"])] if match["y"] else [now.year, now.year - 1, now.year - 2, now.year - 3, now.year - 4]
    for year in years:
        try:
            low = to_ms(datetime(year, month, day, tzinfo=UTC))
        except ValueError:
            continue
        if match["y"] or low <= now_ms:
            sure = bool(match["y"]) or match["mo"][0].isupper()
            return Point(match.start(), match.end(), low, low + _DAY, "day", sure, not match["y"])
    return None


def _amount(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word.lower()]


def _rolling(match: re.Match[str], now_ms: int) -> Point:
    groups = match.groupdict()
    unit = (groups.get("u") or groups.get("u2") or "").lower()
    low = now_ms - _amount(groups.get("n") or "one") * _UNIT_MS[unit]
    return Point(match.start(), match.end(), low, now_ms + 1, "span", True)


def _ago(match: re.Match[str], now_ms: int) -> Point:
    unit, amount = match["u"].lower(), _amount(match["n"])
    low = now_ms - amount * _UNIT_MS[unit]
    if _UNIT_MS[unit] >= _DAY:
        low = low // _DAY * _DAY
        return Point(match.start(), match.end(), low, low + max(_DAY, _UNIT_MS[unit]), "day", True)
    return Point(match.start(), match.end(), low, low + _UNIT_MS[unit], "clock", True)


def _span(match: re.Match[str], now_ms: int) -> Point:
    unit, back = match["u"].lower(), match["which"].lower() != "this"
    now = from_ms(now_ms)
    if unit == "week":
        low = to_ms(now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday() + 7 * back))
        return Point(match.start(), match.end(), low, low + 7 * _DAY, "span", True)
    if unit == "month":
        month = now.year * 12 + now.month - 1 - back
        year, month = divmod(month, 12)
        return Point(match.start(), match.end(), _month_start(year, month + 1), _month_start(year, month + 2), "span", True)
    year = now.year - back
    return Point(match.start(), match.end(), _month_start(year, 1), _month_start(year + 1, 1), "span", True)


def _night(match: re.Match[str], now_ms: int) -> Point:
    day, words = now_ms // _DAY * _DAY, match.group().lower()
    hours = {"last night": (-6, 6), "this morning": (0, 12)}[words]
    return Point(match.start(), match.end(), day + hours[0] * _HOUR, day + hours[1] * _HOUR, "span", True)


def _relative(match: re.Match[str], now_ms: int) -> Point:
    low = now_ms // _DAY * _DAY - _DAY * (match.group().lower() == "yesterday")
    return Point(match.start(), match.end(), low, low + _DAY, "day", True)


def _weekday(match: re.Match[str], now_ms: int) -> Point:
    wanted, now = _WEEKDAYS.index(match["wd"].lower()), from_ms(now_ms)
    back = (now.weekday() - wanted) % 7
    if back == 0 and (match["which"] or "").lower() == "last":
        back = 7
    low = now_ms // _DAY * _DAY - back * _DAY
    return Point(match.start(), match.end(), low, low + _DAY, "day", bool(match["which"]), True)


def _year(match: re.Match[str], now_ms: int) -> Point:
    year = int(match["y"])
    return Point(match.start(), match.end(), _month_start(year, 1), _month_start(year + 1, 1), "year", False)


_READ: dict[str, Callable[[re.Match[str], int], Point | None]] = {
    "iso": _iso, "year_month": _month, "clock": _time_of_day, "date": _date, "date_us": _date, "month": _month,
    "rolling": _rolling, "rolling_one": _rolling, "ago": _ago, "span": _span, "night": _night, "relative": _relative,
    "weekday": _weekday, "year": _year,
}  # fmt: skip


def narrowed(periods: list[Period]) -> Period | None:
    """All periods of a question as one: what they share; of two that share nothing, the first."""
    if not periods:
        return None
    whole = periods[0]
    for period in periods[1:]:
        lows = [ms for ms in (whole.since_ms, period.since_ms) if ms is not None]
        highs = [ms for ms in (whole.until_ms, period.until_ms) if ms is not None]
        since, until = max(lows, default=None), min(highs, default=None)
        if since is None or until is None or since < until:
            whole = replace(
                whole, phrase=f"{whole.phrase} ... {period.phrase}", since_ms=since, until_ms=until,
                floats=whole.floats or period.floats, present=whole.present and period.present,
                dated=whole.dated and period.dated,
            )  # fmt: skip
    return whole
