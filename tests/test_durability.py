"""What was acknowledged outlives the process and the power; what is derived converges to it (GUARANTEES.md 1, 2, 4, 5)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import headwater.log.database
from convergence import assert_converged, settled
from crash_worker import draft, settings_for
from forgetful_vfs import ForgetfulDisk
from headwater.engine import Engine
from headwater.errors import OwnedError, StorageError
from headwater.log.ownership import Ownership
from headwater.log.store import Log, Origin
from headwater.records import Draft
from serving import eventually

KILLS, CUTS, RACERS = 50, 100, 20
SEAL_KILLS = int(os.environ.get("HEADWATER_TEST_KILLS", "10"))
DAMAGED = int(os.environ.get("HEADWATER_TEST_DAMAGED", "5"))
"""`HEADWATER_TEST_KILLS=100 HEADWATER_TEST_DAMAGED=20` makes it a longer run."""
WORKER = Path(__file__).parent / "crash_worker.py"


def seeded() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


class Nursery:
    """A warm process that brings up one victim after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._said() == "warm"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def live_and_die(self, directory: Path, acks: Path, seed: int, seal_at: int, more_s: float) -> None:
        """Have a victim ingest; kill it so long after it had some dozens of records acknowledged."""
        assert self._process.stdin is not None
        held = acks.stat().st_size if acks.exists() else 0
        self._process.stdin.write(f"{directory}\t{acks}\t{seed}\t{seal_at}\n")
        self._process.stdin.flush()
        said, victim = self._said().split()
        assert said == "ready"
        eventually(lambda: acks.stat().st_size > held + 1000)
        assert not select.select([self._process.stdout], [], [], more_s)[0], "the victim ended by itself"
        os.kill(int(victim), signal.SIGKILL)
        assert self._said() == f"ended by signal {signal.SIGKILL}"

    def close(self) -> None:
        self._process.communicate()


def acknowledged(acks: Path) -> dict[str, int]:
    """address -> position, of every whole line the victims wrote."""
    lines = acks.read_text().split("\n")[:-1] if acks.exists() else []
    return {address: int(position) for address, position in (line.split(" ") for line in lines)}


def assert_nothing_lost(log: Log, acks: Path) -> int:
    """Every acknowledged record is there as it was, each position once, the database sound. The number of records."""
    assert log.check() == []
    topics = {row.id: row.name for row in log.topics()}
    with log.reading() as db:
        rows = list(db.execute("SELECT id >> 40, partition, offset, position, value FROM record WHERE stream IS NOT NULL"))
    stored = {f"{topics[t]}/{p}/{o}": (position, value) for t, p, o, position, value in rows}
    assert len(stored) == len(rows)
    for address, position in acknowledged(acks).items():
        assert stored[address] == (position, draft(address.split("/")[0], position).value), address
    repeats = [place for place, n in Counter((t, position) for t, _, _, position, _ in rows).items() if n > 1]
    assert repeats == []
    for topic in topics:
        for partition in {p for t, p, *_ in rows if t == topic}:
            offsets = sorted(o for t, p, o, *_ in rows if (t, p) == (topic, partition))
            assert offsets == list(range(len(offsets)))
        positions = sorted(position for t, _, _, position, _ in rows if t == topic)
        assert positions == list(range(len(positions)))  # the source resumed where the log said: no gap
    return len(rows)


@pytest.mark.slow
def test_fifty_kills_during_ingest_lose_nothing_acknowledged_and_repeat_nothing(tmp_path: Path) -> None:
    rng = seeded()
    acks, directory = tmp_path / "acks", tmp_path / "data"

    async def check(whole: bool) -> int:
        async with Engine(settings_for(directory, 100_000)) as engine:
            number = assert_nothing_lost(engine.log, acks)
            for topic in ("events", "lines"):
                await assert_converged(engine, topic, last=200 if whole else 20)
                newest = engine.log.rows_before(engine.stock.find(topic).row.id, 1 << 40, 1)
                if newest:
                    reply = await engine.search(newest[0].value, topics=[topic], mode="hybrid")
                    passages = {newest[0].value} if topic == "events" else {reply[0].value}
                    assert reply[0].value in passages
                    assert reply.coverage.backlog == 0
        return number

    number = 0
    with contextlib.closing(Nursery()) as nursery:
        for n in range(KILLS):
            nursery.live_and_die(directory, acks, rng.randrange(1 << 30), 100_000, rng.uniform(0.03, 0.15))
            number = asyncio.run(check(n == KILLS - 1))
    print(f"{number} records, {len(acknowledged(acks))} acknowledged")
    assert len(acknowledged(acks)) > KILLS * 10


# ---------------------------------------------------------------------- power


class Clock:
    def __call__(self) -> int:
        return 1_770_000_000_000


def outlive_power_cuts(directory: Path, rng: random.Random, cuts: int, *, durable: bool) -> tuple[int, int]:
    """Append through `cuts` power failures. (acknowledged, of these lost); asserts that each position is stored once."""
    acked: dict[int, str] = {}
    lost = at = 0
    with ForgetfulDisk() as disk:
        for _ in range(cuts):
            disk.cut_at = disk.writes + rng.randrange(1, 120)
            with contextlib.suppress(StorageError), Log(directory, clock_ms=Clock(), durable=durable, vfs=disk.name) as log:
                id = log.create_topic("t", {"partitions": 1}).id if not log.topics() else log.topic("t").id
                at = (log.source_state("s") or {"next": 0})["next"]
                while True:
                    drafts = [Draft(f"record {p}", position=p) for p in range(at, at + rng.choice((1, 2, 10, 40)))]
                    at += len(drafts)
                    receipts = log.append(id, drafts, origin=Origin("numbers", "s", {"next": at})).result(240)
                    acked.update(
                        {d.position: r.address for d, r in zip(drafts, receipts, strict=True) if d.position is not None}
                    )
            disk.restore()
            with Log(directory, clock_ms=Clock(), durable=durable, vfs=disk.name) as log:
                assert log.check() == []
                with log.reading() as db:
                    rows = list(db.execute("SELECT position, offset, value FROM record"))
            stored = {position: f"t/0/{offset}" for position, offset, _ in rows}
            assert len(stored) == len(rows)
            assert all(value == f"record {position}" for position, _, value in rows)
            gone = [p for p, address in acked.items() if stored.get(p) != address]
            lost += len(gone)
            for p in gone:
                del acked[p]
    return len(acked) + lost, lost


def test_a_hundred_power_cuts_lose_nothing_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headwater.log.database, "_WAL_PAGES", 20)  # cuts fall into checkpoints too
    acked, lost = outlive_power_cuts(tmp_path, seeded(), CUTS, durable=True)
    print(f"{acked} acknowledged")
    assert acked > CUTS
    assert lost == 0


def test_the_same_cuts_do_lose_records_of_a_log_that_is_not_durable(tmp_path: Path) -> None:
    _, lost = outlive_power_cuts(tmp_path, seeded(), 10, durable=False)
    assert lost > 0


def test_a_full_disk_is_an_error_to_the_caller_and_nothing_else(tmp_path: Path) -> None:
    rng = seeded()
    with ForgetfulDisk() as disk, Log(tmp_path, clock_ms=Clock(), vfs=disk.name) as log:
        id = log.create_topic("t", {"partitions": 1}).id
        kept: list[str] = []
        for _ in range(5):
            disk.full_at = disk.writes + rng.randrange(1, 40)
            refused = 0
            while refused < 3:
                text = f"record {len(kept)}"
                try:
                    kept.append(log.append(id, [Draft(text)]).result(240)[0].address)
                except StorageError:
                    refused += 1
                assert [r.value for r in log.rows(id, 0, 1 << 20)] == [f"record {n}" for n in range(len(kept))]
            disk.space()
            kept.append(log.append(id, [Draft(f"record {len(kept)}")]).result(240)[0].address)
        assert kept == [f"t/0/{n}" for n in range(len(kept))]
        assert log.check() == []


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of that size; skips where this user may not mount one."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_an_engine_on_a_full_disk_answers_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    if shutil.which("mount") is None:
        pytest.skip("no mount command")

    async def main(disk: Path) -> None:
        kept = 0
        async with Engine(settings_for(disk / "data", 100_000)) as engine:
            for left in (0, 50_000, 200_000, 500_000, 1_000_000):
                filler = disk / "filler"
                with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while file.write(b"x" * 65_536) == 65_536:
                        pass
                with filler.open("ab") as file:
                    file.truncate(max(filler.stat().st_size - left, 0))
                with contextlib.suppress(StorageError):
                    while kept < 100_000:
                        await engine.append("events", [draft("events", p) for p in range(kept, kept + 20)])
                        kept += 20
                assert kept < 100_000
                page = await engine.records("events", limit=1)
                assert (kept == 0) == (page.records == ())
                await engine.search("event", topics=["events"])  # whatever was indexed is found
                filler.unlink()
                await engine.append("events", [draft("events", p) for p in range(kept, kept + 5)])
                kept += 5
                await settled(engine, "events", within_s=240)
                async with asyncio.timeout(240):
                    while (await engine.status()).problems:
                        await asyncio.sleep(0.02)
                reply = await engine.search(draft("events", kept - 1).value, topics=["events"])
                assert reply[0].value == draft("events", kept - 1).value
            assert (await engine.topic("events")).records == kept
            await assert_converged(engine, "events")
        async with Engine(settings_for(disk / "data", 100_000)) as engine:
            await assert_converged(engine, "events")
            assert engine.log.check() == []

    with small_disk(tmp_path / "disk", "16m") as disk:
        asyncio.run(main(disk))


# ---------------------------------------------------------------------- derived indexes


def segments(engine: Engine) -> set[str]:
    """The names of the segments that the log knows."""
    with engine.log.reading() as db:
        return {name for (name,) in db.execute("SELECT name FROM segment")}


@pytest.mark.slow
def test_kills_while_segments_are_sealed_leave_indexes_that_converge(tmp_path: Path) -> None:
    rng = seeded()
    acks, directory = tmp_path / "acks", tmp_path / "data"

    async def check() -> None:
        async with Engine(settings_for(directory, 300)) as engine:
            assert_nothing_lost(engine.log, acks)
            await assert_converged(engine, "events", last=100)
            while True:
                named, held = segments(engine), {p.name for p in (directory / "vectors").glob("*/seg-*")}
                if named == segments(engine):  # else one was sealed between the two looks
                    break
            assert held >= named

    async def finish() -> None:
        async with Engine(settings_for(directory, 300)) as engine:
            until = time.monotonic() + 240 * max(1, SEAL_KILLS / 10)
            while True:
                info = await engine.index("events")
                held = {p.name for p in (directory / "vectors").glob("*/*") if not p.name.startswith("open-")}
                if info.segments and info.tail < 300 and held == {s["name"] for s in info.segments}:
                    break
                assert time.monotonic() < until, (info, held)
                await asyncio.sleep(0.05)
            await assert_converged(engine, "events", last=300)

    with contextlib.closing(Nursery()) as nursery:
        for _ in range(SEAL_KILLS):
            nursery.live_and_die(directory, acks, rng.randrange(1 << 30), 300, rng.uniform(0.1, 1.0))
            asyncio.run(check())
    asyncio.run(finish())


def test_damaged_index_files_are_found_and_built_anew_from_the_log(tmp_path: Path) -> None:
    rng = seeded()
    settings = settings_for(tmp_path, 100_000)
    queries = ("event number 17", "kind 3", "number 255 kind")

    async def answers() -> list[list[tuple[str, float]]]:
        async with Engine(settings) as engine:
            if not (await engine.topic("events")).records:
                await engine.append("events", [draft("events", p) for p in range(300)])
            await assert_converged(engine, "events")
            return [[(h.address, h.score) for h in await engine.search(q, topics=["events"])] for q in queries]

    sound = asyncio.run(answers())
    for _ in range(DAMAGED):
        files = sorted(p for p in (tmp_path / "keyword").iterdir() if p.suffix in (".store", ".term", ".fast", ".pos", ".idx"))
        victim = rng.choice([p for p in files if p.stat().st_size > 20] + [tmp_path / "keyword" / "meta.json"])
        content = bytearray(victim.read_bytes())
        content[rng.randrange(len(content) // 2)] ^= 0xFF
        victim.write_bytes(content)
        print("damaged", victim.name)
        assert asyncio.run(answers()) == sound
    for path in (tmp_path / "keyword").iterdir():
        path.unlink()
    assert asyncio.run(answers()) == sound


# ---------------------------------------------------------------------- one owner

_RACER = """
import sys
from pathlib import Path
from headwater.errors import OwnedError
from headwater.log.ownership import Ownership
sys.stdin.readline()
try:
    held = Ownership(Path(sys.argv[1]))
except OwnedError as error:
    print("lost", str(error).replace(chr(10), " "), flush=True)
else:
    held.announce("http://127.0.0.1:1234")
    print("won", flush=True)
    sys.stdin.readline()
"""


def test_of_twenty_processes_that_race_for_a_directory_one_owns_it(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(RACERS)
    ]
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
        winners = [racer for racer, line in zip(racers, said, strict=True) if line == "won"]
        assert len(winners) == 1
        for line in said:
            if line != "won":
                assert line.startswith("lost ")  # while the winner goes on: nobody waits for it
                assert "is in use by process" in line
        with pytest.raises(OwnedError, match=rf"process {winners[0].pid} at http://127.0.0.1:1234") as caught:
            Ownership(tmp_path)
        assert caught.value.url == "http://127.0.0.1:1234"
        winners[0].send_signal(signal.SIGKILL)
        winners[0].wait(240)
        Ownership(tmp_path).release()
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_a_second_engine_on_a_directory_is_refused_and_the_first_is_unharmed(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(settings_for(tmp_path, 100_000)) as engine:
            engine.announce("http://127.0.0.1:4321")
            with pytest.raises(OwnedError) as caught:
                await Engine(settings_for(tmp_path, 100_000)).__aenter__()
            assert caught.value.url == "http://127.0.0.1:4321"
            await engine.append("events", ["still here"], wait="searchable", timeout_s=240)
        async with Engine(settings_for(tmp_path, 100_000)) as engine:
            assert (await engine.search("still", topics=["events"]))[0].value == "still here"

    asyncio.run(main())
