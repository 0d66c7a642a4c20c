"""The SDK's names: each has words of substance, the units of what it holds, and an example that is executed."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import headwater
from headwater import errors
from headwater.records.tabular import Shown, Tabular
from headwater.verbs import Verbs
from test_examples import BLOCKS, EXAMPLES

VERBS = [name for name, _ in inspect.getmembers(Verbs, inspect.isfunction) if not name.startswith("_")]
CLASSES = {name: kind for name in headwater.__all__ if inspect.isclass(kind := getattr(headwater, name))}
VALUES = {n: k for n, k in CLASSES.items() if dataclasses.is_dataclass(k) and n not in ("Settings", "TopicConfig")}
_UNIT = re.compile(r"_(s|ms|bytes|tokens|days|24h|per_day)$")
_NUMBERED = {"id", "n", "partition", "offset"}  # they count from 0 or 1 and have no unit


def _trees() -> Iterator[ast.AST]:
    for block in EXAMPLES:
        yield ast.parse(block.text)


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize("name", [n for n in headwater.__all__ if callable(getattr(headwater, n))])
def test_every_exported_name_says_what_it_is(name: str) -> None:
    words = inspect.getdoc(getattr(headwater, name)) or ""
    assert len(words.split()) >= 6, words
    assert not words.startswith(f"{name}("), "the words that dataclass makes up"
    assert re.search(r"[.:]$", words.split("\n\n")[0]), words


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_of_an_exported_class_says_what_it_does(name: str) -> None:
    asyncio.run(_worded())  # an implementation borrows the words of the verbs when it is made
    for method, made in vars(CLASSES[name]).items():
        function = made.fget if isinstance(made, property) else made
        if not method.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{method}"


async def _worded() -> None:
    async with (
        headwater.aopen(headwater.MEMORY, embedding={"model": "none"}) as engine,
        headwater.aconnect("127.0.0.1:9") as client,
    ):
        for verbs in (engine, client):
            for verb in VERBS:
                words = inspect.getdoc(getattr(verbs, verb)) or ""
                assert words, verb
                assert not words.startswith("As "), verb


def test_help_on_any_implementation_shows_the_words_of_the_verb() -> None:
    asyncio.run(_worded())
    for verb in VERBS:
        assert verb == "aclose" or inspect.getdoc(getattr(headwater.Headwater, verb)), verb


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_enough_and_names_only_errors_there_are(verb: str) -> None:
    words = inspect.getdoc(getattr(Verbs, verb)) or ""
    assert len(words.split()) >= 3, words
    assert words.rstrip().endswith((".", ")", ":")), words
    for error in re.findall(r"\b[A-Z]\w*Error\b", words):
        assert hasattr(errors, error), error


@pytest.mark.parametrize("name", VALUES)
def test_every_number_in_a_value_has_its_unit_in_its_name_or_its_meaning_in_the_words(name: str) -> None:
    words = VALUES[name].__doc__ or ""
    for field in dataclasses.fields(VALUES[name]):
        if re.search(r"\b(int|float)\b", str(field.type)) and field.name not in _NUMBERED:
            assert _UNIT.search(field.name) or re.search(rf"\b{field.name}\b", words), field.name


def _given(kind: Any) -> Iterator[type]:
    """The classes in the type of what a verb gives."""
    if inspect.isclass(kind) and get_origin(kind) is None:
        yield kind
    for inner in get_args(kind):
        yield from _given(inner)


def test_whatever_a_verb_gives_has_an_exported_name_but_for_what_would_have_two() -> None:
    given = {kind for verb in VERBS for kind in _given(get_type_hints(getattr(Verbs, verb))["return"])}
    ours = {kind for kind in given if kind.__module__.startswith("headwater")}
    unnamed = {f"{kind.__module__}.{kind.__name__}" for kind in ours - set(CLASSES.values())}
    assert unnamed == {"headwater.records.answers.Message"}  # headwater.Message is what is said to a model


# ---------------------------------------------------------------------- examples


def test_every_verb_is_called_in_an_example_that_is_executed() -> None:
    called = {
        node.func.attr
        for tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert set(VERBS) - {"aclose"} <= called, set(VERBS) - {"aclose"} - called


def test_every_exported_name_is_used_in_an_example_that_is_executed() -> None:
    used = {
        node.attr
        for tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "headwater"
    }
    assert set(headwater.__all__) <= used, set(headwater.__all__) - used


def test_the_examples_of_the_python_page_say_what_they_print() -> None:
    page = [b for b in BLOCKS if b.file.name == "python.md"]
    assert {b.name for b in page if b.sort == "example"} == {b.name for b in page if b.sort == "output"}


# ---------------------------------------------------------------------- shown, and as tables


EVIL = "<img src=x onerror=alert(1)> \x1b[31m \u202e"


def _made(kind: Any) -> Any:
    """A value of a type, every text in it hostile."""
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return kind(**{name: _made(hint) for name, hint in get_type_hints(kind).items()})
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{f.name: _made(hints[f.name]) for f in dataclasses.fields(kind)})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return (_made(inner[0]),)
    if origin is not None and hasattr(origin, "keys"):
        return {EVIL: _made(inner[1])}
    if inner and origin is not None and type(None) in inner:
        return _made(next(one for one in inner if one is not type(None)))
    if str(origin) == "typing.Literal" or kind in (str, Any, object):
        return EVIL
    if inner:
        return _made(inner[0])
    from datetime import UTC, datetime

    return {int: 7, float: 0.5, bool: True, datetime: datetime(2026, 3, 1, tzinfo=UTC)}[kind]


@pytest.mark.parametrize("name", [n for n, k in VALUES.items() if hasattr(k, "_repr_html_")])
def test_whatever_a_value_holds_it_is_shown_escaped(name: str) -> None:
    shown = _made(VALUES[name])._repr_html_()
    assert "&lt;img" in shown or "img" not in shown
    assert "<img" not in shown
    assert not {"\x1b", "\u202e"} & set(shown)


@pytest.mark.parametrize("name", [n for n, k in VALUES.items() if hasattr(k, "_repr_html_")])
def test_whatever_a_value_holds_a_terminal_shows_it_as_text_and_obeys_none_of_it(name: str) -> None:
    shown = str(_made(VALUES[name]))
    assert shown
    assert not shown.startswith(f"{name}(")
    assert not {"\x1b", "\u202e"} & set(shown)


def test_printed_hits_are_a_table_of_which_much_is_cut_and_that_said() -> None:
    with headwater.open(":memory:", **{"embedding.model": "hash"}) as hw:
        hw.append(
            "t", [f"order {n} was late" + " and so on" * 50 * (n == 0) for n in range(60)], wait="searchable", timeout_s=240
        )
        lines = str(hw.records("t", limit=60)).splitlines()
    assert lines[0].split() == ["address", "timestamp", "key", "value"]
    assert len(lines) == 52
    assert lines[1].endswith("…")
    assert max(len(line) for line in lines) < 130
    assert lines[-1] == "and 10 more"


def test_every_reply_of_a_verb_is_shown_in_a_notebook() -> None:
    given = {kind for verb in VERBS for kind in _given(get_type_hints(getattr(Verbs, verb))["return"])}
    shown = {n for n, k in VALUES.items() if k in given and hasattr(k, "_repr_html_")}
    plain = {n for n, k in VALUES.items() if k in given} - shown
    assert plain == {
        "AskEvent",
        "Delivered",
        "InvestigateEvent",
        "LiveEvent",
        "Piece",
        "RunEvent",
    }  # events, and a source's receipt
    assert all(issubclass(VALUES[n], Shown) for n in shown - {"Answer", "Investigation"})


@pytest.mark.parametrize("name", [n for n, k in VALUES.items() if issubclass(k, Tabular)])
def test_every_list_of_things_becomes_rows(name: str) -> None:
    from headwater.records import frames

    rows = frames.rows(_made(VALUES[name]))
    assert rows
    assert all(row.keys() == rows[0].keys() for row in rows)


# ---------------------------------------------------------------------- types


@pytest.mark.slow
def test_a_consumer_of_the_sdk_type_checks_strictly(tmp_path: Path) -> None:
    assert (Path(headwater.__file__).parent / "py.typed").exists()
    program = tmp_path / "consumer.py"
    program.write_text(
        """
from collections.abc import Iterator

import headwater


def titles(hw: headwater.Headwater) -> list[str]:
    reply = hw.search("x", topics=["a"], since="2h")
    return [hit.passage.text for hit in reply] + [topic.name for topic in hw.topics()]


def asked(hw: headwater.Headwater) -> tuple[str, Iterator[headwater.AskEvent]]:
    answer = hw.ask("why?")
    return answer.citations[0].quote, hw.ask("why?", stream=True)


async def found(verbs: headwater.Verbs) -> float:
    woken: headwater.Woken = await verbs.wait("pool")
    anomalies: headwater.AnomaliesReply = await verbs.anomalies()
    async for record in verbs.tail("a"):
        return woken.hits[0].score + anomalies[0].by_chance_days + record.offset
    return 0.0


def both() -> None:
    first: headwater.Verbs = headwater.aconnect("http://127.0.0.1:9")
    with headwater.open("data/") as hw, headwater.connect() as other:
        print(titles(hw), asked(other), first)
""",
        "utf-8",
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
