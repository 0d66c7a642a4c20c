"""Chunks and sentences are exact spans that cover the text, end at sensible places and stay linear."""

from __future__ import annotations

import sys
from itertools import pairwise
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.chunks import chunk, sentences

MARKDOWN = st.lists(
    st.sampled_from(
        ["# Top\n", "## Sub\n", "Some prose here. And more of it, e.g. this.\n", "- item one\n", "1. first\n", "```\n",
         "x = 1\n",
         "    code()\n",
         "| a | b |\n", "\n", "   \n", "Title\n=====\n", "word " * 30 + "\n", "\u65e5\u672c\u8a9e\u3002\u6587\u3002\n", 
         "e\u0301" * 20, "x" * 90, "Dr. No said \"Hi!\" ... ok\r\n"]
    ),
    max_size=40,
).map("".join)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=600), MARKDOWN)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(1, 300), st.integers(0, 299))
def test_chunks_are_bounded_spans_without_blank_ends_that_hold_all_ink(text: str, size: int, overlap: int) -> None:
    found = chunk(text, size=size, overlap=min(overlap, size - 1))
    held: set[int] = set()
    for c in found:
        piece = text[c.start : c.end]
        assert 0 < len(piece) <= size
        assert piece == piece.strip()
        held.update(range(c.start, c.end))
    assert all(text[i].isspace() for i in range(len(text)) if i not in held)
    assert [c.start for c in found] == sorted({c.start for c in found})
    assert found == chunk(text, size=size, overlap=min(overlap, size - 1))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_sentences_partition_the_ink_of_a_text(text: str) -> None:
    at = 0
    for start, end in sentences(text):
        assert at <= start < end
        assert not text[at:start].strip()
        assert text[start:end] == text[start:end].strip()
        at = end
    assert not text[at:].strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained. We left.", ["It rained.", "We left."]),
        ("See e.g. Smith et al. on this. Then go.", ["See e.g. Smith et al. on this.", "Then go."]),
        ("It cost 3.50 dollars. Dr. No paid.", ["It cost 3.50 dollars.", "Dr. No paid."]),
        ('"Why?" he asked. "Because!" She left.', ['"Why?" he asked.', '"Because!"', "She left."]),
        ("See Fig. 3 now. No. 5 is alive.", ["See Fig. 3 now.", "No. 5 is alive."]),
        ("The U.S. Army came. J. R. Hartley wrote.", ["The U.S. Army came.", "J. R. Hartley wrote."]),
        ("# Title\nText here.\n- one\n- two. three", ["# Title", "Text here.", "- one", "- two.", "three"]),
        ("ok done\nnext line", ["ok done", "next line"]),
        (
            "a paragraph that was wrapped by an editor at some\nwidth goes on here. And ends.",
            ["a paragraph that was wrapped by an editor at some\nwidth goes on here.", "And ends."],
        ),
        ("```\na. b\nc\n```", ["```", "a. b", "c", "```"]),
        ("\u3053\u308c\u306f\u3002\u305d\u308c\u306f\u3002", ["\u3053\u308c\u306f\u3002", "\u305d\u308c\u306f\u3002"]),
        ("the flow is steady . the wing is thin .", ["the flow is steady .", "the wing is thin ."]),
        ("It failed after 3000 ms. It is so. Ask Ms. Smith.", ["It failed after 3000 ms.", "It is so.", "Ask Ms. Smith."]),
    ],
)
def test_a_sentence_ends_where_a_reader_says_so(text: str, expected: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_a_heading_begins_a_chunk_and_names_its_path() -> None:
    text = "# Install\n\n" + "Intro words here. " * 30 + "\n\n## Linux\n\n" + "Use apt to get it. " * 30 + "\n"
    first, second = chunk(text, size=700, overlap=50)
    assert text[second.start :].startswith("## Linux")
    assert (first.heading, second.heading) == ("Install", "Install > Linux")


def test_a_heading_is_never_left_alone_at_the_end_of_a_chunk() -> None:
    text = "Words of prose go here. " * 25 + "\n\n## Next\n\n" + "Other words go here. " * 25
    assert not any(text[c.start : c.end].rstrip().endswith("## Next") for c in chunk(text, size=620, overlap=0))


def test_code_and_tables_that_fit_are_kept_whole() -> None:
    code = "```python\n" + "call(1, 2)\n" * 20 + "```\n"
    table = "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 20
    text = "Prose comes first. " * 15 + "\n\n" + code + "\nBetween them. " * 10 + "\n\n" + table
    pieces = [text[c.start : c.end] for c in chunk(text, size=420, overlap=40)]
    assert any(code.strip() in p for p in pieces)
    assert any(table.strip() in p for p in pieces)


def test_neighbours_share_whole_sentences_of_prose() -> None:
    text = " ".join(f"Sentence number {i} says something." for i in range(60))
    found = chunk(text, size=400, overlap=100)
    for a, b in pairwise(found):
        assert b.start < a.end
        assert text[b.start :].startswith("Sentence")
        assert a.end - b.start <= 100


def test_a_cut_inside_a_long_word_keeps_marks_with_their_letters() -> None:
    text = "e\u0301" * 500
    assert all(text[c.start] == "e" for c in chunk(text, size=101, overlap=0))


def test_an_overlap_that_is_no_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        chunk("x", size=10, overlap=10)


@pytest.mark.parametrize("unit", ["\u0301", ".", ". ", "|", "x", " ", '."', "- ", "Some prose here. ", "a\n"])
def test_the_steps_of_cutting_grow_no_faster_than_the_text(unit: str) -> None:
    def steps(n: int) -> int:
        """Calls of functions, of Python and of C: the same each time, unlike seconds."""
        text, calls = "a" + unit * (n // len(unit)), [0]

        def count(frame: FrameType, event: str, arg: object) -> None:
            calls[0] += 1

        sys.setprofile(count)
        try:
            chunk(text)
        finally:
            sys.setprofile(None)
        return calls[0]

    assert steps(160_000) < 6 * steps(40_000)  # 4x the text; a pass over all of it at each cut takes 16x
