"""One suite over `headwater.open` and `headwater.connect`: whichever way the engine is reached, the same verbs do the same."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater.blocking import Headwater
from headwater.verbs import Verbs
from serving import eventually, serving, settings_in


def store(hw: Headwater, topic: str, records: list[object]) -> headwater.Appended:
    """Append and wait until it is found; the kind of passages is given, which spares the moment `auto` takes to decide."""
    hw.create_topic(topic, passages="exact")
    return hw.append(topic, records, wait="searchable", timeout_s=240)  # type: ignore[arg-type]


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def test_what_is_appended_is_found_read_and_listed(hw: Headwater) -> None:
    at = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)
    done = store(
        hw,
        "tickets",
        [
            {"key": "u1", "value": "Payment failed", "attributes": {"level": "error", "retries": 3}, "timestamp": at},
            "The invoice could not be printed",
            headwater.Draft("A refund was sent", key="u2", time_ms=0),
        ],
    )
    assert [r.address for r in done.records] == ["tickets/0/0", "tickets/0/1", "tickets/0/2"]
    assert (done.wait, done.timed_out) == ("searchable", False)
    reply = hw.search("payment", topics=["tickets"], top_k=5)
    hit = reply[0]
    assert (hit.address, hit.key, hit.value, hit.timestamp) == ("tickets/0/0", "u1", "Payment failed", at)
    assert hit.attributes == {"level": "error", "retries": 3}
    assert 0 <= hit.score <= 1
    assert hit.vector is None
    assert reply.coverage.topics == ("tickets",)
    assert reply.coverage.watermark["tickets"].stored == 3
    view = hw.read("tickets/0/1", context=1)
    assert view.record.value == "The invoice could not be printed"
    assert [r.value for r in (*view.before, *view.after)] == ["Payment failed", "A refund was sent"]
    assert view.alike == ()
    store(hw, "again", ["disk 1 is full", "the fan is loud", "disk 1 is full"])
    assert [r.address for r in hw.read("again/0/0", alike=5).alike] == ["again/0/2"]
    page = hw.records("tickets", limit=2)
    assert [r.offset for r in page.records] == [0, 1]
    assert [r.timestamp.year for r in hw.records("tickets", cursor=page.next_cursor).records] == [1970]


def test_a_search_takes_every_parameter(hw: Headwater) -> None:
    store(hw, "logs", [{"value": f"disk {n} is full", "attributes": {"host": f"h{n}"}} for n in range(5)])
    reply = hw.search(
        "disk",
        topics=["logs"],
        top_k=2,
        mode="keyword",
        since=datetime(2020, 1, 1, tzinfo=UTC),
        until="2100-01-01",
        filters={"host": ["h1", "h3"]},
        explain=True,
        include=["vector"],
    )
    assert {h.attributes["host"] for h in reply} <= {"h1", "h3"}
    assert reply.explain
    assert len(reply[0].vector or ()) == 256
    assert [r[0].address for r in hw.search_batch([{"q": "disk", "topics": ["logs"]}, {"q": "host:h2"}])][1] == "logs/0/2"
    assert len(hw.similar("logs", offset=0, top_k=3)) == 3
    assert hw.embed(["a", "b"]).dimension == 256


def test_topics_are_made_changed_and_deleted(hw: Headwater) -> None:
    made = hw.create_topic("logs", partitions=3, passages="template", retention_s="30d")
    assert (made.name, made.partitions, made.config["retention_s"]) == ("logs", 3, 2_592_000.0)
    assert hw.set_topic("logs", semantic_weight=0.2).config["semantic_weight"] == 0.2
    assert [t.name for t in hw.topics()] == ["logs"]
    hw.delete_topic("logs")
    with pytest.raises(headwater.NotFoundError, match="logs"):
        hw.topic("logs")


def test_sources_are_added_paused_resumed_and_removed(hw: Headwater, tmp_path: Path) -> None:
    log = tmp_path / "app log.txt"
    log.write_text("2026-03-01 10:00:00 INFO one\n")
    (added,) = hw.add_source(path=str(log), topic="logs")
    assert (added.entry, added.topic, added.origin, added.state) == (str(log), "logs", "live", "not running")
    assert hw.pause_source(str(log))[0].paused
    assert not hw.resume_source(str(log))[0].paused
    hw.add_source(type="syslog", name="edge", port=0, transport="udp")
    assert [s.entry for s in hw.sources()] == [str(log), "edge"]
    with pytest.raises(headwater.ConflictError, match="'edge'"):
        hw.add_source(type="syslog", name="edge")
    with pytest.raises(headwater.ConfigError, match="did you mean 'port'"):
        hw.add_source(type="syslog", name="other", prot=0)
    hw.remove_source(str(log))
    assert [s.entry for s in hw.status().sources] == ["edge"]
    with pytest.raises(headwater.NotFoundError, match="headwater sources"):
        hw.pause_source("nobody")


def test_errors_are_the_same_classes_with_the_same_words(hw: Headwater) -> None:
    with pytest.raises(headwater.QueryError, match="since: 'foo' is not a time at character 7") as caught:
        hw.search("since:foo")
    assert (caught.value.position, caught.value.query) == (6, "since:foo")
    with pytest.raises(headwater.NotFoundError, match="no topic 'nowhere'"):
        hw.search("x", topics=["nowhere"])
    with pytest.raises(headwater.ConfigError, match="did you mean 'partitions'"):
        hw.create_topic("t", partition=3)
    with pytest.raises(headwater.UsageError, match="record 1: no 'value'"):
        hw.append("t", ["fine", {"key": "no value"}])
    hw.append("t", ["a"], idempotency_key="k")
    with pytest.raises(headwater.ConflictError, match="'k'"):
        hw.append("t", ["b"], idempotency_key="k")
    assert hw.append("t", ["a"], idempotency_key="k").records[0].duplicate
    with pytest.raises(headwater.UsageError, match="not a record address"):
        hw.read("t/x")
    with pytest.raises(headwater.NotFoundError):
        hw.drop_dead_letter(7)


def test_one_record_is_not_taken_for_a_list_and_records_may_come_from_a_generator(hw: Headwater) -> None:
    alone: list[Any] = ["one text", {"value": "x"}, headwater.Draft("x"), b"bytes", 7]
    for one in alone:
        with pytest.raises(headwater.UsageError, match=r"append\(topic, \[record\]\)"):
            hw.append("t", one)
    assert not hw.topics()
    made: Any = (f"text {n}" for n in range(3))
    assert len(store(hw, "t", made).records) == 3
    store(hw, "other", ["text 3"])
    one_topic: Any = "other"
    assert {hit.topic for hit in hw.search("text", topics=one_topic)} == {"other"}
    assert hw.timeline("text", topics=one_topic).coverage.topics == ("other",)
    assert {c.address for c in hw.ask("Which text?", topics=one_topic).citations} <= {"other/0/0"}


def test_a_tail_gives_what_is_there_and_what_comes(hw: Headwater) -> None:
    hw.append("t", ["one", "two"])
    records = hw.tail("t", from_start=True)
    assert [next(records).value, next(records).value] == ["one", "two"]
    hw.append("t", ["three"])
    assert next(records).value == "three"
    records.close()  # type: ignore[attr-defined]
    assert next(hw.tail("t", after="t/0/1")).value == "three"
    with pytest.raises(headwater.NotFoundError):
        next(hw.tail("nowhere"))


def test_a_tail_over_partitions_resumes_without_loss(hw: Headwater) -> None:
    hw.create_topic("t", partitions=3)
    hw.append("t", [{"value": str(n), "partition": n % 3} for n in range(9)])
    records = hw.tail("t", from_start=True)
    seen = [next(records) for _ in range(4)]
    rest = hw.tail("t", after=seen[-1].address)
    assert [next(rest).value for _ in range(5)] == ["4", "5", "6", "7", "8"]


def test_an_answer_comes_whole_or_as_events(hw: Headwater) -> None:
    store(hw, "t", ["The payment service failed because the disk was full.", "All is well."])
    answer = hw.ask("Why did the payment service fail?")
    events = list(hw.ask("Why did the payment service fail?", stream=True))
    assert [events[0].event, events[-1].event] == ["retrieval", "done"]
    assert "".join(str(e.data) for e in events if e.event == "token") == answer.text
    assert [e.data for e in events if e.event == "citation"] == list(answer.citations)
    assert all(c.verified for c in answer.citations)


def test_indexes_patterns_timelines_and_status_are_given(hw: Headwater) -> None:
    store(hw, "t", ["disk full", "disk full", "all well"])
    assert hw.index("t").model == "hash"
    assert [i.topic for i in hw.indexes()] == ["t"]
    assert hw.delete_index("t").state == "off"
    assert hw.create_index("t").model == "hash"
    hw.rebuild_index("t")
    eventually(lambda: hw.index("t").state == "ready")
    assert sum(p.count for p in hw.patterns("t").patterns) == 3
    assert sum(b.count for b in hw.timeline("disk", topics=["t"]).buckets) == 2
    status = hw.status()
    assert (status.ready, [t.name for t in status.topics]) == (True, ["t"])
    assert hw.dead_letters("t") == []


def test_a_reply_is_shown_escaped_and_turned_into_tables(hw: Headwater) -> None:
    store(hw, "t", ["<img src=x onerror=alert(1)> \x1b[31m red"])
    reply = hw.search("red")
    shown = reply._repr_html_()
    assert "&lt;img" in shown
    assert "<img" not in shown
    assert "\x1b" not in shown
    tables = {"pandas": hw.records("t").to_pandas, "polars": reply.to_polars, "pyarrow": hw.patterns("t").to_arrow}
    for package, convert in tables.items():
        if importlib.util.find_spec(package):
            assert len(convert()) == 1
        else:
            with pytest.raises(headwater.UsageError, match=f"pip install {package}"):
                convert()


def test_it_works_inside_a_running_loop(hw: Headwater) -> None:
    async def cell() -> int:
        hw.append("t", ["one"])
        return len(hw.records("t").records)

    assert asyncio.run(cell()) == 1


def test_a_closed_one_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    hw = headwater.open(tmp_path, embedding={"model": "hash"})
    hw.append("t", ["one"])
    hw.close()
    hw.close()
    with pytest.raises(headwater.UsageError, match="closed"):
        hw.topics()
    eventually(lambda: set(threading.enumerate()) <= before)


def test_a_directory_in_use_is_refused_naming_its_owner(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}), pytest.raises(headwater.OwnedError, match="in use by process"):
        headwater.open(tmp_path, embedding={"model": "hash"})


def test_memory_is_temporary() -> None:
    with headwater.open(":memory:", embedding={"model": "hash"}) as hw:
        hw.append("t", ["one"])
        directory = Path(hw.status().data_dir)
        assert directory.is_dir()
    assert not directory.exists()


def test_a_program_that_forgets_to_close_ends_and_loses_nothing(tmp_path: Path) -> None:
    program = (
        "import headwater, sys\n"
        "hw = headwater.open(sys.argv[1], embedding={'model': 'hash'})\n"
        "hw.append('t', ['kept'], wait='searchable', timeout_s=240)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        assert [r.value for r in hw.records("t").records] == ["kept"]


def test_every_verb_has_a_method_with_its_signature_and_words() -> None:
    for name, verb in inspect.getmembers(Verbs, inspect.isfunction):
        if name.startswith("_") or name == "aclose" or not callable(verb):
            continue
        method = getattr(Headwater, name)
        assert method.__doc__, name
        if name != "ask":
            assert list(inspect.signature(method).parameters) == list(inspect.signature(verb).parameters), name


def test_the_exported_names_are_these_and_cost_nothing_to_import() -> None:
    assert set(headwater.__all__) == {
        "MEMORY", "__version__", "aconnect", "aopen", "connect", "open",
        "AskEvent", "Client", "Deleted", "Engine", "Headwater", "LiveEvent", "Purged", "Settings", "TopicConfig", "Verbs",
        "AuthError", "ConfigError", "ConflictError", "DamageError", "EmbedError", "HeadwaterError", "LimitError",
        "ModelError", "NotFoundError", "OwnedError", "QueryError", "StorageError", "UnreachableError", "UsageError",
        "WaitTimeout", "Completion", "Message", "ModelInfo", "Piece", "Usage",
        "Answer", "Appended", "Bucket", "Citation", "Coverage", "DeadLetter", "Draft", "Embedded", "Hit", "IndexInfo",
        "Page", "Passage", "Pattern", "PatternsReply", "Receipt", "Record", "RecordView", "SearchReply", "SourceInfo",
        "Span", "Status", "Timeline", "Topic", "Watermark",
        "AnomaliesReply", "Anomaly", "Backtest", "ClassifyReply", "Conversation", "Delivered", "Detecting", "Drift",
        "ExtractReply", "Fault", "InvestigateEvent", "Investigation", "Label", "Pipeline", "Ran", "Rerun",
        "RunEvent", "Shadow", "StoredAnswer", "Tested", "ToolCall", "Watch", "WatchHit", "Webhook", "Woken",
    }  # fmt: skip
    for name in headwater.__all__:
        assert getattr(headwater, name) is not None
    program = "import sys; before = set(sys.modules); import headwater; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert loaded == {"headwater"}
    assert "asyncio" not in done.stdout.split()


def test_it_says_where_it_is_open_and_that_it_is_closed(hw: Headwater, tmp_path: Path) -> None:
    assert re.fullmatch(r"<Headwater (http://127\.0\.0\.1:\d+|/.*)>", repr(hw))
    other = headwater.open(tmp_path / "other", embedding={"model": "none"})
    other.close()
    assert repr(other) == f"<Headwater {tmp_path / 'other'}, closed>"
