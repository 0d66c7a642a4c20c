"""Times as people and programs write them in fields and columns -> milliseconds since the epoch.

A field is a time or it is none, so far more forms are read here than in a log line, where a timestamp must first be told
from text (headwater.lines.time). Without a zone a time is UTC. `03/05/2024` is the 5th of March unless its first number is
more than 12; with dots or hyphens the day stands first (`05.03.2024`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from headwater.records import MAX_MS, MIN_MS, to_ms

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE]\+?\d{1,2})?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)?)?")
_TICKS = re.compile(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/")  # of .NET
_COMPACT = re.compile(r"(?:19|20|21)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[0-2]\d[0-5]\d[0-6]\d)?")

_MON = r"(?P<mon>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DAY = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\.?,?\s+)?"
_CLOCK = (
    r"(?P<h>\d{1,2}):(?P<mi>\d\d)(?::(?P<s>\d\d)(?:[.,:](?P<f>\d{1,9}))?)?(?:\s?(?P<ap>[ap])\.?\s?m\.?)?"
    r"(?:\s?(?P<z>z|[+-]\d\d?(?::?\d\d)?|(?:utc|gmt)(?:[+-]\d\d?(?::?\d\d)?)?|[a-z]{3,4}))?"
    r"(?:\s?(?:\([^)]{1,60}\)|\[[^\]]{1,60}\]|utc))?"
)
_BEHIND = rf"(?:(?:t|:|_|,?\s+(?:at\s+)?){_CLOCK})?"
_SHAPES = tuple(
    re.compile(shape, re.IGNORECASE)
    for shape in (
        rf"{_WEEKDAY}(?P<y>\d{{4}})[-/.](?P<mo>\d{{1,2}})[-/.]{_DAY}{_BEHIND}",
        rf"{_WEEKDAY}{_DAY}[-/.\s]\s?{_MON}[-/.,\s]\s?(?P<y>\d{{4}}|\d\d){_BEHIND}",
        rf"{_WEEKDAY}{_MON}\s{{1,2}}{_DAY},?\s(?P<y>\d{{4}}){_BEHIND}",
        rf"{_WEEKDAY}{_MON}\s{{1,2}}{_DAY}\s+{_CLOCK}\s(?P<y>\d{{4}})(?:\s(?P<z2>[+-]\d{{4}}))?",
        rf"(?P<mo>\d{{1,2}})/(?P<d>\d{{1,2}})/(?P<y>\d{{4}}|\d\d){_BEHIND}",
        rf"(?P<d>\d{{1,2}})[.-]\s?(?P<mo>\d{{1,2}})[.-]\s?(?P<y>\d{{4}}|\d\d){_BEHIND}",
        r"(?P<y>\d{4})(?P<mo>\d\d)(?P<d>\d\d)t?(?P<h>\d\d)(?P<mi>\d\d)(?P<s>\d\d)?(?:[.,](?P<f>\d{1,9}))?(?P<z>z|[+-]\d\d(?::?\d\d)?)?",
    )
)  # fmt: skip
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_OTHERS = {  # how the months begin in Spanish, Portuguese, French, German, Italian and Dutch, where not as in English
    "janv": "jan", "ene": "jan", "gen": "jan", "fév": "feb", "fev": "feb", "mär": "mar", "mrt": "mar", "maa": "mar",
    "abr": "apr", "avr": "apr", "mai": "may", "mag": "may", "mei": "may", "juin": "jun", "giu": "jun", "juil": "jul",
    "lug": "jul", "ago": "aug", "aoû": "aug", "set": "sep", "okt": "oct", "out": "oct", "ott": "oct", "dez": "dec",
    "dic": "dec", "déc": "dec",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{3,12}\.?")
_ZONES = {  # in hours: those of RFC 822, and some that only one place uses
    "": 0, "z": 0, "utc": 0, "gmt": 0, "wet": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8,
    "pdt": -7, "cet": 1, "cest": 2, "mez": 1, "mesz": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9, "aest": 10, "aedt": 11,
}  # fmt: skip
_MOST_CHARS = 100
_FIRST_S = 1e8  # 1973: a smaller number counts or measures something


def parse_time(value: object) -> int | None:
    """Milliseconds since the epoch, or None where `value` is no time. Numbers are epoch seconds, milliseconds, microseconds or
    nanoseconds, told apart by size; objects as MongoDB and protobuf write times are read too."""
    if isinstance(value, str):
        return _text(value.strip())
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _number(value)
    return _object(value) if isinstance(value, Mapping) else None


def is_clock(value: object) -> bool:
    """Whether a text is a time of day alone."""
    return isinstance(value, str) and re.fullmatch(_CLOCK, value.strip(), re.IGNORECASE) is not None


def _text(text: str) -> int | None:
    if match := _ISO.fullmatch(text):
        day, clock, fraction, zone = match.groups()
        try:
            when = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or '').replace('Z', '+00:00')}")
            return to_ms(when) + int(((fraction or "") + "000")[:3])
        except (ValueError, OverflowError):
            if clock is None:
                return None
    if not text or len(text) > _MOST_CHARS:
        return None
    if _NUMBER.fullmatch(text) and len(text) <= 30 and not _COMPACT.fullmatch(text):
        return _number(float(text) if set(text) & set(".eE") else int(text))
    if ticks := _TICKS.fullmatch(text):
        return min(max(int(ticks[1]), MIN_MS), MAX_MS)
    if _COMPACT.fullmatch(text) and len(text) == 8:
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    if re.search(r"[^\W\d_]{3}", text):
        text = _WORD.sub(_in_english, re.sub(r"(?<=\d)\s+de\s+|\s+de\s+(?=\d)|(?<=\d)º\s*", " ", text))
    for shape in _SHAPES:
        if found := shape.fullmatch(text):
            return _moment({name: given.lower() for name, given in found.groupdict().items() if given})
    return None


def _in_english(word: re.Match[str]) -> str:
    """A month's name as English has it; any other word as it stands."""
    plain = word[0].lower()
    return next((month for begin, month in _OTHERS.items() if plain.startswith(begin)), word[0])


def _moment(part: Mapping[str, str]) -> int | None:
    """Milliseconds of the parts of a time; None for an impossible one and for a zone that is not known."""
    month = _MONTHS.index(part["mon"]) + 1 if "mon" in part else int(part["mo"])
    day, year = int(part["d"]), int(part["y"])
    if month > 12:
        month, day = day, month
    if len(part["y"]) == 2:
        year += 2000 if year < 70 else 1900
    hour = int(part.get("h", 0))
    if "ap" in part:
        hour = hour % 12 + (12 if part["ap"] == "p" else 0)
    minutes = _zone_minutes(part.get("z2") or part.get("z", ""))
    if minutes is None:
        return None
    next_day = hour == 24  # ISO 8601 has it for the day's end
    try:
        when = datetime(
            year, month, day, 0 if next_day else hour, int(part.get("mi", 0)), min(int(part.get("s", 0)), 59), tzinfo=UTC
        )
    except ValueError:
        return None
    ms = to_ms(when) + next_day * 86_400_000 + int((part.get("f", "") + "000")[:3]) - minutes * 60_000
    return min(max(ms, MIN_MS), MAX_MS)


def _zone_minutes(zone: str) -> int | None:
    if zone[:3] in ("utc", "gmt") and len(zone) > 3:
        zone = zone[3:]
    if zone[:1] in ("+", "-"):
        hours, _, minutes = zone[1:].partition(":") if ":" in zone else (zone[1:3], "", zone[3:])
        return (-1 if zone[0] == "-" else 1) * (int(hours) * 60 + int(minutes or 0))
    hours_of = _ZONES.get(zone)
    return None if hours_of is None else hours_of * 60


def _number(value: float) -> int | None:
    if not math.isfinite(value) or value < _FIRST_S:
        return None
    if isinstance(value, int) and _COMPACT.fullmatch(text := str(value)):
        return _text(text)
    for limit, scale in ((1e11, 1000), (1e14, 1), (1e17, 1e-3), (1e20, 1e-6)):
        if value < limit:
            return min(max(int(value * scale), MIN_MS), MAX_MS)
    return None


def _object(value: Mapping[object, object]) -> int | None:
    """A time as MongoDB's JSON (`{"$date": ...}`) or protobuf's (`{"seconds": ..., "nanos": ...}`) has it."""
    for name in ("$date", "$numberLong"):
        if len(value) == 1 and name in value:
            inner = value[name]
            if isinstance(inner, Mapping) and name == "$date":
                inner = inner.get("$numberLong")
            return int(inner) if isinstance(inner, str) and inner.isdigit() and len(inner) < 16 else parse_time(inner)
    seconds = value.get("seconds", value.get("_seconds"))
    nanos = value.get("nanos", value.get("nanoseconds", value.get("_nanoseconds", 0)))
    if len(value) > 2 or isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isinstance(nanos, int):
        return None
    found = _number(seconds)
    return None if found is None else found + nanos // 1_000_000
