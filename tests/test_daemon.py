"""The daemon as a process: found, started once, fed, stopped, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater import daemon, launch
from headwater.config import EmbeddingSettings, SecretStr, ServerSettings, Settings
from headwater.engine import Engine
from headwater.errors import ConfigError, NotFoundError, StorageError, UnreachableError
from headwater.feed import Feed
from headwater.log.ownership import Ownership
from headwater.records import Draft
from headwater.source_settings import SourceSettings
from headwater.sources import Batch, Condition, State
from headwater.sourcing import followed
from serving import answering, eventually, settings_in


class Daemon:
    """`python -m headwater.daemon` on a free port, killed at the end of a test whatever happened."""

    def __init__(self, settings: Settings, *paths: Path | str) -> None:
        self.settings = settings
        command = [sys.executable, "-m", "headwater.daemon", "--data-dir", settings.data_dir, "--port", "0", *map(str, paths)]
        environment = {**os.environ, "HEADWATER_EMBEDDING_MODEL": "hash"}
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def ready(self) -> launch.Runtime:
        return answering(self.settings, self.process)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=240)
        return self.process.returncode


@pytest.fixture
def started() -> Iterator[list[Daemon]]:
    daemons: list[Daemon] = []
    yield daemons
    for each in daemons:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate(timeout=240)


def test_a_daemon_that_takes_the_call_and_is_slow_to_answer_is_found(tmp_path: Path) -> None:
    settings, body = settings_in(tmp_path), b'{"pid": %d}' % os.getpid()
    held: list[socket.socket] = []

    def answer(listening: socket.socket) -> None:
        held.append(listening.accept()[0])  # it waits in vain
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                with listening.accept()[0] as another, contextlib.suppress(ConnectionError):  # who waited too long has gone
                    another.recv(4096)
                    another.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    owner = Ownership(settings.path)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        runtime = launch.Runtime(f"http://127.0.0.1:{listening.getsockname()[1]}", os.getpid(), None, "")
        launch.publish(settings.path, runtime)
        busy = threading.Thread(target=answer, args=(listening,), daemon=True)
        busy.start()
        assert launch.find(settings) == runtime
        listening.shutdown(socket.SHUT_RDWR)
        busy.join(timeout=240)
    held[0].close()
    assert launch.find(settings) is None  # nobody takes the call any more
    owner.release()


def test_twenty_racing_starts_leave_one_owner_and_losers_name_it(tmp_path: Path, started: list[Daemon]) -> None:
    settings = settings_in(tmp_path)
    started.extend(Daemon(settings) for _ in range(20))
    eventually(lambda: sum(d.process.poll() is None for d in started) == 1, timeout_s=240)
    runtime = answering(settings)
    losers = [d.process for d in started if d.process.poll() is not None]
    assert {p.returncode for p in losers} == {launch.OWNED_EXIT}
    assert "in use by process" in losers[0].communicate()[1]
    with headwater.connect(runtime.url) as hw:
        assert hw.status().pid == runtime.pid


def test_whoever_wants_a_daemon_gets_the_same_one(tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path / "data"), server=ServerSettings(port=0, api_key=SecretStr("s3cret")))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: launch.find_or_start(settings, timeout_s=240), range(6)))
    try:
        assert len(set(found)) == 1
        path = settings.path / launch.RUNTIME
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "s3cret" not in repr(found[0])
        assert "s3cret" not in Path(f"/proc/{found[0].pid}/cmdline").read_text()
        with headwater.connect(found[0].url, found[0].token) as hw:
            assert hw.status().model == "hash"
    finally:
        os.kill(found[0].pid, signal.SIGTERM)
    eventually(lambda: not path.exists())
    assert launch.find(settings) is None
    eventually(lambda: all(t.name != "headwater-daemon" for t in threading.enumerate()))  # reaped, no zombie


def test_a_daemon_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path), server=ServerSettings(host="0.0.0.0", port=0))
    with pytest.raises(UnreachableError, match="api_key must be set"):
        launch.find_or_start(settings, timeout_s=240)


def test_whoever_stops_waiting_for_a_daemon_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn, find = launch._spawn, launch.find
    spawned: list[subprocess.Popen[bytes]] = []

    def spawning(*arguments: Any) -> subprocess.Popen[bytes]:
        spawned.append(spawn(*arguments))
        return spawned[-1]

    def interrupted(settings: Settings) -> launch.Runtime | None:
        if spawned:
            raise KeyboardInterrupt
        return find(settings)

    monkeypatch.setattr(launch, "_spawn", spawning)
    monkeypatch.setattr(launch, "find", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch.find_or_start(settings_in(tmp_path))
    assert [child.returncode for child in spawned] == [-signal.SIGKILL]


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, started: list[Daemon]) -> None:
    settings = settings_in(tmp_path)
    first = Daemon(settings)
    started.append(first)
    acknowledged: list[str] = []

    def push(url: str) -> None:
        with headwater.connect(url) as hw:
            for n in range(100_000):
                try:
                    hw.append("t", [f"record {n}"])
                except (UnreachableError, headwater.WaitTimeout):
                    return
                acknowledged.append(f"record {n}")

    pusher = threading.Thread(target=push, args=(first.ready().url,))
    pusher.start()
    eventually(lambda: len(acknowledged) >= 50)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    pusher.join(240)
    assert launch.find(settings) is None
    second = Daemon(settings)
    started.append(second)
    with headwater.connect(second.ready().url) as hw:
        values, cursor = [], None
        while True:
            page = hw.records("t", limit=1000, cursor=cursor)
            values += [r.value for r in page.records]
            if (cursor := page.next_cursor) is None:
                break
        assert len(values) == len(set(values))
        assert set(acknowledged) <= set(values)
        eventually(lambda: hw.search("record", topics=["t"]).coverage.backlog == 0)
    assert second.end() == 0


def test_a_signal_ends_it_though_a_stream_is_open(tmp_path: Path, started: list[Daemon]) -> None:
    each = Daemon(settings_in(tmp_path))
    started.append(each)
    with headwater.connect(each.ready().url) as hw:
        hw.append("t", ["one"])
        records = hw.tail("t", from_start=True)
        assert next(records).value == "one"
        assert each.end() == 0
        records.close()  # type: ignore[attr-defined]


def test_a_file_is_followed_over_a_kill_without_loss_or_repeat(tmp_path: Path, started: list[Daemon]) -> None:
    log, settings = tmp_path / "app.log", settings_in(tmp_path / "data")
    log.write_text("".join(f"2026-03-01 10:00:00 INFO worker {n} started\n" for n in range(500)))
    started.append(Daemon(settings, log))
    with headwater.connect(started[0].ready().url) as hw:
        eventually(lambda: any(t.records == 500 for t in hw.topics()))
        eventually(lambda: [s.records for s in hw.status().sources] == [500])
    started[0].end(signal.SIGKILL)
    with log.open("a") as file:
        file.writelines(f"2026-03-01 10:00:01 INFO worker {n} started\n" for n in range(500, 700))
    started.append(Daemon(settings, log))
    with headwater.connect(started[1].ready().url) as hw:
        eventually(lambda: hw.topic("app").records >= 700)
        page = hw.records("app", limit=1000)
        assert [r.value.split("worker ")[1].split()[0] for r in page.records] == [str(n) for n in range(700)]


# ---------------------------------------------------------------------- addresses and sources


def test_others_can_reach_it_only_with_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="api_key"):
            daemon.check_address(ServerSettings(host=host))
        daemon.check_address(ServerSettings(host=host, api_key=SecretStr("k")))
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        daemon.check_address(ServerSettings(host=host))
    with pytest.raises(ConfigError, match="empty"):
        daemon.check_address(ServerSettings(api_key=SecretStr(" ")))


def test_a_taken_port_is_refused_when_firm_and_else_another_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            daemon.listen(ServerSettings(port=port), firm=True)
        with daemon.listen(ServerSettings(port=port), firm=False) as free:
            assert free.getsockname()[1] != port


def test_sources_are_those_of_the_settings_and_the_arguments(tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "c.log"):
        (tmp_path / name).write_text("2026-03-01 10:00:00 INFO one\n")
    both, one = SourceSettings(path=str(tmp_path / "[ab].log"), topic="both"), SourceSettings(path=str(tmp_path / "c.log"))
    assert [s.topic for entry in (one, both) for s in followed(entry, {})] == ["c", "both", "both"]
    known = {str(s.path): s.topic for entry in (one, both) for s in followed(entry, {})}  # type: ignore[attr-defined]
    assert [followed(entry, known) for entry in (one, both)] == [[], []]
    (tmp_path / "c.log").unlink()
    assert followed(one, known) == []
    with pytest.raises(NotFoundError):
        followed(SourceSettings(path=str(tmp_path / "none.log")), {})


class Scripted:
    """A source that gives its batches once more from the start whenever it is asked anew, as after a crash."""

    kind, topic, name, condition = "scripted", "t", "scripted", Condition("following")

    def __init__(self, *batches: Batch) -> None:
        self.given = batches
        self.runs = 0

    async def batches(self, state: State | None) -> AsyncIterator[Batch]:
        self.runs += 1
        for batch in self.given:
            yield batch
        if self.runs == 1:
            raise OSError("the pipe broke")


class Full(Engine):
    """An engine whose disk is full for the first two appends."""

    failures = 2

    async def append(self, *args: object, **kwargs: object) -> headwater.Appended:  # type: ignore[override]
        if self.failures:
            self.failures -= 1
            raise StorageError("no space")
        return await super().append(*args, **kwargs)  # type: ignore[arg-type]


def test_a_source_waits_out_a_full_disk_sets_bad_records_aside_and_repeats_nothing(tmp_path: Path) -> None:
    drafts = [Draft(f"record {n}", position=n, partition=9 if n == 3 else None) for n in range(6)]
    source = Scripted(Batch(drafts, {"at": 6}, "s", 0), Batch([Draft("last", position=6)], {"at": 7}, "s", 0))

    async def check() -> None:
        pauses: list[float] = []

        async def pause(wait_s: float) -> None:
            pauses.append(wait_s)
            await asyncio.sleep(0)

        async with Full(Settings(data_dir=str(tmp_path), embedding=EmbeddingSettings(model="hash"))) as engine:
            engine.roster.given([SourceSettings(path="scripted")])
            feed = Feed(engine, lambda entry, known: [] if known else [source], pause=pause)
            task = asyncio.create_task(feed.run())
            async with asyncio.timeout(240):
                while not (source.runs == 2 and [s.state for s in await engine.sources()] == ["ended"]):
                    await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            page = await engine.records("t")
            assert [r.value for r in page.records] == ["record 0", "record 1", "record 2", "record 4", "record 5", "last"]
            letters = await engine.dead_letters("t")
            assert {letter.payload for letter in letters} == {"record 3"}
            assert engine.log.source_state("scripted") == {"at": 7}
            assert pauses == [0.5, 1.0, 0.5]

    asyncio.run(check())


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library gives memory back by itself")
def test_freed_memory_is_handed_back_to_the_system() -> None:
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def held() -> int:
        return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) << 10

    async def check() -> None:
        before = held()
        pieces = [library.malloc(1000) for _ in range(100_000)]
        for piece in pieces:
            ctypes.memset(piece, 1, 1000)
        for piece in pieces[:-1]:  # the last lies above them: the heap cannot shrink
            library.free(piece)
        assert held() > before + 50_000_000
        giving = asyncio.create_task(daemon.give_back(0.01))
        async with asyncio.timeout(240):
            while held() > before + 25_000_000:
                await asyncio.sleep(0.01)
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        library.free(pieces[-1])

    asyncio.run(check())
