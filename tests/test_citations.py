"""Quotes are located to the code point, and no citation survives that is not true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headwater.rag.citations import Claim, check, find, locate
from headwater.visible import visible

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Note:
    address: str
    value: str
    timestamp: datetime = NOON
    attributes: Mapping[str, Any] = field(default_factory=dict)


DISK = Note("logs/0/7", "disk sda1 is full; writes to /var were refused")
DEPLOY = Note("deploys/0/2", "Deployed payments 4.2 at 14:05 — “canary” skipped.\nRollback took 20 minutes.")
EVIDENCE = [DISK, DEPLOY]

odd_text = st.text(st.sampled_from("aAbB \n\t.é́ß🙂👨‍👩‍👧ﬁ“”\"'-—…İ①½\u200b\u202e`[1]"), max_size=40) | st.text(max_size=40)


# ------------------------------------------------------------------------------------------------------ locating
def test_a_quote_is_located_at_its_first_occurrence() -> None:
    assert locate("ab", "xx ab ab") == (3, 5)


@pytest.mark.parametrize("quote", ["", " ", "\n\t", "nowhere"])
def test_blank_and_absent_quotes_stand_nowhere(quote: str) -> None:
    assert locate(quote, "a b\n\tc") is None
    assert find(quote, "a b\n\tc") is None


def test_spans_count_code_points_not_bytes_or_clusters() -> None:
    value = "👨‍👩‍👧 cafe\u0301 down"
    assert locate("down", value) == (12, 16)
    assert value[slice(*find("CAFÉ", value) or ())] == "cafe\u0301"


@pytest.mark.parametrize(
    ("quote", "value", "shown"),
    [
        ("the disk  is\nfull", "Then the Disk is full.", "the Disk is full"),
        ('a "canary" - skipped', "had a “canary” — skipped", "a “canary” — skipped"),
        ("it's done...", "well it’s done… yes", "it’s done…"),
        ("STRASSE zu", "die Straße zu", "Straße zu"),
        ("file", "a ﬁle here", "ﬁle"),
        ("naïve", "nai\u0308ve plan", "nai\u0308ve"),
        ("one two", "one \n\n\t two", "one \n\n\t two"),
        ("soft hyphen", "soft hy\u00adphen", "soft hy\u00adphen"),
        ("...were refused.", DISK.value, "were refused"),
        ("“writes to /var”", DISK.value, "writes to /var"),
    ],
)
def test_a_near_quote_is_mapped_to_the_records_own_text(quote: str, value: str, shown: str) -> None:
    span = find(quote, value)
    assert span is not None
    assert value[slice(*span)] == shown


@pytest.mark.parametrize("quote", ["disk sda2 is full", "disk is full", "…", "“”", "- -"])
def test_another_wording_is_not_found(quote: str) -> None:
    assert find(quote, DISK.value) is None


@given(odd_text, odd_text, odd_text)
def test_every_piece_of_a_value_is_located_exactly(before: str, quote: str, after: str) -> None:
    value = before + quote + after
    span = locate(quote, value)
    assert find(quote, value) == span or not quote.strip()
    if quote.strip():
        assert span is not None
        assert value[slice(*span)] == quote
        assert span[0] <= len(before)


@given(odd_text, odd_text)
def test_a_lenient_span_lies_within_the_value_and_is_never_blank(quote: str, value: str) -> None:
    span = find(quote, value)
    if span is not None:
        assert 0 <= span[0] < span[1] <= len(value)
        assert value[slice(*span)].strip()
        assert find(quote, value) == span


@given(st.text("abc déE\n", min_size=1, max_size=30), st.text("abc déE\n", max_size=30))
def test_upper_case_and_doubled_blanks_do_not_lose_a_quote(quote: str, around: str) -> None:
    if quote.strip():
        assert find(quote.upper().replace(" ", "  "), around + quote + around) is not None


def test_locating_in_a_large_hostile_value_is_linear() -> None:
    value = "e\u0301" * 150_000 + "x"
    assert find("É" * 100_000 + "y", value) is None
    assert find(" a" * 100_000, "a " * 150_000) is not None


# ------------------------------------------------------------------------------------------------------ checking
def test_a_true_citation_is_kept_with_the_records_own_text() -> None:
    checked = check("Writes failed [1].", [Claim(1, "logs/0/7", "Writes to  /var were refused")], EVIDENCE)
    (citation,) = checked.citations
    assert checked.text == "Writes failed [1]."
    assert (citation.n, citation.address, citation.quote) == (1, "logs/0/7", "writes to /var were refused")
    assert DISK.value[citation.start : citation.end] == citation.quote
    assert citation.verified
    assert citation.supported
    assert citation.timestamp == NOON
    assert checked.unsupported == ()


def test_an_invented_address_is_removed_and_its_sentence_is_unsupported() -> None:
    claims = [Claim(1, "logs/0/99", "disk sda1 is full"), Claim(2, "logs/0/7", "disk sda1 is full")]
    checked = check("Mars is red [1]. The disk was full [2].", claims, EVIDENCE)
    assert checked.text == "Mars is red. The disk was full [1]."
    assert [c.address for c in checked.citations] == ["logs/0/7"]
    assert checked.unsupported == ("Mars is red.",)
    assert "not among the records" in checked.removed[0]


def test_an_invented_quote_and_an_unclaimed_mark_are_removed() -> None:
    checked = check("It burned [1] twice [7].", [Claim(1, "logs/0/7", "the disk burned")], EVIDENCE)
    assert checked.text == "It burned twice."
    assert checked.citations == ()
    assert checked.unsupported == ("It burned twice.",)
    assert len(checked.removed) == 2


def test_marks_are_renumbered_in_order_of_appearance_and_equal_quotes_share_one() -> None:
    claims = [
        Claim(9, "deploys/0/2", "Rollback took 20 minutes"),
        Claim(4, "logs/0/7", "disk sda1"),
        Claim(5, "headwater://records/logs/0/7", "disk sda1"),
    ]
    checked = check("Rollback was slow [9]. The disk [4, 9]. Again the disk [5].", claims, EVIDENCE)
    assert checked.text == "Rollback was slow [1]. The disk [2][1]. Again the disk [2]."
    assert [c.n for c in checked.citations] == [1, 2]


def test_a_mark_behind_the_full_stop_belongs_to_the_sentence_before_it() -> None:
    checked = check("Disk sda1 is full. [1] All is well.", [Claim(1, "logs/0/7", "disk sda1 is full")], EVIDENCE)
    assert checked.unsupported == ("All is well.",)


def test_each_line_is_judged_by_itself_and_headings_claim_nothing() -> None:
    text = "What happened:\n- disk sda1 is full [1]\n- and everybody in the building went home early that day\n- 20 minutes"
    checked = check(text, [Claim(1, "logs/0/7", "disk sda1 is full")], EVIDENCE)
    assert checked.unsupported == ("- and everybody in the building went home early that day", "- 20 minutes")


def test_brackets_inside_quoted_text_are_not_marks() -> None:
    note = Note("auth/0/1", "sshd[1234]: `root` failed [1]")
    text = 'Seen: ``sshd[1234]: `root` failed [1]`` and "pid [88]" [1].'
    checked = check(text, [Claim(1, "auth/0/1", note.value)], [note])
    assert checked.text == text
    assert checked.removed == ()
    assert checked.unsupported == ()


def test_a_quote_that_shares_nothing_with_its_sentence_is_verified_but_not_supported() -> None:
    checked = check("Bananas are yellow [1].", [Claim(1, "logs/0/7", "disk sda1 is full")], EVIDENCE)
    assert checked.citations[0].verified
    assert not checked.citations[0].supported


def test_claims_the_text_never_refers_to_are_left_out() -> None:
    checked = check("Nothing to see.", [Claim(3, "logs/0/7", "disk sda1")], EVIDENCE)
    assert checked.citations == ()
    assert checked.removed == ("[3]: the text does not refer to it",)


claim = st.builds(
    Claim,
    st.integers(0, 4),
    st.sampled_from(["logs/0/7", "deploys/0/2", "logs/0/8", "x", "deploys/0/02", ""]),
    st.sampled_from(["disk sda1", "DISK SDA1", "“canary”", "20 minutes", "nope", "", "\n", "sda1 is full; writes"]),
)
answer = st.lists(
    st.sampled_from(
        ["[1]", "[2]", "[0, 3]", "[ 4 ]", "[\n1]", "[99999999]", " a", ". ", "B", "\n", "`", "``", '"', "“", "?", "é🙂"]
    ),
    max_size=30,
).map("".join)


@given(answer, st.lists(claim, max_size=8))
@example(text="`[1]`[1]`", claims=[])
@example(text="`[1]`[1][1] [2]`", claims=[])
@example(text='"a [\n7] b" [1]', claims=[])
def test_whatever_a_model_writes_only_true_citations_remain(text: str, claims: list[Claim]) -> None:
    checked = check(text, claims, EVIDENCE)
    values = {note.address: note.value for note in EVIDENCE}
    assert [c.n for c in checked.citations] == list(range(1, len(checked.citations) + 1))
    for c in checked.citations:
        assert c.verified
        assert values[c.address][c.start : c.end] == c.quote
        assert f"[{c.n}]" in checked.text
    again = check(checked.text, [Claim(c.n, c.address, c.quote) for c in checked.citations], EVIDENCE)
    assert (again.text, again.unsupported) == (checked.text, checked.unsupported)


def test_checking_a_long_hostile_answer_is_linear() -> None:
    text = "".join("`" * (1 + i % 300) + " [1] “ " for i in range(6000)) + '"' * 20_001
    checked = check(text, [Claim(1, "logs/0/7", "disk sda1")] * 50, EVIDENCE)
    assert len(checked.text) <= len(text)


# ------------------------------------------------------------------------------------------------- what is shown
@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("user\u202egpj.exe", "user\\u202egpj.exe"),
        ("pay\u200bpal pay\u200dpal", "pay\\u200bpal pay\\u200dpal"),
        ("\ufeffa\u00adb", "\\ufeffa\\xadb"),
        ("a\U000e0041", "a\\U000e0041"),
        ("a\ufe01\ufe02\U000e0101", "a\ufe01\\ufe02\\U000e0101"),
        ("a\ud800b", "a\\ud800b"),
        ("a\u2028b", "a\\u2028b"),
        ("a\r\nb\rc\td", "a\nb\\rc\td"),
        ("nul\x00", "nul\\x00"),
    ],
)
def test_what_hides_or_commands_is_shown_as_an_escape(hidden: str, shown: str) -> None:
    assert visible(hidden) == shown


@pytest.mark.parametrize("text", ["👨‍👩‍👧 ❤️", "می‌خواهم", "क्‍ष", "naïve — “ok”", "日本語"])
def test_honest_writing_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_newlines_are_marked_for_one_line_views() -> None:
    assert visible("a\r\nb\n", newlines="mark") == "a⏎b⏎"


@given(st.text())
def test_shown_text_encodes_and_showing_it_again_changes_nothing(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert visible(shown) == shown
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)


@pytest.mark.parametrize(("format", "kind"), [("pdf", "page"), ("pptx", "slide"), ("xlsx", "sheet")])
def test_a_citation_of_a_document_says_its_page(format: str, kind: str) -> None:
    paged = Note("docs/0/1", "Buy ropes.\n\f\nThe bridge is closed.", attributes={"format": format, "pages": 2})
    claims = [Claim(1, paged.address, "ropes"), Claim(2, paged.address, "closed")]
    first, second = check("Ropes [1]. Closed [2].", claims, [paged], supports=lambda _s, _q: True).citations
    assert (first.page, first.page_kind, second.page, second.page_kind) == (1, kind, 2, kind)


def test_a_citation_of_a_log_line_has_no_page_whatever_characters_it_has() -> None:
    line = Note("logs/0/1", "printer fed\fone page")
    (cited,) = check("Fed [1].", [Claim(1, line.address, "one page")], [line], supports=lambda _s, _q: True).citations
    assert cited.page is None
    assert cited.page_kind is None
