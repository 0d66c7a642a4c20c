"""`headwater classify`, `extract` and `enrich`, run as people run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import headwater
from headwater.cli.app import app
from serving import serving, settings_in

PIPELINE = """
topics: [t]
output: o
steps:
  - classify: {labels: {disk: the disk is full, login: login failed}}
"""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving(settings_in(tmp_path / "data")) as url:
        yield url


def call(url: str | None, *args: str, input: str | None = None) -> Result:
    return CliRunner().invoke(app, [*args, *(("--url", url) if url else ())], input=input)


def test_texts_are_labelled_from_arguments_input_and_files(url: str, tmp_path: Path) -> None:
    shown = call(url, "classify", "the disk is full", "-l", "disk=disk full", "-l", "login")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[1].startswith("disk")
    assert "1 records by 1 decision, zero-shot" in shown.stderr
    file = tmp_path / "shots.csv"
    file.write_text("text,category\nthe disk is full,disk\nlogin failed,login\n", "utf-8")
    piped = call(url, "classify", "--examples", str(file), "--jsonl", input="login refused\n\n")
    assert json.loads(piped.stdout)["label"] == "login"
    assert call(url, "classify", "x", "-l", "a").exit_code == 2
    assert call(url, "classify", "x", "-l", "a", "-l", "b", "--method", "guess").exit_code == 2


def test_values_are_taken_out_by_patterns_and_by_schema(url: str, tmp_path: Path) -> None:
    shown = call(url, "extract", "order 4711 over 12.50 EUR", "-p", r"order=order (\d+)", "-p", r"amount=([\d.]+) EUR")
    assert json.loads(shown.stdout) == {"order": "4711", "amount": "12.50"}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "properties": {"ip": {"type": "string", "format": "ipv4"}}}), "utf-8")
    assert json.loads(call(url, "extract", "from 10.0.0.7", "--schema", str(file)).stdout) == {"ip": "10.0.0.7"}
    assert call(url, "extract", "x").exit_code == 2


def test_a_pipeline_is_tried_made_looked_into_stopped_and_deleted(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE, "utf-8")
    with headwater.connect(url) as hw:
        hw.create_topic("t", passages="exact")
        hw.append("t", ["the disk is full", "login failed"], wait="searchable", timeout_s=240)
        tried = call(url, "enrich", "backtest", "p", "--config", str(file))
        assert "LABEL" in tried.stdout
        assert "2 records by 2 passages" in tried.stderr
        assert call(url, "enrich", "create", "p", "--config", str(file), "--wait").stdout == "p\n"
        assert hw.pipeline("p").records == 2
    assert "classify" in call(url, "enrich", "status", "p").stdout
    assert json.loads(call(url, "enrich", "status", "--json").stdout)[0]["written"] == 2
    assert "label=login" in call(url, "enrich", "trace", "p", "t/0/1").stdout
    assert "label=disk" in call(url, "enrich", "run", "p", "disk full").stdout
    assert "is stopped" in call(url, "enrich", "stop", "p").stderr
    assert "is running" in call(url, "enrich", "start", "p").stderr
    assert call(url, "enrich", "delete", "p", "--yes").exit_code == 0
    assert call(url, "enrich", "delete", "p", "--yes").exit_code == 3
    assert "no pipelines" in call(url, "enrich", "status").stderr


def test_a_mistake_in_a_pipeline_is_told_with_its_line(url: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.replace("classify", "clasify"), "utf-8")
    wrong = call(url, "enrich", "create", "p", "--config", str(file))
    assert wrong.exit_code == 2
    assert "line 5" in wrong.stderr
    assert "did you mean 'classify'" in wrong.stderr


def test_the_schema_is_printed_without_a_daemon() -> None:
    assert json.loads(call(None, "enrich", "schema").stdout)["title"] == "Headwater pipeline"
