"""What a record's text says of itself: its time, its level, its fields, and where its message begins.

Read by shape alone, never by the name of a system. A plain line has a header when a timestamp stands among its first words:
what is before the timestamp (hosts, labels, counters) and what follows it up to the message (process ids, levels, threads,
components) belong to the header. JSON and logfmt lines carry their message, time and level in fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import orjson

from headwater.records import Scalar

LEVELS = {
    "trace": "trace", "verbose": "trace", "finest": "trace", "debug": "debug", "fine": "debug", "dbg": "debug", "info": "info",
    "information": "info", "notice": "info", "warn": "warn", "warning": "warn", "error": "error", "err": "error",
    "severe": "error", "failure": "error", "alert": "fatal", "crit": "fatal", "critical": "fatal", "fatal": "fatal",
    "emerg": "fatal", "emergency": "fatal", "panic": "fatal",
}  # fmt: skip
_LETTERS = {"V": "trace", "D": "debug", "I": "info", "W": "warn", "E": "error", "F": "fatal"}
_MONTHS = {m: i + 1 for i, m in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])}
_HEAD_CHARS = 160  # how far into a line its header is looked for
_MOST_TEXT = 65_536  # of a JSON line; a longer one is read as plain text
_NONE: Mapping[str, Scalar] = MappingProxyType({})

_MON = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = r"\d{2}:\d{2}:\d{2}"
# One alternation, most specific first; each is followed by no further digit. Groups name the form.
_STAMP = re.compile(
    rf"""(?<![\w.:/-])\[?(?:
      (?P<iso>\d{{4}}[-/.]\d{{2}}[-/.]\d{{2}}[T _]{_CLOCK}(?:[.,:]\d{{1,9}})?(?:\s?(?:Z|UTC|[+-]\d{{2}}:?\d{{2}})\b)?)
    | (?P<dotted>\d{{4}}-\d{{2}}-\d{{2}}-\d{{2}}\.\d{{2}}\.\d{{2}}(?:\.\d{{1,9}})?)
    | (?P<packed>\d{{8}}[-T ]\d{{2}}:?\d{{1,2}}:?\d{{1,2}}(?:[:.,]\d{{1,9}})?Z?)
    | (?P<short>\d{{6}}\s\d{{6}})
    | (?P<common>\d{{2}}/{_MON}/\d{{4}}:{_CLOCK}(?:\s[+-]\d{{4}})?)
    | (?P<asctime>(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s{_MON}\s+\d{{1,2}}\s{_CLOCK}(?:\.\d{{1,9}})?(?:\s[A-Z]{{3,4}})?\s\d{{4}})
    | (?P<syslog>{_MON}\s+\d{{1,2}}\s(?:\d{{4}}\s)?{_CLOCK}(?:[.,]\d{{1,9}})?)
    | (?P<slashed>\d{{2}}/\d{{2}}/\d{{2}}\s{_CLOCK}(?:[.,]\d{{1,9}})?)
    | (?P<yearless>\d{{2}}[-/.]\d{{2}}\s{_CLOCK}(?:[.,]\d{{1,9}})?)
    | (?P<epoch>1\d{{9}}(?:\d{{3}}|\d{{6}}|\d{{9}}|\.\d{{1,9}})?)
    | (?P<klog>[IWEF]\d{{4}}\s{_CLOCK}\.\d{{6}})
    | (?P<clock>{_CLOCK}(?:[.,]\d{{1,9}})?)
    )\]?(?![\w/-])""",
    re.VERBOSE,
)
_LEVEL = re.compile(
    r"(?<![\w.])(?:(TRACE|VERBOSE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|SEVERE|FAILURE|CRIT(?:ICAL)?|ALERT|FATAL|EMERG|PANIC)\b"
    r"|[\[<(]?((?i:trace|debug|info(?:rmation)?|notice|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|emerg|panic))[\]>):|]"
    r"|(?:(?<=\s)|^)((?i:trace|debug|info|notice|warn(?:ing)?|err(?:or)?|critical|fatal))(?=\s{2}|\s+-))"
)
_LETTER = re.compile(r"\s([VDIWEF])[\s/]")
# What may stand between a timestamp and the message, one element a match; groups tell the sorts apart.
_WORDS = "TRACE|VERBOSE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|SEVERE|FAILURE|CRIT(?:ICAL)?|ALERT|FATAL|EMERG|PANIC"
_ELEMENT = re.compile(
    rf"""\s*(?:
      (?P<end>-(?=\s))                                                # a dash alone
    | (?P<rule>[-|,:]+(?=\s)|\|)
    | (?P<level>[\[<(]?(?:{_WORDS})[\]>)]?:?(?=[\s|\[]|$)|[\[<(](?i:{_WORDS})[\]>)]:?(?=\s|$)|(?i:{_WORDS})(?=\s{{2}}|\s-|:\s))
    | (?P<bracket>\[(?:[^\[\]]|\[[^\[\]]*\])*\]:?(?=\s|$)|\([\w.:/\#-]+\):?(?=\s))     # [thread], [id=1/0:0], (thread)
    | (?P<number>-?\d+(?=[\s|]))                                       # process and thread ids
    | (?P<letter>[VDIWEF](?=\s\w|/\w))                               # a level of one letter
    | (?P<component>[A-Za-z_][\w.$/@\#-]*(?:\([\w.-]*\))?(?:\[[\w.:/-]*\])?\s?:(?=\s))
    | (?P<dotted>(?:[a-z_][\w$]*\.){{2,}}[\w$]+(?=\s))
    | (?P<column>[A-Z][A-Za-z]{{1,11}}(?=\s{{2,}})|[\w.-]+(?=\||\s-\s))
    | (?P<program>\S+\.(?:exe|EXE)(?:\s\*\d+)?(?=\s-\s))
    )""",
    re.VERBOSE,
)
_ONCE = ("level", "letter", "bracket", "component", "dotted", "program")
_PROCESS = re.compile(r"\s*(?:[\w.:/@-]+\s+)?([\w./() -]{1,60}?(?:\[[\w.:-]*\])?):(?=\s|$)")
_UPTO_LEVEL = re.compile(
    r"\s+(?:[A-Z0-9_][A-Z0-9_:.\-]*\s+){1,4}(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|SEVERE|FAILURE|FATAL)(?=\s)"
)
_LOGFMT = re.compile(r'([A-Za-z_][\w.@/-]*)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')
_MESSAGE_KEYS = ("message", "msg", "log", "event", "body", "text", "short_message")
_TIME_KEYS = ("timestamp", "@timestamp", "time", "ts", "t", "datetime", "date", "asctime")
_LEVEL_KEYS = ("level", "severity", "lvl", "loglevel", "log.level", "levelname", "severity_text", "priority")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says of itself: `message` is what passages are made of, `text[start:]` for plain lines."""

    time_ms: int | None
    level: str | None
    start: int
    attributes: Mapping[str, Scalar]
    message: str


class LineReader:
    """Reads texts; remembers the last timestamps it has converted. Never raises, whatever the text."""

    def __init__(self, clock_ms: Callable[[], int], *, max_attributes: int = 64) -> None:
        self._clock_ms, self._most = clock_ms, max_attributes
        self._times: dict[str, int | None] = {}

    def read(self, text: str) -> Reading:
        if text[:1] in ("{", " ") and (fields := _json(text)) is not None:
            return self._of_fields(text, fields)
        if text.count("=", 0, 400) >= 3 and (fields := _logfmt(text)) is not None:
            return self._of_fields(text, fields)
        stamps = list(self._stamps(text))
        start = header_end(text, stamps[-1] if stamps else None)
        time_ms = next((ms for m in stamps if (ms := self._time(m)) is not None), None)
        return Reading(time_ms, _level(text, stamps[-1].end() if stamps else 0, start), start, _NONE, text[start:])

    def glance(self, text: str) -> tuple[int | None, str | None, Mapping[str, Scalar]]:
        """(time_ms, level, attributes) of a text, without its message: what an append needs, cheaply."""
        if text[:1] in ("{", " ") or text.count("=", 0, 400) >= 3:
            reading = self.read(text)
            return reading.time_ms, reading.level, reading.attributes
        found = _STAMP.match(text) or _STAMP.search(text, 0, _HEAD_CHARS)
        if found is None:
            return None, _level(text, 0, 0), _NONE
        time_ms = self._time(found)
        if time_ms is None or found.lastgroup in ("epoch", "clock", "short"):
            time_ms = next((ms for m in self._stamps(text) if (ms := self._time(m)) is not None), None)
        end = found.end()
        return time_ms, _level(text, end, end + 80), _NONE

    def _stamps(self, text: str) -> list[re.Match[str]]:
        """The timestamps of the header: the first among the first words, further ones close behind."""
        found = _STAMP.match(text) or _STAMP.search(text, 0, _HEAD_CHARS)
        out: list[re.Match[str]] = []
        while found is not None and len(text[out[-1].end() if out else 0 : found.start()].split()) <= (2 if out else 6):
            out.append(found)
            found = _STAMP.search(text, found.end(), _HEAD_CHARS)
        return out

    def _time(self, match: re.Match[str]) -> int | None:
        stamp, form = match[match.lastgroup or 0], match.lastgroup or ""
        if stamp in self._times:
            return self._times[stamp]
        if len(self._times) > 20_000:
            self._times.clear()
        try:
            found = _convert(stamp, form, self._clock_ms())
        except (ValueError, OverflowError):
            found = None
        self._times[stamp] = found
        return found

    def _of_fields(self, text: str, fields: Mapping[str, Any]) -> Reading:
        attributes: dict[str, Scalar] = {}
        _flatten(fields, "", attributes, self._most, 0)
        time_ms = next((ms for k in _TIME_KEYS if k in fields and (ms := self._field_time(fields[k])) is not None), None)
        level = next((v for k in _LEVEL_KEYS if k in fields and (v := _field_level(k, fields[k])) is not None), None)
        key = next((k for k in _MESSAGE_KEYS if isinstance(fields.get(k), str) and fields[k].strip()), None)
        if level is not None:
            attributes["level"] = level
        if key is None:
            return Reading(time_ms, level, 0, attributes, text)
        attributes.pop(key, None)
        return Reading(time_ms, level, 0, attributes, str(fields[key]))

    def _field_time(self, value: Any) -> int | None:
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"\d{10,19}(\.\d+)?", value)):
            return _epoch_ms(float(value), self._clock_ms())
        if isinstance(value, str) and len(value) < 60 and (found := _STAMP.match(value)):
            return self._time(found)
        return None


def header_end(text: str, stamp: re.Match[str] | None) -> int:
    """Where the message of a plain line begins; 0 without a timestamp."""
    if stamp is None:
        return 0
    at = stamp.end()
    if stamp.lastgroup == "syslog" and (found := _PROCESS.match(text, at, at + 120)) is not None:
        return _skip(text, found.end())
    seen: set[str] = set()
    if (found := _UPTO_LEVEL.match(text, at, at + 160)) is not None:
        at = found.end()
        seen.add("level")
    while (found := _ELEMENT.match(text, at)) is not None and (sort := found.lastgroup or "") not in seen:
        settled = not seen.isdisjoint(("level", "bracket", "component", "dotted", "program"))
        if sort in ("number", "column") and settled and not text.startswith(" ---", found.end()):
            break
        at = found.end()
        if sort == "end" and settled:
            break
        if sort in _ONCE:
            seen.add(sort)
    return _skip(text, at)


def _skip(text: str, at: int) -> int:
    """Past blanks, unless nothing follows: a line that is all header is its own message."""
    end = len(text)
    while at < end and text[at] in " \t":
        at += 1
    return at if at < end else 0


def _level(text: str, start: int, end: int) -> str | None:
    found = _LEVEL.search(text, max(start - 1, 0), max(end, start + 60))
    if found is not None:
        return LEVELS.get((found[1] or found[2] or found[3]).lower())
    if start and (letter := _LETTER.search(text, start, start + 24)) is not None:
        return _LETTERS[letter[1]]
    return None


def _json(text: str) -> Mapping[str, Any] | None:
    if len(text) > _MOST_TEXT:
        return None
    try:
        found = orjson.loads(text)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _logfmt(text: str) -> Mapping[str, Any] | None:
    """The pairs of a line that is at least four fifths logfmt."""
    if len(text) > 8192:
        return None
    pairs, covered = {}, 0
    for match in _LOGFMT.finditer(text):
        value = match[2]
        pairs[match[1]] = orjson.loads(value) if value[:1] == '"' and _is_json(value) else value.strip('"')
        covered += match.end() - match.start()
    recognised = any(k in pairs for k in (*_MESSAGE_KEYS, *_LEVEL_KEYS))
    return pairs if len(pairs) >= 3 and recognised and covered >= 0.8 * len(text.strip()) else None


def _is_json(value: str) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def _flatten(value: Mapping[str, Any], prefix: str, out: dict[str, Scalar], most: int, depth: int) -> None:
    for name, inner in value.items():
        if len(out) >= most:
            return
        if isinstance(inner, dict):
            if depth < 8:
                _flatten(inner, f"{prefix}{name}.", out, most, depth + 1)
        elif isinstance(inner, list):
            if inner and all(isinstance(v, str | int | float) for v in inner):
                out[prefix + name] = ", ".join(map(str, inner))
        elif inner is not None:
            out[prefix + name] = inner


def _field_level(key: str, value: Any) -> str | None:
    if isinstance(value, str):
        return LEVELS.get(value.strip().lower())
    if isinstance(value, int) and not isinstance(value, bool):
        if key == "priority" or value < 8:
            return ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")[value] if 0 <= value < 8 else None
        return {10: "trace", 20: "debug", 30: "info", 40: "warn", 50: "error", 60: "fatal"}.get(value)
    return None


def _epoch_ms(value: float, now_ms: int) -> int | None:
    """Epoch seconds, ms, us or ns, told apart by size; None for what is far from any log's time."""
    for scale in (1000.0, 1.0, 1e-3, 1e-6):
        ms = value * scale
        if 315_532_800_000 <= ms <= now_ms + 315_360_000_000:
            return int(ms)
    return None


def _convert(stamp: str, form: str, now_ms: int) -> int | None:
    """Epoch ms of a timestamp; ValueError for an impossible date, None where it names no date."""
    if form == "epoch":
        return _epoch_ms(float(stamp), now_ms)
    if form == "clock":
        return None
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    zone, digits = timedelta(), stamp
    if (offset := re.search(r"([+-])(\d{2}):?(\d{2})$", stamp)) and form in ("iso", "common"):
        zone = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (1 if offset[1] == "+" else -1)
        digits = stamp[: offset.start()]
    name = re.search(_MON, digits)
    parts = [int(n) for n in re.findall(r"\d+", digits)]
    clock = re.search(r"(\d{2}):(\d{1,2}):(\d{1,2})(?:[.,:](\d{1,9}))?", digits)
    fraction = int((clock[4] + "000000")[:6]) if clock is not None and clock[4] else 0
    if form == "iso":
        year, month, day, h, m, s = parts[:6]
    elif form == "dotted":
        year, month, day, h, m, s = parts[:6]
        fraction = int((str(re.findall(r"\d+", digits)[6]) + "000000")[:6]) if len(parts) > 6 else 0
    elif form == "packed":
        year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
        h, m, s = (
            (int(clock[1]), int(clock[2]), int(clock[3]))
            if clock
            else (int(digits[9:11]), int(digits[11:13]), int(digits[13:15]))
        )
    elif form == "short":
        year, month, day = 2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:6])
        h, m, s = int(digits[7:9]), int(digits[9:11]), int(digits[11:13])
    elif form == "slashed":
        year, month, day, h, m, s = 2000 + parts[0], *parts[1:6]
    elif form == "common" and name is not None:
        day, year, h, m, s = parts[:5]
        month = _MONTHS[name[0].lower()]
    elif form == "asctime" and name is not None:
        day, h, m, s, year = parts[0], parts[1], parts[2], parts[3], parts[-1]
        month = _MONTHS[name[0].lower()]
    elif form == "syslog" and name is not None and clock is not None:
        day, month = parts[0], _MONTHS[name[0].lower()]
        year = parts[1] if parts[1] > 1900 else 0
        h, m, s = int(clock[1]), int(clock[2]), int(clock[3])
    else:  # yearless, klog
        flat = re.sub(r"\D", "", digits)
        month, day, h, m, s, year = int(flat[:2]), int(flat[2:4]), int(flat[4:6]), int(flat[6:8]), int(flat[8:10]), 0
    inferred = year == 0
    when = datetime(year or now.year, month, day, h, m, min(s, 59), fraction, UTC) - zone
    if inferred and when > now + timedelta(days=1):
        when = when.replace(year=now.year - 1)
    ms = int((when - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
    return ms if ms <= now_ms + 315_360_000_000 else None
