"""What a question asks for, and answers from patterns, lists and counts over a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

import headwater
from headwater.blocking import Headwater
from headwater.rag.question import understand
from headwater.records import Answer, to_ms

NOW = to_ms(datetime(2026, 11, 21, 13, 50, tzinfo=UTC))
T0 = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------------ understanding
@pytest.mark.parametrize(
    ("question", "intent"),
    [
        ("what is new since the 14:05 deploy, and has anyone seen it before?", "new-since"),
        ("what changed after 14:05?", "new-since"),
        ("what broke after the deploy?", "new-since"),
        ("any new errors in payments since yesterday?", "new-since"),
        ("what is different since the last release?", "new-since"),
        ("what's new?", "new-since"),
        ("what happened yesterday?", "new-since"),
        ("has this happened before?", "new-since"),
        ("has anyone seen a pool that runs dry before?", "seen-before"),
        ("customers were charged twice, did this happen before?", "seen-before"),
        ("were there similar incidents to the double charges?", "seen-before"),
        ("how many orders failed?", "count"),
        ("how often was it restarted?", "count"),
        ("when did the timeouts start?", "when"),
        ("at what time was the rollback?", "when"),
        ("why did payments fail after the 14:05 deploy?", "find"),
        ("what is the new pool size?", "find"),
        ("what was fixed in March?", "find"),
        ("What happens after a restart?", "find"),
        ("is this for 2024?", "find"),
        ("warum ging es schief?", "find"),
        ("", "find"),
    ],
)
def test_the_intent_of_a_question_is_read(question: str, intent: str) -> None:
    assert understand(question, NOW).intent == intent


def test_an_event_is_read_with_its_hour_its_day_and_whose_it_is() -> None:
    event = understand("what broke after yesterday's 14:05 payments v2.14 deploy?", NOW).event
    assert event is not None
    assert (event.kind, event.clock, event.about, event.before) == (
        "deploy",
        (50_700_000, 50_760_000),
        ("payments", "v2.14"),
        False,
    )
    assert event.day is not None
    other = understand("was it slow before the last restart?", NOW).event
    assert other is not None
    assert (other.kind, other.before, other.newest) == ("restart", True, True)
    behind = understand("what is new since the deploy of checkout at 14:05?", NOW).event
    assert behind is not None
    assert (behind.about, behind.clock) == (("checkout",), (50_700_000, 50_760_000))
    assert understand("what happens after a restart?", NOW).event is None


def test_what_frames_a_question_is_not_what_it_is_about() -> None:
    asked = understand("any new errors in checkout since 14:05?", NOW)
    assert (asked.subject, asked.words, asked.trouble, asked.fresh) == (
        ("checkout",),
        "any new errors in checkout?",
        True,
        True,
    )
    counted = understand("how many payment errors were there since 14:05?", NOW)
    assert (counted.counted, counted.counted_level, counted.counted_word) == (("payment",), "error", "errors")


# ------------------------------------------------------------------------------------------------------------ answers
@pytest.fixture(scope="module")
def shop() -> Iterator[Headwater]:
    """Two hours of a shop: a deploy at 12:30, after which two patterns are new; tickets of before and since; a handbook."""
    with headwater.open(headwater.MEMORY) as verbs:
        logs = [(n, f"INFO cart: user u{n} put item {n * 7} into the basket") for n in range(120)]
        logs += [(n, f"ERROR db: cannot borrow a connection from the pool within {n * 13} ms") for n in range(35, 60, 2)]
        logs += [(n, f"WARN mail: sending of receipt {n * 17} was put off") for n in range(40, 50)]
        logs += [(n, f"ERROR feed: supplier {n * 3} sent no prices") for n in range(5, 100, 9)]
        for n, text in sorted(logs):
            verbs.append("logs", [{"value": text, "timestamp": T0 + timedelta(minutes=n)}])
        deploys = [(20, "gateway", "gateway 5.31 rolled out"), (30, "payments", "payments 2.14 rolled out to production"),
                   (70, "payments", "Rollback of payments to 2.13"), (80, "mail", "mail 3.1 rolled out")]  # fmt: skip
        for n, key, text in deploys:
            verbs.append("deploys", [{"value": text, "key": key, "timestamp": T0 + timedelta(minutes=n)}])
        tickets = [
            (-40 * 1440, "A parcel went to the wrong house. The label was printed twice."),
            (-9 * 1440, "All database connections were taken and nobody could pay. It was fixed by a larger pool."),
            (-8 * 1440, "The logo on the start page is blurred."),
            (45, "Paying does not work, the page hangs."),
        ]
        for n, text in tickets:
            verbs.append("tickets", [{"value": text, "timestamp": T0 + timedelta(minutes=n)}])
        verbs.create_topic("handbook", passages="chunks")
        verbs.append("handbook", ["# Pools\n\nIn May 2012 the shop ran on one server. The pool of connections has 50 places."],
                     wait="searchable", timeout_s=240)  # fmt: skip
        for topic in ("logs", "deploys", "tickets"):
            verbs.append(topic, [], wait="searchable", timeout_s=240)
        while any(t.watermark.semantic < t.watermark.stored for t in verbs.topics()):
            pass
        yield verbs


def told(verbs: Headwater, answer: Answer) -> list[str]:
    """The lines of an answer, after a look at every citation of it."""
    assert answer.unsupported == ()
    for citation in answer.citations:
        assert citation.verified
        assert verbs.read(citation.address).record.value[citation.start : citation.end] == citation.quote
        assert f"[{citation.n}]" in answer.text
    return answer.text.splitlines()


def test_what_is_new_since_an_event_is_told_from_patterns_with_what_was_known(shop: Headwater) -> None:
    answer = shop.ask("what is new since the 12:30 deploy, and has anyone seen it before?")
    lines = told(shop, answer)
    assert lines[0].startswith(
        'I read "since the 12:30 deploy" as `payments 2.14 rolled out to production` (deploys payments, 2026-03-10'
    )
    assert lines[1] == "New in logs, the worst first:"
    assert "cannot borrow a connection" in lines[2]
    assert "13 times, 2026-03-10 12:35:00" in lines[2]
    assert "10 times, 2026-03-10 12:40:00" in lines[3]
    assert "feed: supplier" not in answer.text
    before = answer.text.partition("Nothing earlier is clearly the same; the nearest:")[2]
    assert "All database connections were taken" in before
    assert "It was fixed by a larger pool." in before
    assert "logo" not in answer.text
    assert answer.coverage.since == T0 + timedelta(minutes=30)


def test_the_first_record_of_a_new_pattern_is_the_one_cited(shop: Headwater) -> None:
    answer = shop.ask("what is new since 12:30 on 2026-03-10?")
    first = next(c for c in answer.citations if "cannot borrow" in c.quote)
    assert first.timestamp == T0 + timedelta(minutes=35)


def test_an_open_event_is_the_one_after_which_trouble_began(shop: Headwater) -> None:
    lines = told(shop, shop.ask("what broke after the deploy?"))
    assert "payments 2.14" in lines[0]
    assert any("cannot borrow" in line for line in lines)
    newest = told(shop, shop.ask("what errors were there since the last deploy?"))
    assert 'I read "since the last deploy" as deploys/0/3 (2026-03-10 13:20:00 UTC)' in newest[0]
    assert all("cannot borrow" not in line for line in newest)


def test_a_rollback_is_no_deploy_and_has_a_time_of_its_own(shop: Headwater) -> None:
    lines = told(shop, shop.ask("what happened after the rollback?"))
    assert "Rollback of payments" in lines[0]
    assert lines[1] == "Seen in logs, the worst first:"
    assert "payments 2.14" in told(shop, shop.ask("what changed since the payments release?"))[0]


def test_nothing_new_and_an_event_nobody_tells_of_are_said(shop: Headwater) -> None:
    calm = shop.ask("what is new since 13:50?")
    assert calm.abstained
    assert "nothing was first seen since 2026-03-10 13:50:00 UTC among the patterns of logs" in calm.text
    unknown = shop.ask("what is new since the failover?")
    assert unknown.abstained
    assert '"since the failover"' in unknown.text
    timed = shop.ask("what is new since the 12:10 failover?")
    assert 'No record tells of it, so I read "since the 12:10 failover" as since ' in timed.text


def test_a_month_limits_the_evidence_and_the_answer_says_how_it_was_read(shop: Headwater) -> None:
    lines = told(shop, shop.ask("what was fixed in March?"))
    assert lines[0] == 'I read "in March" as 2026-03-01 to 2026-04-01 UTC:'
    assert "It was fixed by a larger pool." in lines[1]
    assert shop.ask("what was fixed in January?").abstained


def test_an_argument_wins_over_a_time_in_the_question(shop: Headwater) -> None:
    answer = shop.ask("what was fixed in January?", since=T0 - timedelta(days=20))
    assert "I read" not in answer.text
    assert "larger pool" in answer.text


def test_documents_speak_of_times_of_their_own(shop: Headwater) -> None:
    answer = shop.ask("how many servers had the shop in May 2012?", topics=["handbook"])
    assert "one server" in answer.text
    assert not shop.ask("how many places has the pool today?", topics=["handbook"]).abstained


def test_records_are_counted_by_topic_by_level_and_by_words(shop: Headwater) -> None:
    lines = told(shop, shop.ask("how many errors were there between 12:30 and 13:00?"))
    assert lines[0].startswith('I read "between 12:30 and 13:00" as 2026-03-10 12:30:00 to 2026-03-10 13:00:00 UTC')
    assert lines[1] == "17 records in logs with level error or worse:"
    assert told(shop, shop.ask("how many receipts were put off?"))[0] == '10 records in logs with the words "receipts put off":'
    assert "1 record in tickets" in shop.ask("how many tickets since 12:30?").text
    assert shop.ask("how many unicorns failed?").abstained


def test_the_records_of_a_named_topic_in_a_time_are_listed_oldest_first(shop: Headwater) -> None:
    lines = told(shop, shop.ask("what was deployed between 12:00 and 12:45?"))
    assert ["gateway 5.31" in lines[1], "payments 2.14" in lines[2], len(lines)] == [True, True, 3]


def test_an_earlier_case_is_told_with_what_mended_it(shop: Headwater) -> None:
    answer = shop.ask("cannot borrow a connection from the pool, has anyone seen that before?")
    lines = told(shop, answer)
    assert lines[0] == "Seen, the oldest first:"
    assert "All database connections were taken" in answer.text


def test_of_an_identifier_that_no_record_has_nothing_is_said(shop: Headwater) -> None:
    assert shop.ask("what happened to item blk_-1608999687919862906?").abstained


@pytest.mark.parametrize(
    "question", ["since 14:05", "what?", "new", "-", "has anyone?", "how many", "when", "since the deploy", '"']
)
def test_odd_questions_are_answered_or_declined_without_error(shop: Headwater, question: str) -> None:
    told(shop, shop.ask(question))


def test_without_a_model_words_alone_decide() -> None:
    with headwater.open(headwater.MEMORY, embedding={"model": "none"}) as verbs:
        for n in range(30):
            text = f"INFO web: page {n} served" if n < 20 else f"ERROR web: disk quota of tenant {n} exceeded"
            verbs.append("logs", [{"value": text, "timestamp": T0 + timedelta(minutes=n)}])
        old = {"value": "Disk quota exceeded for one tenant. Resolved by a larger quota.", "timestamp": T0 - timedelta(days=9)}
        verbs.append("tickets", [old], wait="searchable", timeout_s=240)
        verbs.append("logs", [{"value": "INFO web: page 99 served", "timestamp": T0}], wait="searchable", timeout_s=240)
        answer = verbs.ask("what is new since 2026-03-10T12:15, and has anyone seen it before?")
        lines = told(verbs, answer)
        assert any("10 times" in line for line in lines)
        assert "Resolved by a larger quota." in answer.text.partition("Seen before:")[2]


def test_a_document_tells_of_what_is_new_whenever_it_was_loaded_and_with_its_remedy() -> None:
    runbook = "# Clocks\n\nThe gateway refuses a device because its certificate is not yet valid: its clock is at the epoch.\n"
    report = (
        "# Baskets\n\nOld replicas could not read what new ones had written.\n\n## Cause\n\n"
        "The class had no fixed serialVersionUID, so that each build had another.\n\n"
        "## Remedy\n\nEmpty the shared store after the rollout.\n"
    )
    with headwater.open(headwater.MEMORY) as verbs:
        for n in range(40):
            verbs.append("logs", [{"value": f"INFO web: page {n} served", "timestamp": T0 + timedelta(minutes=n - 60)}])
        for n in range(12):
            for text in (
                f"ERROR gateway: device {n} refused, certificate is not yet valid, its clock says 1970-01-01",
                f"ERROR cart {n} cannot be read: InvalidClassException: local class incompatible, serialVersionUID = {n + 77}",
            ):
                verbs.append("logs", [{"value": text, "timestamp": T0 + timedelta(minutes=n)}])
        verbs.create_topic("docs", passages="chunks")
        verbs.append("docs", [runbook, report], wait="searchable", timeout_s=240)
        answer = verbs.ask("what is new since 2026-03-10T12:00, and has anyone seen it before?")
        told(verbs, answer)
        assert not answer.unsupported
        seen, _, near = answer.text.partition("Seen before:")[2].partition("Nothing earlier is clearly the same as")
        assert "certificate is not yet valid" in seen
        assert "serialVersionUID" in near
        assert "Empty the shared store" in near
        assert "(docs)" in answer.text  # and no time: that of its delivery says nothing
        answer = verbs.ask("replicas cannot read what new ones wrote: was that seen before, and what was the remedy?")
        told(verbs, answer)
        assert "Empty the shared store" in answer.text
        answer = verbs.ask("what broke in the gateway since 2026-03-10T12:00?")
        lines = told(verbs, answer)
        assert "certificate is not yet valid" in lines[2]
        assert len(lines) == 3


def test_long_texts_with_times_of_their_own_are_no_documents() -> None:
    with headwater.open(headwater.MEMORY) as verbs:
        verbs.create_topic("reports", passages="chunks")
        for month, what in ((1, "The lamp in the hall was fixed by the porter."), (3, "The lift was fixed by a new cable.")):
            at = datetime(2026, month, 12, tzinfo=UTC)
            verbs.append("reports", [{"value": f"# Report\n\n{what}", "timestamp": at}], wait="searchable", timeout_s=240)
        assert "The lift was fixed by a new cable." in verbs.ask("what was fixed in March?").text
        assert "lamp" not in verbs.ask("what was fixed in March?").text
        assert verbs.ask("what was fixed in February?").abstained
