"""Documents of kinds that are not read: what each is and what mends it, so that none is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

_ZIP, _ANY = b"PK\x03\x04", b""
_KINDS: Mapping[str, tuple[bytes, str]] = {
    ".odt": (_ZIP, "an OpenDocument text, which is not read; save it as .docx or .pdf"),
    ".ods": (_ZIP, "an OpenDocument spreadsheet, which is not read; save it as .xlsx"),
    ".odp": (_ZIP, "an OpenDocument presentation, which is not read; save it as .pptx or .pdf"),
    ".epub": (_ZIP, "an e-book, which is not read; convert it to .html or .pdf"),
    ".mobi": (_ANY, "an e-book, which is not read; convert it to .html or .pdf"),
    ".azw3": (_ANY, "an e-book, which is not read; convert it to .html or .pdf"),
    ".djvu": (b"AT&T", "a DjVu document, which is not read; convert it to .pdf"),
    ".pages": (_ZIP, "a document of Apple Pages, which is not read; export it as .docx or .pdf"),
    ".numbers": (_ZIP, "a spreadsheet of Apple Numbers, which is not read; export it as .xlsx"),
    ".key": (_ZIP, "a presentation of Apple Keynote, which is not read; export it as .pptx or .pdf"),
    ".rtf": (b"{\\rtf", "rich text (RTF), which is not read; save it as .docx or .pdf"),
    ".wpd": (_ANY, "a WordPerfect document, which is not read; save it as .docx or .pdf"),
    ".xlsb": (_ZIP, "a binary workbook, which is not read; save it as .xlsx"),
    ".mht": (_ANY, "a web archive, which is not read; save the page as .html"),
    ".mhtml": (_ANY, "a web archive, which is not read; save the page as .html"),
}  # fmt: skip
_MAIL = (".eml", ".mbox")


def foreign(name: str, first: bytes) -> str | None:
    """What a document is that is not read, and what mends that, by its name and how it begins; None for any other file."""
    begins, what = _KINDS.get(PurePath(name).suffix.lower(), (_ANY, None))
    return what if first.startswith(begins) else None


def foreign_in_folder(name: str, first: bytes) -> str | None:
    """As `foreign`, of a file in a folder that is followed, where mail is not read either."""
    if PurePath(name).suffix.lower() in _MAIL:
        return "mail, which is not followed; `headwater ingest TOPIC FILE` loads it"
    return foreign(name, first)
