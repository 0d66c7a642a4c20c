"""A document as one record: its title, its front matter, its format, and whether a text file is one at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from headwater.records import Draft, Scalar
from headwater.sources.convert import Converted
from headwater.sources.fields import cell

MARKDOWN = (".md", ".markdown", ".mdx", ".rst")
LANGUAGES: Mapping[str, str] = {
    ending: language
    for language, endings in {
        "python": ".py .pyi", "javascript": ".js .mjs .cjs .jsx", "typescript": ".ts .tsx", "java": ".java", "kotlin": ".kt",
        "scala": ".scala", "go": ".go", "rust": ".rs", "c": ".c .h", "c++": ".cc .cpp .cxx .hpp .hh", "c#": ".cs", "f#": ".fs",
        "ruby": ".rb", "php": ".php", "perl": ".pl .pm", "swift": ".swift", "objective-c": ".m", "lua": ".lua", "r": ".r",
        "julia": ".jl", "shell": ".sh .bash .zsh .fish", "powershell": ".ps1", "sql": ".sql", "protobuf": ".proto",
        "graphql": ".graphql", "terraform": ".tf", "elixir": ".ex .exs", "erlang": ".erl", "haskell": ".hs", "ocaml": ".ml",
        "clojure": ".clj", "dart": ".dart", "vue": ".vue", "svelte": ".svelte", "zig": ".zig", "groovy": ".groovy .gradle",
        "css": ".css .scss",
    }.items()
    for ending in endings.split()
}  # fmt: skip
"""Source code by its ending: kept as it is, each file a document."""

_ATX = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(\S[^\n]*)", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S[^\n]{0,200})\r?\n([=\-~^*#])\2{2,}[ \t]*\r?$", re.MULTILINE)
_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_PAIR = re.compile(r"([A-Za-z_][\w.-]{0,60}):(?:[ \t]+(.*))?")
_FRONT_CHARS = 20_000


def document(text: str, key: str, position: int = 0, raw: bytes | None = None) -> Draft:
    """The draft of a document: its text, `key`, and as attributes its format, its title (the front matter's, the first
    heading or the file's name) and front matter of plain `name: value` lines; a `format` there gives way, and other front
    matter stays in the text. Source code stays as it is."""
    ending = _ending(key)
    if (language := LANGUAGES.get(ending)) is not None:
        title = key.rsplit("/", 1)[-1]
        about: dict[str, Scalar] = {"title": title, "format": "code", "language": language}
        return Draft(text, key=key, attributes=about, position=position, raw=raw)
    front, body = _front_matter(text)
    title = str(front.get("title") or _title(body) or _stem(key))
    own: dict[str, Scalar] = {"title": title, "format": "markdown" if ending in MARKDOWN else "text"}
    return Draft(body, key=key, attributes={**front, **own}, position=position, raw=raw)


def converted(found: Converted, key: str, position: int = 0) -> Draft:
    """The draft of a document that was converted: as attributes its format, pages, title and what else it says of itself."""
    title = found.attributes.get("title") or _title(found.text) or _stem(key)
    own: dict[str, Scalar] = {"title": title, "format": found.format}
    if found.pages is not None:
        own["pages"] = found.pages
    return Draft(found.text, key=key, attributes={**found.attributes, **own}, position=position)


def is_prose(text: str) -> bool:
    """Whether a .txt reads as one text. It does where paragraphs stand between blank lines (a blank line for every
    eight others, mean line of 120 characters or more), or where lines are wrapped: of the lines that have another right
    below, at least half are 45 characters or longer, end in a letter, digit or comma, and go on in small letters."""
    lines = text[: 64 << 10].splitlines()
    inked = [line.strip() for line in lines if line.strip()]
    if len(inked) < 2:
        return False
    gaps = sum(1 for a, b in pairwise(lines) if a.strip() and not b.strip())
    if gaps * 8 >= len(inked) and sum(map(len, inked)) >= 120 * len(inked):
        return True
    pairs = [(a.strip(), b.strip()) for a, b in pairwise(lines) if a.strip() and b.strip()]
    wrapped = sum(len(a) >= 45 and (a[-1].isalnum() or a[-1] in ",-") and b[0].islower() for a, b in pairs)
    return len(pairs) >= 2 and wrapped * 2 >= len(pairs)


def _ending(key: str) -> str:
    match = re.search(r"\.[^./]{1,10}$", key.lower().removesuffix(".gz"))
    return match[0] if match else ""


def _stem(key: str) -> str:
    return re.sub(r"\.[^.]{1,10}$", "", key.rsplit("/", 1)[-1])


def _title(text: str) -> str | None:
    sample = text[:_FRONT_CHARS]
    matches = [m for m in (_ATX.search(sample), _UNDERLINED.search(sample)) if m]
    if not matches:
        return None
    return min(matches, key=lambda m: m.start())[1].strip().rstrip("#").rstrip()[:300] or None


def _front_matter(text: str) -> tuple[dict[str, Scalar], str]:
    """The attributes of a front matter block and the text behind it; none and all where there is none to be read."""
    match = _FRONT.match(text, 0, _FRONT_CHARS) if text.startswith("---") else None
    if match is None:
        return {}, text
    found: dict[str, Scalar] = {}
    name = ""
    for line in match[1].splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        item = re.fullmatch(r"\s*-\s+(.*)", line)
        pair = _PAIR.fullmatch(line.rstrip())
        if item and name:
            found[name] = ", ".join(filter(None, [str(found[name]), _plain(item[1])]))
        elif pair and not line[0].isspace():
            name = pair[1]
            listed = re.fullmatch(r"\[(.*)\]", (pair[2] or "").strip())
            found[name] = ", ".join(map(_plain, listed[1].split(","))) if listed else cell(_plain(pair[2] or ""))
        else:
            return {}, text
    return found, text[match.end() :].lstrip("\r\n")


def _plain(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text
