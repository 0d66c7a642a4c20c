"""JSON lines and tables: followed as they are loaded, wherever a restart falls."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from headwater.batches import Fault
from headwater.errors import UsageError
from headwater.records import Draft
from headwater.sources import State
from headwater.sources.directory import classify
from headwater.sources.files import read
from headwater.sources.planning import plan
from headwater.sources.tail import FileTail

JSONL = "".join(
    [
        '{"message": "payment failed", "id": 7, "ts": "2026-03-01T14:05:00Z", "level": "error", "shop": {"name": "a"}}\n',
        "\n",
        "this is no json\n",
        *(f'{{"text": "order {n}", "key": "k{n}"}}\n' for n in range(30)),
        '{"no text": true}\n',
        '"just a text"\n',
    ]
)
CSV = "id;text;amount\n" + "".join(
    [
        '1;"a text\nover two lines; and ""quoted""";3.5\n',
        "2;plain;4\n",
        "\n",
        "3;too;many;cells\n",
        '4;"never closed;5\n',
        *(f'{n};row {n} of 5" disks;{n}\n' for n in range(5, 40)),
    ]
)
Found = dict[int, Draft | str]


class Enough(Exception):
    """The follower waits for more than there is."""


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def _rest(timeout_s: float) -> None:
    raise Enough


async def followed(path: Path, text: bytes, rng: random.Random, size: int) -> Found:
    """What a tail hands out while the file grows, over restarts and lost batches."""
    state: State | None = None
    found: Found = {}
    grown = 0
    while True:
        grown = min(len(text), grown + rng.randrange(1, size))
        _write(path, text[:grown])
        tail = FileTail(path, "t", batch_records=rng.choice([1, 3, 2000]), wake=_rest, clock=lambda: 0.0)
        batches = tail.batches(state)
        try:
            async for batch in batches:
                if rng.random() < 0.2:  # a crash before it was stored
                    break
                items: list[Draft | Fault] = [*batch.drafts, *batch.faults]
                for item in items:
                    assert item.position is not None
                    assert item.position not in found
                    found[item.position] = item if isinstance(item, Draft) else item.reason
                state = batch.state
        except Enough:
            if grown == len(text):
                return found
        finally:
            await batches.aclose()  # type: ignore[attr-defined]


def loaded(path: Path) -> Found:
    found: Found = {}
    for batch in read(path):
        items: list[Draft | Fault] = [*batch.drafts, *batch.faults]
        for item in items:
            assert item.position is not None
            found[item.position] = item.reason if isinstance(item, Fault) else item
    return found


@pytest.mark.parametrize(("name", "text"), [("mixed.jsonl", JSONL), ("some.csv", CSV.replace('4;"never closed;5\n', ""))])
@pytest.mark.parametrize("seed", range(6))
def test_a_file_that_is_followed_becomes_the_records_it_would_be_loaded_as(
    tmp_path: Path, name: str, text: str, seed: int
) -> None:
    path = tmp_path / name
    path.write_text(text)
    expected = loaded(path)
    assert len(expected) > 30
    assert sum(isinstance(item, str) for item in expected.values()) == 1
    assert asyncio.run(followed(path, text.encode(), random.Random(seed), 400)) == expected


def test_objects_in_objects_become_dotted_attributes_and_a_level_in_figures_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    deep = '{"a":' * 40 + "1" + "}" * 40
    path.write_text(
        '{"@timestamp":"2026-03-01T14:05:00Z","message":"m","log":{"level":"WARN"},"service":{"name":"pay","tags":[1],"none":null}}\n'
        '{"time":1772373900000,"level":50,"pid":7,"msg":"m"}\n'
        '{"level":50,"player":"ann"}\n'
        f'{{"msg":"m","deep":{deep}}}\n'
    )
    found = [item.attributes for item in loaded(path).values() if isinstance(item, Draft)]
    assert found[0] == {"log.level": "WARN", "service.name": "pay", "service.tags": "[1]"}
    assert found[1:3] == [{"level": "error", "pid": 7}, {"level": 50, "player": "ann"}]
    ((name, value),) = found[3].items()
    assert name.startswith("deep.a.a.")
    assert isinstance(value, str)


def test_the_fields_of_json_lines_and_rows_are_mapped(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "b.csv"
    lines.write_text(JSONL)
    table.write_text(CSV)
    first = loaded(lines)[0]
    assert isinstance(first, Draft)
    assert (first.value, first.key, first.time_ms) == ("payment failed", "7", 1_772_373_900_000)
    assert first.attributes == {"level": "error", "shop.name": "a"}
    rows = list(loaded(table).values())
    assert isinstance(rows[0], Draft)
    assert rows[0].value == 'a text\nover two lines; and "quoted"'
    assert rows[0].attributes == {"amount": 3.5}
    assert "4 cells, but the header has 3" in rows


def test_a_quote_that_is_never_closed_costs_its_line_alone_and_only_once_nothing_more_can_close_it(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(CSV)
    found = loaded(path)
    assert [item for item in found.values() if isinstance(item, str)] == [
        "4 cells, but the header has 3", "a quote is opened and never closed",
    ]  # fmt: skip
    assert sum(isinstance(item, Draft) for item in found.values()) == 37


def test_a_load_of_a_table_goes_on_behind_any_batch_with_the_header_it_had(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(CSV)
    whole = [d for batch in read(path) for d in batch.drafts]
    for batch in read(path, batch_records=5):
        rest = [d for later in read(path, state=batch.state) for d in later.drafts]
        assert rest == [d for d in whole if (d.position or 0) >= int(batch.state["offset"])]


def test_topics_are_named_after_files_without_their_endings(tmp_path: Path) -> None:
    names = ("mixed.jsonl", "events.ndjson", "sales.csv", "app.log", "notes.txt", "mixed.csv")
    for name in names:
        (tmp_path / name).write_text(json.dumps({"value": "x"}) + "\n")
    sources = plan([str(tmp_path / name) for name in names])
    assert [s.topic for s in sources] == ["mixed", "events", "sales", "app", "notes", "mixed.csv"]


def test_what_is_not_followed_is_told_with_what_to_do_instead(tmp_path: Path) -> None:
    for name, data, told in (
        ("old.log.gz", b"\x1f\x8b\x08", "reads .gz files once"),
        ("picture.log", b"\x89PNG\0\0\0\0" * 50, "not text"),
        ("some.yaml", b"a: 1\n", "loads it once"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=told):
            plan([str(tmp_path / name)])


def test_a_text_with_a_nul_now_and_then_is_text_and_one_full_of_them_is_not(tmp_path: Path) -> None:
    few, many = tmp_path / "few.log", tmp_path / "many.log"
    few.write_bytes(b"".join(b"line %d of a log that was cut\n" % n for n in range(100)) + b"and a \0 in it\n")
    many.write_bytes(b"\x01\0\0\0\x7f\0\0\x02" * 500)
    assert (classify(few), classify(many)) == ("log", None)
    assert len(loaded(few)) == 101
    with pytest.raises(UsageError, match="not text"):
        read(many)
