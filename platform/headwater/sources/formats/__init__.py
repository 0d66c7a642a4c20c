"""Bytes of a document -> its canonical text: one file for each family of formats. Runs in the converting child only.

Pages (slides, sheets) are parted by a line with a form feed, headings are those of Markdown: the number of the page
that a place of the text stands on is 1 + the form feeds before it, and the chunker knows the sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PAGE_BREAK = "\n\f\n"
MOST_PAGES = 10_000
MOST_CHARS = 16 << 20  # of text in one document


class Unreadable(ValueError):
    """A document that cannot be taken; the message says why and how to mend it."""


@dataclass(frozen=True, slots=True)
class Text:
    """The canonical text of a document and what it says of itself. `pages` is None where a format has none."""

    text: str
    pages: int | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def paged(pages: Iterable[str]) -> tuple[str, int]:
    """The pages as one text, and how many there are. A form feed of their own becomes a blank."""
    parts: list[str] = []
    size = 0
    for page in pages:
        parts.append(page.replace("\f", " ").strip())
        size += len(parts[-1])
        check_size(size)
        if len(parts) > MOST_PAGES:
            raise Unreadable(f"more than {MOST_PAGES:,} pages; split the document")
    return PAGE_BREAK.join(parts), len(parts)


def check_size(chars: int) -> None:
    """Raises Unreadable for more text than a document may have."""
    if chars > MOST_CHARS:
        raise Unreadable(f"more than {MOST_CHARS >> 20} MiB of text; split the document")


def folded(text: str) -> str:
    """One line of text, blanks folded."""
    return " ".join(text.split())
