"""One vocabulary: fields and columns are known by what they mean, however another program spells them, and so are times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater.records import Draft
from headwater.records.moments import parse_time
from headwater.records.naming import folded, roles
from headwater.sources.fields import json_draft
from headwater.sources.files import read

AT_MS = 1_709_633_472_000  # 2024-03-05T10:11:12Z


def load(path: Path) -> tuple[list[Draft], list[str]]:
    with read(path) as batches:
        found = list(batches)
    return [d for b in found for d in b.drafts], [f.reason for b in found for f in b.faults]


@pytest.mark.parametrize(
    "fields",
    [
        {"createdAt": "2024-03-05T10:11:12Z", "messageText": "it broke", "_id": "7"},
        {"Created On": "2024-03-05 10:11:12 UTC", "Body Text": "it broke", "UUID": "7"},
        {"Time (UTC)": "2024-03-05 10:11:12", "Ticket Description": "it broke", "Ticket ID": "7"},
        {"EventTime": 1_709_633_472, "@m": "it broke", "guid": "7"},
        {"_time": "Tue, 05 Mar 2024 10:11:12 +0000", "_raw": "it broke", "messageId": "7"},
        {"Date": "2024-03-05", "Time": "10:11:12", "Comment": "it broke", "Comment ID": "7"},
        {"_id": {"$oid": "7"}, "sentAt": {"$date": {"$numberLong": str(AT_MS)}}, "contents": "it broke"},
    ],
)
def test_the_text_the_key_and_the_time_are_known_however_they_are_spelt(fields: dict[str, Any]) -> None:
    draft = json_draft(json.dumps(fields), 0)
    assert (draft.value, draft.key, draft.time_ms, dict(draft.attributes)) == ("it broke", "7", AT_MS, {})


def test_what_only_sounds_like_a_key_or_a_time_is_an_attribute() -> None:
    counts = json_draft('{"text": "x", "sent": 12, "received": 7, "time": 0.25, "event_id": 4624}', 0)
    assert (counts.key, counts.time_ms) == (None, None)
    assert counts.attributes == {"sent": 12, "received": 7, "time": 0.25, "event_id": 4624}
    assert json_draft('{"text": "x", "issue_id": 1, "comment_id": 2}', 0).key is None
    assert folded("HTTPStatus Code") == "http_status_code"
    assert roles(["body", "text", "title", "x"]).values == ["text", "body"]


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("Tue, 05 Mar 2024 11:11:12 +0100 (CET)", AT_MS),
        ("Tue Mar 05 2024 11:11:12 GMT+0100 (Central European Standard Time)", AT_MS),
        ("Tue Mar  5 10:11:12 2024", AT_MS),
        ("Tue Mar 5 05:11:12 2024 -0500", AT_MS),
        ("2024-03-05 10:11:12.5 +0000 UTC", AT_MS + 500),
        ("2024-03-05T11:11:12+01:00[Europe/Berlin]", AT_MS),
        ("20240305T101112Z", AT_MS),
        ("20240305101112", AT_MS),
        (20240305101112, AT_MS),
        ("3/5/2024 10:11:12 AM", AT_MS),
        ("13/05/2024 00:00", 1_715_558_400_000),
        ("05.03.2024, 10:11:12", AT_MS),
        ("05/Mar/24 10:11 AM", AT_MS - 12_000),
        ("05/Mar/2024:10:11:12 +0000", AT_MS),
        ("5. March 2024", AT_MS - 36_672_000),
        ("Mar 5, 2024 at 2:11:12 AM PST", AT_MS),
        ("March 5th, 2024", AT_MS - 36_672_000),
        ("20240305", AT_MS - 36_672_000),
        ("2024-03-04T24:00:00Z", AT_MS - 36_672_000),
        ("2024-03-05T10:11:60Z", AT_MS + 47_000),
        ("/Date(1709633472000+0100)/", AT_MS),
        ("1.709633472E9", AT_MS),
        ({"seconds": 1_709_633_472, "nanos": 250_000_000}, AT_MS + 250),
        ("10:11:12", None),
        ("31/02/2024", None),
        ("2024-03-05 10:11 XQZ", None),
        ("1.2.3", None),
        ("12", None),
        ({"a": 1}, None),
    ],
)
def test_times_of_fields_are_read_as_people_and_programs_write_them(written: object, ms: int | None) -> None:
    assert parse_time(written) == ms


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]',
        '[\n  {\n    "id": 1,\n    "text": "a"\n  },\n  {"id": 2, "text": "b"}\n]\n',
        '{"total": 2, "rows": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}], "next": null}',
        '[[{"id": 1, "text": "a"}], [{"id": 2, "text": "b"}]]',
        '{"data": {"page": {"nodes": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]}}}',
        '{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n',
        '\ufeff{\n"id": 1, "text": "a"}\n{\n"id": 2, "text": "b"}',
    ],
)
def test_a_file_of_json_is_its_objects_however_they_are_put_together(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    drafts, faults = load(path)
    assert ([(d.value, d.key) for d in drafts], faults) == ([("a", "1"), ("b", "2")], [])


def test_a_file_of_json_keeps_what_it_can_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "a"}, "b", {"id": 3, "text": "c", "lines": [{"text": "no"}]}, {"text": ')
    drafts, faults = load(path)
    assert [d.value for d in drafts] == ["a", "b", "c"]
    assert len(faults) == 1
    assert "what came before was kept" in faults[0]
    with read(path, batch_records=2) as batches:
        first = next(batches)
    with read(path, state=first.state) as batches:
        assert [d.value for batch in batches for d in batch.drafts] == ["c"]
    path.write_text("")
    assert load(path) == ([], [])


@pytest.mark.parametrize(
    ("data", "values", "attributes"),
    [
        ("id;text;ort\n1;Grüße aus Köln;Fürth\n".encode("cp1252"), ["Grüße aus Köln"], {"ort": "Fürth"}),
        (b"sep=;\nid;text\n1;hallo\n", ["hallo"], {}),
        (b"id,text\r1,old\r2,two\r", ["old", "two"], {}),
        (b"id,text\n1,a stray\rreturn\n", ["a stray"], {}),
        (b"text,tag,tag\nhello,a,b\n", ["hello"], {"tag": "a, b"}),
        (b"id,text\n1," + b"word " * 40_000 + b"\n2,next\n", ["word " * 40_000, "next"], {}),
        ("id\ttext\r\n1\tGrüße\r\n".encode("utf-16"), ["Grüße"], {}),
    ],
)
def test_tables_of_every_make_are_read(tmp_path: Path, data: bytes, values: list[str], attributes: dict[str, str]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    drafts, faults = load(path)
    assert ([d.value for d in drafts][: len(values)], faults) == (values, [])
    assert dict(drafts[0].attributes) == attributes


def test_text_of_western_europe_is_read_and_other_bytes_are_shown_as_replaced(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_bytes("# Größe\n\nDie Straße.\n".encode("cp1252"))
    assert load(document)[0][0].value == "# Größe\n\nDie Straße.\n"
    document.write_bytes("# Größe\n\nnoch".encode() + b"\xe9")
    assert load(document)[0][0].value == "# Größe\n\nnoch\ufffd"
    document.write_bytes("ошибка базы".encode("cp1251"))
    assert "\ufffd" in load(document)[0][0].value


def test_a_table_of_a_notebook_has_the_same_vocabulary() -> None:
    rows = [
        {"Ticket ID": 7, "Message Text": "it broke", "createdAt": "05.03.2024 10:11:12", "state": "open"},
        {"Ticket ID": 8, "Message Text": None, "createdAt": "soon", "state": "new"},
    ]
    with headwater.open(headwater.MEMORY, embedding={"model": "none"}) as hw:
        hw.load("t", rows).wait(240)
        first, second = hw.records("t").records
    assert (first.value, first.key, first.timestamp.timestamp() * 1000) == ("it broke", "7", AT_MS)
    assert first.attributes == {"state": "open"}
    assert (json.loads(second.value)["state"], second.key) == ("new", "8")


def test_a_topic_spans_the_times_of_its_records_in_whatever_order_they_came() -> None:
    days = ["2026-03-02", "2026-03-05", "2026-03-01", "2026-03-03"]
    with headwater.open(headwater.MEMORY, embedding={"model": "none"}) as hw:
        hw.append("t", [{"value": f"a rope on {day}", "timestamp": f"{day}T00:00:00Z"} for day in days], wait="searchable")
        topic = hw.topic("t")
        assert topic.first is not None
        assert topic.last is not None
        assert (topic.first.day, topic.last.day) == (1, 5)
