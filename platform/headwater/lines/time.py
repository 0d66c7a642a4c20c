"""Timestamps as they are written in logs: where one stands (by shape alone) and what instant it means.

`match_time` looks only at the shape of the digits, never at their values, so what it finds can be cached for all
lines of that shape; `Instants` turns the text found into milliseconds and refuses impossible values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from headwater.records import MAX_MS, MIN_MS, to_ms

DAY_MS = 86_400_000
FUTURE_MS = 3653 * DAY_MS  # later than this from now is not believed
CACHED_INSTANTS = 32_768
_CACHED_SPANS = 4096
_DIGITS_ALIKE = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))

_MONTHS = {
    "jan": 1,
    "feb": 2,
    "mar": 3,
    "apr": 4,
    "may": 5,
    "jun": 6,
    "jul": 7,
    "aug": 8,
    "sep": 9,
    "oct": 10,
    "nov": 11,
    "dec": 12,
}
_MON = "(?P<mon>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DOW = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},?[ ]+)?"
_FRACTION = r"(?:[.,:](?P<f>[0-9]{1,9}))?"
_CLOCK = r"(?P<h>[0-9]{1,2}):(?P<mi>[0-9]{2}):(?P<s>[0-9]{2})" + _FRACTION
_ZONE = r"(?:[ ]?(?P<z>Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2}(?=[\s\]]|$)))?"
_END = r"(?![0-9A-Za-z])"

# Name, rank (which of several on a line tells the time), shape. First that fits wins.
_DIGIT_FORMATS = [
    (
        "iso",
        4,
        r"(?P<y>[0-9]{4})[-/.](?P<mo>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})(?:T|[ ]{1,2}|_|-|:|,[ ])"
        r"(?P<h>[0-9]{1,2})[:.](?P<mi>[0-9]{2})(?:[:.](?P<s>[0-9]{2})" + _FRACTION + ")?" + _ZONE + _END,
    ),
    (
        "basic",
        4,
        r"(?P<y>[0-9]{4})(?P<mo>[0-9]{2})(?P<d>[0-9]{2})[-T_ ](?:(?P<h>[0-9]{1,2}):(?P<mi>[0-9]{1,2}):(?P<s>[0-9]{1,2})"
        r"|(?P<h2>[0-9]{2})(?P<mi2>[0-9]{2})(?P<s2>[0-9]{2}))" + _FRACTION + _ZONE + _END,
    ),
    ("short", 4, r"(?P<yy>[0-9]{2})/(?P<mo>[0-9]{2})/(?P<d>[0-9]{2})[ ]" + _CLOCK + _END),
    ("packed", 3, r"(?P<yy>[0-9]{2})(?P<mo>[0-9]{2})(?P<d>[0-9]{2})[ ](?P<h>[0-9]{2})(?P<mi>[0-9]{2})(?P<s>[0-9]{2})" + _END),
    (
        "slashed",
        4,
        r"(?P<mo>[0-9]{1,2})(?P<sep>[/.-])(?P<d>[0-9]{1,2})[/.-](?P<y>[0-9]{4})(?:[ T]|,[ ])"
        + _CLOCK
        + r"(?:[ ](?P<ap>[AaPp][Mm]))?"
        + _ZONE
        + _END,
    ),
    ("common", 4, r"(?P<d>[0-9]{1,2})/" + _MON + r"/(?P<y>[0-9]{4}):" + _CLOCK + _ZONE + _END),
    ("dated", 4, r"(?P<d>[0-9]{1,2})[ -]" + _MON + r"[ -](?P<y>[0-9]{4})[ ]" + _CLOCK + _ZONE + _END),
    ("yearless", 2, r"(?P<mo>[0-9]{2})[-/.](?P<d>[0-9]{2})[ ]" + _CLOCK + _END),
    ("epoch", 3, r"(?P<e>[0-9]{10}(?:[0-9]{3}){0,3})(?:\.(?P<f>[0-9]{1,9}))?(?![0-9A-Za-z:./-])"),
    ("date", 1, r"(?P<y>[0-9]{4})[-/.](?P<mo>[0-9]{2})[-/.](?P<d>[0-9]{2})(?![0-9A-Za-z:./_-])"),
    ("clock", 0, r"(?P<h>[0-9]{1,2}):(?P<mi>[0-9]{2})(?::(?P<s>[0-9]{2})(?:[.,:](?P<f>[0-9]{1,9}))?)?(?![0-9A-Za-z:])"),
]
_LETTER_FORMATS = [
    ("ctime", 4, _DOW + _MON + r"[ ]+(?P<d>[0-9]{1,2})[ ]+" + _CLOCK + r"(?:[ ][A-Z]{3,4})?[ ](?P<y>[0-9]{4})" + _END),
    ("syslog-year", 4, _DOW + _MON + r"[ ]+(?P<d>[0-9]{1,2}),?[ ](?P<y>[0-9]{4})[ ]" + _CLOCK + _ZONE + _END),
    ("syslog", 2, _DOW + _MON + r"[ ]+(?P<d>[0-9]{1,2})[ ]" + _CLOCK + _END),
    ("mail", 4, _DOW + r"(?P<d>[0-9]{1,2})[ ]" + _MON + r"[ ](?P<y>[0-9]{4})[ ]" + _CLOCK + _ZONE + _END),
    ("glog", 2, r"[IWEF](?P<mo>[0-9]{2})(?P<d>[0-9]{2})[ ]" + _CLOCK + _END),
]
_DIGITS = tuple((name, rank, re.compile(shape)) for name, rank, shape in _DIGIT_FORMATS)
_LETTERS = tuple((name, rank, re.compile(shape)) for name, rank, shape in _LETTER_FORMATS)
_BY_NAME = {name: pattern for name, _, pattern in _DIGITS + _LETTERS}
YEARLESS = frozenset({"yearless", "syslog", "glog"})


class TimeSpan(NamedTuple):
    """A timestamp's place: `[start, end)` whole, `[fraction, fraction_end)` its fraction (empty where there is none).

    What is left without the fraction names the second."""

    name: str
    rank: int
    start: int
    end: int
    fraction: int
    fraction_end: int


def match_time(text: str, at: int) -> TimeSpan | None:
    """The timestamp that begins exactly at `at`, judged by shape; None where none does."""
    first = text[at : at + 1]
    formats = _DIGITS if "0" <= first <= "9" else _LETTERS if "A" <= first <= "Z" else ()
    for name, rank, pattern in formats:
        if found := pattern.match(text, at):
            given = found.groupdict()
            cut = next((found.end(group) for group in ("s", "s2", "e") if given.get(group)), found.end())
            fraction, fraction_end = found.span("f") if given.get("f") else (cut, cut)
            return TimeSpan(name, rank, found.start(), found.end(), fraction, fraction_end)
    return None


class Instants:
    """Texts of timestamps -> milliseconds since the epoch, with one bounded cache by the text to the second."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._cache: dict[tuple[str, str], int | None] = {}
        self._spans: dict[bytes, TimeSpan | None] = {}  # of texts that are a timestamp, by their shape
        self._today = -1

    def instant(self, name: str, second: str, fraction: str) -> int | None:
        """Milliseconds of a timestamp of the format `name`; None for impossible or absurd ones, and for a bare clock.

        `second` is its text without the fraction (which may keep the fraction's mark), `fraction` the digits of it.
        """
        if name in YEARLESS and (today := self._clock_ms() // DAY_MS) != self._today:
            self._cache.clear()  # a text without a year means another day from midnight on
            self._today = today
        key = (name, second)
        try:
            base = self._cache[key]
        except KeyError:
            if len(self._cache) >= CACHED_INSTANTS:
                self._cache.clear()
            base = self._cache[key] = self._convert(name, second)
        if base is None or not fraction:
            return base
        return base + (int(fraction[:3]) if len(fraction) > 2 else int(fraction) * (100 if len(fraction) == 1 else 10))

    def number(self, value: float) -> int | None:
        """Milliseconds of an epoch number in s, ms, us or ns, told apart by size; None where it is absurd."""
        size = abs(value)
        if size != size or size >= 1e20:
            return None
        for limit, divisor in ((1e11, 0.001), (1e14, 1.0), (1e17, 1e3)):
            if size < limit:
                return self._believed(int(value / divisor) if divisor < 1 else int(value // divisor))
        return self._believed(int(value // 1_000_000))

    def text(self, value: str) -> int | None:
        """Milliseconds of a text that is a timestamp and nothing else; None where it is not one."""
        value = value.strip()
        if not 0 < len(value) <= 64:
            return None
        shape = value.encode("utf-8", "surrogatepass").translate(_DIGITS_ALIKE)
        if shape not in self._spans:
            if len(self._spans) >= _CACHED_SPANS:
                self._spans.clear()
            self._spans[shape] = match_time(value, 0)
        found = self._spans[shape]
        if found is None or found.end != len(value):
            return None
        second = value[: found.fraction] + value[found.fraction_end :]
        return self.instant(found.name, second, value[found.fraction : found.fraction_end])

    def _convert(self, name: str, second: str) -> int | None:
        if name == "clock":
            return None
        found = _BY_NAME[name].match(_without_mark(second))
        if found is None:
            return None
        part = found.groupdict()
        if name == "epoch":
            return self.number(int(part["e"]))
        try:
            return self._believed(self._date(part))
        except (ValueError, OverflowError):
            return None

    def _date(self, part: dict[str, str | None]) -> int:
        def number(group: str, default: int = 0) -> int:
            value = part.get(group)
            return int(value) if value else default

        month, day = number("mo") or _MONTHS.get((part.get("mon") or "").lower(), 0), number("d", 1)
        if "sep" in part and (month > 12 or (part["sep"] == "." and day <= 12)):  # day first, as most of the world writes it
            month, day = day, month
        hour, minute, second = number("h") or number("h2"), number("mi") or number("mi2"), number("s") or number("s2")
        second = 59 if second == 60 else second  # a leap second
        if half := (part.get("ap") or "").lower():
            hour = hour % 12 + (12 if half == "pm" else 0)
        if part.get("yy"):
            year = 2000 + number("yy") if number("yy") < 70 else 1900 + number("yy")
        elif part.get("y"):
            year = number("y")
        else:
            return self._nearest_year(month, day, hour, minute, second)
        return to_ms(datetime(year, month, day, hour, minute, second, tzinfo=UTC)) - _zone_ms(part.get("z"))

    def _nearest_year(self, month: int, day: int, hour: int, minute: int, second: int) -> int:
        now = self._clock_ms()
        latest = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(max(now + DAY_MS, 0), MAX_MS))
        for year in range(latest.year, latest.year - 9, -1):  # 29 February may be eight years back
            try:
                when = to_ms(datetime(year, month, day, hour, minute, second, tzinfo=UTC))
            except ValueError:
                if (month, day) != (2, 29):
                    raise
                continue
            if when <= now + DAY_MS:
                return when
        raise ValueError("no such day")

    def _believed(self, ms: int) -> int | None:
        return ms if MIN_MS <= ms <= min(MAX_MS, self._clock_ms() + FUTURE_MS) else None


def _without_mark(second: str) -> str:
    """The text without the dot or comma that stood before a fraction."""
    return re.sub(r"[.,:](?=$|[ ]|Z|UTC|GMT|[+-])", "", second)


def _zone_ms(zone: str | None) -> int:
    if not zone or zone[0] not in "+-":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
    return (-1 if zone[0] == "-" else 1) * (hours * 60 + minutes) * 60_000
