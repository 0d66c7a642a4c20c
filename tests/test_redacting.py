"""A topic that redacts: what it takes out is nowhere, not on the disk, not at a provider of embeddings, and search works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

import headwater
from fake_openai import FakeOpenAI
from headwater.batches import Fault
from headwater.blocking import Headwater
from headwater.cli.app import app
from headwater.config import EmbeddingSettings, Settings, load
from headwater.engine import Engine
from headwater.errors import ConfigError, HeadwaterError, UsageError
from headwater.records import Draft
from headwater.redacting import Redacting
from headwater.redaction import Redactor
from serving import eventually, serving, settings_in

KEY, MAIL, CARD = "AKIAIOSFODNN7EXAMPLE", "ann.smith@example.org", "4111111111111111"
SECRETS = (KEY, MAIL, CARD, "hunter2hunter2")
FULL: list[Any] = [
    f"2026-11-21T14:05:00Z ERROR upload to the bucket failed with {KEY}",
    {
        "value": f"refund the card {CARD} of the customer",
        "key": MAIL,
        "attributes": {"password": "hunter2hunter2", "from": MAIL},
    },
    {"value": orjson.dumps({"level": "warn", "msg": "sign-in", "user": MAIL, "card": int(CARD)}).decode()},
    {"value": '{"msg": "escaped", "user": "ann.smith\\u0040example.org"}'},
]


@pytest.fixture(params=["open", "connect"])
def hw(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Headwater]:
    if request.param == "open":
        with headwater.open(tmp_path, embedding={"model": "hash"}) as opened:
            yield opened
    else:
        with serving(settings_in(tmp_path)) as url, headwater.connect(url) as connected:
            yield connected


def clear(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def texts(hw: Headwater, topic: str) -> list[str]:
    return [record.value for record in hw.records(topic).records]


def test_what_a_topic_takes_out_is_in_no_record_hit_or_pattern_and_search_finds_the_rest(hw: Headwater) -> None:
    hw.create_topic("t", redact=["secrets", "personal"])
    assert hw.append("t", FULL, wait="searchable", timeout_s=240).records
    page = hw.records("t").records
    assert not clear(str(page))
    assert page[0].value.endswith("failed with [aws-key]")
    assert page[1].attributes == {"password": "[password]", "from": "[email]"}
    assert page[2].attributes["level"] == "warn"
    assert orjson.loads(page[2].value) == {"level": "warn", "msg": "sign-in", "user": "[email]", "card": "[card]"}
    assert orjson.loads(page[3].value)["user"] == "[email]"
    for q in ("upload bucket failed", "refund card customer", "sign-in"):
        reply = hw.search(q, topics=["t"])
        assert reply.hits
        assert not clear(str(reply))
    assert hw.search("refund", topics=["t"], mode="keyword").hits[0].offset == 1
    for secret in SECRETS:
        assert not hw.search(f'"{secret}"', topics=["t"], mode="keyword").hits
    assert not clear(str(hw.patterns("t")))


def test_nothing_of_it_reaches_the_disk(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
        hw.create_topic("t", redact=["secrets", "personal"])
        hw.append("t", FULL, wait="searchable", timeout_s=240)
        hw.search(f"who paid with {CARD}", topics=["t"])  # queries are kept too, to judge another model by
        hw.append("plain", ["the canary Zq81kd is stored as it is"], wait="searchable", timeout_s=240)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    held = b"".join(path.read_bytes() for path in files)
    assert b"Zq81kd" in held  # the search below can find what is there
    assert [secret for secret in SECRETS if secret.encode() in held] == []


def test_a_provider_of_embeddings_never_sees_it_neither_in_passages_nor_in_queries(tmp_path: Path) -> None:
    async def check() -> None:
        async with FakeOpenAI() as server:
            model = EmbeddingSettings(model="openai:m", base_url=server.url, api_key=SecretStr("k"))
            async with Engine(Settings(data_dir=str(tmp_path), embedding=model)) as engine:
                await engine.create_topic("t", redact="secrets,personal")
                await engine.append("t", FULL, wait="searchable", timeout_s=240)
                assert (await engine.search(f"a refund to {MAIL}", topics=["t"], mode="semantic")).hits
                batch = await engine.search_batch([{"q": f"key {KEY}", "topics": ["t"], "mode": "semantic"}])
                assert not isinstance(batch[0], HeadwaterError)
                await engine.add_watch(f"payments with {CARD}", topics=["t"])
                await engine.append("t", ["one more"], wait="searchable", timeout_s=240)
                await engine.append("plain", [f"here it is: {KEY}"], wait="searchable", timeout_s=240)
            sent = [text for request in server.requests for text in request.body["input"]]
            assert len(sent) >= 6
            assert clear(str(sent)) == [KEY]  # of the topic that does not redact: the search can find something
            assert sum(KEY in text for text in sent) == 1
            assert any("[email]" in text for text in sent)

    asyncio.run(check())


def test_a_key_gets_a_name_of_its_own_that_stays_the_same(hw: Headwater) -> None:
    hw.create_topic("t", redact=["personal"], partitions=4)
    entries = [{"value": f"{n}", "key": key} for n, key in enumerate([MAIL, "bob@example.org", MAIL, "order-7"])]
    hw.append("t", entries, wait="searchable", timeout_s=240)
    keys = {record.value: record.key for record in hw.records("t").records}
    assert keys["0"] == keys["2"] != keys["1"]
    assert str(keys["0"]).startswith("[email:")
    assert keys["3"] == "order-7"
    places = {r.value: r.partition for r in hw.records("t").records}
    assert places["0"] == places["2"]
    assert hw.delete_records("t", key=MAIL).deleted == 2  # who knows the key can have its records deleted
    assert sorted(texts(hw, "t")) == ["1", "3"]


def test_the_same_key_has_another_name_in_another_data_directory() -> None:
    one, other = Redacting(["personal"], b"1" * 32), Redacting(["personal"], b"2" * 32)
    assert one.key(MAIL) == one.key(MAIL) != other.key(MAIL)
    assert one.key(one.key(MAIL)) == one.key(MAIL)


def test_changed_settings_hold_from_the_next_record_on(hw: Headwater) -> None:
    hw.append("t", [f"a {KEY}"], wait="searchable", timeout_s=240)
    assert hw.set_topic("t", redact=["secrets"]).config["redact"] in (("secrets",), ["secrets"])
    hw.append("t", [f"b {KEY}"])
    hw.set_topic("t", redact=[])
    hw.append("t", [f"c {KEY}"], wait="searchable", timeout_s=240)
    assert texts(hw, "t") == [f"a {KEY}", "b [aws-key]", f"c {KEY}"]


def test_it_holds_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        with headwater.open(tmp_path, embedding={"model": "hash"}) as hw:
            hw.create_topic("t", redact=["secrets", r"employee=EMP-\d{6}"])
            hw.append("t", [{"value": f"EMP-123456 used {KEY}", "key": "EMP-123456"}])
            seen = hw.records("t").records
    assert {record.value for record in seen} == {"[employee] used [aws-key]"}
    assert len({record.key for record in seen}) == 1


def test_what_a_source_sets_aside_is_redacted_before_it_is_cut(hw: Headwater) -> None:
    hw.create_topic("t", redact=["secrets"])
    fault = Fault(0, f"no record: {KEY}", "x" * 1990 + f" {KEY}")
    hw.deliver("t", "s", [Draft(f"fine {KEY}", position=1)], state={"at": 1}, faults=[fault])
    (letter,) = hw.dead_letters("t")
    assert not clear(str(letter))
    assert letter.reason == "no record: [aws-key]"
    assert texts(hw, "t") == ["fine [aws-key]"]


def test_a_value_too_large_is_set_aside_redacted(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "none"}, ingest={"max_value_bytes": 100}) as hw:
        hw.create_topic("t", redact=["secrets"], oversize="dead-letter")
        hw.append("t", [f"{KEY} " + "x" * 200])
        assert "[aws-key]" in hw.dead_letters("t")[0].payload


def test_a_topic_that_redacts_does_so_whoever_writes_to_it(hw: Headwater) -> None:
    hw.create_topic("out", redact=["secrets"])
    hw.append("in", [f"a {KEY}"], wait="searchable", timeout_s=240)
    hw.create_pipeline("p", {"topics": ["in"], "output": "out", "steps": [{"stop": "nothing"}]})
    eventually(lambda: hw.pipeline("p").records == 1)
    assert texts(hw, "out") == ["a [aws-key]"]


def test_a_document_that_is_replaced_goes_though_its_key_is_hidden(tmp_path: Path) -> None:
    with headwater.open(tmp_path, embedding={"model": "none"}) as hw:
        hw.create_topic("docs", redact=["personal"], versions_kept=0)
        for n in (1, 2):
            state = {"latest": [f"{MAIL}.md"]}
            hw.deliver("docs", "dir", [Draft(f"version {n}", f"{MAIL}.md", position=n)], stream="dir#1", state=state)
        assert texts(hw, "docs") == ["version 2"]


@pytest.mark.parametrize(
    ("redact", "says"),
    [
        (["secretz"], "no kind of secret"),
        (["my id=[0-9]+"], "cannot name a pattern"),
        (["id=([0-9]+)+x"], "repeats a repetition"),
        (["id=["], "not a regular expression"),
    ],
)
def test_what_it_cannot_take_out_is_refused(hw: Headwater, redact: list[str], says: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=says):
        hw.create_topic("t", redact=redact)


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from([KEY, MAIL, CARD, "password=hunter2hunter2"]))
def test_a_secret_between_blanks_never_stays_and_json_stays_json(before: str, after: str, secret: str) -> None:
    redactor = Redactor()
    whole = f"{before} {secret} {after}"
    assert secret not in redactor.text(whole)
    inside = orjson.loads(redactor.text(orjson.dumps({"a": whole, "n": [whole]}).decode()))
    assert not clear(str(inside))
    assert set(inside) == {"a", "n"}


def test_it_is_switched_on_and_off_by_command_and_by_the_settings_file(tmp_path: Path) -> None:
    def call(*args: str) -> Result:
        return CliRunner().invoke(app, [*args, "--url", url])

    with serving(settings_in(tmp_path / "data")) as url:
        shown = call("topics", "create", "t", "--redact", r"secrets,employee=EMP-\d+")
        assert shown.exit_code == 0
        assert r"secrets, employee=EMP-\d+" in shown.stdout
        assert call("append", "t", f"EMP-7 has {KEY}").exit_code == 0
        ended = call("topics", "set", "t", "--redact", "")
        assert "1 record from before stay" in " ".join(ended.stderr.split())
        assert json.loads(call("topics", "describe", "t", "--json").stdout)["config"]["redact"] == []
        wrong = call("topics", "set", "t", "--redact", "secretz")
        assert wrong.exit_code == 2
        assert "no kind of secret" in wrong.stderr
        with headwater.connect(url) as hw:
            assert texts(hw, "t") == ["[employee] has [aws-key]"]
    file = tmp_path / "headwater.toml"
    file.write_text('[topics.t]\nredact = ["secrets"]\n[topics.u]\nredact = "personal"\n', "utf-8")
    loaded = load(file, environment={}).settings
    assert [loaded.topics[name].redact for name in "tu"] == [("secrets",), ("personal",)]
