"""`headwater ingest`: goes on where it was interrupted, whoever was, and lets no piece of input hold up the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater
from headwater.blocking import Headwater
from headwater.cli.progress import _spoken
from serving import answering, eventually, settings_in

PROGRAM = (sys.executable, "-m", "headwater.cli")
LINES = 24_000


class Place:
    """A data directory with a daemon that can be killed and started again."""

    def __init__(self, path: Path) -> None:
        self.settings = settings_in(path / "data")
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")},
            "HEADWATER_EMBEDDING_MODEL": "hash", "HEADWATER_DATA_DIR": str(path / "data"), "HEADWATER_SERVER_PORT": "0",
        }  # fmt: skip
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "headwater.daemon", "--data-dir", self.settings.data_dir, "--port", "0"]
        quiet = subprocess.DEVNULL
        self.daemon = subprocess.Popen(command, env=self.environment, stdin=quiet, stdout=quiet, stderr=quiet)
        answering(self.settings)

    def kill(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait(240)

    def command(self, *arguments: str) -> list[str]:
        return [*PROGRAM, *arguments]

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, capture_output=True, text=True, timeout=240, check=False, input=text
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*arguments), env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def connect(self) -> Headwater:
        runtime = answering(self.settings)
        return headwater.connect(runtime.url, runtime.token)

    def stored(self, topic: str) -> int:
        with self.connect() as hw:
            return next((t.records for t in hw.topics() if t.name == topic), 0)

    def values(self, topic: str) -> list[str]:
        with self.connect() as hw:
            found, cursor = [], None
            while True:
                page = hw.records(topic, limit=1000, cursor=cursor)
                found += [r.value for r in page.records]
                if (cursor := page.next_cursor) is None:
                    return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file that takes several requests."""
    file = tmp_path / "big.log"
    file.write_text("".join(f"worker {n} took order {n * 7} and said {'x' * 60}\n" for n in range(LINES)))
    return file


@pytest.mark.parametrize("killed", ["the command", "the command, by Ctrl+C", "the daemon"])
def test_a_load_that_is_killed_goes_on_where_it_stopped_and_stores_nothing_twice(place: Place, big: Path, killed: str) -> None:
    load = place.begin("ingest", "logs", str(big), "--json")
    eventually(lambda: load.poll() is not None or place.stored("logs") > 0)
    if killed == "the daemon":
        place.kill()
    else:
        load.send_signal(signal.SIGKILL if killed == "the command" else signal.SIGINT)
    told, said = load.communicate(timeout=240)
    if killed == "the daemon":
        assert load.returncode in (0, 3, 4)
        place.start()
    before = place.stored("logs")
    assert before > 0
    if killed == "the command, by Ctrl+C" and not told:  # it had not come to its end
        assert load.returncode == 130
        assert "goes on from there" in said
    again = json.loads(place.run("ingest", "logs", str(big), "--json").stdout)
    assert again["stored"] + again["duplicates"] == LINES
    assert again["duplicates"] >= before  # what was on its way at the kill may have been stored after the count
    assert place.values("logs") == big.read_text().splitlines()


def test_a_line_beyond_what_is_indexed_is_kept_and_one_beyond_a_request_is_set_aside(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "wide.log"
    file.write_text(f"first\n{'a' * 2_000_000}\nmiddle\n{'b' * 5_000_000}\nlast\n")
    done = place.run("ingest", "wide", str(file), "--json")
    assert done.returncode == 1
    counts = json.loads(done.stdout)
    assert (counts["stored"], counts["dead_letters"]) == (4, 1)
    (letter,) = json.loads(place.run("dlq", "--topic", "wide", "--json").stdout)
    assert "5,000,000 bytes is too large" in letter["reason"]
    assert "max_body_bytes" in letter["reason"]
    assert letter["source"].endswith(f"wide.log at {2_000_001 + 13}")
    assert [len(value) for value in place.values("wide")] == [5, 2_000_000, 6, 4]


def test_bad_rows_and_bad_json_lines_are_dead_letters_with_file_place_and_reason(place: Place, tmp_path: Path) -> None:
    table, lines = tmp_path / "some.csv", tmp_path / "some.jsonl"
    table.write_text("id,text\n1,one\n2,two,and,more\n3,three\n")
    lines.write_text('{"text": "four"}\n{"broken\n')
    done = place.run("ingest", "mixed", str(table), str(lines))
    assert done.returncode == 1
    assert "3 records stored in mixed, 2 dead letters" in done.stderr
    letters = json.loads(place.run("dlq", "--topic", "mixed", "--json").stdout)
    assert sorted(letter["source"].rsplit("/", 1)[1] for letter in letters) == ["some.csv at 14", "some.jsonl at 17"]
    piped = place.run("append", "mixed", "--jsonl", text='{"value": "five"}\nno json\n')
    assert piped.returncode == 1
    assert json.loads(place.run("dlq", "--topic", "mixed", "--json").stdout)[0]["payload"] == "no json"


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    step = _spoken(1000 << 10, True, every_s=10.0, clock=lambda: now[0])
    for now[0], done in ((1.0, 0), (11.0, 400 << 10), (12.0, 500 << 10)):
        step(done, 4400, "big.log")
    assert capsys.readouterr().err == "big.log: 4,400 records, 400.0 kB of 1000.0 kB, 400/s, 16 s left\n"
