"""What the paths that are to be followed become: tails of files, followed documents and folders, standard input."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from headwater.errors import NotFoundError, UsageError
from headwater.source_settings import Reading
from headwater.sources import Source
from headwater.sources.convert import format_of
from headwater.sources.directory import DirectoryFollow, classify, walk
from headwater.sources.exports.following import ExportFollow, followed_as
from headwater.sources.files import ARCHIVES, not_text, open_regular
from headwater.sources.foreign import foreign
from headwater.sources.rotation import is_rotated
from headwater.sources.shapes import form_of
from headwater.sources.stdin import Stdin
from headwater.sources.tail import FileTail

_NEEDED = "name a log file, a document, a folder of documents, or - for standard input"


def plan(
    paths: Sequence[str],
    *,
    known: Mapping[str, str] | None = None,
    topic: str | None = None,
    read_as: Reading | None = None,
    from_start: bool = True,
) -> list[Source]:
    """The sources for `paths` of which `known` (file or folder -> topic) does not tell: a tail for a file of lines or rows, a
    DirectoryFollow for a document or for the documents of a folder, with a tail for each log in it, stdin for `-`. Call it
    again, with what runs by now as `known`, to find logs that appeared later. `topic` takes them all, else each has its own;
    `read_as` says what the files are instead of their names and bytes. Tables in a folder are left to `ingest`; rotated
    files belong to their tail. Raises NotFoundError for a path that is not there, UsageError for one that is not followed."""
    taken = dict(known or {})
    sources: list[Source] = []

    def add(name: str, own: str, make: Callable[[str], Source]) -> None:
        taken[name] = topic or own
        sources.append(make(taken[name]))

    for given in paths:
        if given == "-":
            if read_as == "document":
                raise UsageError("standard input has lines; `headwater ingest` reads a document from its file")
            if "-" not in taken:
                add("-", "stdin", partial(Stdin, form=read_as or "log"))
            continue
        path = Path(os.path.abspath(Path(given).expanduser()))
        if str(path) in taken and not path.is_dir():
            continue
        if read_as is None and (export := followed_as(path)) is not None:
            if str(path) not in taken:
                own = topic_name(Path(path.stem), path, taken.values())
                add(str(path), own, partial(ExportFollow, path, export, from_start=from_start))
            continue
        for file, relative, reading in _followed(path, read_as):
            if str(file) not in taken:
                add(str(file), topic_name(relative, file, taken.values()), partial(_source, file, reading, from_start))
    return sources


def _source(path: Path, reading: Reading | None, from_start: bool, topic: str) -> Source:
    """The source of a file that is read as that, or of a folder (None)."""
    if reading is None or reading == "document":
        return DirectoryFollow(path, topic, alone=reading is not None)
    return FileTail(path, topic, from_start=from_start, form=reading)


def _followed(path: Path, read_as: Reading | None) -> Iterator[tuple[Path, Path, Reading | None]]:
    """What is followed for `path`, each with the path that names its topic and with what it is read as; None for a folder."""
    if not path.exists():
        raise NotFoundError(f"there is no {path}; {_NEEDED}")
    if not path.is_dir():
        reading = read_as or _reading(path)
        if reading is None or (read_as is not None and not _is_possible(path, read_as)):
            raise UsageError(_refused(path))
        yield path, Path(path.name), reading
        return
    if read_as is not None:
        raise UsageError(f"{path} is a folder, whose files tell each what they are; name the files to read as {read_as}")
    yield path, Path(path.name), None
    for file in walk(path):
        if classify(file) == "log" and not is_rotated(file) and file.resolve().is_relative_to(path.resolve()):
            yield file, file.relative_to(path), form_of(file)


def _reading(path: Path) -> Reading | None:
    """What a file is followed as by its name and bytes; None for one that cannot be."""
    kind = classify(path)
    return kind if kind is None or kind == "document" else form_of(path)


def _is_possible(path: Path, reading: Reading) -> bool:
    """Whether a file may be what it is said to be."""
    with open_regular(path) as file:
        first = file.read(8192)
    converted = format_of(path.name, first) is not None
    return (converted and reading == "document") or (not converted and not_text(first) is None)


def _refused(path: Path) -> str:
    """Why a file is not followed, and what to do instead."""
    if path.suffix.lower() in (".gz", *ARCHIVES):
        return f"{path} is packed, and not followed; `headwater ingest TOPIC FILE` reads .gz files once"
    with open_regular(path) as file:
        first = file.read(8192)
    if format_of(path.name, first) is not None:
        return f"{path} is a document and has no lines; it is followed as what it is where nothing else is asked for"
    if (what := foreign(path.name, first) or not_text(first)) is not None:
        return f"{path} cannot be followed: it is {what}"
    return (
        f"{path} is not followed, as its name is not that of a log or of a document; `headwater up {path.name} --as log` (or "
        "`document`) says what it is, `headwater ingest TOPIC FILE` loads it once"
    )


def topic_name(relative: Path, path: Path, taken: Collection[str]) -> str:
    """A topic's name for the file or folder `path`: its path below the folder that was named, without an ending that
    only says how it is read, made of the characters a topic may have. Where that is taken, the ending stays; then its
    folder's name goes before it, and then a hash of its path behind it."""
    whole = "-".join(relative.parts)
    name = _sanitised(re.sub(r"(?i)(?<=.)\.(?:log|txt|jsonl|ndjson|csv|tsv)$", "", whole))
    if name in taken and not whole.lower().endswith(".log"):
        name = _sanitised(whole)
    if name in taken:
        name = _sanitised(f"{path.parent.name}-{name}")
    if name in taken:
        name = f"{name[:91]}-{hashlib.sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    return name


def _sanitised(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "files"
