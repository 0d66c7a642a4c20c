"""The examples of README.md and docs/ run, and print what the docs say they print.

`<!-- example: NAME -->` before a python block: it is run in a directory of its own, and what it prints is the text block
marked `<!-- output: NAME -->`, where there is one. `<!-- run: NAME -->` before a sh block: every command in it succeeds. The
model is `hash`, which takes no time to load, except for the examples in _MEANING.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater import launch
from headwater.config import load
from serving import serving, settings_in

ROOT = Path(__file__).parent.parent
_MEANING = ("sdk",)  # what these print or check depends on meaning
_MARKED = re.compile(r"<!-- (example|output|run): ([\w-]+) -->\n+```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_DAEMON = "http://127.0.0.1:8787"


@dataclass(frozen=True, slots=True)
class Block:
    file: Path
    sort: str
    name: str
    language: str
    text: str


def _blocks() -> list[Block]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Block(file, *found.groups()) for file in files for found in _MARKED.finditer(file.read_text("utf-8"))]


BLOCKS = _blocks()
OUTPUTS = {b.name: b.text for b in BLOCKS if b.sort == "output"}
EXAMPLES = [b for b in BLOCKS if b.sort == "example"]
SCRIPTS = {b.name: b for b in BLOCKS if b.sort == "run"}
HOW_TOS = [b for b in SCRIPTS.values() if b.file.parent.name == "how-to"]


def test_every_marked_block_is_found_once_and_every_output_has_its_example() -> None:
    marks = sum(
        len(re.findall(r"<!-- (?:example|output|run):", file.read_text("utf-8")))
        for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    )
    assert marks == len(BLOCKS)
    names = [b.name for b in BLOCKS if b.sort != "output"]
    assert len(names) == len(set(names))
    assert OUTPUTS.keys() <= {b.name for b in EXAMPLES}
    assert set(_MEANING) <= {b.name for b in EXAMPLES}


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda b: b.name)
def test_a_python_example_runs_and_prints_what_is_said(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_DATA_DIR", str(tmp_path / "default"))
    if block.name not in _MEANING:
        monkeypatch.setenv("HEADWATER_EMBEDDING_MODEL", "hash")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, f"{block.file.name}:{block.name}", "exec"), {"__name__": "__main__"})
    if block.name in OUTPUTS:
        assert printed.getvalue() == OUTPUTS[block.name]
    else:
        assert printed.getvalue().strip()


def test_the_readme_example_finds_what_shares_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README says so: `duplicate payment` finds `charged twice`, and the answer quotes it."""
    (block,) = (b for b in EXAMPLES if b.name == "sdk")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block.text, "README.md", "exec"), names)
    assert names["hits"][0].address == "tickets/0/0"  # type: ignore[index]
    assert "charged twice" in names["answer"].citations[0].quote  # type: ignore[attr-defined]


def _run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A script whose every command must succeed, with this environment's `headwater` first on the path."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HEADWATER_DATA_DIR": str(directory / "default"),
        "HEADWATER_EMBEDDING_MODEL": "hash",
    }
    environment.pop("HEADWATER_URL", None)
    shell = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(shell, cwd=directory, env=environment, capture_output=True, text=True, timeout=240)


def test_the_commands_of_the_command_page_succeed(tmp_path: Path) -> None:
    done = _run(SCRIPTS["commands"].text, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "logs/0/0" in done.stdout
    assert not (tmp_path / "default").exists()  # they say --data; nothing else is touched


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples use curl")
def test_the_requests_of_the_http_page_succeed(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path / "served")) as url:
        script = SCRIPTS["http"].text
        assert _DAEMON in script
        done = _run(script.replace(_DAEMON, url), tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"address":"tickets/0/0"' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", HOW_TOS, ids=lambda b: b.name)
def test_the_commands_of_a_how_to_succeed(block: Block, tmp_path: Path) -> None:
    try:
        done = _run(block.text, tmp_path)
    finally:
        if (runtime := launch.find(load(None, {"data_dir": str(tmp_path / "default")}).settings)) is not None:
            os.kill(runtime.pid, signal.SIGTERM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_run_block_is_run_by_a_test() -> None:
    assert set(SCRIPTS) == {"commands", "http"} | {block.name for block in HOW_TOS}


def test_every_python_block_of_the_docs_is_an_example_that_runs() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```$", file.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        run = {b.text for b in EXAMPLES if b.file == file}
        assert set(blocks) <= run, f"{file.name}: mark each python block by `<!-- example: NAME -->`"
