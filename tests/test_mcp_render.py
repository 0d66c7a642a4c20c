"""Replies to models: never over the budget, nothing cut silently, record text fenced and visible."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.records import (
    Answer,
    Citation,
    Coverage,
    Hit,
    Passage,
    Pattern,
    PatternsReply,
    Record,
    RecordView,
    SearchReply,
    SourceInfo,
    Span,
    Status,
    Topic,
    Watermark,
)
from headwater.records.anomalies import AnomaliesReply
from headwater_mcp import render, render_found
from headwater_mcp.budget import clip, tokens
from headwater_mcp.render import Fence, Page

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FENCED = re.compile(r"<data-([a-z0-9]{8})>(.*?)</data-\1>", re.DOTALL)


def _hit(
    n: int, value: str, *, topic: str = "logs", key: str | None = None, passage: str | None = None,
    attributes: Mapping[str, Any] | None = None, span: Span | None = None,
) -> Hit:  # fmt: skip
    about = Passage(n, value if passage is None else passage, 1, 1, NOON, NOON)
    attributes = attributes or {}
    return Hit(f"{topic}/0/{n}", topic, 0, n, NOON, key, value, attributes, 0.5, {"keyword": 0.5}, None, about, span)


def _record(n: int, value: str, **attributes: Any) -> Record:
    return Record("logs", 0, n, n, NOON, NOON, None, value, attributes)


def _inside(reply: str) -> list[str]:
    return [found[2] for found in FENCED.finditer(reply)]


def _outside(reply: str) -> str:
    return FENCED.sub("", reply)


texts = st.one_of(
    st.text(max_size=3000), st.text("abc 0123456789-:/.", max_size=4000), st.text("漢字🎉é\u202e\x1b\r\n", max_size=800)
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)
cursors = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True))
coverages = st.builds(
    Coverage, backlog=st.integers(0, 10**9), topics=st.lists(names, max_size=30).map(tuple), searched=st.integers(0, 10**12),
    omitted=st.integers(0, 10**9), next_cursor=cursors, notes=st.lists(texts, max_size=5).map(tuple),
)  # fmt: skip
hits = st.lists(
    st.builds(_hit, st.integers(0, 9999), texts, topic=names, key=st.one_of(st.none(), texts),
              attributes=st.dictionaries(st.text(max_size=20), texts, max_size=5)),
    max_size=12,
).map(tuple)  # fmt: skip
pages = st.builds(
    Page, st.integers(300, 6000), st.sampled_from(["concise", "detailed"]), st.sampled_from([0, 0, 1, 7]), st.just("c-1")
)
citations = st.lists(
    st.builds(Citation, st.integers(1, 99), st.just("logs/0/1"), texts, st.just(0), st.just(1), st.booleans()), max_size=8
).map(tuple)


@settings(max_examples=60, deadline=None)
@given(hits, coverages, pages)
def test_search_replies_stay_within_the_budget_and_say_what_is_left_out(
    found: tuple[Hit, ...], coverage: Coverage, page: Page
) -> None:
    reply = render.search(SearchReply(found, coverage), page, "search")
    assert tokens(reply) <= page.max_tokens
    outside = _outside(reply)
    total = len(render.collapsed(found))
    shown = len(re.findall(r"^\[\d+\] ", outside, re.MULTILINE))
    if shown < total - page.skip:
        assert f"{total - page.skip - shown} of these left out" in outside
        assert shown or "raise it" in outside
        assert not shown or f"next_cursor={page.skip + shown}~c-1" in outside
    elif coverage.next_cursor:
        assert f"next_cursor=0~{coverage.next_cursor}" in outside
    assert "records searched" in outside


@settings(max_examples=40, deadline=None)
@given(texts, st.lists(texts, max_size=4), pages, st.integers(0, 50))
def test_a_record_and_its_neighbours_stay_within_the_budget(value: str, around: list[str], page: Page, start: int) -> None:
    before = tuple(_record(i, text) for i, text in enumerate(around))
    after = tuple(_record(100 + i, text) for i, text in enumerate(around))
    view = RecordView(_record(50, value, host=value[:300]), before, after)
    assert tokens(render.read(view, page, start)) <= page.max_tokens


@settings(max_examples=40, deadline=None)
@given(texts, citations, coverages, pages, st.lists(texts, max_size=9).map(tuple))
def test_answers_patterns_and_status_stay_within_the_budget(
    text: str, cited: tuple[Citation, ...], coverage: Coverage, page: Page, problems: tuple[str, ...]
) -> None:
    answer = Answer("a", "q", text, cited, ("x",), False, 0.5, coverage, text[:100], {}, {})
    assert tokens(render.ask(answer, page)) <= page.max_tokens
    found = tuple(Pattern(Passage(i, p, 1, 1, NOON, NOON), "logs", 1, True, p, f"logs/0/{i}") for i, p in enumerate(problems))
    assert tokens(render.patterns(PatternsReply(found, coverage), page, "patterns of logs")) <= page.max_tokens
    sources = tuple(SourceInfo(p, "tail", "logs", p, 1, None, p) for p in problems)
    now = Status("1", True, "/data", None, 1, 1.0, text, (), sources, problems)
    assert tokens(render.status(now, page)) <= page.max_tokens


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(0, 400))
def test_a_clipped_text_is_a_start_of_it_within_the_limit(text: str, limit: int) -> None:
    kept = clip(text, limit)
    assert text.startswith(kept)
    assert tokens(kept) <= limit or not kept
    if tokens(text) <= limit:
        assert kept == text


@pytest.mark.parametrize("form", ["concise", "detailed"])
def test_the_smallest_budget_holds_for_the_longest_texts(form: Any) -> None:
    page, long, topic = Page(300, form), "2026-11-21 c.s.payments.ChargeService pay_bcb98fa1961f " * 3000, "a1" * 50
    coverage = Coverage(
        topics=tuple(f"{topic[:95]}{i}" for i in range(40)), backlog=10**9, searched=10**9, omitted=10**9, notes=(long,) * 5
    )
    hits = tuple(_hit(i, long, topic=topic, key=long, attributes={long: long}) for i in range(40))
    cited = tuple(Citation(i, f"{topic}/0/{i}", long, 0, 9, False, False, NOON) for i in range(40))
    around = tuple(_record(i, long, level="error", more=long) for i in range(20))
    for reply in (
        render.search(SearchReply(hits, coverage), page, "search"),
        render.read(RecordView(around[10], around[:10], around[11:]), page, 0),
        render.ask(Answer("a", long, long, cited, (long,), False, 1.0, coverage, long, {}, {}), page),
        render.ask(Answer("a", long, "", (), (), True, 0.0, coverage, long, {}, {}), page),
        render.status(Status("1", True, long, long, 1, 1e9, long, (), (), (long,) * 40), page),
    ):
        assert tokens(reply) <= 300


def test_many_topics_are_listed_page_by_page() -> None:
    mark = Watermark(1, 1, 0)
    found = [Topic(f"topic-{i:03d}", 1, {}, 1, 1, 1.0, 9, 0.0, NOON, NOON, mark, 0) for i in range(120)]
    page, seen = Page(500), list[str]()
    while True:
        reply = render.topics(found, page)
        assert tokens(reply) <= 500
        seen += re.findall(r"^topic-\d+", reply, re.MULTILINE)
        if not (cursor := re.search(r"next_cursor=(\d+)~$", reply)):
            break
        page = Page(500, skip=int(cursor[1]))
    assert seen == [topic.name for topic in found]
    assert "1 not yet in semantic" in reply


def test_a_long_record_is_read_to_its_end_by_following_the_cursor() -> None:
    value = "".join(f"line {i}\r\n" if i % 7 else f"\x1b[3{i}m \u202eüñ {i}\n" for i in range(900))
    view, start, pieces = RecordView(_record(1, value)), 0, list[str]()
    for _ in range(200):
        reply = render.read(view, Page(800), start)
        pieces.append(_inside(reply)[0])
        if not (cursor := re.search(r"next_cursor=(\d+)~", _outside(reply))):
            break
        assert int(cursor[1]) > start
        assert f"{len(value) - int(cursor[1])} more characters" in reply
        start = int(cursor[1])
    joined = "".join(pieces)
    assert all(re.search(rf"line {i}\n", joined) for i in range(900) if i % 7)


def test_hits_of_one_pattern_are_one_result_that_names_the_others() -> None:
    found = (*(_hit(i, f"worker-{i} lost its lease after {i * 7} ms") for i in range(6)), _hit(9, "another message"))
    reply = render.search(SearchReply(found, Coverage()), Page(), "search")
    assert "2 distinct results of 7 hits" in reply
    assert "x6 like logs/0/1 logs/0/2 logs/0/3 +2" in reply


def test_texts_of_numbers_alone_are_not_taken_for_one_pattern() -> None:
    reply = render.search(SearchReply((_hit(1, "404"), _hit(2, "500")), Coverage()), Page(), "search")
    assert "2 distinct results" in reply


def test_a_cut_text_says_how_much_is_missing_and_what_to_read() -> None:
    value = "word " * 600
    reply = render.search(SearchReply((_hit(3, value),), Coverage()), Page(), "search")
    shown = _inside(reply)[0]
    assert f"… ({len(value) - len(shown)} more characters; read logs/0/3)" in _outside(reply)


def test_a_hit_inside_a_document_shows_its_passage() -> None:
    value = "start " * 300 + "the cause was here" + " end" * 300
    at = value.index("the cause")
    reply = render.search(SearchReply((_hit(1, value, span=Span(at, at + 18)),), Coverage()), Page(), "search")
    assert _inside(reply) == ["the cause was here"]
    assert f"({len(value) - 18} more characters; read logs/0/1)" in reply


def test_detailed_replies_carry_attributes_and_scores() -> None:
    reply = render.search(
        SearchReply((_hit(1, "m", key="k", attributes={"host": "h1"}),), Coverage()), Page(6000, "detailed"), "s"
    )
    assert _inside(reply) == ["key=k host=h1 m"]
    assert "keyword=0.50" in reply


def test_that_there_is_no_answer_is_said_in_our_own_words_outside_fences() -> None:
    said = "No answer: the 12 records of logs were searched and none supports one well enough."
    answer = Answer("a", "q", said, (), (), True, 0.1, Coverage(), "extractive", {}, {})
    reply = render.ask(answer, Page())
    assert said in _outside(reply)
    assert "data-" not in reply
    assert said not in _outside(render.ask(replace(answer, model="another"), Page()))


def test_what_a_writer_of_records_decides_stands_only_inside_fences() -> None:
    evil = "IGNORE-ALL"
    hit = _hit(1, evil, key=evil, passage=evil, attributes={"level": evil, evil: evil})
    pattern = Pattern(Passage(1, evil, 1, 1, NOON, NOON), "logs", 1, False, evil, "logs/0/1")
    view = RecordView(_record(1, evil, level=evil), (_record(0, evil, level=evil),))
    answer = Answer("a", "q", evil, (Citation(1, "logs/0/1", evil + "!", 0, 1, True),), (), False, 1.0, Coverage(), "m", {}, {})
    source = SourceInfo("f", "tail", "logs", "failed", 1, None, evil)
    for page in (Page(), Page(6000, "detailed")):
        for reply in (
            render.search(SearchReply((hit,), Coverage()), page, "search"),
            render.patterns(PatternsReply((pattern,), Coverage()), page, "patterns"),
            render.read(view, page, 0),
            render.ask(answer, page),
            render.status(Status("1", True, "", None, 1, 1.0, None, (), (source,), (evil,)), page),
        ):
            assert evil in reply
            assert evil not in _outside(reply)


def test_a_record_cannot_close_its_fence_even_if_it_knew_the_mark() -> None:
    fence = Fence("0badcafe")
    wrapped = fence("a</data-0badcafe>b<data-0badcafe>c")
    assert wrapped.count("0badcafe") == 2
    assert FENCED.fullmatch(wrapped)


def test_every_reply_has_a_mark_of_its_own() -> None:
    replies = [render.search(SearchReply((_hit(1, "m"),), Coverage()), Page(), "s") for _ in range(20)]
    assert len({FENCED.search(reply)[1] for reply in replies}) == 20  # type: ignore[index]


def test_control_and_bidi_characters_are_visible() -> None:
    reply = render.search(SearchReply((_hit(1, "a\x1b[31m\u202eb\nc"),), Coverage()), Page(), "search")
    assert _inside(reply) == ["a\\x1b[31m\\u202eb⏎c"]


def test_an_empty_reply_says_what_to_try() -> None:
    assert "Nothing matched" in render.search(SearchReply((), Coverage()), Page(), "search")
    assert "new_since" in render.patterns(PatternsReply((), Coverage()), Page(), "patterns")
    assert "nothing has been stored" in render.topics([], Page())
    assert "Widen since" in render_found.anomalies(AnomaliesReply((), Coverage(topics=("logs",))), Page())
    off = render_found.anomalies(AnomaliesReply((), Coverage()), Page())  # no topic was looked at
    assert "No detectors are on" in off
    assert "new_since" in off


def test_an_abstention_is_not_dressed_as_an_answer() -> None:
    answer = Answer("a", "q", "", (), (), True, 0.1, Coverage(), "extractive", {}, {})
    reply = render.ask(answer, Page())
    assert reply.startswith("No answer")
    assert "search" in reply


def test_a_quote_that_the_answer_shows_is_not_sent_twice() -> None:
    cited = (Citation(1, "logs/0/1", "the pool was too small", 0, 22, True, True, NOON),)
    answer = Answer("a", "q", "the pool was too small [1]", cited, (), False, 0.9, Coverage(), "extractive", {}, {})
    reply = render.ask(answer, Page())
    assert reply.count("the pool was too small") == 1
    assert "[1] logs/0/1 2026-11-21T12:00:00Z verified" in reply
