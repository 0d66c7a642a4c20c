"""One syslog message as a draft: RFC 5424, RFC 3164 and what is sent in its name. Bytes that are neither stay as they are.

The text is the message behind the header; the header becomes attributes, the level (from the severity) and the time. Times
of RFC 3164 have no year and no zone: the year is the latest that makes them no later than a week from now, the
zone UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from headwater.records import Draft, Scalar, to_ms

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit",
    "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_LEVELS = ("fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug")

_PRI = re.compile(r"<(\d{1,3})>")
_HEAD = re.compile(r"1 (\S+) (\S+) (\S+) (\S+) (\S+) (?=-|\[)")  # of RFC 5424, behind <PRI>
_ELEMENT = re.compile(r'\[([^ =\]"]{1,64})((?: [^ =\]"]{1,64}="(?:[^"\\\]]|\\.)*")*)\]', re.DOTALL)
_PARAMETER = re.compile(r' ([^ =\]"]{1,64})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_BSD_TIME = re.compile(rf"({'|'.join(_MONTHS)}) ([ 0-3]?\d) (?:(\d{{4}}) )?(\d\d):(\d\d):(\d\d)(?:\.\d+)? ")
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?) ")
_TAG = re.compile(r"([^\s:\[]{1,64})(?:\[([^\]\s]{1,32})\])?: ?")
_CACHED = 4096
_AHEAD_MS = 7 * 86_400_000  # a sender's clock may be ahead


class SyslogParser:
    """Reads messages; never raises. `now_ms` settles the year of times that have none."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._times: dict[str, int | None] = {}

    def draft(self, message: bytes, peer: str | None = None) -> Draft:
        """The draft of one message, as it came without its framing. `peer` is the address that sent it."""
        try:
            text, raw = message.decode("utf-8"), None
        except UnicodeDecodeError:
            text, raw = message.decode("utf-8", "replace"), message
        attributes: dict[str, Scalar] = {}
        value, time_ms = text, None
        found = _PRI.match(text)
        if found is not None and (priority := int(found[1])) < 192:
            severity = priority & 7
            attributes["level"] = _LEVELS[severity]
            attributes["facility"], attributes["severity"] = FACILITIES[priority >> 3], SEVERITIES[severity]
            value, time_ms = self._header(text, found.end(), attributes)
        if peer:
            attributes["peer"] = peer
        return Draft(value or text, None, time_ms, attributes, raw=raw)

    def _header(self, text: str, at: int, attributes: dict[str, Scalar]) -> tuple[str, int | None]:
        """The message behind the header and the header's time; the whole text where there is no header."""
        if (head := _HEAD.match(text, at)) is not None:
            value = _structured(text, head.end(), attributes)
            if value is not None:
                for name, given in zip(("hostname", "app", "procid", "msgid"), head.groups()[1:], strict=True):
                    if given != "-":
                        attributes[name] = given
                return value.removeprefix("\ufeff"), self._iso(head[1])
        return self._bsd(text, at, attributes)

    def _bsd(self, text: str, at: int, attributes: dict[str, Scalar]) -> tuple[str, int | None]:
        """RFC 3164 as it is sent: a time (of the BSD or the ISO form), perhaps a host, a tag."""
        if (found := _BSD_TIME.match(text, at)) is not None:
            time_ms = self._yearless(found)
        elif (found := _ISO_TIME.match(text, at)) is not None:
            time_ms = self._iso(found[1])
        else:
            return text, None
        rest = found.end()
        if (tag := _TAG.match(text, rest)) is None:  # what is no tag is the host
            host, _, _ = text[rest : rest + 256].partition(" ")
            if host and text[rest + len(host) : rest + len(host) + 1] == " ":
                tag = _TAG.match(text, rest + len(host) + 1)
                if tag is not None or not host.endswith(":"):
                    attributes["hostname"] = host
                    rest += len(host) + 1
        if tag is not None:
            attributes["app"] = tag[1]
            if tag[2]:
                attributes["procid"] = tag[2]
            rest = tag.end()
        return text[rest:], time_ms

    def _iso(self, text: str) -> int | None:
        if text == "-":
            return None
        try:
            return to_ms(datetime.fromisoformat(text))
        except ValueError:
            return None

    def _yearless(self, found: re.Match[str]) -> int | None:
        key = found[0]
        if key not in self._times:
            if len(self._times) >= _CACHED:
                self._times.clear()
            self._times[key] = self._dated(found)
        return self._times[key]

    def _dated(self, found: re.Match[str]) -> int | None:
        month, year = _MONTHS.index(found[1]) + 1, found[3]
        day, hour, minute, second = (int(found[n]) for n in (2, 4, 5, 6))
        now = self._now_ms()
        this = datetime.fromtimestamp(now / 1000, UTC).year
        for candidate in (int(year),) if year else range(this + 1, this - 9, -1):  # a February 29th is eight years ago at most
            try:
                at = to_ms(datetime(candidate, month, day, hour, minute, min(second, 59), tzinfo=UTC))
            except ValueError:
                continue
            if year or at <= now + _AHEAD_MS:
                return at
        return None


def _structured(text: str, at: int, attributes: dict[str, Scalar]) -> str | None:
    """The message behind the structured data at `at`, whose parameters become attributes `id.name`; None where it is none."""
    if text[at] == "-":
        end = at + 1
    else:
        end = at
        while (element := _ELEMENT.match(text, end)) is not None:
            for name, value in _PARAMETER.findall(element[2]):
                attributes[f"{element[1]}.{name}"] = _ESCAPED.sub(r"\1", value) if "\\" in value else value
            end = element.end()
        if end == at:
            return None
    if end == len(text):
        return ""
    return text[end + 1 :] if text[end] == " " else None
