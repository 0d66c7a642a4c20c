"""`headwater demo` shows what it promises, checks it against the truth, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

import headwater
from headwater.cli.app import app
from headwater.demo import incident, show

PROGRAM = (sys.executable, "-m", "headwater.cli", "demo")
WAIT_S = 240.0
START = datetime(2026, 11, 20, 12, 55, tzinfo=UTC)


def _environment(temporary: Path, **settings: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    return {**plain, "TMPDIR": str(temporary), **settings}


def _run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], env=dict(environment), capture_output=True, text=True, timeout=800, check=False
    )


def test_the_demo_finds_what_is_there_says_so_and_can_be_kept(tmp_path: Path) -> None:
    done = _run(_environment(tmp_path), "--lines", "200", "--keep")
    (directory,) = tmp_path.glob("headwater-demo-*")
    pid = json.loads((directory / "runtime.json").read_text())["pid"]
    try:
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        for heading in (
            "1. Topics",
            "2. Search by meaning",
            "3. What is new since the 14:05 deploy",
            "4. The question",
            "5. Questions",
        ):
            assert heading in done.stdout
        assert re.search(r"^logs +200 ", done.stdout, re.MULTILINE)
        for cause in incident.CAUSES:
            assert cause in done.stdout
        assert "By keyword alone 0 of 4 are found" in done.stdout
        assert "6 of 6 questions answered rightly" in done.stdout
        verified, citations = re.search(r"(\d+) of (\d+) citations verified", done.stdout).groups()  # type: ignore[union-attr]
        assert verified == citations
        assert f"mcp --data {directory}" in done.stdout
        assert f"kill {pid}" in done.stdout
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + WAIT_S
        while (directory / "runtime.json").exists() and time.monotonic() < end:
            time.sleep(0.02)
        shutil.rmtree(directory, ignore_errors=True)


def test_a_search_that_does_not_find_what_is_there_is_seen_to_fail(capsys: pytest.CaptureFixture[str]) -> None:
    """The model `hash` knows no meaning, so what only meaning finds is not found."""
    checks = show.Checks()
    with headwater.open(headwater.MEMORY, embedding={"model": "hash"}) as verbs:
        for topic in incident.TOPICS:
            drafts = [draft for name, draft in incident.incident(START, lines=100) if name == topic]
            verbs.append(topic, drafts, wait="searchable", timeout_s=WAIT_S)
        show._searches(verbs, checks)
    assert not show._verdict(checks, 1.0)
    assert "FAILED: search " in capsys.readouterr().out


def test_a_demo_whose_checks_fail_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "run", lambda **_: False)
    assert CliRunner().invoke(app, ["demo"]).exit_code == 1


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = _environment(tmp_path, HEADWATER_EMBEDDING_MODEL="hash")
    with subprocess.Popen([*PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"a daemon of its own" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_logs_are_chosen_small_first_within_bounds(tmp_path: Path) -> None:
    for name, size in (("b.log", 200), ("a.log", 100), ("empty.log", 0), ("other.txt", 50), ("huge.log", 5 << 20)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "folder.log").mkdir()
    assert [path.name for path in show.log_files(tmp_path)] == ["a.log", "b.log"]
    assert show.log_files(tmp_path / "none") == []


def test_documents_are_those_of_a_checkout(tmp_path: Path) -> None:
    assert show.documents(tmp_path) == []
    (tmp_path / "docs").mkdir()
    for name in ("pyproject.toml", "README.md", "docs/b.md", "docs/a.md", "docs/c.txt", "docs/tutorial.md"):
        (tmp_path / name).write_text("text")
    assert [path.name for path in show.documents(tmp_path)] == ["README.md", "a.md", "b.md"]
