"""Reading files once, document folders, standard input, and what `up PATH...` follows."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.errors import LimitError, NotFoundError, UsageError
from headwater.records import TOPIC_NAME, Draft
from headwater.sources import Batch, Fault, State
from headwater.sources.directory import DirectoryFollow, classify
from headwater.sources.fields import parse_time
from headwater.sources.files import read
from headwater.sources.planning import plan
from headwater.sources.stdin import Stdin


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def load(path: Path, **options: Any) -> tuple[list[Draft], list[Fault]]:
    batches = list(read(path, **options))
    return [d for b in batches for d in b.drafts], [f for b in batches for f in b.faults]


def test_json_fields_become_value_key_time_and_attributes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"message": "disk full", "id": 7, "ts": 1767225600, "level": "error", "attributes": {"host": "a"}, "tags": [1]}\n'
        '{"user": "u", "n": 2}\n\n"just text"\n{"text": "v", "vector": [1, 0.5]}\n',
    )
    (a, b, c, d), faults = load(path)
    assert (a.value, a.key, a.time_ms) == ("disk full", "7", 1767225600000)
    assert a.attributes == {"level": "error", "host": "a", "tags": "[1]"}
    assert (b.value, b.attributes) == ('{"user": "u", "n": 2}', {"user": "u", "n": 2})
    assert (c.value, d.vector) == ("just text", (1.0, 0.5))
    assert faults == []
    assert [x.position for x in (a, b)] == [0, path.read_bytes().index(b'{"user')]


def test_bad_json_lines_are_faults_and_stop_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "one"}\nnot json\n' + "[" * 100_000 + '\n{"text": "x", "vector": ["a"]}\n'
        '{"text": "two", "n": NaN, "i": 99999999999999999999, "f": 1e999, "n2": 1, "n2": 2}\n',
    )
    (one, two), faults = load(path)
    assert (one.value, two.value) == ("one", "two")
    assert {k: str(v) for k, v in two.attributes.items()}["n"] == "nan"
    assert two.attributes["n2"] == 2
    assert all(isinstance(v, str | int) for v in two.attributes.values())
    assert [f.position for f in faults] == [16, 25, 100_026]
    assert all(len(f.payload) <= 2000 for f in faults)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-01T00:00:00Z", 1767225600000),
        ("2026-01-01 01:00:00,250+01:00", 1767225600250),
        ("2026-01-01", 1767225600000),
        (1767225600, 1767225600000),
        (1767225600.5, 1767225600500),
        ("1767225600123", 1767225600123),
        (1767225600123456, 1767225600123),
        (1767225600123456789, 1767225600123),
        ("soon", None),
        (True, None),
        ("2026-13-41", None),
        (float("inf"), None),
    ],
)
def test_times_are_read_in_the_forms_people_write_them(value: object, expected: int | None) -> None:
    assert parse_time(value) == expected


def test_tables_have_a_header_and_rows_over_several_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        'id,text,created_at,score,version\n1,"two\nlines, ""quoted""",2026-01-01,3,1.10\n'
        "2,plain,,0.5,2\n\n3,too,many,cells,x,y\n4,last,,,\n",
    )
    (a, b, c), (fault,) = load(path)
    assert (a.key, a.value, a.time_ms) == ("1", 'two\nlines, "quoted"', 1767225600000)
    assert a.attributes == {"score": 3, "version": "1.10"}
    assert (b.attributes, c.value) == ({"score": 0.5, "version": 2}, "last")
    assert "6 cells" in fault.reason
    (only,), _ = load(write(tmp_path / "b.tsv", "name\tcity\nAda\tParis\n"))
    assert only.value == '{"name":"Ada","city":"Paris"}'


def test_a_ticket_is_its_subject_and_its_body_however_the_columns_are_spelt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Id,Subject,Description,Created At\nT-7,Login fails,It began today,2026-01-01\n")
    (ticket,), _ = load(path)
    assert (ticket.key, ticket.value, ticket.time_ms) == ("T-7", "Login fails\nIt began today", 1767225600000)
    assert ticket.attributes == {"Subject": "Login fails"}
    same = write(tmp_path / "b.jsonl", '{"title":"Login fails","text":"Login fails: again"}\n{"title":"A","value":"b"}\n')
    assert [d.value for d in load(same)[0]] == ["Login fails: again", "b"]


def test_a_quote_never_closed_costs_one_row(tmp_path: Path) -> None:
    rows = "".join(f"row {i}\n" for i in range(1500))
    path = write(tmp_path / "a.csv", f'text\nfine\n"never closed\n{rows}a "stray" one\n')
    drafts, faults = load(path)
    assert len(drafts) == 1502
    assert [f.payload for f in faults] == ['"never closed']


def test_logs_keep_a_trace_together_and_text_goes_by_what_it_reads_like(tmp_path: Path) -> None:
    assert len(load(write(tmp_path / "a.log", "one\n  at f(x)\ntwo\n"))[0]) == 2
    short = write(tmp_path / "b.txt", "i lost my card\nwhen does it arrive\nmy pin is wrong\n")
    assert len(load(short)[0]) == 3
    wrapped = "The river was high that year and the people of the town had moved\ntheir boats up the bank, where "
    prose = write(tmp_path / "c.txt", (wrapped + "nobody\nwould look for them before the spring came back.\n\n") * 3)
    assert len(load(prose)[0]) == 1
    assert len(load(prose, kind="lines")[0]) == 9
    assert len(load(short, kind="document")[0]) == 1


def test_a_markdown_file_is_one_record_with_its_title_and_front_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "docs" / "a.md", "---\nauthor: Ada\ntags: [x, 'y']\norder: 3\n---\n# Read me\n\nText.\n")
    (draft,), _ = load(path, root=tmp_path)
    assert (draft.key, draft.value) == ("docs/a.md", "# Read me\n\nText.\n")
    assert draft.attributes == {"author": "Ada", "tags": "x, y", "order": 3, "title": "Read me", "format": "markdown"}
    (odd,), _ = load(write(tmp_path / "b.md", "---\na: {b\n  c: d\n---\nText\n"))
    assert odd.value.startswith("---")
    assert odd.attributes == {"title": "b", "format": "markdown"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.log", "a.jsonl.gz"])
def test_a_read_resumes_behind_any_batch(tmp_path: Path, name: str) -> None:
    rows = "%d,text\n" if ".csv" in name else '{"text": "r%d"}\n'
    data = ("id,text\n" if ".csv" in name else "") + "".join(rows % i for i in range(25))
    path = write(tmp_path / name, gzip.compress(data.encode()) if name.endswith("gz") else data)
    whole = [(d.position, d.key, d.value) for d in load(path)[0]]
    assert len(whole) == 25
    state: State | None = None
    pieces: list[tuple[int | None, str | None, str]] = []
    batch: Batch | None
    for _ in range(8):
        with read(path, batch_records=4, state=state) as reading:
            if batch := next(reading, None):
                pieces += [(d.position, d.key, d.value) for d in batch.drafts]
                state = batch.state
    assert pieces == whole


def test_a_changed_file_is_another_stream_and_is_read_from_its_start(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", "one\ntwo\n")
    with read(path, batch_records=1) as reading:
        first = next(reading)
    write(path, "one\nthree\n")
    with read(path, state=first.state) as reading:
        second = next(reading)
    assert [d.value for d in second.drafts] == ["one", "three"]
    assert second.stream != first.stream


def test_progress_reaches_the_size_of_the_file(tmp_path: Path) -> None:
    reading = read(write(tmp_path / "a.log", "x\n" * 5000), batch_records=100)
    next(reading)
    assert 0 < reading.done_bytes <= reading.total_bytes == 10_000
    list(reading)
    assert reading.done_bytes == reading.total_bytes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_understood(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.csv", "text,n\ngr\u00fc\u00df,1\n".encode(encoding))
    (draft,), _ = load(path)
    assert (draft.value, draft.attributes) == ("gr\u00fc\u00df", {"n": 1})


def test_a_gzip_file_that_is_cut_off_keeps_its_complete_lines(tmp_path: Path) -> None:
    some = random.Random(5)
    lines = [f"line {i} {some.randbytes(20).hex()}" for i in range(5000)]
    packed = gzip.compress("\n".join(lines).encode())
    drafts, faults = load(write(tmp_path / "a.log.gz", packed[: len(packed) // 2]), kind="lines")
    assert [d.value for d in drafts] == lines[: len(drafts)]
    assert 2000 < len(drafts) < 3000
    assert "cut off" in faults[0].reason
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 50] = b"\0" * 50
    drafts, faults = load(write(tmp_path / "b.log.gz", bytes(damaged)), kind="lines")
    assert drafts
    assert "damaged" in faults[0].reason
    both = gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 100
    assert [d.value for d in load(write(tmp_path / "c.log.gz", both))[0]] == ["one", "two"]


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log.gz", gzip.compress((b"0" * 99 + b"\n") * 500_000))
    with pytest.raises(LimitError, match="bomb"):
        load(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, _socket, lambda p: p.symlink_to("/dev/zero"), lambda p: p.write_bytes(b"PK\x03\x04" + b"x" * 50),
     lambda p: p.write_bytes(b"\x7fELF\x02\x01\x00"), lambda p: p.write_bytes(b"text \0 with nul")],
)  # fmt: skip
def test_what_is_no_regular_text_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(Path("thing"))
    with pytest.raises(UsageError):
        read(tmp_path / "thing")
    assert classify(tmp_path / "thing") is None


def test_a_path_out_of_the_root_or_not_there_is_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.md", "# no\n")
    root = tmp_path / "docs"
    root.mkdir()
    (root / "link.md").symlink_to(secret)
    for path in (root / "link.md", root / ".." / "secret.md"):
        with pytest.raises(UsageError, match="leads out"):
            read(path, root=root)
    with pytest.raises(NotFoundError):
        read(tmp_path / "none.log")
    assert load(root / "link.md")[0][0].attributes["title"] == "no"


class Polls:
    """A wake that ends the follower after its first look."""

    async def __call__(self, timeout_s: float) -> None:
        raise TimeoutError


async def _look(source: DirectoryFollow, state: State | None) -> list[Batch]:
    found: list[Batch] = []
    try:
        async for batch in source.batches(state):
            found.append(batch)
    except TimeoutError:
        pass
    return found


def test_a_folder_s_documents_are_records_again_only_when_they_change(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "# A\n")
    write(tmp_path / "sub" / "b.rst", "B\n=\n")
    write(tmp_path / "x.log", "not a document\n")
    write(tmp_path / ".git" / "c.md", "hidden\n")
    outside = write(tmp_path.parent / f"{tmp_path.name}-out.md", "out\n")
    (tmp_path / "z.md").symlink_to(outside)
    source = DirectoryFollow(tmp_path, "docs", wake=Polls(), now_ns=lambda: 1)
    (first,) = asyncio.run(_look(source, None))
    assert [d.key for d in first.drafts] == ["a.md", "sub/b.rst"]
    assert ["leads out" in f.reason for f in first.faults] == [True]
    assert asyncio.run(_look(source, first.state)) == []
    write(tmp_path / "a.md", "# A, changed\n")
    (second,) = asyncio.run(_look(source, first.state))
    assert [(d.key, d.attributes["title"]) for d in second.drafts] == [("a.md", "A, changed")]
    positions = [d.position for b in (first, second) for d in b.drafts]
    assert positions == sorted(set(positions))
    assert second.stream == first.stream


def test_a_plan_gives_every_log_its_tail_and_finds_those_that_appear_later(tmp_path: Path) -> None:
    root = tmp_path / "my docs"
    write(root / "a.md", "# A\n")
    write(root / "web" / "access.log", "GET\n")
    write(root / "web" / "access.log.1", "GET\n")
    write(root / "web" / "access.log.2.gz", gzip.compress(b"GET\n"))
    other = write(tmp_path / "x" / "web-access.log", "GET\n")
    sources = plan([str(root), str(other), "-"])
    assert [(s.kind, s.topic) for s in sources] == [
        ("directory", "my-docs"), ("file", "web-access"), ("file", "x-web-access"), ("stdin", "stdin")
    ]  # fmt: skip
    assert all(TOPIC_NAME.fullmatch(s.topic) for s in sources)
    known = {str(root): "my-docs", str(root / "web" / "access.log"): "web-access", str(other): "x-web-access", "-": "stdin"}
    write(root / "new.log", "x\n")
    assert [s.topic for s in plan([str(root), str(other), "-"], known=known)] == ["new"]
    with pytest.raises(NotFoundError):
        plan([str(tmp_path / "nothing")])


def test_standard_input_is_read_to_its_end_with_what_is_incomplete() -> None:
    async def go() -> list[str]:
        out, into = os.pipe()
        os.write(into, b"one\n  more\ntwo\nthr")
        values: list[str] = []
        try:
            async for batch in Stdin("t", descriptor=out, quiet_s=0.01, session=lambda: 1).batches(None):
                values += [d.value for d in batch.drafts]
                if len(values) == 2:
                    os.write(into, b"ee\nfour")
                    os.close(into)
        finally:
            os.close(out)
        return values

    assert asyncio.run(go()) == ["one\n  more", "two", "three", "four"]


def test_standard_input_may_be_json_lines_whose_faults_are_told() -> None:
    async def go() -> list[Batch]:
        out, into = os.pipe()
        os.write(into, b'{"value": "a", "id": 7}\nno json\n{"value": "b"}')
        os.close(into)
        try:
            return [batch async for batch in Stdin("t", descriptor=out, form="jsonl", session=lambda: 1).batches(None)]
        finally:
            os.close(out)

    batches = asyncio.run(go())
    assert [(draft.value, draft.key) for batch in batches for draft in batch.drafts] == [("a", "7"), ("b", None)]
    assert [fault.payload for batch in batches for fault in batch.faults] == ["no json"]
    assert [source.kind for source in plan(["-"], read_as="jsonl")] == ["stdin"]
    with pytest.raises(UsageError, match="standard input has lines"):
        plan(["-"], read_as="document")
