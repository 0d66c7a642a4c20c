"""From records to passages: what is read of them, how they are cut, and what becomes of those that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import IngestSettings, TopicConfig
from headwater.errors import UsageError
from headwater.log.catalogue import Piece
from headwater.log.store import Row
from headwater.passages import Batch, Mapper, choose, embedding_text, source_text

NOW = 1_777_892_400_000
LIMITS = IngestSettings(max_value_bytes=5000)


def row(id: int, value: str, *, key: str | None = None, attributes: Mapping[str, Any] | None = None) -> Row:
    return Row(id, 0, id, NOW + id, NOW, key, value, orjson.dumps(attributes) if attributes else None)


def rows(*values: str) -> list[Row]:
    return [row(i, value) for i, value in enumerate(values)]


def mapper(kind: str, config: TopicConfig | None = None, **more: Any) -> Mapper:
    return Mapper(kind, config or TopicConfig(), LIMITS, clock_ms=lambda: NOW, **more)


def texts(batch: Batch) -> list[str]:
    return [piece.text for piece in batch.pieces]


LINES = [f"2026-05-04 11:00:0{i} INFO net.Pool: connection {i} of 10.0.0.{i} closed" for i in range(5)]


def test_lines_of_one_template_are_one_passage_each_under_its_own_record() -> None:
    batch = mapper("template").batch(rows(*LINES))
    assert len(set(texts(batch))) == 1
    assert [(p.record, p.n, p.start, p.time_ms) for p in batch.pieces] == [(i, 0, None, NOW + i) for i in range(5)]
    assert batch.templates
    assert not batch.poison


def test_a_mapper_takes_up_where_another_left_off() -> None:
    words = ["red", "green", "blue", "black", "white", "pink", "grey", "teal"]
    lines = rows(*(f"2026-05-04 11:00:00 INFO x.Y: lamp turned {w} by {i}" for i, w in enumerate(words)))
    whole = mapper("template").batch(lines)
    first = mapper("template").batch(lines[:3])
    rest = mapper("template", templates=first.templates).batch(lines[3:])
    assert texts(first) + texts(rest) == texts(whole)
    assert [*first.generalised, *rest.generalised] == [*whole.generalised]


def test_equal_texts_are_equal_passages_whatever_their_blanks() -> None:
    batch = mapper("exact").batch(rows("change  my\npasscode", "change my passcode ", "", " \n\t"))
    assert batch.pieces == [Piece(0, 0, "change my passcode", NOW, None), Piece(1, 0, "change my passcode", NOW + 1, None)]


def test_a_record_gives_its_level_to_its_passages() -> None:
    found = mapper("exact").batch(
        [
            row(0, "a", attributes={"level": "error"}),
            row(1, "b", attributes={"x": 1}),
            row(2, "c", attributes={"level": 3}),
            row(3, "d", attributes={"level": "error"}),
        ]
    )
    assert [p.level for p in found.pieces] == ["error", None, None, "error"]


def document() -> str:
    paragraphs = [f"## Part {i}\n\n" + " ".join(f"Sentence {i} {j} says something." for j in range(30)) for i in range(4)]
    return "# Guide\n\n" + "\n\n".join(paragraphs)


def test_chunks_are_exact_spans_of_the_record_under_their_headings() -> None:
    text = document()
    batch = mapper("chunks", TopicConfig(chunk_chars=400, chunk_overlap=50)).batch(rows(text))
    assert len(batch.pieces) > 5
    assert [p.n for p in batch.pieces] == list(range(len(batch.pieces)))
    for piece in batch.pieces:
        assert piece.start is not None
        assert piece.stop is not None
        assert text[piece.start : piece.stop] == piece.text
    last = batch.pieces[-1]
    assert embedding_text("chunks", last.text, last.context).startswith(f"{last.context}\n")
    assert "Part 3" in (last.context or "")


@given(st.text(max_size=3000), st.sampled_from([50, 400]))
def test_the_spans_of_any_document_are_exact_but_for_nul(text: str, size: int) -> None:
    found = mapper("chunks", TopicConfig(chunk_chars=size, chunk_overlap=10)).batch(rows(text))
    assert not found.poison
    for piece in found.pieces:
        assert text[piece.start : piece.stop].replace("\0", " ") == piece.text


def test_nul_is_a_blank_in_passages() -> None:
    assert texts(mapper("exact").batch(rows("a\0b"))) == ["a b"]
    assert texts(mapper("exact").batch(rows("\0"))) == []


def test_a_long_value_is_indexed_up_to_the_limit() -> None:
    long = "word " * 2000
    assert len(texts(mapper("exact").batch(rows(long)))[0]) == 4999
    assert mapper("chunks").batch(rows(long)).pieces[-1].stop == 4999


VALUE = '{"a": {"b": "deep", "list": [{"n": 5}, "two"]}, "odd.name": "dotted", "x y": true, "none": null, "nan": NaN}'


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("value", VALUE),
        ("key", "k"),
        ("$.a.b", "deep"),
        ("a.b", "deep"),
        ("$.a.list[0].n", "5"),
        ("$.a.list[1]", "two"),
        ("$['x y']", "true"),
        ("odd.name", "dotted"),
        ("$['odd.name']", "dotted"),
        ("$.a.list", '[{"n":5},"two"]'),
        ("none", ""),
        ("nan", "NaN"),
    ],
)
def test_a_field_is_read_by_its_path(field: str, text: str) -> None:
    assert source_text(row(0, VALUE, key="k"), TopicConfig(field=field)) == text


@pytest.mark.parametrize("field", ["$.a.c", "$.a.list[2]", "$.a.b.c", "$.a.list.n", "$.none.x"])
def test_a_path_that_leads_nowhere_is_an_error(field: str) -> None:
    with pytest.raises(UsageError, match="has no field"):
        source_text(row(0, VALUE), TopicConfig(field=field))


def test_a_text_template_is_filled_from_fields_attributes_and_key() -> None:
    config = TopicConfig(text_template="{a.b}: {odd.name} {service} {key} {missing}{none}{__class__}.")
    assert source_text(row(0, VALUE, key="k", attributes={"service": "pay"}), config) == "deep: dotted pay k ."
    assert source_text(row(0, "plain"), TopicConfig(text_template="[{value}]{0}{a!r}")) == "[plain]{a!r}"


def test_records_without_the_field_are_poison_and_the_others_are_not_affected() -> None:
    nested = '{"a":' * 100_000 + "1" + "}" * 100_000
    batch = mapper("exact", TopicConfig(field="$.m")).batch(rows('{"m": "one"}', "[1]", nested, '{"n": 1}', "", '{"m": "two"}'))
    assert texts(batch) == ["one", "two"]
    assert [p.row.id for p in batch.poison] == [1, 2, 3, 4]
    assert all("no field '$.m'" in p.reason for p in batch.poison)


def test_vectors_that_records_brought_are_on_their_pieces() -> None:
    batch = mapper("exact").batch(rows("a", "b"), {0: b"v0", 1: b"v1"})
    assert [(p.text, p.vector) for p in batch.pieces] == [("a", b"v0"), ("b", b"v1")]


def test_chunks_of_a_field_have_no_spans_in_the_value() -> None:
    batch = mapper("chunks", TopicConfig(field="$.body")).batch(rows(orjson.dumps({"body": document()}).decode()))
    assert batch.pieces
    assert all(p.start is None and p.stop is None for p in batch.pieces)


def test_auto_is_decided_from_the_field_that_is_read() -> None:
    values = rows(
        *(
            orjson.dumps({"time": "2026-05-04T11:00:00Z", "level": "info", "msg": "hi", "q": f"can I pay {i}"}).decode()
            for i in range(9)
        )
    )
    assert choose(values, TopicConfig()) == "template"
    assert choose([*values, *rows("not json")], TopicConfig(field="$.q")) == "exact"
    assert choose(values, TopicConfig(text_template="Please tell me: {q}?")) == "exact"
    assert choose(values, TopicConfig(passages="chunks")) == "chunks"
    assert choose(values, TopicConfig(embedding_model="external", dimension=2)) == "exact"


def test_the_same_few_texts_over_and_over_are_no_reason_for_templates() -> None:
    said = rows(*["It happens daily", "Since the update", "Only in one browser", "Nothing loads"] * 60)
    assert choose(said, TopicConfig()) == "exact"


def test_what_exports_call_chat_or_tickets_is_never_templated_and_structured_logs_are_that_read_like_prose() -> None:
    alike = [f"cert-manager upgraded #{i}" for i in range(100)]
    known = {"": "template", "chat": "exact", "ticket": "exact", "mail": "exact"}
    about: dict[str, dict[str, Any]] = {
        "": {"host": "a"},
        "chat": {"channel": "ops", "user": "ann", "user_id": "U1"},
        "ticket": {"kind": "issue", "thread": "OPS-1"},
        "mail": {"subject": "s", "from": "a@b", "thread": "t"},
    }
    for name, kind in known.items():
        assert choose([row(i, text, attributes=about[name]) for i, text in enumerate(alike)], TopicConfig()) == kind, name
    spoken = [f"I have told the customer {i} that we can not do this for them" for i in range(100)]
    assert choose(rows(*spoken), TopicConfig()) == "exact"
    assert choose([row(i, text, attributes={"level": "info"}) for i, text in enumerate(spoken)], TopicConfig()) == "template"
    said = ["charged twice for one order", "the parcel is late", "wrong size, please change it", "where is my refund"] * 25
    assert choose([row(i, text, attributes={"level": "error"}) for i, text in enumerate(said)], TopicConfig()) == "exact"


@given(st.lists(st.text(), max_size=5), st.sampled_from(["template", "exact", "chunks"]))
def test_any_text_is_mapped_without_harm(values: list[str], kind: str) -> None:
    batch = mapper(kind).batch(rows(*values))
    assert not batch.poison
    assert all(piece.text and not piece.text.isspace() for piece in batch.pieces)
