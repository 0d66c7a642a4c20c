"""An export being read: told by its content, as batches that `ingest` stores like those of a file."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Literal, get_args

from headwater.errors import LimitError, UsageError
from headwater.records import Draft
from headwater.sources import Batch, Fault, State
from headwater.sources.convert import Converter
from headwater.sources.exports import MOST_BYTES, Item, discord, git, issues, journald, mail, slack, tables
from headwater.sources.files import FIRST_BYTES, first_bytes, open_regular, unpacked
from headwater.sources.lines import codec

Export = Literal["slack", "mbox", "github", "git", "journald", "sqlite", "jira", "zendesk", "discord", "parquet"]
EXPORTS: tuple[Export, ...] = get_args(Export)
_BATCH_CHARS = 8 << 20
_FOLDERS = ("slack", "git")
_BY_PATH = ("mbox", "git", "sqlite", "parquet")  # what tells one of them from another is where it lies


def export_of(path: Path) -> Export | None:
    """What export a file or folder is, by its content; None for any other. Raises what `open_regular` raises."""
    if path.is_dir():
        if git.is_repository(path):
            return "git"
        return "slack" if _is_slack(path) else None
    first = first_bytes(path)
    ending = PurePath(path.name.lower().removesuffix(".gz")).suffix
    if first.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if first.startswith(b"PAR1"):
        return "parquet"
    if first.startswith(b"PK\x03\x04"):
        return "slack" if ending == ".zip" and _is_slack(path) else None
    if ending == ".eml" or mail.is_mbox(first):
        return "mbox"
    if journald.is_export(first) or journald.is_json(first):
        return "journald"
    if ending not in (".json", ".jsonl", ".ndjson", ".csv", ""):
        return None
    return _of_text(first.decode((codec(first) or ("utf-8", 0))[0], "replace"))


def _is_slack(path: Path) -> bool:
    archive = slack.Archive(path)
    archive.close()
    return slack.is_export(archive.names)


def _of_text(text: str) -> Export | None:
    start = text.lstrip("\ufeff").lstrip()
    if re.match(r'"?[^"\n]*"?[,;\t]', start) and start[:1] not in "[{":
        return "jira" if issues.is_jira(start) else "zendesk" if issues.is_zendesk(start) else None
    if start[:1] not in ("[", "{"):
        return None
    known: Mapping[Export, Callable[[str], bool]] = {
        "discord": discord.is_export, "github": issues.is_github, "jira": issues.is_jira, "zendesk": issues.is_zendesk,
    }  # fmt: skip
    return next((name for name, tells in known.items() if tells(start)), None)


class ExportReading(Iterator[Batch]):
    """Batches of an export, each of one stream. Read again it delivers the same (stream, position) pairs. `source` names what
    it is an export of, wherever the file lies; mailboxes, databases and repositories are known by their path. Raises
    UsageError for what is none of the kind, NotFoundError, StorageError, and LimitError."""

    def __init__(
        self, path: str | os.PathLike[str], kind: Export, *, batch_records: int = 2000, converter: Converter | None = None
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.kind: str = kind
        self.key = self.path.name
        self._archive: slack.Archive | None = None
        self._own = Converter() if converter is None else None
        self._converter = converter or self._own
        self._batch_records = batch_records
        self.total_bytes = 0
        self.done_bytes = 0
        self._plain = contextlib.ExitStack()
        self._file = self.path  # as it is read: unpacked
        if not self.path.is_dir():
            with open_regular(self.path) as file:
                self.total_bytes = os.fstat(file.fileno()).st_size
            self._unpack()
        elif kind not in _FOLDERS:
            raise UsageError(f"{path} is a directory; name the files in it")
        if kind == "git" and not (self.path.is_dir() and git.is_repository(self.path)):
            raise UsageError(f"{path} is no git repository; name its folder")
        if kind == "slack":
            self._archive = slack.Archive(self.path)
        name = slack.source_of(self._archive) if self._archive else ""
        place = self.path.with_name(self.path.name.removesuffix(".gz"))
        self.source = f"ingest:{kind}:{name or (place if kind in (*_BY_PATH, 'slack') else '')}".rstrip(":")
        self.stream = self.source
        self._batches = self._read(kind)

    def resume(self, state: State) -> bool:
        """False: an export is read from its start, and what is stored already is known by its position."""
        return False

    def __next__(self) -> Batch:
        return next(self._batches)

    def __enter__(self) -> ExportReading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unpack(self) -> None:
        """Have the export of a gzip file lie unpacked in a temporary one, for as long as it is read."""
        with contextlib.ExitStack() as open_:
            plain = open_.enter_context(tempfile.NamedTemporaryFile(prefix="headwater-"))
            if unpacked(self.path, plain):
                self._file = Path(plain.name)
                self._plain = open_.pop_all()

    def close(self) -> None:
        self._batches.close()
        self._plain.close()
        if self._archive is not None:
            self._archive.close()
        if self._own is not None:
            self._own.close()

    def _read(self, kind: Export) -> Generator[Batch]:
        drafts: list[Draft] = []
        faults: list[Fault] = []
        latest: list[str] = []
        stream: str | None = None
        size = 0
        for item in self._items(kind):
            full = len(drafts) + len(faults) >= self._batch_records or size >= _BATCH_CHARS
            if (item.stream != stream or full) and (drafts or faults):
                yield self._batch(stream or "", drafts, faults, latest)
                drafts, faults, latest, size = [], [], [], 0
            stream = item.stream
            if isinstance(item.found, Fault):
                faults.append(item.found)
                continue
            drafts.append(item.found)
            size += len(item.found.value)
            if item.replaces and item.found.key:
                latest.append(item.found.key)
        if drafts or faults:
            yield self._batch(stream or "", drafts, faults, latest)
        self.done_bytes = self.total_bytes

    def _batch(self, stream: str, drafts: list[Draft], faults: list[Fault], latest: list[str]) -> Batch:
        whole = f"{self.source}#{stream}" if stream else f"{self.source}#"
        state: dict[str, object] = {"stream": whole}
        if latest:
            state["latest"] = latest
        return Batch(drafts, state, whole, None, faults)

    def _items(self, kind: Export) -> Iterator[Item]:
        if self._archive is not None:
            return slack.read(self._archive)
        if kind == "git":
            return git.read(self.path)
        if kind == "sqlite":
            return tables.read_sqlite(self._file)
        if kind == "parquet":
            return tables.read_parquet(self._file)
        if kind in ("mbox", "journald"):
            return self._of_bytes(kind)
        return self._of_text(kind)

    def _of_bytes(self, kind: Export) -> Iterator[Item]:
        with open_regular(self._file) as file:
            first = file.read(FIRST_BYTES)
            file.seek(0)
            share = self.total_bytes / max(os.fstat(file.fileno()).st_size, 1)  # of a byte as it is packed
            found: Iterator[Item]
            if kind == "journald":
                found = journald.read_json(file) if journald.is_json(first) else journald.read(file)
            elif mail.is_mbox(first):
                found = mail.read(file, self._page)
            else:
                found = iter([Item("", mail.message(file.read(mail.MOST_BYTES), 0, self._page))])
            for item in found:
                self.done_bytes = int(file.tell() * share)
                yield item

    def _of_text(self, kind: Export) -> Iterator[Item]:
        with open_regular(self._file) as file:
            encoding, _ = codec(file.read(4)) or ("utf-8", 0)
        if kind in ("jira", "zendesk"):
            with self._file.open(encoding=encoding, errors="replace", newline="") as table:
                first = table.read(4096).lstrip("\ufeff").lstrip()
                if first[:1] not in ("[", "{"):
                    table.seek(0)
                    yield from (issues.jira_table if kind == "jira" else issues.zendesk_table)(table)
                    return
        if self._file.stat().st_size > MOST_BYTES:
            raise LimitError(f"{self.path} is JSON of more than {MOST_BYTES >> 20} MiB; export it in parts")
        text = self._file.read_text(encoding, "replace").lstrip("\ufeff")
        readers: Mapping[str, Callable[[str], Iterator[Item]]] = {
            "github": issues.github, "jira": issues.jira, "zendesk": issues.zendesk, "discord": discord.read,
        }  # fmt: skip
        yield from readers[kind](text)

    def _page(self, data: bytes) -> str:
        assert self._converter is not None
        return self._converter.convert(data, "html").text
