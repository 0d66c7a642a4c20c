"""DOCX -> text: paragraphs, headings, lists and tables in their order, then foot- and endnotes, comments, headers, footers."""

from __future__ import annotations

import re

from headwater.sources.formats import Text, Unreadable, check_size, folded
from headwater.sources.formats.package import Package, attribute

_MAIN = "word/document.xml"
_LEFT_OUT = frozenset({"delText", "instrText", "Fallback", "delInstrText"})  # deleted, computed, or said twice


def read(package: Package) -> Text:
    """The document's text. Raises Unreadable for one without text."""
    levels = _heading_levels(package)
    blocks = _blocks(package, _MAIN, levels)
    for name in ("word/footnotes.xml", "word/endnotes.xml"):
        if name in package.names:
            blocks += _blocks(package, name, levels)
    blocks += _around(package, levels)
    text = "\n\n".join(blocks).replace("\f", " ")
    if not text.strip():
        raise Unreadable("the document has no text, only pictures or nothing at all")
    return Text(text, None, package.attributes())


def _around(package: Package, levels: dict[str, int]) -> list[str]:
    """What stands around the text: comments, then headers and footers, each once, without bare page numbers."""
    comments = _blocks(package, "word/comments.xml", levels) if "word/comments.xml" in package.names else []
    names = sorted(name for name in package.names if re.fullmatch(r"word/(?:header|footer)\d*\.xml", name))
    lines = dict.fromkeys(block for name in names for block in _blocks(package, name, levels))
    return [*comments, *(line for line in lines if re.search(r"[^\W\d]{3}", line))]


def _heading_levels(package: Package) -> dict[str, int]:
    """Heading level by style id (names are the same in every language, ids are not); 0 for an item of a list."""
    found: dict[str, int] = {}
    if "word/styles.xml" not in package.names:
        return found
    style = ""
    for kind, tag, element in package.events("word/styles.xml"):
        if tag == "style" and kind == "start":
            style = attribute(element, "styleId") or ""
        elif tag == "name" and kind == "end" and style:
            name = (attribute(element, "val") or "").lower()
            if level := re.fullmatch(r"heading (\d)", name):
                found[style] = int(level[1])
            elif name == "title":
                found[style] = 1
            elif name.startswith("list "):
                found[style] = 0
        if kind == "end":
            element.clear()
    return found


def _blocks(package: Package, name: str, levels: dict[str, int]) -> list[str]:
    """Paragraphs of a part, a table as one block of rows. Paragraphs may hold others (text boxes): each is its own."""
    blocks: list[str] = []
    open_: list[list[str]] = []  # the paragraphs begun
    marks: list[str] = []
    rows: list[str] = []
    cells: list[list[str]] = []  # of each table's row being read, nested ones last
    left_out = size = tables = 0
    for kind, tag, element in package.events(name):
        if tag in _LEFT_OUT:
            left_out += 1 if kind == "start" else -1
        if kind == "start":
            if tag == "p":
                open_.append([])
                marks.append("")
            elif tag == "tbl":
                tables += 1
            elif tag == "tr":
                cells.append([])
            elif tag == "tc" and cells:
                cells[-1].append("")
            continue
        if tag == "pStyle" and marks:
            level = levels.get(attribute(element, "val") or "")
            marks[-1] = "" if level is None else "#" * min(level, 6) + " " if level else "- "
        elif tag == "numPr" and marks:
            marks[-1] = marks[-1] or "- "
        elif open_ and not left_out and tag in ("t", "tab", "br", "cr", "noBreakHyphen"):
            open_[-1].append({"t": element.text or "", "tab": "\t", "noBreakHyphen": "-"}.get(tag, "\n"))
        elif tag == "p" and open_:
            text, mark = "".join(open_.pop()).strip(), marks.pop()
            size += len(text)
            check_size(size)
            if text and not left_out:
                if cells and cells[-1]:
                    cells[-1][-1] = folded(f"{cells[-1][-1]} {text}")
                else:
                    blocks.append(mark + (folded(text) if mark else text))
        elif tag == "tr" and cells:
            row = " | ".join(cells.pop())
            if cells and cells[-1]:
                cells[-1][-1] = f"{cells[-1][-1]} {row}".strip()
            elif row.strip(" |"):
                rows.append(row)
        elif tag == "tbl":
            tables -= 1
            if not tables and rows:
                blocks.append("\n".join(rows))
                rows = []
        if not left_out or tag in _LEFT_OUT:
            element.clear()
    return blocks
