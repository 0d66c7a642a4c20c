"""The command line against a real daemon: what it prints where, how it ends, and that nothing untrusted reaches a terminal."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from headwater.cli.app import app
from headwater.cli.errors import exit_code
from headwater.cli.load import PIECE_RECORDS, pieces
from headwater.errors import HeadwaterError, NotFoundError, QueryError, StorageError, UnreachableError, WaitTimeout
from headwater.records import Draft

PROGRAM = (sys.executable, "-m", "headwater.cli")
WAIT_S = 240.0
LINES = [
    f"2026-11-20 14:{minute:02d}:00 ERROR payments - pool exhausted after {1000 + minute} ms for order O-{minute}"
    for minute in range(30)
]


@dataclass(frozen=True)
class Daemon:
    url: str
    data: Path
    environment: Mapping[str, str]
    said: Path


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def _environment(data: Path) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    return {**plain, "HEADWATER_EMBEDDING_MODEL": "hash", "HEADWATER_DATA_DIR": str(data), "HEADWATER_SERVER_PORT": "0"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """`headwater up` on a file of lines, in the foreground of a process of its own."""
    place = tmp_path_factory.mktemp("daemon")
    (place / "app.log").write_text("\n".join(LINES) + "\n")
    data, said = place / "data", place / "said"
    environment = _environment(data)
    with said.open("wb") as errors:
        process = subprocess.Popen([*PROGRAM, "up", str(place / "app.log")], env=environment, stderr=errors, stdout=errors)
        try:
            up = re.compile(r"is up at (\S+)\s")
            _until(lambda: up.search(said.read_text()) is not None, "the daemon")
            yield Daemon(up.findall(said.read_text())[0], data, environment, said)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT_S) == 0


@pytest.fixture
def cli(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in this process, against the daemon."""
    for name in [n for n in os.environ if n.startswith("HEADWATER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADWATER_DATA_DIR", str(daemon.data))
    runner = CliRunner()
    return lambda *arguments, **options: runner.invoke(app, [str(a) for a in arguments], **options)


def _in_process(*arguments: str, environment: Mapping[str, str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=dict(environment), input=text, capture_output=True, text=True, timeout=240, check=False
    )


def _ready(cli: Callable[..., Result], topic: str, records: int) -> None:
    def searchable() -> bool:
        found = [t for t in json.loads(cli("topics", "--json").stdout) if t["name"] == topic]
        return bool(found) and found[0]["watermark"]["semantic"] >= records

    _until(searchable, f"{records} records of {topic}")


# ---------------------------------------------------------------------- help, errors, exits


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom headwater.cli.app import app\n"
        "heavy = {'httpx', 'pydantic', 'numpy', 'rich', 'chromadb', 'onnxruntime', 'tantivy', 'apsw', 'mcp', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_command_has_help_with_examples() -> None:
    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        if inner := getattr(command, "commands", {}):
            for word, one in inner.items():
                yield from walk(one, f"{name} {word}")
        else:
            yield name, command.help or ""

    found = dict(walk(get_command(app), "headwater"))
    assert len(found) > 80
    assert [name for name, text in found.items() if name not in text] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("full"), 1),
        (QueryError("bad", query="x", position=0, expected="y"), 2),
        (NotFoundError("none"), 3),
        (UnreachableError("gone"), 3),
        (WaitTimeout("late"), 4),
        (HeadwaterError("else"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: HeadwaterError, code: int) -> None:
    assert exit_code(error) == code


def test_a_bad_query_is_shown_with_a_caret_under_the_offending_character(cli: Callable[..., Result]) -> None:
    result = cli("search", "pool offset:>=")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[1].strip() == "pool offset:>="
    assert lines[2].endswith("^")


def test_what_is_not_there_exits_3_and_wrong_usage_2(cli: Callable[..., Result]) -> None:
    missing = cli("topics", "describe", "nowhere")
    assert missing.exit_code == 3
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert cli("search", "x", "--json", "--csv").exit_code == 2
    assert cli("search", "x", "--mode", "psychic").exit_code == 2
    assert cli("frobnicate").exit_code == 2
    assert cli("append", "not a name!", "x").exit_code == 2


def test_a_traceback_is_shown_only_with_debug(daemon: Daemon) -> None:
    plain = _in_process("topics", "describe", "nowhere", environment=daemon.environment)
    assert (plain.returncode, "Traceback" in plain.stderr) == (3, False)
    debug = _in_process("--debug", "topics", "describe", "nowhere", environment=daemon.environment)
    assert "Traceback" in debug.stderr


def test_a_reader_that_leaves_is_no_error(daemon: Daemon) -> None:
    command = [*PROGRAM, "tail", "app", "--from-start"]
    with subprocess.Popen(command, env=dict(daemon.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        subprocess.run([*PROGRAM, "append", "app", *LINES], env=dict(daemon.environment), check=True, capture_output=True)
        assert process.wait(WAIT_S) == 0
        assert process.stderr.read() == b""


def test_an_interrupt_ends_a_command_with_130_and_no_traceback(daemon: Daemon) -> None:
    command = [*PROGRAM, "tail", "app", "--from-start"]
    with subprocess.Popen(command, env=dict(daemon.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 130


# ---------------------------------------------------------------------- the daemon


def test_up_says_where_it_is_what_it_follows_and_how_to_connect_an_agent(daemon: Daemon) -> None:
    said = daemon.said.read_text()
    assert "follows" in said
    assert "app.log" in said
    assert "headwater search" in said
    assert "claude mcp add headwater -- " in said


def test_up_on_a_directory_in_use_names_its_owner(daemon: Daemon) -> None:
    second = _in_process("up", environment=daemon.environment)
    assert second.returncode == 1
    assert daemon.url in second.stderr


def test_up_on_another_address_needs_a_key(tmp_path: Path) -> None:
    result = _in_process("up", "--host", "0.0.0.0", environment=_environment(tmp_path))
    assert result.returncode == 2
    assert "api_key" in result.stderr


def test_status_shows_the_daemon_its_topics_and_its_sources(cli: Callable[..., Result], daemon: Daemon) -> None:
    _ready(cli, "app", len(LINES))
    text = cli("status").stdout
    assert daemon.url in text
    assert "app.log" in text
    assert json.loads(cli("status", "--json").stdout)["ready"] is True


def test_status_starts_no_daemon(tmp_path: Path, cli: Callable[..., Result]) -> None:
    assert cli("status", "--data", tmp_path / "none").exit_code == 3
    assert not (tmp_path / "none").exists()


def test_a_command_starts_the_daemon_it_needs_and_says_so(tmp_path: Path) -> None:
    environment = _environment(tmp_path / "data")
    result = _in_process("append", "notes", "hello there", "--json", environment=environment)
    try:
        assert "starting one in the background" in result.stderr
        assert _counts(result.stdout) == ("notes", 1, 0, 0)
        assert "starting" not in _in_process("topics", environment=environment).stderr
    finally:
        os.kill(json.loads((tmp_path / "data" / "runtime.json").read_text())["pid"], signal.SIGTERM)
        _until(lambda: not (tmp_path / "data" / "runtime.json").exists(), "the daemon's end")


def test_a_directory_without_a_daemon_is_opened_in_the_process(tmp_path: Path) -> None:
    environment, data = _environment(tmp_path / "unused"), str(tmp_path / "data")
    (tmp_path / "notes.txt").write_text("one\ntwo\nthree\n")
    stored = _in_process("ingest", "notes", str(tmp_path / "notes.txt"), "--data", data, environment=environment)
    assert stored.returncode == 0, stored.stderr
    found = _in_process("search", "two", "--data", data, "--json", environment=environment)
    assert [h["value"] for h in json.loads(found.stdout)["hits"]][:1] == ["two"]
    assert not (tmp_path / "data" / "runtime.json").exists()
    assert not (tmp_path / "unused").exists()


# ---------------------------------------------------------------------- records in


def test_append_prints_addresses_and_stores_keys_and_attributes(cli: Callable[..., Result]) -> None:
    result = cli("append", "tickets", "Payment failed", "Payment failed again", "--key", "u1", "-a", "level=error", "--wait")
    assert result.stdout.split() == ["tickets/0/0", "tickets/0/1"]
    records = [json.loads(line) for line in cli("tail", "tickets", "--from-start", "--limit", 2, "--jsonl").stdout.splitlines()]
    assert [(r["value"], r["key"], r["attributes"]["level"]) for r in records] == [
        ("Payment failed", "u1", "error"), ("Payment failed again", "u1", "error"),
    ]  # fmt: skip


def test_append_reads_lines_and_json_lines_from_a_pipe(daemon: Daemon, cli: Callable[..., Result]) -> None:
    assert _in_process("append", "piped", environment=daemon.environment, text="one\ntwo\n").returncode == 0
    lines = '{"value": "three", "key": "k"}\nthis is no json\n{"value": "four"}\n'
    result = _in_process("append", "piped", "--jsonl", environment=daemon.environment, text=lines)
    assert result.returncode == 1
    assert "this is no json" in result.stderr
    records = [json.loads(line) for line in cli("tail", "piped", "--from-start", "--limit", 4, "--json").stdout.splitlines()]
    assert [r["value"] for r in records] == ["one", "two", "three", "four"]


def test_a_load_that_is_run_again_stores_nothing_twice(cli: Callable[..., Result], tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.log", tmp_path / "b.jsonl.gz"
    plain.write_text("".join(f"line {n}\n" for n in range(5000)))
    packed.write_bytes(gzip.compress(b"".join(b'{"value": "packed %d"}\n' % n for n in range(100))))
    first = cli("ingest", "loaded", plain, packed, "--json")
    assert _counts(first.stdout) == ("loaded", 5100, 0, 0)
    again = cli("ingest", "loaded", str(tmp_path / "*.*"), "--json")
    assert _counts(again.stdout) == ("loaded", 0, 5100, 0)
    assert "were there already" in again.stderr


def _counts(printed: str) -> tuple[str, int, int, int]:
    """(topic, stored, duplicates, dead letters) of the JSON that a load prints."""
    found = json.loads(printed)
    assert found.keys() == {"topic", "stored", "duplicates", "dead_letters", "seconds", "records_per_s"}
    return found["topic"], found["stored"], found["duplicates"], found["dead_letters"]


def test_what_is_no_record_becomes_a_dead_letter_and_is_shown_with_its_file(cli: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"value": "good"}\n{"broken\n{"value": "fine"}\n')
    result = cli("ingest", "faulty", file, "--json")
    assert result.exit_code == 1
    assert _counts(result.stdout) == ("faulty", 2, 0, 1)
    assert "some.jsonl at 18" in result.stderr
    assert "headwater dlq --topic faulty" in result.stderr
    (letter,) = json.loads(cli("dlq", "--topic", "faulty", "--json").stdout)
    assert (letter["stage"], letter["source"], letter["payload"]) == ("source", f"ingest:{file} at 18", '{"broken')
    assert cli("ingest", "faulty", file, "--json").exit_code == 1
    assert len(json.loads(cli("dlq", "--topic", "faulty", "--json").stdout)) == 1


def test_what_cannot_be_read_is_refused_by_name(cli: Callable[..., Result], tmp_path: Path) -> None:
    assert cli("ingest", "x", tmp_path / "none.log").exit_code == 3
    assert cli("ingest", "x", tmp_path).exit_code == 2
    assert cli("ingest", "x", str(tmp_path / "*.nothing")).exit_code == 3


def test_pieces_hold_every_draft_in_order_within_the_bounds() -> None:
    drafts = [Draft("é" * size) for size in [10, 400_000, 400_000, 900_000, *[1] * (2 * PIECE_RECORDS)]]
    cut = list(pieces(drafts))
    assert [d for piece in cut for d in piece] == drafts
    assert max(map(len, cut)) <= PIECE_RECORDS
    assert all(len(piece) == 1 or sum(len(d.value.encode()) for d in piece) <= 1 << 20 for piece in cut)


# ---------------------------------------------------------------------- what comes back


def test_search_prints_score_count_address_time_level_text_and_coverage(cli: Callable[..., Result]) -> None:
    _ready(cli, "app", len(LINES))
    result = cli("search", "pool exhausted", "--topics", "app", "--explain")
    head, seen, *_ = result.stdout.splitlines()
    score, count, address, when, level, text = head.split(maxsplit=5)
    assert 0 < float(score) <= 1
    assert int(count[1:]) >= len(LINES)
    assert address.startswith("app/0/")
    assert (when[-1], level) == ("Z", "error")
    assert "pool exhausted" in text
    assert "2026-11-20T14:00:00Z .. 14:29:00Z" in seen
    assert result.stdout.splitlines()[-1].startswith("-- searched ")
    assert "keyword" in result.stdout


def test_search_in_the_formats_of_programs(cli: Callable[..., Result]) -> None:
    _ready(cli, "app", len(LINES))
    whole = json.loads(cli("search", "pool", "-t", "app", "--json").stdout)
    assert set(whole) >= {"hits", "coverage"}
    lines = cli("search", "pool", "-t", "app", "--jsonl")
    assert json.loads(lines.stdout.splitlines()[0])["address"] == whole["hits"][0]["address"]
    assert "searched" in lines.stderr
    rows = list(csv.DictReader(io.StringIO(cli("search", "pool", "-t", "app", "--csv").stdout)))
    assert rows[0]["address"] == whole["hits"][0]["address"]


def test_a_hidden_or_obeyed_character_never_reaches_the_output(cli: Callable[..., Result]) -> None:
    cli("append", "evil", "\x1b]52;c;aGk=\x07 \u202egnp.exe \x9b31m payload", "=HYPERLINK(1) payload", "--wait")
    for form in ((), ("--json",), ("--jsonl",), ("--csv",), ("--full",)):
        shown = cli("search", "payload", "-t", "evil", *form).stdout
        assert not set("\x1b\x07\u202e\x9b") & set(shown), form
    assert json.loads(cli("search", "hyperlink", "-t", "evil", "-k", 1, "--json").stdout)["hits"][0]["value"].startswith("=")
    rows = csv.DictReader(io.StringIO(cli("search", "payload", "-t", "evil", "--csv").stdout))
    assert any(row["value"].startswith("'=HYPERLINK") for row in rows)
    assert "\x1b" not in cli("tail", "evil", "--from-start", "--limit", 2).stdout


def test_similar_takes_an_address_or_an_offset(cli: Callable[..., Result]) -> None:
    cli("append", "talk", "the pool is empty", "the pool is full", "good morning", "--wait")
    by_address = json.loads(cli("similar", "talk/0/0", "--json").stdout)
    assert by_address["hits"][0]["value"] == "the pool is full"
    assert json.loads(cli("similar", "talk", "--offset", 0, "--json").stdout)["hits"] == by_address["hits"]
    assert cli("similar", "talk").exit_code == 2


def test_patterns_are_a_table_with_counts_and_new_marks(cli: Callable[..., Result]) -> None:
    _ready(cli, "app", len(LINES))
    lines = cli("patterns", "app", "--new-since", "2026-11-20").stdout.splitlines()
    assert lines[0].split() == ["COUNT", "FIRST", "LAST", "LEVEL", "NEW", "PATTERN"]
    assert "NEW" in lines[1]
    assert "pool exhausted after <*> ms" in lines[1]
    assert cli("patterns", "app", "--csv").stdout.startswith("count,first_seen")
    assert "no patterns" in cli("patterns", "app", "--new-since", "2027-01-01").stderr


def test_timeline_draws_a_bar_for_each_bucket(cli: Callable[..., Result]) -> None:
    _ready(cli, "app", len(LINES))
    text = cli("timeline", "pool", "-t", "app", "--buckets", 6).stdout
    assert "2026-11-20T14:00:00Z" in text
    assert "█" in text
    assert "nothing here" not in cli("timeline", "nothing here", "-t", "app").stdout


def test_ask_cites_checked_quotes_with_their_addresses(cli: Callable[..., Result]) -> None:
    cli("append", "facts", "The deploy of payments changed the pool size from 20 to 8.", "Lunch is at noon.", "--wait")
    text = cli("ask", "What did the deploy of payments change about the pool size?", "-t", "facts").stdout
    assert "[1] facts/0/0" in text
    assert "from 20 to 8" in text
    assert "verified 1 of 1" in text
    streamed = cli("ask", "What did the deploy of payments change about the pool size?", "-t", "facts", "--stream").stdout
    assert "[1] facts/0/0" in streamed
    events = cli("ask", "What did the deploy of payments change?", "-t", "facts", "--jsonl").stdout.splitlines()
    assert json.loads(events[-1])["event"] == "done"
    answer = json.loads(cli("ask", "What did the deploy of payments change about the pool size?", "--json").stdout)
    assert answer["citations"][0]["verified"] is True


def test_tail_begins_with_the_last_records_and_filters(cli: Callable[..., Result]) -> None:
    cli("append", "stream", *[f"number {n}" for n in range(30)], "needle")
    last = cli("tail", "stream", "-n", 3, "--limit", 3, "--raw").stdout.splitlines()
    assert last == ["number 28", "number 29", "needle"]
    assert cli("tail", "stream", "needle", "--from-start", "--limit", 1, "--raw").stdout == "needle\n"
    assert cli("tail", "stream", "--since", "1h", "--limit", 1, "--raw").stdout == "number 0\n"


# ---------------------------------------------------------------------- topics, indexes, dead letters


def test_topics_are_made_described_changed_and_deleted(cli: Callable[..., Result]) -> None:
    made = cli(
        "topics", "create", "mine", "--partitions", 3, "--retention", "30d", "--no-embed", "--set", "chunk_chars=900", "--json"
    )
    config = json.loads(made.stdout)["config"]
    assert (config["partitions"], config["retention_s"], config["embedding_model"]) == (3, 2_592_000, "none")
    assert config["chunk_chars"] == 900
    assert cli("topics", "set", "mine", "--retention", "7d").exit_code == 0
    assert "604800" in cli("topics", "describe", "mine").stdout
    assert "mine" in cli("topics").stdout
    assert cli("topics", "set", "mine", "--set", "retentoin_s=3").exit_code == 2
    assert cli("topics", "delete", "mine", input="").exit_code == 2
    assert cli("topics", "delete", "mine", "--yes").exit_code == 0
    assert cli("topics", "describe", "mine").exit_code == 3


def test_meaning_search_is_switched_on_rebuilt_and_off(cli: Callable[..., Result]) -> None:
    cli("topics", "create", "plain", "--no-embed")
    cli("append", "plain", "some words", "--wait")
    assert json.loads(cli("index", "describe", "plain", "--json").stdout)["state"] == "off"
    assert cli("index", "create", "plain", "--model", "hash").exit_code == 0
    _ready(cli, "plain", 1)
    assert "hash" in cli("index", "describe", "plain").stdout
    assert cli("index", "rebuild", "plain").exit_code == 0
    assert cli("index", "delete", "plain", "--yes").exit_code == 0
    listed = {i["topic"]: i for i in json.loads(cli("index", "--json").stdout)}
    assert listed["plain"]["model"] is None


def test_dead_letters_are_listed_shown_replayed_and_dropped(cli: Callable[..., Result]) -> None:
    cli("topics", "create", "strict", "--set", "oversize=dead-letter")
    cli("append", "strict", "x" * 1_100_000)
    listed = json.loads(cli("dlq", "--topic", "strict", "--json").stdout)
    assert len(listed) == 1
    id = listed[0]["id"]
    assert "max_value_bytes" in cli("dlq", "show", id).stdout
    assert "strict" in cli("dlq").stdout
    assert cli("dlq", "replay", id).exit_code == 2
    assert cli("dlq", "drop").exit_code == 2
    assert cli("dlq", "drop", id).exit_code == 0
    assert cli("dlq", "show", id).exit_code == 3


def test_the_mcp_command_serves_over_standard_input(daemon: Daemon) -> None:
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
    }  # fmt: skip
    command = [*PROGRAM, "mcp", "--data", str(daemon.data)]
    with subprocess.Popen(
        command, env=dict(daemon.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(hello).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"]
        process.stdin.close()
        assert process.wait(WAIT_S) == 0
