"""Write the pages of docs/ that are made from the code: `python docs/reference/generate.py`, or `make reference`.

`reference/python-api.md` and `reference/mcp-tools.md` hold what docstrings and descriptions say; `llms.txt` lists every page
with a line about it. A test compares them with what this gives, so that none is forgotten. The other pages of the reference are
written by hand, and tests compare their tables with the code.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

import headwater
from headwater.verbs import Verbs

DOCS = Path(__file__).resolve().parent.parent
MADE = "<!-- Made by docs/reference/generate.py; do not edit. -->\n"


# ---------------------------------------------------------------------- Python


def families() -> list[tuple[str, list[str]]]:
    """Each family of verbs with the names of its own, in the order of the code."""
    parts = [base for base in Verbs.__mro__ if base.__name__.endswith("Verbs") and base is not Verbs]
    return [(part.__name__, _own(part)) for part in (Verbs, *parts)]


def _own(part: type) -> list[str]:
    return [name for name, made in vars(part).items() if inspect.isfunction(made) and not name.startswith("_")]


def _title(family: str) -> str:
    words = re.findall(r"[A-Z][a-z]+", family.removesuffix("Verbs"))
    return " ".join(words).capitalize() or "Streams and search"


def _signature(function: Any) -> str:
    """The call, a line for each parameter where it is long."""
    found = inspect.signature(function)
    shown: list[str] = []
    for p in found.parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        if p.name != "self":
            star = "**" if p.kind is p.VAR_KEYWORD else ""
            shown.append(f"{star}{p.name}: {p.annotation}" + ("" if p.default is p.empty else f" = {p.default!r}"))
    awaited = "await " if inspect.iscoroutinefunction(function) else ""
    line = f"{awaited}{function.__name__}({', '.join(shown)}) -> {found.return_annotation}"
    if len(line) <= 110:
        return line
    lines = "".join(f"    {s},\n" for s in shown)
    return f"{awaited}{function.__name__}(\n{lines}) -> {found.return_annotation}"


def _prose(text: str | None) -> str:
    return inspect.cleandoc(text or "").replace("<", "&lt;").replace("&lt;*>", "`<*>`")


def _values() -> Iterator[tuple[str, Any]]:
    for name in sorted(headwater.__all__):
        value = getattr(headwater, name)
        if (
            inspect.isclass(value)
            and not issubclass(value, Exception)
            and (dataclasses.is_dataclass(value) or _is_tuple(value))
        ):
            yield name, value


def _is_tuple(value: type) -> bool:
    return issubclass(value, tuple) and hasattr(value, "_fields")


def _fields(value: Any) -> list[str]:
    """`name: type` of each field, with its default."""
    kinds = value.__annotations__
    if _is_tuple(value):
        return [
            f"{n}: {kinds[n]}" + (f" = {value._field_defaults[n]!r}" if n in value._field_defaults else "")
            for n in value._fields
        ]
    return [
        f"{f.name}: {f.type}" + ("" if f.default is dataclasses.MISSING else f" = {f.default!r}")
        for f in dataclasses.fields(value)
    ]


def _methods(value: Any) -> Iterator[tuple[str, str]]:
    """What can be called on a value, or read beside its fields, with what it says of itself."""
    for name in dir(value):
        made = inspect.getattr_static(value, name)
        if name.startswith("_") or name in ("count", "index") or not (inspect.isfunction(made) or isinstance(made, property)):
            continue
        yield (name if isinstance(made, property) else f"{name}()"), _prose(made.__doc__)


def python_page() -> str:
    """Every verb and every value type, with its signature or fields and its docstring."""
    out = [
        MADE,
        "# Python, in full\n",
        "What the docstrings say: `help(hw.search)` shows the same. A guide with examples is in [Python](python.md).\n",
    ]
    out.append("Verbs are shown as coroutines, as `aopen` and `aconnect` have them; those of `open` and `connect` wait.\n")
    for family, names in families():
        out.append(f"## {_title(family)}\n")
        for name in names:
            function = getattr(Verbs, name)
            out.append(f"### {name}\n\n```text\n{_signature(function)}\n```\n\n{_prose(function.__doc__)}\n")
    out.append(
        "## Values\n\nAll are frozen. Times are aware datetimes in UTC; `_s`, `_ms`, `_bytes` at the end of a name are units.\n"
    )
    for name, value in _values():
        fields = "\n".join(_fields(value))
        out.append(f"### {name}\n\n{_prose(value.__doc__)}\n\n```text\n{fields}\n```\n")
        out += [f"- `{method}`: {said}" for method, said in _methods(value)] + ([""] if any(_methods(value)) else [])
    return "\n".join(out).rstrip() + "\n"


# ---------------------------------------------------------------------- MCP


def tools_page() -> str:
    """Every tool as an agent gets it: its description and its parameters."""
    from headwater_mcp.tools import tools

    sys.path.insert(0, str(DOCS.parent / "tests"))
    verbs = cast(Verbs, importlib.import_module("memory_verbs").MemoryVerbs())
    read = {tool.name for tool in tools(verbs, allow_write=False)}
    out = [
        MADE,
        "# MCP tools, as agents see them\n",
        "What a client is told of each tool. Their parameters side by side: [MCP](mcp.md).\n",
    ]
    for tool in tools(verbs, allow_write=True, roots=[DOCS]):
        more = "" if tool.name in read else " (only with `--allow-write`)"
        out.append(f"## {tool.name}{more}\n\n{_prose(tool.description)}\n")
        needed = tool.parameters.get("required", [])
        rows = [
            f"| `{name}` | {'yes' if name in needed else ''} | {_cell(schema.get('description', ''))} |"
            for name, schema in tool.parameters["properties"].items()
        ]
        if rows:
            out.append("| parameter | needed | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(out).rstrip() + "\n"


def _cell(text: str) -> str:
    return " ".join(_prose(text).split()).replace("|", "\\|")


# ---------------------------------------------------------------------- llms.txt


def llms() -> str:
    """The list of pages as https://llmstxt.org has it: title, summary, a link to each page with its first sentence."""
    site = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text("utf-8"))
    out = ["# Headwater\n", f"> {_first((DOCS.parent / 'README.md').read_text('utf-8'))}\n"]
    rest = []
    for entry in site["nav"]:
        ((section, pages),) = entry.items()
        if isinstance(pages, str):
            rest.append(pages)
            continue
        out.append(f"## {section}\n")
        out += [_link(page) for page in _pages(pages)] + [""]
    out[2:2] = ["## Start here\n", *[_link(page) for page in rest], ""]
    return "\n".join(out).rstrip() + "\n"


def _pages(entries: Any) -> Iterator[str]:
    if isinstance(entries, str):
        yield entries
    elif isinstance(entries, dict):
        for inner in entries.values():
            yield from _pages(inner)
    else:
        for inner in entries:
            yield from _pages(inner)


def _link(page: str) -> str:
    text = PAGES[page]() if page in PAGES else (DOCS / page).read_text("utf-8")
    heading = re.search(r"^# (.*)$", text, re.MULTILINE)
    assert heading is not None, page
    said = _in_the_index().get(Path(page).name) if page.startswith("reference/") else None
    return f"- [{heading[1]}]({page}): {said or _first(text)}"


def _in_the_index() -> dict[str, str]:
    """What the reference's own table says of its pages."""
    return dict(
        re.findall(
            r"^\| \[([\w.-]+)\]\([\w.-]+\) \| (.*) \|$", (DOCS / "reference" / "README.md").read_text("utf-8"), re.MULTILINE
        )
    )


def _first(text: str) -> str:
    """The first sentence of a page's first paragraph, without marks."""
    plain = re.sub(r"^(<!--.*?-->|```.*?^```$)", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in plain.split("\n\n"):
        block = block.strip()
        if block and not block.startswith(("#", "|", "-", ">")):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split())).replace("**", "")
            sentence = re.match(r".*?[.:](?= [A-Z`]|$)", words)
            return (sentence[0] if sentence else words).rstrip(":") + ("." if not sentence else "")
    raise ValueError("a page begins with a paragraph")


PAGES = {"reference/python-api.md": python_page, "reference/mcp-tools.md": tools_page, "llms.txt": llms}


def main() -> int:
    changed = 0
    for name, made in PAGES.items():
        path, text = DOCS / name, made()
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote docs/{name}")
            changed += 1
    print(f"{len(PAGES)} pages, {changed} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
