"""The tutorial shows what the demo shows: its commands are run against the daemon that the demo leaves, its outputs compared.

Numbers and dates differ from run to run, columns have other widths, and `...` in the tutorial stands for anything: the rest of
each line must be there, in one line of what was printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
_STEP = re.compile(r"^## (\d)\. [^\n]*\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(
    r"<!-- tutorial -->\n```sh\n(.*?)^```\n(?:(?:(?!```|<!--).)*?^```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE
)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT14:05:00Z")
MOST_S = 800


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's output, and where the daemon it left listens."""

    printed: str
    url: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`make demo KEEP=1`, its daemon ended afterwards."""
    environment = _environment(tmp_path_factory.mktemp("demo"))
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", "demo", "--keep"],
        capture_output=True,
        text=True,
        timeout=MOST_S,
        env=environment,
    )
    printed = done.stdout + done.stderr
    kept = re.search(r"stop it:\s+kill (\d+) && rm -r (\S+)", printed)
    try:
        assert done.returncode == 0, printed
        url = re.search(r"a daemon of its own at (\S+),", printed)
        assert url is not None, printed
        yield Demo(printed, url[1])
    finally:
        if kept is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(kept[1]), signal.SIGTERM)
            shutil.rmtree(kept[2], ignore_errors=True)


def _environment(directory: Path, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HEADWATER_DATA_DIR": str(directory / "default"), "COLUMNS": "200", **more}


def _plain(text: str) -> str:
    """A line without what differs: numbers as 0, blanks as one."""
    return " ".join(re.sub(r"\d[\d,.:]*", "0", text).split())


def _steps() -> dict[str, list[tuple[str, str]]]:
    """The commands of each numbered step with what they are said to print."""
    return {
        number: [(found[1], found[2] or "") for found in _BLOCK.finditer(body)]
        for number, body in _STEP.findall(PAGE.read_text("utf-8"))
    }


STEPS = _steps()


def test_every_step_of_the_tutorial_has_commands_and_what_they_print() -> None:
    assert list(STEPS) == list("12345678")
    assert PAGE.read_text("utf-8").count("<!-- tutorial -->") == sum(len(blocks) for blocks in STEPS.values())
    for number, blocks in STEPS.items():
        assert any(said for _, said in blocks), number


def _is_printed(line: str, printed: list[str]) -> bool:
    pattern = ".*".join(re.escape(_plain(part)) for part in line.split("..."))
    return any(re.search(pattern, one) for one in printed)


@pytest.mark.slow
def test_the_demo_shows_what_the_tutorial_goes_through(demo: Demo) -> None:
    """Each numbered part of the demo is a step, and each command it names stands in that step."""
    parts = re.findall(r"^(\d)\. (?:.*)\n((?:(?!^\d\. |^Connect ).*\n)*)", demo.printed, re.MULTILINE)
    assert [number for number, _ in parts] == list(STEPS)
    text = dict(_STEP.findall(PAGE.read_text("utf-8")))
    for number, body in parts:
        for command in re.findall(r"^\$ (headwater .*?)(?:\s+\(\d+ ms\))?$", body, re.MULTILINE):
            if "payment requests time out" not in command:  # one more question of the same kind
                assert _plain(command) in _plain(text[number]), command
    assert re.search(r"\d+ of \d+ checks against the truth of the incident hold", demo.printed)


@pytest.mark.slow
@pytest.mark.parametrize("number", STEPS)
def test_a_step_of_the_tutorial_prints_what_it_says(number: str, demo: Demo, tmp_path: Path) -> None:
    deploy = _DATE.search(demo.printed)
    assert deploy is not None
    for commands, said in STEPS[number]:
        script = _DATE.sub(deploy[0], commands)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script], capture_output=True, text=True, timeout=MOST_S,
            env=_environment(tmp_path, HEADWATER_URL=demo.url),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed = [_plain(line) for line in (done.stdout + done.stderr).splitlines()]
        for line in said.splitlines():
            assert _is_printed(line, printed), f"{line!r} is not in\n" + "\n".join(printed)
