"""XLSX -> text: a page for each sheet under its name, a line for each row with the headers of its columns."""

from __future__ import annotations

import datetime
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from headwater.sources.formats import Text, Unreadable, check_size, folded, paged
from headwater.sources.formats.package import Package

_MOST_CELLS = 5_000_000
_STUMBLES = (  # what the library lets through of a damaged file
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, EOFError, SyntaxError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip


def read(data: bytes, package: Package) -> Text:
    """The sheets' text, values as they were last computed. Raises Unreadable for a workbook without any."""
    import openpyxl

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            names = [sheet.title for sheet in book.worksheets]
            notes = _notes(package)
            text, pages = paged(
                f"# {folded(sheet.title)}\n\n{_rows(sheet)}{notes.get(sheet.title, '')}" for sheet in book.worksheets
            )
            book.close()
    except Unreadable:
        raise
    except _STUMBLES as error:
        raise Unreadable(f"a damaged workbook ({type(error).__name__}: {str(error)[:200]}); save it anew") from error
    if not any(":" in line or "|" in line or not line.startswith("# ") for line in text.splitlines() if line.strip()):
        raise Unreadable("the workbook has no cells with values")
    return Text(text, pages, {**package.attributes(), "sheets": ", ".join(names)[:1000]})


def _notes(package: Package) -> dict[str, str]:
    """The comments on the cells of each sheet that has some, by its name, as lines to stand below its rows."""
    found: dict[str, str] = {}
    targets = package.relations("xl/workbook.xml")
    for kind, tag, element in package.events("xl/workbook.xml"):
        if kind != "end" or tag != "sheet":
            continue
        id = next((value for key, value in element.items() if key.endswith("}id")), "")
        part = targets.get(id, ("", ""))[1]
        for kind_of, target in package.relations(part).values() if part in package.names else ():
            if kind_of == "comments" and target in package.names:
                said = _said(package, target)
                found[element.get("name", "")] = "".join(f"\nComment: {text}" for text in said)
    return found


def _said(package: Package, name: str) -> list[str]:
    """The texts of a part of comments."""
    texts: list[str] = []
    runs: list[str] = []
    for kind, tag, element in package.events(name):
        if kind == "end" and tag == "t":
            runs.append(element.text or "")
        elif kind == "end" and tag == "comment":
            texts.append(folded("".join(runs)))
            runs = []
    return [text for text in texts if text]


def _rows(sheet: Any) -> str:
    """The rows of a sheet. The first that has two cells or more, all of them different texts, names the columns."""
    sheet.reset_dimensions()  # those it states may be lies
    lines: list[str] = []
    headers: Sequence[str] | None = None
    size = 0
    for cells in _cells(sheet):
        filled = [text for text in cells if text]
        if headers is None and len(filled) > 1:
            named = len(set(filled)) == len(filled) and not any(_is_number(text) for text in filled)
            headers = cells if named else ()
            lines.append(" | ".join(filled))
        elif headers:
            names = [headers[n] if n < len(headers) else "" for n in range(len(cells))]
            lines.append("; ".join(f"{n}: {text}" if n else text for n, text in zip(names, cells, strict=True) if text))
        else:
            lines.append(" | ".join(filled))
        size += len(lines[-1])
        check_size(size)
    return "\n".join(lines)


def _cells(sheet: Any) -> Iterator[list[str]]:
    """The texts of each row that has any."""
    seen = 0
    for row in sheet.iter_rows(values_only=True):
        seen += len(row) + 1
        if seen > _MOST_CELLS:
            raise Unreadable(f"a sheet of more than {_MOST_CELLS:,} cells; export it as .csv")
        cells = [_text(value) for value in row]
        if any(cells):
            yield cells


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, float):
        return f"{value:.15g}"
    return folded(str(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
