"""PPTX -> text: a page for each slide in the order of the show, title first as its heading, notes last."""

from __future__ import annotations

import re

from headwater.sources.formats import Text, Unreadable, folded, paged
from headwater.sources.formats.package import Package, attribute

_MAIN = "ppt/presentation.xml"


def read(package: Package) -> Text:
    """The slides' text. Raises Unreadable for a show without any."""
    slides = _order(package)
    text, pages = paged(_slide(package, name) for name in slides)
    if not text.strip("\f\n "):
        raise Unreadable(f"the {pages} slides have no text, only pictures")
    return Text(text, pages, package.attributes())


def _order(package: Package) -> list[str]:
    """The slides' parts in the order they are shown."""
    targets = package.relations(_MAIN)
    ids = [attribute_id(e) for kind, tag, e in package.events(_MAIN) if kind == "end" and tag == "sldId"]
    found = [targets[id][1] for id in ids if id in targets and targets[id][1] in package.names]
    if found or not ids:
        return found
    number = re.compile(r"ppt/slides/slide(\d+)\.xml")
    return sorted((n for n in package.names if number.fullmatch(n)), key=lambda n: int(number.sub(r"\1", n)))


def attribute_id(element: object) -> str:
    """The relation id of a slide; `id` without a namespace is the slide's own number."""
    from xml.etree.ElementTree import Element

    assert isinstance(element, Element)
    return next((value for key, value in element.items() if key.endswith("}id")), "")


def _slide(package: Package, name: str) -> str:
    title, blocks = _shapes(package, name)
    notes = next((target for kind, target in package.relations(name).values() if kind == "notesSlide"), None)
    said = _shapes(package, notes)[1] if notes in package.names and notes is not None else []
    said = [text for text in said if not text.isdigit()]  # the page's own number
    blocks += _drawn(package, name)
    parts = [f"# {title}"] if title else []
    parts += ["\n".join(blocks)] if blocks else []
    parts += ["Notes: " + "\n".join(said)] if said else []
    return "\n\n".join(parts)


def _drawn(package: Package, name: str) -> list[str]:
    """The words of a slide's charts and diagrams, a line for each: titles, names of series and categories."""
    lines: list[str] = []
    for kind, target in package.relations(name).values():
        if kind not in ("chart", "diagramData") or target not in package.names:
            continue
        words: dict[str, None] = {}
        depth = 0
        for event, tag, element in package.events(target):
            if tag == "strCache":
                depth += 1 if event == "start" else -1
            elif event == "end" and (tag == "t" or (tag == "v" and depth)) and (text := folded(element.text or "")):
                words[text] = None
        if words:
            lines.append(", ".join(words))
    return lines


def _shapes(package: Package, name: str) -> tuple[str, list[str]]:
    """`(title, other paragraphs)` of a slide; a table's row is one of them."""
    title: list[str] = []
    blocks: list[str] = []
    runs: list[str] = []
    cells: list[str] | None = None
    is_title = left_out = False
    for kind, tag, element in package.events(name):
        if kind == "start":
            if tag == "sp":
                is_title = left_out = False
            elif tag == "tr":
                cells = []
            elif tag == "tc" and cells is not None:
                cells.append("")
            continue
        if tag == "ph":
            is_title = attribute(element, "type") in ("title", "ctrTitle")
            left_out = attribute(element, "type") in ("sldNum", "dt", "ftr", "sldImg")
        elif tag == "t":
            runs.append(element.text or "")
        elif tag == "br":
            runs.append(" ")
        elif tag == "p":
            text = folded("".join(runs))
            runs = []
            if not text or left_out:
                pass
            elif cells:
                cells[-1] = f"{cells[-1]} {text}".strip()
            else:
                (title if is_title else blocks).append(text)
        elif tag == "tr":
            if cells and any(cells):
                blocks.append(" | ".join(cells))
            cells = None
        elif tag == "sp":
            is_title = left_out = False
        element.clear()
    return " ".join(title), blocks
