"""`headwater sources`, against an API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headwater.cli.app import app
from serving import serving, settings_in

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with serving(settings_in(tmp_path / "data")) as url:
        yield lambda *words: CliRunner().invoke(app, [*words, "--url", url])


def test_sources_are_added_listed_shown_paused_resumed_and_removed(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("2026-03-01 10:00:00 INFO one\n")
    assert "no sources" in cli("sources").stderr
    assert cli("sources", "add", str(log), "--topic", "logs").exit_code == 0
    assert "edge" in cli("sources", "add", "syslog", "--name", "edge", "--set", "port=0", "--set", "transport=udp").stdout
    lines = cli("sources").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["SOURCE", str(log), "edge"]
    assert json.loads(cli("sources", "pause", "edge", "--json").stdout)[0]["paused"] is True
    assert "paused" in cli("sources", "show", "edge").stdout
    assert cli("sources", "resume", "edge").exit_code == 0
    rows = cli("sources", "list", "--csv").stdout.splitlines()
    assert rows[0].startswith("name,kind,topic,state")
    assert len(rows) == 3
    assert "records stay" in cli("sources", "remove", str(log)).stderr
    assert [json.loads(line)["entry"] for line in cli("sources", "--jsonl").stdout.splitlines()] == ["edge"]


def test_what_is_wrong_is_said_with_the_exit_code_of_its_kind(cli: Cli) -> None:
    for words, code, said in (
        (("add", "syslog", "--set", "prot=1"), 2, "did you mean 'port'"),
        (("add", "webhook", "--name", "w", "--set", "secret=plain"), 2, "must be a reference"),
        (("add", "nowhere.log"), 3, "there is no"),
        (("pause", "nobody"), 3, "headwater sources"),
        (("remove", "nobody"), 3, "headwater sources"),
        (("show", "nobody"), 3, "headwater sources"),
    ):
        done = cli("sources", *words)
        assert (done.exit_code, said in done.stderr) == (code, True), (words, done.stderr)
