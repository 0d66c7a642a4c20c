"""PDF -> text, a page at a time, by PDFium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from headwater.sources.formats import MOST_PAGES, Text, Unreadable, paged

_SOFT = re.compile(r"[\x02\ufffe](?:\r?\n)?")  # how PDFium gives the hyphen of a word parted at a line's end
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")


def read(data: bytes) -> Text:
    """The text of all pages. Raises Unreadable for one that is damaged, locked or has no text."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(_reason(str(error))) from error
    try:
        if len(document) > MOST_PAGES:
            raise Unreadable(f"a PDF of {len(document):,} pages, more than {MOST_PAGES:,}; split it")
        text, pages = paged(_pages(document))
        if not text.strip("\f\n "):
            raise Unreadable(f"the PDF has no text on its {pages} pages, only images; run OCR over it first")
        return Text(text, pages, _attributes(document.get_metadata_dict(skip_empty=True)))
    except pypdfium2.PdfiumError as error:
        raise Unreadable(f"a damaged PDF ({error}); save it anew") from error
    finally:
        document.close()


def _pages(document: Any) -> Iterator[str]:
    for n in range(len(document)):
        page = document[n]
        words = page.get_textpage()
        text = words.get_text_bounded()
        words.close()
        page.close()
        yield re.sub(r"[ \t]*\r\n?", "\n", _SOFT.sub("", text)).replace("\0", "")


def _reason(said: str) -> str:
    if "password" in said.lower() or "security" in said.lower():
        return "an encrypted PDF that needs a password; save it without one"
    return "a damaged PDF, or none at all: it cannot be opened; save or export it anew"


def _attributes(known: dict[str, str]) -> dict[str, str]:
    found = {name.lower(): known[name] for name in ("Title", "Author", "Subject", "Keywords") if known.get(name, "").strip()}
    if date := _DATE.match(known.get("CreationDate", "")):
        found["created"] = "-".join(filter(None, date.groups()))
    placeholders = ("untitled", "anonymous", "unspecified")
    return {name: text.strip() for name, text in found.items() if text.strip().lower() not in placeholders}
