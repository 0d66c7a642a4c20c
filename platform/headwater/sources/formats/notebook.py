"""Jupyter notebook -> text: its cells in order, code fenced, outputs as far as they are text and short."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from headwater.sources.formats import Text, Unreadable, check_size

_OUTPUT_CHARS = 2000  # of a cell's outputs; longer ones are left out


def read(data: bytes) -> Text:
    """The notebook's text. Raises Unreadable."""
    try:
        tree = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"a damaged notebook: it is no JSON ({str(error)[:100]})") from error
    cells = _cells(tree)
    if cells is None:
        raise Unreadable("not a notebook: it has no list of cells")
    language = _language(tree)
    text = "\n\n".join(part for cell in cells if isinstance(cell, Mapping) for part in _parts(cell, language))
    check_size(len(text))
    if not text.strip():
        raise Unreadable("the notebook is empty")
    return Text(text.replace("\f", " "), None, {"language": language} if language else {})


def _cells(tree: Any) -> list[Any] | None:
    if not isinstance(tree, Mapping):
        return None
    cells = tree.get("cells")
    if not isinstance(cells, list) and isinstance(tree.get("worksheets"), list):  # before nbformat 4
        cells = [c for sheet in tree["worksheets"] if isinstance(sheet, Mapping) for c in sheet.get("cells") or ()]
    return cells if isinstance(cells, list) else None


def _language(tree: Mapping[str, Any]) -> str:
    about = tree.get("metadata")
    for name, field in (("language_info", "name"), ("kernelspec", "language")):
        part = about.get(name) if isinstance(about, Mapping) else None
        if isinstance(part, Mapping) and isinstance(part.get(field), str):
            return str(part[field])[:40]
    return ""


def _parts(cell: Mapping[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input"))).strip("\n")
    kind = cell.get("cell_type")
    if kind == "code":
        if source.strip():
            yield f"```{language}\n{source}\n```"
        said = "\n".join(filter(None, map(_output, cell.get("outputs") or ()))).strip("\n")
        if said and len(said) <= _OUTPUT_CHARS:
            yield f"```\n{said}\n```"
    elif kind == "heading":
        level = cell.get("level")
        yield f"{'#' * min(max(level, 1), 6) if isinstance(level, int) else '#'} {source}"
    elif source.strip():
        yield source


def _output(output: Any) -> str:
    """The text of one output; none of pictures and HTML."""
    if not isinstance(output, Mapping):
        return ""
    if "text" in output:
        return _joined(output["text"]).rstrip()
    data = output.get("data")
    if isinstance(data, Mapping):
        return _joined(data.get("text/plain")).rstrip()
    return f"{output['ename']}: {output.get('evalue', '')}" if "ename" in output else ""


def _joined(value: Any) -> str:
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
