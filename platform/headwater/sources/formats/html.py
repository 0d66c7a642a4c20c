"""HTML -> its main text: headings, paragraphs, lists, tables and code, without navigation and scripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headwater.sources.formats import Text, Unreadable, check_size, folded

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

_SKIPPED = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio", "video", "nav",
    "aside", "form", "button", "select", "option", "dialog", "head", "input", "textarea", "label", "map",
})  # fmt: skip
_INLINE = frozenset({
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img", "ins",
    "kbd", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u",
    "var", "wbr",
})  # fmt: skip
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
_MAIN_SHARE = 0.4  # of the page's text that <main> or <article> must hold to stand for it


def read(data: bytes) -> Text:
    """The main text with its title, language and description. Raises Unreadable for a page without text."""
    from selectolax.lexbor import LexborHTMLParser

    page = LexborHTMLParser(_decoded(data))
    text = _Writer().write(_main(page)) if page.body is not None else ""
    if not text.strip():
        raise Unreadable("the page has no text; it may be made by a script: save it from a browser")
    return Text(text, None, _attributes(page))


def _decoded(data: bytes) -> str:
    """The page's text: by its byte order mark, as UTF-8, by the charset it names, as Windows-1252."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    named = _CHARSET.search(data[:4096])
    for encoding in ("utf-8", named[1].decode("ascii") if named else "", "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("utf-8", "replace")


def _main(page: LexborHTMLParser) -> LexborNode:
    """What of the page is read: <main>, or the one <article>, where it holds enough of the text, else the body."""
    body = page.body
    assert body is not None
    size = len(folded(body.text()))
    for selector in ("main", "[role=main]", "article"):
        found = body.css(selector)
        if len(found) == 1 and len(folded(found[0].text())) >= _MAIN_SHARE * size:
            return found[0]
    return body


def _attributes(page: LexborHTMLParser) -> dict[str, str]:
    found: dict[str, str] = {}
    title = page.css_first("head > title") or page.css_first("title")
    if title is not None and (text := folded(title.text())):
        found["title"] = text[:300]
    for name in ("description", "author", "keywords"):
        node = page.css_first(f'meta[name="{name}" i]')
        if node is not None and (text := folded(node.attributes.get("content") or "")):
            found[name] = text[:1000]
    root = page.css_first("html")
    if root is not None and (language := (root.attributes.get("lang") or "").strip()):
        found["language"] = language[:40]
    return found


class _Writer:
    """Walks a tree without recursion (pages may be nested as deep as they like) and writes down its blocks."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._prefix = ""
        self._size = self._whole = 0

    def write(self, root: LexborNode) -> str:
        self._whole = len(folded(root.text()))
        node, top = root, root.mem_id
        while True:
            entered = self._enter(node, root)
            child = node.child if entered else None
            if child is not None:
                node = child
                continue
            if entered:
                self._leave(node)
            while node.mem_id != top and node.next is None:
                above = node.parent
                assert above is not None
                node = above
                self._leave(node)
            if node.mem_id == top or node.next is None:
                self._flush()
                return self._joined()
            node = node.next

    def _enter(self, node: LexborNode, root: LexborNode) -> bool:
        """Take what a node begins; False where its children are not to be read."""
        tag = node.tag
        if tag == "-text":
            self._line.append((node.text_content or "").replace("\n", " "))
            return False
        if (
            not tag
            or tag.startswith("-")
            or (tag in _SKIPPED and node.mem_id != root.mem_id and not self._is_content(node, root))
        ):
            return False
        if tag == "footer" or (tag == "header" and node.css_first("h1") is None):
            return node.mem_id == root.mem_id
        if tag == "br":
            self._line.append("\n")
        elif tag == "img":
            self._line.append(f" {node.attributes.get('alt') or ''} ")
        elif tag in ("td", "th"):
            self._line.append(" | " if "".join(self._line).strip() else "")
        elif tag == "pre":
            self._flush()
            self._add("```\n" + node.text().strip("\n") + "\n```")
            return False
        elif tag not in _INLINE:
            self._flush()
            self._prefix = {"li": "- ", "dt": "", **{f"h{n}": "#" * n + " " for n in range(1, 7)}}.get(tag, self._prefix)
        return True

    def _is_content(self, node: LexborNode, root: LexborNode) -> bool:
        """Whether what is passed over elsewhere is part of the text: a form that the whole page lies in, as some servers make
        them, and a remark aside of what says of itself that it is the text."""
        if node.tag == "form":
            return len(folded(node.text())) >= _MAIN_SHARE * self._whole
        return node.tag == "aside" and root.tag != "body"

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag not in _INLINE and tag not in ("-text", "td", "th", "br", "tr"):
            self._flush()
        if tag == "tr":
            self._flush()
        if tag in ("li", "h1", "h2", "h3", "h4", "h5", "h6"):
            self._prefix = ""

    def _flush(self) -> None:
        lines = [folded(line) for line in "".join(self._line).split("\n")]
        self._line = []
        if text := "\n".join(line for line in lines if line):
            self._add(self._prefix + (text.replace("\n", " ") if self._prefix else text))
            self._prefix = ""

    def _add(self, block: str) -> None:
        self._size += len(block)
        check_size(self._size)
        self._blocks.append(block)

    def _joined(self) -> str:
        """Blocks between blank lines; items of a list and rows of a table stand below each other."""
        parts: list[str] = []
        for n, block in enumerate(self._blocks):
            above = self._blocks[n - 1] if n else ""
            tight = (block.startswith("- ") and above.startswith("- ")) or (" | " in block and " | " in above)
            parts.append(("\n" if tight else "\n\n") + block if n else block)
        return "".join(parts).replace("\f", " ").replace("\0", "")
