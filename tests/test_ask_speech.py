"""What a model says, made safe to show while it comes: marks, quotes, addresses, links, whole sentences."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.rag.citations import find
from headwater.rag.speech import Said, Sentence, Speech

RECORD = "ERROR pool: cannot borrow a connection. Retry `later` at http://ops.example/run"
KNOWN = "logs/0/42"


def quoted(said: str) -> str | None:
    span = find(said, RECORD)
    return None if span is None else RECORD[slice(*span)]


def said(*pieces: str) -> tuple[str, list[Sentence]]:
    """What is shown, and the sentences, of a reply in these pieces."""
    speech = Speech(quoted, {KNOWN})
    out: list[Said] = [part for piece in pieces for part in speech.feed(piece)] + speech.end()
    return "".join(p for p in out if isinstance(p, str)), [p for p in out if isinstance(p, Sentence)]


def test_marks_leave_the_text_and_belong_to_their_sentence_wherever_they_stand() -> None:
    text, sentences = said("The pool ran dry [1]. Nobody [2, 3] knew why. [4] It is back.")
    assert text == "The pool ran dry. Nobody knew why. It is back."
    assert [s.numbers for s in sentences] == [(1,), (2, 3, 4), ()]


def test_a_quote_is_shown_with_the_records_own_characters_and_an_invented_one_as_plain_words() -> None:
    text, sentences = said('It said "CANNOT borrow" and “the moon exploded” and `later`.')
    assert text == "It said `cannot borrow` and the moon exploded and `later`."
    assert sentences[0].quotes == ("cannot borrow", "later")


def test_links_images_tags_and_urls_come_out_broken() -> None:
    text, _ = said(
        "![x](http://evil.example/a?q=1) [y](https://evil.example) <img src=z> www.evil.example [r]: http://e.example"
    )
    assert not re.search(r"\]\(|!\[|<[a-z]|://|www\.|\]:", text)
    assert "http[:]//evil.example" in text


def test_the_address_of_a_record_that_was_not_retrieved_is_cut_down_to_its_topic() -> None:
    text, _ = said("See logs/0/42, logs/0/43 and audit/0/1; on 2026/03/01 it was 1/2/3.")
    assert text == "See logs/0/42, logs and audit; on 2026/03/01 it was 1/2/3."


def test_control_and_hidden_characters_become_visible() -> None:
    text, _ = said("a\x1b[31m b\u202e c")
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_refusal_shows_nothing() -> None:
    speech = Speech(quoted)
    assert [*speech.feed("NO A"), *speech.feed("NSWER"), *speech.feed(" at all"), *speech.end()] == []
    assert speech.refused
    assert said("NOT so: NO ANSWER is a phrase.")[0] == "NOT so: NO ANSWER is a phrase."


def test_plain_words_pass_at_once() -> None:
    speech = Speech(quoted)
    assert speech.feed("The") == ["The"]
    assert speech.feed(" pool") == [" pool"]
    assert speech.feed(" ran http") == [" ran", " http"]
    assert speech.feed("://x") == []
    assert speech.feed(".y z") == ["[:]//x.y", " z"]


ALPHABET = st.sampled_from(
    [*"ab .,!?\n[]()`\"“”<>:/1-", "[1]", "[2, 3]", "cannot borrow", '"cannot borrow"', "http://", "www.", "![", "](",
     "logs/0/42", "logs/0/7", "NO ANSWER", "U.S. ", "Next. ", "```\n"]
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.lists(ALPHABET, max_size=40).map("".join), st.lists(st.integers(0, 200), max_size=12))
def test_however_a_reply_is_cut_the_same_comes_out_and_sentences_are_all_that_is_shown(reply: str, cuts: list[int]) -> None:
    places = sorted({0, len(reply), *(c for c in cuts if c < len(reply))})
    pieces = [reply[a:b] for a, b in itertools.pairwise(places)]
    text, sentences = said(*pieces)
    assert (text, sentences) == said(reply)
    assert text == "".join(s.gap + s.text for s in sentences)
    for sentence in sentences:
        assert all(q in RECORD for q in sentence.quotes)
    assert "://" not in re.sub(r"`[^`]*`", "", text)
