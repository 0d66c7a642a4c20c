"""Record -> passages: what of a record is read, and how it is cut into units of meaning.

template    a log line's template, mined as the stream goes by (headwater.templates.mining); its occurrences are whole records
exact       the text itself, blanks folded; equal texts are one passage
chunks      overlapping pieces of a document with exact spans (headwater.chunks), each under its headings
auto        one of these, decided from the topic's first records (headwater.templates.mining.decide)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from headwater.chunks import chunk
from headwater.config import IngestSettings, TopicConfig
from headwater.errors import HeadwaterError, UsageError
from headwater.lines.fields import json_fields
from headwater.lines.reading import LineReader
from headwater.log.catalogue import Piece
from headwater.log.store import Row
from headwater.templates.mining import Miner, TemplateReader, decide, embed_text

DECIDE_RECORDS = 200
DOCUMENT_FORMATS = ("pdf", "docx", "pptx", "xlsx", "html", "notebook", "markdown", "code", "text")
_WRITTEN = (  # what exports say of every issue and comment, chat message, and mail
    (b'"kind":', b'"thread":'),
    (b'"channel":', b'"user":', b'"user_id":'),
    (b'"from":', b'"subject":', b'"thread":'),
)
_NAME = re.compile(r"\{([\w.@-]+)\}")  # of a text template; plain names only, nothing of Python's format language
_STEP = re.compile(r"""\[['"]([^'"]*)['"]\]|\[(\d{1,9})\]|\.?([^.\[\]]+)""")
_BAD = (HeadwaterError, ValueError, LookupError, TypeError, RecursionError)  # of one record; others must not wait for it


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot become passages, and why."""

    row: Row
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What a run of records came to: pieces in order, the miner's changes, and the records that failed."""

    pieces: list[Piece]
    generalised: Sequence[tuple[str, str]] = ()
    templates: Sequence[tuple[str, str]] = ()
    poison: Sequence[Poison] = ()


class Mapper:
    """Cuts one topic's records. `kind` is never `auto`. The miner's state is what `Batch.templates` added up to."""

    def __init__(
        self,
        kind: str,
        config: TopicConfig,
        limits: IngestSettings,
        *,
        clock_ms: Callable[[], int],
        templates: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.kind, self._config, self._limits = kind, config, limits
        self._miner = Miner(templates) if kind == "template" else None
        self._reader = TemplateReader(LineReader(clock_ms), self._miner) if self._miner else None
        self._whole = config.field == "value" and config.text_template is None

    def batch(self, rows: Sequence[Row], vectors: Mapping[int, bytes] | None = None) -> Batch:
        """The pieces of `rows`. A record of blanks has none. `vectors` are those that records brought along, by id."""
        pieces: list[Piece] = []
        poison: list[Poison] = []
        levels: dict[bytes | None, str | None] = {None: None}
        most = self._limits.max_value_bytes
        lines = self._reader.of_message if self._reader is not None and self._whole else None
        for row in rows:
            id, _, _, time_ms, _, _, value, attributes, body = row
            try:
                level = levels[attributes] if attributes in levels else levels.setdefault(attributes, _level(attributes))
                if lines is not None and body is not None and len(value) <= most:  # a log line: its own short way
                    if template := lines(value[body:]):
                        pieces.append(Piece._make((id, 0, template, time_ms, level, None, None, None, None)))
                else:
                    self._cut(row, level, pieces)
            except _BAD as error:
                poison.append(Poison(row, f"{type(error).__name__}: {error}"))
        if vectors:
            pieces = [piece._replace(vector=vectors.get(piece.record)) for piece in pieces]
        if self._miner is None:
            return Batch(pieces, poison=poison)
        changes = self._miner.take_changes()
        return Batch(pieces, changes.generalised, changes.rows, poison)

    def _cut(self, row: Row, level: str | None, out: list[Piece]) -> None:
        """Add the row's pieces to `out`: all of them, or none when it raises."""
        text = row.value if self._whole else source_text(row, self._config)
        if len(text) > self._limits.max_value_bytes and not (self.kind == "chunks" and _is_document(row.attributes)):
            text = text[: self._limits.max_value_bytes]  # a document has a limit of its own, where it is read
        if self._reader is not None:
            known = self._whole and row.body is not None
            template = self._reader.of_message(text[row.body :]) if known else self._reader.template(text)
            if template:
                out.append(Piece(row.id, 0, template, row.time_ms, level))
            return
        if "\0" in text:
            text = text.replace("\0", " ")  # the same length, so spans stay those of the value
        if not text or text.isspace():
            return
        if self.kind == "exact":
            out.append(Piece(row.id, 0, " ".join(text.split()), row.time_ms, level))
            return
        whole = self._whole
        found = chunk(text, size=self._config.chunk_chars, overlap=self._config.chunk_overlap)
        out.extend(
            Piece(
                row.id,
                n,
                text[c.start : c.end],
                row.time_ms,
                level,
                c.start if whole else None,
                c.end if whole else None,
                c.heading or None,
            )
            for n, c in enumerate(found)
        )


def choose(rows: Sequence[Row], config: TopicConfig) -> str:
    """What `auto` means for a topic whose first records are `rows`."""
    if config.passages != "auto":
        return config.passages
    if config.embedding_model == "external":
        return "exact"
    first = rows[:DECIDE_RECORDS]
    if sum(_is_document(row.attributes) for row in first) * 2 > len(first):
        return "chunks"
    texts, levels = [], 0
    for row in first:
        try:
            texts.append(source_text(row, config))
        except _BAD:
            continue  # it will be a dead letter, whatever is decided
        levels += row.attributes is not None and b'"level":' in row.attributes
    written = sum(_is_written(row.attributes) for row in first) * 2 > len(first)
    return decide(texts, written=written, levelled=levels * 10 >= len(texts) * 9)


def embedding_text(kind: str, text: str, context: str | None) -> str:
    """What of a passage is embedded: a template without its wildcards, a chunk under its headings."""
    if kind == "template":
        return embed_text(text)
    return f"{context}\n{text}" if context else text


def source_text(row: Row, config: TopicConfig) -> str:
    """The text a topic reads of a record: its value, its key, a JSON path into it (`$.a.b`, `$.list[0]`, `$['odd name']`),
    or a template of fields, in which what is missing is empty.

    Raises UsageError where a path leads nowhere."""
    if config.text_template is not None:
        fields = {"value": row.value, "key": row.key or "", **_json(row.attributes), **(json_fields(row.value) or {})}
        return _NAME.sub(lambda m: _field(fields, m[1]), config.text_template)
    if config.field == "value":
        return row.value
    if config.field == "key":
        return row.key or ""
    found = json_fields(row.value)
    if found is None:
        raise UsageError(f"the value is not a JSON object that can be read, so it has no field {config.field!r}")
    try:
        return _shown(_reach(found, config.field))
    except LookupError as error:
        raise UsageError(f"the value has no field {config.field!r}") from error


def _field(fields: Mapping[str, Any], name: str) -> str:
    try:
        return _shown(_reach(fields, name))
    except LookupError:
        return ""


def _reach(value: Any, path: str) -> Any:
    """What lies at a path, or under it as a plain name; LookupError where it leads nowhere."""
    if path in value:
        return value[path]
    for quoted, number, name in _STEP.findall(path.removeprefix("$")):
        step = quoted or number or name
        if isinstance(value, Mapping):
            value = value[step]
        elif isinstance(value, list) and number:
            value = value[int(number)]
        else:
            raise LookupError(path)
    return value


def _shown(value: object) -> str:
    """A field as text; null is no text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _json(attributes: bytes | None) -> Mapping[str, Any]:
    return orjson.loads(attributes) if attributes else {}


def _is_document(attributes: bytes | None) -> bool:
    """Whether a record came from a document, which says its format: short as it may be, its places and pages count."""
    if attributes is None or b'"format":' not in attributes or b'"title":' not in attributes:
        return False
    return orjson.loads(attributes).get("format") in DOCUMENT_FORMATS


def _is_written(attributes: bytes | None) -> bool:
    """Whether a record says that somebody wrote it, as chat, tickets and mail do (headwater.sources.exports)."""
    return attributes is not None and any(all(name in attributes for name in names) for names in _WRITTEN)


def _level(attributes: bytes | None) -> str | None:
    """The level of a record's encoded attributes, without decoding those that have none."""
    if attributes is None or b'"level":' not in attributes:
        return None
    level = orjson.loads(attributes).get("level")
    return level if isinstance(level, str) else None
