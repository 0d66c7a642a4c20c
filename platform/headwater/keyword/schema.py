"""What the keyword index holds of a record: the schema, the analysis of text, and a document's form on its way in.

Text is lower-cased, cut at everything that is not a letter or digit, folded to ASCII where it has an accent, and stemmed
(English Snowball); stop words are kept, so that phrases are exact, and left out of queries instead (`words`). An
identifier (`conn_reset_by_peer`, `10.0.0.1`, `blk_-123`) is the phrase of its parts; one in camel case is kept whole and its
parts are added behind the text. Han, kana and other scripts without spaces are indexed by character.

A field of a record is one term, `name NUL value`: equality, prefixes and facets read the term dictionary. Numbers, and texts
that spell one, are also kept in a column for ranges.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import tantivy

from headwater.query import KNOWN_FIELDS, number_of, text_of
from headwater.records import Scalar
from headwater.records.levels import canonical_level

TEXT_CHARS = 1_000_000  # of one document; what is behind is not searchable by keyword
NUL = "\0"  # between a field's name and its value
FORMER, UNTIL = "\0\0former", "until"  # the mark of a former version, and its column; no field of a record is spelt like them
TOKEN_BYTES = 100  # longer ones are not words
COLUMNS = ("topic", "seq", "n", "passage", "partition", "offset")  # unsigned; time is signed
# Letters by case, digits as small ones, everything else apart: a text without "aA" and "AAa" in this has no camel case.
_CASES = bytes(97 if 97 <= b <= 122 or 48 <= b <= 57 else 65 if 65 <= b <= 90 else 32 for b in range(256))
_CAMEL = re.compile(r"\b(?:[a-z]++[A-Z]|[A-Z](?:[A-Z]++[a-z]|[a-z0-9]++[A-Z]))[A-Za-z0-9]*", re.ASCII)
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_UNSPACED = re.compile(  # Han, kana, Thai, Lao, Khmer, Myanmar: words are not set apart by spaces
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
_CACHED = 20_000


class Doc(NamedTuple):
    """One occurrence: passage number `n` of a record. Filters and times repeat the record's on each of its occurrences."""

    topic: int
    seq: int
    n: int
    passage: int
    partition: int
    offset: int
    time_ms: int
    key: str | None
    level: str | None
    text: str
    attributes: Mapping[str, Scalar]
    until: int | None = None  # of a former version: the seq from which on it is one


def schema() -> tantivy.Schema:
    """The one schema; an index made with another is damaged to us, and rebuilt."""
    builder = tantivy.SchemaBuilder()
    for name in COLUMNS:
        builder.add_unsigned_field(name, indexed=name in ("topic", "seq", "passage"), fast=True)
    builder.add_integer_field("time", fast=True)
    builder.add_text_field("text", tokenizer_name="words", index_option="position")
    builder.add_text_field("field", tokenizer_name="raw", index_option="basic")
    builder.add_json_field("number", fast=True, tokenizer_name="raw", index_option="basic")
    return builder.build()


def analyzer(*, stem: bool = True) -> tantivy.TextAnalyzer:
    """The analysis of text; without stemming the same tokens as they stand, lower-cased."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    for step in (tantivy.Filter.remove_long(TOKEN_BYTES), tantivy.Filter.lowercase(), tantivy.Filter.ascii_fold()):
        builder = builder.filter(step)
    return (builder.filter(tantivy.Filter.stemmer("English")) if stem else builder).build()


def sanitised(text: str) -> str:
    """`text` as valid Unicode: a lone surrogate becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def prepared(text: str) -> str:
    """Text as it is handed to the analyzer: valid, bounded, and with spaces in scripts that use none."""
    text = text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS]
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", sanitised(text))


def humps(word: str) -> str:
    """The parts of an identifier in camel case, spaced: `IOException` -> `IO Exception`."""
    return " ".join(_HUMPS.findall(word))


def camel_words(text: str) -> list[str]:
    """The identifiers in camel case of a text, in order."""
    return [word for word in _CAMEL.findall(text) if len(word) <= TOKEN_BYTES]


def field_name(name: str) -> str:
    """A field's name as it stands in a term."""
    return sanitised(name).replace("\0", "\ufffd")


def number_path(name: str) -> str:
    """The path of a field's column of numbers; any name becomes letters and digits."""
    return "x" + sanitised(name).encode().hex()


class Encoder:
    """Turns documents into the JSON the index takes. Holds bounded caches; for one thread."""

    def __init__(self) -> None:
        self._humps: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._levels: dict[str, str] = {}

    def encode(self, doc: Doc) -> str:
        """The JSON of one document."""
        text: Any = doc.text
        if len(text) > TEXT_CHARS or not text.isascii():
            text = prepared(text)
        cases = text.encode().translate(_CASES)
        if (b"aA" in cases or b"AAa" in cases) and (words := _CAMEL.findall(text)):
            parts = {self._cached(self._humps, word, humps): None for word in words if len(word) <= TOKEN_BYTES}
            text = [text, " ".join(parts)]
        fields, numbers = self._fields(doc)
        if doc.until is not None:
            fields.append(FORMER)
            numbers[UNTIL] = doc.until
        body = {
            "topic": doc.topic, "seq": doc.seq, "n": doc.n, "passage": doc.passage, "partition": doc.partition,
            "offset": doc.offset, "time": doc.time_ms, "text": text, "field": fields,
        }  # fmt: skip
        if numbers:
            body["number"] = numbers
        try:
            return orjson.dumps(body).decode()
        except TypeError:  # a lone surrogate in a field
            body["field"] = [sanitised(term) for term in fields]
            return orjson.dumps(body).decode()

    def _fields(self, doc: Doc) -> tuple[list[str], dict[str, float]]:
        fields: list[str] = []
        numbers: dict[str, float] = {}
        if doc.key is not None:
            fields.append("key\0" + text_of(doc.key))
        level = doc.level
        if level is not None and len(doc.attributes) == 1 and doc.attributes.get("level") is level:  # the most common case
            fields.append("level\0" + self._cached(self._levels, level[:100], canonical_level))
            return fields, numbers
        for name, value in doc.attributes.items():
            if name in KNOWN_FIELDS:
                if name == "level" and level is None:
                    level = text_of(value)
                elif name == "key" and doc.key is None:
                    fields.append("key\0" + text_of(value))
                continue
            fields.append(f"{field_name(name) if NUL in name else name}{NUL}{text_of(value)}")
            if (number := number_of(value)) is not None:
                numbers[self._cached(self._paths, name, number_path)] = number
        if level is not None:
            fields.append("level\0" + self._cached(self._levels, level[:100], canonical_level))
        return fields, numbers

    @staticmethod
    def _cached(cache: dict[str, str], key: str, make: Callable[[str], str]) -> str:
        if (value := cache.get(key)) is None:
            if len(cache) >= _CACHED:
                cache.clear()
            value = cache[key] = make(key)
        return value


def chunked(docs: Sequence[Doc], size: int) -> list[Sequence[Doc]]:
    """`docs` in pieces of at most `size`."""
    return [docs[i : i + size] for i in range(0, len(docs), size)]
