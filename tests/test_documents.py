"""A followed folder of documents: the latest version is found, what is gone is not, and hits tell the page."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headwater.engine import Engine
from headwater.errors import UsageError
from headwater.sources import Batch, State
from headwater.sources.directory import DirectoryFollow
from headwater.sources.files import read
from headwater.sources.planning import plan
from made_documents import docx, html, mixed, pdf, pptx
from serving import answering, eventually, settings_in
from test_ingest import Place


class Follower:
    """A folder followed into an engine by hand: each `look` is one pass over it."""

    def __init__(self, engine: Engine, folder: Path, topic: str = "docs") -> None:
        self.engine, self.topic, self._more = engine, topic, asyncio.Event()
        self.source = DirectoryFollow(folder, topic, wake=self._wake, now_ns=lambda: 1)
        self.state: State | None = None
        self.batches: list[Batch] = []

    async def _wake(self, timeout_s: float) -> None:
        raise TimeoutError

    async def look(self, *, store: bool = True) -> None:
        """One pass, from the last state that was stored."""
        self.batches = []
        iterator = self.source.batches(self.state)
        try:
            async for batch in iterator:
                self.batches.append(batch)
                if store:
                    self.state = batch.state
                    await self.engine.deliver(
                        self.topic, self.source.name, batch.drafts, stream=batch.stream, state=batch.state, faults=batch.faults
                    )
        except TimeoutError:
            pass
        finally:
            await iterator.aclose()  # type: ignore[attr-defined]  # an async generator

    async def found(self, words: str) -> list[str | None]:
        """Keys of the records that have all the words."""
        home = self.engine.stock.find(self.topic)
        await self.engine.indexer.wait(home, self.engine.log.topic(self.topic).next_seq, semantic=False)
        return sorted(hit.key or "" for hit in (await self.engine.search(f'"{words}"', topics=[self.topic])).hits)


@asynccontextmanager
async def following(tmp_path: Path) -> AsyncIterator[tuple[Follower, Path]]:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with Engine(settings_in(tmp_path / "data"), version="test") as engine:
        yield Follower(engine, folder), folder


def run(tmp_path: Path, story: Callable[[Follower, Path], object]) -> None:
    async def go() -> None:
        async with following(tmp_path) as (follower, folder):
            await story(follower, folder)  # type: ignore[misc]  # a coroutine function

    asyncio.run(go())


def test_documents_of_kinds_that_are_not_read_are_told_once_each_with_what_mends_it(tmp_path: Path) -> None:
    packed, text = b"PK\x03\x04" + b"\0" * 60, b"The amber door is locked at ten.\n"
    told = {
        "a.odt": (packed, "save it as .docx"), "b.ods": (packed, "save it as .xlsx"), "c.epub": (packed, "convert it to .html"),
        "d.rtf": (b"{\\rtf1 " + text, "save it as .docx"), "e.mhtml": (text, "save the page as .html"),
        "f.eml": (b"Subject: doors\n\n" + text, "`headwater ingest TOPIC FILE` loads it"),
    }  # fmt: skip
    silent = {
        "g.png": b"\x89PNG\r\n\x1a\n",
        "h.zip": packed,
        "private.key": b"-----BEGIN KEY-----\n",
        "i.bin": bytes(range(256)),
    }

    async def story(follower: Follower, folder: Path) -> None:
        for name, data in {**{name: data for name, (data, _) in told.items()}, **silent}.items():
            (folder / name).write_bytes(data)
        (folder / "z.md").write_bytes(text)
        await follower.look()
        await follower.look()
        found = await follower.engine.dead_letters("docs")
        letters = {letter.payload: letter.reason for letter in found}
        assert sorted(letter.payload for letter in found) == sorted(told)
        assert all(mending in letters[name] for name, (_, mending) in told.items())
        assert await follower.found("amber door") == ["z.md"]

    run(tmp_path, story)


def test_what_ingest_is_given_of_such_a_kind_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "a.odt").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    (tmp_path / "b.mhtml").write_bytes(b"From: <Saved>\n\n<p>hi\n")
    for name, mending in (("a.odt", "save it as .docx"), ("b.mhtml", "save the page as .html")):
        with pytest.raises(UsageError, match=mending):
            read(tmp_path / name)


def test_hits_of_mixed_documents_tell_the_right_page(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        documents = mixed(16)
        for made in documents:
            (folder / made.name).write_bytes(made.data)
        await follower.look()
        await follower.found("x")
        for made in documents:
            for phrase, page in made.phrases.items():
                hit = (await follower.engine.search(f'"{phrase}"', topics=["docs"]))[0]
                assert (hit.key, hit.attributes.get("page")) == (made.name, page)
                assert hit.span is not None
                assert phrase in hit.value[hit.span.start : hit.span.end]

    run(tmp_path, story)


def test_a_document_is_found_to_its_last_page(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        filler = "Filler of a long page about nothing in particular, which says so again. " * 60
        pages = [f"<p>{filler}" for _ in range(280)]
        (folder / "book.html").write_bytes(html("".join(pages) + "<p>the butler did it"))
        await follower.look()
        assert await follower.found("the butler did it") == ["book.html"]
        assert len((await follower.engine.records("docs")).records[0].value) > 1 << 20

    run(tmp_path, story)


def test_only_the_latest_version_of_a_document_is_found(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        (folder / "a.pdf").write_bytes(pdf([["the rate is four percent"]]))
        (folder / "b.md").write_text("the rate is nine percent\n")
        await follower.look()
        assert await follower.found("the rate is") == ["a.pdf", "b.md"]
        (folder / "a.pdf").write_bytes(pdf([["the rate is five percent"]]))
        await follower.look()
        assert await follower.found("four percent") == []
        assert await follower.found("five percent") == ["a.pdf"]
        (record,) = [r for r in (await follower.engine.records("docs")).records if r.key == "a.pdf"]
        assert record.attributes["version"] == 2

    run(tmp_path, story)


def test_a_deleted_document_is_found_no_more_and_comes_back_with_its_file(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        for name in ("a.docx", "b.docx"):
            (folder / name).write_bytes(docx([f"the contents of {name[0]}"]))
        await follower.look()
        data = (folder / "a.docx").read_bytes()
        (folder / "a.docx").unlink()
        await follower.look()
        assert await follower.found("the contents of") == ["b.docx"]
        (folder / "c.docx").write_bytes(data)
        await follower.look()
        (folder / "a.docx").write_bytes(data)
        await follower.look()
        assert [r.key for r in (await follower.engine.records("docs")).records] == ["b.docx", "c.docx", "a.docx"]

    run(tmp_path, story)


def test_a_version_that_cannot_be_read_leaves_the_last_one_and_a_dead_letter(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        (folder / "a.pptx").write_bytes(pptx([("Plan", "walk to the river")]))
        (folder / "b.html").write_bytes(html("<p>swim in the river</p>"))
        await follower.look()
        (folder / "a.pptx").write_bytes(pptx([("Plan", "fly")])[:3000])
        await follower.look()
        assert await follower.found("the river") == ["a.pptx", "b.html"]
        (letter,) = await follower.engine.dead_letters("docs")
        assert (letter.payload, letter.stage) == ("a.pptx", "source")
        assert "save it anew" in letter.reason
        await follower.look()
        assert len(await follower.engine.dead_letters("docs")) == 1

    run(tmp_path, story)


def test_a_death_between_storing_and_replacing_is_made_good(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        (folder / "a.md").write_text("the old text\n")
        (folder / "b.md").write_text("the other text\n")
        await follower.look()
        (folder / "a.md").write_text("the new text\n")
        (folder / "b.md").unlink()
        await follower.look(store=False)
        (batch,) = follower.batches
        engine, state = follower.engine, batch.state
        stored = {name: value for name, value in state.items() if name not in ("latest", "gone")}  # as if it had died here
        await engine.deliver("docs", follower.source.name, batch.drafts, stream=batch.stream, state=stored)
        assert await follower.found("text") == ["a.md", "a.md", "b.md"]
        follower.state = state
        await follower.look()
        assert await follower.found("text") == ["a.md"]
        assert await follower.found("new text") == ["a.md"]

    run(tmp_path, story)


def test_two_folders_in_one_topic_keep_out_of_each_other_s_way(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        second = Follower(follower.engine, other)
        (folder / "README.md").write_text("about one thing\n")
        (other / "README.md").write_text("about another thing\n")
        await follower.look()
        await second.look()
        (other / "README.md").write_text("about a third thing\n")
        await second.look()
        assert await follower.found("about one thing") == ["README.md"]
        assert await follower.found("about another thing") == []
        (folder / "README.md").unlink()
        await follower.look()
        assert await follower.found("about a third thing") == ["README.md"]

    run(tmp_path, story)


def test_a_document_that_is_named_is_followed_as_what_it_is_unless_it_is_said_to_be_lines(tmp_path: Path) -> None:
    for name, data in (("a.pdf", pdf([["x"]])), ("b.md", b"# B\n"), ("c.py", b"x = 1\n"), ("d.yaml", b"a: 1\n")):
        (tmp_path / name).write_bytes(data)
    paths = {path.name: str(path) for path in tmp_path.iterdir()}
    assert [(s.kind, s.topic) for s in plan([paths["a.pdf"], paths["b.md"], paths["c.py"]])] == [
        ("document", "a.pdf"), ("document", "b.md"), ("document", "c.py")
    ]  # fmt: skip
    assert [s.kind for s in plan([paths["b.md"], paths["d.yaml"]], read_as="log")] == ["file", "file"]
    assert [s.kind for s in plan([paths["d.yaml"]], read_as="document", topic="t")] == ["document"]
    for name, read_as, told in (("a.pdf", "log", "is a document"), ("d.yaml", None, "--as log")):
        with pytest.raises(UsageError, match=told):
            plan([paths[name]], read_as=read_as)  # type: ignore[arg-type]  # a literal
    with pytest.raises(UsageError, match="is a folder"):
        plan([str(tmp_path)], read_as="document")


def test_one_document_is_followed_through_versions_its_deletion_and_its_return(tmp_path: Path) -> None:
    async def story(follower: Follower, folder: Path) -> None:
        path = folder / "plan.md"
        (folder / "other.md").write_text("swim in the river\n")
        path.write_text("---\nteam: hikers\n---\n# Plan\n\nwalk to the river\n\nand back\n")
        follower.source = DirectoryFollow(path, "docs", alone=True, wake=follower._wake, now_ns=lambda: 1)
        await follower.look()
        assert await follower.found("the river") == ["plan.md"]
        path.write_text("# Plan\n\nfly over the river\n")
        await follower.look()
        (record,) = (await follower.engine.records("docs")).records
        assert (record.value, record.attributes["version"]) == (path.read_text(), 2)
        path.unlink()
        await follower.look()
        assert (await follower.engine.records("docs")).records == ()
        assert follower.source.condition.state == "waiting for the file"
        path.write_bytes(b"\x01\0\0\0\x7f\0\0\x02" * 500)
        await follower.look()
        path.write_text("come again\n")
        await follower.look()
        assert await follower.found("come again") == ["plan.md"]

    run(tmp_path, story)


def test_a_document_is_read_once_it_rests(tmp_path: Path) -> None:
    times: list[float] = []
    path = tmp_path / "a.md"
    path.write_text("half of it")
    born = path.stat().st_mtime_ns

    async def wake(timeout_s: float) -> None:
        times.append(timeout_s)
        if len(times) == 2:
            path.write_text("all of it\n")
            os.utime(path, ns=(born, born + 600_000_000))
        if len(times) == 5:
            raise TimeoutError

    async def go() -> list[str]:
        source = DirectoryFollow(tmp_path, "docs", wake=wake, now_ns=lambda: born + 300_000_000 * len(times))
        found: list[str] = []
        try:
            async for batch in source.batches(None):
                found += [draft.value for draft in batch.drafts]
        except TimeoutError:
            return found
        raise AssertionError("it is endless")

    assert asyncio.run(go()) == ["all of it\n"]
    assert times == [0.5, 0.5, 0.5, 0.5, 2.0]


def test_a_document_that_never_rests_is_read_after_a_while(tmp_path: Path) -> None:
    looks = 0
    path = tmp_path / "a.md"
    path.write_text("going on and on")

    async def wake(timeout_s: float) -> None:
        nonlocal looks
        looks += 1
        os.utime(path, ns=(looks * 10**9, looks * 10**9))
        if looks > 20:
            raise TimeoutError

    async def go() -> int:
        os.utime(path, ns=(0, 0))
        async for _ in DirectoryFollow(tmp_path, "docs", wake=wake, now_ns=lambda: looks * 10**9).batches(None):
            return looks
        raise AssertionError("it is endless")

    assert asyncio.run(go()) == 10


def test_a_change_is_told_by_the_system_where_it_is_one_of_a_document(tmp_path: Path) -> None:
    source = DirectoryFollow(tmp_path, "docs")
    told = {
        name: source._is_hint(tmp_path / name) for name in ("a.md", "b/c.pdf", "app.log", ".git/index", "node_modules/x.js")
    }
    assert told == {"a.md": True, "b/c.pdf": True, "app.log": False, ".git/index": False, "node_modules/x.js": False}
    alone = DirectoryFollow(tmp_path / "a.log", "docs", alone=True)
    assert (alone._is_hint(tmp_path / "a.log"), alone._is_hint(tmp_path / "a.md")) == (True, False)


def test_ingest_again_replaces_a_changed_document_and_sets_a_broken_one_aside(tmp_path: Path) -> None:
    place = Place(tmp_path)
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.pdf").write_bytes(pdf([["first edition"], ["second page"]]))
    (files / "b.docx").write_bytes(docx(["kept as it is"]))
    (files / "c.pdf").write_bytes(b"%PDF-1.4 nothing")
    (files / "d.bin").write_bytes(b"\x7fELF" + bytes(100))
    (files / "e.log").write_text("a line\n")
    place.start()
    try:
        names = [str(path) for path in sorted(files.iterdir())]
        done = place.run("ingest", "docs", *names, "--json")
        assert json.loads(done.stdout)["stored"] == 3, done.stderr
        assert json.loads(done.stdout)["dead_letters"] == 2
        assert done.returncode == 1
        first = (files / "a.pdf").read_bytes()
        (files / "a.pdf").write_bytes(pdf([["third edition"]]))
        assert json.loads(place.run("ingest", "docs", *names[:2], "--again", "--json").stdout)["stored"] == 2
        assert sorted(place.values("docs"))[-1] == "third edition"
        assert len(place.values("docs")) == 3
        (files / "a.pdf").write_bytes(first)  # a text that comes back is a version like any other
        done = place.run("ingest", "docs", *names[:2], "--json")
        assert (json.loads(done.stdout)["stored"], json.loads(done.stdout)["duplicates"]) == (1, 1)
        listed = json.loads(place.run("documents", "docs", "--json").stdout)
        assert [(row["format"], row["pages"]) for row in listed] == [("pdf", 2), ("docx", None)]
    finally:
        place.kill()


def test_the_daemon_follows_a_folder_through_changes_and_deletions(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.pdf").write_bytes(pdf([["page one"], ["the amber door"]]))
    (folder / "b.md").write_text("# The birch window\n")
    (folder / "c.pdf").write_bytes(b"%PDF-1.4 nothing")
    place = Place(tmp_path)
    command = [sys.executable, "-m", "headwater.daemon", "--data-dir", str(tmp_path / "data"), "--port", "0", str(folder)]
    place.daemon = subprocess.Popen(command, env=place.environment, stderr=subprocess.DEVNULL)
    try:
        answering(place.settings)
        with place.connect() as hw:
            eventually(lambda: place.stored("folder") == 2 and len(hw.search('"amber door"')) == 1)
            assert hw.search('"amber door"')[0].attributes["page"] == 2
            eventually(lambda: [letter.payload for letter in hw.dead_letters()] == ["c.pdf"])
            (folder / "a.pdf").write_bytes(pdf([["the cedar gate"]]))
            (folder / "b.md").unlink()
            eventually(lambda: place.values("folder") == ["the cedar gate"])
            assert len(hw.search('"amber door"')) + len(hw.search('"birch window"')) == 0
    finally:
        place.kill()


def test_no_converter_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom headwater.sources.convert import Converter\nc = Converter()\n"
        "c.convert(b'<html><p>x</p></html>', 'html')\nprint(c._child.pid, flush=True)\nos._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    eventually(lambda: not Path(f"/proc/{int(done.stdout)}/stat").exists() or _is_zombie(int(done.stdout)))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_hit_on_the_command_line_says_its_document_and_page(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "plan.pdf").write_bytes(pdf([["page one"], ["the amber door"]]))
    place.start()
    try:
        place.run("ingest", "docs", str(tmp_path / "plan.pdf"), "--wait")
        assert "plan.pdf, page 2: " in place.run("search", '"amber door"').stdout
    finally:
        place.kill()
