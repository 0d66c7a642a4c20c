"""The zip packages of office documents: opened with limits, their XML parts read as streams."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

from headwater.sources.formats import Unreadable

MOST_BYTES = 512 << 20  # of all parts, unpacked
MOST_RATIO = 200  # unpacked to packed, beyond 32 MiB
MOST_PARTS = 20_000
_DEEPEST = 256
_FREE_BYTES = 32 << 20
Event = tuple[str, str, ElementTree.Element]


class Package:
    """An office document's zip. Raises Unreadable for one that is damaged, locked or would unpack beyond measure."""

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise Unreadable("a damaged or cut off Office document: its zip cannot be opened; save it anew") from error
        parts = self._zip.infolist()
        size = sum(part.file_size for part in parts)
        if len(parts) > MOST_PARTS:
            raise Unreadable(f"an Office document of {len(parts):,} parts, more than {MOST_PARTS:,}; refused as a bomb")
        if size > MOST_BYTES or (size > _FREE_BYTES and size > MOST_RATIO * len(data)):
            raise Unreadable(f"{len(data):,} bytes that unpack to {size:,}; refused as a bomb")
        self.names = frozenset(self._zip.namelist())

    def part(self, name: str) -> bytes:
        """A part's bytes. Raises Unreadable."""
        try:
            return self._zip.read(name)
        except KeyError as error:
            raise Unreadable(f"a damaged Office document: it has no {name}; save it anew") from error
        except (RuntimeError, NotImplementedError) as error:
            raise Unreadable("a password-protected zip; save it without a password") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise Unreadable(f"a damaged Office document: {name} cannot be unpacked; save it anew") from error

    def events(self, name: str) -> Iterator[Event]:
        """`(start|end, tag without its namespace, element)` of a part, in order; what has ended is let go of by the reader.
        Documents of this kind have no DTD, so one that brings entities of its own is refused."""
        data = self.part(name)
        if re.search(rb"<!\s*(?:DOCTYPE|ENTITY)", data[:65_536]) or b"<!ENTITY" in data:
            raise Unreadable(f"{name} declares entities, which no Office program writes; refused")
        depth = 0
        try:
            for kind, element in ElementTree.iterparse(io.BytesIO(data), ("start", "end")):
                depth += 1 if kind == "start" else -1
                if depth > _DEEPEST:
                    raise Unreadable(f"{name} is nested deeper than {_DEEPEST} elements; refused")
                yield kind, element.tag.rpartition("}")[2], element
        except ElementTree.ParseError as error:
            raise Unreadable(f"a damaged Office document: {name} is no XML ({error}); save it anew") from error

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """Of the part `name`: the id of each relation to `(last word of its type, target part)`."""
        folder, _, file = name.rpartition("/")
        path = f"{folder}/_rels/{file}.rels"
        found: dict[str, tuple[str, str]] = {}
        if path not in self.names:
            return found
        for kind, tag, element in self.events(path):
            if kind == "end" and tag == "Relationship" and element.get("TargetMode") != "External":
                target = element.get("Target", "")
                whole = target[1:] if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
                found[element.get("Id", "")] = (element.get("Type", "").rpartition("/")[2], whole)
        return found

    def attributes(self) -> dict[str, str]:
        """Title, author and other properties that the document states of itself."""
        if "docProps/core.xml" not in self.names:
            return {}
        wanted = {"title": "title", "creator": "author", "subject": "subject", "keywords": "keywords", "created": "created"}
        found: dict[str, str] = {}
        for kind, tag, element in self.events("docProps/core.xml"):
            if kind == "end" and tag in wanted and (element.text or "").strip():
                found[wanted[tag]] = " ".join((element.text or "").split())[:1000]
        return found


def attribute(element: ElementTree.Element, name: str) -> str | None:
    """An attribute by its name, whatever its namespace."""
    if (value := element.get(name)) is not None:
        return value
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), None)
