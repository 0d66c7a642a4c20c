"""`headwater doctor` and `config`, and the forms of output: what needs no daemon."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headwater.cli import output
from headwater.cli.app import app
from headwater.cli.config import template
from headwater.cli.doctor import examine
from headwater.config import EmbeddingSettings, Settings, load
from headwater.log.ownership import Ownership


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in this process, with an empty data directory."""
    for name in [n for n in os.environ if n.startswith("HEADWATER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADWATER_DATA_DIR", str(tmp_path / "data"))
    runner = CliRunner()
    return lambda *arguments, **options: runner.invoke(app, [str(a) for a in arguments], **options)


def test_doctor_ends_with_ready_or_with_the_command_that_mends(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_SERVER_PORT", "0")
    monkeypatch.setenv("HEADWATER_EMBEDDING_MODEL", "hash")
    well = cli("doctor")
    assert (well.exit_code, well.stdout.splitlines()[-1]) == (0, "ready")
    assert "none runs; port" in well.stdout
    monkeypatch.setenv("HEADWATER_EMBEDDING_MODEL", "no-such-model")
    ill = cli("doctor")
    assert (ill.exit_code, ill.stdout.splitlines()[-1]) == (1, "export HEADWATER_EMBEDDING_MODEL=bge-small")
    assert json.loads(cli("doctor", "--json").stdout)["ready"] is False


def test_doctor_sees_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(data_dir=str(tmp_path / "file"), embedding=EmbeddingSettings(model="none"))
    findings = {f.check: f for f in examine(settings)}
    assert not findings["data directory"].ok
    assert findings["data directory"].mend


def test_doctor_names_the_process_that_holds_the_directory_and_does_not_answer(tmp_path: Path) -> None:
    owner = Ownership(tmp_path)
    try:
        settings = Settings(data_dir=str(tmp_path), embedding=EmbeddingSettings(model="none"))
        found = next(f for f in examine(settings) if f.check == "daemon")
    finally:
        owner.release()
    assert (found.ok, found.mend) == (False, f"kill {os.getpid()}")


def test_config_says_where_each_value_comes_from_and_masks_secrets(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text("[server]\nport = 9000\n")
    monkeypatch.setenv("HEADWATER_EMBEDDING_API_KEY", "canary-key")
    rows = {r["name"]: r for r in json.loads(cli("config", "show", "--config", file, "--json").stdout)}
    assert (rows["server.port"]["value"], rows["server.port"]["origin"]) == (9000, f"file {file}")
    assert rows["embedding.api_key"]["value"] == "********"
    assert "HEADWATER_EMBEDDING_API_KEY" in rows["embedding.api_key"]["origin"]
    assert "canary-key" not in cli("config", "show").stdout
    assert cli("config", "validate", file).exit_code == 0
    file.write_text("[server]\nprot = 9000\n")
    wrong = cli("config", "validate", file)
    assert wrong.exit_code == 2
    assert "server.port" in wrong.stderr


def test_the_settings_file_that_init_writes_changes_nothing_and_names_every_setting(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "headwater.toml"
    assert cli("config", "init", file).exit_code == 0
    assert cli("config", "init", file).exit_code == 2
    assert load(file, environment={}).settings == Settings()
    opened = "\n".join(
        line.removeprefix("# ") if " = " in line and line[2:3].islower() else line for line in template().split("\n")
    )
    used = opened.replace("# [topics.logs]", "[topics.logs]").replace("# [[sources]]", "[[sources]]")
    file.write_text("\n".join(line for line in used.split("\n") if not line.startswith("api_key")))
    settings = load(file, environment={"HEADWATER_KEY": "k"}).settings
    assert [source.type for source in settings.sources] == ["path", "syslog", "otlp", "webhook", "kafka", "nats"]
    assert settings.server == Settings().server
    assert list(settings.topics) == ["logs"]


def test_columns_are_cut_visibly_and_wide_characters_counted() -> None:
    assert output.clip("abcdef", 4) == "abc…"
    assert output.clip("日本語", 5) == "日本…"
    assert output.clip("abc", 3) == "abc"
    assert output.line_of("a\nb\x1b[0m") == "a⏎b\\x1b[0m"
    assert output.table(("A", "B"), [["1", "x"], ["200", "y"]], right=(0,)) == ["  A  B", "  1  x", "200  y"]


def test_json_escapes_what_is_not_printable_and_stays_the_same_json() -> None:
    value = {"a": "é \u202e \U000e0041 \x1b \x7f 😀"}
    text = output.json_text(value)
    assert json.loads(text) == value
    assert text.isprintable()
