"""Every shell block of the docs is parted as a shell would, and every `headwater` command in it parsed by the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

from headwater.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:sh|shell|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_BEFORE = {"sudo", "exec", "if", "until", "while", "do", "then", "time"}
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?\n.*?^\1$", re.DOTALL | re.MULTILINE)


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a shell script: what stands between separators, without assignments before it."""
    text = _HEREDOC.sub("", script).replace("\\\n", " ")
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("();|&"):
                words.append(word)
                continue
            while words and (words[0] in _BEFORE or re.match(r"\w+=", words[0])):
                words.pop(0)
            if words:
                yield words
            words = []


def test_a_script_is_parted_into_its_commands() -> None:
    script = (
        "export A=$(headwater webhook secret)\n"
        "until headwater search 'a | b' --json | grep x; do sleep 1; done && B=1 headwater up \\\n  f  # why\n"
    )
    found = [words for words in commands(script) if "headwater" in words]
    assert found == [["headwater", "webhook", "secret"], ["headwater", "search", "a | b", "--json"], ["headwater", "up", "f"]]


def _written() -> list[tuple[str, list[str]]]:
    found = []
    for file in PAGES:
        for block in _BLOCK.findall(file.read_text("utf-8")):
            for words in commands(block):
                if words[0].rpartition("/")[2] == "headwater":
                    found.append((f"{file.relative_to(ROOT)}: {' '.join(words)}", words[1:]))
    return found


WRITTEN = _written()
COMMAND: Any = typer.main.get_command(app)


def test_there_are_commands_to_look_at() -> None:
    assert len(WRITTEN) > 80


@pytest.mark.parametrize("words", [words for _, words in WRITTEN], ids=[name for name, _ in WRITTEN])
def test_a_command_in_a_shell_block_parses(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize(
    "line", ["search x --no-such", "watch ad x", "search", "topics create", "search x --top-k many", "nothing"]
)
def test_a_command_that_is_none_is_found_out(line: str) -> None:
    with pytest.raises(AssertionError, match=line):
        parse(line.split())


def parse(words: list[str]) -> None:
    """AssertionError unless options exist and take what is given, and no argument is missing or too much. Nothing is run; files
    need not be there."""
    command = COMMAND
    context, rest, name = None, list(words), "headwater"
    try:
        while True:
            context = command.make_context(name, list(rest), parent=context)
            if not hasattr(command, "commands") or not (inner := [*context._protected_args, *context.args]):
                return
            name, command, rest = command.resolve_command(context, inner)
    except TyperException as error:
        if "does not exist" not in str(error):
            raise AssertionError(f"headwater {' '.join(words)}: {error}") from error
