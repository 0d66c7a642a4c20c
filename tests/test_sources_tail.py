"""Following a file loses nothing and repeats nothing. Real files; time is a number the test moves on."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from headwater.sources import Batch, State
from headwater.sources.hints import Hints
from headwater.sources.tail import FileTail


class Quiet(Exception):
    """The follower asked to wait more often than the test allows."""


class Reader:
    """Drives a FileTail by hand: `read(polls)` collects drafts until it has waited `polls` times."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, options
        self.now, self.polls, self.allowed = 0.0, 0, 0
        self.values: list[str] = []
        self.places: set[tuple[str, int]] = set()
        self.raws: list[bytes | None] = []
        self.state: State | None = None
        self.kill: Callable[[], bool] = lambda: False
        self.lose: Callable[[], bool] = lambda: False
        self.open()

    def open(self) -> None:
        self.tail = FileTail(self.path, "t", clock=lambda: self.now, wake=self.wake, **self.options)
        self.batches: AsyncIterator[Batch] = self.tail.batches(self.state)

    async def wake(self, timeout_s: float) -> None:
        self.now += timeout_s
        self.polls += 1
        if self.polls >= self.allowed:
            self.polls = 0
            raise Quiet

    async def restart(self) -> None:
        await self.batches.aclose()  # type: ignore[attr-defined]
        self.open()

    async def read(self, polls: int = 30) -> list[str]:
        """The values handed out until all has been quiet; the follower is restarted from its state at the end."""
        self.allowed, self.polls = polls, 0
        before = len(self.values)
        try:
            async for batch in self.batches:
                if self.lose():  # a crash before the batch was stored
                    await self.restart()
                    break
                for draft in batch.drafts:
                    assert draft.position is not None
                    assert (batch.stream, draft.position) not in self.places
                    self.places.add((batch.stream, draft.position))
                    self.values.append(draft.value)
                    self.raws.append(draft.raw)
                self.state = batch.state
                if self.kill():
                    await self.restart()
        except Quiet:
            self.open()
        return self.values[before:]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_lines_come_once_and_an_incomplete_one_when_it_is_complete(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_bytes(b"one\ntwo\r\n\nthr")
        reader = Reader(path)
        assert await reader.read() == ["one", "two"]
        with path.open("ab") as file:
            file.write(b"ee\n")
        assert await reader.read() == ["three"]
        assert await reader.read() == []

    run(go())


def test_a_missing_file_is_waited_for(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "logs" / "a.log"
        reader = Reader(path)
        tail = reader.tail
        assert await reader.read(3) == []
        assert tail.condition.state == "waiting for the file"
        path.parent.mkdir()
        path.write_text("one\n")
        assert await reader.read() == ["one"]
        shutil.rmtree(path.parent)
        assert await reader.read(3) == []
        path.parent.mkdir()
        path.write_text("two\n")
        assert await reader.read() == ["two"]

    run(go())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_never_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    async def go() -> None:
        make(tmp_path / "a.log")
        reader = Reader(tmp_path / "a.log")
        tail = reader.tail
        assert await reader.read(3) == []
        assert tail.condition.state == "cannot read"
        assert "not a regular file" in str(tail.condition.error)

    run(go())


def test_only_what_is_new_is_read_without_from_start_also_after_a_restart(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("old\nhal")
        reader = Reader(path, from_start=False)
        assert await reader.read(2) == []
        with path.open("a") as file:
            file.write("f\nnew\n")
        assert await reader.read() == ["half", "new"]

    run(go())


def test_an_old_file_is_read_to_its_end_over_several_rotations_before_the_new_one(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("1\n")
        reader = Reader(path)
        assert await reader.read() == ["1"]
        path.write_text("1\n2\n3 without its newline")
        path.rename(tmp_path / "a.log.3")
        (tmp_path / "a.log.2.gz").write_bytes(gzip.compress(b"4\n5\n"))
        (tmp_path / "a.log.1").write_text("6\n")
        path.write_text("7\n")
        assert await reader.read() == ["2", "3 without its newline", "4", "5", "6", "7"]

    run(go())


def test_a_file_packed_while_nobody_looked_is_read_on_where_it_was_left(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("".join(f"{i}\n" for i in range(2000)))
        reader = Reader(path)
        assert len(await reader.read()) == 2000
        whole = path.read_bytes() + b"late\n"
        path.unlink()
        (tmp_path / "a.log.1.gz").write_bytes(gzip.compress(whole))
        path.write_text("next\n")
        assert await reader.read() == ["late", "next"]

    run(go())


def test_another_file_with_the_old_inode_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("first file\n")
        reader = Reader(path)
        await reader.read()
        path.write_text("second, longer file\nwith the same inode\n")  # same inode, other bytes
        assert await reader.read() == ["second, longer file", "with the same inode"]

    run(go())


def test_copytruncate_reads_the_rest_from_the_copy_and_counts_where_there_is_none(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("1\n2\n")
        reader = Reader(path)
        assert await reader.read() == ["1", "2"]
        with path.open("a") as file:
            file.write("3\n")
        shutil.copy(path, tmp_path / "a.log.1")
        os.truncate(path, 0)
        with path.open("a") as file:
            file.write("4\n")
        assert await reader.read() == ["3", "4"]
        reader.allowed = 10**6
        os.truncate(path, 0)
        tail = reader.tail
        assert await reader.read(5) == []
        with path.open("a") as file:
            file.write("5\n")
        assert await reader.read() == ["5"]
        assert tail.condition.state == "following"

    run(go())


def test_truncation_under_an_open_follower_is_counted(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("before\n")
        waits = 0

        async def wake(_: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 20:
                path.write_text("after and longer than before\n")  # truncates and grows beyond the old size
            if waits > 60:
                raise Quiet

        tail = FileTail(path, "t", clock=lambda: waits * 0.2, wake=wake)
        found: list[tuple[str, str]] = []

        async def collect() -> None:
            async for batch in tail.batches(None):
                found.extend((batch.stream, draft.value) for draft in batch.drafts)

        with pytest.raises(Quiet):
            await collect()
        assert [value for _, value in found] == ["before", "after and longer than before"]
        assert found[0][0] != found[1][0]
        assert tail.condition.counts == {"truncations": 1}

    run(go())


def test_a_restart_that_finds_nothing_of_what_it_read_counts_a_gap(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("gone\n")
        reader = Reader(path)
        await reader.read()
        path.unlink()
        path.write_text("here\n")
        tail = reader.tail
        assert await reader.read() == ["here"]
        assert tail.condition.counts == {"gaps": 1}

    run(go())


def test_bad_bytes_are_replaced_and_kept(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_bytes(b"\xef\xbb\xbfok\nbad \xff byte\n\0\0\0hole\n")
        reader = Reader(path)
        assert await reader.read() == ["ok", "bad \ufffd byte", "hole"]
        assert reader.raws == [None, b"bad \xff byte", None]
        wide = tmp_path / "b.log"
        wide.write_bytes("\ufeffgr\u00fc\u00dfe\n\u0a0a \u4e0a\n".encode("utf-16-le"))
        assert await Reader(wide).read() == ["gr\u00fc\u00dfe", "\u0a0a \u4e0a"]

    run(go())


TRACES = [
    '10:00 ERROR failed\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nValueError: no\n\n'
    'During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n'
    '  File "b.py", line 2, in h\nKeyError: 1',
    "10:01 ERROR in service\njava.lang.IllegalStateException: bad\n\tat a.b.C.d(C.java:1)\n\t... 3 more\nCaused by: "
    "java.io.IOException: x\n\tat e.f(G.java:2)",
    "10:02 INFO one line",
    "10:03 INFO  another\n    going on",
]  # fmt: skip


def test_a_stack_trace_is_one_record(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("\n".join(TRACES) + "\n")
        assert await Reader(path).read() == TRACES
        assert len(await Reader(path, form="lines").read()) == sum(line != "" for t in TRACES for line in t.split("\n"))

    run(go())


def test_what_goes_on_after_an_event_was_handed_out_is_a_record_of_its_own(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_text("error\n  at f(x)\n")
        reader = Reader(path)
        assert await reader.read(3) == []  # within the quiet second it is held
        assert await reader.read() == ["error\n  at f(x)"]
        with path.open("a") as file:
            file.write("  at g(y)\n  at h(z)\nnext\n")
        assert await reader.read() == ["  at g(y)\n  at h(z)", "next"]

    run(go())


def test_a_line_and_an_event_without_end_are_cut(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        path.write_bytes(b"head\n" + b" at f(x)\n" * 2500 + b"x" * ((16 << 20) + 5) + b"\nend\n")
        values = await Reader(path).read()
        assert [v.count("\n") + 1 for v in values[:3]] == [1000, 1000, 501]
        assert [len(v) for v in values[3:]] == [16 << 20, 5, 3]

    run(go())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twenty_thousand_lines_over_fifty_rotations_and_twenty_restarts_come_once_and_in_order(
    tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    asyncio.run(_soak(tmp_path, random.Random(seed), 20_000, rotations=50, restarts=20))


async def _soak(folder: Path, rng: random.Random, lines: int, rotations: int, restarts: int) -> None:
    path = folder / "app.log"
    rotate = set(rng.sample(range(lines), rotations))
    restart = set(rng.sample(range(lines), restarts))
    writer = path.open("ab", buffering=0)
    reader = Reader(path, batch_records=rng.choice([7, 100, 2000]), form=rng.choice(["log", "lines"]))
    await reader.read(1)
    reader.kill = reader.lose = lambda: rng.random() < 0.02
    for i in range(lines):
        data = f"line {i} {'x' * rng.randrange(60)}\n".encode()
        cut = rng.randrange(1, len(data)) if rng.random() < 0.05 else len(data)
        writer.write(data[:cut])
        if cut < len(data):
            if rng.random() < 0.3:
                await reader.read(rng.randrange(1, 4))
            writer.write(data[cut:])
        if i in rotate:
            writer.close()
            _rotate(folder, path, rng)
            writer = path.open("ab", buffering=0)
        if i in restart:
            await reader.restart()
        if rng.random() < 0.004:
            await reader.read(rng.randrange(1, 30))
    writer.close()
    reader.kill = reader.lose = lambda: False
    for _ in range(rotations + 20):
        await reader.read(60)
    assert [int(value.split()[1]) for value in reader.values] == list(range(lines))


def _rotate(folder: Path, path: Path, rng: random.Random) -> None:
    """app.log -> app.log.1 -> app.log.2 or .2.gz -> ..."""
    for old in sorted(folder.glob("app.log.*"), key=lambda p: int(p.name.split(".")[2]), reverse=True):
        number = int(old.name.split(".")[2])
        old.rename(folder / old.name.replace(f".{number}", f".{number + 1}", 1))
    path.rename(folder / "app.log.1")
    second = folder / "app.log.2"
    if second.exists() and rng.random() < 0.5:
        status = second.stat()
        packed = folder / "app.log.2.gz"
        packed.write_bytes(gzip.compress(second.read_bytes()))
        if rng.random() < 0.7:
            os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
        second.unlink()


def test_hints_wake_a_waiting_source_and_leave_no_thread(tmp_path: Path) -> None:
    async def go() -> None:
        path = tmp_path / "a.log"
        async with Hints(tmp_path) as hints:
            waiting = asyncio.ensure_future(hints.wake(3600.0))
            for i in range(4800):  # the watch may begin a little after the wait
                path.write_text(f"{i}\n")
                done, _ = await asyncio.wait([waiting], timeout=0.05)
                if done:
                    break
            assert waiting.done()
        assert "headwater-hints" not in {thread.name for thread in threading.enumerate()}

    run(go())
