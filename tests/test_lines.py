from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.lines.reading import LineReader, Reading
from headwater.records import from_ms

NOW = datetime(2025, 11, 21, 12, 0, tzinfo=UTC)


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp() * 1000)


def reader(now: datetime = NOW, **options: int) -> LineReader:
    return LineReader(lambda: int(now.timestamp() * 1000), **options)


def read(text: str) -> Reading:
    return reader().read(text)


def when(text: str) -> str | None:
    found = read(text).time_ms
    return None if found is None else from_ms(found).isoformat(timespec="milliseconds").removesuffix("+00:00")


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2015-10-18T18:02:08,636Z INFO ready", "2015-10-18T18:02:08.636"),
        ("2015-10-18 18:02:08.636+02:00 ready", "2015-10-18T16:02:08.636"),
        ("2015-10-18T18:02:08-0130 ready", "2015-10-18T19:32:08.000"),
        ("2015-10-18 18:02:08 UTC [12] ready", "2015-10-18T18:02:08.000"),
        ("2015/10/18 18:02:08 ready", "2015-10-18T18:02:08.000"),
        ("2015-10-18 18:02 ready", "2015-10-18T18:02:00.000"),
        ("20151018T180208Z ready", "2015-10-18T18:02:08.000"),
        ("20151018-18:2:8:61|main|7|ready", "2015-10-18T18:02:08.610"),
        ("151018 180208 19 INFO ready", "2015-10-18T18:02:08.000"),
        ("15/10/18 18:02:08 INFO ready", "2015-10-18T18:02:08.000"),
        ("10/18/2015 06:02:08 PM ready", "2015-10-18T18:02:08.000"),
        ("05.03.2024 10:11:12 ready", "2024-03-05T10:11:12.000"),
        ("03.25.2024 10:11:12 ready", "2024-03-25T10:11:12.000"),
        ("18/10/2015 18:02:08 ready", "2015-10-18T18:02:08.000"),
        ("[Sun Oct 18 18:02:08 2015] [error] ready", "2015-10-18T18:02:08.000"),
        ("[Sun Oct 18 18:02:08.123456 2015] [error] ready", "2015-10-18T18:02:08.123"),
        ('10.0.0.1 - ann [18/Oct/2015:18:02:08 -0700] "GET / HTTP/1.1" 200 12', "2015-10-19T01:02:08.000"),
        ("1445191328 ready", "2015-10-18T18:02:08.000"),
        ("1445191328.5 ready", "2015-10-18T18:02:08.500"),
        ("1445191328636 ready", "2015-10-18T18:02:08.636"),
        ("1445191328636123 ready", "2015-10-18T18:02:08.636"),
        ("2015-10-18-18.02.08.636123 rack1 RAS KERNEL INFO ready", "2015-10-18T18:02:08.636"),
        ("03/17 16:13:38.811  INFO: ready", "2025-03-17T16:13:38.811"),
        ("03-17 16:13:38.811  1702  2395 D Windows: ready", "2025-03-17T16:13:38.811"),
        ("I0317 16:13:38.811123  1234 file.cc:12] ready", "2025-03-17T16:13:38.811"),
        ("1:M 18 Oct 2015 18:02:08.636 * Ready", "2015-10-18T18:02:08.636"),
        ("<34>1 2015-10-18T18:02:08.003Z host app 1 ID4 - ready", "2015-10-18T18:02:08.003"),
        ("Jun 14 15:16:01 host sshd[1]: ready", "2025-06-14T15:16:01.000"),
        ("Jun  4 15:16:01 host sshd[1]: ready", "2025-06-04T15:16:01.000"),
        ("- 1445191328 2015.10.18 n1 Oct 18 18:02:08 n1/n1 crond(pam)[5]: ready", "2015-10-18T18:02:08.000"),
        ("[10:22] <ann> ready", None),
        ("16:13:38.811 [main] INFO a.b.C - ready", None),
        ("2015-13-45 18:02:08 ready", None),
        ("2015-10-18 25:61:08 ready", None),
        ("0000-10-18 18:02:08 ready", None),
        ("9999-12-31 23:59:59 ready", None),
        ("2036-01-01 00:00:00 ready", None),
        ("no time here", None),
        ("12 monkeys", None),
        ("1445191328", None),
    ],
)
def test_usual_timestamps_are_found_and_impossible_ones_are_not(line: str, time: str | None) -> None:
    assert when(line) == time


def test_a_year_that_is_not_written_is_the_latest_that_is_not_tomorrow() -> None:
    assert when("Nov 22 11:59:59 host app: x") == "2025-11-22T11:59:59.000"
    assert when("Nov 22 12:00:01 host app: x") == "2024-11-22T12:00:01.000"
    assert when("Dec 24 00:00:00 host app: x") == "2024-12-24T00:00:00.000"
    assert when("Feb 29 00:00:00 host app: x") == "2024-02-29T00:00:00.000"
    assert when("Feb 30 00:00:00 host app: x") is None


def test_the_year_is_inferred_anew_when_the_clock_passes_midnight() -> None:
    now = ms(2025, 12, 30, 23, 59)
    line_reader = LineReader(lambda: now)
    assert line_reader.read("Jan 01 10:00:00 host app: x").time_ms == ms(2025, 1, 1, 10)
    now = ms(2026, 1, 1, 11)
    assert line_reader.read("Jan 01 10:00:00 host app: x").time_ms == ms(2026, 1, 1, 10)


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("2015-10-18 18:02:08,636 WARN [Renewer:a@b:9000] org.acme.ipc.Client: Address changed", "warn", "Address changed"),
        ("2015-07-29 19:26:07,890 - WARN  [Send:188:Mgr$Send@688] - worker leaving", "warn", "worker leaving"),
        ("2015-10-18 18:02:08,636 - acme.app - ERROR - it failed", "error", "it failed"),
        ("2015-10-18 18:02:08.123  INFO 12 --- [main] c.e.App : Started in 3 s", "info", "Started in 3 s"),
        ("2015/10/18 18:02:08 [error] 12#34: *3 open() failed", "error", "*3 open() failed"),
        ("2015-10-18 18:02:08 UTC [12] LOG:  checkpoint starting", "info", "checkpoint starting"),
        ("2015-10-18, Info                  CBS    loaded", None, None),
        ("[Sun Oct 18 18:02:08 2015] [notice] init() ok", "info", "init() ok"),
        ("Jun 14 15:16:01 host sshd(pam_unix)[199]: check pass; user unknown", None, "check pass; user unknown"),
        ("Jun 14 15:16:01 host syslogd 1.4.1: restart.", None, "restart."),
        ("Jun 14 15:16:01 host com.acme.agent[12] (com.acme.x[3]): Endpoint activated", None, "Endpoint activated"),
        ("03-17 16:13:38.811  1702  2395 E Windows: frozen", "error", "frozen"),
        ("I0317 16:13:38.811123  1234 file.cc:12] hello", "info", "hello"),
        ("20171223-22:15:29:606|Step|30002312|onChanged 3579", None, "onChanged 3579"),
        ("[10.30 16:49:06] some.exe *64 - a.b.edu:5070 close", None, "a.b.edu:5070 close"),
        ("- 1131566461 2005.11.09 R0-M1 2005-11-09-12.01.01.123456 R0-M1 RAS KERNEL FATAL data error", "fatal", "data error"),
        ("2569061 node-212 node temperature 1072633140 1 ambient=30", None, "ambient=30"),
        ("2015-10-18T18:02:08Z stdout F hello", None, "hello"),
        ('<11>1 2015-10-18T18:02:08Z host app 1 ID4 [a b="c"] boom', "error", "boom"),
        ("[ERROR] disk is full", "error", "disk is full"),
        ("WARN  [main] a.b.C - slow", "warn", "[main] a.b.C - slow"),
        ("E/Tag( 123): broken", "error", "broken"),
        ("ERROR IN CONTACTING THE MANAGER", "error", "ERROR IN CONTACTING THE MANAGER"),
        ("Could not load the page", None, "Could not load the page"),
        ("Backup finished at 2024-01-01 12:00:00 with 3 errors", None, "Backup finished at 2024-01-01 12:00:00 with 3 errors"),
        ("2024-01-01 12:00:00 Lease until 2024-02-01 00:00:00 renewed", None, "Lease until 2024-02-01 00:00:00 renewed"),
        ("2024-01-01 12:00:00 INFO", "info", "2024-01-01 12:00:00 INFO"),
        ("", None, ""),
    ],
)
def test_headers_are_stripped_by_their_shape(line: str, level: str | None, message: str | None) -> None:
    reading = read(line)
    assert reading.level == level or message is None
    assert message is None or reading.message == message
    assert reading.message == line[reading.start :]
    assert reading.attributes == {}


def test_json_lines_give_message_time_level_and_flat_attributes() -> None:
    reading = read('{"ts":1445191328.636,"level":40,"msg":"slow","http":{"status":200,"tags":["a",1]},"ok":true,"none":null}')
    assert reading == Reading(
        ms(2015, 10, 18, 18, 2, 8) + 636, "warn", 0, {"http.status": 200, "http.tags": "a, 1", "ok": True}, "slow"
    )
    assert read('{"@timestamp":"2015-10-18T18:02:08Z","log":{"level":"err"},"message":"m"}').level == "error"
    assert read('{"priority":3,"event":"boom"}').level == "error"
    assert read('{"time":1445191328636000000,"text":"x"}').time_ms == ms(2015, 10, 18, 18, 2, 8) + 636


def test_names_of_fields_are_known_in_any_case_and_in_other_languages() -> None:
    for line in (
        '{"Timestamp":"2015-10-18T18:02:08Z","Level":"Warning","Message":"m","x":1}',
        '{"@t":"2015-10-18T18:02:08Z","@l":"Warning","@m":"m","x":1}',
        '{"hora":"2015-10-18T18:02:08Z","nivel":"aviso","mensaje":"m","x":1}',
        '{"zeit":"2015-10-18T18:02:08Z","level":"Warnung","meldung":"m","x":1}',
    ):
        assert read(line) == Reading(ms(2015, 10, 18, 18, 2, 8), "warn", 0, {"x": 1}, "m"), line


def test_a_day_and_a_time_of_day_in_two_fields_are_one_time() -> None:
    for line in (
        '{"date":"2015-10-18","time":"18:02:08","msg":"m"}',
        'date=2015-10-18 time=18:02:08 msg="m"',
        '{"fecha":"18/10/2015","hora":"18:02:08","mensaje":"m"}',
    ):
        assert read(line) == Reading(ms(2015, 10, 18, 18, 2, 8), None, 0, {}, "m"), line
    assert read('{"time":"18:02:08","msg":"m"}').time_ms is None


def test_a_json_line_without_a_message_is_its_fields() -> None:
    assert read('{"user":"ann","action":"login","n":3}').message == "user=ann action=login n=3"


def test_numbers_that_json_cannot_hold_are_kept_as_text() -> None:
    text = '{"msg":"x","big":9223372036854775808,"least":-9223372036854775808,"huge":1e999,"nan":NaN,"a":1,"a":2}'
    assert read(text).attributes == {
        "big": "9223372036854775808",
        "least": -(2**63),
        "huge": "1e999",
        "nan": "NaN",
        "a": 2,
    }


def test_attributes_are_bounded_in_number_and_depth() -> None:
    wide = "{" + ",".join(f'"k{i}":{i}' for i in range(500)) + "}"
    assert len(reader(max_attributes=10).read(wide).attributes) == 10
    assert read('{"a":' * 20 + "1" + "}" * 20).attributes == {}


def test_logfmt_lines_are_read_like_json() -> None:
    reading = read('ts=2015-10-18T18:02:08Z level=info msg="hello \\"you\\" there" dur=3.5 n=3 who=ann')
    assert reading.message == 'hello "you" there'
    assert (reading.time_ms, reading.level) == (ms(2015, 10, 18, 18, 2, 8), "info")
    assert reading.attributes == {"dur": 3.5, "n": 3, "who": "ann"}
    assert read("a=1 is not b=2 and c=3 is something else").attributes == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 100_000,
        '{"msg":"' + "a" * 1_000_000 + '"}',
        "a=1 " * 250_000,
        'a="' + "\\" * 1_000_000,
        "\ud800 \udfff",
        '{"msg":"\ud800"}',
        '{"msg":"\\ud800"}',
        "\0" * 1000,
        "2024-01-01 00:00:00 [" + "[a" * 500_000,
        " " * 1_000_000,
        "1" * 1_000_000,
    ],
)
def test_hostile_texts_are_read_without_error(text: str) -> None:
    assert isinstance(read(text).message, str)


@settings(deadline=None, max_examples=200)
@given(
    st.text(alphabet=st.characters(codec=None), max_size=300) | st.from_regex(r"[0-9:\-/., TZ\[\]]{0,40} ?[A-Za-z]{0,9}.{0,20}")
)
def test_any_text_is_read_and_its_message_is_its_end(text: str) -> None:
    line_reader = reader()
    reading = line_reader.read(text)
    assert reading == line_reader.read(text) == reader().read(text)
    assert line_reader.message(text) == reading.message
    assert reading.attributes or reading.message == text[reading.start :] or text.lstrip().startswith("{")


@settings(deadline=None)
@given(st.integers(ms(1970, 1, 2), ms(2030, 1, 1)))
def test_written_times_come_back(time_ms: int) -> None:
    at = from_ms(time_ms)
    assert read(at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03}Z ready").time_ms == time_ms
    assert read(at.strftime("[%a %b %d %H:%M:%S %Y] ready")).time_ms == time_ms - time_ms % 1000
    assert read(f"{time_ms / 1000:.3f} ready".rjust(20, "0") if time_ms < 10**12 else f"{time_ms} ready").time_ms in (
        time_ms,
        None,
    )


def test_what_is_cached_does_not_change_what_is_read() -> None:
    shared = reader()
    stamps = ["2015-10-18 18:02:08,636", "2015-10-18 18:02:08,637", "2015-10-18 18:02:09,636", "2015-99-18 18:02:08,636"]
    for stamp, level, text in itertools.product(stamps * 2, ["INFO", "WARN"], ["a 1", "b 22"]):
        line = f"{stamp} {level} [main] {text}"
        assert shared.read(line) == reader().read(line)


@pytest.mark.parametrize(
    "line",
    [
        "[Mon Nov 02 06:00:01 2026] [error] [client 231.246.187.42] the pipeline was restored after 3 tries by worker 7",
        "2026-11-02 06:27:08.028 20458 INFO audio.refund [req-e3265e7a-fdaf-4261-b983-c1e9a9e3d692 - - - - -] basket merged",
        "753 node-07 compaction.router unix.hw 1793599217 1 the compactor joined a foreign stripe without a reaper",
        "2026-11-02 06:00:15,853 WARN [main] org.acme.power.PowerInterrupt: subscription 9ca5644f was revoked by its owner",
    ],
)
def test_what_a_cut_line_is_read_as_says_nothing_of_longer_ones(line: str) -> None:
    shared = reader()
    for end in range(12, len(line) + 1):
        assert shared.read(line[:end]) == reader().read(line[:end])
    assert shared.read(line) == reader().read(line)


def test_lines_that_differ_in_their_long_ids_alone_are_read_alike() -> None:
    shared = reader()
    for id in ("e3265e7a-fdaf-4261-b983-c1e9a9e3d692", "00000000-aaaa-0000-aaaa-000000000000", "7dc53df5703e4917", "9bc36dd9"):
        line = f"2026-11-02 06:27:08.028 20458 INFO [req-{id} - - - - -] basket merged in 3 ms"
        found = shared.read(line)
        assert found == reader().read(line)
        assert (found.level, found.message) == ("info", "basket merged in 3 ms")
