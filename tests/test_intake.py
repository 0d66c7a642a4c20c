"""What comes in becomes drafts, whatever it is; what cannot be accepted is refused with its place in the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.config import IngestSettings, TopicConfig
from headwater.errors import UsageError
from headwater.intake.drafts import drafts
from headwater.lines.reading import LineReader
from headwater.records import MAX_MS, MIN_MS, Draft, to_ms
from headwater.verbs import Entry

NOW = to_ms(datetime(2026, 5, 4, 12, tzinfo=UTC))
LIMITS = IngestSettings(max_attributes=5)
EXTERNAL = TopicConfig(embedding_model="external", dimension=3)


def take(*entries: Entry, config: TopicConfig | None = None) -> list[Draft]:
    return drafts(entries, config or TopicConfig(), LineReader(lambda: NOW), LIMITS, now_ms=NOW)


def one(entry: Entry, config: TopicConfig | None = None) -> Draft:
    return take(entry, config=config)[0]


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return to_ms(datetime(year, month, day, hour, tzinfo=UTC))


def test_a_plain_line_keeps_its_text_and_gains_its_time_and_level() -> None:
    line = "2026-05-04 11:00:00,250 ERROR [main] store.Pool: no connection left"
    assert one(line) == Draft(
        line, None, at(2026, 5, 4, 11) + 250, {"level": "error"}, body=len(line) - len("no connection left")
    )


def test_the_short_way_of_plain_lines_gives_what_the_long_way_gives() -> None:
    lines = [
        "2026-05-04 11:00:00 INFO a.B: started",
        "hello",
        "",
        '{"msg":"x","level":"warn","a":{"b":1}}',
        "Jan 3 10:00:00 h p[1]: x",
    ]
    assert take(*lines) == take(*({"value": line} for line in lines)) == take(*map(Draft, lines))


def test_fields_of_json_lines_become_attributes() -> None:
    draft = one('{"ts": 1777892400, "level": "warn", "msg": "pool exhausted", "svc": {"name": "pay"}, "n": 3}')
    assert draft.time_ms == 1_777_892_400_000
    assert draft.attributes == {"level": "warn", "svc.name": "pay", "n": 3}


def test_what_is_given_wins_over_what_the_text_says() -> None:
    value = '{"time": "2026-05-04T11:00:00Z", "level": "warn", "n": 3, "msg": "x"}'
    draft = one({"value": value, "timestamp": "2020-01-01T00:00:00Z", "attributes": {"level": "custom", "n": 4}})
    assert draft.time_ms == at(2020, 1, 1)
    assert draft.attributes == {"level": "custom", "n": 4}


def test_a_level_that_given_attributes_state_under_another_name_is_the_level() -> None:
    words = {"severity": "WARNING", "log.level": "WARN", "levelname": "warn", "Severity": "Warning", "nivel": "aviso"}
    for name, word in words.items():
        assert one({"value": "ERROR disk is full", "attributes": {name: word}}).attributes == {name: word, "level": "warn"}, (
            name
        )
    both = {"level": "info", "severity": "error"}
    assert one({"value": "disk is full", "attributes": both}).attributes == both
    for other in ({"priority": "Critical"}, {"severity": 3}, {"severity": "S2"}):
        assert one({"value": "disk is full", "attributes": other}).attributes == other


def test_given_attributes_are_kept_before_found_ones_and_the_level_has_room() -> None:
    value = orjson.dumps({"level": "info", "msg": "x", **{f"f{i}": i for i in range(9)}}).decode()
    draft = one({"value": value, "attributes": {"g0": 0, "g1": 1, "g2": 2}})
    assert list(draft.attributes) == ["g0", "g1", "g2", "f0", "f1", "level"]


def test_nested_attributes_are_flattened_and_odd_numbers_kept_as_text() -> None:
    given = {"a": {"b": {"c": 1}}, "big": 1 << 63, "nan": math.nan, "inf": -math.inf, "none": None, "list": [1, "x"]}
    draft = one({"value": "x", "attributes": given})
    assert draft.attributes == {"a.b.c": 1, "big": str(1 << 63), "nan": "nan", "inf": "-inf", "list": '[1,"x"]'}
    orjson.dumps(draft.attributes)


def test_lone_surrogates_are_replaced_and_the_bytes_kept() -> None:
    draft = one({"value": "a\ud800b", "key": "k\udfff", "attributes": {"n\ud800": "v\ud800"}})
    assert (draft.value, draft.key, draft.raw) == ("a\ufffdb", "k\ufffd", b"a\xed\xa0\x80b")
    assert draft.attributes == {"n\ufffd": "v\ufffd", "invalid_utf8": True}


def test_a_surrogate_inside_a_json_line_is_replaced_in_its_attributes() -> None:
    draft = one('{"msg": "x", "level": "info", "who": "\\ud800z"}')
    assert orjson.loads(orjson.dumps(draft.attributes))["who"] == "\ufffdz"


def test_bytes_that_came_with_a_draft_are_kept() -> None:
    draft = Draft("caf\ufffd", raw=b"caf\xe9", position=7)
    assert one(draft) == draft._replace(body=0, attributes={"invalid_utf8": True})


@pytest.mark.parametrize(("time_ms", "kept"), [(MIN_MS - 5, MIN_MS), (10**18, MAX_MS), (-1, -1)])
def test_times_are_clamped_to_years_1_to_9999(time_ms: int, kept: int) -> None:
    assert one(Draft("x", time_ms=time_ms)).time_ms == kept


def test_documents_are_not_read_for_times() -> None:
    line = "2026-05-04 11:00:00 ERROR x"
    assert one(line, TopicConfig(passages="chunks")) == Draft(line)
    assert one(line + " y" * 40_000).time_ms is None


def test_values_that_are_not_text_are_kept_as_json() -> None:
    assert [one({"value": v}).value for v in ({"a": [1, None]}, [1, 2], 5, None, True)] == [
        '{"a":[1,null]}',
        "[1,2]",
        "5",
        "null",
        "true",
    ]
    assert one({"value": "x", "key": 5}).key == "5"


def test_an_empty_value_and_control_characters_are_accepted() -> None:
    assert [d.value for d in take("", " \n", "a\0b", "\x1b[31mred")] == ["", " \n", "a\0b", "\x1b[31mred"]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({}, "no 'value'"),
        ({"value": "x", "wibble": 1}, "unknown field 'wibble'"),
        ({"value": "x", 5: 1}, "unknown field '5'"),
        (5, "got int"),
        ({"value": "x", "partition": True}, "partition must be an integer"),
        ({"value": "x", "partition": "1"}, "partition must be an integer"),
        ({"value": "x", "attributes": [1]}, "attributes must be an object"),
        ({"value": "x", "attributes": ""}, "attributes must be an object"),
        ({"value": "x", "timestamp": "yesterdayish"}, "is not a time"),
        ({"value": "x", "timestamp": math.nan}, "is not a time"),
        ({"value": "x", "timestamp": [1]}, "timestamp must be text or a number"),
        ({"value": "x", "timestamp": 1e300}, ""),
        ({"value": deep(300)}, "cannot be kept as JSON"),
        ({"value": object()}, "cannot be kept as JSON"),
        ({"value": "x", "vector": [1, 2, 3]}, "makes its own vectors"),
    ],
)
def test_what_is_not_a_record_is_refused_with_its_number(entry: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match="record 1: ") as caught:
        take("fine", entry)
    assert complaint in str(caught.value)


def test_deeply_nested_attributes_and_values_do_not_exhaust_the_stack() -> None:
    assert len(next(iter(one({"value": "x", "attributes": deep(900)}).attributes))) <= 200
    nested = '{"a":' * 100_000 + "1" + "}" * 100_000
    assert one(nested).value == nested


def test_vectors_are_taken_as_float32() -> None:
    draft = one({"value": "x", "vector": [1, 0.1, np.float32(2)]}, EXTERNAL)
    assert draft.vector == [1.0, float(np.float32(0.1)), 2.0]
    row: Any = np.ones(3, np.float32)
    assert one(Draft("x", vector=row), EXTERNAL).vector == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        (None, "send 'vector' with each"),
        ([1, 2], "has 2 numbers, the topic's dimension is 3"),
        ([1, 2, math.nan], "NaN or an infinity"),
        ([1, 2, 1e39], "NaN or an infinity"),
        ([1, 2, 10**400], "NaN or an infinity"),
        ([0, 0, 0], "all zeros"),
        (["1", "2", "3"], "list of numbers"),
        ([[1, 2, 3]], "list of numbers"),
        ([True, True, True], "list of numbers"),
        ("123", "list of numbers"),
        (5, "list of numbers"),
        ({"a": 1}, "list of numbers"),
    ],
)
def test_vectors_without_a_direction_are_refused(vector: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        one({"value": "x", "vector": vector}, EXTERNAL)


def test_a_zero_vector_is_a_point_where_distance_is_euclidean() -> None:
    config = TopicConfig(embedding_model="external", dimension=2, metric="euclidean")
    assert one({"value": "x", "vector": [0, 0]}, config).vector == [0.0, 0.0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | st.dictionaries(st.sampled_from(["value", "key", "timestamp", "attributes", "partition"]), json_values))
def test_anything_becomes_a_storable_draft_or_a_usage_error(entry: str | Mapping[str, Any]) -> None:
    try:
        draft = one(entry)
    except UsageError:
        return
    draft.value.encode()
    (draft.key or "").encode()
    assert all(isinstance(name, str) for name in draft.attributes)
    orjson.dumps(draft.attributes)
    assert draft.time_ms is None or MIN_MS <= draft.time_ms <= MAX_MS
