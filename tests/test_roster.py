"""Sources are listed, added, paused, resumed and removed while the daemon runs, and are the same after a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import brokers
import headwater
from headwater.config import SecretStr, ServerSettings, load, source_settings
from headwater.errors import ConfigError, ConflictError, NotFoundError, UsageError
from headwater.records import SourceInfo
from headwater.source_settings import KafkaSettings, NatsSettings, OtlpSettings, SourceSettings, SyslogSettings
from headwater.sourcing import of_broker
from serving import answering, eventually, settings_in
from sources_api import running, until

# ---------------------------------------------------------------------- settings


def test_the_settings_of_each_kind_are_typed_and_wrong_ones_are_named() -> None:
    made = source_settings({"type": "syslog", "port": "6514", "transport": "tcp"}, {})
    assert made == SyslogSettings(port=6514, transport="tcp")
    assert source_settings({"path": "/var/log/x.log"}, {}) == SourceSettings(path="/var/log/x.log")
    hook = source_settings({"type": "webhook", "name": "gh", "kind": "github", "secret": "${GH}"}, {"GH": "s3cret"})
    assert "s3cret" not in repr(hook)
    for entry, message in (
        ({"type": "syslog", "prot": 1}, "unknown setting 'prot' of a syslog source; did you mean 'port'"),
        ({"type": "sylog"}, "type must be one of path, syslog, otlp, webhook, kafka, nats"),
        ({"type": "syslog", "port": 70_000}, "port must be between"),
        ({"type": "syslog", "topic": "a b"}, "'a b' is not a topic's name"),
        ({"type": "webhook", "name": "gh", "secret": "s3cret"}, "secret must be a reference"),
        ({"type": "webhook", "name": "gh"}, "needs a secret"),
        ({"type": "webhook", "secret": "${GH}"}, "needs a name"),
        ({"type": "webhook", "name": "gh", "secret": "${NONE}"}, "NONE is not set"),
        ({"type": "kafka"}, "needs topics"),
        ({"type": "kafka", "topics": ["^or(ders"]}, "no pattern of Kafka topics"),
        ({"type": "kafka", "topics": ["orders"], "servers": "kafka://k:9092"}, "host:port, with commas"),
        ({"type": "nats"}, "needs stream"),
        ({}, "needs a path"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            source_settings(entry, {"GH": "x"})
        assert "s3cret" not in str(caught.value)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text('[[sources]]\ntype = "syslog"\n[[sources]]\ntype = "syslog"\nport = 6514\n')
    with pytest.raises(ConfigError, match="two sources are named 'syslog'"):
        load(file, environment={})
    file.write_text('[[sources]]\ntype = "syslog"\n[[sources]]\ntype = "syslog"\nname = "other"\nport = 6514\n')
    assert [s.name for s in load(file, environment={}).settings.sources] == ["syslog", "other"]
    file.write_text('[sources]\ntype = "syslog"\n')
    with pytest.raises(ConfigError, match="each must be a table"):
        load(file, environment={})


def test_a_broker_of_a_source_added_live_gets_no_other_credentials_than_those_meant_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("confluent_kafka")
    pytest.importorskip("nats")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "of the settings")
    monkeypatch.setenv("SOURCE_KAFKA_SASL_PASSWORD", "of live ones")
    settings = KafkaSettings(topics=("a",), properties=("client.id=x",), password=SecretStr("p"), username="u")
    mine, live = of_broker(settings, "t", live=False), of_broker(KafkaSettings(topics=("a",)), "t", live=True)
    assert (mine.config["client.id"], mine.config["sasl.password"]) == ("x", "p")  # type: ignore[attr-defined]
    assert live.config["sasl.password"] == "of live ones"  # type: ignore[attr-defined]
    assert of_broker(NatsSettings(stream="S", subjects=("a.*",)), "t", live=True).topic == "t"


# ---------------------------------------------------------------------- in one process


def named(found: list[SourceInfo]) -> dict[str, SourceInfo]:
    return {source.entry: source for source in found}


def test_a_file_is_added_paused_resumed_and_removed_and_goes_on_where_it_was(tmp_path: Path) -> None:
    async def check() -> None:
        log = tmp_path / "app.log"
        log.write_text("2026-03-01 10:00:00 INFO one\n")
        async with running(tmp_path / "data") as (engine, _):
            await engine.add_source(path=str(log), topic="logs", name="app")

            async def stored(count: int) -> bool:
                return any(t.records == count for t in await engine.topics())

            await until(lambda: stored(1))
            (source,) = await engine.sources()
            assert (source.entry, source.origin, source.kind, source.topic) == ("app", "live", "file", "logs")
            (paused,) = await engine.pause_source("app")
            assert (paused.state, paused.paused) == ("paused", True)
            with log.open("a") as file:
                file.write("2026-03-01 10:00:01 INFO two\n")
            await asyncio.sleep(0.3)
            assert await stored(1), "nothing is read while it is paused"
            await engine.resume_source(source.name)  # by the name of the running source, too
            await until(lambda: stored(2))
            await engine.remove_source("app")
            assert await engine.sources() == []
            with log.open("a") as file:
                file.write("2026-03-01 10:00:02 INFO three\n")
            await engine.add_source(path=str(log), topic="logs")
            await until(lambda: stored(3))
            assert [r.value.split()[-1] for r in (await engine.records("logs")).records] == ["one", "two", "three"]

    asyncio.run(check())


def test_what_cannot_be_added_or_removed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / ".hidden")

    async def check() -> None:
        async with running(tmp_path / "data", SyslogSettings(port=0)) as (engine, _):
            for error, message, given in (
                (ConflictError, "there is a source 'syslog' already", {"type": "syslog"}),
                (ConfigError, "begin with SOURCE_", {"type": "webhook", "name": "w", "secret": "${OTHER}"}),
                (ConfigError, "begin with SOURCE_", {"type": "syslog", "name": "w", "topic": "${OTHER}"}),
                (ConfigError, "SOURCE_NONE is not set", {"type": "webhook", "name": "w", "secret": "${SOURCE_NONE}"}),
                (ConfigError, "did you mean 'port'", {"type": "syslog", "name": "w", "prot": 1}),
                (NotFoundError, "there is no", {"path": str(tmp_path / "none.log")}),
                (UsageError, "hidden", {"path": str(tmp_path / ".hidden")}),
                (UsageError, "hidden", {"path": str(tmp_path / "link")}),
                (UsageError, "headwater up -", {"path": "-"}),
            ):
                with pytest.raises(error, match=message):
                    await engine.add_source(**given)
            with pytest.raises(UsageError, match="comes from the settings"):
                await engine.remove_source("syslog")
            for verb in (engine.pause_source, engine.resume_source, engine.remove_source):
                with pytest.raises(NotFoundError, match="headwater sources"):
                    await verb("nobody")  # type: ignore[operator]

    asyncio.run(check())


def test_where_others_reach_the_api_only_named_folders_are_followed_live(tmp_path: Path) -> None:
    async def check() -> None:
        (tmp_path / "open").mkdir()
        for place in ("open/a.log", "b.log"):
            (tmp_path / place).write_text("2026-03-01 10:00:00 INFO one\n")
        server = ServerSettings(host="0.0.0.0", api_key=SecretStr("k"), live_paths=(str(tmp_path / "open"),))
        async with running(tmp_path / "data", server=server) as (engine, _):
            await engine.add_source(path=str(tmp_path / "open" / "a.log"))
            for outside in (tmp_path / "b.log", tmp_path / "open" / ".." / "b.log"):
                with pytest.raises(UsageError, match="live_paths"):
                    await engine.add_source(path=str(outside))

    asyncio.run(check())


def test_a_port_that_is_taken_is_an_error_of_its_source_alone_until_it_is_free(tmp_path: Path) -> None:
    async def check() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            sources = SyslogSettings(port=port, transport="tcp"), OtlpSettings(port=port)
            async with running(tmp_path, *sources) as (engine, http):

                async def failing() -> bool:  # while it tries again it is starting
                    found = await engine.sources()
                    return all(s.state == "failing" and s.error and f"port {port}" in s.error for s in found)

                async def measured() -> bool:
                    return 'headwater_source_failing{source="syslog",topic="syslog"} 1.0' in (await http.get("/metrics")).text

                await until(failing)
                await until(measured)
                assert (await engine.append("t", ["others go on"])).records
                await engine.pause_source("otlp")
                taken.close()

                async def well() -> bool:
                    return named(await engine.sources())["syslog"].state.startswith("listening")

                await until(well)
                assert named(await engine.sources())["syslog"].error is None

    asyncio.run(check())


@brokers.NEEDS_NATS
def test_a_stream_of_nats_is_added_paused_and_goes_on_behind_what_is_stored(tmp_path: Path) -> None:
    import nats

    async def check(server: brokers.Nats) -> None:
        client = await nats.connect(server.url, connect_timeout=240)
        stream = client.jetstream(timeout=240)
        await stream.add_stream(name="ORDERS", subjects=["orders.*"])
        async with running(tmp_path / "data") as (engine, _):

            async def publish(first: int, end: int) -> None:
                for n in range(first, end):
                    await stream.publish("orders.new", b"order %d" % n)

            async def stored(count: int) -> bool:
                return any(t.records == count for t in await engine.topics())

            await engine.add_source(type="nats", servers=server.url, stream="ORDERS", topic="orders", name="orders")
            await publish(0, 5)
            await until(lambda: stored(5))
            await engine.pause_source("orders")
            await publish(5, 9)
            await engine.resume_source("orders")
            await until(lambda: stored(9))
            assert [r.value for r in (await engine.records("orders")).records] == [f"order {n}" for n in range(9)]

            async def counted() -> bool:
                (source,) = await engine.sources()
                return (source.entry, source.kind, source.records, source.lag) == ("orders", "nats", 9, 0)

            await until(counted)  # behind the records themselves
        await client.close()

    server = brokers.Nats(tmp_path)
    try:
        asyncio.run(check(server))
    finally:
        server.kill()


# ---------------------------------------------------------------------- a daemon


@contextmanager
def daemon(data: Path, config: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "headwater.daemon", "--data-dir", str(data), "--port", "0", "--config", str(config)]
    process = subprocess.Popen(
        command, env={**os.environ, "HEADWATER_EMBEDDING_MODEL": "hash", **environment}, stderr=subprocess.PIPE, text=True
    )
    try:
        yield answering(settings_in(data), process).url, process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=240)


def test_sources_added_and_paused_are_so_after_a_kill_and_syslog_is_stored_when_it_ends_in_order(tmp_path: Path) -> None:
    config, log = tmp_path / "headwater.toml", tmp_path / "app.log"
    config.write_text('[[sources]]\ntype = "syslog"\nport = 0\n')
    log.write_text("2026-03-01 10:00:00 INFO one\n")
    with daemon(tmp_path / "data", config, SOURCE_HOOK="s3cret") as (url, process), headwater.connect(url) as hw:
        hw.add_source(path=str(log), topic="logs")
        hw.add_source(type="webhook", name="hook", secret="${SOURCE_HOOK}")
        hw.add_source(type="otlp", topic="traces.{service}")
        hw.pause_source("syslog")
        hw.pause_source("hook")
        eventually(lambda: any(t.name == "logs" for t in hw.topics()))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert b"s3cret" not in b"".join(p.read_bytes() for p in (tmp_path / "data").glob("log.db*"))
    with log.open("a") as file:
        file.write("2026-03-01 10:00:01 INFO two\n")
    with daemon(tmp_path / "data", config) as (url, process), headwater.connect(url) as hw:
        eventually(lambda: hw.topic("logs").records == 2)
        found = named(hw.sources())
        assert {name: (s.origin, s.paused) for name, s in found.items()} == {
            "syslog": ("settings", True), str(log): ("live", False), "hook": ("live", True), "otlp": ("live", False),
        }  # fmt: skip
        assert "SOURCE_HOOK is not set" in (found["hook"].error or "")
        hw.remove_source("hook")
        hw.resume_source("syslog")
        eventually(lambda: named(hw.sources())["syslog"].state.startswith("listening"))
        port = int(named(hw.sources())["syslog"].state.rsplit(" ", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as sender:
            for n in range(5000):
                sender.sendall(b"<34>1 - h - - - - message %d\n" % n)
            eventually(lambda: named(hw.sources())["syslog"].records > 0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(240) == 0
    with headwater.open(tmp_path / "data", embedding={"model": "hash"}) as hw:
        assert hw.topic("syslog").records > 0
        assert {s.entry: s.state for s in hw.sources()} == {str(log): "not running", "otlp": "not running"}
