"""`headwater delete`, `topics purge` and `search --live`: what they print, ask and refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from headwater.cli.app import app
from serving import eventually, serving, settings_in

Cli = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with serving(settings_in(tmp_path)) as at:
        records = [{"key": f"k{n % 2}", "value": f"payment {n} of a kind"} for n in range(6)]
        httpx.post(f"{at}/v1/topics", json={"name": "t", "passages": "exact"}).raise_for_status()
        httpx.post(f"{at}/v1/topics/t/records?wait=searchable&timeout_s=240", json={"records": records}).raise_for_status()
        yield at


@pytest.fixture
def cli(url: str) -> Cli:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--url", url])

    return run


def left(url: str) -> int:
    return int(httpx.get(f"{url}/v1/topics/t").json()["records"])


def test_records_are_deleted_by_address_key_and_query_after_they_were_counted(cli: Cli, url: str) -> None:
    done = cli("delete", "t", "--key", "k0", "--dry-run")
    assert (done.exit_code, done.stdout, left(url)) == (0, "", 6)
    assert "3 records of t would be deleted" in done.stderr
    done = cli("delete", "t", "t/0/0", "2", "--yes")
    assert (done.exit_code, left(url)) == (0, 4)
    assert "deleted 2 records of t" in done.stderr
    done = cli("delete", "t", "--key", "k1", "--yes", "--json")
    assert json.loads(done.stdout) == {"topic": "t", "matched": 3, "deleted": 3, "dry_run": False}
    done = cli("delete", "t", "--q", "payment 4", "--yes")
    assert (done.exit_code, left(url)) == (0, 0)
    assert "no record of t matches" in cli("delete", "t", "--q", "payment", "--yes").stderr


def test_nothing_is_deleted_without_a_yes_or_with_a_wrong_choice(cli: Cli, url: str) -> None:
    wrong = [
        ("--key", "k0"), (), ("0", "--key", "k0", "--yes"), ("u/0/1", "--yes"), ("nonsense", "--yes"), ("--q", "", "--yes"),
        ("--q", "***", "--yes"),
    ]  # fmt: skip
    for words in wrong:
        assert cli("delete", "t", *words).exit_code == 2, words
    assert cli("delete", "t", "0", "77", "--yes").exit_code == 3
    assert left(url) == 6


def test_a_purge_says_what_went_and_where_a_text_still_is(cli: Cli, url: str, tmp_path: Path) -> None:
    cli("delete", "t", "--key", "k0", "--yes")
    done = cli("topics", "purge", "t", "--yes", "--marker", "payment 0 of a kind", "--json")
    report = json.loads(done.stdout)
    assert (done.exit_code, report["found"]) == (0, {"payment 0 of a kind": []})
    done = cli("topics", "purge", "t", "--yes", "--marker", "payment 1 of a kind")
    assert done.exit_code == 1
    assert "still found in" in done.stdout
    assert "log.db" in done.stdout
    assert "backups" in done.stdout
    assert cli("topics", "purge", "t").exit_code == 2
    assert cli("topics", "purge", "t", "--yes", "--marker", "abc").exit_code == 2
    assert cli("topics", "purge", "nowhere", "--yes").exit_code == 3


def test_a_live_search_prints_hits_as_they_come(cli: Cli, url: str) -> None:
    done: list[Result] = []
    reader = threading.Thread(
        target=lambda: done.append(cli("search", "payment came", "--live", "--limit", "2", "--jsonl", "--mode", "keyword"))
    )
    reader.start()

    def came() -> bool:
        httpx.post(f"{url}/v1/topics/t/records", json={"records": [{"value": "a payment came"}, {"value": "or not"}]})
        return bool(done)

    eventually(came)
    reader.join(240)
    assert done[0].exit_code == 0
    assert [json.loads(line)["value"] for line in done[0].stdout.splitlines()] == ["a payment came"] * 2
    for wrong in (("--live", "--since", "1h"), ("--live", "--explain"), ("--limit", "3")):
        assert cli("search", "x", *wrong).exit_code == 2
