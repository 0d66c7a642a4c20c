"""Bodies that are not quite what they should be: bytes that are no text, packed ones; and what a topic takes along."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import httpx

import headwater
from headwater.engine import Engine
from headwater.log.store import Origin
from headwater.records import Draft
from serving import serving, settings_in


def test_a_byte_that_is_no_utf8_costs_a_letter_and_is_flagged(tmp_path: Path) -> None:
    bad = b'{"value": "the caf\xe9 is closed", "key": "k"}'
    with serving(settings_in(tmp_path)) as url, headwater.connect(url) as hw:
        reply = httpx.post(
            f"{url}/v1/topics/t/records", content=b'{"value": "fine"}\n' + bad + b"\n",
            headers={"content-type": "application/x-ndjson"},
        )  # fmt: skip
        assert reply.status_code == 201, reply.text
        fine, odd = hw.records("t").records
        assert "invalid_utf8" not in fine.attributes
        assert (odd.value, odd.key, odd.attributes["invalid_utf8"]) == ("the caf\ufffd is closed", "k", True)
        hw.append("t", ["one more"], wait="searchable", timeout_s=60)
        assert [hit.address for hit in hw.search("invalid_utf8:true", topics=["t"])] == [odd.address]


def test_the_bytes_that_were_replaced_are_kept(tmp_path: Path) -> None:
    async def story() -> bytes:
        async with Engine(settings_in(tmp_path), version="test") as engine:
            await engine.append("t", [Draft("a \ufffd", raw=b"a \xff"), Draft("whole", raw=b"{whole}")])
            records = (await engine.records("t")).records
            assert [r.attributes.get("invalid_utf8") for r in records] == [True, None]
            with engine.log.reading() as db:
                return bytes(db.execute("SELECT raw FROM record ORDER BY id LIMIT 1").get)

    assert asyncio.run(story()) == b"a \xff"


def test_a_packed_body_is_refused_with_a_word_on_how_to_send_it(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path)) as url:
        for path in ("/v1/topics/t/records", "/v1/search"):
            headers = {"content-type": "application/json", "content-encoding": "gzip"}
            reply = httpx.post(url + path, content=gzip.compress(b'{"records": [], "q": "x"}'), headers=headers)
            assert (reply.status_code, reply.headers["content-type"]) == (415, "application/problem+json")
            assert "without Content-Encoding" in reply.json()["detail"]
        plain = httpx.post(f"{url}/v1/topics/t/records", json={"records": ["x"]}, headers={"content-encoding": "identity"})
        assert plain.status_code == 201


def test_a_deleted_topic_takes_the_places_of_its_sources_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with Engine(settings_in(tmp_path), version="test") as engine:
            for topic, name in (
                ("a", "tail:a#1:x"),
                ("b", "tail:b"),
            ):
                await engine.append(topic, [Draft("x", position=0)], origin=Origin(f"{name}#7", name, {"at": 1}))
                await engine.deliver(topic, name, [Draft("y", position=1)], stream=f"{name}#7", state={"at": 2})
            id = engine.log.topic("a").id
            assert engine.log.source_state(f"tail:a#1:x@{id}") == {"at": 2}
            await engine.delete_topic("a")
            assert engine.log.source_state("tail:a#1:x") is None
            assert engine.log.source_state(f"tail:a#1:x@{id}") is None
            assert engine.log.source_state("tail:b") == {"at": 1}

    asyncio.run(story())
