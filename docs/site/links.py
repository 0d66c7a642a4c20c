"""What the site does about links that lead out of docs/: to files of the checkout, which the site has no copy of.

Such a link becomes its text with the file's path; every other link is checked by mkdocs itself, strictly.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's Markdown without links to what lies outside docs/; code is left as it is."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(link: re.Match[str]) -> str:
        text, target = link.groups()
        there = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
        if "://" in target or not there.startswith("../"):
            return link[0]
        path = there.removeprefix("../")
        return text if text.strip("`/") == path.strip("/") else f"{text} (`{path}`)"

    return "".join(part if part.startswith("```") else _LINK.sub(plain, part) for part in _FENCE.split(markdown))
