"""mbox (and a single .eml) -> a record a message: subject and text, addresses, threads by their references."""

from __future__ import annotations

import email
import email.header
import email.utils
import re
from collections.abc import Callable, Iterator
from email.message import Message
from typing import BinaryIO

from headwater.errors import UsageError
from headwater.records import Draft, to_ms
from headwater.records.moments import parse_time
from headwater.sources import Fault
from headwater.sources.exports import Item, attributes, place

MOST_BYTES = 64 << 20  # of one message
_BEGIN = re.compile(rb"From \S+.* \d\d:\d\d(?::\d\d)? .*\d{4}|From - |From MAILER-DAEMON")
_FROM_BYTES = 300  # of a From line, that are looked at
_CTIME = re.compile(r"([A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d(?::\d\d)?) (?:([+-]\d{4}) )?(\d{4})")
_ID = re.compile(r"<[^<>\s]+>")
_STUMBLES = (ValueError, LookupError, TypeError, AttributeError, AssertionError)  # the parser's, over malformed mail


def is_mbox(first: bytes) -> bool:
    """Whether a file that begins so is a mailbox: a From line, then a header."""
    line, _, rest = first.partition(b"\n")
    return _BEGIN.match(line[:_FROM_BYTES]) is not None and re.match(rb">?[!-9;-~]{1,80}:", rest) is not None


def read(file: BinaryIO, to_text: Callable[[bytes], str]) -> Iterator[Item]:
    """Every message of a mailbox. `to_text` makes text of a page of HTML; UsageError where it cannot."""
    for start, data, sent_ms in messages(file):
        if data is None:
            yield Item("", Fault(start, f"a message of more than {MOST_BYTES >> 20} MiB"))
            continue
        yield Item("", message(data, start, to_text, sent_ms))


def messages(file: BinaryIO) -> Iterator[tuple[int, bytes | None, int | None]]:
    """Each message's place, its bytes (without its From line and with quoted From lines as they were; None for one that is
    too large) and the time of its From line."""
    parts: list[bytes] = []
    start = size = at = 0
    sent_ms: int | None = None
    blank, begun = True, False
    for line in file:
        if blank and line.startswith(b"From ") and _BEGIN.match(line[:_FROM_BYTES]):
            if begun:
                yield start, b"".join(parts) if size <= MOST_BYTES else None, sent_ms
            parts, size, start, begun, sent_ms = [], 0, at, True, _from_line(line)
        elif begun:
            size += len(line)
            if size <= MOST_BYTES:
                parts.append(line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line)
            else:
                parts = []
        at += len(line)
        blank = line in (b"\n", b"\r\n")
    if begun:
        yield start, b"".join(parts) if size <= MOST_BYTES else None, sent_ms


def message(data: bytes, start: int, to_text: Callable[[bytes], str], sent_ms: int | None = None) -> Draft | Fault:
    """The draft of one message; `sent_ms` is its time where it does not tell."""
    try:
        return _draft(
            email.message_from_bytes(data), data, to_text, sent_ms
        )  # the older, plainer policy: it copes with anything
    except RecursionError:
        return Fault(start, "a message nested too deep", data[:2000].decode("utf-8", "replace"))
    except _STUMBLES as error:
        reason = f"a malformed message ({type(error).__name__}: {str(error)[:100]})"
        return Fault(start, reason, data[:2000].decode("utf-8", "replace"))


def _draft(parsed: Message, data: bytes, to_text: Callable[[bytes], str], sent_ms: int | None) -> Draft:
    subject, id = _header(parsed, "subject"), _header(parsed, "message-id")
    references = _ID.findall(_header(parsed, "references")) or _ID.findall(_header(parsed, "in-reply-to"))
    time_ms = _time(_header(parsed, "date")) or _time(_header(parsed, "received").rpartition(";")[2]) or sent_ms
    found = attributes(
        subject=subject, **{"from": _header(parsed, "from")}, to=_header(parsed, "to"), cc=_header(parsed, "cc"),
        thread=references[0] if references else id, reply=bool(references) or None,
        labels=_header(parsed, "x-gmail-labels"), attachments=_attachments(parsed),
    )  # fmt: skip
    body = _body(parsed, to_text).replace("\r\n", "\n").strip()
    value = f"{subject}\n\n{body}".strip()
    return Draft(value, id or None, time_ms, found, position=place(time_ms, id or data.decode("latin-1")))


def _header(parsed: Message, name: str) -> str:
    """A header's decoded text on one line; as it stands where its encoding is broken."""
    value = parsed.get(name)
    if value is None:
        return ""
    return _worded(str(value))


def _worded(text: str) -> str:
    """A header's text with its encoded words decoded."""
    if "=?" in text:
        try:
            text = str(email.header.make_header(email.header.decode_header(text)))
        except _STUMBLES:
            pass
    return " ".join(text.split())


def _time(text: str) -> int | None:
    try:
        return to_ms(email.utils.parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _from_line(line: bytes) -> int | None:
    """The time of a From line: behind the address, as ctime writes it, some with a zone before the year."""
    found = _CTIME.search(line[:_FROM_BYTES].decode("latin-1"))
    return None if found is None else parse_time(f"{found[1]} {found[3]}" + (f" {found[2]}" if found[2] else ""))


def _attachments(parsed: Message) -> list[str]:
    return [_worded(name) for part in parsed.walk() if (name := part.get_filename())][:50]


def _body(parsed: Message, to_text: Callable[[bytes], str]) -> str:
    """The text as plain as it comes: the first text/plain, else what the first HTML says. Attachments are none of it."""
    page = None
    for part in parsed.walk():
        kind = part.get_content_type()
        if part.is_multipart() or part.get_content_disposition() == "attachment" or part.get_filename():
            continue
        if kind == "text/plain" and (text := _content(part)).strip():
            return text
        page = part if page is None and kind == "text/html" else page
    if page is None:
        return ""
    try:
        return to_text(_content(page).encode("utf-8", "replace"))
    except UsageError:
        return ""


def _content(part: Message) -> str:
    """A part's text by its charset; by Windows-1252 where that is unknown or a lie."""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    for charset in (part.get_content_charset() or "utf-8", "utf-8", "cp1252"):
        try:
            return data.decode(charset)
        except (LookupError, ValueError):
            continue
    return data.decode("latin-1")
