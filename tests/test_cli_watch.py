"""`headwater watch`, run as people run it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import headwater
from headwater.cli.app import app
from serving import eventually, serving, settings_in


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving(settings_in(tmp_path)) as url:
        yield url


def call(url: str, *args: str) -> Result:
    return CliRunner().invoke(app, ["watch", *args, "--url", url])


def test_a_watch_is_added_waited_for_listed_and_removed(url: str, tmp_path: Path) -> None:
    with headwater.connect(url) as hw:
        hw.create_topic("t", passages="exact")
        made = call(url, "add", "payment", "failed", "-test", "--topics", "t", "--mode", "keyword", "--name", "p")
        assert (made.exit_code, made.stdout) == (0, "p\n")
        late = call(url, "wait", "p", "--timeout", "50ms")
        assert (late.exit_code, late.stdout) == (4, "")
        hw.append("t", ["payment failed \x1b[31m", "payment failed in a test", "payment failed; rm -rf $(pwd)"])
        eventually(lambda: hw.watch("p").fired == 2)
        shown = call(url, "wait", "p")
        assert shown.exit_code == 0
        assert [line.split()[0] for line in shown.stdout.splitlines()[::2]] == ["t/0/0", "t/0/2"]
        assert "\x1b" not in shown.stdout
        assert "cursor 2" in shown.stderr
        out = tmp_path / "seen"
        program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read() + chr(10))"
        lines = call(url, "wait", "p", "--cursor", "1", "--jsonl", "--exec", f'{sys.executable} -c "{program}"').stdout
        (hit,) = [json.loads(line) for line in lines.splitlines()]
        assert (hit["id"].partition("-")[2], hit["record"]["value"]) == ("2", "payment failed; rm -rf $(pwd)")
        assert json.loads(out.read_text())["address"] == "t/0/2"
        assert call(url, "wait", "p", "--new", "--timeout", "0.01").exit_code == 4
    (listed,) = json.loads(call(url, "list", "--json").stdout)
    assert (listed["name"], listed["fired"], listed["q"]) == ("p", 2, "payment failed -test")
    assert "payment failed -test in t" in call(url).stdout
    assert call(url, "rm", "p").exit_code == 0
    assert call(url, "rm", "p").exit_code == 3
    assert "no watches" in call(url, "list").stderr


def test_waiting_for_a_watch_that_expired_without_a_hit_is_no_success(url: str) -> None:
    with headwater.connect(url) as hw:
        hw.create_topic("t", passages="exact")
        call(url, "add", "payment", "--topics", "t", "--mode", "keyword", "--name", "p", "--ttl", "50ms")
        eventually(lambda: hw.watch("p").state == "expired")
    ended = call(url, "wait", "p")
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert "expired" in ended.stderr


def test_a_record_can_be_watched_for_and_counted(url: str) -> None:
    with headwater.connect(url) as hw:
        hw.append("t", ["disk full on node 7"], wait="searchable", timeout_s=240)
    made = call(url, "add", "--like", "t/0/0", "--more-than", "2", "--within", "10m", "--ttl", "1d", "--json")
    watch = json.loads(made.stdout)
    assert (watch["like"], watch["more_than"], watch["within_s"]) == ("t/0/0", 2, 600.0)
    assert "like t/0/0 more than 2 within 10 min in t" in call(url, "list").stdout
    assert call(url, "add").exit_code == 2
    assert call(url, "wait", "nobody").exit_code == 3
